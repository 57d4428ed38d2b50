"""Score tables: one row an exam and level, matched by exam and never by row order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.csv_rows import CsvRow, read_csv
from mammodensity.errors import TableError
from mammodensity.inputs import as_number
from mammodensity.outputs import write_csv
from mammodensity.scores import (
    BY_THE_NETWORK,
    FUSION_METHODS,
    POLICIES,
    ExamScores,
    fuse,
    fuse_views,
    score_problem,
)
from mammodensity.terms import DENSITY, FUSED_LEVELS, LEVELS, PROJECTIONS, TISSUE, Projection, Scale

_KEYS = ("exam_id", "projection")
_NOTES = ("views", "missing", "fusion")
_FUSED_WITHIN = 0.01  # tables of other programs may hold rounded scores
_OUTSIDE = 0.1  # of a category
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
        if set(self.scores) != set(LEVELS):
            raise TableError(f"scores must hold the levels {', '.join(LEVELS)}. Got {', '.join(self.scores)} instead.")
        require_rows(self.exam_ids, self.scores, self.scale)
        for level, missing in self.missing.items():
            if level not in FUSED_LEVELS or len(missing) != len(self.exam_ids):
                raise TableError(
                    f"missing must map right, left or subject to one entry per exam. Got {level} with {len(missing)} "
                    "instead."
                )


def require_rows(exam_ids: Sequence[str], scores: Mapping[str, NDArray[np.float64]], scale: Scale) -> None:
    """Raise ``TableError`` unless exams have distinct names, and each level has a row of scores for each of them."""
    if not exam_ids or len(set(exam_ids)) != len(exam_ids):
        raise TableError(
            "exam_ids must be distinct and at least one. "
            f"Got {len(set(exam_ids))} names for {len(exam_ids)} exams instead."
        )
    shape = (len(exam_ids), len(scale))
    for level, values in scores.items():
        if values.shape != shape:
            raise TableError(f"scores of {level} must have shape {shape}. Got {values.shape} instead.")


def read_score_table(path: Path, method: str | None = None) -> ScoreTable:
    """Read a score table: columns exam_id, projection, A, B, C, D (or F, G, D) and, if it has them, views and missing.

    ``projection`` is one of `LEVELS`. Blank scores mean "not given". Where an exam has no row for a breast or the
    subject, it is fused by the mean if all of its projections are there, and is not given otherwise. With a
    ``method``, rows of breasts and subjects are passed over and fused anew by it.

    Raises
    ------
    TableError
        The file cannot be read, lacks columns or rows, or a row has an unknown projection, repeats another, does not
        hold scores from 0 to 1 that sum to 1, or contradicts the rows of its views. The message names file and line.
    """
    rows = read_csv(path, (*_KEYS, *DENSITY), (*_KEYS, *TISSUE))
    scale = DENSITY if set(DENSITY) <= set(rows.columns) else TISSUE
    exam_ids: dict[str, int] = {}
    records: dict[tuple[str, str], tuple[CsvRow, list[float], tuple[Projection, ...]]] = {}
    for row in rows:
        exam_id, level = row.needed("exam_id", "the name of an exam"), row["projection"]
        if level not in LEVELS:
            raise row.error(f"found projection {level!r}, expected one of {', '.join(LEVELS)}")
        if (exam_id, level) in records:
            first = records[exam_id, level][0].line
            raise row.error(f"exam {exam_id} has a second row for {level}, expected one (the first: {first})")
        exam_ids.setdefault(exam_id, len(exam_ids))
        records[exam_id, level] = (row, parse_scores(row, scale), _parse_views(row, "missing"))
    if method is not None:
        records = {key: record for key, record in records.items() if key[1] not in FUSED_LEVELS}

    scores = {level: np.full((len(exam_ids), len(scale)), np.nan) for level in LEVELS}
    missing: dict[str, list[tuple[Projection, ...]]] = {level: [()] * len(exam_ids) for level in FUSED_LEVELS}
    for (exam_id, level), (_, values, absent) in records.items():
        scores[level][exam_ids[exam_id]] = values
        if level in FUSED_LEVELS:
            missing[level][exam_ids[exam_id]] = absent
    _require_agreement({key: row for key, (row, _, _) in records.items()}, exam_ids, scores)
    for level, fused in fuse_levels(scores, method or "mean").items():
        lacking = [index for exam_id, index in exam_ids.items() if (exam_id, level) not in records]
        scores[level][lacking] = fused[lacking]
    if all(np.isnan(values).all() for values in scores.values()):
        which = "every score" if method is None else "every score of a single view"
        raise TableError(f"{path}: {which} is blank or absent, expected scores of at least one exam")
    return ScoreTable(tuple(exam_ids), scores, {level: tuple(notes) for level, notes in missing.items()}, scale)


def write_score_table(path: Path, exams: Iterable[ExamScores]) -> None:
    """Write seven rows per exam (`LEVELS`) that `read_score_table` reads back to the last bit.

    Columns exam_id, projection, A, B, C, D (or F, G, D), views, missing, fusion. Views are projection names separated
    by spaces; fusion says how the scores of a breast or subject were made of them. Scores not given are blank. A column
    percent_density follows where the model measures it.

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
    names: set[str] = set()
    for exam in exams:
        exam_id = exam.exam_id
        if not exam_id or exam_id != exam_id.strip() or exam_id in names:
            raise TableError(
                f"cannot write {path}: exam id {exam_id!r} is blank, repeated or has spaces around it; expected "
                "distinct names"
            )
        names.add(exam_id)
        rows.extend(_exam_rows(exam, scale))
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
        value = as_number(row[letter])
        if value is None:
            raise row.error(f"found {row[letter]!r} in column {letter}, expected a number from 0 to 1 (or all blank)")
        values.append(value)
    problem = score_problem(values)
    if problem:
        raise row.error(problem)
    return values


def _parse_views(row: CsvRow, column: str) -> tuple[Projection, ...]:
    names = row[column].split()
    unknown = [name for name in names if name not in PROJECTIONS]
    if unknown:
        raise row.error(f"found {unknown[0]!r} in column {column}, expected names among {', '.join(PROJECTIONS)}")
    return tuple(Projection(name) for name in names)


def _require_agreement(
    rows: Mapping[tuple[str, str], CsvRow], exam_ids: Mapping[str, int], scores: Mapping[str, NDArray[np.float64]]
) -> None:
    """Raise ``TableError`` where scores of a breast or subject cannot come from those of its views.

    A row that states its fusion must hold what this makes of the views; that of a joint network is its own, and is
    not checked. Without such a statement any fusion will do, and so will scores between those of the views.
    """
    groups: dict[tuple[str, tuple[Projection, ...], str], list[str]] = defaultdict(list)
    for (exam_id, level), row in rows.items():
        exam = exam_ids[exam_id]
        if level not in FUSED_LEVELS or np.isnan(scores[level][exam]).any():
            continue
        views = [view for view in FUSED_LEVELS[level] if not np.isnan(scores[view][exam]).any()]
        used, absent = _parse_views(row, "views"), _parse_views(row, "missing")
        blank = [view for view in used if view not in views and (exam_id, view) in rows]
        for view in (*blank, *(view for view in absent if view in views)):
            raise row.error(f"the views of {level} contradict the row of {view}; make the table again")
        if row["fusion"] not in ("", BY_THE_NETWORK, *FUSION_METHODS):
            raise row.error(f"found fusion {row['fusion']!r}, expected one of {', '.join(FUSION_METHODS)}, or joint")
        if views and {*views, *absent} == set(FUSED_LEVELS[level]) and row["fusion"] != BY_THE_NETWORK:
            groups[level, tuple(views), row["fusion"]].append(exam_id)
    for (level, used, fusion), names in groups.items():
        exams = [exam_ids[name] for name in names]
        of_views, fused = {view: scores[view][exams] for view in used}, scores[level][exams]
        differences = [
            np.abs(fuse_views(of_views, method, policy) - fused).max(axis=1)  # (N,)
            for method in ([fusion] if fusion else FUSION_METHODS)
            for policy in POLICIES
        ]
        agree = np.min(differences, axis=0) <= _FUSED_WITHIN
        if not fusion:
            positions = np.arange(fused.shape[1])
            expected = np.stack([values @ positions for values in of_views.values()])  # (V, N)
            away = np.maximum(expected.min(axis=0) - fused @ positions, fused @ positions - expected.max(axis=0))
            agree |= away <= _OUTSIDE
        if not agree.all():
            row = rows[names[int(np.argmin(agree))], level]
            raise row.error(
                f"the scores of {level} contradict those of its views ({', '.join(used)}); make the table again, or "
                "use --fusion to fuse the views anew"
            )


def _exam_rows(exam: ExamScores, scale: Scale) -> Iterator[dict[str, str]]:
    for level in LEVELS:
        if level in FUSED_LEVELS:
            fused = exam.fused[level]
            views, missing = fused.views, fused.missing
            scores: NDArray[np.floating] | None = fused.scores
        else:
            view = Projection(level)
            scores = exam.projections.get(view)
            views, missing = ((), (view,)) if scores is None else ((view,), ())
        values = [] if scores is None else scores.tolist()
        if scores is not None:
            wrong_number = f"found {len(values)} scores, expected {len(scale)}" if len(values) != len(scale) else None
            if problem := score_problem(values) or wrong_number:
                raise TableError(f"cannot write scores of exam {exam.exam_id}, {level}: {problem}")
        row = {"exam_id": exam.exam_id, "projection": level, "views": " ".join(views), "missing": " ".join(missing)}
        row |= dict(zip(scale, map(repr, map(float, values)), strict=False))  # blank where there are none
        if level in FUSED_LEVELS and values:
            row["fusion"] = exam.fusion
        if level in exam.percent_density:
            row[_DENSITY] = f"{exam.percent_density[level]:.2f}"
        yield row
