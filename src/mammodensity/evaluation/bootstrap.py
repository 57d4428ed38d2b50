"""The bootstrap: patients drawn with replacement, each with all of her exams.

Exams of one patient resemble each other, so that exams drawn one by one would promise too much. Where patients are not
known, each exam counts as a patient of its own.

References
----------
Davison, A. C., Hinkley, D. V. (1997). Bootstrap Methods and their Application, section 3.8 (whole clusters are drawn).
Efron, B., Tibshirani, R. (1993). An Introduction to the Bootstrap, chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError, TableError

Floats = NDArray[np.float64]

_CHUNK = 2**19  # numbers in one array of resamples: a few such arrays of 4 MB stay in the processor's cache


@dataclass(frozen=True)
class BootstrapSpec:
    """How intervals are made: number of resamples (0 for no intervals), seed, and coverage.

    Raises
    ------
    OptionError
        A number of resamples below 0, or a confidence that is no share.
    """

    number: int = 2000
    seed: int = 1
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.number < 0:
            raise OptionError(f"bootstrap must be 0 or more resamples. Got {self.number} instead.")
        if not 0 < self.confidence < 1:
            raise OptionError(f"confidence must be between 0 and 1. Got {self.confidence} instead.")


def canonical_order(rows: Floats, patients: Sequence[str] | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Put exams in an order that depends neither on how they came nor on what patients are called.

    Parameters
    ----------
    rows
        Shape (N, F): all that figures are made from, the first column counting most; no NaN.
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
    grouped = sorted(exams.values(), key=lambda of_one: [int(content[exam]) for exam in of_one])
    order = np.array([exam for of_one in grouped for exam in of_one], dtype=np.intp)
    return order, np.repeat(np.arange(len(grouped)), [len(of_one) for of_one in grouped])


def resamples(cluster: NDArray[np.intp], spec: BootstrapSpec) -> Iterator[Floats]:
    """Draw the resamples: chunks of shape (B, N), how often each exam is in each resample."""
    if not len(cluster):
        return
    generator = np.random.default_rng(spec.seed)
    patients = int(cluster[-1]) + 1
    step = max(1, _CHUNK // len(cluster))
    for start in range(0, spec.number, step):
        size = min(step, spec.number - start)
        drawn = generator.integers(patients, size=(size, patients)) + patients * np.arange(size)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=size * patients).reshape(size, patients).astype(np.float64)
        yield counts if patients == len(cluster) else counts[:, cluster]


def percentile_interval(point: float, values: Floats, confidence: float) -> tuple[float, float] | None:
    """Interval of a figure from its resamples; None where the figure, or each of them, is undefined."""
    defined = values[~np.isnan(values)]
    if isnan(point) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
