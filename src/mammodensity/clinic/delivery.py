"""Send objects to their destinations until they are stored, with growing pauses for days."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from mammodensity.clinic.calling import call, pause_s
from mammodensity.clinic.certificates import client_context
from mammodensity.clinic.config import ClinicConfig, Destination, StowDestination, read_secret
from mammodensity.clinic.database import Database, Outgoing
from mammodensity.clinic.log import log
from mammodensity.clinic.stow import NotStoredError, store

_WARNING = 0xB000


class Delivery:
    """Sends what is due.

    Parameters
    ----------
    clock
        Seconds since 1970.
    """

    def __init__(self, config: ClinicConfig, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._config, self._database, self._clock = config, database, clock
        self._destinations = {destination.name: destination for destination in config.destinations}
        for destination in config.destinations:  # the files that they need can be used
            if isinstance(destination, StowDestination):
                for secret in filter(None, (destination.password, destination.token)):
                    read_secret(secret)
            elif destination.tls:
                client_context(config.tls)

    def send_once(self) -> int:
        """Send everything that is due; returns how many objects were stored."""
        by_destination: dict[str, list[Outgoing]] = defaultdict(list)
        for due in self._database.to_send(self._clock()):
            by_destination[due.destination].append(due)
        stored = 0
        for name, deliveries in by_destination.items():
            destination = self._destinations.get(name)
            if destination is None:
                for delivery in deliveries:
                    self._database.not_sent(delivery.delivery, "the configuration names no such destination", None)
            elif isinstance(destination, StowDestination):
                stored += sum(self._post(destination, delivery) for delivery in deliveries)
            else:
                stored += self._send(destination, deliveries)
        return stored

    def _post(self, destination: StowDestination, delivery: Outgoing) -> bool:
        try:
            store(destination, self._config.tls, delivery.sop_uid, delivery.content)
        except NotStoredError as error:
            if error.final:
                log("class-refused", destination=destination.name, object=delivery.sop_uid)
                self._database.not_sent(delivery.delivery, f"the destination does not take its class: {error}", None)
            else:
                self._postpone(destination, delivery, str(error))
            return False
        self._database.sent(delivery.delivery, self._clock())
        log("sent", destination=destination.name, object=delivery.sop_uid)
        return True

    def _send(self, destination: Destination, deliveries: Sequence[Outgoing]) -> int:
        datasets = [dcmread(BytesIO(delivery.content)) for delivery in deliveries]
        entity = AE(ae_title=self._config.ae_title)
        for sop_class in {dataset.SOPClassUID for dataset in datasets}:
            entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        association, reason = call(entity, destination, self._config.tls)
        if association is None:
            for delivery in deliveries:
                self._postpone(destination, delivery, reason)
            return 0
        stored = 0
        try:
            for delivery, dataset in zip(deliveries, datasets, strict=True):
                stored += self._send_one(association, destination, delivery, dataset)
        finally:
            association.release()
        return stored

    def _send_one(self, association: Any, destination: Destination, delivery: Outgoing, dataset: Dataset) -> bool:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        if dataset.SOPClassUID not in accepted:
            log("class-refused", destination=destination.name, object=delivery.sop_uid)
            reason = f"the destination does not take {dataset.SOPClassUID.name}"
            self._database.not_sent(delivery.delivery, reason, None)
            return False
        try:
            status = association.send_c_store(dataset).get("Status")
        except (RuntimeError, ValueError, AttributeError):  # the association is gone
            status = None
        if status is not None and (status == 0 or status & 0xF000 == _WARNING):
            self._database.sent(delivery.delivery, self._clock(), confirm=destination.commitment)
            log("sent", destination=destination.name, object=delivery.sop_uid)
            return True
        self._postpone(destination, delivery, "no answer" if status is None else f"status 0x{status:04X}")
        return False

    def _postpone(self, destination: Destination | StowDestination, delivery: Outgoing, reason: str) -> None:
        now = self._clock()
        given_up = now - delivery.since > 86400 * self._config.give_up_days
        self._database.not_sent(delivery.delivery, reason, None if given_up else now + pause_s(delivery.tries))
        log("not-sent", destination=destination.name, object=delivery.sop_uid, reason=reason, tries=delivery.tries + 1)
