"""EMBED (Emory Breast Imaging Dataset): a clinical table, a row a finding, and a metadata table, a row an image.

Density (``tissueden`` 1 to 4, 5 for men) is that of the whole exam. Full-field images, synthetic two-dimensional ones
from tomosynthesis (``cview``) and screen captures are told apart by ``FinalImageType``; only ``2D`` is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mammodensity.data.public import spreadsheets as values
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import TableRow, find_tables, read_table
from mammodensity.terms import DensityCategory

TABLES = r"embed.*(clinical|metadata).*\.csv"
_CLINICAL_COLUMNS = ("empi_anon", "acc_anon", "tissueden")
_CLINICAL_OPTIONAL = ("age_at_study",)
_SIDE = "ImageLateralityFinal|ImageLaterality"
_COLUMNS = ("empi_anon", "acc_anon", "anon_dicom_path", "FinalImageType", _SIDE, "ViewPosition")
_OPTIONAL = ("spot_mag", "Manufacturer", "ManufacturerModelName")
_MALE = "5"
_MEANING = {**values.NUMBERS, _MALE: None}
_NO_SPOT = {"", "0", "FALSE"}


@dataclass
class _Clinical:
    """What the clinical table says of one exam."""

    patients: set[str] = field(default_factory=set)
    densities: set[DensityCategory] = field(default_factory=set)
    male: bool = False
    age: str = ""


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams; ``data`` is not needed."""
    clinical_table = _shortest(find_tables(tables, r".*clinical.*\.csv", _CLINICAL_COLUMNS, "EMBED clinical table"))
    table = _shortest(find_tables(tables, r".*metadata.*\.csv", _COLUMNS, "EMBED metadata table"))
    left_out, notes = Tally(), Tally()
    clinical = _read_clinical(clinical_table)
    rows = list(_rows(table, clinical, left_out))
    with_images = {row.exam_id for row in rows}
    notes.add("no-metadata", "in the clinical table, without a usable image", len(set(clinical) - with_images), "exams")
    choice = "the first by path, as nothing tells one series from another"
    return assemble("embed", [clinical_table, table], rows, left_out, notes, per_breast=False, choice=choice)


def _shortest(paths: list[Path]) -> Path:
    """The whole table; beside it lies one with ``_reduced`` in its name, which has fewer columns."""
    return min(paths, key=lambda path: (len(path.name), str(path)))


def _read_clinical(table: Path) -> dict[str, _Clinical]:
    exams: dict[str, _Clinical] = {}
    for row in read_table(table, _CLINICAL_COLUMNS, _CLINICAL_OPTIONAL):
        exam = exams.setdefault(values.plain_number(row.needed("acc_anon")), _Clinical())
        exam.patients.add(values.plain_number(row.needed("empi_anon")))
        exam.densities |= values.density(row, "tissueden", _MEANING)
        exam.male = exam.male or values.plain_number(row["tissueden"]) == _MALE
        exam.age = exam.age or values.text_or_blank(row["age_at_study"])
    return exams


def _rows(table: Path, clinical: dict[str, _Clinical], left_out: Tally) -> Iterator[ImageRow]:
    for row in read_table(table, _COLUMNS, _OPTIONAL):
        exam_id = values.plain_number(row.needed("acc_anon"))
        exam = clinical.get(exam_id, _Clinical())
        kind = row["FinalImageType"]
        if kind.upper() != "2D":
            left_out.add("image-type", f"the image type is {kind or 'blank'}, not 2D")
        elif values.plain_number(row["spot_mag"]).upper() not in _NO_SPOT and values.text_or_blank(row["spot_mag"]):
            left_out.add("spot-magnification", "spot or magnification image")
        elif exam.male:
            left_out.add("male", "tissueden 5: a man")
        elif exam.patients - {values.plain_number(row.needed("empi_anon"))}:
            left_out.add("two-patients", "the clinical table names another patient for the exam")
        elif not row["anon_dicom_path"]:
            left_out.add("no-file", "anon_dicom_path is blank")
        else:
            yield _row(row, exam_id, exam)


def _row(row: TableRow, exam_id: str, exam: _Clinical) -> ImageRow:
    return ImageRow(
        exam_id=exam_id,
        patient_id=values.plain_number(row.needed("empi_anon")),
        image=row["anon_dicom_path"],
        laterality=values.laterality(row, _SIDE.split("|", maxsplit=1)[0]),
        view=values.text_or_blank(row["ViewPosition"]),
        densities=frozenset(exam.densities),
        facts={"age": exam.age, "vendor": row["Manufacturer"], "model": row["ManufacturerModelName"]},
    )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """By the file's name, and of several the one whose folders agree with the end of ``anon_dicom_path`` longest."""
    wanted = PurePosixPath(entry.image.replace("\\", "/"))
    found = files.images_with_stem(wanted.stem)

    def agreement(path: Path) -> int:
        pairs = zip(reversed(path.parent.parts), reversed(wanted.parent.parts), strict=False)
        count = 0
        for here, there in pairs:
            if here != there:
                break
            count += 1
        return count

    return max(found, key=agreement, default=None)
