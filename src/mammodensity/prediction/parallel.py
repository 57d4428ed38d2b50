"""Exams scored by several processes, in the order and with the scores of one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import partial

from mammodensity.fusion import ExamScores
from mammodensity.ingest import DataSet, ImageRecord
from mammodensity.prediction.scoring import Model, require_networks, score_records
from mammodensity.terms import Projection
from mammodensity.workers import in_workers, usable_cores

Job = tuple[int, str, Mapping[Projection, ImageRecord]]

_loaded: list[Model] = []  # in a worker, from its first exam on


def predict_in_workers(
    model: Model,
    load: Callable[[], Model],
    data: DataSet,
    workers: int,
    *,
    fusion: str | None = None,
    allow_missing: bool = False,
    policy: str = "mean",
) -> Generator[ExamScores, None, None]:
    """As :func:`mammodensity.prediction.predict`, by processes that each load the model and share the cores.

    Parameters
    ----------
    load
        Gives the model again, in each process: a function of a module, or a ``partial`` of one.

    Raises
    ------
    LayoutError, CheckpointError
        As of :func:`mammodensity.prediction.predict`.
    OutputError
        A process died.
    """
    require_networks(model, data)
    jobs = [(place, exam_id, records) for place, (exam_id, records) in enumerate(data.exams().items())]
    count = max(min(workers, len(jobs)), 1)
    how = partial(_score, load, fusion=fusion, allow_missing=allow_missing, policy=policy)
    early: dict[int, ExamScores] = {}
    following = 0
    with closing(in_workers(how, jobs, count, threads=max(usable_cores() // count, 1))) as finished:
        for (place, _, _), scored in finished:
            early[place] = scored
            while following in early:
                yield early.pop(following)
                following += 1


def _score(load: Callable[[], Model], job: Job, *, fusion: str | None, allow_missing: bool, policy: str) -> ExamScores:
    """Score one exam in a worker."""
    if not _loaded:
        _loaded.append(load())
    _, exam_id, records = job
    return score_records(_loaded[0], exam_id, records, fusion=fusion, allow_missing=allow_missing, policy=policy)
