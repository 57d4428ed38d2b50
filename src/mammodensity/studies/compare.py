"""Two readings of the same exams against the same reference: who is better, and whether chance explains it.

References
----------
McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or percentages.
Psychometrika 12(2), 153-157. Exact form: the binomial test of the discordant exams.
Davison, A. C., Hinkley, D. V. (1997). Bootstrap Methods and their Application, sections 4.4 and 5.3 (paired resamples;
p-value by inverting the percentile interval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from mammodensity.errors import TableError
from mammodensity.evaluation.agreement import Floats, confusion_figures, confusion_matrices, sample_figures
from mammodensity.evaluation.bootstrap import BootstrapSpec, Figure, canonical_order, plain, resample, with_interval
from mammodensity.evaluation.figures import undefined_reason
from mammodensity.evaluation.labels import match_exams, match_patients
from mammodensity.studies.readings import Reading, few_warnings
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY, DensityCategory

COMPARED_FIGURES = ("accuracy", "linear_kappa", "quadratic_kappa", "dense_accuracy", "auc", "dense_auc")
_NEED_SCORES = ("auc", "dense_auc")
_FIRST_DENSE = min(category.index for category in CATEGORIES if category.dense)


@dataclass(frozen=True)
class Difference:
    """One figure of A and of B, and A less B with its interval. NaN where undefined, with the reason.

    ``p_value`` is two-sided, by inverting the percentile interval of the paired bootstrap; it cannot fall below
    2 / (resamples + 1).
    """

    a: float
    b: float
    difference: Figure
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        difference = self.difference.to_dict()
        return {
            "a": plain(self.a),
            "b": plain(self.b),
            "difference": difference["value"],
            "interval": difference["interval"],
            "p_value": plain(self.p_value),
            "undefined": difference["undefined"],
            "undefined_resamples": self.difference.undefined_resamples,
        }


@dataclass(frozen=True)
class McNemar:
    """Exams that only one of the two has right, and the exact two-sided binomial p-value (1 where there are none)."""

    only_a: int
    only_b: int
    p_value: float


@dataclass(frozen=True)
class Errors:
    """Exams wrong, wrong by two categories or more, and on the wrong side of dense (C, D) against not dense."""

    wrong: int
    two_or_more: int
    dense_flips: int


@dataclass(frozen=True)
class Comparison:
    """A against B on N exams; see the module for the methods.

    ``only_in_a`` exams were left aside because B gives them no category, and the reverse.
    ``between`` counts exams where A and B differ, as `Errors` counts against the reference. ``patients`` is None where
    exams were resampled. McNemar's test takes exams as independent, also where a patient has several.
    """

    a: str
    b: str
    n: int
    patients: int | None
    only_in_a: int
    only_in_b: int
    figures: dict[str, Difference]
    mcnemar: McNemar
    mcnemar_dense: McNemar
    errors_a: Errors
    errors_b: Errors
    between: Errors
    bootstrap: int
    seed: int
    confidence: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the figures may mean little, a line each."""
        return few_warnings(self.n, self.patients)

    @property
    def summary(self) -> str:
        """The result in plain words."""
        accuracy, test = self.figures["accuracy"], self.mcnemar
        points = 100 * accuracy.difference.value
        if test.only_a == test.only_b:
            found = f"{self.a} and {self.b} are right in the same number of {self.n} exams ({accuracy.a:.1%})."
        else:
            better, worse = (self.a, self.b) if points > 0 else (self.b, self.a)
            shares = sorted((accuracy.a, accuracy.b), reverse=True)
            found = (
                f"{better} is right in {shares[0]:.1%} of {self.n} exams, {worse} in {shares[1]:.1%}: "
                f"{abs(points):.1f} points more"
            )
            if accuracy.difference.interval:
                low, high = sorted(100 * end * (1 if points > 0 else -1) for end in accuracy.difference.interval)
                found += f" ({self.confidence:.0%} interval {low:.1f} to {high:.1f})"
            found += "."
        independent = self.patients in (None, self.n)
        p_value, method = (test.p_value, "McNemar's test") if independent else (accuracy.p_value, "over patients")
        verdict = "Chance does not explain that" if p_value < 1 - self.confidence else "Chance alone could explain that"
        return (
            f"{found} {verdict} ({method}, p {p_text(p_value)}; {self.a} alone is right in {test.only_a}, {self.b} "
            f"alone in {test.only_b})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON knows, with the summary and null for NaN."""
        values = {name: plain(value) for name, value in vars(self).items()}
        return {"summary": self.summary, "warnings": list(self.warnings), **values, "note": RESEARCH_USE_ONLY}


def compare(
    a: Reading,
    b: Reading,
    labels: Mapping[str, DensityCategory],
    *,
    patients: Mapping[str, str] | None = None,
    spec: BootstrapSpec | None = None,
) -> Comparison:
    """Compare two readings on the exams that both hold.

    Raises
    ------
    TableError
        They have no exam in common, or one of those has no label or no patient.
    """
    spec = spec or BootstrapSpec()
    of_b = set(b.exam_ids)
    common = [exam_id for exam_id in a.exam_ids if exam_id in of_b]
    if not common:
        raise TableError(
            f"{a.name} and {b.name} have no exam in common (for instance {a.exam_ids[0]} and {b.exam_ids[0]}); "
            "expected readings of the same exams under the same names"
        )
    reference = match_exams(common, labels)
    of_exam = None if patients is None else match_patients(common, patients)
    both = (a.of(common), b.of(common))
    order, cluster = canonical_order(np.column_stack([reference, *map(_row, both)]), of_exam)
    reference = reference[order]
    first, second = (one.of([common[place] for place in order]) for one in both)
    right, dense = (_hits(reference, first, second, dense) for dense in (False, True))
    return Comparison(
        a=a.name,
        b=b.name,
        n=len(common),
        patients=None if of_exam is None else len(set(of_exam)),
        only_in_a=len(a.exam_ids) - len(common),
        only_in_b=len(b.exam_ids) - len(common),
        figures=_differences(reference, first, second, cluster, spec),
        mcnemar=mcnemar(*right),
        mcnemar_dense=mcnemar(*dense),
        errors_a=errors(reference, first.predicted),
        errors_b=errors(reference, second.predicted),
        between=errors(first.predicted, second.predicted),
        bootstrap=spec.resamples,
        seed=spec.seed,
        confidence=spec.confidence,
    )


def mcnemar(a_right: NDArray[np.bool_], b_right: NDArray[np.bool_]) -> McNemar:
    """Count what only one has right, and test it: shapes (N,), (N,)."""
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)


def errors(reference: NDArray[np.intp], predicted: NDArray[np.intp]) -> Errors:
    """Count errors by their weight: shapes (N,), (N,)."""
    distance = np.abs(reference - predicted)
    flips = (reference >= _FIRST_DENSE) != (predicted >= _FIRST_DENSE)
    return Errors(int((distance > 0).sum()), int((distance > 1).sum()), int(flips.sum()))


def bootstrap_p_value(differences: Floats) -> float:
    """Two-sided p-value of a difference of 0, from its resamples of shape (B,); NaN without any."""
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return nan
    tails = 1 + np.minimum((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * tails / (len(defined) + 1)))


def p_text(p_value: float) -> str:
    """A p-value for a sentence.

    >>> p_text(0.2301), p_text(0.00004)
    ('= 0.23', '< 0.001')
    """
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _row(reading: Reading) -> Floats:
    return reading.predicted[:, np.newaxis].astype(np.float64) if reading.scores is None else reading.scores


def _hits(reference: NDArray[np.intp], a: Reading, b: Reading, dense: bool) -> tuple[NDArray[np.bool_], ...]:
    if dense:
        return tuple((reference >= _FIRST_DENSE) == (one.predicted >= _FIRST_DENSE) for one in (a, b))
    return tuple(reference == one.predicted for one in (a, b))


def _figures(reference: NDArray[np.intp], reading: Reading, counts: Floats) -> dict[str, Floats]:
    if reading.scores is not None:
        found = sample_figures(reference, reading.scores, counts)
    else:
        found = confusion_figures(confusion_matrices(reference, reading.predicted, counts))
    return {name: found[name] for name in COMPARED_FIGURES if name in found}


def _differences(
    reference: NDArray[np.intp], a: Reading, b: Reading, cluster: NDArray[np.intp], spec: BootstrapSpec
) -> dict[str, Difference]:
    def compute(counts: Floats) -> dict[tuple[str, str], Floats]:
        of_a, of_b = (_figures(reference, reading, counts) for reading in (a, b))
        values = {(name, "a"): value for name, value in of_a.items()} | {(name, "b"): of_b[name] for name in of_b}
        return values | {(name, "difference"): of_a[name] - of_b[name] for name in of_a.keys() & of_b.keys()}

    point, drawn = resample(compute, cluster, spec)
    differences = {}
    for name in COMPARED_FIGURES:
        values = point.get((name, "a"), nan), point.get((name, "b"), nan)
        draws = drawn.get((name, "difference"), np.zeros(0))
        reason = _reason(name, reference, (a, b), values)
        difference = with_interval(values[0] - values[1], draws, spec, n=len(cluster), reason=reason)
        differences[name] = Difference(*values, difference, nan if reason else bootstrap_p_value(draws))
    return differences


def _reason(name: str, reference: NDArray[np.intp], readings: Sequence[Reading], values: Sequence[float]) -> str | None:
    for reading, value in zip(readings, values, strict=True):
        if isnan(value):
            if name in _NEED_SCORES and reading.scores is None:
                return f"{reading.name} gives categories, no scores"
            everyone = np.ones((1, len(reference)))
            confusion = confusion_matrices(reference, reading.predicted, everyone)[0].astype(int)
            return f"{reading.name}: {undefined_reason(name, confusion)}"
    return None
