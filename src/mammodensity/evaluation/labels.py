"""Reference categories, and further columns of a labels file or manifest by exam: patient, vendor, age, site, date."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.csv_rows import CsvRow, read_csv
from mammodensity.data.dataset import MANIFEST_NAME, reference_categories
from mammodensity.data.find import find_images
from mammodensity.errors import TableError
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.inputs import as_number
from mammodensity.terms import DENSITY, TISSUE, Category, DensityCategory, Scale

Value = TypeVar("Value")

PATIENT_COLUMNS = ("patient_id", "patient")


@dataclass(frozen=True)
class ExamColumns:
    """Columns of a table by exam: exam to column to its distinct texts, blanks left out."""

    path: Path
    names: tuple[str, ...]
    exams: Mapping[str, Mapping[str, tuple[str, ...]]]

    def texts(self, name: str) -> dict[str, str]:
        """Read one text for each exam, blank where the table has none.

        Where the rows of an exam hold several numbers (thickness by image), their mean.

        Raises
        ------
        TableError
            There is no such column, or the rows of an exam hold several words.
        """
        if name not in self.names:
            raise TableError(f"{self.path} has no column {name!r}; found {', '.join(self.names)}")
        return {exam_id: self._text(exam_id, name, columns[name]) for exam_id, columns in self.exams.items()}

    def _text(self, exam_id: str, name: str, texts: Sequence[str]) -> str:
        if len(texts) < 2:
            return texts[0] if texts else ""
        numbers = [as_number(text) for text in texts]
        if any(number is None for number in numbers):
            raise TableError(
                f"{self.path}: exam {exam_id} has {len(texts)} different values of {name}, expected one an exam (or "
                "numbers, of which the mean is taken)"
            )
        return repr(sum(number for number in numbers if number is not None) / len(numbers))

    def patients(self) -> dict[str, str] | None:
        """Find the patient of each exam, the exam itself where that is blank; None without such a column.

        Raises
        ------
        TableError
            The rows of an exam name several patients.
        """
        name = next((column for column in PATIENT_COLUMNS if column in self.names), None)
        if name is None:
            return None
        several = [exam_id for exam_id, columns in self.exams.items() if len(columns[name]) > 1]
        if several:
            names = _first_names(several)
            raise TableError(
                f"{self.path}: {len(several)} exams have more than one {name} ({names}), expected one an exam"
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
    table = read_csv(path)
    names = table.columns
    key = exam_key(path, names)
    exams: dict[str, dict[str, dict[str, None]]] = {}
    for row in table:
        if not row[key]:
            continue  # of no exam; a density without an exam is refused where labels are read
        columns = exams.setdefault(row[key], {name: {} for name in names})
        for name, text in row.cells.items():
            if text:
                columns[name][text] = None
    kept = {exam_id: {name: tuple(texts) for name, texts in columns.items()} for exam_id, columns in exams.items()}
    return ExamColumns(path, names, kept)


def patients_of(tables: Sequence[ExamColumns]) -> dict[str, str] | None:
    """Take the patients from the first table that has a column for them; None where none has."""
    return next((patients for table in tables if (patients := table.patients()) is not None), None)


def column_of(tables: Sequence[ExamColumns], name: str) -> dict[str, str]:
    """Take a column from the first table that has it.

    Raises
    ------
    TableError
        None has, or the rows of an exam hold several words.
    """
    table = next((table for table in tables if name in table.names), None)
    if table is None:
        present = "; ".join(f"{table.path} has {', '.join(table.names)}" for table in tables)
        raise TableError(f"no column {name!r} to put exams into groups: {present}")
    return table.texts(name)


def match_patients(exam_ids: Sequence[str], patients: Mapping[str, str]) -> list[str]:
    """Find the patient of each exam, in the order of ``exam_ids``.

    Raises
    ------
    TableError
        An exam has none.
    """
    return look_up(exam_ids, patients, "have no patient", "add them to the table that names patients")


def look_up(exam_ids: Sequence[str], values: Mapping[str, Value], lacking: str, advice: str) -> list[Value]:
    """Look up the value of each exam.

    Raises
    ------
    TableError
        Exams have none; ``lacking`` says so, and ``advice`` what to do.
    """
    without = [exam_id for exam_id in exam_ids if exam_id not in values]
    if without:
        raise TableError(f"{len(without)} of {len(exam_ids)} exams {lacking} ({_first_names(without)}); {advice}")
    return [values[exam_id] for exam_id in exam_ids]


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")


_KEY_COLUMNS = ("exam_id", "exam", "row")
_FEW = 5


def read_labels(path: Path) -> dict[str, Category]:
    """Read the category of each exam.

    The table has a column ``density`` (A to D, small letters too) or ``tissue`` (F, G, D; looked at where every density
    is blank) and one of ``exam_id``, ``exam`` or ``row`` (looked for in this order). A manifest with several rows per
    exam will do: blank categories are skipped, the others must agree. Of a folder, the categories are those of the data
    set in it, as the class folders of INFN's arrangement say.

    Raises
    ------
    LayoutError
        The folder is no data set, or contradicts itself.
    TableError
        The file cannot be read, lacks a column, holds another word for a density, contradicts itself, or holds no
        density at all.
    """
    path = Path(path)
    if path.is_dir():
        categories = reference_categories(find_images(path))
        if not categories:
            raise TableError(
                f"{path}: no image in it has a density category; expected class folders A to D, or a table"
            )
        return categories
    rows = read_csv(path, (DENSITY.name,), (TISSUE.name,))
    of_tissue = TISSUE.name in rows.columns and not any(row[DENSITY.name] for row in rows)
    scale = TISSUE if of_tissue else DENSITY
    column = scale.name
    key = exam_key(path, rows.columns)
    labels: dict[str, Category] = {}
    for row in rows:
        if not row[column]:
            continue
        exam_id, category = row.needed(key, f"the exam that the {column} belongs to"), _parse_category(row, scale)
        earlier = labels.setdefault(exam_id, category)
        if earlier != category:
            raise row.error(
                f"exam {exam_id} has {column} {category} here and {earlier} further up, expected one {column} per exam"
            )
    if not labels:
        raise TableError(f"{path}: every {column} is blank, expected {_either(scale)} for at least one exam")
    return labels


def read_densities(path: Path) -> dict[str, DensityCategory]:
    """Do what `read_labels` does, for what is made for the categories A to D only.

    Raises
    ------
    LayoutError, TableError
        As of `read_labels`; or the categories are F, G and D.
    """
    labels = read_labels(path)
    densities = {exam: label for exam, label in labels.items() if isinstance(label, DensityCategory)}
    if len(densities) < len(labels):
        raise TableError(f"{path} has the categories F, G and D; expected the density categories A to D")
    return densities


def match(table: ScoreTable, labels: Mapping[str, Category]) -> NDArray[np.intp]:
    """Find the reference category of every exam of ``table``.

    Labels of exams that the table does not hold are left aside; `unused_labels` names them.

    Returns
    -------
    Shape (N,), position of the category (the least dense is 0), in the table's order.

    Raises
    ------
    TableError
        An exam has no label, the labels are of other categories than the scores, or both are numbered by row and have
        different lengths.
    """
    other = next((label.scale for label in labels.values() if label.scale != table.scale), None)
    if other:
        raise TableError(
            f"the scores are of the categories {table.scale} and the labels of {other}; they cannot be compared, give "
            "labels of the same"
        )
    return match_exams(table.exam_ids, labels)


def match_exams(ids: Sequence[str], labels: Mapping[str, Category]) -> NDArray[np.intp]:
    """Do what `match` does, for exams by name."""
    if len(ids) != len(labels) and _numbered_by_row(ids) and _numbered_by_row(labels):
        raise TableError(
            f"the labels number {len(labels)} rows and the score table {len(ids)}; rows can only be matched by number "
            "when both have the same length, give the labels of exactly these exams"
        )
    advice = "add them to the labels, or leave these exams out of the score table"
    categories = look_up(ids, labels, "in the score table have no density label", advice)
    return np.array([category.index for category in categories], dtype=np.intp)


def scored_exams(
    table: ScoreTable, reference: NDArray[np.intp], level: str = "subject"
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Select the scores (n, K) and the reference (n,) of the exams that have scores at a level."""
    scored = ~np.isnan(table.scores[level]).any(axis=1)
    return table.scores[level][scored], reference[scored]


def unused_labels(table: ScoreTable, labels: Mapping[str, Category]) -> tuple[str, ...]:
    """List the exams that have a label and no place in ``table``, in the order of the labels."""
    scored = set(table.exam_ids)
    return tuple(exam_id for exam_id in labels if exam_id not in scored)


def exam_key(path: Path, columns: Collection[str]) -> str:
    """Find the column that names the exam of each row.

    Raises
    ------
    TableError
        There is none.
    """
    key = next((name for name in _KEY_COLUMNS if name in columns), None)
    if key is None:
        raise TableError(
            f"{path}, line 1: found the columns {', '.join(columns)}, expected one of {', '.join(_KEY_COLUMNS)} that "
            "names the exam of each row"
        )
    return key


def _parse_category(row: CsvRow, scale: Scale) -> Category:
    text = row[scale.name]
    if category := scale.named(text):
        return category
    older = scale == DENSITY and text in set("1234")
    hint = " (1 to 4 is an older notation: write A for 1, B for 2, C for 3, D for 4)" if older else ""
    raise row.error(f"found {scale.name} {text!r}, expected {_either(scale)}{hint}")


def _either(scale: Scale) -> str:
    """The letters of a scale, as a message lists them."""
    *most, last = scale
    return f"{', '.join(most)} or {last}"


def _numbered_by_row(keys: Collection[str]) -> bool:
    return set(keys) == {str(number) for number in range(len(keys))}
