"""How far scores are from meaning what they say, beside what chance alone gives.

The expected calibration error is biased upwards: with few exams a perfectly calibrated predictor has a large one, too.
So it is never given without its null band: what it is when the categories are drawn by the scores themselves.

References
----------
Naeini, Cooper and Hauskrecht, AAAI 2015 (expected calibration error). Vaicenavicius et al., AISTATS 2019 (consistency
resampling).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammodensity.calibration.maps import Floats, Positions

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
