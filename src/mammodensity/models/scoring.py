"""Score exams: each view is read once, scored once, and fused with the others.

Any model can be used that scores views: trained networks, a joint network, or the default model.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mammodensity.anatomy.read_view import ReadView
from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.data.images import read_record
from mammodensity.errors import CheckpointError, ImageError
from mammodensity.exam import Exam, Flag, Mammogram
from mammodensity.scores import ExamScores, FusedScores, score_problem
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, PROJECTIONS, Projection
from mammodensity.workers import in_workers, threads_told, usable_cores

Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class ViewScores:
    """What a model says of one view.

    Raises
    ------
    CheckpointError
        The scores are not numbers from 0 to 1 that sum to 1, or the percent density is none from 0 to 100.
    """

    scores: NDArray[np.float64]
    """(K,) in the order A-D, or of another `Scale`."""
    percent_density: float | None = None
    """Per cent, where the model measures it."""
    flags: tuple[Flag, ...] = ()
    """Reasons to look twice that only the model can tell."""
    features: NDArray[np.float32] | None = None
    """(F,) what a joint network fuses."""

    def __post_init__(self) -> None:
        problem = score_problem(self.scores.tolist())
        if self.percent_density is not None and not 0 <= self.percent_density <= 100:
            problem = f"found a percent density of {self.percent_density}, expected a number from 0 to 100"
        if problem:
            raise CheckpointError(f"the model gives scores that cannot be used: {problem}; restore it or train again")


@dataclass(frozen=True, eq=False)
class ScoredExam:
    """An exam as read and scored; explanations and pictures are made from it without reading or scoring again."""

    scores: ExamScores
    views: Mapping[Projection, ReadView]
    """The views that have scores."""
    view_scores: Mapping[Projection, ViewScores]


class Model(Protocol):
    """Anything that scores views and fuses them: trained networks, a joint network, or the default model."""

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The projections it can score."""

    @property
    def warnings(self) -> list[str]:
        """What a user of its scores must know, a line each."""

    @property
    def fusion(self) -> str:
        """How it fuses views by default."""

    def score_view(self, view: ReadView) -> ViewScores:
        """Score one view; raise ``ImageError`` if the image is refused."""

    def fuse(
        self, views: Mapping[Projection, ViewScores], *, fusion: str, allow_missing: bool, policy: str
    ) -> dict[str, FusedScores]:
        """Fuse the views present into right breast, left breast and subject."""


def score_exam(
    model: Model,
    exam: Exam,
    *,
    fusion: str | None = None,
    allow_missing: bool = False,
    policy: str = "mean",
    scored: Mapping[Projection, ViewScores] | None = None,
) -> ScoredExam:
    """Score one exam view by view.

    A projection is missing if it has no image, the model has no network for it, or its image is refused. Breasts and
    subject that lack a view get no scores, unless ``allow_missing`` asks to fuse the views present. The result names
    the missing views and says why an image was refused.

    Parameters
    ----------
    fusion
        One of `FUSION_METHODS`; None is the model's own.
    policy
        One of `POLICIES`.
    scored
        Views that the model has scored already; they are not scored again.

    Raises
    ------
    OptionError
        Unknown fusion method or policy.
    """
    fusion = fusion or model.fusion
    views: dict[Projection, ReadView] = {}
    scores: dict[Projection, ViewScores] = {}
    flags: dict[Projection, tuple[Flag, ...]] = {}
    refused: dict[Projection, str] = {}
    for projection in PROJECTIONS:
        if projection in exam.mammograms and projection in model.projections:
            try:
                view = ReadView(exam.mammograms[projection], projection)
                view_scores = (scored or {}).get(projection) or model.score_view(view)
                flags[projection] = view.flags + view_scores.flags
                scores[projection], views[projection] = view_scores, view
            except ImageError as error:
                refused[projection] = str(error)
    fused = model.fuse(scores, fusion=fusion, allow_missing=allow_missing, policy=policy)
    exam_scores = ExamScores(
        exam.exam_id,
        {projection: view.scores for projection, view in scores.items()},
        fused,
        _percent_densities(scores, fused, policy),
        refused,
        flags,
        fusion,
        policy,
    )
    return ScoredExam(exam_scores, views, scores)


def _percent_densities(
    views: Mapping[Projection, ViewScores], fused: Mapping[str, FusedScores], policy: str
) -> dict[str, float]:
    """Percent density by view, breast and subject, where the model measures it.

    A breast's is the mean of its views; the subject's is the mean of the breasts, or that of the denser breast by that
    policy. Breasts and subject without scores have none.
    """
    percents = {str(p): view.percent_density for p, view in views.items() if view.percent_density is not None}
    if not percents:
        return {}
    for breast in ("right", "left"):
        of_views = [percents[view] for view in FUSED_LEVELS[breast] if view in percents]
        if of_views and fused[breast].scores is not None:
            percents[breast] = float(np.mean(of_views))
    breasts = [percents[breast] for breast in ("right", "left") if breast in percents]
    if breasts and fused["subject"].scores is not None:
        percents["subject"] = float(np.mean(breasts)) if policy == "mean" else max(breasts)
    return percents


def predict(
    model: Model, data: DataSet, *, fusion: str | None = None, allow_missing: bool = False, policy: str = "mean"
) -> Generator[ExamScores, None, None]:
    """Score the exams of a data set one after the other, in sorted order; a refused image is a missing view.

    Raises as `scored_exams` does.
    """
    for exam in scored_exams(model, data, fusion=fusion, allow_missing=allow_missing, policy=policy):
        yield exam.scores


def scored_exams(
    model: Model, data: DataSet, *, fusion: str | None = None, allow_missing: bool = False, policy: str = "mean"
) -> Generator[ScoredExam, None, None]:
    """Do what `predict` does, and give each exam with its images, for pictures and explanations.

    Parameters
    ----------
    fusion
        None is the model's own: the mean, or that of a joint network.

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
    fusion: str | None = None,
    allow_missing: bool = False,
    policy: str = "mean",
    scored: Mapping[Projection, ViewScores] | None = None,
) -> ScoredExam:
    """Read and score one exam, a view while others are still being read; a refused image is a missing view."""
    with ThreadPoolExecutor(min(len(records), threads_told() or usable_cores())) as readers:
        images = _BeingRead({projection: readers.submit(read_record, record) for projection, record in records.items()})
        exam = Exam(exam_id, images)
        done = score_exam(model, exam, fusion=fusion, allow_missing=allow_missing, policy=policy, scored=scored)
        return replace(done, scores=replace(done.scores, refused={**done.scores.refused, **images.unread()}))


class _BeingRead(Mapping[Projection, Mammogram]):
    """The images of an exam. Asking for one waits until it is read, or raises ``ImageError`` if it cannot be."""

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
        """Why images could not be read, also those that no network asked for."""
        errors = {projection: image.exception() for projection, image in self._images.items()}
        return {projection: str(error) for projection, error in errors.items() if isinstance(error, ImageError)}


Job = tuple[int, str, Mapping[Projection, ImageRecord]]

_loaded: list[Model] = []  # in a worker, from its first exam on


def predict_in_workers(
    model: Model,
    load: Callable[[], Model],
    data: DataSet,
    workers: int,
    *,
    keep: Callable[[Model, ScoredExam], Kept],
    fusion: str | None = None,
    allow_missing: bool = False,
    policy: str = "mean",
) -> Generator[Kept, None, None]:
    """Do what `scored_exams` does with several processes that share the cores, in the same order.

    Parameters
    ----------
    load
        Loads the model in each process: a function of a module, or a ``partial`` of one.
    keep
        What comes back of each exam, such as `scores_of`; the images stay in the process. A function as ``load`` is.

    Raises
    ------
    LayoutError, CheckpointError
        As `scored_exams` does.
    OutputError
        A process died.
    """
    require_networks(model, data)
    jobs = [(place, exam_id, records) for place, (exam_id, records) in enumerate(data.exams().items())]
    count = max(min(workers, len(jobs)), 1)
    how: dict[str, Any] = {"fusion": fusion, "allow_missing": allow_missing, "policy": policy}
    job = partial(_score, load, keep, how)
    early: dict[int, Kept] = {}
    following = 0
    with closing(in_workers(job, jobs, count, threads=max(usable_cores() // count, 1))) as finished:
        for (place, _, _), kept in finished:
            early[place] = kept
            while following in early:
                yield early.pop(following)
                following += 1


def scores_of(_model: Model, exam: ScoredExam) -> ExamScores:
    """Keep the scores of an exam and let its images go."""
    return exam.scores


def _score(
    load: Callable[[], Model], keep: Callable[[Model, ScoredExam], Kept], how: Mapping[str, Any], job: Job
) -> Kept:
    """Score one exam in a worker."""
    if not _loaded:
        _loaded.append(load())
    _, exam_id, records = job
    return keep(_loaded[0], score_records(_loaded[0], exam_id, records, **how))


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
        raise CheckpointError(f"the model has networks for {has} only; INFN's text files need all four projections")


def stacked_projections(exams: Sequence[ExamScores]) -> dict[Projection, NDArray[np.float64]]:
    """Scores (N, K) of each projection that any of the exams has, with a row of NaN where an exam lacks it."""
    length = next((len(exam.scale) for exam in exams if exam.projections), len(CATEGORIES))
    absent = np.full(length, np.nan)
    return {
        projection: np.stack([np.asarray(exam.projections.get(projection, absent)) for exam in exams])
        for projection in PROJECTIONS
        if any(projection in exam.projections for exam in exams)
    }
