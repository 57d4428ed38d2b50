"""Category map: from percent density to scores of the four categories. A site can refit the default map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from mammodensity.errors import OptionError, TableError
from mammodensity.settings import Field, settings
from mammodensity.terms import CATEGORIES, DensityCategory

_Finite = Annotated[float, Field(allow_inf_nan=False)]

LEAST_EXAMS = 10
"""Least number of labelled exams for a refit; a reliable map needs 20."""

_CUT_SPREAD, _SLOPE_SPREAD = 2.0, 0.5  # prior of a refit: cuts on the square root scale, logarithm of the slope
_LEAST_STEP = 0.05  # between cuts, on the square root scale


@settings
class CategoryMap:
    """Ordinal logistic regression on the square root of percent density.

    The score of "at least B" is 1/2 where percent density equals the first cut, and so on for C and D. On the scale of
    the square root, percent density varies by similar amounts within each category.

    Raises
    ------
    OptionError
        The cuts do not rise, or the slope is not positive or above 100.

    Examples
    --------
    >>> [str(DEFAULT_MAP.category(percent)) for percent in (2, 15, 45, 80)]
    ['A', 'B', 'C', 'D']
    """

    cuts: Annotated[tuple[_Finite, _Finite, _Finite], Field(strict=False)]  # not strict, as JSON gives a list
    """Percent densities between A and B, B and C, C and D."""
    slope: Annotated[_Finite, Field(gt=0, le=100)]  # the steepest fit is far below
    """Change of the logit for one unit of the square root of percent density."""
    source: str
    """Where the numbers come from."""

    def __post_init__(self) -> None:
        if not 0 <= self.cuts[0] < self.cuts[1] < self.cuts[2] <= 100:
            raise OptionError(f"cuts must rise from 0 to 100 per cent. Got {self.cuts} instead.")

    def scores(self, percent_density: float) -> NDArray[np.float64]:
        """Scores (4,) of A-D for a percent density, which sum to 1."""
        scores: NDArray[np.float64] = _scores(np.sqrt([percent_density]), np.sqrt(self.cuts), self.slope)[0]
        return scores

    def category(self, percent_density: float) -> DensityCategory:
        """The category with the highest score."""
        return CATEGORIES[int(np.argmax(self.scores(percent_density)))]


DEFAULT_MAP = CategoryMap(
    cuts=(4.5, 29.8, 65.7),
    slope=1.54,
    source="the ordinal logistic regression closest to percent dense areas of 403 women published by BI-RADS category "
    "(means 4.3, 19.3, 40.4, 62.3 %, SD 4.3, 11.3, 14.8, 11.7 %, n 56, 183, 131, 33)",
)
"""The published means and standard deviations are from a study of volumetric and area density in Cancer Epidemiology,
Biomarkers & Prevention (table 57002 of its site). They are taken as those of normal distributions on the square root
scale, on which the study compares the categories. The median percent densities of 200 women in Martin et al., Acad.
Radiol. 2006 (6.0, 14.8, 51.2, 78.4 %) fall into the same categories."""


def fit_category_map(
    percent_densities: Sequence[float],
    categories: Sequence[DensityCategory],
    source: str,
    *,
    least: int = LEAST_EXAMS,
) -> CategoryMap:
    """Refit the map to labelled exams by maximum likelihood, with the default map as prior.

    The prior (standard deviation of 2 on the square root scale for cuts, a factor of 1.6 for the slope) has little
    weight against twenty exams. It keeps the cuts between absent categories in place.

    Raises
    ------
    TableError
        Fewer than ``least`` exams, or all of one category.
    """
    if len(percent_densities) < least:
        raise TableError(f"at least {least} labelled exams are needed. Got {len(percent_densities)} instead.")
    if len(set(categories)) < 2:
        raise TableError("the labelled exams are all of one category; at least two are needed")
    roots = np.sqrt(np.asarray(percent_densities, float))
    index = np.array([category.index for category in categories])
    start = _to_free(np.sqrt(DEFAULT_MAP.cuts), DEFAULT_MAP.slope)

    def cost(free: NDArray[np.float64]) -> float:
        cuts, slope = _from_free(free)
        chosen = _scores(roots, cuts, slope)[np.arange(len(roots)), index]
        prior = np.sum(((cuts - np.sqrt(DEFAULT_MAP.cuts)) / _CUT_SPREAD) ** 2)
        prior += (np.log(slope / DEFAULT_MAP.slope) / _SLOPE_SPREAD) ** 2
        return float(prior / 2 - np.log(np.maximum(chosen, 1e-12)).sum())

    optimum = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 5000, "xatol": 1e-5, "fatol": 1e-7})
    cuts, slope = _from_free(optimum.x)
    first, second, third = (float(min(max(cut, 0.0) ** 2, 100.0)) for cut in cuts)
    return CategoryMap((first, second, third), slope, source)


def _scores(roots: NDArray[np.float64], cuts: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    """Scores (N, 4) at square roots of percent density (N,)."""
    above = expit(slope * (roots[:, None] - cuts[None, :]))
    bounds = np.hstack([np.ones((len(roots), 1)), above, np.zeros((len(roots), 1))])
    scores: NDArray[np.float64] = bounds[:, :-1] - bounds[:, 1:]
    return scores


def _to_free(cuts: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    return np.array([cuts[0], *np.log(np.diff(cuts) - _LEAST_STEP), np.log(slope)])


def _from_free(free: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Turn any four numbers into rising cuts and a positive slope."""
    steps = _LEAST_STEP + np.exp(np.clip(free[1:3], -20, 3))
    return np.cumsum([free[0], *steps]), float(np.exp(np.clip(free[3], -10, 10)))
