"""From exams to scores, with any model of single views.

Exams scored by several processes, in the order and with the scores of one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mammodensity.anatomy.field import flip_flags
from mammodensity.anatomy.quality import quality_flags
from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.data.images import read_record
from mammodensity.errors import CheckpointError, ImageError
from mammodensity.exam import Exam, Flag, Mammogram
from mammodensity.scores import ExamScores, FusedScores, fuse_exam
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, PROJECTIONS, Projection
from mammodensity.workers import in_workers, threads_told, usable_cores


@dataclass(frozen=True, eq=False)
class ViewReading:
    """What a model made of one image."""

    scores: NDArray[np.float64]
    """(K,) in the order A-D, or of another `Scale`."""
    percent_density: float | None = None
    """Where the model measures it."""
    flags: tuple[Flag, ...] = ()
    """What the model finds odd about the image."""
    features: NDArray[np.float32] | None = None
    """(F,) what a joint network fuses."""


class Model(Protocol):
    """What scores the views of an exam: trained networks, or the default model."""

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The projections it can read."""

    @property
    def warnings(self) -> list[str]:
        """What a user of its scores must know, a line each."""

    @property
    def fusion(self) -> str:
        """How it fuses views where nothing else is asked for."""

    def read(self, projection: Projection, mammogram: Mammogram) -> ViewReading:
        """Read one image; raise ``ImageError`` where it is refused."""

    def score(
        self, exam: Exam, *, fusion: str = "mean", allow_missing: bool = False, policy: str = "mean"
    ) -> ExamScores:
        """Score one exam."""


def score_exam(
    model: Model,
    exam: Exam,
    *,
    fusion: str = "mean",
    allow_missing: bool = False,
    policy: str = "mean",
    fuse: Callable[[Mapping[Projection, ViewReading]], dict[str, FusedScores]] | None = None,
) -> ExamScores:
    """Score one exam view by view; ``fuse`` makes breasts and subject of the views, by default ``fuse_exam``.

    A projection is missing without an image, without a network, or where its image is refused: what is fused from it is
    not given, unless ``allow_missing`` asks to fuse the projections present; either way the result names the missing
    ones, and why an image was refused.

    Raises
    ------
    OptionError
        Unknown fusion method or policy.
    """
    views: dict[Projection, ViewReading] = {}
    refused: dict[Projection, str] = {}
    flags: dict[Projection, tuple[Flag, ...]] = {}
    for projection in PROJECTIONS:
        if projection in exam.mammograms and projection in model.projections:
            try:
                mammogram = exam.mammograms[projection]
                views[projection] = model.read(projection, mammogram)
                of_image = quality_flags(mammogram) + flip_flags(projection, mammogram)
                flags[projection] = of_image + views[projection].flags
            except ImageError as error:
                refused[projection] = str(error)
    scores = {projection: view.scores for projection, view in views.items()}
    fused = fuse(views) if fuse else fuse_exam(scores, fusion, allow_missing, policy)
    percents = _percent_densities(views, fused, policy)
    return ExamScores(exam.exam_id, scores, fused, percents, refused, flags, fusion, policy)


def _percent_densities(
    views: Mapping[Projection, ViewReading], fused: Mapping[str, FusedScores], policy: str
) -> dict[str, float]:
    """By view, breast and subject, where all views have one and scores are given.

    A breast's is the mean of its views; the subject's is the mean of the breasts, or the denser one's by that policy.
    """
    found = {str(p): view.percent_density for p, view in views.items() if view.percent_density is not None}
    if not found:
        return {}
    for breast in ("right", "left"):
        own = [found[view] for view in FUSED_LEVELS[breast] if view in found]
        if own and fused[breast].scores is not None:
            found[breast] = float(np.mean(own))
    breasts = [found[breast] for breast in ("right", "left") if breast in found]
    if breasts and fused["subject"].scores is not None:
        found["subject"] = float(np.mean(breasts)) if policy == "mean" else max(breasts)
    return found


def predict(
    model: Model, data: DataSet, *, fusion: str | None = None, allow_missing: bool = False, policy: str = "mean"
) -> Generator[ExamScores, None, None]:
    """Score the exams of a data set one after the other, in sorted order; an image that is refused is a missing view.

    Without a ``fusion``, the model's own: the mean, or that of a joint network.

    Raises
    ------
    LayoutError
        The data set cannot be used.
    CheckpointError
        The model has no network for any projection of the data set.
    """
    require_networks(model, data)
    for exam_id, records in data.exams().items():
        yield score_records(model, exam_id, records, fusion=fusion, allow_missing=allow_missing, policy=policy)


def score_records(
    model: Model,
    exam_id: str,
    records: Mapping[Projection, ImageRecord],
    *,
    fusion: str | None,
    allow_missing: bool,
    policy: str,
) -> ExamScores:
    """Read and score one exam, a view while the next are being read; an image that is refused is a missing view."""
    with ThreadPoolExecutor(min(len(records), threads_told() or usable_cores())) as readers:
        images = _BeingRead({projection: readers.submit(read_record, record) for projection, record in records.items()})
        exam = Exam(exam_id, images)
        scored = model.score(exam, fusion=fusion or model.fusion, allow_missing=allow_missing, policy=policy)
        return replace(scored, refused={**scored.refused, **images.unread()})


class _BeingRead(Mapping[Projection, Mammogram]):
    """The images of an exam; asking for one waits until it is read, or raises ``ImageError`` where it cannot be."""

    def __init__(self, images: Mapping[Projection, Future[Mammogram]]) -> None:
        self._images = images

    def __getitem__(self, projection: Projection) -> Mammogram:
        return self._images[projection].result()

    def __contains__(self, projection: object) -> bool:
        return projection in self._images

    def __iter__(self) -> Iterator[Projection]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def unread(self) -> dict[Projection, str]:
        """Why images could not be read; those that no network asked for, too."""
        errors = {projection: image.exception() for projection, image in self._images.items()}
        return {projection: str(error) for projection, error in errors.items() if isinstance(error, ImageError)}


def require_networks(model: Model, data: DataSet, *, all_projections: bool = False) -> None:
    """Raise ``CheckpointError`` unless the model can read some projection of the data set, or all four."""
    present = {record.projection for record in data.records}
    has = ", ".join(model.projections)
    if not present & set(model.projections):
        holds = ", ".join(sorted(present))
        raise CheckpointError(
            f"the model has networks for {has}, but {data.root} only holds {holds}; name another model"
        )
    if all_projections and set(model.projections) != set(PROJECTIONS):
        raise CheckpointError(
            f"the model has networks for {has} only; the origin's text files need all four projections"
        )


def stacked_projections(exams: Sequence[ExamScores]) -> dict[Projection, NDArray[np.float64]]:
    """Scores (N, K) of each projection that any of the exams has, with a row of NaN where an exam lacks it."""
    length = next((len(exam.scale) for exam in exams if exam.projections), len(CATEGORIES))
    absent = np.full(length, np.nan)
    return {
        projection: np.stack([np.asarray(exam.projections.get(projection, absent)) for exam in exams])
        for projection in PROJECTIONS
        if any(projection in exam.projections for exam in exams)
    }


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
    """As :func:`mammodensity.models.scoring.predict`, by processes that each load the model and share the cores.

    Parameters
    ----------
    load
        Gives the model again, in each process: a function of a module, or a ``partial`` of one.

    Raises
    ------
    LayoutError, CheckpointError
        As of :func:`mammodensity.models.scoring.predict`.
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
