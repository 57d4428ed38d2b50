"""INbreast: ``INbreast.csv`` (semicolons) or its spreadsheet, one row an image, ACR density 1 to 4.

In the published table the column ``Patient ID`` holds the same word in every row, for a removed name. So the table does
not tell which images belong together; the names of the DICOM files do:
``<File Name>_<patient>_MG_<side>_<view>_ANON.dcm``. Images are grouped into exams only if these files are there. From
the table alone, each image is an exam of its own, as nothing is guessed from neighbouring rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import NUMBERS, TableRow, find_tables, plain_number, read_table
from mammodensity.errors import TableError

TABLES = r"inbreast.*\.(csv|xlsx|xls)"
_COLUMNS = ("Laterality", "View", "File Name", "ACR")
_OPTIONAL = ("Patient ID", "Patient age", "Acquisition date")
_REMOVED = {"", "REMOVED", "ANONYMIZED", "ANONYMOUS"}
_NAME = re.compile(r"(?P<image>\d+)_(?P<patient>[^_]+)_MG_", re.IGNORECASE)
_SUFFIXES = (".csv", ".xlsx", ".xls")


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams; patients come from the table, or from the names of the DICOM files in ``data``."""
    paths = find_tables(tables, TABLES, _COLUMNS, "INbreast table INbreast.csv, .xls or .xlsx")
    table = min(paths, key=lambda path: (_SUFFIXES.index(path.suffix.lower()), str(path)))
    tally = Tally()
    kept = [row for row in read_table(table, _COLUMNS, _OPTIONAL) if _is_image(row, tally)]
    if not kept:
        raise TableError(f"{table} names no file in the column File Name")
    patients = _patients(kept, data)
    dates: dict[str, set[str]] = defaultdict(set)
    for row in kept:
        dates[patients.get(_image(row), "")].add(row["Acquisition date"])
    rows = [_row(row, patients.get(_image(row)), dates, tally) for row in kept]
    return assemble("inbreast", [table], rows, tally, choice="the lowest file number")


def _image(row: TableRow) -> str:
    return plain_number(row["File Name"])


def _is_image(row: TableRow, tally: Tally) -> bool:
    """Whether a row names a file and its side or view; the two closing rows of totals do not."""
    if _image(row).isdecimal() and (row["Laterality"] or row["View"]):
        return True
    if row.text("File Name") and row["Laterality"]:
        raise row.error("File Name", f"is {row['File Name']!r}; expected the number that the DICOM name begins with")
    text = "no file, or neither side nor view (the spreadsheet closes with rows of totals)"
    tally.leave_out("no-file", text, 1, "rows")
    return False


def _patients(rows: list[TableRow], data: FileList) -> dict[str, str]:
    """The patient of each image, where the table or a file name tells it."""
    stated = {_image(row): row["Patient ID"] for row in rows}
    if len(rows) == 1 or len(set(stated.values())) > 1:
        patients = {image: patient for image, patient in stated.items() if patient.upper() not in _REMOVED}
        if patients:
            return patients
    matches = (_NAME.match(path.name) for path in data.images)
    return {match["image"]: match["patient"] for match in matches if match and match["image"] in stated}


def _row(row: TableRow, patient: str | None, dates: Mapping[str, set[str]], tally: Tally) -> ImageRow:
    """The row of an image, with its exam named by patient and number of the date: the date itself is not kept."""
    image, age, categories = _image(row), row.number("Patient age"), row.density("ACR", NUMBERS)
    exam_id = f"{patient}_{sorted(dates[patient]).index(row['Acquisition date']) + 1}" if patient else image
    text = "neither the table nor a DICOM file's name tells the patient; the image is an exam of its own"
    tally.note("patient-unknown", text, not patient, "images")
    tally.note("blank-density", "ACR is blank", not categories)
    return ImageRow(
        exam_id=exam_id,
        patient_id=patient or image,
        image=image,
        laterality=row.laterality("Laterality"),
        view=row["View"],
        categories=categories,
        facts={"age": age if age.isdecimal() else ""},
    )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``AllDICOMs/<number>_*.dcm``, or a converted picture whose name begins with the number."""
    return next(iter(files.images_with_prefix(entry.image)), None)
