"""Flags of an exam's result, and when it abstains: published rules with numbers that a site may change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError
from mammodensity.exam import Flag
from mammodensity.scores import ExamScores
from mammodensity.terms import PROJECTIONS, DensityCategory, Scale

FLAGS: dict[str, str] = {
    "missing-view": "a view is absent or was refused",
    "views-disagree": "two views differ by two categories or more",
    "left-right-difference": "the breasts differ",
    "low-quality": "an image is too small, coarse, saturated or flat",
    "unlike-training": "an image is unlike those the network learned from",
    "doubtful-tissue": "breast, muscle and dense tissue of an image can hardly be told apart",
    "no-muscle": "no pectoral muscle was found in an MLO view",
    "stored-flipped": "an image has the chest wall on the side of the other breast",
    "near-border": "two neighbouring categories score almost alike",
    "dense-disagrees": "the category and dense or not, which sums two categories, fall on different sides",
    "set-empty": "no category conforms at the stated coverage",
    "set-large": "more categories conform than the rules allow",
    "not-scored": "there are no scores for the exam",
}
"""Every code, and what it means."""


@dataclass(frozen=True)
class Rules:
    """When an exam is flagged, and when it abstains.

    Raises
    ------
    OptionError
        A number is out of range, or a code is unknown.
    """

    views_apart: int = 2
    """Categories between two views, from which on they disagree."""
    sides_apart: float = 0.75
    """Difference of the breasts' expected categories (A is 0, D is 3; F is 0, D is 2), from which on they differ."""
    sides_apart_percent: float = 15.0
    """The same in points of percent density, where it is measured."""
    near_border: float = 0.1
    """Difference of the two highest scores, below which an exam is near a border."""
    largest_set: int = 2
    """Categories that a prediction set may hold."""
    abstain_on: tuple[str, ...] = (
        "set-empty",
        "set-large",
        "views-disagree",
        "unlike-training",
        "doubtful-tissue",
        "not-scored",
    )
    """Flags that make the result abstain."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("views_apart", 1, 3),
            ("sides_apart", 0, 3),
            ("sides_apart_percent", 0, 100),
            ("near_border", 0, 1),
            ("largest_set", 1, 4),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise OptionError(f"{name} must be {low} to {high}. Got {value!r} instead.")
        unknown = [code for code in self.abstain_on if code not in FLAGS]
        if unknown:
            raise OptionError(f"abstain_on may hold {', '.join(FLAGS)}. Got {unknown[0]!r} instead.")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "abstain_on": list(self.abstain_on)}


STANDARD_RULES = Rules()


def read_rules(path: Path) -> Rules:
    """Read rules from a JSON file that names those to change.

    Raises
    ------
    OptionError
        It cannot be read, names an unknown rule, or a value is out of range.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = [field.name for field in fields(Rules)]
        unknown = [name for name in values if name not in known]
    except (OSError, ValueError, TypeError) as error:
        raise OptionError(f"{path} cannot be read as rules: {error}; expected a JSON object") from error
    if not isinstance(values, dict) or unknown:
        raise OptionError(
            f"{path}: found {unknown[0] if unknown else 'no object'!r}, expected some of {', '.join(known)}"
        )
    codes = values.get("abstain_on", list(STANDARD_RULES.abstain_on))
    if not isinstance(codes, list):
        raise OptionError(f"{path}: abstain_on must be a list of codes. Got {codes!r} instead.")
    return Rules(**values | {"abstain_on": tuple(map(str, codes))})


_SHARED_FROM = 3  # exams: what two have in common may be chance


def shared_flags(flags: Sequence[Sequence[Flag]]) -> dict[str, str]:
    """Code and text of the flags that each of three exams or more has, to be told once.

    Where texts differ, the text is what the code means.
    """
    if len(flags) < _SHARED_FROM:
        return {}
    codes = [code for code in FLAGS if all(code in {flag.code for flag in own} for own in flags)]
    texts = {code: {flag.text for own in flags for flag in own if flag.code == code} for code in codes}
    return {code: found.pop() if len(found) == 1 else FLAGS[code] for code, found in texts.items()}


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
        (K,) of each level that has scores, calibrated where they can be.
    prediction_set
        None where there is no calibration.
    """
    found = [*_missing(exam), *_disagreement(exam.scale, scores, rules), *_difference(exam, scores, rules)]
    found += _of_views(exam)
    subject = scores.get("subject")
    if subject is None:
        found.append(_not_scored(exam))
    else:
        found += [*_border(exam.scale, subject, rules), *_dense(exam.scale, subject)]
    if prediction_set is not None:
        found += _set_flags(prediction_set, rules)
    order = list(FLAGS)
    return tuple(sorted(found, key=lambda flag: order.index(flag.code)))


def _missing(exam: ExamScores) -> list[Flag]:
    missing = exam.fused["subject"].missing
    return [
        Flag("missing-view", f"{view} was refused" if view in exam.refused else f"{view} is missing")
        for view in missing
    ]


def _of_views(exam: ExamScores) -> list[Flag]:
    """Flags of images; what is the same of several views is told once."""
    views: dict[Flag, list[str]] = {}
    for view, flags in exam.view_flags.items():
        for flag in flags:
            views.setdefault(flag, []).append(view.value)
    return [Flag(flag.code, f"{', '.join(named)}: {flag.text}") for flag, named in views.items()]


def _not_scored(exam: ExamScores) -> Flag:
    if not exam.projections:
        return Flag("not-scored", "no image of the exam could be used")
    missing = ", ".join(exam.fused["subject"].missing)
    return Flag(
        "not-scored",
        f"without {missing} the exam gets no scores; predict --allow-missing makes do with the other views",
    )


def _disagreement(scale: Scale, scores: Mapping[str, NDArray[np.float64]], rules: Rules) -> list[Flag]:
    places = {view: int(np.argmax(scores[view])) for view in PROJECTIONS if view in scores}
    if not places or max(places.values()) - min(places.values()) < rules.views_apart:
        return []
    low, high = min(places, key=places.__getitem__), max(places, key=places.__getitem__)
    text = " and ".join(f"{view} reads {scale[places[view]]}" for view in (low, high))
    return [Flag("views-disagree", f"the views disagree: {text}")]


def _difference(exam: ExamScores, scores: Mapping[str, NDArray[np.float64]], rules: Rules) -> list[Flag]:
    if "right" not in scores or "left" not in scores:
        return []
    right, left = (float(scores[side] @ np.arange(len(scores[side]))) for side in ("right", "left"))
    percents = exam.percent_density
    by_percent = (
        "right" in percents
        and "left" in percents
        and abs(percents["right"] - percents["left"]) >= rules.sides_apart_percent
    )
    if abs(right - left) < rules.sides_apart and not by_percent:
        return []
    denser = "right" if (right, percents.get("right", 0)) > (left, percents.get("left", 0)) else "left"
    areas = f" ({percents['right']:.0f} % right, {percents['left']:.0f} % left)" if by_percent else ""
    return [Flag("left-right-difference", f"the {denser} breast is clearly denser than the other{areas}")]


def _border(scale: Scale, subject: NDArray[np.float64], rules: Rules) -> list[Flag]:
    first, second = np.argsort(-subject, kind="stable")[:2]
    if subject[first] - subject[second] >= rules.near_border or abs(int(first) - int(second)) != 1:
        return []
    low, high = sorted((int(first), int(second)))
    return [Flag("near-border", f"{scale[low]} and {scale[high]} score almost alike")]


def _dense(scale: Scale, subject: NDArray[np.float64]) -> list[Flag]:
    """The likeliest category may be B while C and D together are likelier than A and B, or the reverse."""
    category = scale[int(np.argmax(subject))]
    dense = sum(float(subject[one.index]) for one in scale if one.dense)
    if category.dense == (dense > 0.5):
        return []
    one, other = (" and ".join(name for name in scale if name.dense == side) for side in (dense > 0.5, dense <= 0.5))
    sums = f"{one} together are likelier than {other}"
    share = f"{100 * max(dense, 1 - dense):.0f} %"
    return [Flag("dense-disagrees", f"{category} is the likeliest category, yet {sums} ({share})")]


def _set_flags(prediction_set: tuple[DensityCategory, ...], rules: Rules) -> list[Flag]:
    if not prediction_set:
        return [Flag("set-empty", "no category fits as those of the labelled exams do")]
    if len(prediction_set) > rules.largest_set:
        return [Flag("set-large", f"{len(prediction_set)} categories are possible")]
    return []
