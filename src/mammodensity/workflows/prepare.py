"""Prepare a training set from an archive or a public data set: list its exams, then write pictures and a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.data.dataset import (
    DataSet,
    ExamSource,
    ImageRecord,
    exam_sources,
    found_images,
    refused_files,
)
from mammodensity.data.dicom.file_checks import FileCheck
from mammodensity.data.find import find_images
from mammodensity.data.public.adapters import (
    ADAPTERS,
    ColumnSpec,
    any_table,
    column_spec,
)
from mammodensity.data.public.assemble import PublicData, PublicExam, of_scale, without_unlabelled
from mammodensity.data.public.image_files import FileList
from mammodensity.errors import LayoutError, OptionError
from mammodensity.outputs import require_apart
from mammodensity.terms import CATEGORIES, DENSITY, PROJECTIONS, TISSUE, Category, Projection
from mammodensity.workers import Progress
from mammodensity.workflows.training_set import ExportSpec, Prepared, export_exams, read_preprocess

DATA_SETS = (*ADAPTERS, "csv")
NO_CATEGORY = "none"


@dataclass(frozen=True)
class FoundExams:
    """The exams that the tables of a public data set name, and the files of their images, as far as they are there."""

    root: Path
    data: PublicData
    files: Mapping[tuple[str, Projection], Path]
    """By exam and projection; an image that is absent is not in it."""

    def summary(self) -> dict[str, Any]:
        """Count exams, images and files, and what was left out, as JSON values."""
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


@dataclass(frozen=True, eq=False)
class ExamList:
    """The exams that `prepare` makes a training set of."""

    root: Path
    sources: list[ExamSource]
    """Exams with image files."""
    refused: list[FileCheck]
    """Files that are not used."""
    tables: FoundExams | None
    """The exams in the tables of a public data set; None where there are none."""
    values: dict[str, Any]
    """JSON values: the data set, its exams, and a summary."""

    @property
    def files(self) -> list[Path]:
        """The images of all exams."""
        records = (record for exam in self.sources for record in exam.records.values())
        return [path for record in records for path, _ in record.candidates]


def prepare(
    data: ExamList | Path | str,
    out: Path | str,
    *,
    dataset: str | None = None,
    tables: Path | str | None = None,
    columns: str | None = None,
    values: str | None = None,
    keep_unlabelled: bool = False,
    spec: PreprocessSpec | Path | None = None,
    salt: str = "",
    keep_names: bool = False,
    synthetic: bool = False,
    resume: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make a training set: cropped pictures in INFN's folders, ``manifest.csv``, and ``refused.csv``.

    Names of exams and patients become keys, and dates are shifted, unless ``keep_names`` asks to keep them.

    Parameters
    ----------
    data
        An archive, a data set or a public data set; or its exams as `list_exams` lists them.
    out
        A new folder.
    dataset, tables, columns, values, keep_unlabelled, synthetic
        As of `list_exams`.
    spec
        Crop, muscle, background and depth of the pictures, or a JSON file with some of them.
    salt
        A secret that goes into the keys; by default drawn, and forgotten at the end.
    keep_names
        Keep the names of exams and patients, and dates.
    resume
        Go on with an interrupted run.
    workers
        Processes; by default as many as there are cores.
    progress
        Called with how many exams are prepared and how many there are.

    Raises
    ------
    OptionError
        An option makes no sense.
    LayoutError, TableError
        The data are not there or not as expected.
    OutputError, CheckpointError, Interrupted
        As of `mammodensity.workflows.training_set.export_exams`.
    """
    folder = Path(out)
    require_apart(folder, data.root if isinstance(data, ExamList) else Path(data))
    preprocess = spec if isinstance(spec, PreprocessSpec) else read_preprocess(spec)
    if not isinstance(data, ExamList):
        data = list_exams(
            data,
            dataset=dataset,
            tables=tables,
            columns=columns,
            values=values,
            keep_unlabelled=keep_unlabelled,
            synthetic=synthetic,
        )
    if not data.sources:
        raise LayoutError(
            f"{data.root} holds no image file of the exams in its tables; expected them beside or below it"
        )
    return export_exams(
        data.sources,
        folder,
        ExportSpec(preprocess, salt, keep_names),
        refused=data.refused,
        resume=resume,
        workers=workers,
        progress=progress,
    )


def list_exams(
    data: Path | str,
    *,
    dataset: str | None = None,
    tables: Path | str | None = None,
    columns: str | None = None,
    values: str | None = None,
    keep_unlabelled: bool = False,
    synthetic: bool = False,
    by_name: bool = False,
    progress: Progress | None = None,
) -> ExamList:
    """List the exams of a data set, by its tables if it has some, else by headers and names; no pixel is read.

    Parameters
    ----------
    data
        The folder of an archive or a data set, or its table.
    dataset
        One of `DATA_SETS`; None finds it out from the names of the tables.
    tables
        Folder (or file) of the tables, if it is not ``data``.
    columns, values
        For ``csv``: which column is what (``exam_id=StudyID,density=acr``), and which value means what
        (``1=A,2=B,9=``).
    keep_unlabelled
        Keep exams without a category.
    synthetic
        Accept 2-D images computed from tomosynthesis.
    by_name
        Take INFN's folders for a public data set, too, and ask for the name of one that is not known.
    progress
        Called with how many exams are looked up and how many there are.

    Raises
    ------
    OptionError
        An unknown data set, or one whose tables are not recognised, or columns for another one than ``csv``.
    LayoutError, TableError
        The data are not there or not as expected.
    """
    root = Path(data)
    mapping = column_spec(columns, values) if columns or values else None
    if not (dataset or mapping or tables or holds_known_tables(root)):
        images = _find_untabled(root, synthetic=synthetic, by_name=by_name)
        if images is not None:
            return ExamList(root, exam_sources(images), refused_files(images), None, found_images(images))
    public = find_exams(
        root,
        dataset,
        tables=Path(tables) if tables else None,
        columns=mapping,
        keep_unlabelled=keep_unlabelled,
        progress=progress,
    )
    return ExamList(root, sources_of(public), [], public, public.to_dict())


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
        An unknown data set, one whose tables are not recognised, or columns for another one than ``csv``.
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
    adapter = any_table(columns or ColumnSpec()) if name == "csv" else ADAPTERS[name]
    public = adapter.read(sources, images)
    if not keep_unlabelled:
        public = without_unlabelled(public)
    files = {}
    for done, exam in enumerate(public.exams, start=1):
        for projection, entry in exam.images.items():
            if (path := adapter.locate(images, exam, entry)) is not None:
                files[exam.exam_id, projection] = path
        if progress:
            progress(done, len(public.exams))
    return FoundExams(images.root, public, files)


def holds_known_tables(data: Path) -> bool:
    """True when the tables of a public data set lie in a folder."""
    if not data.is_dir():
        return False
    files = FileList(data)
    return any(files.named(adapter.tables) for adapter in ADAPTERS.values())


def _find_untabled(data: Path, *, synthetic: bool, by_name: bool) -> DataSet | None:
    """Find the images of a data set that no table describes; None where only the name of the data set can tell.

    Raises
    ------
    LayoutError
        There is no arrangement that is known.
    """
    if by_name and any((data / projection).is_dir() for projection in PROJECTIONS):
        return None  # INFN's folders, which are a public data set by name
    try:
        return find_images(data, synthetic=synthetic)
    except LayoutError:
        if by_name:
            return None
        raise


def _recognise(tables: FileList) -> str:
    """Name the data set by its tables, or by INFN's folders."""
    names = [name for name, adapter in ADAPTERS.items() if tables.named(adapter.tables)]
    if len(names) == 1:
        return names[0]
    if not names and any((tables.root / projection).is_dir() for projection in PROJECTIONS):
        return "origin"
    tables_found = f"tables of {' and '.join(names)}" if names else "no table with a known name"
    raise OptionError(f"{tables.root} holds {tables_found}; name the data set with --dataset {'|'.join(DATA_SETS)}")


def sources_of(exams: FoundExams) -> list[ExamSource]:
    """The exams of a data set that have image files, ready to be prepared."""
    sources = []
    for exam in exams.data.exams:
        records = {
            projection: ImageRecord(
                exam.exam_id,
                exam.patient_id,
                projection,
                exams.files[exam.exam_id, projection],
                exam.category,
                exam.split,
                exam.breast_categories.get(projection.laterality),
            )
            for projection in exam.images
            if (exam.exam_id, projection) in exams.files
        }
        if records:
            facts = dict(exam.facts)
            sources.append(ExamSource(exam.exam_id, exam.patient_id, records, exam.category, exam.split, facts))
    return sources
