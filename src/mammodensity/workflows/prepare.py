"""A data set's own tables to exams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import DataSet, ExamSource, ImageRecord
from mammodensity.data.find import find_images
from mammodensity.data.public import csv_table
from mammodensity.data.public.adapters import ADAPTERS
from mammodensity.data.public.assemble import ImageEntry, PublicData, PublicExam, of_scale, without_unlabelled
from mammodensity.data.public.csv_table import ColumnSpec
from mammodensity.data.public.image_files import FileList
from mammodensity.errors import LayoutError, OptionError
from mammodensity.terms import CATEGORIES, DENSITY, PROJECTIONS, TISSUE, Category, Projection

DATA_SETS = (*ADAPTERS, "csv")
NO_CATEGORY = "none"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FoundExams:
    """The exams of a data set, and the files of their images where these are there."""

    root: Path
    data: PublicData
    files: Mapping[tuple[str, Projection], Path]
    """By exam and projection; an image that is absent is not in it."""

    def summary(self) -> dict[str, Any]:
        """Counts of what was found and of what was left out, as JSON values."""
        exams = self.data.exams
        images = sum(len(exam.images) for exam in exams)
        density = Counter(_density(exam.category) for exam in exams)
        projections = Counter(projection for exam in exams for projection in exam.images)
        rated = Counter(
            _density(entry.category if exam.breast_categories else exam.category)
            for exam in exams
            for entry in exam.images.values()
        )
        values: dict[str, Any] = {
            "exams": len(exams),
            "patients": len({exam.patient_id for exam in exams}),
            "images": images,
            "by_category": {name: density[name] for name in (*CATEGORIES, NO_CATEGORY) if density[name]},
            "by_projection": {name: projections[name] for name in PROJECTIONS},
            "by_split": dict(sorted(Counter(exam.split or NO_CATEGORY for exam in exams).items())),
            "images_by_category": {name: rated[name] for name in (*CATEGORIES, NO_CATEGORY) if rated[name]},
            "complete_exams": sum(len(exam.images) == len(PROJECTIONS) for exam in exams),
            "files_found": len(self.files),
            "files_absent": images - len(self.files),
            "left_out": [asdict(reason) for reason in self.data.left_out],
            "notes": [asdict(reason) for reason in self.data.notes],
        }
        breasts = (category for exam in exams for category in exam.breast_categories.values())
        if tissue := Counter(category for category in breasts if of_scale(category, TISSUE)):
            values["images_by_tissue"] = dict(sorted(tissue.items()))
        return values

    def to_dict(self) -> dict[str, Any]:
        """JSON values only: the data set, its tables, every exam, and the summary."""
        return {
            "dataset": self.data.dataset,
            "tables": [str(path) for path in self.data.tables],
            "exams": [self._exam(exam) for exam in self.data.exams],
            "summary": self.summary(),
        }

    def _exam(self, exam: PublicExam) -> dict[str, Any]:
        files = {
            projection.value: str(self.files[exam.exam_id, projection])
            for projection in exam.images
            if (exam.exam_id, projection) in self.files
        }
        return {**exam.to_dict(), "files": files}


def _density(category: Category | None) -> str:
    """The letter of a density category, for counts."""
    return category.value if category is not None and of_scale(category, DENSITY) else NO_CATEGORY


def find_exams(
    data: Path,
    dataset: str | None = None,
    *,
    tables: Path | None = None,
    columns: ColumnSpec | None = None,
    keep_unlabelled: bool = False,
    progress: Progress | None = None,
) -> FoundExams:
    """Read a data set's tables and look for its images; no image is opened.

    Parameters
    ----------
    dataset
        One of ``DATA_SETS``; None finds it out from the names of the tables.
    tables
        Folder (or file) of the tables, where it is not ``data``.
    columns
        For ``csv`` alone: which column is what.
    keep_unlabelled
        Keep exams without a density category.

    Raises
    ------
    OptionError
        An unknown data set, one that cannot be told, or columns for another one than ``csv``.
    LayoutError, TableError
        The tables are absent or not as expected.
    """
    if dataset is not None and dataset not in DATA_SETS:
        raise OptionError(f"--dataset must be one of {', '.join(DATA_SETS)}. Got {dataset!r} instead.")
    if columns is not None and dataset != "csv":
        raise OptionError("--columns and --values are for --dataset csv; other data sets have their own columns")
    images = FileList(data)
    sources = FileList(tables) if tables is not None else images
    name = dataset or _recognise(sources)
    locate: Callable[[FileList, PublicExam, ImageEntry], Path | None]
    if name == "csv":
        found, locate = csv_table.read(sources, columns or ColumnSpec()), csv_table.locate
    else:
        found, locate = ADAPTERS[name].read(sources, images), ADAPTERS[name].locate
    if not keep_unlabelled:
        found = without_unlabelled(found)
    files = {}
    for done, exam in enumerate(found.exams, start=1):
        for projection, entry in exam.images.items():
            if (path := locate(images, exam, entry)) is not None:
                files[exam.exam_id, projection] = path
        if progress:
            progress(done, len(found.exams))
    return FoundExams(images.root, found, files)


def holds_known_tables(data: Path) -> bool:
    """True when the tables of a public data set lie in a folder."""
    if not data.is_dir():
        return False
    files = FileList(data)
    return any(files.named(adapter.TABLES) for adapter in ADAPTERS.values())


def find_untabled(data: Path, *, synthetic: bool = False, dry_run: bool = False) -> DataSet | None:
    """The images of a data set that no table describes; for a dry run None where only its tables can tell.

    Raises
    ------
    LayoutError
        There is no arrangement that is known.
    """
    if dry_run and any((data / projection).is_dir() for projection in PROJECTIONS):
        return None  # the origin's folders, which are a public data set by name
    try:
        return find_images(data, synthetic=synthetic)
    except LayoutError:
        if dry_run:
            return None
        raise


def _recognise(tables: FileList) -> str:
    """The data set whose table names are there, or the origin's folders."""
    names = [name for name, adapter in ADAPTERS.items() if tables.named(adapter.TABLES)]
    if len(names) == 1:
        return names[0]
    if not names and any((tables.root / projection).is_dir() for projection in PROJECTIONS):
        return "origin"
    found = f"tables of {' and '.join(names)}" if names else "no table with a known name"
    raise OptionError(f"{tables.root} holds {found}; name the data set with --dataset {'|'.join(DATA_SETS)}")


def sources_of(found: FoundExams) -> list[ExamSource]:
    """The exams of a data set that have image files, ready to be prepared."""
    sources = []
    for exam in found.data.exams:
        records = {
            projection: ImageRecord(
                exam.exam_id,
                exam.patient_id,
                projection,
                found.files[exam.exam_id, projection],
                exam.category,
                exam.split,
                exam.breast_categories.get(projection.laterality),
            )
            for projection in exam.images
            if (exam.exam_id, projection) in found.files
        }
        if records:
            facts = dict(exam.facts)
            sources.append(ExamSource(exam.exam_id, exam.patient_id, records, exam.category, exam.split, facts))
    return sources
