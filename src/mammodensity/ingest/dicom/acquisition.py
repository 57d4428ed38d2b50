"""What a header says of how an image was made, without saying of whom."""

from __future__ import annotations

import re
from pathlib import Path

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.headers import looks_like_dicom, read_header


def acquisition_facts(path: Path) -> dict[str, str]:
    """Vendor, model, compressed thickness (mm) and age (years) of a DICOM file; empty for other files.

    From Manufacturer (0008,0070), Manufacturer's Model Name (0008,1090), Body Part Thickness (0018,11A0) and
    Patient's Age (0010,1010).
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
    }
