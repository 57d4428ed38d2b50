"""One image file, of whatever kind, to a mammogram: training, prediction and explanation read with this."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mammodensity.data.dataset import ImageRecord
from mammodensity.data.dicom.file_bytes import NotDicomError
from mammodensity.data.dicom.file_checks import FileCheck
from mammodensity.data.dicom.read import read_dicom
from mammodensity.data.find import find_images
from mammodensity.data.picture_files import read_picture
from mammodensity.errors import ImageError, LayoutError
from mammodensity.exam import Exam, Mammogram
from mammodensity.terms import Projection


def read_image(
    path: Path, projection: Projection | None = None, *, synthetic: bool = False, check: FileCheck | None = None
) -> Mammogram:
    """Read a DICOM file (told by its content, not its name) or a picture.

    ``check`` is the gatekeeper's verdict on the file, where there is one already: ``read_dicom`` uses its header.

    Raises
    ------
    ImageError
        It cannot be read, or the gatekeeper refuses it.
    """
    with suppress(NotDicomError):
        return read_dicom(path, projection, synthetic=synthetic, check=check)
    return read_picture(path, projection)


def read_record(record: ImageRecord) -> Mammogram:
    """Read the image of a record, or the first of its alternatives that can be read.

    Raises
    ------
    ImageError
        None of them can; the text says why the first cannot.
    """
    errors = []
    for path, check in record.candidates:
        try:
            return read_image(path, record.projection, check=check)
        except ImageError as error:
            errors.append(error)
    raise errors[0]


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
