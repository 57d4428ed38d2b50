"""The node: nothing that was answered with success is lost, nothing is read or sent twice, and failures are visible."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="the extra clinic is not installed")
pytest.importorskip("sqlalchemy", reason="the extra clinic is not installed")

from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    SecondaryCaptureImageStorage,
)

from bench.clinic import free_port, postgresql
from clinic_parts import Clock, associate, listening, stored, view
from dicom_samples import dcmtk, mammogram
from mammodensity import predict
from mammodensity.clinic.config import ClinicConfig, Destination, Sender, config_from, read_config
from mammodensity.clinic.database import Arrival, Database, database_url
from mammodensity.clinic.delivery import Delivery
from mammodensity.clinic.inbox import Inbox
from mammodensity.clinic.sources import MadeObject
from mammodensity.clinic.worker import Worker
from mammodensity.errors import OptionError, OutputError
from mammodensity.terms import Projection

SETTLE = {"settle_s": 20.0, "settle_incomplete_s": 900.0}


@pytest.fixture(scope="session", name="postgresql")
def postgresql_url():
    """The URL of a PostgreSQL server of its own."""
    with postgresql() as url:
        if url is None:
            pytest.skip("no PostgreSQL server that this user can start (Debian: postgresql; as root)")
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    url = (
        f"sqlite:///{tmp_path / 'node.sqlite'}" if request.param == "sqlite" else request.getfixturevalue("postgresql")
    )
    database = Database(url)
    yield database
    if request.param == "postgresql":
        from mammodensity.clinic.database import _TABLES

        _TABLES.drop_all(database._engine)
    database.close()


def arrival(number: int, study: str = "1.2", view: str | None = "CC_R", digest: str = "") -> Arrival:
    return Arrival(f"1.2.{number}", study, digest or f"d{number}", f"images/{number}.dcm", view, None, "PACS")


def due_exam(database: Database, study: str = "1.2", first: int = 1) -> None:
    for place, projection in enumerate(Projection):
        database.add(arrival(first + place, study, projection.value), 0.0, **SETTLE)


def test_an_image_that_comes_five_times_at_once_is_one_row(database):
    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(lambda _: database.add(arrival(1), 0.0, **SETTLE), range(5)))
    assert sorted(outcomes) == ["new", "same", "same", "same", "same"]


def test_other_content_under_a_uid_is_kept_aside_and_holds_the_exam(database):
    due_exam(database)
    assert database.add(arrival(1, digest="other"), 1.0, **SETTLE) == "other-content"
    (exam,) = database.exams()
    assert exam["state"] == "held"
    assert "other content" in exam["reason"]
    assert database.claim("w", 1e9, lease_s=10, most_tries=3) is None


def test_four_views_settle_sooner_than_fewer(database):
    database.add(arrival(1), 0.0, **SETTLE)
    assert database.claim("w", 899, lease_s=10, most_tries=3) is None
    due_exam(database, first=10)
    assert database.claim("w", 19, lease_s=10, most_tries=3) is None
    assert database.claim("w", 20, lease_s=10, most_tries=3) is not None


def test_each_exam_is_claimed_once_by_many_workers(database):
    for number in range(12):
        due_exam(database, f"1.3.{number}", 100 * number)

    def work(worker: int) -> list[str]:
        claimed = []
        while (claim := database.claim(f"w{worker}", 100, lease_s=1000, most_tries=3)) is not None:
            claimed.append(claim.study_uid)
            assert database.complete(claim, "key", {}, [], 100)
        return claimed

    with ThreadPoolExecutor(4) as pool:
        studies = [study for claimed in pool.map(work, range(4)) for study in claimed]
    assert sorted(studies) == sorted(f"1.3.{number}" for number in range(12))


def test_a_worker_whose_lease_has_ended_keeps_nothing(database):
    due_exam(database)
    first = database.claim("first", 30, lease_s=10, most_tries=3)
    assert database.claim("second", 39, lease_s=10, most_tries=3) is None
    second = database.claim("second", 40, lease_s=10, most_tries=3)
    assert second is not None
    assert not database.complete(first, "key", {"by": "first"}, [(MadeObject("card", "9.1", b""), ["pacs"])], 41)
    assert database.complete(second, "key", {"by": "second"}, [], 42)
    assert database.results("1.2") == [{"by": "second"}]
    assert database.deliveries() == []


def test_an_image_that_comes_while_the_exam_is_read_makes_it_read_again(database):
    due_exam(database)
    claim = database.claim("w", 30, lease_s=100, most_tries=3)
    database.add(arrival(9), 31, **SETTLE)
    assert not database.complete(claim, "key", {}, [], 32)
    assert database.claim("w", 51, lease_s=100, most_tries=3).files.count("images/9.dcm") == 1


def test_an_exam_over_which_workers_die_has_failed_and_can_be_tried_again(database):
    due_exam(database)
    for time_of_claim in (30, 50, 70):
        assert database.claim("w", time_of_claim, lease_s=10, most_tries=3) is not None
    assert database.claim("w", 90, lease_s=10, most_tries=3) is None
    assert [(exam["state"], exam["reason"]) for exam in database.exams()] == [
        ("failed", "3 workers died or took too long over it")
    ]
    assert database.retry(100) == 1
    assert database.claim("w", 100, lease_s=10, most_tries=3) is not None


def test_a_database_that_is_away_is_told_in_one_line(tmp_path):
    with pytest.raises(OutputError, match="the database cannot be opened"):
        Database(f"sqlite:///{tmp_path}/absent/node.sqlite")


# what arrives by DICOM


@pytest.fixture
def inbox(tmp_path):
    """A node that only receives: its data folder, its database and its port."""
    with listening(tmp_path) as (port, database):
        yield tmp_path, database, port


def test_success_means_that_file_and_row_are_there(inbox):
    folder, database, port = inbox
    association = associate(port)
    assert association.send_c_echo().Status == 0
    image = view(Projection.CC_R)
    assert association.send_c_store(image).Status == 0
    association.release()
    (file,) = stored(folder)
    assert dcmread(file).PixelData == image.PixelData
    (exam,) = database.exams()
    assert (exam["study_uid"], exam["state"]) == (image.StudyInstanceUID, "collecting")
    assert "Phantom" not in str(file)


def test_an_association_that_is_aborted_keeps_what_was_answered(inbox):
    folder, database, port = inbox
    association = associate(port)
    for projection in (Projection.CC_R, Projection.CC_L):
        association.send_c_store(view(projection))
    association.abort()
    association = associate(port)
    for projection in (Projection.MLO_R, Projection.MLO_L):
        association.send_c_store(view(projection))
    association.release()
    assert len(stored(folder)) == 4
    assert len(database.exams()) == 1


def test_a_connection_that_is_cut_within_an_image_leaves_no_file(inbox):
    folder, database, port = inbox
    association = associate(port)
    connection = association.dul.socket.socket
    connection.sendall(b"\x04\x00\x00\x00\xff\xff" + b"\0" * 5000)  # a data PDU of which most never comes
    connection.shutdown(socket.SHUT_RDWR)
    association.join(10)
    connection.close()
    time.sleep(0.2)
    assert stored(folder) == []
    assert list((folder / "incoming").iterdir()) == []
    assert database.exams() == []


def test_a_report_is_kept_and_makes_no_exam(inbox):
    folder, database, port = inbox
    report = mammogram(Projection.CC_R, SOPClassUID=Comprehensive3DSRStorage, Modality="SR", PixelData=None)
    association = associate(port)
    assert association.send_c_store(report).Status == 0
    association.release()
    assert len(stored(folder)) == 1
    assert database.exams() == []


def test_a_disk_that_is_nearly_full_is_no_success(tmp_path):
    with listening(tmp_path, least_free_gb=1e9) as (port, _):
        association = associate(port)
        assert association.send_c_store(view(Projection.CC_R)).Status == 0xA700
        association.release()
    assert stored(tmp_path) == []


def test_a_lost_database_is_no_success(inbox):
    folder, database, port = inbox
    association = associate(port)
    database._engine.dispose()
    (folder / "node.sqlite").rename(folder / "away")
    (folder / "node.sqlite").mkdir()
    assert association.send_c_store(view(Projection.CC_R)).Status == 0xA700
    association.release()
    (folder / "node.sqlite").rmdir()
    (folder / "away").rename(folder / "node.sqlite")
    assert list((folder / "incoming").iterdir()) == []


def test_orphans_of_a_killed_node_are_removed(tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "old.partial").write_bytes(b"x")
    database = Database(f"sqlite:///{tmp_path / 'node.sqlite'}")
    Inbox(ClinicConfig(), tmp_path, database)
    assert list((tmp_path / "incoming").iterdir()) == []
    database.close()


# what workers make of it


@pytest.fixture
def clinic(tmp_path):
    """An inbox and a worker on one folder, with a clock that the test sets."""
    config = ClinicConfig(
        destinations=(Destination("pacs", "PACS", "127.0.0.1", 104),), least_free_gb=0.0, settle_incomplete_s=60.0
    )
    database, clock = Database(f"sqlite:///{tmp_path / 'node.sqlite'}"), Clock()
    inbox, worker = Inbox(config, tmp_path, database, clock), Worker(config, tmp_path, database, clock)
    yield inbox, worker, database, clock
    database.close()


def send(inbox: Inbox, *images) -> None:
    for image in images:
        content = BytesIO()
        image.save_as(content, enforce_file_format=True)
        assert inbox.keep(content.getvalue(), "SCANNER") == 0


def test_the_result_is_that_of_predict(clinic, tmp_path):
    inbox, worker, database, clock = clinic
    images = [view(projection, 320) for projection in Projection]
    send(inbox, *images)
    assert not worker.work_once()
    clock.now += 20
    assert worker.work_once()
    (result,) = database.results(images[0].StudyInstanceUID)
    (tmp_path / "exam").mkdir()
    for number, image in enumerate(images):
        image.save_as(tmp_path / "exam" / f"{number}.dcm")
    (expected,) = predict(tmp_path / "exam", allow_missing=True).to_list()
    assert json.loads(json.dumps(expected)) == result
    assert [(row["kind"], row["state"]) for row in database.deliveries()] == [
        ("report comprehensive3d", "waiting"),
        ("card", "waiting"),
    ]


def test_a_late_view_makes_one_revision_that_names_its_predecessor(clinic):
    inbox, worker, database, clock = clinic
    images = [view(projection, 320) for projection in Projection]
    send(inbox, *images[:3])
    clock.now += 60
    assert worker.work_once()
    send(inbox, images[3])
    clock.now += 20
    assert worker.work_once()
    first, second = database.results(images[0].StudyInstanceUID)
    assert first["missing"] == ["MLO_L"]
    assert second["missing"] == []
    reports = [dcmread(BytesIO(due.content)) for due in database.to_send(clock.now)]
    reports = [report for report in reports if report.Modality == "SR"]
    (reference,) = reports[1].PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == reports[0].SOPInstanceUID
    send(inbox, *images)  # the PACS sends the study again
    clock.now += 1000
    assert not worker.work_once()


def test_images_are_removed_when_their_time_is_over_and_welcome_again(clinic, tmp_path):
    _, worker, database, clock = clinic
    config = replace(worker._config, keep_images_days=30.0)
    inbox = Inbox(config, tmp_path, database, clock)
    images = [view(projection) for projection in Projection]
    study = images[0].StudyInstanceUID
    send(inbox, *images[:3])
    clock.now += 60
    assert worker.work_once()
    clock.now += 31 * 86400
    assert inbox.remove_old() == 0, "the results have not been delivered"
    for delivery in database.to_send(clock.now):
        database.sent(delivery.delivery, clock.now)
    assert inbox.remove_old() == 0
    clock.now += 31 * 86400
    assert inbox.remove_old() == 3
    assert not stored(tmp_path)
    assert len(database.results(study)) == 1

    send(inbox, images[3])
    clock.now += 900
    assert worker.work_once()
    (exam,) = database.exams()
    assert (exam["state"], exam["reason"]) == (
        "collecting",
        "its earlier images were removed; send the whole study again",
    )
    send(inbox, *images)
    clock.now += 20
    assert worker.work_once()
    assert len(stored(tmp_path)) == 4
    first, second = database.results(study)
    assert first["missing"] == ["MLO_L"]
    assert second["missing"] == []


def test_two_patients_in_one_study_are_held(clinic):
    inbox, worker, database, clock = clinic
    send(inbox, *(view(projection, 320, PatientID=f"P{number // 2}") for number, projection in enumerate(Projection)))
    clock.now += 20
    assert worker.work_once()
    (exam,) = database.exams()
    assert exam["state"] == "held"
    assert "several Patient IDs" in exam["reason"]


def test_an_image_that_cannot_be_read_fails_with_its_reason_and_the_worker_lives(clinic):
    inbox, worker, database, clock = clinic
    blank = view(Projection.CC_R, 320)
    blank.PixelData = b"\0" * len(blank.PixelData)
    send(inbox, blank)
    clock.now += 60
    assert worker.work_once()
    (exam,) = database.exams()
    (result,) = database.results(blank.StudyInstanceUID) or [None]
    assert exam["state"] in ("failed", "scored")
    assert result is None or result["abstained"]
    send(inbox, *(view(projection, 320, StudyInstanceUID="1.2.9", PatientID="Q") for projection in Projection))
    clock.now += 20
    assert worker.work_once()
    assert len(database.results("1.2.9")) == 1


def test_an_exam_that_raises_anything_has_failed_and_the_worker_goes_on(clinic, monkeypatch):
    inbox, worker, database, clock = clinic

    def stumble(*_arguments, **_options):
        raise KeyError("Phantom^Made")

    for study in ("1.2.8", "1.2.9"):
        send(inbox, *(view(projection, StudyInstanceUID=study) for projection in Projection))
    clock.now += 20
    with monkeypatch.context() as patch:
        patch.setattr("mammodensity.clinic.worker.exam_objects", stumble)
        assert worker.work_once()
        assert worker.work_once()
    assert not worker.work_once()
    for exam in database.exams():
        assert exam["state"] == "failed"
        assert exam["reason"].startswith("unexpected KeyError in test_clinic_node.py, line ")
    assert database.retry(clock.now) == 2


# the same image again


def sent_again(inbox, folder: Path, image, *, encoded: list[object] = (), **changes) -> str:
    """Send an image, then a changed or differently encoded copy of it; what became of the copy."""
    send(inbox, image)
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    plain, copy = folder / "plain.dcm", folder / "copy.dcm"
    image.save_as(plain, enforce_file_format=True)
    if encoded:
        dcmtk(*encoded, plain, copy)
    assert inbox.keep((copy if encoded else plain).read_bytes(), "SCANNER") == 0
    return "held" if [exam for exam in inbox._database.exams() if exam["state"] == "held"] else "same"


@pytest.mark.parametrize(
    "encoded", [["dcmcjpeg", "+e1"], ["dcmcrle"], ["dcmconv", "+ti"], ["dcmconv", "+te"], ["dcmcjpls"]]
)
def test_an_image_in_another_transfer_syntax_is_the_same(clinic, tmp_path, encoded):
    inbox, *_ = clinic
    assert sent_again(inbox, tmp_path, view(Projection.CC_R), encoded=encoded) == "same"
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize(
    ("encoded", "changes"),
    [
        (["dcmcjpeg", "+un", "+eb"], {}),
        ([], {"PatientID": "OTHER"}),
        ([], {"PatientBirthDate": "19700101"}),
        ([], {"ViewPosition": "MLO"}),
        ([], {"PhotometricInterpretation": "MONOCHROME1"}),
        ([], {"WindowWidth": 1024}),
        (["dcmcrle"], {"PatientID": "OTHER"}),
    ],
)
def test_a_changed_image_under_the_same_uid_is_held(clinic, tmp_path, encoded, changes):
    inbox, *_ = clinic
    image = view(Projection.CC_R)
    if encoded[-1:] == ["+eb"]:
        image.PixelData = (image.pixel_array // 16).astype("uint8").tobytes()
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        image["PixelData"].VR = "OB"
    assert sent_again(inbox, tmp_path, image, encoded=encoded, **changes) == "held"
    assert len(stored(tmp_path)) == 2


def test_a_report_that_comes_changed_holds_no_exam(clinic, tmp_path):
    inbox, *_ = clinic
    send(inbox, view(Projection.CC_R))
    report = mammogram(Projection.CC_R, SOPClassUID=Comprehensive3DSRStorage, Modality="SR", PixelData=None)
    assert sent_again(inbox, tmp_path, report, encoded=["dcmconv", "+ti"]) == "same"
    assert len(stored(tmp_path)) == 2
    assert sent_again(inbox, tmp_path, report, InstanceNumber=7) == "same"
    assert len(stored(tmp_path)) == 3


# what is sent


@pytest.fixture
def pacs():
    """A storage provider that takes secondary captures; its port, and what it holds."""
    held: list[str] = []

    def store(event):
        held.append(str(event.dataset.SOPInstanceUID))
        return 0

    entity = AE(ae_title="PACS")
    entity.add_supported_context(SecondaryCaptureImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield server.socket.getsockname()[1], held
    server.shutdown()


def delivering(tmp_path, port: int, *, give_up_days: float = 7.0):
    database, clock = Database(f"sqlite:///{tmp_path / 'node.sqlite'}"), Clock()
    config = ClinicConfig(destinations=(Destination("pacs", "PACS", "127.0.0.1", port),), give_up_days=give_up_days)
    due_exam(database)
    claim = database.claim("w", clock.now, lease_s=10, most_tries=3)
    made = []
    for kind, sop_class in (("card", SecondaryCaptureImageStorage), ("report", Comprehensive3DSRStorage)):
        dataset = mammogram(SOPClassUID=sop_class, SOPInstanceUID=generate_uid())
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        content = BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        made.append((MadeObject(kind, str(dataset.SOPInstanceUID), content.getvalue()), ["pacs"]))
    assert database.complete(claim, "key", {}, made, clock.now)
    return Delivery(config, database, clock), database, clock


def test_objects_are_sent_once_and_a_refused_class_fails_at_once(tmp_path, pacs):
    port, held = pacs
    delivery, database, clock = delivering(tmp_path, port)
    assert delivery.send_once() == 1
    clock.now += 1e6
    assert delivery.send_once() == 0
    card, report = database.deliveries()
    assert held == [card["sop_uid"]]
    assert (card["state"], report["state"]) == ("sent", "failed")
    assert "does not take Comprehensive 3D SR" in report["reason"]
    database.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves sockets open
def test_a_pacs_that_is_down_is_asked_again_with_growing_pauses(tmp_path):
    delivery, database, clock = delivering(tmp_path, free_port(), give_up_days=1)
    tries = 0
    while any(row["state"] == "waiting" for row in database.deliveries()):
        delivery.send_once()
        clock.now += 600
        tries += 1
    first, _ = database.deliveries()
    assert first["state"] == "failed"
    assert first["reason"] == "it does not answer"
    assert 20 < first["tries"] < tries / 3
    assert database.retry(clock.now) == 2
    database.close()


# the configuration, and the whole


def test_the_configuration_is_checked_as_a_whole(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text('workers = 2\nsettle_s = 5\n[[destinations]]\nname = "a"\nae_title = "P"\nhost = "h"\nport = 104\n')
    config = read_config(file)
    assert (config.workers, config.settle_s, config.destinations[0].port) == (2, 5.0, 104)
    for text, message in (
        ("wrokers = 2", "no setting wrokers"),
        ("workers = 0", "workers must be"),
        ("workers = ", "cannot be used as configuration"),
        ('bind = "0.0.0.0"', "senders is needed"),
        ("[senders]\n", "senders must be tables"),
        ('[[senders]]\nae_title = "much too long a title"', "ae_title must be 1 to 16 letters"),
        (
            '[[destinations]]\nname = ""\nae_title = "P"\nhost = "h"\nport = 1',
            "name must be text of 1 or more characters",
        ),
        ('synthetic = "yes"', "synthetic must be true or false"),
    ):
        file.write_text(text)
        with pytest.raises(OptionError, match=message):
            read_config(file)
    assert config_from(json.loads('{"senders": [{"ae_title": "A", "address": ""}]}')).senders == (Sender("A"),)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", "refused"),
        ("oracel://x", "oracel"),
        ("no url", "URL"),
        ("sqlite:////no/such/folder/x.sqlite", "no folder /no/such/folder"),
    ],
)
def test_serve_check_connects_to_the_database(tmp_path, run, url, message):
    (tmp_path / "node.toml").write_text(f'database = "{url}"\n')
    code, _, error = run("serve", "--data", tmp_path / "node", "--config", tmp_path / "node.toml", "--check")
    assert code == 1
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "node").exists()


def test_serve_check_and_status_write_nothing(tmp_path, run):
    folder = tmp_path / "node"
    assert run("serve", "--data", folder, "--check")[0] == 0
    code, _, error = run("serve", "--data", folder, "--status")
    assert (code, str(folder) in error) == (1, True)
    assert not folder.exists()
    Database(database_url("", tmp_path)).close()
    assert run("serve", "--data", tmp_path, "--check")[0] == run("serve", "--data", tmp_path, "--status")[0] == 0
    (tmp_path / "node.sqlite").write_text("not a database at all, but some text")
    assert "not a database" in run("serve", "--data", tmp_path, "--check")[2]


@pytest.mark.slow
def test_orthanc_gets_reports_and_cards_back():
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed (Debian: orthanc)")
    script = Path(__file__).parents[1] / "benchmarks" / "clinic_loop.py"
    done = subprocess.run([sys.executable, script, "--exams", "1"], capture_output=True, text=True, check=False)
    assert "4 MG, 1 OT, 1 SR" in done.stdout, done.stdout + done.stderr
    assert "Phantom" not in done.stderr


def test_a_second_signal_does_not_disturb_the_stop(tmp_path):
    command = [sys.executable, "-m", "mammodensity", "serve", "--data", tmp_path, "--dicom-port", "0", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as node:
        assert "DICOM" in node.stdout.readline()
        node.terminate()
        assert any(line.startswith("stopped") for line in iter(node.stdout.readline, ""))
        node.terminate()
        assert node.wait(60) == 0
