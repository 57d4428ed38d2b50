"""INbreast: ``INbreast.csv`` (semicolons) or its spreadsheet, one row an image, ACR density 1 to 4.

Where the column ``Patient ID`` holds a word for a removed name, the same in every row, the table does not say which
images belong together. The names of the DICOM files do: ``<File Name>_<patient code>_MG_<side>_<view>_ANON.dcm``. Only
with these files at hand are images grouped into exams; with the table alone each image stands for itself, as nothing
is guessed from neighbouring rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from mammodensity.data.public import spreadsheets as values
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import TableRow, find_tables, read_table
from mammodensity.errors import TableError

TABLES = r"inbreast.*\.(csv|xlsx|xls)"
_COLUMNS = ("Laterality", "View", "File Name", "ACR")
_OPTIONAL = ("Patient ID", "Patient age", "Acquisition date")
_REMOVED = {"", "REMOVED", "ANONYMIZED", "ANONYMOUS"}
_NAME = re.compile(r"(?P<image>\d+)_(?P<patient>[^_]+)_MG_", re.IGNORECASE)
_SUFFIXES = (".csv", ".xlsx", ".xls")


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams; the patients come from the table or from the names of the DICOM files in ``data``."""
    found = find_tables(tables, TABLES, _COLUMNS, "INbreast table INbreast.csv, .xls or .xlsx")
    table = min(found, key=lambda path: (_SUFFIXES.index(path.suffix.lower()), str(path)))
    left_out, notes = Tally(), Tally()
    kept = [row for row in read_table(table, _COLUMNS, _OPTIONAL) if _is_image(row, left_out)]
    if not kept:
        raise TableError(f"{table} names no file in the column File Name")
    patients = _patients(kept, data)
    exams = _exam_names(kept, patients)
    notes.add(
        "patient-unknown",
        "neither the table nor a DICOM file's name tells the patient; the image is an exam of its own",
        sum(values.plain_number(row["File Name"]) not in patients for row in kept),
    )
    rows = [_row(row, patients, exams) for row in kept]
    for row in rows:
        notes.add("blank-density", "ACR is blank", not row.densities, "rows")
    return assemble("inbreast", [table], rows, left_out, notes, choice="the lowest file number")


def _is_image(row: TableRow, left_out: Tally) -> bool:
    """Whether a row names a file and its side or view; the two closing rows of totals do not."""
    if values.plain_number(row["File Name"]).isdecimal() and (row["Laterality"] or row["View"]):
        return True
    if values.text_or_blank(row["File Name"]) and row["Laterality"]:
        raise row.error("File Name", f"is {row['File Name']!r}; expected the number that the DICOM name begins with")
    left_out.add("no-file", "no file, or neither side nor view (the spreadsheet closes with rows of totals)", 1, "rows")
    return False


def _patients(rows: list[TableRow], data: FileList) -> dict[str, str]:
    """Patient of each image, where the table or a file name tells it."""
    said = {values.plain_number(row["File Name"]): row["Patient ID"] for row in rows}
    if len(rows) == 1 or len(set(said.values())) > 1:
        told = {image: patient for image, patient in said.items() if patient.upper() not in _REMOVED}
        if told:
            return told
    matches = (_NAME.match(path.name) for path in data.images)
    return {match["image"]: match["patient"] for match in matches if match and match["image"] in said}


def _exam_names(rows: list[TableRow], patients: dict[str, str]) -> dict[tuple[str, str], str]:
    """A name for each patient and acquisition date, numbered by date: the date itself is not kept."""
    dates: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if patient := patients.get(values.plain_number(row["File Name"])):
            dates[patient].add(row["Acquisition date"])
    return {
        (patient, date): f"{patient}_{number}"
        for patient, found in dates.items()
        for number, date in enumerate(sorted(found), start=1)
    }


def _row(row: TableRow, patients: dict[str, str], exams: dict[tuple[str, str], str]) -> ImageRow:
    image = values.plain_number(row["File Name"])
    patient = patients.get(image)
    age = values.plain_number(values.text_or_blank(row["Patient age"]))
    return ImageRow(
        exam_id=exams[patient, row["Acquisition date"]] if patient else image,
        patient_id=patient or image,
        image=image,
        laterality=values.laterality(row, "Laterality"),
        view=row["View"],
        densities=values.density(row, "ACR", values.NUMBERS),
        facts={"age": age if age.isdecimal() else ""},
    )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """``AllDICOMs/<number>_*.dcm``, or a converted picture whose name begins with the number."""
    return next(iter(files.images_with_prefix(entry.image)), None)
