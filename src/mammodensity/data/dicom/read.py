"""A DICOM file to a mammogram, with the facts of how and when it was made."""

from __future__ import annotations

import hashlib
import re
from datetime import date
from pathlib import Path

from mammodensity.data.dicom.decoding import read_stored_values
from mammodensity.data.dicom.file_checks import WARNINGS, FileCheck, Reason
from mammodensity.data.dicom.gatekeeper import judge, read_header
from mammodensity.data.dicom.grey_scale import rendered
from mammodensity.data.dicom.header import Header, quiet
from mammodensity.data.dicom.pixel_data import read_pixel_bytes
from mammodensity.data.dicom.side_and_view import orientation_warnings
from mammodensity.errors import DicomError, ImageError
from mammodensity.exam import Mammogram
from mammodensity.terms import Projection

_FIRST_YEAR = 1900
_DATES = ("StudyDate", "AcquisitionDate", "ContentDate")


def read_dicom(
    path: Path, projection: Projection | None = None, *, synthetic: bool = False, check: FileCheck | None = None
) -> Mammogram:
    """Read one DICOM mammogram through the gatekeeper and the whole grey-scale pipeline.

    Parameters
    ----------
    path
        The file.
    projection
        The projection that a manifest or table states; None: as the header says.
    synthetic
        Accept a 2-D image computed from tomosynthesis; so does a ``check`` that did.
    check
        The verdict on the file, where there is one already: its header is then neither parsed nor judged again, unless
        the file has changed since or ``projection`` is another than the verdict's.

    Returns
    -------
    16-bit pixels as stored (neither turned nor mirrored), bright where the breast attenuates much.

    Raises
    ------
    NotDicomError
        It is no DICOM file, or cannot be opened.
    DicomError
        Refused, with the code of the first reason.
    """
    return read_with_warnings(path, projection, synthetic=synthetic, check=check)[0]


def read_with_warnings(
    path: Path, projection: Projection | None = None, *, synthetic: bool = False, check: FileCheck | None = None
) -> tuple[Mammogram, tuple[Reason, ...]]:
    """Read one DICOM mammogram as ``read_dicom`` does, with the warnings on it."""
    with quiet():
        header = check.header if check else None
        if check is None or header is None or not header.is_current() or projection not in (None, check.projection):
            header = read_header(path)
            synthetic = synthetic or (check is not None and check.is_synthetic)
            check = judge(header, synthetic=synthetic, stated=projection)
            check.require_accepted()
        return _read(header, check)


def _read(header: Header, check: FileCheck) -> tuple[Mammogram, tuple[Reason, ...]]:
    assert check.projection is not None
    pixels, is_fitted = rendered(header, read_stored_values(header))
    try:
        mammogram = Mammogram(pixels, check.projection, spacing_mm(header), header.path, acquisition_facts(header))
    except ImageError as error:
        raise DicomError(str(error), error.code) from error
    more = list(orientation_warnings(header, check.projection, pixels))
    if is_fitted:
        more.append(Reason("range-in-use", WARNINGS["range-in-use"]))
    if spacing_mm(header) is None and _spacings(header) is not None:
        more.append(Reason("non-square-pixels", WARNINGS["non-square-pixels"]))
    return mammogram, (*check.warnings, *more)


def acquisition_facts(header: Header) -> dict[str, str]:
    """Facts of how and when an image was made, as texts; blank where the header does not say.

    Returns
    -------
    ``vendor`` (Manufacturer 0008,0070), ``model`` (Manufacturer's Model Name 0008,1090), ``station`` (Station Name
    0008,1010), ``thickness_mm`` (Body Part Thickness 0018,11A0), ``age`` in years (Patient's Age 0010,1010),
    ``study_date`` (Study Date 0008,0020, else Acquisition Date 0008,0022 or Content Date 0008,0023), and
    ``accession_number`` (0008,0050), which identifies a patient: show it on explicit request only.
    """
    years = re.fullmatch(r"0*(\d+)Y", header.text("PatientAge"))
    thickness = re.fullmatch(r"\d+(\.\d+)?", header.text("BodyPartThickness"))
    return {
        "vendor": header.text("Manufacturer"),
        "model": header.text("ManufacturerModelName"),
        "station": header.exact_text("StationName"),
        "thickness_mm": thickness[0] if thickness else "",
        "age": years[1] if years else "",
        "study_date": next(filter(None, (_day(header, keyword) for keyword in _DATES)), ""),
        "accession_number": header.exact_text("AccessionNumber"),
    }


def _day(header: Header, keyword: str) -> str:
    """A date as ``2024-03-15``; nothing where it is none, or from before there were mammograms."""
    try:
        day = date.fromisoformat(header.text(keyword).replace(".", ""))  # with dots: before DICOM 3
    except ValueError:
        return ""
    return day.isoformat() if day.year >= _FIRST_YEAR else ""


def pixel_digest(header: Header) -> str:
    """Digest size and stored pixel bytes, undecoded: equal for copies, whatever their headers say.

    Raises
    ------
    DicomError
        There are no pixels to read.
    """
    with quiet():
        data = read_pixel_bytes(header)
    size = f"{header.text('Rows')} {header.text('Columns')} "
    return hashlib.sha256(size.encode() + data).hexdigest()


def spacing_mm(header: Header) -> float | None:
    """Distance of pixel centres in the breast: that at the detector divided by the magnification; None if unknown."""
    spacings = _spacings(header)
    if spacings is None or abs(spacings[0] - spacings[1]) > 0.01 * spacings[0]:
        return None
    return spacings[0]


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
