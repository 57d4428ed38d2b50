"""Intervals of shares, also of exams that several patients share out unevenly.

References
----------
Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. Journal of the American
Statistical Association 22(158), 209-212.
Korn, E. L., Graubard, B. I. (1998). Confidence intervals for proportions with small expected number of positive counts
estimated from survey data. Survey Methodology 24, 193-201: the effective number of exams.
Newcombe, R. G. (1998). Interval estimation for the difference between independent proportions: comparison of eleven
methods. Statistics in Medicine 17(8), 873-890, method 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mammodensity.evaluation.bootstrap import Figure, Floats


def share(holds: NDArray[np.bool_], owners: Sequence[str], confidence: float) -> Figure:
    """Compute the share of exams that hold, with Wilson's interval at the effective number of exams.

    ``holds`` has shape (N,) with at least one exam; ``owners`` are the patients of these exams.

    The effective number of exams is their number over the design effect: the variance of the share with patients as the
    units, over that with exams as the units, and at least 1. Where all exams hold, or none does, exams of one patient
    count as if they told one and the same.
    """
    exams, hits = len(holds), int(holds.sum())
    value = hits / exams
    _, owner = np.unique(np.asarray(owners, dtype=str), return_inverse=True)
    sizes = np.bincount(owner).astype(np.float64)
    if sizes.max() == 1:
        effect = 1.0
    elif 0 < hits < exams and len(sizes) > 1:
        away = np.bincount(owner, weights=holds - value)  # (P,)
        effect = float((away**2).sum() * len(sizes) / (len(sizes) - 1) / (exams * value * (1 - value)))
    else:
        effect = float((sizes**2).sum() / exams)
    return Figure(value, *wilson(value, exams / max(1.0, effect), confidence), n=exams)


def wilson(value: float, exams: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many exams, which need not be a whole number."""
    z = float(norm.ppf((1 + confidence) / 2))
    middle = (value + z**2 / (2 * exams)) / (1 + z**2 / exams)
    half = z / (1 + z**2 / exams) * np.sqrt(value * (1 - value) / exams + z**2 / (4 * exams**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def difference_interval(first: Figure, second: Figure) -> tuple[float, float]:
    """Newcombe's interval of ``second - first``, from the intervals of both."""
    gap = second.value - first.value
    low = np.hypot(second.value - second.low, first.high - first.value)
    high = np.hypot(second.high - second.value, first.value - first.low)
    return float(gap - low), float(gap + high)


def permutation_p_values(first: Floats, second: Floats, statistics: int, permutations: int, seed: int) -> Floats:
    """P-values of the hypothesis that two periods are alike, by patients dealt to the periods anew.

    Parameters
    ----------
    first, second
        Shape (P, F + 1): sums over the exams of each of P patients in the first and the second period, of the number
        of exams and then of F quantities.
    statistics
        The first so many quantities are categories, whose shares are compared together by the chi-square statistic;
        each of the others by the difference of its means.
    permutations
        How often patients are dealt anew. A patient with exams in one period moves with all of them; of one with exams
        in both the two are exchanged or not.

    Returns
    -------
    Shape (1 + F - statistics,): of the categories together, then of each other quantity.

    References
    ----------
    Phipson, B., Smyth, G. K. (2010). Permutation p-values should never be zero. Statistical Applications in Genetics
    and Molecular Biology 9(1), 39.
    """
    both = (first[:, 0] > 0) & (second[:, 0] > 0)
    total = (first + second).sum(axis=0)
    single = first[~both] + second[~both]
    early = first[~both, 0] > 0
    generator = np.random.default_rng(seed)
    observed = _statistics(first.sum(axis=0)[np.newaxis], total, statistics)[0]
    extreme = np.zeros(len(observed))
    step = max(1, 2**21 // max(1, len(first)))
    for start in range(0, permutations, step):
        size = min(step, permutations - start)
        dealt = generator.permuted(np.tile(early, (size, 1)), axis=1)
        kept = generator.integers(2, size=(size, int(both.sum()))).astype(np.float64)
        sums = dealt.astype(np.float64) @ single + kept @ first[both] + (1 - kept) @ second[both]
        extreme += (_statistics(sums, total, statistics) >= observed - 1e-9).sum(axis=0)
    return np.asarray((extreme + 1) / (permutations + 1))


def _statistics(sums: Floats, total: Floats, categories: int) -> Floats:
    """Distances of two periods: sums of the first (B, F + 1), of both (F + 1,) -> (B, 1 + F - categories)."""
    rest = total - sums
    exams, others = sums[:, :1], rest[:, :1]
    expected = total[1 : 1 + categories] / total[0]
    parts = ((sums[:, 1 : 1 + categories], exams * expected), (rest[:, 1 : 1 + categories], others * expected))
    with np.errstate(divide="ignore", invalid="ignore"):
        chi = np.stack([(observed - wanted) ** 2 / wanted for observed, wanted in parts])
        gaps = np.abs(sums[:, 1 + categories :] / exams - rest[:, 1 + categories :] / others)
    whole = np.nan_to_num(chi).sum(axis=(0, 2))[:, np.newaxis]  # a category without exams adds nothing
    return np.asarray(np.nan_to_num(np.concatenate([whole, gaps], axis=1), posinf=0.0))
