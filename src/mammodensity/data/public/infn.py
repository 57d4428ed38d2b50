"""The origin's folders, and whatever else ``find_images`` knows; folders or manifest give categories and splits."""

from __future__ import annotations

from pathlib import Path

from mammodensity.data.find import find_images
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.terms import DensityCategory, TissueCategory

TABLES = r"(?!)"  # no table tells this data set


def read(tables: FileList, data: FileList) -> PublicData:
    """Find the exams by their folders; ``tables`` is not needed."""
    found = find_images(data.given)
    left_out = Tally()
    left_out.add("no-image-file", "file that is no image", len(found.ignored), "files")
    rows = [
        ImageRow(
            exam_id=record.exam_id,
            patient_id=record.patient_id,
            image=str(record.path),
            laterality=record.projection.laterality,
            view=record.projection.view_position,
            densities=frozenset([record.category] if isinstance(record.category, DensityCategory) else []),
            tissue=record.category if isinstance(record.category, TissueCategory) else None,
            split=record.split,
        )
        for record in found.records
    ]
    return assemble("origin", [found.root], rows, left_out, per_breast=False)


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """The path itself."""
    path = Path(entry.image)
    return path if path.is_file() else None
