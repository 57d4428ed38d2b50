"""The gatekeeper's verdict on a file, and the one list of its codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mammodensity.errors import DicomError
from mammodensity.terms import Projection

if TYPE_CHECKING:
    from mammodensity.data.dicom.header import Header

REASONS = {
    "not-dicom": "no DICOM file and no picture",
    "dicomdir": "an index of files, no image",
    "damaged": "cut short, empty, or bytes that cannot be followed",
    "unreadable-folder": "a folder that cannot be listed",
    "not-mammography": "another modality, or no image of a breast",
    "for-processing": "raw detector values, not for presentation",
    "tomosynthesis": "a tomosynthesis volume, slice or projection",
    "synthetic-2d": "a 2-D image computed from tomosynthesis",
    "non-screening-view": "neither CC nor MLO, or spot, magnified, rolled, exaggerated",
    "specimen": "an image of a specimen",
    "biopsy": "an image of a biopsy or localisation",
    "contrast-enhanced": "a subtracted, recombined or high-energy image of a contrast examination",
    "partial-breast": "a part of the breast only",
    "quality-control": "a test or calibration image",
    "missing-laterality": "nothing says which breast",
    "contradictory-laterality": "places of the header, or header and pixels, disagree on the breast",
    "turned": "stored upside down or turned by a quarter",
    "missing-view": "nothing says which view",
    "contradictory-view": "places of the header, or header and pixels, disagree on the view",
    "several-patients": "its exam holds images of several Patient IDs",
    "no-pixels": "no Pixel Data",
    "multi-frame": "more than one frame",
    "colour": "a colour image",
    "depth": "a number of bits that no mammogram has, or values that need more",
    "missing-tag": "an element is absent without which pixels cannot be read",
    "grey-scale": "rescale, window or look-up table that make no sense",
    "unsupported-syntax": "no installed decoder reads the transfer syntax",
    "absurd-size": "sides or length that no mammogram has",
    "constant": "all pixels have one value",
    "no-breast": "no breast was found in the pixels",
    "no-mammogram": "the pixels are no mammogram's",
    "inverted": "the background is brighter than the breast",
}
"""Meaning of each code of a refusal; the codes are stable, ``docs/dicom.md`` explains them."""

WARNINGS = {
    "implant": "Breast Implant Present is YES",
    "implant-displaced": "the implant is pushed back",
    "synthetic-2d": "computed from tomosynthesis, accepted because asked for",
    "no-presentation-intent": "Presentation Intent Type is absent; taken for presentation",
    "no-modality": "Modality is absent; taken from the SOP class",
    "secondary-capture": "scanned film or another secondary capture",
    "burned-in-annotation": "Burned In Annotation is YES: text in the pixels",
    "projection-from-description": "side or view known only from a description",
    "view-from-code": "View Position is absent; the view is that of the View Code Sequence",
    "view-from-orientation": "the view is written in Patient Orientation",
    "laterality-both": "Laterality, of the series, is B; Image Laterality decides",
    "stored-flipped": "the chest wall is on the other side than usual, and the header says so",
    "orientation-disagrees": "Patient Orientation does not fit the pixels",
    "lossy": "compressed with loss",
    "no-study": "Study Instance UID is absent; folder, Patient ID and Study Date count as the exam",
    "header-leniency": "preamble or transfer syntax is absent",
    "body-part": "Body Part Examined is not the breast",
    "polarity": "Presentation LUT Shape does not fit Photometric Interpretation",
    "range-in-use": "the pixels use little of the grey range in the header; what they use is scaled to black and white",
    "non-square-pixels": "pixel spacing differs between rows and columns; no spacing is used",
    "chosen-of-several": "the best of several images of its projection",
    "other-image-chosen": "usable, but another image of the same projection and exam is better by the rule",
    "doubtful-view": "the pixels look like another view than the header says",
    "duplicate": "usable, but the same image (SOP Instance and pixels) as another file",
    "instance-reused": "another image has the same SOP Instance UID and is no copy; both are kept",
    "duplicate-content": "the same pixels as another file",
}
"""Meaning of each code of a warning."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason to refuse a file, or a warning about an accepted file."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The gatekeeper's verdict on one file: accepted, or refused with reasons."""

    path: Path
    reasons: tuple[Reason, ...] = ()
    """Empty when the file is accepted."""
    warnings: tuple[Reason, ...] = ()
    projection: Projection | None = None
    exam_id: str | None = None
    """Name of the exam, with nothing of the patient in it."""
    patient_key: str = ""
    """Digest of the Patient ID; only for grouping within one run, never written."""
    issuer_key: str = ""
    """Digest of who issued that ID; the same."""
    instance: str = ""
    """Digest of the SOP Instance UID."""
    rank: tuple[int | float | str, ...] = ()
    """Orders the candidates of a projection: the largest is chosen."""
    is_dicom: bool = field(default=False, compare=False, repr=False)
    """True when the content is that of a DICOM file."""
    header: Header | None = field(default=None, compare=False, repr=False)
    """The header of an accepted file, so that reading its pixels need not parse it again; None where it is not kept."""

    @property
    def accepted(self) -> bool:
        """True when nothing speaks against the file."""
        return not self.reasons

    @property
    def marks(self) -> frozenset[str]:
        """Codes of the warnings."""
        return frozenset(warning.code for warning in self.warnings)

    @property
    def is_synthetic(self) -> bool:
        """True for a 2-D image computed from tomosynthesis, accepted because it was asked for."""
        return "synthetic-2d" in self.marks

    @property
    def unused_code(self) -> str:
        """Code of the warning that another image is taken in place of this one; empty where there is none."""
        return next((code for code in ("duplicate", "other-image-chosen") if code in self.marks), "")

    @property
    def used(self) -> bool:
        """True when the file is accepted and no other image is taken in its place."""
        return self.accepted and not self.unused_code

    def require_accepted(self) -> None:
        """Raise the first reason as an error."""
        if self.reasons:
            first = self.reasons[0]
            raise DicomError(f"{self.path} is refused [{first.code}]: {first.text}", first.code)
