"""EMBED (Emory Breast Imaging Dataset): a clinical table, a row a finding, and a metadata table, a row an image.

Density (``tissueden`` 1 to 4, 5 for men) is that of the whole exam. ``FinalImageType`` distinguishes full-field images,
synthetic two-dimensional ones from tomosynthesis (``cview``) and screen captures; only ``2D`` is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import NUMBERS, find_tables, plain_number, read_table
from mammodensity.terms import DensityCategory

TABLES = r"embed.*(clinical|metadata).*\.csv"
_CLINICAL_COLUMNS = ("empi_anon", "acc_anon", "tissueden")
_SIDE = "ImageLateralityFinal"
_COLUMNS = ("empi_anon", "acc_anon", "anon_dicom_path", "FinalImageType", f"{_SIDE}|ImageLaterality", "ViewPosition")
_OPTIONAL = ("spot_mag", "Manufacturer", "ManufacturerModelName")
_MALE = "5"
_MEANING = {**NUMBERS, _MALE: None}
_NO_SPOT = {"", "0", "FALSE"}


@dataclass
class _Clinical:
    """The rows of the clinical table about one exam."""

    patients: set[str] = field(default_factory=set)
    densities: set[DensityCategory] = field(default_factory=set)
    male: bool = False
    age: str = ""


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams from both tables."""
    clinical_table = _shortest(find_tables(tables, r".*clinical.*\.csv", _CLINICAL_COLUMNS, "EMBED clinical table"))
    table = _shortest(find_tables(tables, r".*metadata.*\.csv", _COLUMNS, "EMBED metadata table"))
    tally = Tally()
    clinical = _read_clinical(clinical_table)
    rows = list(_rows(table, clinical, tally))
    without_image = len(set(clinical) - {row.exam_id for row in rows})
    tally.note("no-metadata", "in the clinical table, without a usable image", without_image, "exams")
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
        exam.densities |= row.density("tissueden", _MEANING)
        exam.male = exam.male or plain_number(row["tissueden"]) == _MALE
        exam.age = exam.age or row.text("age_at_study")
    return exams


def _rows(table: Path, clinical: Mapping[str, _Clinical], tally: Tally) -> Iterator[ImageRow]:
    for row in read_table(table, _COLUMNS, _OPTIONAL):
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
                laterality=row.laterality(_SIDE),
                view=row.text("ViewPosition"),
                categories=frozenset(exam.densities),
                facts={"age": exam.age, "vendor": row["Manufacturer"], "model": row["ManufacturerModelName"]},
            )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find an image by its name; of several, the one whose folders agree longest with the end of its path."""
    wanted = PurePosixPath(entry.image.replace("\\", "/"))

    def agreement(path: Path) -> int:
        pairs = zip(reversed(path.parent.parts), reversed(wanted.parent.parts), strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

    return max(files.images_with_stem(wanted.stem), key=agreement, default=None)
