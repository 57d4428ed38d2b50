"""A worker of the node: claims exams, reads them as `mammodensity.predict` does, and keeps results and objects."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from uuid import uuid4

from mammodensity.clinic.config import ClinicConfig, config_from
from mammodensity.clinic.database import Claim, Database, database_url
from mammodensity.clinic.inbox import name_of
from mammodensity.clinic.log import log
from mammodensity.clinic.objects import exam_objects
from mammodensity.clinic.sources import MadeObject, read_sources, revision_of
from mammodensity.data.archive import choose, data_of, survey
from mammodensity.errors import MammodensityError, OutputError, shortage
from mammodensity.workflows.predict import Predictor

_IDLE_S = 0.5
_SEVERAL_PATIENTS = "several-patients"


class Worker:
    """Reads exams one after the other, for as long as there are any.

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
        self._config, self._folder, self._database, self._clock = config, folder, database, clock
        self._predictor = Predictor(Path(config.model) if config.model else None, allow_missing=True, device="cpu")
        self._owner = f"{os.getpid()}-{uuid4().hex}"

    def work_once(self) -> bool:
        """Read one exam; returns False where none is due."""
        config = self._config
        claim = self._database.claim(self._owner, self._clock(), lease_s=config.lease_s, most_tries=config.most_tries)
        if claim is None:
            return False
        try:
            outcome = self._read(claim)
        except OutputError:  # the database is away; the exam is read again when the lease has ended
            raise
        except Exception as error:  # whatever one exam leads to, the others must be read
            outcome = "held" if getattr(error, "code", "") == _SEVERAL_PATIENTS else "failed"
            keep = self._database.hold if outcome == "held" else self._database.fail
            keep(claim, _reason(error), self._clock())
        log(outcome, study=name_of(claim.study_uid), revision=claim.number)
        return True

    def _read(self, claim: Claim) -> str:
        if claim.removed:
            self._database.wait(claim, "its earlier images were removed; send the whole study again", self._clock())
            return "waiting"
        verdicts = choose(survey([self._folder / file for file in claim.files], synthetic=self._config.synthetic))
        joined = [verdict for verdict in verdicts if any(r.code == _SEVERAL_PATIENTS for r in verdict.reasons)]
        if joined:
            self._database.hold(claim, "the study has images of several Patient IDs", self._clock())
            return "held"
        (exam_id, records), *_ = data_of(self._folder, verdicts).exams().items()
        headers = read_sources(records)
        made = datetime.fromtimestamp(self._clock())
        predictor = self._predictor
        revision = revision_of(records, headers, predictor.provenance, predictor.how, number=claim.number, made=made)
        if revision.key == claim.key:
            self._database.unchanged(claim, self._clock())
            return "unchanged"
        classes = tuple(dict.fromkeys(destination.sr for destination in self._config.destinations))
        exam = exam_objects(
            predictor,
            exam_id,
            records,
            headers,
            revision,
            sr=classes or ("comprehensive3d",),
            previous=claim.previous,
        )
        objects = [(made_object, self._destinations(made_object)) for made_object in exam.objects]
        kept = self._database.complete(claim, revision.key, exam.result.to_dict(), objects, self._clock())
        return "scored" if kept else "dropped"

    def _destinations(self, made: MadeObject) -> Sequence[str]:
        """Who gets an object: a destination takes reports of its own class only."""
        return [
            destination.name
            for destination in self._config.destinations
            if not made.kind.startswith("report") or made.kind == f"report {destination.sr}"
        ]


def _reason(error: Exception) -> str:
    """Say why an exam failed. Messages of other libraries may hold values of the header, so they are not shown."""
    if isinstance(error, MammodensityError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return shortage(error) or f"unexpected {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"


def main() -> None:
    """Work until told to stop, or until the node is gone: its end of standard input closes then."""
    settings = json.loads(sys.stdin.readline())
    config, folder = config_from(settings["config"]), Path(settings["folder"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)

    def watch_node() -> None:
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=watch_node, daemon=True).start()
    database = Database(database_url(config.database, folder))
    worker = Worker(config, folder, database)
    while not stopping.is_set():
        try:
            busy = worker.work_once()
        except OutputError as error:  # the database is away; it may come back
            log("database-away", reason=str(error))
            busy = False
        if not busy:
            stopping.wait(_IDLE_S)


if __name__ == "__main__":
    main()
