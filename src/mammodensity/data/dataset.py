"""The images of a data set before any pixel is read: records, manifests, and exams to be prepared.

A manifest has a row for each image and the columns exam_id, patient_id, projection, path, density and split. A column
breast_density may follow: the category of the breast where the data set gives one apart from the exam's. Data sets with
the categories F, G and D have them in the columns tissue and breast_tissue instead, and leave density blank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mammodensity.data.csv_rows import CsvRow, read_csv
from mammodensity.data.dicom.file_checks import REASONS, FileCheck, Reason
from mammodensity.data.dicom.header_parsing import looks_like_dicom
from mammodensity.errors import LayoutError, TableError
from mammodensity.inputs import read_json
from mammodensity.outputs import write_csv
from mammodensity.terms import (
    DENSITY,
    PROJECTIONS,
    TISSUE,
    Category,
    DensityCategory,
    Projection,
    Scale,
    TissueCategory,
)

_LEVELS_UP = 4  # from an image to the folder of the data set: class, split, projection
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ImageRecord:
    """One image of a data set."""

    exam_id: str
    patient_id: str
    projection: Projection
    path: Path
    category: Category | None = None
    """Reference category of the exam; None where the data set gives none."""
    split: str | None = None
    """``train``, ``validation`` or ``test``; None before the data set is split."""
    breast_category: Category | None = None
    """Reference category of this breast alone, where the data set gives it."""
    check: FileCheck | None = field(default=None, compare=False, repr=False)
    """The gatekeeper's verdict on the file, where the data set was found by headers."""
    alternatives: tuple[FileCheck, ...] = ()
    """Verdicts on the next best files, in case that the pixels of the first cannot be used."""

    @property
    def candidates(self) -> tuple[tuple[Path, FileCheck | None], ...]:
        """The file and its alternatives, best first, each with the verdict on it."""
        return (self.path, self.check), *((other.path, other) for other in self.alternatives)

    def without_paths(self, text: str) -> str:
        """Turn a message about the image into one for results: names of files and folders may identify a patient."""
        for path, _ in self.candidates:
            text = text.replace(str(path), f"the {self.projection} image")
        return text


@dataclass(frozen=True)
class DataSet:
    """The images found under one folder or manifest."""

    root: Path
    layout: str
    """The arrangement in words for the user."""
    records: tuple[ImageRecord, ...]
    ignored: tuple[Path, ...] = ()
    """Files that are no images."""
    refused: tuple[FileCheck, ...] = ()
    """DICOM files and pictures that the gatekeeper refused."""

    @property
    def scale(self) -> Scale:
        """The categories that its images are of; A to D where none has one."""
        return next((record.category.scale for record in self.records if record.category), DENSITY)

    def exams(self) -> dict[str, dict[Projection, ImageRecord]]:
        """Records by exam and projection, exams in sorted order.

        Raises
        ------
        LayoutError
            Two images claim the same projection of one exam.
        """
        exams: dict[str, dict[Projection, ImageRecord]] = defaultdict(dict)
        for record in self.records:
            other = exams[record.exam_id].setdefault(record.projection, record)
            if other is not record:
                raise LayoutError(
                    f"exam {record.exam_id} has two {record.projection} images, "
                    f"{other.path} and {record.path}; keep one"
                )
        return {exam_id: exams[exam_id] for exam_id in sorted(exams)}

    def in_split(self, split: str | None) -> DataSet:
        """The part in one split, or all of it for None."""
        if split is None:
            return self
        return replace(self, records=tuple(record for record in self.records if record.split == split))

    def first_exams(self, count: int | None) -> DataSet:
        """The first ``count`` exams in sorted order, or all for None."""
        return self if count is None else self.of_exams(list(self.exams())[:count])

    def of_exams(self, exam_ids: Iterable[str]) -> DataSet:
        """Only these exams."""
        chosen = set(exam_ids)
        return replace(self, records=tuple(record for record in self.records if record.exam_id in chosen))


def holds_phantoms(data: DataSet) -> bool:
    """True when the images are synthetic: the receipt that ``mammodensity phantom`` left lies above one of them."""
    folders = {record.path.parent for record in data.records}
    roots = {above for folder in folders for above in [folder, *folder.parents][:_LEVELS_UP]}
    return any(_is_phantom_receipt(root / "receipt.json") for root in roots)


def _is_phantom_receipt(path: Path) -> bool:
    try:
        facts = read_json(path)
    except (OSError, ValueError):
        return False  # another program's file of that name says nothing about phantoms
    return isinstance(facts, dict) and facts.get("command") == "phantom"


def require_complete(data: DataSet) -> None:
    """Raise ``LayoutError`` unless every exam has all four projections."""
    for exam_id, records in data.exams().items():
        missing = [projection.value for projection in PROJECTIONS if projection not in records]
        if missing:
            raise LayoutError(
                f"exam {exam_id} lacks {', '.join(missing)}; INFN's text files need four views of every exam, "
                "leave the exam out or write the CSV table alone"
            )


def reference_categories(data: DataSet) -> dict[str, Category]:
    """The reference category of every exam that has one.

    Raises
    ------
    LayoutError
        The images of one exam disagree.
    """
    categories: dict[str, Category] = {}
    for record in data.records:
        if record.category is None:
            continue
        other = categories.setdefault(record.exam_id, record.category)
        if other != record.category:
            raise LayoutError(
                f"exam {record.exam_id} is {other} in one image and {record.category} in {record.path}; "
                "an exam has one category, correct the data set"
            )
    return categories


def reference_densities(data: DataSet) -> dict[str, DensityCategory]:
    """The reference category of every exam that has one, in data sets with the categories A to D.

    Raises
    ------
    LayoutError
        The images of one exam disagree, or the categories are F, G and D.
    """
    categories = reference_categories(data)
    densities = {exam: category for exam, category in categories.items() if isinstance(category, DensityCategory)}
    if len(densities) < len(categories):
        raise LayoutError(f"{data.root} has the categories {data.scale}; expected the density categories A to D")
    return densities


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
        records = tuple(_record(row) for row in read_csv(path, _REQUIRED))
    except TableError as error:
        raise LayoutError(str(error)) from error
    if len({record.category.scale for record in records if record.category}) > 1:
        raise LayoutError(
            f"{path} has density categories A to D and tissue categories F, G, D; they cannot be compared, make two "
            "manifests of it"
        )
    return DataSet(path.parent, "manifest", records)


def _record(row: CsvRow) -> ImageRecord:
    exam_id, projection, image = (row.needed(name, "one in every row of a manifest") for name in _REQUIRED)
    if projection not in PROJECTIONS:
        raise row.error(f"unknown projection {projection!r}; expected {', '.join(PROJECTIONS)}")
    density, of_breast = (_category(row, name, DENSITY) for name in ("density", BREAST_COLUMN))
    tissue, tissue_of_breast = (_category(row, name, TISSUE) for name in TISSUE_COLUMNS)
    category, breast = density or tissue, of_breast or (None if density else tissue_of_breast)
    if category and breast and category.scale != breast.scale:
        raise row.error(
            f"found {category.name} of the exam and {breast.name} of the breast, which are of two kinds; expected "
            "density and breast_density, or tissue and breast_tissue"
        )
    split = split_word(row["split"])
    if row["split"] and split is None:
        raise row.error(f"unknown split {row['split']!r}; expected {', '.join(SPLITS)} or nothing")
    path = row.path.parent / image
    if not path.is_file():
        raise row.error(f"image {path} not found; paths are relative to the manifest's folder")
    return ImageRecord(
        exam_id=exam_id,
        patient_id=row["patient_id"] or exam_id,
        projection=Projection(projection),
        path=path,
        category=category,
        split=split,
        breast_category=breast,
    )


def _category(row: CsvRow, name: str, scale: Scale) -> Category | None:
    """The category a cell holds; None where it is blank."""
    category = scale.named(row[name])
    if row[name] and not category:
        raise row.error(f"unknown {name} {row[name]!r}; expected {scale} or nothing")
    return category


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


@dataclass(frozen=True)
class ExamSource:
    """An exam to be prepared."""

    exam_id: str
    patient_id: str
    records: Mapping[Projection, ImageRecord]
    category: Category | None = None
    split: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts of a table to be written; those of a DICOM header go before them."""


def exam_sources(data: DataSet) -> list[ExamSource]:
    """List the exams of a data set of pictures or DICOM files.

    Raises
    ------
    LayoutError
        Images of one exam contradict one another.
    """
    categories = reference_categories(data)
    sources = []
    for exam_id, records in data.exams().items():
        first = next(iter(records.values()))
        sources.append(ExamSource(exam_id, first.patient_id, records, categories.get(exam_id), first.split))
    return sources


def refused_files(data: DataSet) -> list[FileCheck]:
    """List the files that are none of an exam's images, each with the reason."""
    return [*data.refused, *(_no_image(path) for path in data.ignored)]


def _no_image(path: Path) -> FileCheck:
    code = "dicomdir" if looks_like_dicom(path) else "not-dicom"
    return FileCheck(path, (Reason(code, f"{path}: {REASONS[code]}"),))


def found_images(data: DataSet) -> dict[str, Any]:
    """List a data set as JSON values, in the form of a public data set's list."""
    exams = [
        {
            "exam_id": exam.exam_id,
            "patient_id": exam.patient_id,
            "projections": [projection.value for projection in exam.records],
            "density": exam.category.value if exam.category else None,
            "split": exam.split,
            "files": {projection.value: str(record.path) for projection, record in exam.records.items()},
        }
        for exam in exam_sources(data)
    ]
    refused = [
        {"path": str(verdict.path), "code": verdict.reasons[0].code, "text": verdict.reasons[0].text}
        for verdict in refused_files(data)
    ]
    summary = {"exams": len(exams), "images": len(data.records), "refused": len(refused)}
    return {"dataset": data.layout, "tables": [], "exams": exams, "refused": refused, "summary": summary}
