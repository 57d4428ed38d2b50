"""Storage commitment in the node's database: what senders asked for, and what destinations were asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, insert, select, update

from mammodensity.clinic.calling import pause_s
from mammodensity.clinic.database import (
    ASKED,
    COMMITMENTS,
    DELIVERIES,
    IMAGES,
    OBJECTS,
    OUTGOING,
    Database,
    Outgoing,
    finish_delivery,
)


@dataclass(frozen=True)
class Request:
    """A sender's request for storage commitment."""

    number: int
    transaction_uid: str
    ae_title: str
    address: str
    objects: tuple[tuple[str, str], ...]
    """SOP Class UID and SOP Instance UID of each object."""
    tries: int
    since: float


class Transactions:
    """The transactions of storage commitment; every method is one transaction of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def request(
        self, transaction_uid: str, ae_title: str, address: str, objects: Sequence[tuple[str, str]], now: float
    ) -> Request:
        """Keep a sender's request; one that comes again is answered again."""
        key = {"transaction_uid": transaction_uid, "ae_title": ae_title}
        facts = {"address": address, "objects": json.dumps(objects), "state": "waiting", "tries": 0, "reason": ""}
        same = and_(COMMITMENTS.c.transaction_uid == transaction_uid, COMMITMENTS.c.ae_title == ae_title)
        with self._database.transaction() as connection:
            values = facts | {"due": now, "since": now}
            if not connection.execute(update(COMMITMENTS).where(same).values(**values)).rowcount:
                connection.execute(insert(COMMITMENTS).values(**key, **values))
            return _request(connection.execute(select(COMMITMENTS).where(same)).one())

    def to_answer(self, now: float) -> list[Request]:
        """The requests that wait for an answer."""
        due = and_(COMMITMENTS.c.state == "waiting", COMMITMENTS.c.due <= now)
        with self._database.transaction() as connection:
            query = select(COMMITMENTS).where(due).order_by(COMMITMENTS.c.id).limit(50)
            return [_request(row) for row in connection.execute(query)]

    def answered(self, request: Request) -> None:
        """Say that the sender has taken the answer."""
        with self._database.transaction() as connection:
            this = update(COMMITMENTS).where(COMMITMENTS.c.id == request.number)
            connection.execute(this.values(state="answered", reason=""))

    def not_answered(self, request: Request, reason: str, due: float | None) -> None:
        """Say why the sender has not taken the answer, and when to try again; None gives up."""
        values: dict[str, Any] = {"state": "failed"} if due is None else {"due": due}
        with self._database.transaction() as connection:
            this = update(COMMITMENTS).where(COMMITMENTS.c.id == request.number)
            connection.execute(this.values(tries=COMMITMENTS.c.tries + 1, reason=reason[:1000], **values))

    def requests(self) -> list[dict[str, Any]]:
        """Every request: AE title, state, tries and reason."""
        with self._database.transaction() as connection:
            return [dict(row) for row in connection.execute(select(COMMITMENTS)).mappings()]

    def places(self, sop_uids: Sequence[str]) -> dict[str, str | bytes]:
        """Where the node holds objects: the file of one received, the bytes of one it made."""
        with self._database.transaction() as connection:
            held: dict[str, str | bytes] = {}
            for start in range(0, len(sop_uids), 500):  # a statement has a limit of variables
                some = sop_uids[start : start + 500]
                made = select(OBJECTS.c.sop_uid, OBJECTS.c.content).where(OBJECTS.c.sop_uid.in_(some))
                held |= {row.sop_uid: row.content for row in connection.execute(made) if row.content}
                came = and_(IMAGES.c.sop_uid.in_(some), IMAGES.c.removed.is_(None))
                held |= {row.sop_uid: row.file for row in connection.execute(select(IMAGES).where(came))}
            return held

    def to_ask(self, now: float) -> list[Outgoing]:
        """The deliveries whose destination has to be asked for storage commitment."""
        due = and_(DELIVERIES.c.state == "sent", DELIVERIES.c.confirm, DELIVERIES.c.due <= now)
        query = select(*OUTGOING).join(OBJECTS).where(due)
        with self._database.transaction() as connection:
            return [Outgoing(*row) for row in connection.execute(query.order_by(DELIVERIES.c.id).limit(50))]

    def asked(self, transaction_uid: str, deliveries: Sequence[Outgoing], due: float) -> None:
        """Note the question before it is asked: the answer may come first. It is asked again at ``due``."""
        numbers = [delivery.delivery for delivery in deliveries]
        with self._database.transaction() as connection:
            for number in numbers:
                connection.execute(insert(ASKED).values(transaction_uid=transaction_uid, delivery=number))
            these = update(DELIVERIES).where(and_(DELIVERIES.c.id.in_(numbers), DELIVERIES.c.state == "sent"))
            connection.execute(these.values(due=due, tries=DELIVERIES.c.tries + 1))

    def not_asked(self, deliveries: Sequence[Outgoing], reason: str, due: float | None) -> None:
        """Say why a destination could not be asked, and when to try again; None gives up."""
        values: dict[str, Any] = {"state": "failed"} if due is None else {"due": due}
        numbers = [delivery.delivery for delivery in deliveries]
        these = update(DELIVERIES).where(and_(DELIVERIES.c.id.in_(numbers), DELIVERIES.c.state == "sent"))
        with self._database.transaction() as connection:
            connection.execute(these.values(reason=reason[:1000], **values))

    def reported(
        self,
        transaction_uid: str,
        destinations: Sequence[str],
        held: Sequence[str],
        missing: Mapping[str, int],
        now: float,
    ) -> int:
        """Keep a destination's answer: what it holds is confirmed, what it lacks is sent again after a pause.

        Returns
        -------
        How many deliveries the answer concerns; 0 where nobody of these destinations was asked so.
        """
        query = select(DELIVERIES).join(ASKED, ASKED.c.delivery == DELIVERIES.c.id)
        asked = and_(ASKED.c.transaction_uid == transaction_uid, DELIVERIES.c.destination.in_(destinations))
        with self._database.transaction() as connection:
            rows = connection.execute(query.where(asked)).all()
            for row in rows:
                this = update(DELIVERIES).where(and_(DELIVERIES.c.id == row.id, DELIVERIES.c.state == "sent"))
                if row.sop_uid in held:
                    connection.execute(this.values(state="confirmed", reason=""))
                    finish_delivery(connection, row.id, now)
                elif row.sop_uid in missing:
                    reason = f"the destination does not hold it (0x{missing[row.sop_uid]:04X})"
                    connection.execute(this.values(state="waiting", reason=reason, due=now + pause_s(row.tries - 1)))
            return len(rows)


def _request(row: Any) -> Request:
    objects = tuple((str(sop_class), str(sop_uid)) for sop_class, sop_uid in json.loads(row.objects))
    return Request(row.id, row.transaction_uid, row.ae_title, row.address, objects, row.tries, row.since)
