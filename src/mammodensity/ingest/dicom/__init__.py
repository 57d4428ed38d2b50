"""DICOM in: headers judged by the gatekeeper, pixels through the whole grey-scale pipeline."""

from __future__ import annotations

from mammodensity.ingest.dicom.acquisition import acquisition_facts
from mammodensity.ingest.dicom.gatekeeper import judge_file
from mammodensity.ingest.dicom.headers import looks_like_dicom
from mammodensity.ingest.dicom.pixels import pixel_digest, read_dicom, read_with_warnings
from mammodensity.ingest.dicom.verdicts import REASONS, WARNINGS, Reason, Verdict

__all__ = [
    "REASONS",
    "WARNINGS",
    "Reason",
    "Verdict",
    "acquisition_facts",
    "judge_file",
    "looks_like_dicom",
    "pixel_digest",
    "read_dicom",
    "read_with_warnings",
]
