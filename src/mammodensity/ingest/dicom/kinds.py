"""What kind of file it is: another modality, tomosynthesis, a specimen, a part of the breast; by header alone."""

from __future__ import annotations

from collections.abc import Iterator

from mammodensity.ingest.dicom.headers import Header, say
from mammodensity.ingest.dicom.projection import DESCRIPTIONS
from mammodensity.ingest.dicom.verdicts import Reason
from mammodensity.ingest.dicom.views import BIOPSY_WORDS, DERIVED_WORDS, SPECIMEN_WORDS, SYNTHETIC_WORDS

CAPTURES = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3")
_DIRECTORY = "1.2.840.10008.1.3.10"
_MG = "1.2.840.10008.5.1.4.1.1.1.2"
_MG_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
_TOMO = (
    "1.2.840.10008.5.1.4.1.1.13.1.3",  # Breast Tomosynthesis
    "1.2.840.10008.5.1.4.1.1.13.1.4",  # Breast Projection, for presentation
    "1.2.840.10008.5.1.4.1.1.13.1.5",  # Breast Projection, for processing
)
_OTHER_X_RAY = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1")  # CR and DX, met with Modality MG
_REDUCED_PX = 1000  # no detector has fewer pixels along its longer side
_SMALLEST_FIELD_MM = 130.0  # longer side; the smallest screening detector is 180 x 240 mm, biopsy fields about 50 x 50


def kind_reasons(header: Header, *, synthetic: bool, listed: bool) -> Iterator[Reason]:
    """``listed``: a table of mammograms names the file, which is enough where the header tells no modality at all."""
    sop, modality = header.text("SOPClassUID"), header.text("Modality")
    if sop == _DIRECTORY:
        yield Reason("dicomdir", say(header, "an index of files; give the folder it lies in"))
        return
    mammographic = sop in (_MG, _MG_PROCESSING, *_TOMO)
    untold = listed and not sop and not modality
    if modality not in ("MG", "") or not (mammographic or modality == "MG" or untold):
        yield Reason("not-mammography", say(header, f"its modality is {modality[:16] or 'not given'}; expected MG"))
        return
    if sop and not (mammographic or sop in CAPTURES or sop in _OTHER_X_RAY):
        yield Reason("not-mammography", say(header, "its SOP class is not one of mammography images"))
        return
    if "FOR PROCESSING" in header.text("PresentationIntentType") or sop == _MG_PROCESSING or sop == _TOMO[2]:
        yield Reason("for-processing", say(header, "raw detector values; export the images FOR PRESENTATION"))
    yield from _tomo_reasons(header, sop, synthetic=synthetic)
    yield from _purpose_reasons(header)


def is_synthetic(header: Header) -> bool:
    """True for a 2-D image computed from tomosynthesis."""
    types = header.text("ImageType").split("\\")
    generated = any("GENERATED_2D" in word or word.startswith("SYNTHE") for word in types)
    return generated or bool(SYNTHETIC_WORDS.search(header.text("SeriesDescription").replace("_", " ")))


def _tomo_reasons(header: Header, sop: str, *, synthetic: bool) -> Iterator[Reason]:
    types = header.text("ImageType").split("\\")
    frames = header.whole("NumberOfFrames") or 1
    described = header.text("SeriesDescription")
    if is_synthetic(header) and frames == 1:
        if not synthetic:
            yield Reason("synthetic-2d", say(header, "computed from tomosynthesis; --synthetic accepts such images"))
    elif (
        sop in _TOMO
        or any(word.startswith("TOMO") for word in types)
        or header.text("VolumeBasedCalculationTechnique") == "TOMOSYNTHESIS"
        or ("TOMOSYNTHESIS" in described and ("RECON" in described or "PROJ" in described or "SLICE" in described))
    ):
        yield Reason("tomosynthesis", say(header, "tomosynthesis; give the 2-D mammogram"))
        return
    if frames > 1:
        yield Reason("multi-frame", say(header, f"{frames} frames; expected one image a file"))
    elif frames < 1:
        yield Reason("damaged", say(header, f"{frames} frames; expected one"))


def _purpose_reasons(header: Header) -> Iterator[Reason]:
    if header.text("QualityControlImage") == "YES" or header.text("CalibrationImage") == "YES":
        yield Reason("quality-control", say(header, "a test or calibration image"))
    words = " ".join(header.text(keyword) for keyword in (*DESCRIPTIONS, "PaddleDescription")).replace("_", " ")
    types = header.text("ImageType").split("\\")
    if header.items("SpecimenDescriptionSequence") or SPECIMEN_WORDS.search(words) or "SPECIMEN" in types:
        yield Reason("specimen", say(header, "an image of a specimen"))
    if (
        any(word.startswith(("STEREO", "BIOPSY")) for word in types)
        or header.text("DetectorMode") == "STEREO"
        or header.text("PositionerType").startswith("STEREO")
        or BIOPSY_WORDS.search(words)
    ):
        yield Reason("biopsy", say(header, "an image of a biopsy or localisation"))
    if header.text("PartialView") == "YES":
        yield Reason("partial-breast", say(header, "a partial view of the breast"))
    elif DERIVED_WORDS.search(words):
        yield Reason("partial-breast", say(header, "a crop or mask made from a mammogram"))
    field = field_mm(header)
    if field is not None and 0 < max(field) < _SMALLEST_FIELD_MM:
        shown = f"{field[0]:.0f} x {field[1]:.0f} mm"
        yield Reason("partial-breast", say(header, f"its field is {shown}; a screening view is 180 x 240 mm or more"))


def field_mm(header: Header) -> tuple[float, float] | None:
    """Height and width of the field at the detector, as stated or by the pixels; None where neither tells.

    Of reduced copies the pixels tell nothing: their spacing is often that of the original.
    """
    wide, high = header.number("FieldOfViewDimensions", 0), header.number("FieldOfViewDimensions", 1)
    if wide and high and wide > 0 and high > 0:
        return high, wide
    rows, columns = header.whole("Rows"), header.whole("Columns")
    down, across = header.number("ImagerPixelSpacing", 0), header.number("ImagerPixelSpacing", 1)
    if not (rows and columns and down and across) or max(rows, columns) < _REDUCED_PX:
        return None
    return rows * down, columns * across
