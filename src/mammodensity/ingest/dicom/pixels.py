"""A DICOM file to a mammogram."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mammodensity.errors import DicomError, ImageError
from mammodensity.exam import Mammogram
from mammodensity.ingest.dicom.decoding import read_stored_values
from mammodensity.ingest.dicom.frames import read_pixel_bytes
from mammodensity.ingest.dicom.gatekeeper import judge
from mammodensity.ingest.dicom.grey_scale import rendered
from mammodensity.ingest.dicom.headers import Header, quiet, read_header
from mammodensity.ingest.dicom.orientation import orientation_warnings
from mammodensity.ingest.dicom.verdicts import WARNINGS, Reason
from mammodensity.terms import Projection


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
