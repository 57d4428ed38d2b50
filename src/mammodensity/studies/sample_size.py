"""The number of exams that a study needs: to show that a figure lies above a value, with a given power.

"To show" means that the lower end of the two-sided interval lies above the value. Exams are taken to be of different
patients; with several exams a patient, more are needed.

References
----------
Fleiss, J. L., Cohen, J., Everitt, B. S. (1969). Large sample standard errors of kappa and weighted kappa. Psychological
Bulletin 72(5), 323-327.
Chernick, M. R., Liu, C. Y. (2002). The saw-toothed behavior of power versus sample size and software solutions: single
binomial proportion using exact methods. The American Statistician 56(2), 149-155.
Drasgow, F. (1986). Polychoric and polyserial correlations. Encyclopedia of Statistical Sciences 7, 68-74 (the latent
normal model).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, multivariate_normal, norm

from mammodensity.errors import OptionError
from mammodensity.evaluation.agreement import Floats, weighted_kappa
from mammodensity.inputs import as_number
from mammodensity.settings import Field, settings
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY

SHARES = ("accuracy", "dense_accuracy", "coverage")
KAPPAS = {"linear_kappa": 1, "quadratic_kappa": 2}
POPULATION_MIX = (0.1, 0.4, 0.4, 0.1)
_MOST_EXAMS = 1_000_000
_FEWEST = 30  # exams for a kappa: on fewer its interval is not to be trusted
_STUDIES, _RESAMPLES = 2000, 400
_NEARLY_ONE = 0.9999  # correlation: at 1 the normal distribution has no density
_K = len(CATEGORIES)


_Share = Annotated[float, Field(ge=0.5, lt=1)]


@settings
class SampleSizeSpec:
    """Question of a study: whether ``figure``, expected to be ``expected``, lies above ``above``.

    Attributes
    ----------
    power
        Share of studies of this size that show it, if the expectation is right.
    confidence
        Of the two-sided interval.
    mix
        Shares of A to D among the exams; for the kappas only.

    Raises
    ------
    OptionError
        A value is out of range.
    """

    figure: Literal["linear_kappa", "quadratic_kappa", "accuracy", "dense_accuracy", "coverage"]
    expected: float
    above: float
    power: _Share = 0.8
    confidence: _Share = 0.95
    mix: tuple[float, ...] = POPULATION_MIX

    def __post_init__(self) -> None:
        if not 0 < self.above < self.expected < 1:
            raise OptionError(
                f"--above must be above 0 and below --expected, and that below 1. Got {self.above:g} and "
                f"{self.expected:g} instead."
            )
        if len(self.mix) != _K or min(self.mix) <= 0 or abs(sum(self.mix) - 1) > 1e-6:
            raise OptionError(
                "--mix must be four shares above 0 that sum to 1 (or to 100). "
                f"Got {'/'.join(f'{share:g}' for share in self.mix)} instead."
            )

    @property
    def alpha(self) -> float:
        """Calculate the probability that the interval lies above the value although the figure does not."""
        return (1 - self.confidence) / 2


@dataclass(frozen=True)
class SampleSize:
    """``exams`` needed, and the ``power`` that so many have: exact for shares, simulated for kappas."""

    exams: int
    power: float
    method: str
    spec: SampleSizeSpec

    @property
    def summary(self) -> str:
        """The result in plain words."""
        figure = self.spec.figure.replace("_", " ")
        return (
            f"To show {figure} above {self.spec.above:g} you need about {self.exams} exams, if it is "
            f"{self.spec.expected:g}: then {self.power:.0%} of such studies (their power) end with a "
            f"{self.spec.confidence:.0%} interval above {self.spec.above:g}."
        )

    def to_dict(self) -> dict[str, object]:
        """Return values that JSON knows."""
        asked = {**vars(self.spec), "mix": list(self.spec.mix) if self.spec.figure in KAPPAS else None}
        return {
            "summary": self.summary,
            "exams": self.exams,
            "power_reached": self.power,
            "method": self.method,
            "asked": asked,
            "note": RESEARCH_USE_ONLY,
        }


def sample_size(spec: SampleSizeSpec, seed: int = 1) -> SampleSize:
    """Find the number of exams.

    Shares: the exact binomial test, the smallest number from which on its power never falls below the one asked for.
    Kappas: by the standard error of Fleiss, Cohen and Everitt for a latent normal model with this mix of categories,
    then held against 2,000 simulated studies, each with a percentile bootstrap as `evaluate` makes it, and raised if
    too few of them show it; 30 at least.

    Raises
    ------
    OptionError
        More than a million exams would be needed, or the expected kappa is too near 1.
    """
    return _of_share(spec) if spec.figure in SHARES else _of_kappa(spec, seed)


def parse_mix(text: str) -> tuple[float, ...]:
    """Shares of A to D from text such as ``10/40/40/10``, per cent or shares.

    Raises
    ------
    OptionError
        It holds anything but numbers.
    """
    numbers = [as_number(part.strip()) for part in text.split("/")]
    parts = tuple(part for part in numbers if part is not None)
    if len(parts) < len(numbers):
        raise OptionError(f"--mix must be four numbers as 10/40/40/10. Got {text!r} instead.")
    total = sum(parts)
    return tuple(part / 100 for part in parts) if abs(total - 100) < 0.01 else parts


def binomial_power(exams: Floats, expected: float, above: float, alpha: float) -> Floats:
    """Power of the one-sided exact binomial test of ``above``, for each number of exams."""
    least = binom.isf(alpha, exams, above) + 1  # the fewest hits with a p-value of alpha or less
    return np.asarray(binom.sf(least - 1, exams, expected), dtype=np.float64)


def kappa_table(kappa: float, mix: Sequence[float], power: int) -> Floats:
    """Shares of (reference, prediction) with this weighted kappa, both with this mix: shape (4, 4).

    Reference and prediction are cut from two normal variables of which the correlation is found (polychoric model), so
    that near categories are confused more often than far ones.

    Raises
    ------
    OptionError
        No correlation gives so high a kappa.
    """
    cuts = norm.ppf(np.cumsum(mix)[:-1])
    if _kappa_of(_latent_table(_NEARLY_ONE, cuts), power) < kappa:
        raise OptionError(f"--expected {kappa:g} is too near 1 for this mix; choose a lower one")
    return _latent_table(brentq(lambda rho: _kappa_of(_latent_table(rho, cuts), power) - kappa, 0.0, _NEARLY_ONE), cuts)


def kappa_standard_error(table: Floats, power: int) -> float:
    """Standard error of the weighted kappa of one exam from this table of shares; divide by the root of the exams.

    References
    ----------
    Fleiss, Cohen and Everitt 1969, see above, formula for the non-null case.
    """
    position = np.arange(_K)
    weights = 1 - np.abs(position[:, np.newaxis] - position) ** power / (_K - 1) ** power  # of agreement
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed = (weights * table).sum()
    chance = (weights * np.outer(rows, columns)).sum()
    marginal = (weights @ columns)[:, np.newaxis] + (weights.T @ rows)  # (K, K)
    spread = (table * (weights * (1 - chance) - marginal * (1 - observed)) ** 2).sum()
    variance = (spread - (observed * chance - 2 * chance + observed) ** 2) / (1 - chance) ** 4
    return float(np.sqrt(variance))


def simulated_power(table: Floats, exams: int, spec: SampleSizeSpec, seed: int) -> float:
    """Share of simulated studies whose percentile bootstrap interval of the kappa lies above the value."""
    generator = np.random.default_rng(seed)
    power = KAPPAS[spec.figure]
    shares = (table / table.sum()).ravel()
    shown = 0
    for study in generator.multinomial(exams, shares, size=_STUDIES):
        drawn = generator.multinomial(exams, study / exams, size=_RESAMPLES).reshape(-1, _K, _K).astype(np.float64)
        kappas = weighted_kappa(drawn, power)
        shown += bool(np.nanquantile(kappas, spec.alpha) > spec.above) if not np.isnan(kappas).all() else False
    return shown / _STUDIES


def _of_share(spec: SampleSizeSpec) -> SampleSize:
    most = 64
    while True:
        exams = np.arange(1, 2 * most + 1, dtype=np.float64)
        power = binomial_power(exams, spec.expected, spec.above, spec.alpha)
        needed = int(np.flatnonzero(power < spec.power).max(initial=-1)) + 2
        if needed <= most:
            return SampleSize(needed, float(power[needed - 1]), "exact binomial test", spec)
        most *= 2
        _check_most(most, spec)


def _of_kappa(spec: SampleSizeSpec, seed: int) -> SampleSize:
    table = kappa_table(spec.expected, spec.mix, KAPPAS[spec.figure])
    error = kappa_standard_error(table, KAPPAS[spec.figure])
    both = norm.ppf(1 - spec.alpha) + norm.ppf(spec.power)
    exams = max(_FEWEST, ceil((both * error / (spec.expected - spec.above)) ** 2))
    _check_most(exams, spec)
    noise = np.sqrt(spec.power * (1 - spec.power) / _STUDIES)
    power = simulated_power(table, exams, spec, seed)
    while power < spec.power - noise:
        reached = norm.ppf(1 - spec.alpha) + norm.ppf(np.clip(power, 0.01, 0.99))
        exams = max(exams + 1, ceil(exams * (both / reached) ** 2))
        _check_most(exams, spec)
        power = simulated_power(table, exams, spec, seed)
    return SampleSize(exams, power, "standard error of weighted kappa, confirmed by simulated studies", spec)


def _check_most(exams: int, spec: SampleSizeSpec) -> None:
    if exams > _MOST_EXAMS:
        raise OptionError(
            f"more than {_MOST_EXAMS:,} exams would be needed to tell {spec.expected:g} from {spec.above:g}; choose "
            "values farther apart"
        )


def _latent_table(rho: float, cuts: Floats) -> Floats:
    edges = np.concatenate([[-8.0], cuts, [8.0]])  # beyond 8 standard deviations nothing is left
    normal = multivariate_normal(mean=[0, 0], cov=[[1, rho], [rho, 1]], allow_singular=True)
    below = np.array([[normal.cdf([high, low]) for low in edges] for high in edges])
    table = np.clip(np.diff(np.diff(below, axis=0), axis=1), 0, None)
    return np.asarray(table / table.sum())


def _kappa_of(table: Floats, power: int) -> float:
    return float(weighted_kappa(table[np.newaxis], power)[0])
