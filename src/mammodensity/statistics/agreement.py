"""Agreement of several readers as array arithmetic, for B (re)samples at once.

Votes are counts of shape (N, 4): how many readers gave an exam each category. Samples are counts of shape (B, N): how
often each exam is in each. Results have shape (B,), NaN where undefined.

References
----------
Fleiss, J. L. (1971). Measuring nominal scale agreement among many raters. Psychological Bulletin 76(5), 378-382.
Krippendorff, K. (2011). Computing Krippendorff's alpha-reliability. University of Pennsylvania, Annenberg School.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mammodensity.evaluation.agreement import Floats, ratio
from mammodensity.terms import CATEGORIES

_K = len(CATEGORIES)
_EXACT = 1e-12  # chance agreement this near 1 is 1: all ratings are of one category


def fleiss_kappa(votes: NDArray[np.int_], counts: Floats) -> Floats:
    """Fleiss' kappa of exams that all have the same number of ratings, at least two.

    NaN where all ratings of a sample are of one category (0/0), or there is no exam.

    References
    ----------
    Fleiss 1971, see above.
    """
    each = int(votes[0].sum()) if len(votes) else 0
    agreeing = (votes * (votes - 1)).sum(axis=1) / (each * (each - 1)) if each > 1 else np.full(len(votes), np.nan)
    exams = counts.sum(axis=1)
    observed = ratio(counts @ agreeing, exams)
    shares = ratio(counts @ votes, (each * exams)[:, np.newaxis])  # (B, K)
    chance = (shares**2).sum(axis=1)
    return ratio(observed - chance, np.where(1 - chance > _EXACT, 1 - chance, 0))


def ordinal_alpha(votes: NDArray[np.int_], counts: Floats) -> Floats:
    """Krippendorff's alpha for ordered categories; exams may have different numbers of ratings.

    Exams with fewer than two ratings say nothing and are left out. NaN where all ratings are of one category.

    References
    ----------
    Krippendorff 2011, see above: coincidences of pairs within exams, ordinal metric.
    """
    each = votes.sum(axis=1)
    votes, counts, each = votes[each > 1], counts[:, each > 1], each[each > 1]
    pairs = votes[:, :, np.newaxis] * votes[:, np.newaxis, :] - votes[:, :, np.newaxis] * np.eye(_K)  # (N, K, K)
    coincidences = (counts @ (pairs / (each - 1)[:, np.newaxis, np.newaxis]).reshape(-1, _K * _K)).reshape(-1, _K, _K)
    margins = coincidences.sum(axis=2)  # (B, K)
    distance = _ordinal_distance(margins)
    total = margins.sum(axis=1)
    observed = (coincidences * distance).sum(axis=(1, 2)) * (total - 1)
    expected = (margins[:, :, np.newaxis] * margins[:, np.newaxis, :] * distance).sum(axis=(1, 2))
    alpha: Floats = 1 - ratio(observed, expected)
    return alpha


def _ordinal_distance(margins: Floats) -> Floats:
    """Squared number of ratings between two categories, half of each end counted: (B, K) -> (B, K, K)."""
    middle = np.cumsum(margins, axis=1) - margins / 2  # ratings up to the middle of each category
    distance: Floats = (middle[:, :, np.newaxis] - middle[:, np.newaxis, :]) ** 2
    return distance


def consensus(votes: NDArray[np.int_]) -> NDArray[np.intp]:
    """The category most readers gave: (N, 4) -> (N,), -1 where none gave any.

    A tie goes to the tied category nearest to the mean of all ratings (A is 0, D is 3), and if two are as near, to the
    less dense of them.
    """
    position = np.arange(_K)
    each = votes.sum(axis=1, keepdims=True)
    away = np.abs(position * each - (votes * position).sum(axis=1, keepdims=True))  # whole numbers: ties stay exact
    best = (votes * (_K * each + 1) - away).argmax(axis=1)
    return np.where(each[:, 0] > 0, best, -1)
