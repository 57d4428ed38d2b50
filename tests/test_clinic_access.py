"""Who may reach the node: AE titles, addresses, certificates; and what silent or broken connections can do."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack

import pytest

pytest.importorskip("pynetdicom", reason="the extra clinic is not installed")
pytest.importorskip("sqlalchemy", reason="the extra clinic is not installed")

from pynetdicom import AE, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage

from clinic_parts import Authority, Clock, associate, give_results, listening, stored, view
from mammodensity.clinic.certificates import server_context
from mammodensity.clinic.config import ClinicConfig, Destination, Sender, Tls, is_within, read_config
from mammodensity.clinic.database import Database
from mammodensity.clinic.delivery import Delivery
from mammodensity.errors import OptionError
from mammodensity.terms import Projection


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The authority, and certificates: of the node, of a scanner, expired, for another host, and of a stranger."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder, "authority")
    signed = {
        "node": authority.sign("node"),
        "scanner": authority.sign("scanner"),
        "expired": authority.sign("expired", days=-1),
        "elsewhere": authority.sign("elsewhere", "DNS:other.example"),
        "stranger": Authority(folder, "other").sign("stranger"),
    }
    return str(authority.file), signed


def events(capfd) -> list[dict[str, str]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    ("called", "calling", "reason"),
    [
        ("OTHER", "SCANNER", "called AE title"),
        ("MAMMODENSITY", "STRANGER", "calling AE title"),
        ("MAMMODENSITY", "ELSEWHERE", "address"),
    ],
)
def test_strangers_are_refused_logged_and_nothing_is_stored(tmp_path, capfd, called, calling, reason):
    senders = (Sender("SCANNER", "127.0.0.0/8"), Sender("ELSEWHERE", "10.9.8.0/24"))
    with listening(tmp_path, senders=senders) as (port, _):
        assert not associate(port, called, calling).is_established
        association = associate(port)
        assert association.is_established
        association.release()
    refused = [event for event in events(capfd) if event["event"] == "refused"]
    assert [(event["sender"], event["reason"], event["address"]) for event in refused] == [
        (calling, reason, "127.0.0.1")
    ]
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("address", "network", "inside"),
    [
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.6", "10.0.0.5", False),
        ("10.0.0.6", "10.0.0.0/24", True),
        ("10.0.1.6", "10.0.0.0/24", False),
        ("10.0.0.6", "10.0.0.77/24", True),
        ("::ffff:10.0.0.6", "10.0.0.0/24", True),
        ("fd00::7", "fd00::/64", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("10.0.0.6", "fd00::/64", False),
    ],
)
def test_addresses_and_networks(address, network, inside):
    assert is_within(address, network) is inside


def test_a_sender_whose_address_is_none_is_no_configuration():
    with pytest.raises(OptionError, match="address must be an IP address or a network"):
        Sender("SCANNER", "10.0.0")


# TLS


def client(authority: str, certificate: dict[str, str] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    if certificate:
        context.load_cert_chain(certificate["certificate"], certificate["key"])
    return context


def test_an_image_enters_by_tls(tmp_path, certificates):
    authority, signed = certificates
    with listening(tmp_path, tls=Tls(authority=authority, **signed["node"])) as (port, _):
        association = associate(port, tls_args=(client(authority, signed["scanner"]), "127.0.0.1"))
        assert association.send_c_store(view(Projection.CC_R)).Status == 0
        association.release()
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize("shown", ["stranger", "expired", None, "plain"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves sockets open
def test_certificates_that_are_not_trusted_do_not_enter(tmp_path, capfd, certificates, shown):
    authority, signed = certificates
    with listening(tmp_path, tls=Tls(authority=authority, **signed["node"])) as (port, _):
        certificate = signed.get(shown)
        options = {} if shown == "plain" else {"tls_args": (client(authority, certificate), "127.0.0.1")}
        assert not associate(port, **options).is_established
    assert [event["address"] for event in events(capfd) if event["event"] == "refused-tls"] == ["127.0.0.1"]
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ("node", None),
        ("stranger", "TLS: unable to get local issuer certificate"),
        ("expired", "TLS: certificate has expired"),
        ("elsewhere", "TLS: IP address mismatch"),
        ("plain", "TLS: "),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves sockets open
def test_results_go_to_trusted_hosts_only(tmp_path, capfd, certificates, shown, reason):
    authority, signed = certificates
    entity, received = AE(ae_title="PACS"), []
    entity.add_supported_context(SecondaryCaptureImageStorage)
    context = None
    if shown != "plain":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed[shown]["certificate"], signed[shown]["key"])

    def store(event):
        received.append(str(event.dataset.SOPInstanceUID))
        return 0

    handlers = [(evt.EVT_C_STORE, store)]
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=handlers)
    config = ClinicConfig(
        destinations=(Destination("pacs", "PACS", "127.0.0.1", server.socket.getsockname()[1], tls=True),),
        tls=Tls(authority=authority, **signed["scanner"]),
    )
    database, clock = Database(f"sqlite:///{tmp_path / 'node.sqlite'}"), Clock()
    give_results(database, clock, count=1)
    Delivery(config, database, clock).send_once()
    (row,) = database.deliveries()
    server.shutdown()
    database.close()
    if reason is None:
        assert (row["state"], received) == ("sent", [row["sop_uid"]])
    else:
        assert (row["state"], received) == ("waiting", [])
        assert row["reason"].startswith(reason)
        assert any(event["event"] == "not-sent" and reason in event["reason"] for event in events(capfd))


def test_certificates_are_checked_before_the_node_starts(tmp_path, certificates):
    authority, signed = certificates
    tables = {
        "authority is needed": signed["node"],
        "cannot be used": {"certificate": signed["node"]["certificate"], "key": signed["scanner"]["key"]},
        "No such file": {"certificate": "absent.pem", "key": "absent.key"},
    }
    for message, table in tables.items():
        lines = "\n".join(f'{name} = "{value}"' for name, value in table.items())
        more = "" if message == "authority is needed" else f'\nauthority = "{authority}"'
        (tmp_path / "node.toml").write_text(f"[tls]\n{lines}{more}\n")
        with pytest.raises(OptionError, match=message):
            server_context(read_config(tmp_path / "node.toml").tls)


# silent and broken connections


@pytest.mark.parametrize("secured", [False, True])
def test_a_real_image_enters_while_fifty_connections_are_silent(tmp_path, certificates, secured):
    authority, signed = certificates
    tls = Tls(authority=authority, **signed["node"]) if secured else None
    options = {"tls_args": (client(authority, signed["scanner"]), "127.0.0.1")} if secured else {}
    with listening(tmp_path, tls=tls) as (port, _), ExitStack() as stack:
        for number in range(50):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(b"\x01\x00\x00\x00" * (number % 10 == 0))  # nothing, or a part of a request
        started = time.monotonic()
        association = associate(port, **options)
        assert association.send_c_store(view(Projection.CC_R)).Status == 0
        association.release()
        assert time.monotonic() - started < 30


@pytest.mark.slow
def test_a_real_image_enters_while_fifty_associations_are_idle(tmp_path):
    with listening(tmp_path) as (port, _), ExitStack() as stack:
        requests: list[bytes] = []
        association = AE(ae_title="SCANNER")
        association.add_requested_context("1.2.840.10008.1.1")
        first = association.associate(
            "127.0.0.1",
            port,
            ae_title="MAMMODENSITY",
            evt_handlers=[(evt.EVT_PDU_SENT, lambda event: requests.append(event.pdu.encode()))],
        )
        first.release()
        for _ in range(50):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(requests[0])
            assert connection.recv(1) == b"\x02"  # accepted
        started = time.monotonic()
        association = associate(port)
        assert association.send_c_store(view(Projection.CC_R)).Status == 0
        association.release()
        assert time.monotonic() - started < 30


def test_half_a_pdu_does_not_keep_its_thread(tmp_path, monkeypatch):
    monkeypatch.setattr("mammodensity.clinic.listener.NETWORK_TIMEOUT_S", 0.5)
    with listening(tmp_path) as (port, database):
        association = associate(port)
        association.dul.socket.socket.sendall(b"\x04\x00\x00\x00\xff\xff" + b"\0" * 5000)
        association.join(10)
        assert not association.is_alive()
        assert stored(tmp_path) == []
        assert list((tmp_path / "incoming").iterdir()) == []
        assert database.exams() == []


def test_a_disk_that_is_full_gives_no_success_and_recovers(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this system lets nobody mount a small file system")
    try:
        with listening(place) as (port, database):
            filler = place / "filler"
            association = associate(port)
            image = view(Projection.CC_R)
            with filler.open("wb", buffering=0) as stream:
                while _writes(stream):
                    pass
            assert association.send_c_store(image).Status == 0xA700
            assert stored(place) == []
            assert list((place / "incoming").iterdir()) == []
            filler.unlink()
            assert association.send_c_store(image).Status == 0
            association.release()
            assert len(stored(place)) == 1
            assert len(database.exams()) == 1
    finally:
        subprocess.run(["umount", place], check=True)


def _writes(stream) -> bool:
    try:
        return stream.write(b"\0" * 4096) > 0
    except OSError:
        return False
