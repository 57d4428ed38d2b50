"""Score tables: one row an exam and level, matched by exam and never by row order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.csv_rows import CsvRow, read_csv
from mammodensity.errors import TableError
from mammodensity.outputs import write_csv
from mammodensity.scores import ExamScores, FusedScores, fuse
from mammodensity.terms import (
    DENSITY,
    FUSED_LEVELS,
    LEVELS,
    PROJECTIONS,
    TISSUE,
    Projection,
    Scale,
)

SUM_TOLERANCE = 1e-3
"""How far from 1 the scores of one row may sum."""


def score_problem(scores: Sequence[float]) -> str | None:
    """Say what is wrong with one row of scores, or None: each must be finite and not negative, all must sum to 1."""
    for score in scores:
        if not isfinite(score):
            return f"found a score of {score}, expected a number from 0 to 1"
        if score < 0:
            return f"found a negative score of {score:.6g}, expected a number from 0 to 1"
    total = sum(scores)
    if abs(total - 1) > SUM_TOLERANCE:
        return f"found scores that sum to {total:.6g}, expected 1 (within {SUM_TOLERANCE:g})"
    return None


_KEYS = ("exam_id", "projection")
_NOTES = ("views", "missing")
_DENSITY = "percent_density"


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of N exams at every level.

    ``scores`` maps each of `LEVELS` to float64 of shape (N, K), columns the categories of ``scale``, with a row of NaN
    where the scores are not given.
    ``missing`` maps a fused level to the projections that each exam's scores were fused without; a level without an
    entry was fused from all of its projections.

    Raises
    ------
    TableError
        Exam ids are empty or repeated, a level is absent or unknown, or an array does not have the shape (N, K) of the
        others.
    """

    exam_ids: tuple[str, ...]
    scores: dict[str, NDArray[np.float64]]
    missing: dict[str, tuple[tuple[Projection, ...], ...]] = field(default_factory=dict)
    scale: Scale = DENSITY

    def __post_init__(self) -> None:
        if not self.exam_ids or len(set(self.exam_ids)) != len(self.exam_ids):
            raise TableError(
                "exam_ids must be distinct and at least one. "
                f"Got {len(set(self.exam_ids))} names for {len(self.exam_ids)} exams instead."
            )
        if set(self.scores) != set(LEVELS):
            raise TableError(f"scores must hold the levels {', '.join(LEVELS)}. Got {', '.join(self.scores)} instead.")
        shape = (len(self.exam_ids), len(self.scale))
        for level, scores in self.scores.items():
            if scores.shape != shape:
                raise TableError(f"scores of {level} must have shape {shape}. Got {scores.shape} instead.")
        for level, missing in self.missing.items():
            if level not in FUSED_LEVELS or len(missing) != len(self.exam_ids):
                raise TableError(
                    f"missing must map right, left or subject to one entry per exam. Got {level} with {len(missing)} "
                    "instead."
                )


def read_score_table(path: Path, method: str | None = None) -> ScoreTable:
    """Read a score table: columns exam_id, projection, A, B, C, D (or F, G, D) and, if it has them, views and missing.

    ``projection`` is one of `LEVELS`. Blank scores mean "not given". Where an exam has no row for a breast or the
    subject, it is fused by the mean if all of its projections are there, and is not given otherwise. With a
    ``method``, rows of breasts and subjects are passed over and fused anew by it.

    Raises
    ------
    TableError
        The file cannot be read, lacks columns or rows, or a row has an unknown projection, repeats another, or does
        not hold scores from 0 to 1 that sum to 1. The message names file and line.
    """
    rows = read_csv(path, (*_KEYS, *DENSITY), (*_KEYS, *TISSUE))
    scale = DENSITY if set(DENSITY) <= set(rows.columns) else TISSUE
    exam_ids: dict[str, int] = {}
    found: dict[tuple[str, str], tuple[int, list[float], tuple[Projection, ...]]] = {}
    for row in rows:
        exam_id, level = row.needed("exam_id", "the name of an exam"), row["projection"]
        if level not in LEVELS:
            raise row.error(f"found projection {level!r}, expected one of {', '.join(LEVELS)}")
        if (exam_id, level) in found:
            first = found[exam_id, level][0]
            raise row.error(f"exam {exam_id} has a second row for {level}, expected one (the first: {first})")
        exam_ids.setdefault(exam_id, len(exam_ids))
        found[exam_id, level] = (row.line, parse_scores(row, scale), _parse_missing(row))
    if method is not None:
        found = {key: row for key, row in found.items() if key[1] not in FUSED_LEVELS}

    scores = {level: np.full((len(exam_ids), len(scale)), np.nan) for level in LEVELS}
    missing: dict[str, list[tuple[Projection, ...]]] = {level: [()] * len(exam_ids) for level in FUSED_LEVELS}
    for (exam_id, level), (_, values, absent) in found.items():
        scores[level][exam_ids[exam_id]] = values
        if level in FUSED_LEVELS:
            missing[level][exam_ids[exam_id]] = absent
    for level, fused in fuse_levels(scores, method or "mean").items():
        lacking = [index for exam_id, index in exam_ids.items() if (exam_id, level) not in found]
        scores[level][lacking] = fused[lacking]
    if all(np.isnan(values).all() for values in scores.values()):
        which = "every score" if method is None else "every score of a single view"
        raise TableError(f"{path}: {which} is blank or absent, expected scores of at least one exam")
    return ScoreTable(tuple(exam_ids), scores, {level: tuple(notes) for level, notes in missing.items()}, scale)


def write_score_table(path: Path, exams: Iterable[ExamScores]) -> None:
    """Write seven rows per exam (`LEVELS`) that `read_score_table` reads back to the last bit.

    Columns exam_id, projection, A, B, C, D (or F, G, D), views, missing; the last two are projection names separated
    by spaces.
    Scores not given are blank. A column percent_density follows where the model measures it.

    Raises
    ------
    TableError
        An exam id is blank or repeated, or scores are not of one scale, or not numbers from 0 to 1 that sum to 1.
    OutputError
        The file cannot be written.
    """
    exams = list(exams)
    scale = next((exam.scale for exam in exams if exam.projections), DENSITY)
    columns = (*_KEYS, *scale, *_NOTES)
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    for exam in exams:
        exam_id = exam.exam_id
        if not exam_id or exam_id != exam_id.strip() or exam_id in seen:
            raise TableError(
                f"cannot write {path}: exam id {exam_id!r} is blank, repeated or has spaces around it; expected "
                "distinct names"
            )
        seen.add(exam_id)
        rows.extend(_exam_rows(path, exam, scale))
    measured = any(_DENSITY in row for row in rows)
    write_csv(Path(path), (*columns, _DENSITY) if measured else columns, rows)


def score_table(exams: Iterable[ExamScores], method: str | None = None) -> ScoreTable:
    """Make the table that `read_score_table` reads back from what `write_score_table` writes of these exams."""
    exams = list(exams)
    scale = next((exam.scale for exam in exams if exam.projections), DENSITY)
    scores = {level: np.full((len(exams), len(scale)), np.nan) for level in LEVELS}
    for place, exam in enumerate(exams):
        for view, values in exam.projections.items():
            scores[view][place] = values
        for level, fused in exam.fused.items():
            if fused.scores is not None and not method:
                scores[level][place] = fused.scores
    names = tuple(exam.exam_id for exam in exams)
    if method:
        return ScoreTable(names, scores | fuse_levels(scores, method), scale=scale)
    missing = {level: tuple(exam.fused[level].missing for exam in exams) for level in FUSED_LEVELS}
    return ScoreTable(names, scores, missing, scale)


def fuse_levels(scores: Mapping[str, NDArray[np.float64]], method: str) -> dict[str, NDArray[np.float64]]:
    """Fuse the (N, K) scores of the projections into right, left and subject; NaN rows where one is not given."""
    return {
        level: fuse(np.stack([scores[view] for view in views], axis=1), method)  # (N, V, K) -> (N, K)
        for level, views in FUSED_LEVELS.items()
    }


def parse_scores(row: CsvRow, scale: Scale = DENSITY) -> list[float]:
    """Read the scores of a row, in the order of ``scale``; NaN where all are blank.

    Raises
    ------
    TableError
        They are no scores from 0 to 1 that sum to 1.
    """
    if not any(row[letter] for letter in scale):
        return [np.nan] * len(scale)
    values = []
    for letter in scale:
        try:
            values.append(float(row[letter]))
        except ValueError as error:
            raise row.error(
                f"found {row[letter]!r} in column {letter}, expected a number from 0 to 1 (or all blank)"
            ) from error
    problem = score_problem(values)
    if problem:
        raise row.error(problem)
    return values


def _parse_missing(row: CsvRow) -> tuple[Projection, ...]:
    names = row["missing"].split()
    unknown = [name for name in names if name not in PROJECTIONS]
    if unknown:
        raise row.error(f"found {unknown[0]!r} in column missing, expected names among {', '.join(PROJECTIONS)}")
    return tuple(Projection(name) for name in names)


def _exam_rows(path: Path, exam: ExamScores, scale: Scale) -> Iterator[dict[str, str]]:
    for view in PROJECTIONS:
        present = view in exam.projections
        alone = FusedScores(
            scores=np.asarray(exam.projections[view], dtype=np.float64) if present else None,
            views=(view,) if present else (),
            missing=() if present else (view,),
        )
        yield _row(path, exam, view, alone, scale)
    for level in FUSED_LEVELS:
        yield _row(path, exam, level, exam.fused[level], scale)


def _row(path: Path, exam: ExamScores, level: str, given: FusedScores, scale: Scale) -> dict[str, str]:
    values = None if given.scores is None else [float(score) for score in given.scores]
    if values is not None:
        problem = score_problem(values)
        if problem or len(values) != len(scale):
            problem = problem or f"found {len(values)} scores, expected {len(scale)}"
            raise TableError(f"cannot write {path}: exam {exam.exam_id}, {level}: {problem}")
    texts = [""] * len(scale) if values is None else [repr(value) for value in values]
    cells = (exam.exam_id, str(level), *texts, " ".join(given.views), " ".join(given.missing))
    row = dict(zip((*_KEYS, *scale, *_NOTES), cells, strict=True))
    if level in exam.percent_density:
        row[_DENSITY] = f"{exam.percent_density[level]:.2f}"
    return row
