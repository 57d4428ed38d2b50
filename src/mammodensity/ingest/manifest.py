"""The manifest: one row an image, columns exam_id, patient_id, projection, path, density, split.

A column breast_density may follow, the category of the breast where it is known apart from the exam's.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from mammodensity.errors import LayoutError
from mammodensity.ingest.records import SPLITS, DataSet, ImageRecord
from mammodensity.outputs import write_csv
from mammodensity.terms import CATEGORIES, PROJECTIONS, DensityCategory, Projection

MANIFEST_NAME = "manifest.csv"
MANIFEST_COLUMNS = ("exam_id", "patient_id", "projection", "path", "density", "split")
BREAST_COLUMN = "breast_density"
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
        Columns missing, an unknown projection, density or split, a file that is not there, no rows.
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
    return DataSet(path.parent, "manifest", records)


def _record(path: Path, line: int, row: dict[str, str | None]) -> ImageRecord:
    cells = {name: (row.get(name) or "").strip() for name in (*MANIFEST_COLUMNS, BREAST_COLUMN)}
    where = f"{path} line {line}"
    for name in _REQUIRED:
        if not cells[name]:
            raise LayoutError(f"{where}: {name} is empty")
    if cells["projection"] not in PROJECTIONS:
        raise LayoutError(f"{where}: unknown projection {cells['projection']!r}; expected {', '.join(PROJECTIONS)}")
    density, of_breast = cells["density"].upper(), cells[BREAST_COLUMN].upper()
    for name, given in (("density", density), (BREAST_COLUMN, of_breast)):
        if given and given not in CATEGORIES:
            raise LayoutError(f"{where}: unknown {name} {cells[name]!r}; expected A, B, C, D or nothing")
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
        category=DensityCategory(density) if density else None,
        split=split,
        breast_category=DensityCategory(of_breast) if of_breast else None,
    )


def write_manifest(path: Path, records: Iterable[ImageRecord]) -> None:
    """Write ``records`` with absolute paths, so that the table still finds its images from another folder."""
    records = list(records)
    known = any(record.breast_category for record in records)
    rows = [
        {
            "exam_id": record.exam_id,
            "patient_id": record.patient_id,
            "projection": record.projection.value,
            "path": record.path.absolute().as_posix(),
            "density": record.category.value if record.category else "",
            "split": record.split or "",
            **({BREAST_COLUMN: record.breast_category or ""} if known else {}),
        }
        for record in records
    ]
    write_csv(path, (*MANIFEST_COLUMNS, BREAST_COLUMN) if known else MANIFEST_COLUMNS, rows)
