"""Calibration maps: fused scores to scores that mean what they say, fitted to exams with known categories.

Every map is a softmax of features that are linear in few coefficients, so its likelihood is concave and Newton's method
finds the one best fit. Few exams allow few coefficients: the sites this is for have one to a few hundred.

References
----------
Guo et al., ICML 2017 (temperature and vector scaling). Agresti, Analysis of Ordinal Categorical Data, 2nd ed. 2010,
section 4.1 (adjacent-categories logits). Ranjan and Gneiting, J. R. Stat. Soc. B 2010 (means of calibrated forecasts
are under-confident).

Prediction sets with stated coverage: split conformal prediction.

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
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from mammodensity.errors import OptionError
from mammodensity.terms import CATEGORIES

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]

MAPS: tuple[str, ...] = ("none", "temperature", "vector", "ordinal", "half-ordinal")
"""``none`` leaves scores alone. ``temperature`` multiplies their logarithms by one number; ``vector`` by one for each
category, and adds one for each. ``ordinal`` forgets all but the expected category, and spreads scores about a line of
it like a normal curve. ``half-ordinal`` is the mean of the scores as they were and of those ``ordinal`` makes."""

STANDARD_MAP = "half-ordinal"
"""Kept unless another is better beyond doubt: see :func:`choose_map`."""

_K = np.arange(len(CATEGORIES), dtype=np.float64)
_LEAST_SCORE = 1e-6  # scores of 0 would leave the logarithm without a value
_PRIOR = {"temperature": 0.01, "vector": 1.0, "ordinal": 0.01}  # weight against all exams together: keeps fits finite
_START = {"temperature": np.ones(1), "vector": np.repeat([1.0, 0.0], [4, 3]), "ordinal": np.zeros(3)}
_DOUBT = 2.0  # standard errors


@dataclass(frozen=True)
class CalibrationMap:
    """A map of scores (N, 4) to calibrated scores (N, 4).

    Raises
    ------
    OptionError
        Unknown kind, or another number of coefficients than the kind has, or one that is no finite number.
    """

    kind: str
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in MAPS:
            raise OptionError(f"calibration map must be one of {', '.join(MAPS)}. Got {self.kind!r} instead.")
        wanted = 0 if self.kind == "none" else len(_START[_fitted_kind(self.kind)])
        if len(self.coefficients) != wanted:
            raise OptionError(f"a {self.kind} map has {wanted} coefficients. Got {len(self.coefficients)} instead.")
        if not np.isfinite(self.coefficients).all():
            raise OptionError(f"a {self.kind} map has finite coefficients. Got {self.coefficients} instead.")

    def __call__(self, scores: Floats) -> Floats:
        """Calibrate scores (N, 4); rows of NaN stay so."""
        if self.kind == "none":
            return scores
        features = _features(_fitted_kind(self.kind), scores)
        mapped: Floats = softmax(features @ np.array(self.coefficients), axis=-1)
        return (mapped + scores) / 2 if self.kind == "half-ordinal" else mapped


def _fitted_kind(kind: str) -> str:
    return "ordinal" if kind == "half-ordinal" else kind


def fit_map(kind: str, scores: Floats, reference: Positions) -> CalibrationMap:
    """Fit a map of one kind to scores (N, 4) of exams with the reference categories (N,), by maximum likelihood."""
    if kind in {"none", "half-ordinal"}:
        return CalibrationMap(kind, fit_map("ordinal", scores, reference).coefficients if kind != "none" else ())
    start = _START[kind]
    return CalibrationMap(
        kind, tuple(_newton(_features(kind, scores), reference, start, _PRIOR[kind] / len(reference)).tolist())
    )


def fit_maps(scores: Floats, reference: Positions) -> dict[str, CalibrationMap]:
    """Fit a map of every kind."""
    fitted = {kind: fit_map(kind, scores, reference) for kind in MAPS if kind != "half-ordinal"}
    return fitted | {"half-ordinal": CalibrationMap("half-ordinal", fitted["ordinal"].coefficients)}


def choose_map(losses: Mapping[str, Floats]) -> str:
    """Choose a kind by its held-out losses (N,), one an exam.

    The standard map is kept unless another's mean loss is lower by more than two standard errors of the difference:
    with a hundred exams the best of several is mostly the luckiest.
    """
    standard = losses[STANDARD_MAP]
    best = min(losses, key=lambda kind: float(losses[kind].mean()))
    gain = standard - losses[best]
    sure = gain.mean() > _DOUBT * gain.std() / len(gain) ** 0.5
    return best if sure else STANDARD_MAP


def losses_of(scores: Floats, reference: Positions) -> Floats:
    """Negative log likelihood of each exam's reference category, (N,)."""
    given = scores[np.arange(len(reference)), reference]
    losses: Floats = -np.log(np.maximum(given, _LEAST_SCORE))
    return losses


def expected_category(scores: Floats) -> Floats:
    """Mean position (A is 0) under the scores, (..., 4) -> (...)."""
    result: Floats = scores @ _K
    return result


def _features(kind: str, scores: Floats) -> Floats:
    """Features (N, 4, P) whose product with the coefficients are the logits."""
    logs = np.log(np.maximum(scores, _LEAST_SCORE))
    if kind == "temperature":
        return logs[:, :, np.newaxis]
    if kind == "vector":
        offsets = np.broadcast_to(np.eye(len(_K))[:, 1:], (len(scores), len(_K), len(_K) - 1))
        return np.concatenate([logs[:, :, np.newaxis] * np.eye(len(_K)), offsets], axis=2)
    # -(k - line)^2 / (2 s^2) with a line of the expected category, less what all categories share
    slopes = expected_category(scores)[:, np.newaxis] * _K
    flat = np.ones((len(scores), 1))
    features: Floats = np.stack([slopes, flat * _K, flat * -(_K**2)], axis=-1)
    return features


def _newton(features: Floats, reference: Positions, start: Floats, ridge: float) -> Floats:
    """Coefficients (P,) of the least mean loss, plus half the ridge times the squared distance from the start."""
    count = len(reference)
    given = features[np.arange(count), reference].mean(axis=0)

    def loss(coefficients: Floats) -> float:
        logits = features @ coefficients
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(count), reference]
        return float(losses.mean() + ridge / 2 * ((coefficients - start) ** 2).sum())

    coefficients, value = start, loss(start)
    for _ in range(60):
        weights = softmax(features @ coefficients, axis=1)
        means = np.einsum("nk,nkp->np", weights, features)
        slope = means.mean(axis=0) - given + ridge * (coefficients - start)
        squares = np.einsum("nk,nkp,nkq->pq", weights, features, features, optimize=True)
        bend = (squares - means.T @ means) / count + (ridge + 1e-9) * np.eye(len(start))
        step: Floats = np.linalg.solve(bend, slope)
        while (lower := loss(coefficients - step)) > value and np.abs(step).max() > 1e-9:
            step = step / 2
        coefficients = coefficients - step
        if value - lower < 1e-11:
            break
        value = lower
    return coefficients


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
