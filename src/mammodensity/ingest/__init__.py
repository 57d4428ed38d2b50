"""From files to exams: DICOM archives, pictures, the origin's folders, exam folders and manifests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mammodensity.errors import LayoutError
from mammodensity.exam import Exam
from mammodensity.ingest.images import read_image, read_record
from mammodensity.ingest.layouts import find_images
from mammodensity.ingest.manifest import MANIFEST_COLUMNS, MANIFEST_NAME, read_manifest, write_manifest
from mammodensity.ingest.pictures import read_picture
from mammodensity.ingest.records import (
    SPLITS,
    Candidate,
    DataSet,
    ImageRecord,
    Refusal,
    holds_phantoms,
    reference_categories,
    reference_densities,
    require_complete,
)
from mammodensity.ingest.sources import ExamSource, exam_sources, found_images, refused_files
from mammodensity.terms import Projection

__all__ = [
    "MANIFEST_COLUMNS",
    "MANIFEST_NAME",
    "SPLITS",
    "Candidate",
    "DataSet",
    "ExamSource",
    "ImageRecord",
    "Refusal",
    "exam_sources",
    "find_images",
    "found_images",
    "holds_phantoms",
    "load_exam",
    "read_exam",
    "read_image",
    "read_manifest",
    "read_picture",
    "read_record",
    "reference_categories",
    "reference_densities",
    "refused_files",
    "require_complete",
    "write_manifest",
]


def load_exam(exam_id: str, records: Mapping[Projection, ImageRecord]) -> Exam:
    """Read the images of one exam.

    Raises
    ------
    ImageError
        An image cannot be read.
    """
    return Exam(exam_id, {projection: read_record(record) for projection, record in records.items()})


def read_exam(path: Path | str) -> Exam:
    """Read one exam: a folder of DICOM files or pictures, a DICOM file, or a picture whose name tells the projection.

    Raises
    ------
    LayoutError
        There is no exam, or more than one.
    ImageError
        An image cannot be read.
    """
    exams = find_images(path).exams()
    if len(exams) != 1:
        raise LayoutError(f"{path} holds {len(exams)} exams; expected the folder of one, use find_images for many")
    [(exam_id, records)] = exams.items()
    return load_exam(exam_id, records)
