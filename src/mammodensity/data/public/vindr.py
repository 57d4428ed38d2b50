"""VinDr-Mammo: ``breast-level_annotations.csv``, one row an image.

The tables do not name patients, so each study counts as one. Density, ``DENSITY A`` to ``DENSITY D``, is that of a
breast.
"""

from __future__ import annotations

from pathlib import Path

from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import TableRow, find_table, has_columns, read_table, years

TABLES = r"breast[-_ ]level[-_ ]annotations.*\.csv"
_COLUMNS = ("study_id", "image_id", "laterality", "view_position", "breast_density", "split")
# An optional table of DICOM attributes, whose names are spelled in several ways; nothing in it is needed.
_METADATA = r"metadata.*\.csv"
_IMAGE = "SOP Instance UID"
_METADATA_IMAGE = f"{_IMAGE}|SOPInstanceUID|image_id"
_METADATA_FACTS = (
    "Patient's Age|Patient Age|PatientAge",
    "Manufacturer",
    "Manufacturer's Model Name|Manufacturer Model Name|ManufacturerModelName",
)


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams from the table."""
    table = find_table(tables, TABLES, _COLUMNS, "VinDr-Mammo table breast-level_annotations.csv")
    facts = _metadata(tables)
    rows = [_row(row, facts) for row in read_table(table, _COLUMNS, ("height", "width"))]
    return assemble("vindr", [table], rows, Tally(), choice="the larger picture, then the first by name")


def _row(row: TableRow, facts: dict[str, dict[str, str]]) -> ImageRow:
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


def _metadata(tables: FileList) -> dict[str, dict[str, str]]:
    """Facts by image, if there is a table of them."""
    paths = [path for path in tables.named(_METADATA) if has_columns(path, [_METADATA_IMAGE])]
    facts = {}
    for path in paths[:1]:
        for row in read_table(path, [_METADATA_IMAGE], _METADATA_FACTS):
            age, vendor, model = (row[names.split("|")[0]] for names in _METADATA_FACTS)
            facts[row[_IMAGE]] = {"age": years(age), "vendor": vendor, "model": model}
    return facts


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``images/<study>/<image>.dicom``, or a converted picture of that name."""
    images = files.images_with_stem(entry.image)
    inside = [path for path in images if exam.exam_id in path.parts]
    return next(iter(inside or images), None)
