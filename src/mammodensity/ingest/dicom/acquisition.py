"""What a header says of how and when an image was made, without saying of whom."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.headers import Header, looks_like_dicom, read_header

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
