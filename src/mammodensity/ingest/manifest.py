"""The manifest: one row an image, columns exam_id, patient_id, projection, path, density, split.

A column breast_density may follow, the category of the breast where it is known apart from the exam's. Data sets whose
categories are F, G and D have them in columns tissue and breast_tissue instead, and leave density blank.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from mammodensity.errors import LayoutError
from mammodensity.ingest.records import SPLITS, DataSet, ImageRecord
from mammodensity.outputs import write_csv
from mammodensity.terms import PROJECTIONS, Category, DensityCategory, Projection, TissueCategory

MANIFEST_NAME = "manifest.csv"
MANIFEST_COLUMNS = ("exam_id", "patient_id", "projection", "path", "density", "split")
BREAST_COLUMN = "breast_density"
TISSUE_COLUMNS = ("tissue", "breast_tissue")
_REQUIRED = ("exam_id", "projection", "path")
_SPLIT_WORDS = {**{split: split for split in SPLITS}, "val": "validation", "valid": "validation", "training": "train"}


def split_word(word: str) -> str | None:
    """The split a folder name or table cell means, or None.

    >>> split_word("val"), split_word("Test"), split_word("A")
    ('validation', 'test', None)
    """
    return _SPLIT_WORDS.get(word.lower())


def read_manifest(path: Path) -> DataSet:
    """Read a manifest; paths in it are relative to its folder. Further columns are allowed and left alone.

    Raises
    ------
    LayoutError
        Columns missing, an unknown projection, density, tissue or split, two kinds of categories, a file that is not
        there, no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in _REQUIRED if name not in (rows.fieldnames or ())]
            if missing:
                raise LayoutError(
                    f"{path} lacks the column {missing[0]}; a manifest is separated by commas and has "
                    f"{', '.join(MANIFEST_COLUMNS)}"
                )
            records = tuple(_record(path, rows.line_num, row) for row in rows)
    except FileNotFoundError as error:
        raise LayoutError(f"{path} not found; expected a manifest table") from error
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise LayoutError(f"{path} is not a readable UTF-8 CSV table; expected a manifest") from error
    if not records:
        raise LayoutError(f"{path} has no rows; expected one an image")
    if len({type(record.category) for record in records if record.category is not None}) > 1:
        raise LayoutError(
            f"{path} has density categories A to D and tissue categories F, G, D; they cannot be compared, make two "
            "manifests of it"
        )
    return DataSet(path.parent, "manifest", records)


def _record(path: Path, line: int, row: dict[str, str | None]) -> ImageRecord:
    cells = {name: (row.get(name) or "").strip() for name in (*MANIFEST_COLUMNS, BREAST_COLUMN, *TISSUE_COLUMNS)}
    where = f"{path} line {line}"
    for name in _REQUIRED:
        if not cells[name]:
            raise LayoutError(f"{where}: {name} is empty")
    if cells["projection"] not in PROJECTIONS:
        raise LayoutError(f"{where}: unknown projection {cells['projection']!r}; expected {', '.join(PROJECTIONS)}")
    density, of_breast = (_category(where, name, cells[name], DensityCategory) for name in ("density", BREAST_COLUMN))
    tissue, tissue_of_breast = (_category(where, name, cells[name], TissueCategory) for name in TISSUE_COLUMNS)
    category, breast = density or tissue, of_breast or (None if density else tissue_of_breast)
    if category and breast and type(category) is not type(breast):
        raise LayoutError(
            f"{where}: found {category.name} of the exam and {breast.name} of the breast, which are of two "
            "kinds; expected density and breast_density, or tissue and breast_tissue"
        )
    split = split_word(cells["split"])
    if cells["split"] and split is None:
        raise LayoutError(f"{where}: unknown split {cells['split']!r}; expected {', '.join(SPLITS)} or nothing")
    image = path.parent / cells["path"]
    if not image.is_file():
        raise LayoutError(f"{where}: image {image} not found; paths are relative to the manifest's folder")
    return ImageRecord(
        exam_id=cells["exam_id"],
        patient_id=cells["patient_id"] or cells["exam_id"],
        projection=Projection(cells["projection"]),
        path=image,
        category=category,
        split=split,
        breast_category=breast,
    )


def _category(where: str, name: str, cell: str, kind: type[Category]) -> Category | None:
    """The category a cell holds; None where it is blank."""
    if cell and cell.upper() not in list(kind):
        raise LayoutError(f"{where}: unknown {name} {cell!r}; expected {', '.join(kind)} or nothing")
    return kind(cell.upper()) if cell else None


def category_cells(category: Category | None, of_breast: Category | None) -> dict[str, str]:
    """The cells of a row that hold the category of its exam and that of its breast."""
    tissue = isinstance(category or of_breast, TissueCategory)
    names = TISSUE_COLUMNS if tissue else ("density", BREAST_COLUMN)
    blank = dict.fromkeys(("density", BREAST_COLUMN, *TISSUE_COLUMNS), "")
    return blank | {name: str(value or "") for name, value in zip(names, (category, of_breast), strict=True)}


def used_columns(rows: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """The columns of categories beyond density in which some row has one."""
    rows = list(rows)
    return tuple(name for name in (BREAST_COLUMN, *TISSUE_COLUMNS) if any(row[name] for row in rows))


def write_manifest(path: Path, records: Iterable[ImageRecord]) -> None:
    """Write ``records`` with absolute paths, so that the table still finds its images from another folder."""
    rows = [
        {
            "exam_id": record.exam_id,
            "patient_id": record.patient_id,
            "projection": record.projection.value,
            "path": record.path.absolute().as_posix(),
            "split": record.split or "",
            **category_cells(record.category, record.breast_category),
        }
        for record in records
    ]
    columns = (*MANIFEST_COLUMNS, *used_columns(rows))
    write_csv(path, columns, ({name: row[name] for name in columns} for row in rows))
