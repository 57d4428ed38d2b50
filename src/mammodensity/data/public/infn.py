"""Folders of the INFN reference, and all other arrangements that ``find_images`` knows: no table is needed."""

from __future__ import annotations

from pathlib import Path

from mammodensity.data.find import find_images
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble, of_scale
from mammodensity.data.public.image_files import FileList
from mammodensity.terms import TISSUE

TABLES = r"(?!)"  # matches nothing


def read(tables: FileList, data: FileList) -> PublicData:
    """Find the exams, with categories and splits from folders or a manifest."""
    data_set = find_images(data.source)
    tally = Tally()
    tally.leave_out("no-image-file", "file that is no image", len(data_set.ignored), "files")
    rows = [
        ImageRow(
            exam_id=record.exam_id,
            patient_id=record.patient_id,
            image=str(record.path),
            laterality=record.projection.laterality,
            view=record.projection.view_position,
            categories=frozenset([record.category] if record.category else []),
            split=record.split,
        )
        for record in data_set.records
    ]
    # Categories are those of exams; the tissue categories are listed by breast, as in mini-MIAS.
    per_breast = any(of_scale(record.category, TISSUE) for record in data_set.records)
    return assemble("origin", [data_set.root], rows, tally, per_breast=per_breast)


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """The path itself."""
    path = Path(entry.image)
    return path if path.is_file() else None
