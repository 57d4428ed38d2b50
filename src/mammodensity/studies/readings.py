"""One reading of some exams: by a model, with scores, or by a reader, with categories only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.csv_rows import read_csv
from mammodensity.errors import TableError
from mammodensity.evaluation.agreement import Floats
from mammodensity.evaluation.infn_tables import read_infn_tables
from mammodensity.evaluation.labels import read_densities
from mammodensity.evaluation.score_tables import parse_scores, read_score_table
from mammodensity.terms import CATEGORIES

FEW = 30
"""Exams or patients, below which a 95 % interval of a share is wider than a third of the whole range."""


def few_warnings(exams: int, patients: int | None) -> tuple[str, ...]:
    """A line where figures rest on too few exams or patients."""
    if exams < FEW:
        return (f"only {exams} exam{'' if exams == 1 else 's'}: too few to rely on",)
    if patients is not None and patients < FEW:
        return (f"only {patients} patient{'' if patients == 1 else 's'}: too few to rely on",)
    return ()


@dataclass(frozen=True, eq=False)
class Reading:
    """Categories, and scores where there are some, of N exams.

    ``predicted`` has shape (N,), positions of categories; ``scores`` (N, 4), or is None for a reader. ``not_given``
    exams of the table have no category and are left out.
    """

    name: str
    exam_ids: tuple[str, ...]
    predicted: NDArray[np.intp]
    scores: Floats | None = None
    not_given: int = 0

    def of(self, exam_ids: Sequence[str]) -> Reading:
        """The reading of these exams, in their order; each must be in it."""
        place = {exam_id: number for number, exam_id in enumerate(self.exam_ids)}
        rows = np.array([place[exam_id] for exam_id in exam_ids], dtype=np.intp)
        scores = None if self.scores is None else self.scores[rows]
        return replace(self, exam_ids=tuple(exam_ids), predicted=self.predicted[rows], scores=scores)


def read_reading(path: Path) -> Reading:
    """Read a score table, a table of results, a folder with INFN's files, or a reader's table with ``density``.

    Of scores the level ``subject`` is taken, its category that of the highest score, also where a result abstains.

    Raises
    ------
    TableError
        The file is none of these, is damaged, or gives no exam a category.
    """
    path = Path(path)
    if path.is_dir():
        return _of_scores(path.name, *_exam_scores(path))
    columns = read_csv(path).columns
    if {"projection", *CATEGORIES} <= set(columns):
        return _of_scores(path.stem, *_exam_scores(path))
    if {"exam_id", "most_likely", *CATEGORIES} <= set(columns):
        return _of_results(path)
    if "density" not in columns:
        raise TableError(
            f"{path}, line 1: found the columns {', '.join(columns)}, expected, separated by commas, a score table "
            "(exam_id, projection, A, B, C, D), a table of results (predict --results) or a reader's table (exam_id, "
            "density)"
        )
    labels = read_densities(path)
    return Reading(path.stem, tuple(labels), np.array([category.index for category in labels.values()], dtype=np.intp))


def read_readings(paths: Sequence[Path]) -> list[Reading]:
    """Read several, under names that differ: the files' stems, or their paths where stems repeat.

    Raises
    ------
    TableError
        A file cannot be read, or is given twice.
    """
    twice = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if twice:
        raise TableError(f"{twice[0]} is given more than once; expected another file for each reading")
    readings = [read_reading(path) for path in paths]
    count = Counter(reading.name for reading in readings)
    return [
        replace(reading, name=reading.name if count[reading.name] == 1 else str(path))
        for reading, path in zip(readings, paths, strict=True)
    ]


def _exam_scores(path: Path) -> tuple[tuple[str, ...], Floats]:
    table = read_infn_tables(path) if path.is_dir() else read_score_table(path)
    if np.isnan(table.scores["subject"]).all():
        raise TableError(f"{path} gives no whole exam scores; expected all four projections, or rows named subject")
    return table.exam_ids, table.scores["subject"]


def _of_results(path: Path) -> Reading:
    """The scores of exams in a table of ``predict --results``, calibrated if they were."""
    ids, scores = [], []
    for row in read_csv(path, ("exam_id", *CATEGORIES)):
        ids.append(row.needed("exam_id", "the name of an exam"))
        scores.append(parse_scores(row))
    if len(set(ids)) != len(ids):
        raise TableError(f"{path}: an exam has two rows; expected one row an exam")
    reading = _of_scores(path.stem, tuple(ids), np.array(scores))
    if not reading.exam_ids:
        raise TableError(f"{path} gives no exam scores")
    return reading


def _of_scores(name: str, exam_ids: tuple[str, ...], scores: Floats) -> Reading:
    scored = np.flatnonzero(~np.isnan(scores).any(axis=1))
    kept = tuple(exam_ids[exam] for exam in scored)
    return Reading(name, kept, scores[scored].argmax(axis=1), scores[scored], len(exam_ids) - len(kept))
