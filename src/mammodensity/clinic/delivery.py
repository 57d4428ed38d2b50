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

from mammodensity.clinic.certificates import client_context, why_not_trusted
from mammodensity.clinic.config import ClinicConfig, Destination
from mammodensity.clinic.database import Database
from mammodensity.clinic.log import log
from mammodensity.errors import OptionError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 3600.0
_WARNING = 0xB000
_CONNECT_S, _ANSWER_S = 10, 60

Due = tuple[int, str, str, bytes, int, float]


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
        if any(destination.tls for destination in config.destinations):
            client_context(config.tls)  # the files can be used

    def send_once(self) -> int:
        """Send everything that is due; returns how many objects were stored."""
        by_destination: dict[str, list[Due]] = defaultdict(list)
        for due in self._database.to_send(self._clock()):
            by_destination[due[1]].append(due)
        stored = 0
        for name, deliveries in by_destination.items():
            destination = self._destinations.get(name)
            if destination is None:
                for delivery in deliveries:
                    self._database.not_sent(delivery[0], "the configuration names no such destination", None)
            else:
                stored += self._send(destination, deliveries)
        return stored

    def _send(self, destination: Destination, deliveries: Sequence[Due]) -> int:
        datasets = [dcmread(BytesIO(delivery[3])) for delivery in deliveries]
        entity = AE(ae_title=self._config.ae_title)
        entity.connection_timeout = _CONNECT_S
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _ANSWER_S
        for sop_class in {dataset.SOPClassUID for dataset in datasets}:
            entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        association, reason = self._associate(entity, destination)
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

    def _associate(self, entity: AE, destination: Destination) -> tuple[Any, str]:
        """An association, or None and why there is none."""
        try:
            context = client_context(self._config.tls) if destination.tls else None  # anew: certificates are renewed
        except OptionError as error:
            return None, str(error)
        association = entity.associate(
            destination.host,
            destination.port,
            ae_title=destination.ae_title,
            tls_args=(context, destination.host) if context else None,
        )
        if association.is_established:
            return association, ""
        if association.is_rejected:
            return None, "it refused the association"
        distrust = why_not_trusted(context, destination.host, destination.port) if context else ""
        return None, distrust or "it does not answer"

    def _send_one(self, association: Any, destination: Destination, delivery: Due, dataset: Dataset) -> bool:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        if dataset.SOPClassUID not in accepted:
            log("class-refused", destination=destination.name, object=delivery[2])
            reason = f"the destination does not take {dataset.SOPClassUID.name}"
            self._database.not_sent(delivery[0], reason, None)
            return False
        try:
            status = association.send_c_store(dataset).get("Status")
        except (RuntimeError, ValueError, AttributeError):  # the association is gone
            status = None
        if status is not None and (status == 0 or status & 0xF000 == _WARNING):
            self._database.sent(delivery[0], self._clock())
            log("sent", destination=destination.name, object=delivery[2])
            return True
        self._postpone(destination, delivery, "no answer" if status is None else f"status 0x{status:04X}")
        return False

    def _postpone(self, destination: Destination, delivery: Due, reason: str) -> None:
        number, _, sop_uid, _, tries, since = delivery
        now = self._clock()
        given_up = now - since > 86400 * self._config.give_up_days
        pause = min(_FIRST_PAUSE_S * 2 ** min(tries, 20), _LONGEST_PAUSE_S)
        self._database.not_sent(number, reason, None if given_up else now + pause)
        log("not-sent", destination=destination.name, object=sop_uid, reason=reason, tries=tries + 1)
