"""P(A..D) of an exam against percent density, where its answer flips, and whether more dense tissue ever lowers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import ImageError, OptionError
from mammodensity.exam import Exam
from mammodensity.explanation.counterfactual.painting import PhantomBreasts, Step, paint, percent_density, reduced_view
from mammodensity.prediction.scoring import Model
from mammodensity.terms import CATEGORIES, Projection
from mammodensity.tissue import find_tissue

LOWEST, HIGHEST = 1.0, 80.0
"""Percent densities between which dense tissue is removed and added."""
TOLERANCE = 0.05
"""A fall of the expected category by less is no fall: noise, and the blending of borders."""

View = Callable[[float | None], Step]


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
        """By how much the expected category falls at most while dense tissue is added; 0 where it never does."""
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
        """As JSON values."""
        own = float(self.percents[self.own])
        up, down = self.flip(1), self.flip(-1)
        distances = [abs(one - own) for one in (up, down) if one is not None]
        return {
            "exam_id": self.exam_id,
            "category": CATEGORIES[int(self.scores[self.own].argmax())].value,
            "percent_density": own,
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
    """Of the exam of a phantom, as `phantom` writes it."""
    return f"{index + 1:04d}_1"


def require_steps(steps: int) -> None:
    """Raise ``OptionError`` unless there are at least two amounts of dense tissue."""
    if steps < 2:
        raise OptionError(f"steps must be at least 2. Got {steps} instead.")


def _painted(mammogram: Any, labels: Any) -> View:
    def view(percent: float | None) -> Step:
        if percent is None:
            return Step(mammogram, labels, percent_density(labels))
        return paint(mammogram, labels, percent)

    return view


def _curve(model: Model, exam_id: str, views: Mapping[Projection, View], steps: int) -> DensityCurve:
    require_steps(steps)
    levels: Sequence[float | None] = [None, *np.linspace(LOWEST, HIGHEST, steps)]
    found = []
    for level in levels:
        try:
            found.append((*_scored(model, exam_id, views, level), level is None))
        except ImageError:
            if level is None:
                raise
    found.sort(key=lambda one: one[0])
    own = next(place for place, one in enumerate(found) if one[2])
    return DensityCurve(exam_id, np.array([one[0] for one in found]), np.stack([one[1] for one in found]), own)


def _scored(
    model: Model, exam_id: str, views: Mapping[Projection, View], level: float | None
) -> tuple[float, NDArray[np.float64]]:
    """Percent density and fused scores at one level; a view the model refuses makes the step fail."""
    steps = {projection: view(level) for projection, view in views.items()}
    exam = Exam(exam_id, {projection: step.mammogram for projection, step in steps.items()})
    found = model.score(exam, fusion=model.fusion, allow_missing=True)
    for text in found.refused.values():
        raise ImageError(text)
    fused = found.fused["subject"].scores
    assert fused is not None  # there is a view
    return float(np.mean([step.percent_density for step in steps.values()])), np.asarray(fused)
