"""Data sets of digital mammograms: VinDr-Mammo, RSNA, INbreast and EMBED. Each has tables with a row for each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mammodensity.data.picture_files import INBREAST_STEM
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import (
    NUMBERS,
    TableRow,
    find_table,
    find_tables,
    has_columns,
    plain_number,
    read_table,
    years,
)
from mammodensity.errors import TableError
from mammodensity.terms import DensityCategory

# VinDr-Mammo

VINDR_TABLES = r"breast[-_ ]level[-_ ]annotations.*\.csv"
_VINDR_COLUMNS = ("study_id", "image_id", "laterality", "view_position", "breast_density", "split")
# An optional table of DICOM attributes, whose names are spelled in several ways; nothing in it is needed.
_METADATA_TABLES = r"metadata.*\.csv"
_SOP_UID = "SOP Instance UID"
_METADATA_IMAGE = f"{_SOP_UID}|SOPInstanceUID|image_id"
_METADATA_FACTS = (
    "Patient's Age|Patient Age|PatientAge",
    "Manufacturer",
    "Manufacturer's Model Name|Manufacturer Model Name|ManufacturerModelName",
)


def read_vindr(tables: FileList, data: FileList) -> PublicData:
    """Read VinDr-Mammo: ``breast-level_annotations.csv``, one row an image.

    The tables do not name patients, so each study counts as one. Density, ``DENSITY A`` to ``DENSITY D``, is that of a
    breast.
    """
    table = find_table(tables, VINDR_TABLES, _VINDR_COLUMNS, "VinDr-Mammo table breast-level_annotations.csv")
    facts = _vindr_facts(tables)
    rows = [_vindr_row(row, facts) for row in read_table(table, _VINDR_COLUMNS, ("height", "width"))]
    return assemble("vindr", [table], rows, Tally(), choice="the larger picture, then the first by name")


def _vindr_row(row: TableRow, facts: dict[str, dict[str, str]]) -> ImageRow:
    study, image = row.needed("study_id"), row.needed("image_id")
    sides = [row.number("height"), row.number("width")]
    pixels = int(sides[0]) * int(sides[1]) if all(side.isdecimal() for side in sides) else 0
    return ImageRow(
        exam_id=study,
        patient_id=study,
        image=image,
        laterality=row.laterality("laterality"),
        view=row["view_position"],
        categories=row.density("breast_density"),
        split=row.split("split"),
        preference=(-pixels,),
        facts=facts.get(image, {}),
    )


def _vindr_facts(tables: FileList) -> dict[str, dict[str, str]]:
    """Facts by image, if there is a table of them."""
    paths = [path for path in tables.named(_METADATA_TABLES) if has_columns(path, [_METADATA_IMAGE])]
    facts = {}
    for path in paths[:1]:
        for row in read_table(path, [_METADATA_IMAGE], _METADATA_FACTS):
            age, vendor, model = (row[names.split("|")[0]] for names in _METADATA_FACTS)
            facts[row[_SOP_UID]] = {"age": years(age), "vendor": vendor, "model": model}
    return facts


def locate_vindr(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``images/<study>/<image>.dicom``, or a converted picture of that name."""
    images = files.images_with_stem(entry.image)
    inside = [path for path in images if exam.exam_id in path.parts]
    return next(iter(inside or images), None)


# RSNA

RSNA_TABLES = r"train\.csv"
_RSNA_COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "density")
_RSNA_OPTIONAL = ("age", "implant", "machine_id")


def read_rsna(tables: FileList, data: FileList) -> PublicData:
    """Read RSNA Screening Mammography Breast Cancer Detection: ``train.csv``, one row an image.

    The table has no exams: all images of a patient count as one exam. Views other than CC and MLO occur (AT, LM, ML,
    LMO). Some patients have more than four images, and the table gives no reason to prefer one of two. ``test.csv`` has
    no density and is not read.
    """
    table = find_table(tables, RSNA_TABLES, _RSNA_COLUMNS, "RSNA table train.csv")
    tally = Tally()
    rows = [_rsna_row(row, tally) for row in read_table(table, _RSNA_COLUMNS, _RSNA_OPTIONAL)]
    return assemble("rsna", [table], rows, tally, choice="the lowest image_id")


def _rsna_row(row: TableRow, tally: Tally) -> ImageRow:
    patient, site = row.identifier("patient_id"), plain_number(row["site_id"])
    implant = plain_number(row["implant"]).upper() in {"1", "TRUE"}
    image = ImageRow(
        exam_id=patient,
        patient_id=patient,
        image=row.identifier("image_id"),
        laterality=row.laterality("laterality"),
        view=row["view"],
        categories=row.density("density"),
        facts={
            "age": row.number("age"),
            "site": site,
            "machine": plain_number(row["machine_id"]),
            "implant": "yes" if implant else "",
        },
    )
    tally.note("blank-density", f"the density is blank, site {site}", not image.categories)
    tally.note("implant", "the breast has an implant", implant)
    return image


def locate_rsna(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``train_images/<patient>/<image>.dcm``, or a converted ``<patient>_<image>.png``."""
    images = files.images_with_stem(entry.image)
    inside = [path for path in images if path.parent.name == exam.patient_id]
    return next(iter([*inside, *images, *files.images_with_stem(f"{exam.patient_id}_{entry.image}")]), None)


# INbreast

INBREAST_TABLES = r"inbreast.*\.(csv|xlsx|xls)"
_INBREAST_COLUMNS = ("Laterality", "View", "File Name", "ACR")
_INBREAST_OPTIONAL = ("Patient ID", "Patient age", "Acquisition date")
_REMOVED_NAMES = {"", "REMOVED", "ANONYMIZED", "ANONYMOUS"}
_INBREAST_VIEWS = {"ML": "MLO"}
_INBREAST_SUFFIXES = (".csv", ".xlsx", ".xls")


def read_inbreast(tables: FileList, data: FileList) -> PublicData:
    """Read INbreast: ``INbreast.csv`` (semicolons) or its spreadsheet, one row an image, ACR density 1 to 4.

    In the published table the column ``Patient ID`` holds the same word in every row, for a removed name. So the table
    does not say which images belong together; the names of the DICOM files in ``data`` do:
    ``<File Name>_<patient>_MG_<side>_<view>_ANON.dcm``. Images are grouped into exams only if these files are there.
    From the table alone, each image is an exam of its own, as nothing is guessed from neighbouring rows. All views are
    CC or MLO; ML in a name or cell means MLO.
    """
    paths = find_tables(tables, INBREAST_TABLES, _INBREAST_COLUMNS, "INbreast table INbreast.csv, .xls or .xlsx")
    table = min(paths, key=lambda path: (_INBREAST_SUFFIXES.index(path.suffix.lower()), str(path)))
    tally = Tally()
    kept = [row for row in read_table(table, _INBREAST_COLUMNS, _INBREAST_OPTIONAL) if _is_inbreast_image(row, tally)]
    if not kept:
        raise TableError(f"{table} names no file in the column File Name")
    patients = _inbreast_patients(kept, data)
    dates: dict[str, set[str]] = defaultdict(set)
    for row in kept:
        dates[patients.get(_inbreast_image(row), "")].add(row["Acquisition date"])
    rows = [_inbreast_row(row, patients.get(_inbreast_image(row)), dates, tally) for row in kept]
    return assemble("inbreast", [table], rows, tally, choice="the lowest file number")


def _inbreast_image(row: TableRow) -> str:
    return plain_number(row["File Name"])


def _is_inbreast_image(row: TableRow, tally: Tally) -> bool:
    """True when a row names a file and its side or view; the two closing rows do not: one is empty, one has totals."""
    if _inbreast_image(row).isdecimal() and (row["Laterality"] or row["View"]):
        return True
    if row.text("File Name") and row["Laterality"]:
        raise row.error("File Name", f"is {row['File Name']!r}; expected the number that the DICOM name begins with")
    text = "no file, or neither side nor view (the spreadsheet closes with an empty row and one of totals)"
    tally.leave_out("no-file", text, 1, "rows")
    return False


def _inbreast_patients(rows: list[TableRow], data: FileList) -> dict[str, str]:
    """The patient of each image, where the table or a file name tells it."""
    stated = {_inbreast_image(row): row["Patient ID"] for row in rows}
    if len(rows) == 1 or len(set(stated.values())) > 1:
        patients = {image: patient for image, patient in stated.items() if patient.upper() not in _REMOVED_NAMES}
        if patients:
            return patients
    matches = (INBREAST_STEM.fullmatch(path.stem) for path in data.images)
    return {match["image"]: match["patient"] for match in matches if match and match["image"] in stated}


def _inbreast_row(row: TableRow, patient: str | None, dates: Mapping[str, set[str]], tally: Tally) -> ImageRow:
    """The row of an image, with its exam named by patient and number of the date: the date itself is not kept."""
    image, age, categories = _inbreast_image(row), row.number("Patient age"), row.density("ACR", NUMBERS)
    exam_id = f"{patient}_{sorted(dates[patient]).index(row['Acquisition date']) + 1}" if patient else image
    text = "neither the table nor a DICOM file's name tells the patient; the image is an exam of its own"
    tally.note("patient-unknown", text, not patient, "images")
    tally.note("blank-density", "ACR is blank", not categories)
    return ImageRow(
        exam_id=exam_id,
        patient_id=patient or image,
        image=image,
        laterality=row.laterality("Laterality"),
        view=_INBREAST_VIEWS.get(row["View"].upper(), row["View"]),
        categories=categories,
        facts={"age": age if age.isdecimal() else ""},
    )


def locate_inbreast(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``AllDICOMs/<number>_*.dcm``, or a converted picture whose name begins with the number."""
    return next(iter(files.images_with_prefix(entry.image)), None)


# EMBED, the Emory Breast Imaging Dataset

EMBED_TABLES = r"embed.*(clinical|metadata).*\.csv"
_CLINICAL_COLUMNS = ("empi_anon", "acc_anon", "tissueden")
_EMBED_SIDE = "ImageLateralityFinal"
_METADATA_COLUMNS = (
    "empi_anon",
    "acc_anon",
    "anon_dicom_path",
    "FinalImageType",
    f"{_EMBED_SIDE}|ImageLaterality",
    "ViewPosition",
)
_METADATA_OPTIONAL = ("spot_mag", "Manufacturer", "ManufacturerModelName")
_MALE = "5"
_TISSUEDEN = {**NUMBERS, _MALE: None}
_NO_SPOT = {"", "0", "FALSE"}


@dataclass
class _Clinical:
    """The rows of the clinical table about one exam."""

    patients: set[str] = field(default_factory=set)
    densities: set[DensityCategory] = field(default_factory=set)
    male: bool = False
    age: str = ""


def read_embed(tables: FileList, data: FileList) -> PublicData:
    """Read EMBED: a clinical table, a row a finding, and a metadata table, a row an image.

    Density (``tissueden`` 1 to 4, 5 for men) is that of the whole exam. ``FinalImageType`` distinguishes full-field
    images, synthetic two-dimensional ones from tomosynthesis (``cview``) and screen captures; only ``2D`` is taken.
    """
    clinical_table = _shortest(find_tables(tables, r".*clinical.*\.csv", _CLINICAL_COLUMNS, "EMBED clinical table"))
    table = _shortest(find_tables(tables, r".*metadata.*\.csv", _METADATA_COLUMNS, "EMBED metadata table"))
    tally = Tally()
    clinical = _read_clinical(clinical_table)
    rows = list(_embed_rows(table, clinical, tally))
    women = {exam_id for exam_id, exam in clinical.items() if not exam.male}
    without_image = len(women - {row.exam_id for row in rows})
    tally.note("no-metadata", "women in the clinical table without a usable image", without_image, "exams")
    choice = "the first by path, as nothing tells one series from another"
    return assemble("embed", [clinical_table, table], rows, tally, per_breast=False, choice=choice)


def _shortest(paths: list[Path]) -> Path:
    """The whole table; one with ``_reduced`` in its name has fewer columns."""
    return min(paths, key=lambda path: (len(path.name), str(path)))


def _read_clinical(table: Path) -> Mapping[str, _Clinical]:
    exams: dict[str, _Clinical] = defaultdict(_Clinical)
    for row in read_table(table, _CLINICAL_COLUMNS, ("age_at_study",)):
        exam = exams[row.identifier("acc_anon")]
        exam.patients.add(row.identifier("empi_anon"))
        exam.densities |= row.density("tissueden", _TISSUEDEN)
        exam.male = exam.male or plain_number(row["tissueden"]) == _MALE
        exam.age = exam.age or row.text("age_at_study")
    return exams


def _embed_rows(table: Path, clinical: Mapping[str, _Clinical], tally: Tally) -> Iterator[ImageRow]:
    for row in read_table(table, _METADATA_COLUMNS, _METADATA_OPTIONAL):
        exam_id = row.identifier("acc_anon")
        exam = clinical.get(exam_id, _Clinical())
        kind = row["FinalImageType"]
        if kind.upper() != "2D":
            tally.leave_out("image-type", f"the image type is {kind or 'blank'}, not 2D")
        elif row.number("spot_mag").upper() not in _NO_SPOT:
            tally.leave_out("spot-magnification", "spot or magnification image")
        elif exam.male:
            tally.leave_out("male", "tissueden 5: a man")
        elif exam.patients - {row.identifier("empi_anon")}:
            tally.leave_out("two-patients", "the clinical table names another patient for the exam")
        elif not row["anon_dicom_path"]:
            tally.leave_out("no-file", "anon_dicom_path is blank")
        else:
            yield ImageRow(
                exam_id=exam_id,
                patient_id=row.identifier("empi_anon"),
                image=row["anon_dicom_path"],
                laterality=row.laterality(_EMBED_SIDE),
                view=row.text("ViewPosition"),
                categories=frozenset(exam.densities),
                facts={"age": exam.age, "vendor": row["Manufacturer"], "model": row["ManufacturerModelName"]},
            )


def locate_embed(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find an image by its name; of several, the one whose folders agree longest with the end of its path."""
    wanted = PurePosixPath(entry.image.replace("\\", "/"))
    return files.closest(files.images_with_stem(wanted.stem), wanted)
