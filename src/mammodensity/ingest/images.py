"""One image file, of whatever kind, to a mammogram: what training, prediction and explanation read with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.ingest.dicom import looks_like_dicom, read_dicom
from mammodensity.ingest.pictures import read_picture
from mammodensity.ingest.records import ImageRecord
from mammodensity.terms import Projection


def read_image(path: Path, projection: Projection | None = None, *, synthetic: bool = False) -> Mammogram:
    """Read a DICOM file (told by its content, not its name) or a picture.

    Raises
    ------
    ImageError
        It cannot be read, or the gatekeeper refuses it.
    """
    if looks_like_dicom(path):
        return read_dicom(path, projection, synthetic=synthetic)
    return read_picture(path, projection)


def read_record(record: ImageRecord) -> Mammogram:
    """Read the image of a record, or the first of its alternatives that can be read.

    Raises
    ------
    ImageError
        None of them can; what is wrong with the first.
    """
    try:
        return read_image(record.path, record.projection, synthetic=record.synthetic)
    except ImageError:
        for other in record.alternatives:
            with suppress(ImageError):
                return read_image(other.path, record.projection, synthetic=other.synthetic)
        raise
