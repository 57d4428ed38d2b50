"""Storage commitment: given to senders for what the node holds, and asked of destinations for what it sent.

References
----------
DICOM PS3.4 annex J.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from mammodensity.clinic.calling import call, pause_s
from mammodensity.clinic.config import ClinicConfig, Destination
from mammodensity.clinic.database import Database, Outgoing
from mammodensity.clinic.log import log
from mammodensity.clinic.transactions import Request, Transactions
from mammodensity.errors import OutputError

_SUCCESS, _FAILED, _NO_SUCH_EVENT, _NO_SUCH_ARGUMENT = 0x0000, 0x0110, 0x0113, 0x0114
_NO_SUCH_ACTION, _NO_RESOURCES = 0x0123, 0x0213
_NO_SUCH_OBJECT, _OTHER_CLASS = 0x0112, 0x0119
_QUICK_S = 1.0
"""Time in which a sender that does not wait for the answer ends its association."""
_ANSWER_S = 10.0
"""Time for which the association is kept open for a destination's answer."""


@dataclass(frozen=True)
class _Peer:
    ae_title: str
    host: str
    port: int
    tls: bool


class Commitment:
    """Answers senders and asks destinations.

    Parameters
    ----------
    folder
        The node's data folder.
    clock
        Seconds since 1970.
    """

    def __init__(
        self, config: ClinicConfig, folder: Path, database: Database, clock: Callable[[], float] = time.time
    ) -> None:
        self._config, self._folder, self._clock = config, folder, clock
        self.transactions = Transactions(database)
        self._destinations = {place.name: place for place in config.destinations if isinstance(place, Destination)}
        self._answers: dict[str, threading.Event] = {}

    # given

    def on_request(self, event: Any) -> tuple[int, None]:
        """Keep a request (N-ACTION), and answer it soon: on this association, or on one to the configured port."""
        if event.action_type != 1:
            return _NO_SUCH_ACTION, None
        title, address = _title_of(event.assoc.requestor), str(event.assoc.requestor.address)
        try:
            wanted = event.action_information
            objects = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in wanted.ReferencedSOPSequence
            ]
            transaction_uid = str(wanted.TransactionUID)
        except Exception:  # pydicom raises whatever a damaged data set leads to
            return _NO_SUCH_ARGUMENT, None
        if not objects or not transaction_uid:
            return _NO_SUCH_ARGUMENT, None
        try:
            request = self.transactions.request(transaction_uid, title, address, objects, self._clock())
        except OutputError as error:
            log("database-away", reason=str(error))
            return _NO_RESOURCES, None
        log("commitment-asked", sender=title, objects=len(objects))
        if self._peer_of(request) is None:
            timer = threading.Timer(_QUICK_S, self._answer_here, (request, event.assoc))
            timer.daemon = True
            timer.start()
        return _SUCCESS, None

    def _answer_here(self, request: Request, association: Any) -> None:
        try:
            if association.is_established:
                self._answer(request, association)
            else:
                reason = "the association has ended, and the sender has no report_port"
                self.transactions.not_answered(request, reason, None)
        except OutputError as error:
            log("database-away", reason=str(error))

    def answer_once(self) -> int:
        """Answer the requests that wait, each on an association of its own; returns how many were answered."""
        answered = 0
        for request in self.transactions.to_answer(self._clock()):
            peer = self._peer_of(request)
            if peer is None:
                if self._clock() - request.since > 60:  # its association has ended long ago
                    self.transactions.not_answered(request, "the node was stopped before the answer", None)
                continue
            entity = AE(ae_title=self._config.ae_title)
            entity.add_requested_context(StorageCommitmentPushModel)
            role = build_role(StorageCommitmentPushModel, scp_role=True)
            association, reason = call(entity, peer, self._config.tls, roles=[role])
            if association is None:
                self._answer_later(request, reason)
                continue
            try:
                answered += self._answer(request, association)
            finally:
                association.release()
        return answered

    def _answer(self, request: Request, association: Any) -> bool:
        report = self._report(request)
        event_type = 2 if "FailedSOPSequence" in report else 1
        try:
            answer, _ = association.send_n_event_report(
                report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            status = answer.get("Status")
        except (RuntimeError, ValueError, AttributeError):  # the association is gone, or the class was refused
            status = None
        if status != _SUCCESS:
            self._answer_later(request, "no answer" if status is None else f"status 0x{status:04X}")
            return False
        self.transactions.answered(request)
        log("commitment-answered", sender=request.ae_title, missing=len(report.get("FailedSOPSequence", ())))
        return True

    def _answer_later(self, request: Request, reason: str) -> None:
        now = self._clock()
        given_up = now - request.since > 86400 * self._config.give_up_days or self._peer_of(request) is None
        self.transactions.not_answered(request, reason, None if given_up else now + pause_s(request.tries))
        log("commitment-not-answered", sender=request.ae_title, reason=reason, tries=request.tries + 1)

    def _report(self, request: Request) -> Dataset:
        """Say which of the objects the node holds now, each with the class that the sender names."""
        places = self.transactions.places([sop_uid for _, sop_uid in request.objects])
        held, missing = [], []
        for sop_class, sop_uid in request.objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
            kept = self._class_of(places.get(sop_uid))
            if kept == sop_class:
                held.append(item)
            else:
                item.FailureReason = _OTHER_CLASS if kept else _NO_SUCH_OBJECT
                missing.append(item)
        report = Dataset()
        report.TransactionUID = request.transaction_uid
        if held:
            report.ReferencedSOPSequence = held
        if missing:
            report.FailedSOPSequence = missing
        return report

    def _class_of(self, place: str | bytes | None) -> str:
        """The SOP Class UID of an object that can be read; blank for one that is not there."""
        if place is None:
            return ""
        source = self._folder / place if isinstance(place, str) else BytesIO(place)
        try:
            return str(dcmread(source, stop_before_pixels=True, specific_tags=["SOPClassUID"]).SOPClassUID)
        except Exception:  # its file was removed or damaged behind the node's back
            return ""

    def _peer_of(self, request: Request) -> _Peer | None:
        """Where a sender takes answers; None where it takes them on its own association only."""
        for sender in self._config.senders:
            if sender.ae_title == request.ae_title and sender.report_port and sender.is_at(request.address):
                host = sender.report_host or request.address
                return _Peer(sender.ae_title, host, sender.report_port, sender.report_tls)
        return None

    # asked for

    def ask_once(self) -> int:
        """Ask the destinations to confirm what they were sent; returns how many objects they were asked for."""
        by_destination: dict[str, list[Outgoing]] = defaultdict(list)
        for delivery in self.transactions.to_ask(self._clock()):
            by_destination[delivery.destination].append(delivery)
        asked = 0
        for name, deliveries in by_destination.items():
            destination = self._destinations.get(name)
            if destination is None:
                self.transactions.not_asked(deliveries, "the configuration names no such destination", None)
            else:
                asked += self._ask(destination, deliveries)
        return asked

    def _ask(self, destination: Destination, deliveries: Sequence[Outgoing]) -> int:
        now = self._clock()
        old = [delivery for delivery in deliveries if now - delivery.since > 86400 * self._config.give_up_days]
        if old:
            self.transactions.not_asked(old, "the destination did not confirm that it holds it", None)
            deliveries = [delivery for delivery in deliveries if delivery not in old]
        if not deliveries:
            return 0
        tries = min(delivery.tries for delivery in deliveries)
        transaction_uid = generate_uid(prefix=None)
        # noted before it is sent: the answer may come by another association before this one returns
        wait = max(destination.commitment_wait_s, pause_s(tries))
        self.transactions.asked(transaction_uid, deliveries, now + wait)
        self._answers[transaction_uid] = threading.Event()
        try:
            reason = self._send_question(destination, transaction_uid, deliveries)
        finally:
            del self._answers[transaction_uid]
        if reason:
            self.transactions.not_asked(deliveries, reason, now + pause_s(tries))
            log("commitment-not-asked", destination=destination.name, reason=reason)
            return 0
        return len(deliveries)

    def _send_question(self, destination: Destination, transaction_uid: str, deliveries: Sequence[Outgoing]) -> str:
        """Ask (N-ACTION), and wait a little for the answer; returns why it was not asked, blank where it was."""
        entity = AE(ae_title=self._config.ae_title)
        entity.add_requested_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.on_report)]
        association, reason = call(entity, destination, self._config.tls, handlers=handlers)
        if association is None:
            return reason
        question = Dataset()
        question.TransactionUID = transaction_uid
        question.ReferencedSOPSequence = [_reference(delivery) for delivery in deliveries]
        try:
            answer, _ = association.send_n_action(
                question, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            status = answer.get("Status")
            if status == _SUCCESS:
                self._answers[transaction_uid].wait(_ANSWER_S)
                return ""
        except (RuntimeError, ValueError, AttributeError):  # the association is gone, or the class was refused
            return "it gives no storage commitment"
        finally:
            association.release()
        return "no answer" if status is None else f"storage commitment: status 0x{status:04X}"

    def on_report(self, event: Any) -> tuple[int, None]:
        """Keep a destination's answer (N-EVENT-REPORT), whichever association it comes by."""
        if event.event_type not in (1, 2):
            return _NO_SUCH_EVENT, None
        peer = event.assoc.requestor if event.assoc.is_acceptor else event.assoc.acceptor
        title = _title_of(peer)
        names = [place.name for place in self._destinations.values() if place.ae_title == title]
        try:
            report = event.event_information
            transaction_uid = str(report.TransactionUID)
            held = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", ())]
            missing = {
                str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason", _FAILED))
                for item in report.get("FailedSOPSequence", ())
            }
        except Exception:  # pydicom raises whatever a damaged data set leads to
            return _NO_SUCH_ARGUMENT, None
        now = self._clock()
        try:
            count = self.transactions.reported(transaction_uid, names, held, missing, now)
        except OutputError as error:
            log("database-away", reason=str(error))
            return _FAILED, None
        log("commitment-reported", destination=title, confirmed=len(held), missing=len(missing), asked=count)
        if waiting := self._answers.get(transaction_uid):
            waiting.set()
        return _SUCCESS, None


def _reference(delivery: Outgoing) -> Dataset:
    item = Dataset()
    header = dcmread(BytesIO(delivery.content), specific_tags=["SOPClassUID"], stop_before_pixels=True)
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, delivery.sop_uid
    return item


def _title_of(user: Any) -> str:
    return str(user.ae_title).strip()
