"""RSNA Screening Mammography Breast Cancer Detection: ``train.csv``, one row an image.

The table has no exams: all images of a patient count as one exam. Views other than CC and MLO occur (AT, LM, ML, LMO).
Some patients have more than four images, and the table gives no reason to prefer one of two. ``test.csv`` has no
density and is not read.
"""

from __future__ import annotations

from pathlib import Path

from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import TableRow, find_table, plain_number, read_table

TABLES = r"train\.csv"
_COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "density")
_OPTIONAL = ("age", "implant", "machine_id")


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams from the table."""
    table = find_table(tables, TABLES, _COLUMNS, "RSNA table train.csv")
    tally = Tally()
    rows = [_row(row, tally) for row in read_table(table, _COLUMNS, _OPTIONAL)]
    return assemble("rsna", [table], rows, tally, choice="the lowest image_id")


def _row(row: TableRow, tally: Tally) -> ImageRow:
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


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``train_images/<patient>/<image>.dcm``, or a converted ``<patient>_<image>.png``."""
    images = files.images_with_stem(entry.image)
    inside = [path for path in images if path.parent.name == exam.patient_id]
    return next(iter([*inside, *images, *files.images_with_stem(f"{exam.patient_id}_{entry.image}")]), None)
