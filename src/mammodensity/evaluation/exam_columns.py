"""Further columns of a labels file or manifest, by exam: patient, vendor, age, site, date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from mammodensity.errors import TableError
from mammodensity.evaluation.labels import exam_key, few_of
from mammodensity.evaluation.reading import read_rows
from mammodensity.ingest import MANIFEST_NAME

PATIENT_COLUMNS = ("patient_id", "patient")


@dataclass(frozen=True)
class ExamColumns:
    """What a table says of each exam: exam to column to the distinct texts found, blanks left out."""

    path: Path
    names: tuple[str, ...]
    exams: Mapping[str, Mapping[str, tuple[str, ...]]]

    def texts(self, name: str) -> dict[str, str]:
        """One text for each exam, blank where the table has none.

        Where the rows of an exam hold several numbers (thickness by image), their mean.

        Raises
        ------
        TableError
            There is no such column, or the rows of an exam hold several words.
        """
        if name not in self.names:
            raise TableError(f"{self.path} has no column {name!r}; found {', '.join(self.names)}")
        return {exam_id: self._one(exam_id, name, columns[name]) for exam_id, columns in self.exams.items()}

    def _one(self, exam_id: str, name: str, found: Sequence[str]) -> str:
        if len(found) < 2:
            return found[0] if found else ""
        numbers = [as_number(text) for text in found]
        if any(number is None for number in numbers):
            raise TableError(
                f"{self.path}: exam {exam_id} has {len(found)} different values of {name}, expected one an exam (or "
                "numbers, of which the mean is taken)"
            )
        return repr(sum(number for number in numbers if number is not None) / len(numbers))

    def patients(self) -> dict[str, str] | None:
        """The patient of each exam, the exam itself where that is blank; None without such a column.

        Raises
        ------
        TableError
            The rows of an exam name several patients.
        """
        name = next((one for one in PATIENT_COLUMNS if one in self.names), None)
        if name is None:
            return None
        several = [exam_id for exam_id, columns in self.exams.items() if len(columns[name]) > 1]
        if several:
            raise TableError(
                f"{self.path}: {len(several)} exams have more than one {name} ({few_of(several)}), expected one an exam"
            )
        return {exam_id: next(iter(columns[name]), exam_id) for exam_id, columns in self.exams.items()}


def read_exam_columns(path: Path) -> ExamColumns:
    """Read every column of a table that names exams in ``exam_id``, ``exam`` or ``row``; several rows an exam will do.

    Of a folder, the columns are those of its manifest; one without a manifest has none.

    Raises
    ------
    TableError
        The file cannot be read, or no column names exams.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST_NAME
        if not path.is_file():
            return ExamColumns(path, (), {})
    rows = read_rows(path, ())
    names = tuple(rows[0][1])
    key = exam_key(path, names)
    exams: dict[str, dict[str, dict[str, None]]] = {}
    for _, row in rows:
        if not row[key]:
            continue  # of no exam; a density without an exam is refused where labels are read
        columns = exams.setdefault(row[key], {name: {} for name in names})
        for name, text in row.items():
            if text:
                columns[name][text] = None
    kept = {exam_id: {name: tuple(texts) for name, texts in columns.items()} for exam_id, columns in exams.items()}
    return ExamColumns(path, names, kept)


def patients_of(tables: Sequence[ExamColumns]) -> dict[str, str] | None:
    """The patients by the first table that has a column for them; None where none has."""
    return next((found for table in tables if (found := table.patients()) is not None), None)


def column_of(tables: Sequence[ExamColumns], name: str) -> dict[str, str]:
    """A column by the first table that has it.

    Raises
    ------
    TableError
        None has, or the rows of an exam hold several words.
    """
    table = next((one for one in tables if name in one.names), None)
    if table is None:
        found = "; ".join(f"{one.path} has {', '.join(one.names)}" for one in tables)
        raise TableError(f"no column {name!r} to put exams into groups: {found}")
    return table.texts(name)


def match_patients(exam_ids: Sequence[str], patients: Mapping[str, str]) -> list[str]:
    """The patient of each exam, in the order of ``exam_ids``.

    Raises
    ------
    TableError
        An exam has none.
    """
    without = [exam_id for exam_id in exam_ids if exam_id not in patients]
    if without:
        raise TableError(
            f"{len(without)} of {len(exam_ids)} exams have no patient ({few_of(without)}); add them to the table that "
            "names patients"
        )
    return [patients[exam_id] for exam_id in exam_ids]


def as_number(text: str) -> float | None:
    """The finite number a text says, or None.

    >>> as_number("52.5"), as_number("GE"), as_number("nan")
    (52.5, None, None)
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None
