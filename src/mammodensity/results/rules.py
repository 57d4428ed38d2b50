"""Flags of an exam's result, and the rules by which a result abstains; a site may change the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError
from mammodensity.exam import Flag
from mammodensity.inputs import read_json
from mammodensity.scores import ExamScores
from mammodensity.settings import Field, settings
from mammodensity.terms import PROJECTIONS, DensityCategory, Scale

FLAGS: dict[str, str] = {
    "missing-view": "a view is absent or was refused",
    "views-disagree": "two views differ by two categories or more",
    "left-right-difference": "the breasts differ",
    "low-quality": "an image is too small, coarse, saturated or flat, so density may be read wrongly",
    "unlike-training": "an image differs from all images of the training",
    "doubtful-tissue": "breast, muscle and dense tissue of an image cannot be told apart with certainty",
    "no-muscle": "no pectoral muscle was found in an MLO view",
    "doubtful-view": "an image called CC may show the muscle of an MLO, or one called MLO has the outline of a CC",
    "stored-flipped": "an image has the chest wall on the side of the other breast",
    "near-border": "two neighbouring categories have almost the same score",
    "dense-disagrees": "the category and dense or not are on different sides",
    "set-empty": "no category fits at the stated coverage",
    "set-large": "the prediction set has more categories than the rules allow",
    "not-scored": "the exam has no scores",
}
"""Every code and its meaning."""


@settings
class Rules:
    """Limits from which on an exam is flagged, and the flags for which it gets no category.

    Raises
    ------
    OptionError
        A number is out of range, or a code is unknown.
    """

    views_apart: Annotated[int, Field(ge=1, le=3)] = 2
    """Views disagree if they are so many categories apart."""
    sides_apart: Annotated[float, Field(ge=0, le=3)] = 0.75
    """Breasts differ if their expected categories (A is 0, D is 3; F is 0, D is 2) are so far apart."""
    sides_apart_percent: Annotated[float, Field(ge=0, le=100)] = 15.0
    """Breasts differ if their percent densities, where they are measured, are so many points apart."""
    near_border: Annotated[float, Field(ge=0, le=1)] = 0.1
    """An exam is near a border if its two highest scores are closer than this."""
    largest_set: Annotated[int, Field(ge=1, le=4)] = 2
    """Most categories of a prediction set."""
    abstain_on: tuple[str, ...] = (
        "set-empty",
        "set-large",
        "views-disagree",
        "unlike-training",
        "doubtful-tissue",
        "not-scored",
    )
    """Flags for which the result abstains."""

    def __post_init__(self) -> None:
        for code in self.abstain_on:
            if code not in FLAGS:
                raise OptionError(f"abstain_on may hold {', '.join(FLAGS)}. Got {code!r} instead.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "abstain_on": list(self.abstain_on)}


STANDARD_RULES = Rules()


def read_rules(path: Path) -> Rules:
    """Read rules from a JSON file that names those to change.

    Raises
    ------
    OptionError
        The file cannot be read, names an unknown rule, or a value is out of range.
    """
    try:
        return _rules(read_json(path))
    except (OSError, ValueError, OptionError) as error:
        raise OptionError(f"{path} cannot be used as rules: {error}") from error


def _rules(content: Any) -> Rules:
    if not isinstance(content, dict):
        raise OptionError('expected a JSON object such as {"near_border": 0.05}')
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Rules(**values)


_SHARED_FROM = 3  # exams: a flag that two have in common may be chance


def shared_flags(flags: Sequence[Sequence[Flag]]) -> dict[str, str]:
    """Code and text of each flag that all exams have, if there are three or more; shown once for all.

    Where the texts differ, the text is the meaning of the code.
    """
    if len(flags) < _SHARED_FROM:
        return {}
    texts = {code: [{flag.text for flag in exam if flag.code == code} for exam in flags] for code in FLAGS}
    merged = {code: set[str]().union(*of_exams) for code, of_exams in texts.items() if all(of_exams)}
    return {code: next(iter(of_code)) if len(of_code) == 1 else FLAGS[code] for code, of_code in merged.items()}


def find_flags(
    exam: ExamScores,
    scores: Mapping[str, NDArray[np.float64]],
    prediction_set: tuple[DensityCategory, ...] | None,
    rules: Rules,
) -> tuple[Flag, ...]:
    """Flags of one exam, in the order of `FLAGS`.

    Parameters
    ----------
    scores
        (K,) of each level that has scores, calibrated where possible.
    prediction_set
        None without calibration.
    """
    order = list(FLAGS)
    return tuple(sorted(_flags(exam, scores, prediction_set, rules), key=lambda flag: order.index(flag.code)))


def _flags(
    exam: ExamScores,
    scores: Mapping[str, NDArray[np.float64]],
    prediction_set: tuple[DensityCategory, ...] | None,
    rules: Rules,
) -> Iterator[Flag]:
    for view in exam.fused["subject"].missing:
        yield Flag("missing-view", f"{view} was refused" if view in exam.refused else f"{view} is missing")
    yield from _disagreement(exam.scale, scores, rules)
    yield from _difference(exam, scores, rules)
    yield from _image_flags(exam)
    subject = scores.get("subject")
    if subject is None:
        yield _not_scored(exam)
    else:
        yield from _border(exam.scale, subject, rules)
        yield from _dense(exam.scale, subject)
    if prediction_set is not None and not prediction_set:
        yield Flag("set-empty", "no category fits: the scores are unlike those of the labelled exams")
    elif prediction_set and len(prediction_set) > rules.largest_set:
        yield Flag("set-large", f"{len(prediction_set)} categories are possible")


def _image_flags(exam: ExamScores) -> Iterator[Flag]:
    """Flags of images; a flag that several views have is given once."""
    views: dict[Flag, list[str]] = {}
    for view, flags in exam.view_flags.items():
        for flag in flags:
            views.setdefault(flag, []).append(view.value)
    for flag, names in views.items():
        yield Flag(flag.code, f"{', '.join(names)}: {flag.text}")


def _not_scored(exam: ExamScores) -> Flag:
    if not exam.projections:
        return Flag("not-scored", "no image of the exam could be used")
    missing = ", ".join(exam.fused["subject"].missing)
    return Flag("not-scored", f"without {missing} the exam gets no scores; predict --allow-missing uses the others")


def _disagreement(scale: Scale, scores: Mapping[str, NDArray[np.float64]], rules: Rules) -> Iterator[Flag]:
    categories = {view: int(np.argmax(scores[view])) for view in PROJECTIONS if view in scores}
    if categories and max(categories.values()) - min(categories.values()) >= rules.views_apart:
        extremes = (choose(categories, key=categories.__getitem__) for choose in (min, max))
        text = ", ".join(f"{view} is {scale[categories[view]]}" for view in extremes)
        yield Flag("views-disagree", f"the views disagree: {text}")


def _difference(exam: ExamScores, scores: Mapping[str, NDArray[np.float64]], rules: Rules) -> Iterator[Flag]:
    if "right" not in scores or "left" not in scores:
        return
    right, left = (float(scores[side] @ np.arange(len(scores[side]))) for side in ("right", "left"))
    percents = exam.percent_density
    by_percent = (
        "right" in percents
        and "left" in percents
        and abs(percents["right"] - percents["left"]) >= rules.sides_apart_percent
    )
    if abs(right - left) >= rules.sides_apart or by_percent:
        denser = "right" if (right, percents.get("right", 0)) > (left, percents.get("left", 0)) else "left"
        areas = f" ({percents['right']:.0f} % right, {percents['left']:.0f} % left)" if by_percent else ""
        yield Flag("left-right-difference", f"the {denser} breast is clearly denser than the other{areas}")


def _border(scale: Scale, subject: NDArray[np.float64], rules: Rules) -> Iterator[Flag]:
    first, second = (int(index) for index in np.argsort(-subject, kind="stable")[:2])
    if subject[first] - subject[second] < rules.near_border and abs(first - second) == 1:
        low, high = scale[min(first, second)], scale[max(first, second)]
        yield Flag("near-border", f"{low} and {high} have almost the same score")


def _dense(scale: Scale, subject: NDArray[np.float64]) -> Iterator[Flag]:
    """The most likely category may be B while C and D together are more likely than A and B, or the reverse."""
    category = scale[int(np.argmax(subject))]
    dense = float(subject[np.array(scale.dense)].sum())
    if category.dense != (dense > 0.5):
        together = " and ".join(other for other in scale if other.dense == (dense > 0.5))
        share = f"{100 * max(dense, 1 - dense):.0f} %"
        text = f"{category} is the most likely category, but together {together} are more likely ({share})"
        yield Flag("dense-disagrees", text)
