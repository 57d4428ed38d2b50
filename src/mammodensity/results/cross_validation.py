"""How far scores are from meaning what they say, beside what chance alone gives.

The expected calibration error is biased upwards: with few exams a perfectly calibrated predictor has a large one, too.
So it is never given without its null band: what it is when the categories are drawn by the scores themselves.

References
----------
Naeini, Cooper and Hauskrecht, AAAI 2015 (expected calibration error). Vaicenavicius et al., AISTATS 2019 (consistency
resampling).

What calibration is worth on exams it has not seen, by repeated cross-validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import TableError
from mammodensity.evaluation.bootstrap import canonical_order
from mammodensity.results.score_calibration import (
    MAPS,
    SET_KINDS,
    Floats,
    Positions,
    choose_map,
    fit_map,
    fit_maps,
    losses_of,
    prediction_sets,
    thresholds,
)
from mammodensity.terms import CATEGORIES

BINS = 10
_DRAWS = 2000


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: exams by the score of their most likely category, in ten bins of equal width."""

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    """Mean score in each bin; None where there is no exam."""
    accuracy: tuple[float | None, ...]
    """Share of right categories in each bin."""


def expected_calibration_error(scores: Floats, reference: Positions) -> float:
    """Mean distance of confidence and accuracy over ten bins of the highest score, weighted by their exams."""
    right = (scores.argmax(axis=1) == reference)[np.newaxis]
    return float(_errors(scores.max(axis=1), right)[0])


def null_band(scores: Floats, *, draws: int = _DRAWS, seed: int = 1) -> tuple[float, float, float]:
    """Low (5 %), mean and high (95 %) of the error if the scores were perfectly calibrated, for as many exams."""
    rng = np.random.default_rng(seed)
    top = scores.max(axis=1)
    values = np.concatenate([_errors(top, rng.random((len(part), len(top))) < top) for part in _parts(draws, len(top))])
    low, high = np.quantile(values, [0.05, 0.95])
    return float(low), float(values.mean()), float(high)


def reliability(scores: Floats, reference: Positions) -> Reliability:
    """Confidence and accuracy by bin."""
    top, right = scores.max(axis=1), scores.argmax(axis=1) == reference
    bins = _bins(top)
    chosen = [bins == place for place in range(BINS)]
    return Reliability(
        tuple(int(one.sum()) for one in chosen),
        tuple(float(top[one].mean()) if one.any() else None for one in chosen),
        tuple(float(right[one].mean()) if one.any() else None for one in chosen),
    )


def _errors(top: Floats, right: NDArray[np.bool_]) -> Floats:
    """(N,) highest scores and (B, N) whether they are right -> (B,)."""
    member = np.eye(BINS)[_bins(top)]  # (N, BINS)
    result: Floats = np.abs((right - top) @ member).sum(axis=1) / len(top)
    return result


def _bins(top: Floats) -> NDArray[np.intp]:
    """Bin of each score; one on a border belongs to the bin above."""
    return np.minimum((top * BINS).astype(np.intp), BINS - 1)


def _parts(draws: int, exams: int) -> list[range]:
    """Draws in parts whose arrays stay small."""
    step = max(1, 2**20 // exams)
    return [range(start, min(start + step, draws)) for start in range(0, draws, step)]


Sets = NDArray[np.bool_]

FOLDS = 10
LEAST_EXAMS = 20
_MANY = 1000  # exams, from which on fewer repeats do


@dataclass(frozen=True)
class Fitted:
    """What one set of exams gives: the map, and scores of the same exams by maps that did not see them."""

    kind: str
    held_out: Floats
    """(N, 4), by maps of the chosen kind."""
    losses: dict[str, float]
    """Held-out negative log likelihood by kind of map."""


@dataclass(frozen=True)
class CalibrationFigures:
    """Means over the repeats; every exam is judged by maps and thresholds of other exams."""

    exams: int
    repeats: int
    folds: int
    ece_before: float
    ece_after: float
    ece_null_low: float
    ece_null_mean: float
    ece_null_high: float
    inside_band: float
    """Share of the repeats whose error after calibration is not above the band."""
    nll_before: float
    nll_after: float
    accuracy_before: float
    accuracy_after: float
    coverage: dict[str, float]
    """Share of exams whose set holds their category, by nominal coverage, for the default kind of set."""
    mean_set_size: float
    """At the coverage nearest to 0.9."""
    mean_set_size_by_coverage: dict[str, float]
    by_kind_of_set: dict[str, dict[str, Any]]
    """``coverage``, ``mean_set_size`` and ``coverage_by_category`` of every kind of set."""
    maps: dict[str, float]
    """How often each kind of map was chosen, as a share."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


def fit_held_out(scores: Floats, reference: Positions, rng: np.random.Generator) -> Fitted:
    """Choose a map by held-out likelihood (ten folds), and keep the held-out scores for the thresholds of sets."""
    by_kind = {kind: np.empty_like(scores) for kind in MAPS}
    for train, held in _folds(len(reference), rng):
        for kind, fitted in fit_maps(scores[train], reference[train]).items():
            by_kind[kind][held] = fitted(scores[held])
    losses = {kind: losses_of(one, reference) for kind, one in by_kind.items()}
    kind = choose_map(losses)
    return Fitted(kind, by_kind[kind], {name: float(values.mean()) for name, values in losses.items()})


def in_canonical_order(scores: Floats, reference: Positions) -> tuple[Floats, Positions]:
    """Scores (N, 4) and categories (N,) in an order of content: folds then do not depend on how exams came."""
    order = canonical_order(np.column_stack([reference, scores[:, ::-1]]), None)[0]
    return scores[order], reference[order]


def held_out_set_size(scores: Floats, reference: Positions, coverage: float = 0.9, seed: int = 1) -> float:
    """Mean number of categories in ordinal sets of exams calibrated by others; NaN for fewer than 20 exams."""
    if len(reference) < LEAST_EXAMS:
        return float("nan")
    scores, reference = in_canonical_order(scores, reference)
    held_out = fit_held_out(scores, reference, np.random.default_rng(seed)).held_out
    limits = thresholds(held_out, reference, SET_KINDS[0], coverage)
    return float(prediction_sets(held_out, SET_KINDS[0], limits).sum(axis=1).mean())


def cross_validate(
    scores: Floats,
    reference: Positions,
    *,
    coverages: Sequence[float] = (0.8, 0.9, 0.95),
    repeats: int | None = None,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CalibrationFigures:
    """Calibrate nine tenths of the exams and judge the other tenth, ten times over, in ``repeats`` other divisions.

    The order of the exams has no influence.

    Parameters
    ----------
    scores, reference
        (N, 4) fused scores, and the positions (N,) of the reference categories.
    repeats
        50 without a word, 5 from 1,000 exams on.

    Raises
    ------
    TableError
        Fewer than 20 exams, or all of one category.
    """
    require_enough(reference)
    scores, reference = in_canonical_order(scores, reference)
    rounds = repeats or (50 if len(reference) < _MANY else 5)
    rng = np.random.default_rng(seed)
    trials = []
    for done in range(rounds):
        trials.append(_trial(scores, reference, coverages, rng))
        if progress:
            progress(done + 1, rounds)
    low, mean, high = _mean_band([trial.calibrated for trial in trials])
    errors = [expected_calibration_error(trial.calibrated, reference) for trial in trials]
    sets = {kind: _set_figures([trial.sets[kind] for trial in trials], reference) for kind in SET_KINDS}
    chosen = [kind for trial in trials for kind in trial.kinds]
    return CalibrationFigures(
        exams=len(reference),
        repeats=rounds,
        folds=FOLDS,
        ece_before=expected_calibration_error(scores, reference),
        ece_after=float(np.mean(errors)),
        ece_null_low=low,
        ece_null_mean=mean,
        ece_null_high=high,
        inside_band=float(np.mean([error <= high for error in errors])),
        nll_before=float(losses_of(scores, reference).mean()),
        nll_after=float(np.mean([losses_of(trial.calibrated, reference).mean() for trial in trials])),
        accuracy_before=float((scores.argmax(axis=1) == reference).mean()),
        accuracy_after=float(np.mean([trial.calibrated.argmax(axis=1) == reference for trial in trials])),
        coverage=sets[SET_KINDS[0]]["coverage"],
        mean_set_size=sets[SET_KINDS[0]]["mean_set_size"][f"{min(coverages, key=lambda one: abs(one - 0.9)):g}"],
        mean_set_size_by_coverage=sets[SET_KINDS[0]]["mean_set_size"],
        by_kind_of_set=sets,
        maps={kind: chosen.count(kind) / len(chosen) for kind in MAPS if kind in chosen},
    )


def require_enough(reference: Positions) -> None:
    """Raise ``TableError`` below 20 exams, and where all are of one category: every exam would become one of it."""
    if len(reference) < LEAST_EXAMS:
        raise TableError(f"calibration needs at least {LEAST_EXAMS} labelled exams. Got {len(reference)} instead.")
    if len(set(reference.tolist())) == 1:
        raise TableError(
            f"calibration needs exams of several categories. Got {len(reference)} exams of {CATEGORIES[reference[0]]} "
            "only instead."
        )


@dataclass(frozen=True, eq=False)
class _Trial:
    calibrated: Floats
    sets: dict[str, dict[str, Sets]]
    """Kind of set, nominal coverage: (N, 4) of what each set holds."""
    kinds: list[str]


def _trial(scores: Floats, reference: Positions, coverages: Sequence[float], rng: np.random.Generator) -> _Trial:
    """One division of all exams into folds."""
    calibrated = np.empty_like(scores)
    sets: dict[str, dict[str, Sets]] = {
        kind: {f"{one:g}": np.zeros(scores.shape, dtype=np.bool_) for one in coverages} for kind in SET_KINDS
    }
    kinds = []
    for train, held in _folds(len(reference), rng):
        fitted = fit_held_out(scores[train], reference[train], rng)
        calibrated[held] = fit_map(fitted.kind, scores[train], reference[train])(scores[held])
        kinds.append(fitted.kind)
        for kind in SET_KINDS:
            for one in coverages:
                limits = thresholds(fitted.held_out, reference[train], kind, one)
                sets[kind][f"{one:g}"][held] = prediction_sets(calibrated[held], kind, limits)
    return _Trial(calibrated, sets, kinds)


def _folds(exams: int, rng: np.random.Generator) -> Iterator[tuple[Positions, Positions]]:
    order = rng.permutation(exams)
    for held in np.array_split(order, FOLDS):
        yield np.setdiff1d(order, held), held


def _mean_band(calibrated: Sequence[Floats]) -> tuple[float, float, float]:
    bands = np.array([null_band(one, draws=200, seed=place) for place, one in enumerate(calibrated)])
    low, mean, high = bands.mean(axis=0)
    return float(low), float(mean), float(high)


def _set_figures(trials: Sequence[dict[str, Sets]], reference: Positions) -> dict[str, Any]:
    own = np.arange(len(reference)), reference
    coverage, size, by_category = {}, {}, {}
    for nominal in trials[0]:
        covered = np.mean([trial[nominal][own] for trial in trials], axis=0)  # (N,)
        coverage[nominal] = float(covered.mean())
        size[nominal] = float(np.mean([trial[nominal].sum(axis=1).mean() for trial in trials]))
        by_category[nominal] = [
            float(covered[reference == place].mean()) if (reference == place).any() else None for place in range(4)
        ]
    return {"coverage": coverage, "mean_set_size": size, "coverage_by_category": by_category}
