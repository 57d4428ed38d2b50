"""INFN's prediction files: four text tables without a header, whose rows only their order identifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.csv_rows import read_csv, read_text
from mammodensity.errors import TableError
from mammodensity.evaluation.score_tables import ScoreTable, fuse_levels, require_rows
from mammodensity.inputs import as_number
from mammodensity.outputs import write_csv, write_text
from mammodensity.scores import score_problem
from mammodensity.terms import DENSITY, PROJECTIONS, DensityCategory, Projection

INFN_FILES: dict[Projection, str] = {
    view: f"predictions_{view.view_position}{view.laterality}.txt".lower() for view in PROJECTIONS
}
ROWS_FILE = "rows.csv"
"""Written with the four files: the exam of each row."""


def read_infn_tables(folder: Path, method: str = "mean") -> ScoreTable:
    """Read the four prediction files of INFN and fuse them.

    Exam ids are the row numbers as text, from ``"0"``; where `write_infn_tables` left a ``rows.csv``, its exam ids.

    Raises
    ------
    TableError
        A file is absent, empty or of another length than the first, or a row does not hold four scores from 0 to 1
        that sum to 1, or ``rows.csv`` does not number the rows.
    OptionError
        ``method`` is not a fusion method.
    """
    folder = Path(folder)
    absent = [name for name in INFN_FILES.values() if not (folder / name).is_file()]
    if absent:
        raise TableError(f"{folder} lacks {', '.join(absent)}; expected {', '.join(INFN_FILES.values())}")
    scores = {view.value: _read_file(folder / name) for view, name in INFN_FILES.items()}
    first = PROJECTIONS[0]
    length = len(scores[first])
    for view, name in INFN_FILES.items():
        if len(scores[view]) != length:
            raise TableError(
                f"{folder / name} has {len(scores[view])} rows and {folder / INFN_FILES[first]} has {length}; "
                "expected one row per exam in each, in the same order"
            )
    rows_path = folder / ROWS_FILE
    exam_ids = _read_exam_ids(rows_path, length) if rows_path.is_file() else tuple(map(str, range(length)))
    return ScoreTable(exam_ids, scores | fuse_levels(scores, method))


def write_infn_tables(
    folder: Path,
    exam_ids: Sequence[str],
    scores: Mapping[Projection, NDArray[np.floating]],
    labels: Mapping[str, DensityCategory] | None = None,
) -> None:
    """Write INFN's four files, and ``rows.csv`` that names the exam (and, with ``labels``, density) of each row.

    Parameters
    ----------
    folder
        Made if absent; each file is written whole or not at all.
    exam_ids
        N distinct names, one per row.
    scores
        Shape (N, 4) for each of the four projections; a row of NaN means not given.
    labels
        Density by exam id; an exam without one gets a blank.

    Raises
    ------
    TableError
        A projection is absent altogether or for an exam (the files cannot express it), shapes differ, an exam id is
        repeated, or a row is not four scores from 0 to 1 that sum to 1.
    OutputError
        A file cannot be written.
    """
    folder = Path(folder)
    doing = f"cannot write the prediction files in {folder}"
    absent = [view.value for view in PROJECTIONS if view not in scores]
    if absent:
        raise TableError(f"{doing}: every exam lacks {', '.join(absent)}; INFN's files need all four projections")
    columns = {view.value: np.asarray(scores[view], dtype=np.float64) for view in PROJECTIONS}
    require_rows(exam_ids, columns, DENSITY)
    for row, exam_id in enumerate(exam_ids):
        lacking = [view for view, values in columns.items() if np.isnan(values[row]).all()]
        if lacking:
            raise TableError(
                f"{doing}: exam {exam_id} lacks {', '.join(lacking)}; INFN's files need all four projections, "
                "leave the exam out or write the CSV table instead"
            )
        for view, values in columns.items():
            if problem := score_problem(values[row].tolist()):
                raise TableError(f"{doing}: exam {exam_id}, {view}: {problem}")
    for view, name in INFN_FILES.items():
        lines = (" ".join(f"{score:.18e}" for score in row) for row in columns[view])
        write_text(folder / name, "".join(f"{line}\n" for line in lines))
    rows = [
        {"row": str(row), "exam_id": exam_id} | ({} if labels is None else {"density": labels.get(exam_id, "")})
        for row, exam_id in enumerate(exam_ids)
    ]
    write_csv(folder / ROWS_FILE, list(rows[0]), rows)


def _read_file(path: Path) -> NDArray[np.float64]:
    rows = []
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) != len(DENSITY):
            raise TableError(
                f"{path}, line {line}: found {len(fields)} columns, expected 4 separated by spaces (A B C D)"
            )
        numbers = [as_number(value) for value in fields]
        row = [number for number in numbers if number is not None]
        if len(row) < len(numbers):
            raise TableError(f"{path}, line {line}: found {text.strip()!r}, expected four numbers from 0 to 1")
        if problem := score_problem(row):
            raise TableError(f"{path}, line {line}: {problem}")
        rows.append(row)
    if not rows:
        raise TableError(f"{path} is empty, expected one row of four scores per exam")
    return np.array(rows)  # (N, 4)


def _read_exam_ids(path: Path, length: int) -> tuple[str, ...]:
    rows = read_csv(path, ("row", "exam_id")).rows
    if [row["row"] for row in rows] != [str(number) for number in range(length)]:
        raise TableError(
            f"{path} names {len(rows)} rows and the prediction files beside it have {length}; expected the rows "
            f"0 to {length - 1} in order"
        )
    exam_ids = tuple(row["exam_id"] for row in rows)
    if len(set(exam_ids)) != length or "" in exam_ids:
        raise TableError(f"{path} has a blank or repeated exam_id, expected another name in each row")
    return exam_ids
