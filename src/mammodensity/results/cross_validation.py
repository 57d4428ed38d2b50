"""Calibration error with its null band, and repeated cross-validation: how well calibration works on new exams.

The expected calibration error is biased upwards: with few exams even a perfectly calibrated model has a large one. It
is therefore always given with its null band: the values that it has when the categories are drawn from the scores.

References
----------
Naeini, Cooper and Hauskrecht, AAAI 2015 (expected calibration error). Vaicenavicius et al., AISTATS 2019 (consistency
resampling).
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
    MapKind,
    Positions,
    SetKind,
    choose_map,
    fit_map,
    fit_maps,
    losses_of,
    prediction_sets,
    thresholds,
)
from mammodensity.terms import CATEGORIES

Sets = NDArray[np.bool_]

LEAST_EXAMS = 20
"""Calibration needs so many labelled exams."""
BINS = 10
FOLDS = 10
_DRAWS = 2000
_MANY = 1000  # exams: from here on, fewer repeats are enough


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: exams by the score of their most likely category, in ten bins of equal width."""

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    """Mean score in each bin; None in an empty bin."""
    accuracy: tuple[float | None, ...]
    """Share of correct categories in each bin; None in an empty bin."""


def expected_calibration_error(scores: Floats, reference: Positions) -> float:
    """Mean difference between confidence and accuracy over ten bins of the highest score, weighted by exams."""
    correct = (scores.argmax(axis=1) == reference)[np.newaxis]
    return float(_errors(scores.max(axis=1), correct)[0])


def null_band(scores: Floats, *, draws: int = _DRAWS, seed: int = 1) -> tuple[float, float, float]:
    """5 % quantile, mean and 95 % quantile of the error that perfectly calibrated scores of as many exams have."""
    rng = np.random.default_rng(seed)
    top = scores.max(axis=1)
    values = np.concatenate([_errors(top, rng.random((len(part), len(top))) < top) for part in _parts(draws, len(top))])
    low, high = np.quantile(values, [0.05, 0.95])
    return float(low), float(values.mean()), float(high)


def reliability(scores: Floats, reference: Positions) -> Reliability:
    """Confidence and accuracy in each bin."""
    top, correct = scores.max(axis=1), scores.argmax(axis=1) == reference
    bins = [_bins(top) == index for index in range(BINS)]
    return Reliability(
        tuple(int(chosen.sum()) for chosen in bins),
        tuple(float(top[chosen].mean()) if chosen.any() else None for chosen in bins),
        tuple(float(correct[chosen].mean()) if chosen.any() else None for chosen in bins),
    )


def _errors(top: Floats, correct: NDArray[np.bool_]) -> Floats:
    """Calibration errors (B,) from highest scores (N,) and whether their categories are correct (B, N)."""
    member = np.eye(BINS)[_bins(top)]  # (N, BINS)
    result: Floats = np.abs((correct - top) @ member).sum(axis=1) / len(top)
    return result


def _bins(top: Floats) -> NDArray[np.intp]:
    """Bin of each score; a score on a border belongs to the bin above."""
    return np.minimum((top * BINS).astype(np.intp), BINS - 1)


def _parts(draws: int, exams: int) -> list[range]:
    """Divide the draws into parts whose arrays stay small."""
    step = max(1, 2**20 // exams)
    return [range(start, min(start + step, draws)) for start in range(0, draws, step)]


@dataclass(frozen=True)
class HeldOut:
    """The kind of map chosen for a set of exams, and their scores calibrated by maps fitted to other exams."""

    kind: MapKind
    scores: Floats
    """(N, 4), by maps of the chosen kind."""


@dataclass(frozen=True)
class CalibrationFigures:
    """Means over the repeats; each exam is judged with maps and thresholds fitted to other exams."""

    exams: int
    repeats: int
    folds: int
    ece_before: float
    ece_after: float
    ece_null_low: float
    ece_null_mean: float
    ece_null_high: float
    inside_band: float
    """Share of the repeats whose error after calibration does not exceed the null band."""
    nll_before: float
    nll_after: float
    accuracy_before: float
    accuracy_after: float
    coverage: dict[str, float]
    """Share of exams whose set contains their category, by nominal coverage; for the default kind of set."""
    mean_set_size: float
    """At the coverage nearest to 0.9."""
    mean_set_size_by_coverage: dict[str, float]
    by_kind_of_set: dict[SetKind, dict[str, Any]]
    """``coverage``, ``mean_set_size`` and ``coverage_by_category`` for each kind of set."""
    maps: dict[str, float]
    """Share of the folds in which each kind of map was chosen."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dict(vars(self))


def fit_held_out(scores: Floats, reference: Positions, rng: np.random.Generator) -> HeldOut:
    """Choose a map by its held-out likelihood in ten folds, and keep the held-out scores for the thresholds of sets."""
    by_kind = {kind: np.empty_like(scores) for kind in MAPS}
    for train, held in _folds(len(reference), rng):
        for kind, fitted in fit_maps(scores[train], reference[train]).items():
            by_kind[kind][held] = fitted(scores[held])
    chosen = choose_map({kind: losses_of(calibrated, reference) for kind, calibrated in by_kind.items()})
    return HeldOut(chosen, by_kind[chosen])


def in_canonical_order(scores: Floats, reference: Positions) -> tuple[Floats, Positions]:
    """Sort scores (N, 4) and categories (N,) by content, so that folds do not depend on the order of the exams."""
    order = canonical_order(np.column_stack([reference, scores[:, ::-1]]), None)[0]
    return scores[order], reference[order]


def held_out_set_size(scores: Floats, reference: Positions, coverage: float = 0.9, seed: int = 1) -> float:
    """Mean size of ordinal sets of exams calibrated with other exams; NaN for fewer than 20 exams."""
    if len(reference) < LEAST_EXAMS:
        return float("nan")
    scores, reference = in_canonical_order(scores, reference)
    held_out = fit_held_out(scores, reference, np.random.default_rng(seed)).scores
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
    """Calibrate with nine tenths of the exams and judge the rest, for each tenth, in several random divisions.

    The result does not depend on the order of the exams.

    Parameters
    ----------
    scores, reference
        Fused scores (N, 4), and positions (N,) of the reference categories.
    repeats
        Number of divisions; None is 50, or 5 from 1,000 exams on.

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
    bands = [null_band(trial.calibrated, draws=200, seed=index) for index, trial in enumerate(trials)]
    low, mean, high = np.mean(bands, axis=0).tolist()
    errors = [expected_calibration_error(trial.calibrated, reference) for trial in trials]
    sets = {kind: _set_figures([trial.sets[kind] for trial in trials], reference) for kind in SET_KINDS}
    standard = sets[SET_KINDS[0]]
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
        coverage=standard["coverage"],
        mean_set_size=standard["mean_set_size"][f"{min(coverages, key=lambda nominal: abs(nominal - 0.9)):g}"],
        mean_set_size_by_coverage=standard["mean_set_size"],
        by_kind_of_set=sets,
        maps={kind: chosen.count(kind) / len(chosen) for kind in MAPS if kind in chosen},
    )


def require_enough(reference: Positions) -> None:
    """Raise ``TableError`` for fewer than 20 exams, or if all are of one category, which would always be predicted."""
    if len(reference) < LEAST_EXAMS:
        raise TableError(f"calibration needs at least {LEAST_EXAMS} labelled exams. Got {len(reference)} instead.")
    if len(set(reference.tolist())) == 1:
        raise TableError(
            f"calibration needs exams of several categories. Got {len(reference)} exams of {CATEGORIES[reference[0]]} "
            "only instead."
        )


@dataclass(frozen=True, eq=False)
class _Trial:
    """One division of all exams into folds."""

    calibrated: Floats
    sets: dict[SetKind, dict[str, Sets]]
    """Sets (N, 4) by kind and nominal coverage."""
    kinds: list[MapKind]


def _trial(scores: Floats, reference: Positions, coverages: Sequence[float], rng: np.random.Generator) -> _Trial:
    calibrated = np.empty_like(scores)
    sets: dict[SetKind, dict[str, Sets]] = {
        kind: {f"{coverage:g}": np.zeros(scores.shape, dtype=np.bool_) for coverage in coverages} for kind in SET_KINDS
    }
    kinds = []
    for train, held in _folds(len(reference), rng):
        held_out = fit_held_out(scores[train], reference[train], rng)
        calibrated[held] = fit_map(held_out.kind, scores[train], reference[train])(scores[held])
        kinds.append(held_out.kind)
        for kind in SET_KINDS:
            for coverage in coverages:
                limits = thresholds(held_out.scores, reference[train], kind, coverage)
                sets[kind][f"{coverage:g}"][held] = prediction_sets(calibrated[held], kind, limits)
    return _Trial(calibrated, sets, kinds)


def _folds(exams: int, rng: np.random.Generator) -> Iterator[tuple[Positions, Positions]]:
    order = rng.permutation(exams)
    for held in np.array_split(order, FOLDS):
        yield np.setdiff1d(order, held), held


def _set_figures(trials: Sequence[dict[str, Sets]], reference: Positions) -> dict[str, Any]:
    of_reference = np.arange(len(reference)), reference
    coverage, size, by_category = {}, {}, {}
    for nominal in trials[0]:
        covered = np.mean([trial[nominal][of_reference] for trial in trials], axis=0)  # (N,)
        coverage[nominal] = float(covered.mean())
        size[nominal] = float(np.mean([trial[nominal].sum(axis=1).mean() for trial in trials]))
        by_category[nominal] = [
            float(covered[reference == category.index].mean()) if (reference == category.index).any() else None
            for category in CATEGORIES
        ]
    return {"coverage": coverage, "mean_set_size": size, "coverage_by_category": by_category}
