"""Compare two readings of the same exams with the same reference: which is better, and can chance explain it.

Every difference has one interval, by the paired bootstrap, and one p value. For accuracy and dense accuracy p comes
from McNemar's exact test, which needs independent exams. If patients have several exams, and for kappas and areas under
the curve, it comes from the bootstrap, too.

References
----------
McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or percentages.
Psychometrika 12(2), 153-157. Exact form: the binomial test of the discordant exams.
Davison, A. C., Hinkley, D. V. (1997). Bootstrap Methods and their Application, sections 4.4 and 5.3 (paired resamples;
p value by inverting the percentile interval).
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
from mammodensity.evaluation.bootstrap import (
    STANDARD_BOOTSTRAP,
    BootstrapSpec,
    Figure,
    canonical_order,
    plain,
    resample,
    with_interval,
)
from mammodensity.evaluation.figures import undefined_reason
from mammodensity.evaluation.labels import match_exams, match_patients
from mammodensity.studies.readings import Reading, few_warnings
from mammodensity.terms import DENSITY, RESEARCH_USE_ONLY, DensityCategory

COMPARED_FIGURES = ("accuracy", "linear_kappa", "quadratic_kappa", "dense_accuracy", "auc", "dense_auc")
MCNEMAR, BOOTSTRAP = "McNemar's exact test", "paired bootstrap"
_WHY_THEY_DIFFER = {
    MCNEMAR: "They are two methods, and only the exact test keeps its error rate when few exams decide: trust p",
    BOOTSTRAP: "Both come from the same resamples, and p counts one more of them: the result lies on the border",
}
_NEED_SCORES = ("auc", "dense_auc")
_DENSE = np.array(DENSITY.dense)


@dataclass(frozen=True)
class Difference:
    """One figure of A and of B, and A minus B with its interval. NaN where undefined, with the reason.

    ``p_value`` is two-sided. ``test`` is `MCNEMAR`, or `BOOTSTRAP`: by inverting the percentile interval, so that p
    is 2 / (resamples + 1) or more.
    """

    a: float
    b: float
    difference: Figure
    p_value: float
    test: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        difference = self.difference.to_dict()
        return {
            "a": plain(self.a),
            "b": plain(self.b),
            "difference": difference["value"],
            "interval": difference["interval"],
            "p_value": plain(self.p_value),
            "test": self.test,
            "undefined": difference["undefined"],
            "undefined_resamples": self.difference.undefined_resamples,
        }


@dataclass(frozen=True)
class McNemar:
    """Exams that only A or only B has right, and the exact two-sided p value (1 without such exams).

    ``p_value`` is NaN where patients have several exams, as the test needs independent exams.
    """

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
    """A compared with B on N exams; see the module for the methods.

    ``only_in_a`` exams were left out because B gives them no category, and the reverse. ``between`` counts exams where
    A and B differ, as `Errors` counts them against the reference. ``patients`` is None where exams were resampled.
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
        """Say why figures may mean little, and where an interval and its p value disagree."""
        warnings = list(few_warnings(self.n, self.patients))
        for name, compared in self.figures.items():
            interval = compared.difference.interval
            if interval is None:
                continue
            excluded, significant = not interval[0] <= 0 <= interval[1], compared.p_value < 1 - self.confidence
            if excluded != significant:
                warnings.append(
                    f"{name.replace('_', ' ')}: p {p_text(compared.p_value)}, yet the interval "
                    f"{'excludes' if excluded else 'includes'} 0. {_WHY_THEY_DIFFER[compared.test]}"
                )
        return tuple(warnings)

    @property
    def summary(self) -> str:
        """The result in words."""
        accuracy, counts = self.figures["accuracy"], self.mcnemar
        points = 100 * accuracy.difference.value
        if counts.only_a == counts.only_b:
            text = f"{self.a} and {self.b} are right in the same number of {self.n} exams ({accuracy.a:.1%})."
        else:
            better, worse = (self.a, self.b) if points > 0 else (self.b, self.a)
            shares = sorted((accuracy.a, accuracy.b), reverse=True)
            text = (
                f"{better} is right in {shares[0]:.1%} of {self.n} exams, {worse} in {shares[1]:.1%}: "
                f"{abs(points):.1f} points more"
            )
            if accuracy.difference.interval:
                low, high = sorted(100 * end * (1 if points > 0 else -1) for end in accuracy.difference.interval)
                text += f" ({self.confidence:.0%} interval {low:.1f} to {high:.1f})"
            text += "."
        chance = "Chance does not explain" if accuracy.p_value < 1 - self.confidence else "Chance alone could explain"
        method = accuracy.test if accuracy.test == MCNEMAR else f"{accuracy.test} over patients"
        return (
            f"{text} {chance} that ({method}, p {p_text(accuracy.p_value)}; {self.a} alone is right in "
            f"{counts.only_a}, {self.b} alone in {counts.only_b})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the summary and null for NaN."""
        return {
            "summary": self.summary,
            "warnings": list(self.warnings),
            **plain(vars(self)),
            "note": RESEARCH_USE_ONLY,
        }


def compare(
    a: Reading,
    b: Reading,
    labels: Mapping[str, DensityCategory],
    *,
    patients: Mapping[str, str] | None = None,
    spec: BootstrapSpec = STANDARD_BOOTSTRAP,
) -> Comparison:
    """Compare two readings on the exams that both hold.

    Raises
    ------
    TableError
        They have no exam in common, or a common exam has no label or no patient.
    """
    of_b = set(b.exam_ids)
    common = [exam_id for exam_id in a.exam_ids if exam_id in of_b]
    if not common:
        raise TableError(
            f"{a.name} and {b.name} have no exam in common (for instance {a.exam_ids[0]} and {b.exam_ids[0]}); "
            "expected readings of the same exams under the same names"
        )
    reference = match_exams(common, labels)
    owners = None if patients is None else match_patients(common, patients)
    columns = [_content(reading.of(common)) for reading in (a, b)]
    order, cluster = canonical_order(np.column_stack([reference, *columns]), owners)
    reference, exam_ids = reference[order], [common[place] for place in order]
    first, second = a.of(exam_ids), b.of(exam_ids)
    independent = owners is None or len(set(owners)) == len(owners)
    right = [reference == reading.predicted for reading in (first, second)]
    same_side = [_DENSE[reference] == _DENSE[reading.predicted] for reading in (first, second)]
    tests = {
        "accuracy": mcnemar(right[0], right[1], independent=independent),
        "dense_accuracy": mcnemar(same_side[0], same_side[1], independent=independent),
    }
    return Comparison(
        a=a.name,
        b=b.name,
        n=len(common),
        patients=None if owners is None else len(set(owners)),
        only_in_a=len(a.exam_ids) - len(common),
        only_in_b=len(b.exam_ids) - len(common),
        figures=_differences(reference, (first, second), cluster, spec, tests if independent else {}),
        mcnemar=tests["accuracy"],
        mcnemar_dense=tests["dense_accuracy"],
        errors_a=errors(reference, first.predicted),
        errors_b=errors(reference, second.predicted),
        between=errors(first.predicted, second.predicted),
        bootstrap=spec.resamples,
        seed=spec.seed,
        confidence=spec.confidence,
    )


def mcnemar(a_right: NDArray[np.bool_], b_right: NDArray[np.bool_], *, independent: bool = True) -> McNemar:
    """Count the exams, shapes (N,) and (N,), that only A or only B has right, and test if they are independent."""
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    discordant = only_a + only_b
    if not independent:
        return McNemar(only_a, only_b, nan)
    return McNemar(only_a, only_b, float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0)


def errors(reference: NDArray[np.intp], predicted: NDArray[np.intp]) -> Errors:
    """Count errors by their weight: shapes (N,), (N,)."""
    distance = np.abs(reference - predicted)
    flips = _DENSE[reference] != _DENSE[predicted]
    return Errors(int((distance > 0).sum()), int((distance > 1).sum()), int(flips.sum()))


def bootstrap_p_value(differences: Floats) -> float:
    """Compute the two-sided p value of a difference of 0 from its resamples, shape (B,); NaN without any."""
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return nan
    tails = 1 + np.minimum((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * tails / (len(defined) + 1)))


def p_text(p_value: float) -> str:
    """Write a p value for a sentence.

    >>> p_text(0.2301), p_text(0.00004)
    ('= 0.23', '< 0.001')
    """
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _content(reading: Reading) -> Floats:
    """The values that figures are computed from: scores, or categories where there are no scores."""
    return reading.predicted[:, np.newaxis].astype(np.float64) if reading.scores is None else reading.scores


def _figures(reference: NDArray[np.intp], reading: Reading, counts: Floats) -> dict[str, Floats]:
    if reading.scores is not None:
        figures = sample_figures(reference, reading.scores, counts)
    else:
        figures = confusion_figures(confusion_matrices(reference, reading.predicted, counts))
    return {name: figures[name] for name in COMPARED_FIGURES if name in figures}


def _differences(
    reference: NDArray[np.intp],
    readings: tuple[Reading, Reading],
    cluster: NDArray[np.intp],
    spec: BootstrapSpec,
    tests: Mapping[str, McNemar],
) -> dict[str, Difference]:
    def compute(counts: Floats) -> dict[tuple[str, str], Floats]:
        of_a, of_b = (_figures(reference, reading, counts) for reading in readings)
        values = {(name, "a"): value for name, value in of_a.items()} | {(name, "b"): of_b[name] for name in of_b}
        return values | {(name, "difference"): of_a[name] - of_b[name] for name in of_a.keys() & of_b.keys()}

    point, drawn = resample(compute, cluster, spec)
    differences = {}
    for name in COMPARED_FIGURES:
        values = point.get((name, "a"), nan), point.get((name, "b"), nan)
        draws = drawn.get((name, "difference"), np.zeros(0))
        reason = _reason(name, reference, readings, values)
        difference = with_interval(values[0] - values[1], draws, spec, n=len(cluster), reason=reason)
        if name in tests:
            differences[name] = Difference(*values, difference, tests[name].p_value, MCNEMAR)
        else:
            differences[name] = Difference(*values, difference, nan if reason else bootstrap_p_value(draws), BOOTSTRAP)
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
