"""STOW-RS: results go out, and objects come in, by HTTP."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import HTTP
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("pynetdicom", reason="the extra clinic is not installed")
pytest.importorskip("sqlalchemy", reason="the extra clinic is not installed")
pytest.importorskip("fastapi", reason="the extra clinic is not installed")

from pydicom import dcmread
from pydicom.dataset import Dataset

from clinic_parts import Authority, Clock, encoded, give_results, stored, view
from mammodensity.clinic.config import ClinicConfig, StowDestination, Tls, Web, config_from, read_config
from mammodensity.clinic.database import Database
from mammodensity.clinic.delivery import Delivery
from mammodensity.clinic.node import Node
from mammodensity.errors import OptionError
from mammodensity.terms import Projection
from mammodensity.web.server import WebServer


class Archive:
    """A STOW-RS server that answers as told; what it was sent."""

    def __init__(self, status: int, kind: str, context: ssl.SSLContext | None = None) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                archive.bodies.append(body)
                archive.headers.append(dict(self.headers))
                archive.paths.append(self.path)
                answer = archive.answer(kind)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def part(self, place: int) -> bytes:
        """The DICOM file in a request, found by the standard library's reader of multipart messages."""
        head = f"Content-Type: {self.headers[place]['Content-Type']}\r\n\r\n".encode()
        (part,) = message_from_bytes(head + self.bodies[place], policy=HTTP).iter_parts()
        assert part.get_content_type() == "application/dicom"
        return self.bodies[place].split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]

    def answer(self, kind: str) -> bytes:
        uid = dcmread(BytesIO(self.part(-1)), stop_before_pixels=True).SOPInstanceUID
        answer, item = Dataset(), Dataset()
        item.ReferencedSOPInstanceUID = uid
        if kind == "stored":
            answer.ReferencedSOPSequence = [item]
            answer.FailedSOPSequence = []
        elif kind in ("failed", "class"):
            item.FailureReason = 0xA700 if kind == "failed" else 0x0122
            answer.FailedSOPSequence = [item]
        elif kind == "list":
            answer.ReferencedSOPSequence = [item]
            return f"[{answer.to_json()}]".encode()
        return b"" if kind == "empty" else b"<html>" if kind == "html" else answer.to_json().encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def delivering(tmp_path, url: str, tls: Tls | None = None, **settings):
    database, clock = Database(f"sqlite:///{tmp_path / 'node.sqlite'}"), Clock()
    config = ClinicConfig(destinations=(StowDestination("pacs", url, **settings),), tls=tls)
    (uid,) = give_results(database, clock, count=1)
    yield Delivery(config, database, clock), database, clock, uid
    database.close()


@pytest.mark.parametrize(
    ("status", "kind", "state", "reason"),
    [
        (200, "stored", "sent", ""),
        (200, "list", "sent", ""),
        (200, "empty", "sent", ""),
        (200, "failed", "waiting", "HTTP status 200, failure 0xA700"),
        (202, "stored", "sent", ""),
        (202, "failed", "waiting", "HTTP status 202, failure 0xA700"),
        (202, "html", "waiting", "HTTP status 202"),
        (202, "class", "failed", "does not take its class"),
        (409, "failed", "waiting", "HTTP status 409, failure 0xA700"),
        (409, "class", "failed", "does not take its class"),
        (401, "html", "waiting", "HTTP status 401"),
        (301, "empty", "waiting", "HTTP status 301"),
        (503, "html", "waiting", "HTTP status 503"),
    ],
)
def test_an_object_counts_as_sent_only_when_the_answer_says_so(tmp_path, status, kind, state, reason):
    archive = Archive(status, kind)
    with delivering(tmp_path, f"http://127.0.0.1:{archive.port}/dicom-web/") as (delivery, database, clock, uid):
        (content,) = [due.content for due in database.to_send(clock.now)]
        assert delivery.send_once() == (state == "sent")
        (row,) = database.deliveries()
        assert (row["state"], row["sop_uid"]) == (state, uid)
        assert reason in row["reason"]
        assert archive.paths == ["/dicom-web/studies"]
        assert archive.part(0) == content
        assert delivery.send_once() == 0, "the pause is not over"
        clock.now += 10
        delivery.send_once()
        assert len(archive.bodies) == (2 if state == "waiting" else 1)
        assert archive.bodies[0] == archive.bodies[-1], "the same bytes again"
    archive.stop()


def test_a_server_that_is_down_is_asked_again(tmp_path):
    archive = Archive(200, "stored")
    archive.stop()
    with delivering(tmp_path, f"http://127.0.0.1:{archive.port}") as (delivery, database, _, _):
        assert delivery.send_once() == 0
        assert "it does not answer: Connection refused" in database.deliveries()[0]["reason"]


@pytest.mark.parametrize("kind", ["token", "password"])
def test_secrets_come_from_files_or_the_environment_and_are_shown_nowhere(tmp_path, monkeypatch, capfd, kind):
    (tmp_path / "secret").write_text("hush-hush\n")
    monkeypatch.setenv("THE_SECRET", "hush-hush")
    archive = Archive(401, "html")
    for place in ("file:secret", "env:THE_SECRET"):
        (tmp_path / "node.toml").write_text(
            f'[[destinations]]\nkind = "stow"\nname = "pacs"\nurl = "http://127.0.0.1:{archive.port}"\n'
            f'user = "node"\n{kind} = "{place}"\n'
        )
        config = read_config(tmp_path / "node.toml")
        database, clock = Database("sqlite://"), Clock()
        give_results(database, clock, count=1)
        Delivery(config, database, clock).send_once()
        assert "hush" not in str(database.deliveries())
        assert "hush" not in repr(config)
        database.close()
    expected = {"token": "Bearer hush-hush", "password": "Basic bm9kZTpodXNoLWh1c2g="}[kind]
    assert [headers["Authorization"] for headers in archive.headers] == [expected] * 2
    assert "hush" not in capfd.readouterr().err
    archive.stop()


def test_secrets_that_cannot_be_read_or_kept_are_no_configuration(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'node.sqlite'}")
    for secret, message in (("file:absent", "cannot be read"), ("env:ABSENT_SECRET", "must hold one line")):
        config = ClinicConfig(destinations=(StowDestination("pacs", "http://127.0.0.1", token=secret),))
        with pytest.raises(OptionError, match=message):
            Delivery(config, database)
    database.close()
    for settings, message in (
        ({"token": "hush"}, "token must"),
        ({"url": "http://pacs.example", "token": "env:A"}, "must begin with https"),
        ({"url": "http://user:hush@pacs.example"}, "url must"),
        ({"url": "ftp://pacs.example"}, "url must"),
        ({"token": "env:A", "password": "env:B"}, "exclude each other"),
    ):
        with pytest.raises(OptionError, match=message):
            StowDestination(**({"name": "pacs", "url": "https://pacs.example"} | settings))
    item = {"kind": "stow", "name": "pacs", "url": "https://pacs.example"}
    assert config_from(json.loads(json.dumps({"destinations": [item]}))).destinations == (
        StowDestination("pacs", "https://pacs.example"),
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("good", ""),
        ("expired", "certificate has expired"),
        ("elsewhere", "IP address mismatch"),
        ("stranger", "unable to get local issuer certificate"),
        ("plain", "it does not answer"),
    ],
)
def test_only_a_server_with_a_good_certificate_is_sent_to(tmp_path, name, reason):
    authority = Authority(tmp_path, "authority")
    signer = Authority(tmp_path, "other") if name == "stranger" else authority
    host = "DNS:other.example" if name == "elsewhere" else "IP:127.0.0.1"
    signed = signer.sign(name, host, days=-1 if name == "expired" else 2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed["certificate"], signed["key"])
    archive = Archive(200, "stored", None if name == "plain" else context)
    tls = Tls(authority=str(authority.file), **authority.sign("node"))
    with delivering(tmp_path, f"https://127.0.0.1:{archive.port}", tls) as (delivery, database, _, _):
        assert delivery.send_once() == (not reason)
        assert reason in database.deliveries()[0]["reason"]
        assert len(archive.bodies) == (not reason)
    archive.stop()


# what comes in


@contextmanager
def receiving(tmp_path, **settings):
    """A node that takes objects by STOW-RS; the URL of its services, and the node."""
    tls = settings.pop("tls", None)
    node = Node(ClinicConfig(web=Web(port=0, stow=True, **settings), tls=tls, least_free_gb=0.0), tmp_path)
    web = WebServer(node)
    port = web.start()
    yield f"{web.scheme}://127.0.0.1:{port}/dicom-web", node
    web.stop()
    node.database.close()


def post(url: str, *contents: bytes, kind: str = "application/dicom", cut: int = 0, **headers: str):
    """Post parts; status and answer."""
    body = b"".join(f"--XX\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n" for content in contents)
    body += b"--XX--\r\n"
    usual = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=XX'}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, data=body[: len(body) - cut], headers=usual | more), timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def failures(answer: dict, tag: str = "00081198") -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.get(tag, {"Value": []})["Value"]]


def test_dicomweb_client_stores_what_a_c_store_would(tmp_path):
    client = pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed")
    images = [view(projection) for projection in Projection]
    with receiving(tmp_path) as (url, node):
        answer = client.DICOMwebClient(url).store_instances(images)
        assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
            image.SOPInstanceUID for image in images
        ]
        assert "FailedSOPSequence" not in answer
        (exam,) = node.database.exams()
        assert exam["study_uid"] == images[0].StudyInstanceUID
        assert sorted(dcmread(file).PixelData for file in stored(tmp_path)) == sorted(i.PixelData for i in images)
        content = BytesIO()
        images[0].save_as(content, enforce_file_format=True, implicit_vr=False, little_endian=True)
        assert node.inbox.keep(content.getvalue(), "SCANNER") == 0, "the same image by C-STORE"
        assert node.database.exams()[0]["state"] == "collecting"
    assert len(stored(tmp_path)) == 4


def test_what_cannot_be_stored_is_told_one_by_one(tmp_path):
    first, second = (encoded(view(Projection.CC_R)) for _ in range(2))
    with receiving(tmp_path) as (url, node):
        status, answer = post(f"{url}/studies", first, b"no DICOM", second)
        assert (status, failures(answer, "0008119A"), len(answer["00081199"]["Value"])) == (202, [0xC000], 2)
        status, answer = post(f"{url}/studies/1.2.3", first)
        assert (status, failures(answer)) == (409, [0xA900])
        assert post(f"{url}/studies/1.2.826.0.1.3680043.8.498.1", first)[0] == 200
        assert post(f"{url}/studies", b"{}", kind="application/dicom+json")[0] == 409
        node.inbox._config = ClinicConfig(least_free_gb=1e9)
        status, answer = post(f"{url}/studies", first)
        assert (status, failures(answer)) == (503, [0xA700])
    assert len(stored(tmp_path)) == 2


def test_requests_that_are_no_store_are_refused(tmp_path):
    content = encoded(view(Projection.CC_R))
    with receiving(tmp_path, most_mb=1) as (url, _):
        studies = f"{url}/studies"
        assert post(studies, content, Content_Type="application/dicom")[0] == 415
        assert post(studies, content, Content_Type='multipart/related; type="application/dicom"')[0] == 400
        assert post(studies, content, Content_Type='multipart/related; type="application/dicom"; boundary=YY')[0] == 400
        assert post(studies, content, Origin="http://evil.example")[0] == 403
        assert post(studies)[0] == 400
        assert post(studies, b"\0" * 1_000_001)[0] == 413
        assert stored(tmp_path) == []
        assert post(studies, content, cut=20)[0] == 400
        assert stored(tmp_path) == []
        assert post(studies, content, content, cut=20)[0] == 400, "the first part was whole"
        assert len(stored(tmp_path)) == 1
        assert list((tmp_path / "incoming").iterdir()) == []


def test_a_connection_that_is_cut_leaves_no_file(tmp_path):
    content = encoded(view(Projection.CC_R))
    with receiving(tmp_path) as (url, node):
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content) + 500}\r\n"
            head += 'Content-Type: multipart/related; type="application/dicom"; boundary=XX\r\n\r\n'
            connection.sendall(head.encode() + b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + content)
        assert post(f"{url}/studies", content)[0] == 200
        assert len(stored(tmp_path)) == 1
        assert list((tmp_path / "incoming").iterdir()) == []
        assert len(node.database.exams()) == 1


@pytest.mark.parametrize("shown", ["scanner", "expired", "stranger", None])
def test_https_takes_known_certificates_only(tmp_path, shown):
    authority = Authority(tmp_path, "authority")
    signer = Authority(tmp_path, "other") if shown == "stranger" else authority
    context = ssl.create_default_context(cafile=str(authority.file))
    if shown:
        signed = signer.sign(shown, days=-1 if shown == "expired" else 2)
        context.load_cert_chain(signed["certificate"], signed["key"])
    tls = Tls(authority=str(authority.file), **authority.sign("node"))
    with receiving(tmp_path / "node", tls=tls) as (url, _):
        place = url.removeprefix("https://").split("/")[0]
        connection = HTTPSConnection(place, timeout=10, context=context)
        body = b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + encoded(view(Projection.CC_R)) + b"\r\n--XX--\r\n"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=XX'}
        try:
            connection.request("POST", "/dicom-web/studies", body, headers)
            status = connection.getresponse().status
        except OSError:
            status = 0
        connection.close()
        assert status == (200 if shown == "scanner" else 0)
        if shown == "scanner":
            with socket.create_connection(("127.0.0.1", int(place.split(":")[1])), timeout=10) as plain:
                plain.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert b"200" not in plain.recv(100)
    assert len(stored(tmp_path / "node")) == (shown == "scanner")
