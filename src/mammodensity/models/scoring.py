"""Score exams: each view is read once, scored once, and fused with the others.

Any model can be used that scores views: trained networks, a joint network, or the default model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from mammodensity.anatomy.read_view import ReadView
from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.data.images import read_record
from mammodensity.errors import CheckpointError, ImageError
from mammodensity.exam import Exam, Flag, Mammogram
from mammodensity.scores import ExamScores, FusedScores, fuse_exam, score_problem
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, PROJECTIONS, Projection
from mammodensity.workers import in_workers, threads_told, usable_cores

Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class ViewScores:
    """Scores of one view, with all else that a model finds in it.

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
    """(F,), for the fusion of a joint network."""

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


class Model(ABC):
    """Anything that scores views and fuses them: trained networks, a joint network, or the default model."""

    fusion: ClassVar[str] = "mean"
    """The default fusion of views."""

    @property
    @abstractmethod
    def projections(self) -> tuple[Projection, ...]:
        """The projections it can score."""

    @property
    @abstractmethod
    def warnings(self) -> list[str]:
        """Facts that a user of its scores must know, a line each."""

    @abstractmethod
    def score_view(self, view: ReadView) -> ViewScores:
        """Score one view; raise ``ImageError`` if the image is refused."""

    def fuse(
        self, views: Mapping[Projection, ViewScores], *, fusion: str, allow_missing: bool, policy: str
    ) -> dict[str, FusedScores]:
        """Fuse the views present into right breast, left breast and subject."""
        return fuse_exam({projection: view.scores for projection, view in views.items()}, fusion, allow_missing, policy)

    def score(self, exam: Exam, **how: Unpack[FusionOptions]) -> ExamScores:
        """Score one exam; see :func:`mammodensity.models.scoring.score_exam`."""
        return score_exam(self, exam, **how).scores


class FusionOptions(TypedDict, total=False):
    """The fusion of views into breasts and exam."""

    fusion: str | None
    """One of `FUSION_METHODS`; None (default): the model's default."""
    allow_missing: bool
    """Also fuse the views of breasts and exams that lack some; by default these get no scores."""
    policy: str
    """One of `POLICIES`, ``mean`` by default."""


Scored = Mapping[Projection, ViewScores]
"""Views that a model has scored already; they are not scored again."""


def score_exam(model: Model, exam: Exam, *, scored: Scored | None = None, **how: Unpack[FusionOptions]) -> ScoredExam:
    """Score one exam view by view.

    A projection is missing if it has no image, the model has no network for it, or its image is refused. The result
    names the missing views and says why an image was refused.

    Raises
    ------
    OptionError
        Unknown fusion method or policy.
    """
    images = {projection: partial(exam.mammograms.__getitem__, projection) for projection in exam.mammograms}
    return _score_images(model, exam.exam_id, images, scored or {}, **how)


def score_records(
    model: Model,
    exam_id: str,
    records: Mapping[Projection, ImageRecord],
    *,
    scored: Scored | None = None,
    **how: Unpack[FusionOptions],
) -> ScoredExam:
    """Read and score one exam, a view while others are still being read; a refused image is a missing view."""
    with ThreadPoolExecutor(min(len(records), threads_told() or usable_cores())) as readers:
        images = {projection: readers.submit(read_record, record).result for projection, record in records.items()}
        return _score_images(model, exam_id, images, scored or {}, **how)


def _score_images(
    model: Model,
    exam_id: str,
    images: Mapping[Projection, Callable[[], Mammogram]],
    scored: Scored,
    **how: Unpack[FusionOptions],
) -> ScoredExam:
    """Score an exam by functions that give its images, or raise ``ImageError``."""
    fusion, policy = how.get("fusion") or model.fusion, how.get("policy", "mean")
    views: dict[Projection, ReadView] = {}
    scores: dict[Projection, ViewScores] = {}
    flags: dict[Projection, tuple[Flag, ...]] = {}
    refused: dict[Projection, str] = {}
    for projection in filter(images.__contains__, PROJECTIONS):
        try:
            mammogram = images[projection]()
            if projection in model.projections:
                view = ReadView(mammogram, projection)
                view_scores = scored.get(projection) or model.score_view(view)
                flags[projection] = view.flags + view_scores.flags
                scores[projection], views[projection] = view_scores, view
        except ImageError as error:
            refused[projection] = str(error)
    fused = model.fuse(scores, fusion=fusion, allow_missing=how.get("allow_missing", False), policy=policy)
    exam_scores = ExamScores(
        exam_id,
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


def predict(model: Model, data: DataSet, **how: Unpack[FusionOptions]) -> Generator[ExamScores, None, None]:
    """Score the exams of a data set as `scored_exams` does, and let their images go."""
    for exam in scored_exams(model, data, **how):
        yield exam.scores


def scored_exams(model: Model, data: DataSet, **how: Unpack[FusionOptions]) -> Generator[ScoredExam, None, None]:
    """Score the exams of a data set one after the other, in sorted order; a refused image is a missing view.

    Raises
    ------
    LayoutError
        The data set cannot be used.
    CheckpointError
        The model has no network for any projection of the data set.
    """
    require_networks(model, data)
    for exam_id, records in data.exams().items():
        yield score_records(model, exam_id, records, **how)


Job = tuple[int, str, Mapping[Projection, ImageRecord]]

_loaded: list[Model] = []  # in a worker, from its first exam on


def predict_in_workers(
    model: Model,
    load: Callable[[], Model],
    data: DataSet,
    workers: int,
    *,
    keep: Callable[[Model, ScoredExam], Kept],
    **how: Unpack[FusionOptions],
) -> Generator[Kept, None, None]:
    """Do what `scored_exams` does with several processes that share the cores, in the same order.

    Parameters
    ----------
    load
        Loads the model in each process: a function of a module, or a ``partial`` of one.
    keep
        Makes what comes back of each exam; the images stay in the process. A function as ``load`` is.

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
    job = partial(_score, load, keep, how)
    early: dict[int, Kept] = {}
    following = 0
    with closing(in_workers(job, jobs, count, threads=max(usable_cores() // count, 1))) as finished:
        for (place, _, _), kept in finished:
            early[place] = kept
            while following in early:
                yield early.pop(following)
                following += 1


def _score(load: Callable[[], Model], keep: Callable[[Model, ScoredExam], Kept], how: FusionOptions, job: Job) -> Kept:
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
