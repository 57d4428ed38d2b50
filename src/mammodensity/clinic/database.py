"""The node's database of images, exams, results, objects and deliveries, in SQLite or PostgreSQL.

An exam is a study. It goes through the states ``collecting``, ``scoring``, ``scored`` and ``delivered``; or it is
``held``, because somebody has to look at it, or ``failed``. A delivery is ``waiting``, ``sent`` or ``failed``; with
storage commitment it is ``confirmed`` after ``sent``.

A worker claims an exam for a time, its lease. What it found is kept only while it still holds the exam: when the lease
has ended or a new image has come, another worker reads the exam again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from mammodensity.clinic.sources import MadeObject
from mammodensity.errors import OutputError

_MOST_REMOVED = 200  # images in one transaction
DATABASE_FILE = "node.sqlite"
"""In the data folder, unless the configuration names another database."""
_PATIENCE_S = 10
_TABLES = MetaData()
IMAGES = Table(
    "images",
    _TABLES,
    Column("sop_uid", String(64), primary_key=True),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("file", Text, nullable=False),
    Column("projection", String(5)),
    Column("code", String(32)),
    Column("received", Float, nullable=False),
    Column("sender", String(16), nullable=False),
    Column("removed", Float),
)
EXAMS = Table(
    "exams",
    _TABLES,
    Column("study_uid", String(64), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("due", Float),
    Column("owner", String(64)),
    Column("tries", Integer, nullable=False, default=0),
    Column("reason", Text, nullable=False, default=""),
    Column("changed", Float, nullable=False),
)
REVISIONS = Table(
    "revisions",
    _TABLES,
    Column("study_uid", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("key", String(64), nullable=False),
    Column("result", Text, nullable=False),
    Column("made", Float, nullable=False),
)
OBJECTS = Table(
    "objects",
    _TABLES,
    Column("sop_uid", String(64), primary_key=True),
    Column("study_uid", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("content", LargeBinary, nullable=False),
)
DELIVERIES = Table(
    "deliveries",
    _TABLES,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("sop_uid", String(64), ForeignKey("objects.sop_uid"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("tries", Integer, nullable=False, default=0),
    Column("due", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("confirm", Boolean, nullable=False, default=False),
    UniqueConstraint("sop_uid", "destination"),
)
ASKED = Table(
    "asked",
    _TABLES,
    Column("transaction_uid", String(64), primary_key=True),
    Column("delivery", Integer, ForeignKey("deliveries.id"), primary_key=True),
)
"""Storage commitment that destinations were asked for; a late answer to an earlier question counts, too."""
COMMITMENTS = Table(
    "commitments",
    _TABLES,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("transaction_uid", String(64), nullable=False),
    Column("ae_title", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("objects", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("tries", Integer, nullable=False, default=0),
    Column("due", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    UniqueConstraint("transaction_uid", "ae_title"),
)
"""Storage commitment that senders asked for: ``waiting`` for the answer, ``answered`` or ``failed``."""
ASIDE = Table(
    "aside",
    _TABLES,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("sop_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("file", Text, nullable=False),
    Column("received", Float, nullable=False),
    UniqueConstraint("sop_uid", "digest"),
)
_DONE = or_(DELIVERIES.c.state == "confirmed", and_(DELIVERIES.c.state == "sent", not_(DELIVERIES.c.confirm)))
"""True for a delivery that nothing is left to do for."""


@dataclass(frozen=True)
class Arrival:
    """An object as received and stored."""

    sop_uid: str
    study_uid: str
    digest: str
    """SHA-256 of the data set."""
    file: str
    """Its place below the data folder."""
    projection: str | None
    """The view, where it is an accepted mammogram."""
    code: str | None
    """Why it is no mammogram that can be used; None for an accepted one."""
    sender: str


@dataclass(frozen=True)
class Claim:
    """An exam that a worker has for the time of its lease."""

    study_uid: str
    owner: str
    files: tuple[str, ...]
    """Its accepted mammograms."""
    removed: int
    """How many of its mammograms were removed when their time was over."""
    number: int
    """The number of the revision to make."""
    key: str | None
    """The key of the last revision; None without one."""
    previous: dict[str, bytes]
    """The objects of the last revision, by kind."""


@dataclass(frozen=True)
class Counts:
    """How many there are of what."""

    exams: dict[str, int]
    """By state."""
    deliveries: dict[tuple[str, str], int]
    """By destination and state."""
    images: dict[str, int]
    """``mammogram``, ``other`` and ``set-aside``."""
    results: int
    exam_overdue_s: float
    """For how long the exam has been due that waits longest for a worker."""
    delivery_age_s: float
    """For how long the delivery has waited that waits longest."""


@dataclass(frozen=True)
class Outgoing:
    """An object that a destination has to store or, once sent, to confirm."""

    delivery: int
    destination: str
    sop_uid: str
    content: bytes
    tries: int
    since: float
    """When it was first to be sent, in seconds since 1970."""


OUTGOING = (
    DELIVERIES.c.id,
    DELIVERIES.c.destination,
    DELIVERIES.c.sop_uid,
    OBJECTS.c.content,
    DELIVERIES.c.tries,
    DELIVERIES.c.since,
)
"""The columns of an `Outgoing`, in its order."""


class _TakenError(OutputError):
    """Another transaction wrote the same row a moment earlier."""


class Database:
    """The node's tables; every method is one transaction.

    Parameters
    ----------
    url
        Of SQLAlchemy: ``sqlite:///FILE`` or ``postgresql+psycopg://...``.

    Raises
    ------
    OutputError
        The database cannot be opened or written.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _prepare_sqlite)
                event.listen(self._engine, "begin", _begin_immediate)
            _TABLES.create_all(self._engine)
        except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
            raise _unusable(error) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose changes are kept together, or not at all."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise _TakenError(f"the database has such a row: {_first_line(error)}") from error
        except SQLAlchemyError as error:
            raise OutputError(f"the database cannot be used: {_first_line(error)}") from error

    def add(self, arrival: Arrival, now: float, *, settle_s: float, settle_incomplete_s: float | None) -> str:
        """Keep an object that was received.

        Returns
        -------
        ``new``, ``same`` (it was there), ``ours`` (an object of our own came back), or ``other-content`` (the UID was
        there with another content: the first is kept, the second set aside, and the exam held).
        """
        try:
            return self._add(arrival, now, settle_s, settle_incomplete_s)
        except _TakenError:  # the same image came by two associations at once: now it is there
            return self._add(arrival, now, settle_s, settle_incomplete_s)

    def _add(self, arrival: Arrival, now: float, settle_s: float, settle_incomplete_s: float | None) -> str:
        with self.transaction() as connection:
            if connection.scalar(select(OBJECTS.c.sop_uid).where(OBJECTS.c.sop_uid == arrival.sop_uid)):
                return "ours"
            kept = connection.execute(select(IMAGES).where(IMAGES.c.sop_uid == arrival.sop_uid)).first()
            if kept and kept.digest == arrival.digest:
                if kept.removed is not None:
                    this = update(IMAGES).where(IMAGES.c.sop_uid == arrival.sop_uid)
                    connection.execute(this.values(removed=None))
                    if arrival.projection:
                        self._collect(connection, arrival.study_uid, now, settle_s, settle_incomplete_s)
                return "same"
            if kept:
                self._set_aside(connection, arrival, now)
                return "other-content"
            values = vars(arrival) | {"received": now}
            connection.execute(insert(IMAGES).values(**values))
            if arrival.projection:
                self._collect(connection, arrival.study_uid, now, settle_s, settle_incomplete_s)
            return "new"

    def kept(self, sop_uid: str) -> tuple[str, str] | None:
        """Digest and file of an object that was received."""
        with self.transaction() as connection:
            row = connection.execute(select(IMAGES).where(IMAGES.c.sop_uid == sop_uid)).first()
            return (str(row.digest), str(row.file)) if row else None

    @staticmethod
    def _set_aside(connection: Connection, arrival: Arrival, now: float) -> None:
        same = and_(ASIDE.c.sop_uid == arrival.sop_uid, ASIDE.c.digest == arrival.digest)
        if connection.scalar(select(ASIDE.c.id).where(same)) is None:
            values = {name: getattr(arrival, name) for name in ("sop_uid", "study_uid", "digest", "file")}
            connection.execute(insert(ASIDE).values(received=now, **values))
        first = connection.execute(select(IMAGES).where(IMAGES.c.sop_uid == arrival.sop_uid)).one()
        if first.projection or arrival.projection:
            reason = "an image came again under the same SOP Instance UID with other content"
            _hold(connection, str(first.study_uid), reason, now)

    @staticmethod
    def _collect(
        connection: Connection, study_uid: str, now: float, settle_s: float, settle_incomplete_s: float | None
    ) -> None:
        """Let the exam wait for more images."""
        of_study = and_(IMAGES.c.study_uid == study_uid, IMAGES.c.projection.is_not(None))
        views = connection.scalar(select(func.count(IMAGES.c.projection.distinct())).where(of_study)) or 0
        wait = settle_s if views == 4 else settle_incomplete_s
        values = {"due": None if wait is None else now + wait, "changed": now, "owner": None, "tries": 0}
        state = connection.scalar(select(EXAMS.c.state).where(EXAMS.c.study_uid == study_uid))
        if state is None:
            connection.execute(insert(EXAMS).values(study_uid=study_uid, state="collecting", reason="", **values))
        elif state != "held":
            statement = update(EXAMS).where(EXAMS.c.study_uid == study_uid)
            connection.execute(statement.values(state="collecting", reason="", **values))

    def claim(self, owner: str, now: float, *, lease_s: float, most_tries: int) -> Claim | None:
        """Take an exam that is due, or whose worker has gone; None where there is none."""
        free = and_(EXAMS.c.state.in_(("collecting", "scoring")), EXAMS.c.due <= now)
        with self.transaction() as connection:
            query = select(EXAMS).where(free).order_by(EXAMS.c.due).limit(1).with_for_update(skip_locked=True)
            exam = connection.execute(query).first()
            if exam is None:
                return None
            this = update(EXAMS).where(EXAMS.c.study_uid == exam.study_uid)
            if exam.tries >= most_tries:
                reason = f"{exam.tries} workers died or took too long over it"
                connection.execute(this.values(state="failed", owner=None, due=None, reason=reason, changed=now))
                return None
            values = {"state": "scoring", "owner": owner, "due": now + lease_s, "tries": exam.tries + 1, "changed": now}
            connection.execute(this.values(**values))
            return _claimed(connection, exam.study_uid, owner)

    def complete(
        self,
        claim: Claim,
        key: str,
        result: dict[str, Any],
        objects: Sequence[tuple[MadeObject, Sequence[str]]],
        now: float,
    ) -> bool:
        """Keep a result and its objects, each with the destinations it goes to, all or nothing.

        Returns
        -------
        False where the exam is no longer the worker's; nothing is kept then.
        """
        with self.transaction() as connection:
            if not _still_has(connection, claim):
                return False
            revision = {"study_uid": claim.study_uid, "number": claim.number, "key": key, "made": now}
            connection.execute(insert(REVISIONS).values(result=json.dumps(result), **revision))
            for made, destinations in objects:
                content = {"sop_uid": made.sop_uid, "kind": made.kind, "content": made.content}
                connection.execute(insert(OBJECTS).values(study_uid=claim.study_uid, number=claim.number, **content))
                for destination in destinations:
                    delivery = {"sop_uid": made.sop_uid, "destination": destination, "due": now, "since": now}
                    connection.execute(insert(DELIVERIES).values(state="waiting", tries=0, reason="", **delivery))
            _finish(connection, claim.study_uid, now)
            return True

    def wait(self, claim: Claim, reason: str, now: float) -> None:
        """Let an exam wait for images."""
        with self.transaction() as connection:
            if _still_has(connection, claim):
                values = {"state": "collecting", "owner": None, "due": None, "tries": 0, "reason": reason}
                this = update(EXAMS).where(EXAMS.c.study_uid == claim.study_uid)
                connection.execute(this.values(changed=now, **values))

    def remove_older(self, before: float, now: float) -> list[str]:
        """Forget the images and cards of exams that need nothing since a time; returns their files, to be removed.

        Results and reports are kept. Exams that are held, have failed or wait are left alone.
        """
        open_deliveries = select(OBJECTS.c.study_uid).join(DELIVERIES).where(not_(_DONE))
        ended = and_(EXAMS.c.state.in_(("scored", "delivered")), EXAMS.c.changed < before)
        studies = select(EXAMS.c.study_uid).where(and_(ended, EXAMS.c.study_uid.not_in(open_deliveries)))
        no_exam = and_(IMAGES.c.study_uid.not_in(select(EXAMS.c.study_uid)), IMAGES.c.received < before)
        old = and_(IMAGES.c.removed.is_(None), or_(IMAGES.c.study_uid.in_(studies), no_exam))
        emptied = or_(OBJECTS.c.kind.like("report%"), OBJECTS.c.content == b"")
        cards = and_(OBJECTS.c.study_uid.in_(studies), not_(emptied))
        with self.transaction() as connection:
            rows = connection.execute(select(IMAGES.c.sop_uid, IMAGES.c.file).where(old).limit(_MOST_REMOVED)).all()
            connection.execute(update(OBJECTS).where(cards).values(content=b""))
            these = update(IMAGES).where(IMAGES.c.sop_uid.in_([row.sop_uid for row in rows]))
            connection.execute(these.values(removed=now))
            return [str(row.file) for row in rows]

    def unchanged(self, claim: Claim, now: float) -> None:
        """Say that the exam's last revision still holds: the same images, model and rules."""
        with self.transaction() as connection:
            if _still_has(connection, claim):
                _finish(connection, claim.study_uid, now)

    def hold(self, claim: Claim, reason: str, now: float) -> None:
        """Hold an exam that somebody has to look at."""
        with self.transaction() as connection:
            if _still_has(connection, claim):
                _hold(connection, claim.study_uid, reason, now)

    def fail(self, claim: Claim, reason: str, now: float) -> None:
        """Say that an exam cannot be read."""
        with self.transaction() as connection:
            if _still_has(connection, claim):
                statement = update(EXAMS).where(EXAMS.c.study_uid == claim.study_uid)
                connection.execute(
                    statement.values(state="failed", owner=None, due=None, reason=reason[:1000], changed=now)
                )

    def to_send(self, now: float) -> list[Outgoing]:
        """Deliveries that are due."""
        due = and_(DELIVERIES.c.state == "waiting", DELIVERIES.c.due <= now)
        query = select(*OUTGOING).join(OBJECTS).where(due).order_by(DELIVERIES.c.id).limit(50)
        with self.transaction() as connection:
            return [Outgoing(*row) for row in connection.execute(query)]

    def sent(self, delivery: int, now: float, *, confirm: bool = False) -> None:
        """Say that a destination has stored an object, which it still has to ``confirm``.

        The exam is delivered when nothing is left to send or to be confirmed.
        """
        with self.transaction() as connection:
            this = update(DELIVERIES).where(DELIVERIES.c.id == delivery)
            connection.execute(this.values(state="sent", reason="", due=now, confirm=confirm))
            finish_delivery(connection, delivery, now)

    def not_sent(self, delivery: int, reason: str, due: float | None) -> None:
        """Say why an object was not stored, and when to try again; None gives up."""
        values: dict[str, Any] = {"state": "failed"} if due is None else {"due": due}
        statement = update(DELIVERIES).where(DELIVERIES.c.id == delivery)
        with self.transaction() as connection:
            connection.execute(statement.values(tries=DELIVERIES.c.tries + 1, reason=reason[:1000], **values))

    def retry(self, now: float) -> int:
        """Try again what is held or has failed; returns how many exams and deliveries that is."""
        again = {"due": now, "tries": 0, "reason": ""}
        with self.transaction() as connection:
            exams = update(EXAMS).where(EXAMS.c.state.in_(("held", "failed")))
            done = connection.execute(exams.values(state="collecting", owner=None, changed=now, **again)).rowcount
            failed = update(DELIVERIES).where(DELIVERIES.c.state == "failed")
            return done + connection.execute(failed.values(state="waiting", since=now, **again)).rowcount

    def exams(self) -> list[dict[str, Any]]:
        """Every exam, last changed first: study UID, state, reason, and the number of its last revision."""
        number = select(func.max(REVISIONS.c.number)).where(REVISIONS.c.study_uid == EXAMS.c.study_uid)
        query = select(EXAMS, number.scalar_subquery().label("revision")).order_by(EXAMS.c.changed.desc())
        with self.transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def unused(self) -> list[dict[str, Any]]:
        """Every object that makes no exam: study UID, SOP Instance UID, and why, as the gatekeeper's code."""
        columns = (IMAGES.c.study_uid, IMAGES.c.sop_uid, IMAGES.c.code)
        query = select(*columns).where(IMAGES.c.projection.is_(None)).order_by(IMAGES.c.received)
        with self.transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def deliveries(self) -> list[dict[str, Any]]:
        """Every delivery: destination, SOP Instance UID, kind, state, tries, reason, and whether it is done."""
        columns = (DELIVERIES.c.destination, DELIVERIES.c.sop_uid, OBJECTS.c.kind, DELIVERIES.c.state)
        query = (
            select(*columns, DELIVERIES.c.tries, DELIVERIES.c.reason, _DONE.label("done"))
            .join(OBJECTS)
            .order_by(DELIVERIES.c.id)
        )
        with self.transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def require_answer(self) -> None:
        """Raise OutputError unless the database can be read."""
        with self.transaction() as connection:
            connection.scalar(select(EXAMS.c.study_uid).limit(1))

    def counts(self, now: float) -> Counts:
        """Count exams, deliveries, images and results."""
        place = (DELIVERIES.c.destination, DELIVERIES.c.state)
        usable = func.count(IMAGES.c.projection)
        waiting = DELIVERIES.c.state == "waiting"
        with self.transaction() as connection:
            exams = connection.execute(select(EXAMS.c.state, func.count()).group_by(EXAMS.c.state)).all()
            deliveries = connection.execute(select(*place, func.count()).group_by(*place)).all()
            mammograms, others = connection.execute(select(usable, func.count() - usable).select_from(IMAGES)).one()
            due = connection.scalar(select(func.min(EXAMS.c.due)).where(EXAMS.c.state == "collecting"))
            since = connection.scalar(select(func.min(DELIVERIES.c.since)).where(waiting))
            return Counts(
                exams={str(row[0]): int(row[1]) for row in exams},
                deliveries={(str(row[0]), str(row[1])): int(row[2]) for row in deliveries},
                images={"mammogram": mammograms, "other": others, "set-aside": _rows_of(connection, ASIDE)},
                results=_rows_of(connection, REVISIONS),
                exam_overdue_s=max(0.0, now - due) if due is not None else 0.0,
                delivery_age_s=max(0.0, now - since) if since is not None else 0.0,
            )

    def results(self, study_uid: str) -> list[dict[str, Any]]:
        """The results of an exam, one a revision, in order."""
        query = select(REVISIONS.c.result).where(REVISIONS.c.study_uid == study_uid).order_by(REVISIONS.c.number)
        with self.transaction() as connection:
            return [json.loads(text) for text in connection.scalars(query)]


def database_url(url: str, folder: Path) -> str:
    """The URL of the node's database: its own, or a SQLite file in the data folder."""
    return url or f"sqlite:///{(folder / DATABASE_FILE).absolute()}"


def require_database(url: str) -> None:
    """Connect to a database, and write nothing; a SQLite file that is not there yet only needs its folder.

    Raises
    ------
    OutputError
        It cannot be reached.
    """
    try:
        place = make_url(url)
        if place.get_backend_name() == "sqlite" and place.database and not Path(place.database).exists():
            if not Path(place.database).absolute().parent.is_dir():
                raise FileNotFoundError(f"there is no folder {Path(place.database).parent}")
            return
        limit = {"connect_timeout": _PATIENCE_S} if place.get_backend_name() == "postgresql" else {}
        engine = create_engine(place, connect_args=limit)
        inspect(engine).get_table_names()
        engine.dispose()
    except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> OutputError:
    text = f"the database cannot be opened ({_first_line(error)}); the setting is `database`, a URL such as "
    return OutputError(f"{text}postgresql+psycopg://USER@HOST/NAME")


def _rows_of(connection: Connection, table: Table) -> int:
    return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def _claimed(connection: Connection, study_uid: str, owner: str) -> Claim:
    of_study = and_(IMAGES.c.study_uid == study_uid, IMAGES.c.projection.is_not(None))
    images = connection.execute(
        select(IMAGES.c.file, IMAGES.c.removed).where(of_study).order_by(IMAGES.c.sop_uid)
    ).all()
    files = tuple(str(image.file) for image in images if image.removed is None)
    query = select(REVISIONS).where(REVISIONS.c.study_uid == study_uid).order_by(REVISIONS.c.number.desc()).limit(1)
    last = connection.execute(query).first()
    previous: dict[str, bytes] = {}
    if last:
        of_last = and_(OBJECTS.c.study_uid == study_uid, OBJECTS.c.number == last.number)
        rows = connection.execute(select(OBJECTS.c.kind, OBJECTS.c.content).where(of_last))
        previous = {row.kind: row.content for row in rows}
    number = last.number + 1 if last else 1
    return Claim(study_uid, owner, files, len(images) - len(files), number, last.key if last else None, previous)


def _still_has(connection: Connection, claim: Claim) -> bool:
    query = select(EXAMS.c.owner).where(EXAMS.c.study_uid == claim.study_uid).with_for_update()
    return connection.scalar(query) == claim.owner


def _finish(connection: Connection, study_uid: str, now: float) -> None:
    """The state of an exam with a result: delivered when nothing is left to send."""
    of_study = OBJECTS.c.study_uid == study_uid
    done = list(connection.scalars(select(_DONE).select_from(DELIVERIES).join(OBJECTS).where(of_study)))
    state = "delivered" if done and all(done) else "scored"
    values = {"state": state, "owner": None, "due": None, "tries": 0, "reason": "", "changed": now}
    connection.execute(update(EXAMS).where(EXAMS.c.study_uid == study_uid).values(**values))


def finish_delivery(connection: Connection, delivery: int, now: float) -> None:
    """Say that the exam of a delivery is delivered, if nothing else is left to do for it."""
    study = connection.scalar(select(OBJECTS.c.study_uid).join(DELIVERIES).where(DELIVERIES.c.id == delivery))
    if connection.scalar(select(EXAMS.c.state).where(EXAMS.c.study_uid == study)) == "scored":
        _finish(connection, str(study), now)


def _hold(connection: Connection, study_uid: str, reason: str, now: float) -> None:
    values = {"state": "held", "owner": None, "due": None, "reason": reason[:1000], "changed": now}
    connection.execute(update(EXAMS).where(EXAMS.c.study_uid == study_uid).values(**values))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: two transactions that read first and write later would lock each other out."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
