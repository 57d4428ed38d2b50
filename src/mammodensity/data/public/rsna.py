"""RSNA Screening Mammography Breast Cancer Detection: ``train.csv``, one row an image.

The table has no exams: all images of a patient are taken for one exam. Views other than CC and MLO occur (AT, LM, ML,
LMO), and some patients have more than four images; the table has nothing by which one of two could be preferred.
``test.csv`` has no density and is not read.
"""

from __future__ import annotations

from pathlib import Path

from mammodensity.data.public import spreadsheets as values
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import TableRow, find_table, read_table

TABLES = r"train\.csv"
_COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "density")
_OPTIONAL = ("age", "implant", "machine_id")


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams; ``data`` is not needed."""
    table = find_table(tables, TABLES, _COLUMNS, "RSNA table train.csv")
    notes = Tally()
    rows = []
    for row in read_table(table, _COLUMNS, _OPTIONAL):
        rows.append(_row(row))
        site = rows[-1].facts["site"]
        if not rows[-1].densities:
            notes.add("blank-density", f"the density is blank, site {site}", 1, "rows")
        if rows[-1].facts.get("implant"):
            notes.add("implant", "the breast has an implant", 1, "rows")
    return assemble("rsna", [table], rows, Tally(), notes, choice="the lowest image_id")


def _row(row: TableRow) -> ImageRow:
    patient = values.plain_number(row.needed("patient_id"))
    implant = values.plain_number(row["implant"]).upper() in {"1", "TRUE"}
    return ImageRow(
        exam_id=patient,
        patient_id=patient,
        image=values.plain_number(row.needed("image_id")),
        laterality=values.laterality(row, "laterality"),
        view=row["view"],
        densities=values.density(row, "density"),
        facts={
            "age": values.plain_number(values.text_or_blank(row["age"])),
            "site": values.plain_number(row["site_id"]),
            "machine": values.plain_number(row["machine_id"]),
            "implant": "yes" if implant else "",
        },
    )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """``train_images/<patient>/<image>.dcm``, or a converted ``<patient>_<image>.png``."""
    found = files.images_with_stem(entry.image)
    inside = [path for path in found if path.parent.name == exam.patient_id]
    return next(iter([*inside, *found, *files.images_with_stem(f"{exam.patient_id}_{entry.image}")]), None)
