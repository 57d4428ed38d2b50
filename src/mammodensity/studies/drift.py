"""Predictions over time: shares of A to D and of dense, confidence and flags by period; two periods compared.

Intervals and tests: `mammodensity.studies.proportions`; of the mean confidence a bootstrap over patients.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.csv_rows import read_csv
from mammodensity.errors import OptionError, TableError, require_choice
from mammodensity.evaluation.agreement import Floats
from mammodensity.evaluation.bootstrap import (
    STANDARD_BOOTSTRAP,
    BootstrapSpec,
    Figure,
    canonical_order,
    plain,
    resample,
    with_interval,
)
from mammodensity.evaluation.labels import ExamColumns, look_up, match_patients
from mammodensity.studies.compare import p_text
from mammodensity.studies.proportions import difference_interval, permutation_p_values, share
from mammodensity.studies.readings import FEW, Reading
from mammodensity.terms import CATEGORIES, DENSITY, RESEARCH_USE_ONLY

PERIODS = ("month", "quarter", "year")
DATE_COLUMNS = ("study_date", "exam_date", "date")
_PERMUTATIONS = 4999
_DENSE = np.array(DENSITY.dense)
_DATE = re.compile(r"(\d{4})(?:-?(\d{2})(?:-?(\d{2}))?)?(?:[T ].*)?", re.ASCII)


@dataclass(frozen=True)
class PeriodFigures:
    """Predictions of one period. ``mean_confidence`` is None for a reader's table, ``flags`` empty without flags."""

    period: str
    n: int
    patients: int
    shares: dict[str, Figure]
    dense: Figure
    mean_confidence: Figure | None
    flags: dict[str, Figure]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        mean = self.mean_confidence
        return {
            "period": self.period,
            "n": self.n,
            "patients": self.patients,
            "shares": {name: _share_values(share) for name, share in self.shares.items()},
            "dense": _share_values(self.dense),
            "mean_confidence": mean and mean.value,
            "mean_confidence_interval": mean and plain(mean.interval),
            "flags": {name: _share_values(share) for name, share in self.flags.items()},
            "warnings": list(self.warnings),
        }


def _share_values(share: Figure) -> dict[str, Any]:
    return {"count": round(share.value * share.n), "value": share.value, "interval": plain(share.interval)}


@dataclass(frozen=True)
class PeriodComparison:
    """The second period against the first: differences (second less first) with intervals, and permutation p-values.

    ``p_value`` is of the shares of A to D together, ``p_values`` of dense, confidence and each flag.
    """

    first: str
    second: str
    differences: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    p_value: float
    p_values: dict[str, float]
    permutations: int
    dense_first: float
    dense_second: float
    confidence: float

    @property
    def summary(self) -> str:
        """The result in plain words."""
        low, high = (100 * end for end in self.intervals["dense"])
        sure = self.p_value < 1 - self.confidence
        change = "differ more than chance explains" if sure else "differ no more than chance explains"
        return (
            f"From {self.first} to {self.second} the share of dense exams went from {self.dense_first:.1%} to "
            f"{self.dense_second:.1%}, a change of {100 * self.differences['dense']:+.1f} points "
            f"({self.confidence:.0%} interval {low:+.1f} to {high:+.1f}). "
            f"The shares of A to D {change} (permutation test, p {p_text(self.p_value)})."
        )


@dataclass(frozen=True)
class Drift:
    """Every period in order; ``comparison`` where two were asked for.

    ``not_dated`` exams have a blank date and are left out. ``patients_known`` is False where each exam counts as a
    patient of its own.
    """

    period: str
    periods: tuple[PeriodFigures, ...]
    comparison: PeriodComparison | None
    not_dated: int
    patients_known: bool
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON knows, with the summary of a comparison."""
        summary = {} if self.comparison is None else {"summary": self.comparison.summary}
        return {**summary, **plain(vars(self)), "note": RESEARCH_USE_ONLY}


def date_column(columns: ExamColumns) -> str:
    """Find the column of the dates by its name.

    Raises
    ------
    TableError
        None has a name that says so.
    """
    column = next((name for name in DATE_COLUMNS if name in columns.names), None)
    if column is None:
        raise TableError(
            f"{columns.path} has no column {', '.join(DATE_COLUMNS)}; found {', '.join(columns.names)}; name the "
            "column of the dates with --date"
        )
    return column


def period_of(text: str, period: str) -> str | None:
    """Find the month, quarter or year of a date such as 2024-03-15, 20240315 or 2024-03; None if it is no date.

    >>> period_of("2024-03-15", "quarter"), period_of("20241101", "month"), period_of("2024", "month")
    ('2024-Q1', '2024-11', None)
    """
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day = match.groups()
    try:
        date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return None
    if period == "year":
        return str(year)
    if month is None:
        return None
    return f"{year}-Q{(int(month) + 2) // 3}" if period == "quarter" else f"{year}-{month}"


def read_flags(path: Path) -> dict[str, tuple[str, ...]]:
    """Read flags by exam from a table with a column ``flags`` (words, spaces or semicolons); none without one."""
    rows = read_csv(path)
    if not {"flags", "exam_id"} <= set(rows.columns):
        return {}
    flags: dict[str, dict[str, None]] = {}
    for row in rows:
        flags.setdefault(row["exam_id"], {}).update(dict.fromkeys(row["flags"].replace(";", " ").split()))
    return {exam_id: tuple(of_exam) for exam_id, of_exam in flags.items()}


def drift(
    reading: Reading,
    dates: Mapping[str, str],
    *,
    period: str = "month",
    compare: tuple[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
    flags: Mapping[str, Sequence[str]] | None = None,
    spec: BootstrapSpec = STANDARD_BOOTSTRAP,
) -> Drift:
    """Measure a reading by period of the exams' dates.

    Raises
    ------
    OptionError
        ``period`` is unknown, or a period to compare has no exam.
    TableError
        An exam is not among the dates, or has what is no date, or none is dated.
    """
    require_choice("--period", period, PERIODS)
    sample = _Sample.of(reading, _periods(reading, dates, period), patients, flags or {})
    names = sorted({name for name in sample.periods if name})
    if not names:
        raise TableError("every date is blank, expected the date of at least one exam")
    if compare is not None and compare[0] == compare[1]:
        raise OptionError(f"--compare needs two different periods. Got {compare[0]!r} twice instead.")
    for name in compare or ():
        if name not in names:
            raise OptionError(f"--compare: no exam is of {name!r}; there are {', '.join(names)}")
    figures = {name: _figures(name, sample.within(name), spec) for name in names}
    return Drift(
        period=period,
        periods=tuple(figures.values()),
        comparison=None if compare is None else _compare(sample, figures[compare[0]], figures[compare[1]], spec),
        not_dated=sum(not name for name in sample.periods),
        patients_known=patients is not None,
        confidence=spec.confidence,
    )


@dataclass(frozen=True, eq=False)
class _Sample:
    periods: list[str]
    predicted: NDArray[np.intp]
    confidence: Floats | None
    owners: list[str]
    flags: dict[str, NDArray[np.bool_]]

    @staticmethod
    def of(
        reading: Reading,
        periods: list[str],
        patients: Mapping[str, str] | None,
        flags: Mapping[str, Sequence[str]],
    ) -> _Sample:
        ids = reading.exam_ids
        names = sorted({flag for exam_id in ids for flag in flags.get(exam_id, ())})
        return _Sample(
            periods,
            reading.predicted,
            None if reading.scores is None else reading.scores.max(axis=1),
            list(ids) if patients is None else match_patients(ids, patients),
            {name: np.array([name in flags.get(exam_id, ()) for exam_id in ids]) for name in names},
        )

    def within(self, period: str) -> _Sample:
        rows = [place for place, name in enumerate(self.periods) if name == period]
        return _Sample(
            [period] * len(rows),
            self.predicted[rows],
            None if self.confidence is None else self.confidence[rows],
            [self.owners[place] for place in rows],
            {name: holds[rows] for name, holds in self.flags.items()},
        )

    def sums(self, patients: Sequence[str]) -> Floats:
        """Sums (P, F + 1) by patient: exams, exams of A to D, dense, confidence, each flag."""
        place = {name: number for number, name in enumerate(patients)}
        owner = [place[name] for name in self.owners]
        columns = [np.ones(len(owner)), *np.eye(len(CATEGORIES))[self.predicted].T, _DENSE[self.predicted]]
        columns += [] if self.confidence is None else [self.confidence]
        columns += list(self.flags.values())
        return np.stack([np.bincount(owner, weights=column, minlength=len(place)) for column in columns], axis=1)


def _periods(reading: Reading, dates: Mapping[str, str], period: str) -> list[str]:
    advice = "add them, with a blank where the date is not known"
    texts = look_up(reading.exam_ids, dates, "are not in the table with the dates", advice)
    names = []
    for exam_id, text in zip(reading.exam_ids, texts, strict=True):
        name = period_of(text, period) if text else ""
        if name is None:
            raise TableError(
                f"exam {exam_id}: its date cannot be put into a {period}, expected YYYY-MM-DD, YYYYMMDD or YYYY-MM"
            )
        names.append(name)
    return names


def _figures(name: str, sample: _Sample, spec: BootstrapSpec) -> PeriodFigures:
    shares = {
        category.value: share(sample.predicted == category.index, sample.owners, spec.confidence)
        for category in CATEGORIES
    }
    mean = None
    if sample.confidence is not None:
        order, cluster = canonical_order(sample.confidence[:, np.newaxis], sample.owners)
        ordered = sample.confidence[order]
        _, drawn = resample(lambda counts: {"mean": counts @ ordered / counts.sum(axis=1)}, cluster, spec)
        mean = with_interval(float(sample.confidence.mean()), drawn["mean"], spec, n=len(order))
    patients = len(Counter(sample.owners))
    return PeriodFigures(
        period=name,
        n=len(sample.owners),
        patients=patients,
        shares=shares,
        dense=share(_DENSE[sample.predicted], sample.owners, spec.confidence),
        mean_confidence=mean,
        flags={flag: share(holds, sample.owners, spec.confidence) for flag, holds in sample.flags.items()},
        warnings=(f"only {patients} patients: too few to rely on",) if patients < FEW else (),
    )


def _compare(sample: _Sample, first: PeriodFigures, second: PeriodFigures, spec: BootstrapSpec) -> PeriodComparison:
    samples = sample.within(first.period), sample.within(second.period)
    # in an order of content, so that names of patients do not change what is drawn
    owners = sorted({*samples[0].owners, *samples[1].owners})
    sums = [period.sums(owners) for period in samples]
    order = np.lexsort(np.column_stack(sums).T)
    p_values = permutation_p_values(sums[0][order], sums[1][order], len(CATEGORIES), _PERMUTATIONS, spec.seed)
    pairs = {letter: (first.shares[letter], second.shares[letter]) for letter in first.shares}
    pairs["dense"] = (first.dense, second.dense)
    pairs |= {flag: (first.flags[flag], second.flags[flag]) for flag in first.flags}
    names = ["dense", *([] if sample.confidence is None else ["mean_confidence"]), *first.flags]
    differences = {name: after.value - before.value for name, (before, after) in pairs.items()}
    if first.mean_confidence is not None and second.mean_confidence is not None:
        differences["mean_confidence"] = second.mean_confidence.value - first.mean_confidence.value
    return PeriodComparison(
        first=first.period,
        second=second.period,
        differences=differences,
        intervals={name: difference_interval(*pair) for name, pair in pairs.items()},
        p_value=float(p_values[0]),
        p_values=dict(zip(names, map(float, p_values[1:]), strict=True)),
        permutations=_PERMUTATIONS,
        dense_first=first.dense.value,
        dense_second=second.dense.value,
        confidence=spec.confidence,
    )
