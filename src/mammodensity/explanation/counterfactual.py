"""The same view with more or less dense tissue: phantoms rendered anew, real images painted.

Painting moves the border of the dense tissue outwards or inwards. What becomes fat is brought down to the level of the
fat around it; what becomes dense is raised above it by the image's own contrast of dense tissue to fat, unevenly as
lobes are. Fine texture stays as it is, borders are blended. The rim below the skin and the muscle are never painted.

P(A..D) of an exam against percent density, where its answer flips, and whether more dense tissue ever lowers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from mammodensity.anatomy.tissue import ADIPOSE, FIBROGLANDULAR, find_tissue
from mammodensity.errors import ImageError, OptionError
from mammodensity.exam import Exam, Mammogram
from mammodensity.models.scoring import Model, score_exam
from mammodensity.phantom.appearance import tissue_labels, with_dense_share
from mammodensity.phantom.breast import draw_anatomy, stream
from mammodensity.phantom.exams import PhantomSpec, trace_breast
from mammodensity.phantom.projection import PHANTOM_RULE, Paths, expose, present
from mammodensity.terms import CATEGORIES, Projection

LONGER_SIDE_PX = 768
"""Real images are reduced to this before they are painted: networks see less."""

_RIM, _BLEND, _FINE, _SLOW, _LOBES = 0.03, 0.01, 0.01, 0.04, 0.012  # of the longer side
_BRIGHTER = 80  # percentile of the contrast in dense tissue
_UNEVEN = 0.35
_LEAST_COVER = 1e-3

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PaintedStep:
    """A view with a certain amount of dense tissue."""

    mammogram: Mammogram
    labels: Labels
    """(H, W): 0 background, 1 adipose, 2 fibroglandular, 3 muscle."""
    percent_density: float
    """Dense area per breast area without muscle, per cent, of these labels."""


def percent_density(labels: Labels) -> float:
    """Dense area per breast area without muscle, per cent.

    Raises
    ------
    OptionError
        There is no breast.
    """
    dense, fat = (int(np.count_nonzero(labels == value)) for value in (FIBROGLANDULAR, ADIPOSE))
    if dense + fat == 0:
        raise OptionError("the labels hold no breast, so dense tissue cannot be added or removed")
    return 100 * dense / (dense + fat)


def reduced_view(mammogram: Mammogram, labels: Labels) -> tuple[Mammogram, Labels]:
    """Image and labels with the longer side at most `LONGER_SIDE_PX`."""
    rows, columns = labels.shape
    factor = min(1.0, LONGER_SIDE_PX / max(rows, columns))
    size = (max(16, round(columns * factor)), max(16, round(rows * factor)))
    grey = np.asarray(Image.fromarray(mammogram.pixels.astype(np.float32)).resize(size, Image.Resampling.BOX))
    pixels: Any = np.rint(grey).astype(mammogram.pixels.dtype)
    small = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    spacing = None if mammogram.spacing_mm is None else mammogram.spacing_mm / factor
    return replace(mammogram, pixels=pixels, spacing_mm=spacing), small


def paint(mammogram: Mammogram, labels: Labels, percent: float) -> PaintedStep:
    """The view with another amount of dense tissue, as far as the breast within its rim allows.

    Raises
    ------
    OptionError
        ``percent`` is not 0 to 100, or there is no breast.
    """
    if not 0 <= percent <= 100:
        raise OptionError(f"percent density must be 0 to 100. Got {percent} instead.")
    before = labels == FIBROGLANDULAR
    breast = before | (labels == ADIPOSE)
    percent_density(labels)  # there is a breast
    after = _grown(before, breast, round(percent / 100 * np.count_nonzero(breast)))
    grey = mammogram.pixels.astype(np.float32)
    fat, contrast = _fat_and_contrast(grey, before, breast)
    level = _average(grey, breast, _FINE * max(labels.shape))
    longer = max(labels.shape)
    change = gaussian_filter(after.astype(np.float32), _BLEND * longer)
    change -= gaussian_filter(before.astype(np.float32), _BLEND * longer)
    change *= breast
    lobes = gaussian_filter(np.random.default_rng(0).standard_normal(grey.shape), _LOBES * longer)
    uneven = np.clip(1 + _UNEVEN * lobes / lobes.std(), 0, 2)
    rise, fall = np.clip(fat + contrast * uneven - level, 0, 2 * contrast), np.maximum(level - fat, 0)
    painted = grey + np.maximum(change, 0) * rise - np.maximum(-change, 0) * fall
    top = float(grey[breast].max())
    painted = np.where(breast, np.clip(painted, float(grey.min()), max(top, float(np.median(grey)))), grey)
    new = np.where(breast, np.where(after, FIBROGLANDULAR, ADIPOSE), labels).astype(np.uint8)
    pixels: Any = np.rint(painted).astype(mammogram.pixels.dtype)
    return PaintedStep(replace(mammogram, pixels=pixels), new, percent_density(new))


def _grown(dense: NDArray[np.bool_], breast: NDArray[np.bool_], wanted: int) -> NDArray[np.bool_]:
    """Dense tissue of so many pixels: its border moved; without any, it grows from the middle of the breast."""
    depth = distance_transform_edt(np.pad(breast, 1))[1:-1, 1:-1]
    inner = breast & (depth > _RIM * max(breast.shape))
    seed = dense if dense.any() else depth >= depth.max()
    order = distance_transform_edt(~seed) - distance_transform_edt(seed)
    order = np.where(dense | inner, order, np.inf)
    wanted = min(wanted, int(np.isfinite(order).sum()))
    grown = np.zeros(dense.size, bool)
    grown[np.argsort(order, axis=None, kind="stable")[:wanted]] = True
    return grown.reshape(dense.shape)


def _fat_and_contrast(grey: Floats, dense: NDArray[np.bool_], breast: NDArray[np.bool_]) -> tuple[Floats, float]:
    """The level of fat at each place, and how far dense tissue stands above it.

    That is taken from its brighter part: what is outlined as dense holds fat between strands.
    """
    fat = breast & ~dense
    low, high = (float(percentile) for percentile in np.percentile(grey[breast], (25, 99)))
    plain = (high - low) / 2  # where the image does not tell
    if not fat.any():
        return np.full(grey.shape, low, np.float32), plain
    level = _average(grey, fat, _SLOW * max(grey.shape))
    if not dense.any():
        return level, plain
    return level, max(0.0, float(np.percentile((grey - level)[dense], _BRIGHTER)))


def _average(grey: Floats, mask: NDArray[np.bool_], sigma: float) -> Floats:
    """The image within a mask, smoothed, and carried on beyond it."""
    weight = mask.astype(np.float32)
    cover = gaussian_filter(weight, sigma)
    filled: Floats = gaussian_filter(grey * weight, sigma) / np.maximum(cover, 1e-6)
    return np.where(cover > _LEAST_COVER, filled, np.median(grey[mask]))


@dataclass(frozen=True, eq=False)
class PhantomBreasts:
    """The traced views of one phantom exam, ready to be rendered with other amounts of dense tissue."""

    spec: PhantomSpec
    index: int
    paths: Mapping[Projection, Paths]

    @classmethod
    def trace(cls, spec: PhantomSpec, index: int) -> PhantomBreasts:
        """Trace both breasts of exam ``index``."""
        outlines = {}
        for side in "RL":
            for position, paths in trace_breast(spec, index, side).items():
                outlines[Projection(f"{position}_{side}")] = paths
        return cls(spec, index, {projection: outlines[projection] for projection in Projection})

    def render(self, projection: Projection, percent: float | None = None) -> PaintedStep:
        """A view with its own amount of dense tissue, or near another; noise and processing are always the same."""
        paths = self.paths[projection]
        if percent is not None:
            paths = with_dense_share(paths, percent / 100, PHANTOM_RULE)
        processing = draw_anatomy(self.spec.seed, self.index, self.spec.mix).processing
        rng = stream(self.spec.seed, self.index, "counterfactual", projection.value)
        image = present(expose(paths, processing, rng), paths, processing, self.spec.bits)
        labels = tissue_labels(paths, PHANTOM_RULE)
        flip = slice(None, None, -1 if projection.laterality == "R" else 1)
        turned = np.ascontiguousarray(labels[:, flip])
        mammogram = Mammogram(np.ascontiguousarray(image[:, flip]), projection, self.spec.spacing_mm)
        return PaintedStep(mammogram, turned, percent_density(turned))


LOWEST, HIGHEST = 1.0, 80.0
"""Percent densities between which dense tissue is removed and added."""
TOLERANCE = 0.05
"""A fall of the expected category by less is no fall: noise, and the blending of borders."""

View = Callable[[float | None], PaintedStep]


@dataclass(frozen=True, eq=False)
class DensityCurve:
    """An exam with other amounts of dense tissue, from little to much."""

    exam_id: str
    percents: NDArray[np.float64]
    """(S,) percent density of the changed labels, mean over the views."""
    scores: NDArray[np.float64]
    """(S, 4) fused scores."""
    own: int
    """The step of the unchanged exam."""

    @property
    def expected(self) -> NDArray[np.float64]:
        """(S,) expected category: A is 0, D is 3."""
        result: NDArray[np.float64] = self.scores @ np.arange(len(CATEGORIES))
        return result

    @property
    def largest_fall(self) -> float:
        """The largest fall of the expected category while dense tissue is added; 0 where it never falls."""
        return float((np.maximum.accumulate(self.expected) - self.expected).max())

    @property
    def monotone(self) -> bool:
        """More dense tissue never lowers the expected category by more than `TOLERANCE`."""
        return self.largest_fall <= TOLERANCE

    def flip(self, direction: int) -> float | None:
        """Percent density nearest to the exam's own at which the answer is another; ``direction`` 1 is up, -1 down.

        Between two steps, the point where the two highest scores cross if they were straight lines. None where the
        answer stays the same.
        """
        categories = self.scores.argmax(axis=1)
        place = self.own
        while 0 <= place + direction < len(categories):
            following = place + direction
            if categories[following] != categories[self.own]:
                first, second = categories[self.own], categories[following]
                lead = self.scores[[place, following], first] - self.scores[[place, following], second]
                share = float(lead[0] / (lead[0] - lead[1])) if lead[0] != lead[1] else 0.5
                return float(self.percents[place] + share * (self.percents[following] - self.percents[place]))
            place = following
        return None

    def to_dict(self) -> dict[str, Any]:
        """The curve as JSON values."""
        unchanged = float(self.percents[self.own])
        up, down = self.flip(1), self.flip(-1)
        distances = [abs(flip - unchanged) for flip in (up, down) if flip is not None]
        return {
            "exam_id": self.exam_id,
            "category": CATEGORIES[int(self.scores[self.own].argmax())].value,
            "percent_density": unchanged,
            "flips_up_at": up,
            "flips_down_at": down,
            "points_to_flip": min(distances) if distances else None,
            "reasons": {} if distances else {"points_to_flip": "the answer is the same at every step"},
            "monotone": self.monotone,
            "largest_fall": self.largest_fall,
            "steps": [
                {
                    "percent_density": float(percent),
                    "scores": {category.value: float(row[category.index]) for category in CATEGORIES},
                    "expected_category": float(level),
                    "own": place == self.own,
                }
                for place, (percent, row, level) in enumerate(
                    zip(self.percents, self.scores, self.expected, strict=True)
                )
            ],
        }


def exam_curve(model: Model, exam: Exam, steps: int = 9) -> DensityCurve:
    """The curve of a real exam, painted with the tissue found in it.

    Raises
    ------
    ImageError
        No view of the exam can be used.
    """
    views: dict[Projection, View] = {}
    refused = ""
    for projection, mammogram in exam.mammograms.items():
        if projection in model.projections:
            try:
                views[projection] = _painted(*reduced_view(mammogram, find_tissue(mammogram).labels))
            except ImageError as error:
                refused = str(error)
    if not views:
        raise ImageError(refused or f"{exam.exam_id}: the model has no network for any of its views")
    return _curve(model, exam.exam_id, views, steps)


def phantom_curve(model: Model, breasts: PhantomBreasts, steps: int = 9) -> DensityCurve:
    """The curve of a phantom exam, each step rendered anew from what the rays cross.

    Raises
    ------
    ImageError
        The model refuses every view.
    """
    views: dict[Projection, View] = {}
    for projection in breasts.paths:
        if projection in model.projections:
            views[projection] = lambda percent, projection=projection: breasts.render(projection, percent)  # type: ignore[misc]
    return _curve(model, phantom_name(breasts.index), views, steps)


def phantom_name(index: int) -> str:
    """Name of a phantom's exam, as `phantom` writes it."""
    return f"{index + 1:04d}_1"


def require_steps(steps: int) -> None:
    """Raise ``OptionError`` unless there are at least two amounts of dense tissue."""
    if steps < 2:
        raise OptionError(f"steps must be at least 2. Got {steps} instead.")


def _painted(mammogram: Any, labels: Any) -> View:
    def view(percent: float | None) -> PaintedStep:
        if percent is None:
            return PaintedStep(mammogram, labels, percent_density(labels))
        return paint(mammogram, labels, percent)

    return view


def _curve(model: Model, exam_id: str, views: Mapping[Projection, View], steps: int) -> DensityCurve:
    require_steps(steps)
    levels: Sequence[float | None] = [None, *np.linspace(LOWEST, HIGHEST, steps)]
    records = []
    for level in levels:
        try:
            records.append((*_scored(model, exam_id, views, level), level is None))
        except ImageError:
            if level is None:
                raise
    records.sort(key=lambda record: record[0])
    unedited = next(place for place, record in enumerate(records) if record[2])
    return DensityCurve(
        exam_id, np.array([record[0] for record in records]), np.stack([record[1] for record in records]), unedited
    )


def _scored(
    model: Model, exam_id: str, views: Mapping[Projection, View], level: float | None
) -> tuple[float, NDArray[np.float64]]:
    """Percent density and fused scores at one level; a view the model refuses makes the step fail."""
    steps = {projection: view(level) for projection, view in views.items()}
    exam = Exam(exam_id, {projection: step.mammogram for projection, step in steps.items()})
    exam_scores = score_exam(model, exam, allow_missing=True).scores
    for text in exam_scores.refused.values():
        raise ImageError(text)
    fused = exam_scores.fused["subject"].scores
    assert fused is not None  # there is a view
    return float(np.mean([step.percent_density for step in steps.values()])), np.asarray(fused)
