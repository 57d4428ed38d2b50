"""Any CSV table, a row an image, with its columns and values named on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mammodensity.data.picture_files import projection_in_name
from mammodensity.data.public import spreadsheets as values
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import TableRow, read_table
from mammodensity.errors import LayoutError, OptionError, TableError
from mammodensity.terms import CATEGORIES, DensityCategory

FIELDS = ("exam_id", "patient_id", "projection", "laterality", "view", "path", "density", "split")
FACTS = ("age", "vendor", "model", "site")
_NEEDED = ("exam_id", "path")


@dataclass(frozen=True)
class ColumnSpec:
    """Which column of a table is which field, and what its density values mean.

    Raises
    ------
    OptionError
        An unknown field.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field to column; a field that is not named is the column of its own name."""
    meaning: Mapping[str, DensityCategory | None] = field(default_factory=lambda: values.LETTERS)
    """Density cell to category; None for values that mean that nobody rated it."""

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in (*FIELDS, *FACTS):
                raise OptionError(f"--columns: unknown field {name!r}; expected {', '.join((*FIELDS, *FACTS))}")

    def column(self, name: str) -> str:
        """The column that holds a field."""
        return self.columns.get(name, name)


def column_spec(columns: str | None, meaning: str | None) -> ColumnSpec:
    """Parse ``exam_id=StudyID,density=acr`` and ``1=A,2=B,9=``.

    >>> column_spec("exam_id=StudyID", "1=A,9=").column("exam_id")
    'StudyID'

    Raises
    ------
    OptionError
        Not pairs, an unknown field, or a value that means no category.
    """
    spec = ColumnSpec(_pairs("--columns", columns, "exam_id=StudyID,density=acr"))
    if meaning is None:
        return spec
    found: dict[str, DensityCategory | None] = {}
    for value, letter in _pairs("--values", meaning, "1=A,2=B,3=C,4=D,9=").items():
        if letter and letter.upper() not in CATEGORIES:
            raise OptionError(f"--values: {value} means {letter!r}; expected A, B, C, D or nothing")
        found[values.density_word(value)] = DensityCategory(letter.upper()) if letter else None
    return ColumnSpec(spec.columns, found)


def _pairs(option: str, text: str | None, example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in (text or "").split(","):
        name, sign, value = (word.strip() for word in part.partition("="))
        if not part.strip():
            continue
        if not sign or not name or name in pairs:
            raise OptionError(
                f"{option} is made of pairs such as {example}, each name once. Got {part.strip()!r} instead."
            )
        pairs[name] = value
    return pairs


def read(tables: FileList, spec: ColumnSpec) -> PublicData:
    """Read the exams of the one CSV table in ``tables``.

    Raises
    ------
    LayoutError
        No table, or several.
    TableError
        A column is missing, a cell blank, or a value without a meaning.
    """
    found = tables.named(r".*\.(csv|tsv|xlsx?)")
    if len(found) != 1:
        raise LayoutError(f"{tables.root} holds {len(found)} tables; name the one to read with --tables FILE")
    optional = [spec.column(name) for name in (*FIELDS, *FACTS) if name not in (*_NEEDED, *spec.columns)]
    required = [spec.column(name) for name in dict.fromkeys((*_NEEDED, *spec.columns))]
    rows = [_row(row, spec) for row in read_table(found[0], required, optional)]
    return assemble("csv", found, rows, Tally())


def _row(row: TableRow, spec: ColumnSpec) -> ImageRow:
    def cell(name: str) -> str:
        return row[spec.column(name)]

    exam_id, path = row.needed(spec.column("exam_id")), row.needed(spec.column("path"))
    side, view = _projection(row, spec)
    return ImageRow(
        exam_id=exam_id,
        patient_id=cell("patient_id") or exam_id,
        image=path,
        laterality=side,
        view=view,
        densities=_density(row, spec),
        split=values.split(row, spec.column("split")),
        facts={name: values.text_or_blank(cell(name)) for name in FACTS},
    )


def _projection(row: TableRow, spec: ColumnSpec) -> tuple[str | None, str]:
    """Breast and view, from one column or two."""
    if word := row[spec.column("projection")]:
        found = projection_in_name(word)
        if found is None:
            raise row.error(spec.column("projection"), f"is {word!r}; expected CC_R, L-MLO or the like")
        return found.laterality, found.view_position
    if not row[spec.column("laterality")] and not row[spec.column("view")]:
        raise TableError(
            f"{row.path} line {row.line}: no projection; name its column with --columns projection=..., "
            "or two with laterality=...,view=..."
        )
    return values.laterality(row, spec.column("laterality")), row[spec.column("view")]


def _density(row: TableRow, spec: ColumnSpec) -> frozenset[DensityCategory]:
    word = values.plain_number(row[spec.column("density")])
    if word.isdecimal() and spec.meaning is values.LETTERS:
        raise row.error(spec.column("density"), f"is {word!r}; say what it means with --values 1=A,2=B,3=C,4=D")
    return values.density(row, spec.column("density"), spec.meaning)


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """The path of the table, absolute or relative to the data folder."""
    path = files.root / entry.image
    return path if path.is_file() else None
