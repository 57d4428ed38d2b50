"""Storage commitment: what the node holds it promises, and what it sent it has confirmed, or sends again."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("pynetdicom", reason="the extra clinic is not installed")
pytest.importorskip("sqlalchemy", reason="the extra clinic is not installed")

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    SecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from bench.clinic import free_port
from clinic_parts import MG, Clock, associate, give_results, listening, stored, view
from mammodensity.clinic.commitment import Commitment
from mammodensity.clinic.config import ClinicConfig, Destination, Sender
from mammodensity.clinic.database import Database
from mammodensity.clinic.delivery import Delivery
from mammodensity.terms import Projection

pytestmark = pytest.mark.filterwarnings(  # pynetdicom leaves the socket of a failed call open
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
ABSENT = "1.2.3.4"


class Asker:
    """A sender that asks for storage commitment; what it was answered."""

    def __init__(self) -> None:
        self.reports: list[Dataset] = []
        self.types: list[int] = []

    def on_report(self, event):
        self.reports.append(event.event_information)
        self.types.append(event.event_type)
        return 0, None

    def ask(self, port: int, objects, *, uid: str = "2.25.7", wait_s: float = 8.0, calling: str = "SCANNER", **options):
        """Ask, and keep the association for the answer; the status of the request."""
        entity = AE(ae_title=calling)
        entity.add_requested_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.on_report)]
        association = entity.associate("127.0.0.1", port, ae_title="MAMMODENSITY", evt_handlers=handlers)
        question = Dataset()
        question.TransactionUID = uid
        question.ReferencedSOPSequence = []
        for sop_class, sop_uid in objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
            question.ReferencedSOPSequence.append(item)
        status, _ = association.send_n_action(
            question, options.get("action", 1), StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        until(lambda: self.reports, wait_s)
        association.release()
        return status.Status

    def serve(self, calling: str = "SCANNER"):
        """Take answers on associations of their own; the server."""
        entity = AE(ae_title=calling)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.on_report)]
        return entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)


def until(done, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    while not done() and time.monotonic() < end:
        time.sleep(0.05)


def send(port: int, *images) -> None:
    association = associate(port)
    for image in images:
        assert association.send_c_store(image).Status == 0
    association.release()


def told(report: Dataset) -> tuple[list[str], dict[str, int]]:
    """What a report says is held, and what is not, with the reasons."""
    held = [item.ReferencedSOPInstanceUID for item in report.get("ReferencedSOPSequence", ())]
    failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.get("FailedSOPSequence", ())}
    return held, failed


def test_the_same_association_brings_the_answer(tmp_path):
    image, asker = view(Projection.CC_R), Asker()
    with listening(tmp_path) as (port, database):
        send(port, image)
        objects = [(MG, image.SOPInstanceUID), (MG, ABSENT)]
        assert asker.ask(port, objects) == 0
        (row,) = database.commitment.transactions.requests()
    (report,) = asker.reports
    assert report.TransactionUID == "2.25.7"
    assert told(report) == ([image.SOPInstanceUID], {ABSENT: 0x0112})
    assert asker.types == [2]
    assert row["state"] == "answered"


def test_only_what_is_there_now_is_promised(tmp_path):
    images = [view(projection) for projection in Projection]
    with listening(tmp_path) as (port, _):
        send(port, *images)
        gone = stored(tmp_path)[0]
        missing = next(image for image in images if image.PixelData in gone.read_bytes())
        gone.unlink()
        asker = Asker()
        wanted = [(MG, image.SOPInstanceUID) for image in images]
        other_class = next(image.SOPInstanceUID for image in images if image is not missing)
        wanted = [(SecondaryCaptureImageStorage if uid == other_class else kind, uid) for kind, uid in wanted]
        assert asker.ask(port, wanted) == 0
    held, failed = told(asker.reports[0])
    assert len(held) == 2
    assert failed == {missing.SOPInstanceUID: 0x0112, other_class: 0x0119}


def test_an_association_of_its_own_brings_the_answer_also_after_a_restart(tmp_path):
    image, asker, clock, wrong = view(Projection.CC_R), Asker(), Clock(), free_port()
    with listening(tmp_path, clock, senders=(Sender("SCANNER", report_port=wrong),)) as (port, database):
        send(port, image)
        assert asker.ask(port, [(MG, image.SOPInstanceUID)], wait_s=0) == 0
        assert database.commitment.answer_once() == 0
        assert [row["reason"] for row in database.commitment.transactions.requests()] == ["it does not answer"]
    server = asker.serve()
    senders = (Sender("SCANNER", report_port=server.socket.getsockname()[1]),)
    with listening(tmp_path, clock, senders=senders) as (port, database):
        assert database.commitment.answer_once() == 0, "the pause is not over"
        clock.now += 10
        assert database.commitment.answer_once() == 1
        assert database.commitment.answer_once() == 0
        assert [row["state"] for row in database.commitment.transactions.requests()] == ["answered"]
        assert asker.ask(port, [(MG, image.SOPInstanceUID)], wait_s=0) == 0, "the same transaction again"
        assert database.commitment.answer_once() == 1
    server.shutdown()
    assert [told(report) for report in asker.reports] == [([image.SOPInstanceUID], {})] * 2
    assert asker.types == [1, 1]


def test_requests_that_make_no_sense_are_refused(tmp_path):
    with listening(tmp_path) as (port, database):
        assert Asker().ask(port, [], wait_s=0) == 0x0114
        assert Asker().ask(port, [(MG, ABSENT)], wait_s=0, action=2) == 0x0123
        assert database.commitment.transactions.requests() == []


def test_a_sender_that_leaves_and_names_no_port_has_no_answer(tmp_path):
    with listening(tmp_path) as (port, database):
        assert Asker().ask(port, [(MG, ABSENT)], wait_s=0) == 0
        rows = database.commitment.transactions.requests
        until(lambda: rows()[0]["state"] != "waiting", 5)
        assert "no report_port" in rows()[0]["reason"]


# asked for


class Pacs:
    """A destination with storage commitment, which says of some objects that it does not hold them."""

    def __init__(self, *, same: bool = True, answers: bool = True) -> None:
        self.held: list[str] = []
        self.missing: set[str] = set()
        self.questions: list[Dataset] = []
        self._same, self._answers = same, answers
        self.node_port = 0
        entity = AE(ae_title="PACS")
        entity.add_supported_context(SecondaryCaptureImageStorage)
        entity.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._ask), (evt.EVT_DIMSE_SENT, self._after)]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.socket.getsockname()[1]

    def _store(self, event):
        self.held.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    def _ask(self, event):
        self.questions.append(event.action_information)
        return 0, None

    def _after(self, event):
        if self._answers and type(event.message).__name__ == "N_ACTION_RSP":
            threading.Thread(target=self.report, args=(self.questions[-1], event.assoc if self._same else None)).start()

    def report(self, question: Dataset, association=None, calling: str = "PACS") -> int | None:
        """Answer a question; the status that the node gives the answer."""
        report = Dataset()
        report.TransactionUID = question.TransactionUID
        held = [i for i in question.ReferencedSOPSequence if i.ReferencedSOPInstanceUID not in self.missing]
        missing = [i for i in question.ReferencedSOPSequence if i.ReferencedSOPInstanceUID in self.missing]
        for item in missing:
            item.FailureReason = 0x0112
        if held:
            report.ReferencedSOPSequence = held
        if missing:
            report.FailedSOPSequence = missing
        called = association
        if association is None:
            entity = AE(ae_title=calling)
            entity.add_requested_context(StorageCommitmentPushModel)
            role = build_role(StorageCommitmentPushModel, scp_role=True)
            called = entity.associate("127.0.0.1", self.node_port, ae_title="MAMMODENSITY", ext_neg=[role])
            if not called.is_established:
                return None
        status, _ = called.send_n_event_report(
            report, 2 if missing else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        if association is None:
            called.release()
        return status.get("Status")

    def stop(self) -> None:
        self._server.shutdown()


def states(database: Database) -> list[str]:
    return [row["state"] for row in database.deliveries()]


@pytest.fixture(params=["same", "new"])
def loop(request, tmp_path):
    """A node, its PACS, which answers by the same or by a new association, and what was made."""
    pacs, clock = Pacs(same=request.param == "same"), Clock()
    settings = {"destinations": (Destination("pacs", "PACS", "127.0.0.1", pacs.port, commitment=True),)}
    with listening(tmp_path, clock, **settings) as (port, database):
        pacs.node_port = port
        config = ClinicConfig(**settings)
        uids = give_results(database, clock)
        yield pacs, clock, database, Delivery(config, database, clock), uids
    pacs.stop()


def test_what_the_destination_lacks_is_sent_again_and_then_confirmed(loop):
    pacs, clock, database, delivery, uids = loop
    pacs.missing = {uids[0]}
    assert delivery.send_once() == 2
    assert states(database) == ["sent", "sent"]
    assert database.exams()[0]["state"] == "scored", "nothing is confirmed yet"
    assert database.commitment.ask_once() == 2
    until(lambda: "sent" not in states(database), 5)
    assert states(database) == ["waiting", "confirmed"]
    assert "does not hold it (0x0112)" in database.deliveries()[0]["reason"]
    assert delivery.send_once() == 0, "the pause is not over"
    pacs.missing = set()
    clock.now += 10
    assert delivery.send_once() == 1
    assert database.commitment.ask_once() == 1
    until(lambda: "sent" not in states(database), 5)
    assert states(database) == ["confirmed", "confirmed"]
    assert database.exams()[0]["state"] == "delivered"
    assert pacs.held == [*uids, uids[0]]
    assert len({question.TransactionUID for question in pacs.questions}) == 2


def test_a_destination_that_is_silent_is_asked_again_and_may_answer_late(tmp_path, monkeypatch):
    monkeypatch.setattr("mammodensity.clinic.commitment._ANSWER_S", 0.1)
    pacs, clock = Pacs(answers=False), Clock()
    destination = Destination("pacs", "PACS", "127.0.0.1", pacs.port, commitment=True, commitment_wait_s=600.0)
    config = ClinicConfig(destinations=(destination,), give_up_days=1.0)
    with listening(tmp_path, clock, destinations=(destination,)) as (port, database):
        pacs.node_port = port
        give_results(database, clock)
        commitment = Commitment(config, tmp_path, database, clock)
        Delivery(config, database, clock).send_once()
        assert commitment.ask_once() == 2
        clock.now += 599
        assert commitment.ask_once() == 0
        clock.now += 1
        assert commitment.ask_once() == 2
        assert states(database) == ["sent", "sent"]
        assert pacs.report(pacs.questions[0], calling="PACS") == 0, "the answer to the first question"
        assert states(database) == ["confirmed", "confirmed"]
    pacs.stop()


def test_a_destination_that_never_confirms_fails_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("mammodensity.clinic.commitment._ANSWER_S", 0.0)
    pacs, clock = Pacs(answers=False), Clock()
    destination = Destination("pacs", "PACS", "127.0.0.1", pacs.port, commitment=True)
    config = ClinicConfig(destinations=(destination,), give_up_days=0.1)
    with listening(tmp_path, clock, destinations=(destination,)) as (_, database):
        give_results(database, clock, count=1)
        commitment = Commitment(config, tmp_path, database, clock)
        Delivery(config, database, clock).send_once()
        for _ in range(20):
            commitment.ask_once()
            clock.now += 600
        assert states(database) == ["failed"]
        assert "did not confirm" in database.deliveries()[0]["reason"]
        assert 3 < len(pacs.questions) < 16
    pacs.stop()


def test_a_stranger_confirms_nothing_and_a_destination_sends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("mammodensity.clinic.commitment._ANSWER_S", 0.0)
    pacs, clock = Pacs(answers=False), Clock()
    destination = Destination("pacs", "PACS", "127.0.0.1", pacs.port, commitment=True)
    config = ClinicConfig(destinations=(destination,))
    with listening(tmp_path, clock, destinations=(destination,)) as (port, database):
        pacs.node_port = port
        give_results(database, clock)
        Delivery(config, database, clock).send_once()
        Commitment(config, tmp_path, database, clock).ask_once()
        assert pacs.report(pacs.questions[0], calling="STRANGER") is None
        assert pacs.report(pacs.questions[0], calling="SCANNER") == 0
        assert states(database) == ["sent", "sent"], "a sender is no destination"
        association = associate(port, calling="PACS")
        assert association.send_c_store(view(Projection.CC_R)).Status == 0x0124
        association.release()
        assert stored(tmp_path) == []
    pacs.stop()
