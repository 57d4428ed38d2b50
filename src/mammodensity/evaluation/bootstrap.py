"""Figures with bootstrap intervals: patients are drawn with replacement, each with all of her exams.

Exams of one patient resemble each other, so intervals of exams drawn one by one would be too narrow. Where patients are
not known, each exam counts as a patient.

A figure is computed for B samples at once. A sample is a row of counts, shape (N,): how often each exam is in it; all
exams once are a row of ones. `scipy.stats.bootstrap` draws exams one by one and computes one figure at a time.

References
----------
Davison, A. C., Hinkley, D. V. (1997). Bootstrap Methods and their Application, section 3.8 (whole clusters are drawn).
Efron, B., Tibshirani, R. (1993). An Introduction to the Bootstrap, chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from math import isnan, nan
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import TableError
from mammodensity.settings import Field, settings

Floats = NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)

_CHUNK = 2**19  # numbers in one array of resamples: a few such arrays of 4 MB stay in the processor's cache


@settings
class BootstrapSpec:
    """Settings of intervals: number of resamples (0 for no intervals), seed, and coverage."""

    resamples: Annotated[int, Field(ge=0)] = 2000
    seed: int = 1
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


STANDARD_BOOTSTRAP = BootstrapSpec()


@dataclass(frozen=True)
class Figure:
    """A figure of ``n`` exams with its interval.

    ``value`` is NaN where the figure is undefined, and ``reason`` says why. ``low`` and ``high`` are NaN without an
    interval: no bootstrap was asked for, or the figure is undefined, also if only in every resample.
    ``undefined_resamples`` were left out of the interval.
    """

    value: float
    low: float = nan
    high: float = nan
    n: int = 0
    reason: str | None = None
    undefined_resamples: int = 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None without an interval."""
        return None if isnan(self.low) else (self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return the value, its interval and the reason why it is undefined as JSON values."""
        return {"value": plain(self.value), "interval": plain(self.interval), "undefined": self.reason}


def measure(
    compute: Callable[[Floats], Mapping[Name, Floats]],
    cluster: NDArray[np.intp],
    spec: BootstrapSpec,
    reason: Callable[[Name], str | None] = lambda _: None,
) -> dict[Name, Figure]:
    """Compute figures of all exams, each with its interval.

    Parameters
    ----------
    compute
        Takes counts of shape (B, N) and returns values of shape (B,) by name.
    cluster
        The patient of each exam, as `canonical_order` numbers them.
    reason
        Says why a figure is undefined.
    """
    point, drawn = resample(compute, cluster, spec)
    return {
        name: with_interval(value, drawn[name], spec, n=len(cluster), reason=reason(name) if isnan(value) else None)
        for name, value in point.items()
    }


def resample(
    compute: Callable[[Floats], Mapping[Name, Floats]], cluster: NDArray[np.intp], spec: BootstrapSpec
) -> tuple[dict[Name, float], dict[Name, Floats]]:
    """Compute figures of all exams, and of the resamples: shape (B,) by name, see `measure`."""
    point = {name: float(values[0]) for name, values in compute(np.ones((1, len(cluster)))).items()}
    chunks = [compute(counts) for counts in resamples(cluster, spec)]
    return point, {name: np.concatenate([chunk[name] for chunk in chunks] or [np.zeros(0)]) for name in point}


def with_interval(value: float, drawn: Floats, spec: BootstrapSpec, *, n: int, reason: str | None = None) -> Figure:
    """Give a figure the percentile interval of its resamples, shape (B,)."""
    defined = drawn[~np.isnan(drawn)]
    low, high = nan, nan
    if not isnan(value) and len(defined):
        ends = np.quantile(defined, [(1 - spec.confidence) / 2, (1 + spec.confidence) / 2])
        low, high = float(ends[0]), float(ends[1])
    return Figure(value, low, high, n, reason, len(drawn) - len(defined))


def canonical_order(rows: Floats, patients: Sequence[str] | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Put exams in an order that depends neither on their order in the table nor on the names of patients.

    Parameters
    ----------
    rows
        Shape (N, F): everything that figures are computed from, the first column counting most; no NaN.
    patients
        The patient of each of the N exams, or None where they are not known.

    Returns
    -------
    ``order``, shape (N,), and ``cluster``, shape (N,): the number of the patient of each exam in that order.

    Raises
    ------
    TableError
        ``patients`` has another length.
    """
    if patients is None:
        return np.lexsort(rows.T[::-1]), np.arange(len(rows))
    if len(patients) != len(rows):
        raise TableError(f"patients must name one for each of {len(rows)} exams. Got {len(patients)} instead.")
    content = np.unique(rows, axis=0, return_inverse=True)[1].ravel() if len(rows) else np.zeros(0, dtype=np.intp)
    exams: dict[str, list[int]] = {}
    for exam in np.argsort(content, kind="stable"):
        exams.setdefault(patients[exam], []).append(int(exam))
    grouped = sorted(exams.values(), key=lambda group: [int(content[exam]) for exam in group])
    order = np.array([exam for group in grouped for exam in group], dtype=np.intp)
    return order, np.repeat(np.arange(len(grouped)), [len(group) for group in grouped])


def resamples(cluster: NDArray[np.intp], spec: BootstrapSpec) -> Iterator[Floats]:
    """Draw the resamples: chunks of shape (B, N), how often each exam is in each resample."""
    if not len(cluster):
        return
    generator = np.random.default_rng(spec.seed)
    patients = int(cluster[-1]) + 1
    step = max(1, _CHUNK // len(cluster))
    for start in range(0, spec.resamples, step):
        size = min(step, spec.resamples - start)
        drawn = generator.integers(patients, size=(size, patients)) + patients * np.arange(size)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=size * patients).reshape(size, patients).astype(np.float64)
        yield counts if patients == len(cluster) else counts[:, cluster]


def plain(value: Any) -> Any:
    """Turn a value into what JSON has: lists for tuples, null for NaN, named entries for dataclasses."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        return plain(vars(value))
    return None if isinstance(value, float) and isnan(value) else value
