"""Public data sets by name, the folders of the INFN reference, and any table whose columns the user names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mammodensity.data.find import find_images
from mammodensity.data.picture_files import projection_in_name
from mammodensity.data.public import digital, film
from mammodensity.data.public.assemble import (
    ImageEntry,
    ImageRow,
    PublicData,
    PublicExam,
    Tally,
    assemble,
    of_scale,
)
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import LETTERS, TableRow, density_word, plain_number, read_table
from mammodensity.errors import LayoutError, OptionError, TableError
from mammodensity.settings import settings
from mammodensity.terms import TISSUE, DensityCategory


@dataclass(frozen=True)
class Adapter:
    """The part that is particular to one data set."""

    tables: str
    """Regular expression of the names of its tables."""
    read: Callable[[FileList, FileList], PublicData]
    """Read the exams from the tables, or from the data folder if the tables do not say; open no image."""
    locate: Callable[[FileList, PublicExam, ImageEntry], Path | None]
    """Find the file of an image; None if it is absent."""


def read_infn(tables: FileList, data: FileList) -> PublicData:
    """Read the folders of the INFN reference, or another arrangement that ``find_images`` knows; no table is needed."""
    data_set = find_images(data.source)
    tally = Tally()
    tally.leave_out("no-image-file", "file that is no image", len(data_set.ignored), "files")
    rows = [
        ImageRow(
            exam_id=record.exam_id,
            patient_id=record.patient_id,
            image=str(record.path),
            laterality=record.projection.laterality,
            view=record.projection.view_position,
            categories=frozenset([record.category] if record.category else []),
            split=record.split,
        )
        for record in data_set.records
    ]
    # Categories are those of exams; the tissue categories are listed by breast, as in mini-MIAS.
    per_breast = any(of_scale(record.category, TISSUE) for record in data_set.records)
    return assemble("origin", [data_set.root], rows, tally, per_breast=per_breast)


def locate_infn(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find an image that is named by its path."""
    path = Path(entry.image)
    return path if path.is_file() else None


ADAPTERS: Mapping[str, Adapter] = {
    "vindr": Adapter(digital.VINDR_TABLES, digital.read_vindr, digital.locate_vindr),
    "rsna": Adapter(digital.RSNA_TABLES, digital.read_rsna, digital.locate_rsna),
    "cbis-ddsm": Adapter(film.CBIS_TABLES, film.read_cbis_ddsm, film.locate_cbis_ddsm),
    "ddsm": Adapter(film.DDSM_TABLES, film.read_ddsm, film.locate_ddsm),
    "inbreast": Adapter(digital.INBREAST_TABLES, digital.read_inbreast, digital.locate_inbreast),
    "embed": Adapter(digital.EMBED_TABLES, digital.read_embed, digital.locate_embed),
    "mini-mias": Adapter(film.MIAS_TABLES, film.read_mini_mias, film.locate_mini_mias),
    "origin": Adapter(r"(?!)", read_infn, locate_infn),  # the expression matches nothing
}
"""By the name on the command line; ``csv`` is read by `any_table`, which needs the names of its columns."""


# Any table with one row an image

FIELDS = ("exam_id", "patient_id", "projection", "laterality", "view", "path", "density", "split")
FACTS = ("age", "vendor", "model", "site")
_NEEDED = ("exam_id", "path")
_ANY_TABLE = r".*\.(csv|tsv|xlsx?)"


@settings
class ColumnSpec:
    """The column of each field, and the meaning of density values.

    Raises
    ------
    OptionError
        An unknown field.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of each field; a field that is not named has the column of its own name."""
    meaning: Mapping[str, DensityCategory | None] | None = None
    """Category of each density value; None for values that mean not rated. By default letters A to D."""

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
    names = _pairs("--columns", columns, "exam_id=StudyID,density=acr")
    if meaning is None:
        return ColumnSpec(names)
    categories: dict[str, DensityCategory | None] = {}
    for value, letter in _pairs("--values", meaning, "1=A,2=B,3=C,4=D,9=").items():
        if letter and letter.upper() not in LETTERS:
            raise OptionError(f"--values: {value} means {letter!r}; expected A, B, C, D or nothing")
        categories[density_word(value)] = LETTERS[letter.upper()] if letter else None
    return ColumnSpec(names, categories)


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


def any_table(spec: ColumnSpec) -> Adapter:
    """Make the adapter of a folder with one table, whose columns the user names; its paths may be relative.

    Reading raises ``LayoutError`` unless there is one table, and ``TableError`` if a column is missing, a cell is
    blank, or a value has no meaning.
    """

    def read(tables: FileList, data: FileList) -> PublicData:
        paths = tables.named(_ANY_TABLE)
        if len(paths) != 1:
            raise LayoutError(f"{tables.root} holds {len(paths)} tables; name the one to read with --tables FILE")
        required = dict.fromkeys((*_NEEDED, *spec.columns))
        optional = [name for name in (*FIELDS, *FACTS) if name not in required]
        rows = read_table(paths[0], [spec.column(name) for name in required], optional)
        return assemble("csv", paths, [_row(row, spec) for row in rows], Tally())

    def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
        path = files.root / entry.image
        return path if path.is_file() else None

    return Adapter(_ANY_TABLE, read, locate)


def _row(row: TableRow, spec: ColumnSpec) -> ImageRow:
    exam_id, path = row.needed(spec.column("exam_id")), row.needed(spec.column("path"))
    side, view = _projection(row, spec)
    return ImageRow(
        exam_id=exam_id,
        patient_id=row[spec.column("patient_id")] or exam_id,
        image=path,
        laterality=side,
        view=view,
        categories=_density(row, spec),
        split=row.split(spec.column("split")),
        facts={name: row.text(spec.column(name)) for name in FACTS},
    )


def _projection(row: TableRow, spec: ColumnSpec) -> tuple[str | None, str]:
    """Breast and view, from one column or two."""
    if word := row[spec.column("projection")]:
        projection = projection_in_name(word)
        if projection is None:
            raise row.error(spec.column("projection"), f"is {word!r}; expected CC_R, L-MLO or the like")
        return projection.laterality, projection.view_position
    if not row[spec.column("laterality")] and not row[spec.column("view")]:
        raise TableError(
            f"{row.path} line {row.line}: no projection; name its column with --columns projection=..., "
            "or two with laterality=...,view=..."
        )
    return row.laterality(spec.column("laterality")), row[spec.column("view")]


def _density(row: TableRow, spec: ColumnSpec) -> frozenset[DensityCategory]:
    column = spec.column("density")
    word = plain_number(row[column])
    if spec.meaning is None and word.isdecimal():
        raise row.error(column, f"is {word!r}; say what it means with --values 1=A,2=B,3=C,4=D")
    return row.density(column, LETTERS if spec.meaning is None else spec.meaning)
