"""Calibration maps, and prediction sets with a stated coverage (split conformal prediction).

A calibration map turns fused scores into probabilities. It is fitted to exams with known categories. Every map is a
softmax of features that are linear in few coefficients, so the likelihood is concave and Newton's method finds its
maximum. The maps have few coefficients because most sites have only one to a few hundred labelled exams.

A prediction set contains each category whose nonconformity does not exceed a threshold. The threshold is a quantile of
the nonconformity of exams with known categories. An exam from the same population is then covered with the stated
probability, whatever the quality of the model; a poor model has large sets. A set may be empty.

References
----------
Guo et al., ICML 2017 (temperature and vector scaling). Agresti, Analysis of Ordinal Categorical Data, 2nd ed. 2010,
section 4.1 (adjacent-categories logits). Ranjan and Gneiting, J. R. Stat. Soc. B 2010 (means of calibrated forecasts
are under-confident). Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (conformal prediction).
Sadinle, Lei and Wasserman, J. Am. Stat. Assoc. 2019 (least ambiguous sets, class-conditional coverage).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from mammodensity.errors import OptionError, require_choice
from mammodensity.settings import Field, settings
from mammodensity.terms import CATEGORIES

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]

MapKind = Literal["none", "temperature", "vector", "ordinal", "half-ordinal"]
MAPS: tuple[MapKind, ...] = get_args(MapKind)
"""``none`` leaves the scores unchanged. ``temperature`` multiplies the log scores by one number. ``vector`` multiplies
them by one number for each category and adds another. ``ordinal`` uses the expected category only, and spreads the
scores around a linear function of it like a normal curve. ``half-ordinal`` is the mean of the raw and the ``ordinal``
scores."""

STANDARD_MAP: MapKind = "half-ordinal"
"""Used unless another map is better beyond doubt; see `choose_map`."""

_K = np.arange(len(CATEGORIES), dtype=np.float64)
_LEAST_SCORE = 1e-6  # scores of 0 would leave the logarithm without a value
_PRIOR = {"temperature": 0.01, "vector": 1.0, "ordinal": 0.01}  # weight against all exams together: keeps fits finite
_START = {"temperature": np.ones(1), "vector": np.repeat([1.0, 0.0], [4, 3]), "ordinal": np.zeros(3)}
_DOUBT = 2.0  # standard errors


@settings
class CalibrationMap:
    """A map from scores (N, 4) to calibrated scores (N, 4).

    Raises
    ------
    OptionError
        The kind is unknown, or the number of coefficients is not that of the kind, or one is not finite.
    """

    kind: MapKind
    coefficients: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()

    def __post_init__(self) -> None:
        expected = 0 if self.kind == "none" else len(_START[_fitted_kind(self.kind)])
        if len(self.coefficients) != expected:
            raise OptionError(f"a {self.kind} map has {expected} coefficients. Got {len(self.coefficients)} instead.")

    def __call__(self, scores: Floats) -> Floats:
        """Calibrate scores (N, 4); rows of NaN stay NaN."""
        if self.kind == "none":
            return scores
        features = _features(_fitted_kind(self.kind), scores)
        mapped: Floats = softmax(features @ np.array(self.coefficients), axis=-1)
        return (mapped + scores) / 2 if self.kind == "half-ordinal" else mapped


def _fitted_kind(kind: str) -> str:
    return "ordinal" if kind == "half-ordinal" else kind


def fit_map(kind: MapKind, scores: Floats, reference: Positions) -> CalibrationMap:
    """Fit a map of one kind to scores (N, 4) of exams with the reference categories (N,), by maximum likelihood."""
    if kind == "none":
        return CalibrationMap("none")
    fitted = _fitted_kind(kind)
    prior = _PRIOR[fitted] / len(reference)
    return CalibrationMap(kind, tuple(_newton(_features(fitted, scores), reference, _START[fitted], prior).tolist()))


def fit_maps(scores: Floats, reference: Positions) -> dict[MapKind, CalibrationMap]:
    """Fit a map of every kind."""
    fitted: dict[MapKind, CalibrationMap]
    fitted = {kind: fit_map(kind, scores, reference) for kind in MAPS if kind != "half-ordinal"}
    return fitted | {"half-ordinal": CalibrationMap("half-ordinal", fitted["ordinal"].coefficients)}


def choose_map(losses: Mapping[MapKind, Floats]) -> MapKind:
    """Choose a kind of map by the held-out losses (N,) of the exams.

    The standard map is kept unless the mean loss of another is lower by more than two standard errors of the
    difference. With a hundred exams, the map with the lowest loss is otherwise often best by chance.
    """
    standard = losses[STANDARD_MAP]
    best = min(losses, key=lambda kind: float(losses[kind].mean()))
    gain = standard - losses[best]
    better = gain.mean() > _DOUBT * gain.std() / len(gain) ** 0.5
    return best if better else STANDARD_MAP


def losses_of(scores: Floats, reference: Positions) -> Floats:
    """Negative log likelihood of each exam's reference category, (N,)."""
    chosen = scores[np.arange(len(reference)), reference]
    losses: Floats = -np.log(np.maximum(chosen, _LEAST_SCORE))
    return losses


def _features(kind: str, scores: Floats) -> Floats:
    """Features (N, 4, P) whose product with the coefficients gives the logits."""
    logs = np.log(np.maximum(scores, _LEAST_SCORE))
    if kind == "temperature":
        return logs[:, :, np.newaxis]
    if kind == "vector":
        offsets = np.broadcast_to(np.eye(len(_K))[:, 1:], (len(scores), len(_K), len(_K) - 1))
        return np.concatenate([logs[:, :, np.newaxis] * np.eye(len(_K)), offsets], axis=2)
    # -(k - m)^2 / (2 s^2) with m linear in the expected category, without the terms that all categories share
    slopes = (scores @ _K)[:, np.newaxis] * _K
    flat = np.ones((len(scores), 1))
    features: Floats = np.stack([slopes, flat * _K, flat * -(_K**2)], axis=-1)
    return features


def _newton(features: Floats, reference: Positions, start: Floats, ridge: float) -> Floats:
    """Coefficients (P,) that minimise the mean loss plus half the ridge times the squared distance from the start."""
    count = len(reference)
    observed = features[np.arange(count), reference].mean(axis=0)

    def loss(coefficients: Floats) -> float:
        logits = features @ coefficients
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(count), reference]
        return float(losses.mean() + ridge / 2 * ((coefficients - start) ** 2).sum())

    coefficients, value = start, loss(start)
    for _ in range(60):
        weights = softmax(features @ coefficients, axis=1)
        means = np.einsum("nk,nkp->np", weights, features)
        gradient = means.mean(axis=0) - observed + ridge * (coefficients - start)
        squares = np.einsum("nk,nkp,nkq->pq", weights, features, features, optimize=True)
        hessian = (squares - means.T @ means) / count + (ridge + 1e-9) * np.eye(len(start))
        step: Floats = np.linalg.solve(hessian, gradient)
        while (lower := loss(coefficients - step)) > value and np.abs(step).max() > 1e-9:
            step = step / 2
        coefficients = coefficients - step
        if value - lower < 1e-11:
            break
        value = lower
    return coefficients


SetKind = Literal["ordinal", "marginal", "class-conditional"]
SET_KINDS: tuple[SetKind, ...] = get_args(SetKind)
"""Kinds of prediction sets, by their nonconformity. ``marginal``: 1 minus the score. ``ordinal``: 1 minus the highest
score at or beyond the category, as seen from the most likely one; these sets have no gaps. ``class-conditional``: as
``marginal``, but with a threshold for each category, so that each category reaches the coverage."""


def nonconformity(scores: Floats, kind: str) -> Floats:
    """Nonconformity of each category, 0 (fits) to 1: (N, 4) -> (N, 4)."""
    require_choice("prediction sets", kind, SET_KINDS)
    return 1 - _without_gaps(scores) if kind == "ordinal" else 1 - scores


def thresholds(scores: Floats, reference: Positions, kind: str, coverage: float) -> Floats:
    """Threshold of each category (4,), from scores (N, 4) of exams with the reference categories (N,).

    The threshold is the k-th smallest nonconformity, k = ceil((n + 1) coverage). If n is too small for that, it is 1,
    which admits every category.
    """
    require_coverage(coverage)
    values = nonconformity(scores, kind)[np.arange(len(reference)), reference]
    if kind != "class-conditional":
        return np.full(len(CATEGORIES), _quantile(values, coverage))
    return np.array([_quantile(values[reference == category.index], coverage) for category in CATEGORIES])


def prediction_sets(scores: Floats, kind: str, limits: Floats) -> NDArray[np.bool_]:
    """Categories of each prediction set, (N, 4)."""
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
    """The highest score at or beyond each category, so that scores fall on either side of the most likely one."""
    top = scores.argmax(axis=1)[:, np.newaxis]
    upward = np.maximum.accumulate(scores[:, ::-1], axis=1)[:, ::-1]  # highest at or above
    downward = np.maximum.accumulate(scores, axis=1)  # highest at or below
    result: Floats = np.where(np.arange(len(CATEGORIES)) >= top, upward, downward)
    return result
