"""Prediction sets with stated coverage: split conformal prediction.

A set holds every category whose nonconformity does not exceed a threshold, and the threshold is the quantile of the
nonconformity of exams with known categories. An exam drawn from the same population is then covered with the stated
probability, whatever the model is worth; a poor model gives large sets. A set may be empty: no category conforms.

References
----------
Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005. Sadinle, Lei and Wasserman, J. Am. Stat.
Assoc. 2019 (least ambiguous sets, class-conditional coverage).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mammodensity.calibration.maps import Floats, Positions
from mammodensity.errors import OptionError
from mammodensity.terms import CATEGORIES

SET_KINDS: tuple[str, ...] = ("ordinal", "marginal", "class-conditional")
"""``marginal``: 1 minus the score. ``ordinal``: 1 minus the score, or minus the highest score beyond it seen from the
most likely category, so that sets have no gaps. ``class-conditional``: as ``marginal``, with a threshold for each
category, so that each is covered as often as stated."""


def nonconformity(scores: Floats, kind: str) -> Floats:
    """How little each category fits, 0 to 1: (N, 4) -> (N, 4)."""
    if kind not in SET_KINDS:
        raise OptionError(f"prediction sets must be one of {', '.join(SET_KINDS)}. Got {kind!r} instead.")
    return 1 - _without_gaps(scores) if kind == "ordinal" else 1 - scores


def thresholds(scores: Floats, reference: Positions, kind: str, coverage: float) -> Floats:
    """Threshold of each category (4,), from scores (N, 4) of exams whose categories (N,) are known.

    It is the k-th smallest nonconformity, k = ceil((n + 1) coverage); 1, which admits everything, where n is too small
    for that.
    """
    require_coverage(coverage)
    own = nonconformity(scores, kind)[np.arange(len(reference)), reference]
    if kind != "class-conditional":
        return np.full(len(CATEGORIES), _quantile(own, coverage))
    return np.array([_quantile(own[reference == category.index], coverage) for category in CATEGORIES])


def prediction_sets(scores: Floats, kind: str, limits: Floats) -> NDArray[np.bool_]:
    """Which categories each set holds, (N, 4)."""
    result: NDArray[np.bool_] = nonconformity(scores, kind) <= limits
    return result


def require_coverage(coverage: float) -> None:
    """Raise ``OptionError`` unless 0 < coverage < 1."""
    if not 0 < coverage < 1:
        raise OptionError(f"coverage must be between 0 and 1, for example 0.9. Got {coverage} instead.")


def _quantile(values: Floats, coverage: float) -> float:
    place = math.ceil((len(values) + 1) * coverage - 1e-9)
    return float(np.sort(values)[place - 1]) if place <= len(values) else 1.0


def _without_gaps(scores: Floats) -> Floats:
    """Scores raised so that they fall on either side of the highest: the highest score at or beyond each category."""
    top = scores.argmax(axis=1)[:, np.newaxis]
    upward = np.maximum.accumulate(scores[:, ::-1], axis=1)[:, ::-1]  # highest at or above
    downward = np.maximum.accumulate(scores, axis=1)  # highest at or below
    result: Floats = np.where(np.arange(len(CATEGORIES)) >= top, upward, downward)
    return result
