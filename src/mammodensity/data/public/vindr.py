"""VinDr-Mammo: ``breast-level_annotations.csv``, one row an image.

The tables name no patients; each study is taken for one. Density is that of a breast, ``DENSITY A`` to ``DENSITY D``.
"""

from __future__ import annotations

from pathlib import Path

from mammodensity.data.public import spreadsheets as values
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import TableRow, find_table, has_columns, read_table

TABLES = r"breast[-_ ]level[-_ ]annotations.*\.csv"
_COLUMNS = ("study_id", "image_id", "laterality", "view_position", "breast_density", "split")
# Written from the DICOM headers, with their attribute names as columns; not needed, and lenient in all of it.
_METADATA = r"metadata.*\.csv"
_METADATA_FACTS = {
    "age": "Patient's Age|Patient Age|PatientAge",
    "vendor": "Manufacturer",
    "model": "Manufacturer's Model Name|Manufacturer Model Name|ManufacturerModelName",
}
_METADATA_IMAGE = "SOP Instance UID|SOPInstanceUID|image_id"


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams; ``data`` is not needed."""
    table = find_table(tables, TABLES, _COLUMNS, "VinDr-Mammo table breast-level_annotations.csv")
    facts = _metadata(tables)
    rows = [_row(row, facts) for row in read_table(table, _COLUMNS, ("height", "width"))]
    return assemble("vindr", [table], rows, Tally(), choice="the larger picture, then the first by name")


def _row(row: TableRow, facts: dict[str, dict[str, str]]) -> ImageRow:
    study, image = row.needed("study_id"), row.needed("image_id")
    return ImageRow(
        exam_id=study,
        patient_id=study,
        image=image,
        laterality=values.laterality(row, "laterality"),
        view=row["view_position"],
        densities=values.density(row, "breast_density"),
        split=values.split(row, "split"),
        preference=(-_pixels(row),),
        facts=facts.get(image, {}),
    )


def _pixels(row: TableRow) -> int:
    sides = [values.plain_number(row[name]) for name in ("height", "width")]
    return int(sides[0]) * int(sides[1]) if all(side.isdecimal() for side in sides) else 0


def _metadata(tables: FileList) -> dict[str, dict[str, str]]:
    """Facts by image, where there is a table of them."""
    found = [path for path in tables.named(_METADATA) if has_columns(path, [_METADATA_IMAGE])]
    facts = {}
    for path in found[:1]:
        for row in read_table(path, [_METADATA_IMAGE], list(_METADATA_FACTS.values())):
            cells = {name: row[column.split("|", maxsplit=1)[0]] for name, column in _METADATA_FACTS.items()}
            cells["age"] = values.years(cells["age"])
            facts[row[_METADATA_IMAGE.split("|", maxsplit=1)[0]]] = cells
    return facts


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """``images/<study>/<image>.dicom``, or a converted picture of that name."""
    found = files.images_with_stem(entry.image)
    inside = [path for path in found if exam.exam_id in path.parts]
    return next(iter(inside or found), None)
