"""What a header says of how and when an image was made, without saying of whom.

A DICOM file to a mammogram.
"""

from __future__ import annotations

import hashlib
import re
from datetime import date
from pathlib import Path

from mammodensity.data.dicom.decoding import read_stored_values
from mammodensity.data.dicom.file_checks import WARNINGS, Reason
from mammodensity.data.dicom.gatekeeper import judge
from mammodensity.data.dicom.grey_scale import rendered
from mammodensity.data.dicom.header import Header, looks_like_dicom, quiet, read_header
from mammodensity.data.dicom.pixel_data import read_pixel_bytes
from mammodensity.data.dicom.side_and_view import orientation_warnings
from mammodensity.errors import DicomError, ImageError
from mammodensity.exam import Mammogram
from mammodensity.terms import Projection

_FIRST_YEAR = 1900
_DATES = ("StudyDate", "AcquisitionDate", "ContentDate")


def acquisition_facts(path: Path) -> dict[str, str]:
    """Vendor, model, compressed thickness (mm), age (years) and date of a DICOM file; empty for other files.

    From Manufacturer (0008,0070), Manufacturer's Model Name (0008,1090), Body Part Thickness (0018,11A0), Patient's Age
    (0010,1010) and Study Date (0008,0020), else Acquisition Date (0008,0022) or Content Date (0008,0023).
    """
    if not looks_like_dicom(path):
        return {}
    try:
        header = read_header(path)
    except DicomError:
        return {}
    years = re.fullmatch(r"0*(\d+)Y", header.text("PatientAge"))
    thickness = re.fullmatch(r"\d+(\.\d+)?", header.text("BodyPartThickness"))
    return {
        "vendor": header.text("Manufacturer"),
        "model": header.text("ManufacturerModelName"),
        "thickness_mm": thickness[0] if thickness else "",
        "age": years[1] if years else "",
        "study_date": next(filter(None, (_day(header, keyword) for keyword in _DATES)), ""),
    }


def _day(header: Header, keyword: str) -> str:
    """A date as ``2024-03-15``; nothing where it is none, or from before there were mammograms."""
    try:
        day = date.fromisoformat(header.text(keyword).replace(".", ""))  # with dots: before DICOM 3
    except ValueError:
        return ""
    return day.isoformat() if day.year >= _FIRST_YEAR else ""


def read_dicom(path: Path, projection: Projection | None = None, *, synthetic: bool = False) -> Mammogram:
    """Read one DICOM mammogram through the gatekeeper and the whole grey-scale pipeline.

    Parameters
    ----------
    path
        The file.
    projection
        What a manifest or table says; None: as the header says.
    synthetic
        Accept a 2-D image computed from tomosynthesis.

    Returns
    -------
    16-bit pixels as stored (neither turned nor mirrored), bright where the breast attenuates much.

    Raises
    ------
    DicomError
        Refused, with the code of the first reason.
    """
    return read_with_warnings(path, projection, synthetic=synthetic)[0]


def read_with_warnings(
    path: Path, projection: Projection | None = None, *, synthetic: bool = False
) -> tuple[Mammogram, tuple[Reason, ...]]:
    """As ``read_dicom``, with everything there is to know about the image."""
    with quiet():
        return _read(path, projection, synthetic=synthetic)


def _read(path: Path, projection: Projection | None, *, synthetic: bool) -> tuple[Mammogram, tuple[Reason, ...]]:
    header = read_header(path)
    verdict = judge(header, synthetic=synthetic, stated=projection)
    verdict.require_accepted()
    assert verdict.projection is not None
    pixels = rendered(header, read_stored_values(header))
    try:
        mammogram = Mammogram(pixels, verdict.projection, spacing_mm(header), path)
    except ImageError as error:
        raise DicomError(str(error), error.code) from error
    more = list(orientation_warnings(header, verdict.projection, pixels))
    if spacing_mm(header) is None and _spacings(header) is not None:
        more.append(Reason("non-square-pixels", WARNINGS["non-square-pixels"]))
    return mammogram, (*verdict.warnings, *more)


def pixel_digest(path: Path) -> str:
    """A digest of size and stored pixel bytes, undecoded: equal for copies, whatever their headers say.

    Raises
    ------
    DicomError
        There are no pixels to read.
    """
    with quiet():
        header = read_header(path)
        _, data = read_pixel_bytes(header)
    size = f"{header.text('Rows')} {header.text('Columns')} "
    return hashlib.sha256(size.encode() + data).hexdigest()


def spacing_mm(header: Header) -> float | None:
    """Distance of pixel centres in the breast: that at the detector divided by the magnification; None if unknown."""
    found = _spacings(header)
    if found is None or abs(found[0] - found[1]) > 0.01 * found[0]:
        return None
    return found[0]


def _spacings(header: Header) -> tuple[float, float] | None:
    """Row and column spacing in mm."""
    magnification = header.number("EstimatedRadiographicMagnificationFactor") or 1.0
    if not 0.5 < magnification < 5:
        magnification = 1.0
    factors = {"ImagerPixelSpacing": magnification, "PixelSpacing": 1.0, "NominalScannedPixelSpacing": 1.0}
    for keyword, factor in factors.items():
        down, across = header.number(keyword, 0), header.number(keyword, 1)
        if down and across and 0.001 < down < 10 and 0.001 < across < 10:
            return down / factor, across / factor
    return None
