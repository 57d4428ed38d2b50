"""What kind of file it is: another modality, tomosynthesis, a specimen, a part of the breast; by header alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.datadict import dictionary_description

from mammodensity.ingest.dicom.descriptions import (
    BIOPSY_WORDS,
    CONTRAST_WORDS,
    DERIVED_WORDS,
    LOW_ENERGY_WORDS,
    NO_IMAGE_WORDS,
    QUALITY_WORDS,
    SLICE_WORDS,
    SPECIMEN_WORDS,
    SYNTHETIC_WORDS,
    TOMO_WORDS,
    kind_text,
    own_text,
    text_of,
)
from mammodensity.ingest.dicom.headers import Header, say
from mammodensity.ingest.dicom.verdicts import Reason

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
_MODALITIES = ("CR", "CT", "DOC", "DX", "KO", "MR", "NM", "OT", "PR", "PT", "PX", "RF", "SC", "SEG", "SR", "US", "XA")
# PS3.3 C.8.11.7.1.4, values 3 to 5 of Image Type; those after them as vendors write them
_BIOPSY_TYPES = ("STEREO", "PREFIRE", "POSTFIRE", "POSTBIOPSY", "POSTMARKER", "TOMO SCOUT", "BIOPSY")
_CONTRAST_TYPES = {"ADDITION", "SUBTRACTION", "HIGH ENERGY", "RECOMBINED"}
_GENERATED = re.compile(r"GENERATED 2D|\b(?:TOMO|SYN\w*) ?2D\b|\bSYNTHE(?:TIC|SI[SZ]ED)")
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
        shown = modality if modality in _MODALITIES else "another value" if modality else "not given"
        yield Reason("not-mammography", say(header, f"its modality is {shown}; expected MG"))
        return
    if sop and not (mammographic or sop in CAPTURES or sop in _OTHER_X_RAY):
        yield Reason("not-mammography", say(header, "its SOP class is not one of mammography images"))
        return
    if "SCREEN SAVE" in _types(header) or NO_IMAGE_WORDS.search(kind_text(header)):
        yield Reason("not-mammography", say(header, "a report or picture of a screen"))
        return
    intent = header.text("PresentationIntentType")
    if (intent and "PRESENT" not in intent) or sop == _MG_PROCESSING or sop == _TOMO[2]:
        yield Reason("for-processing", say(header, "raw detector values; export the images FOR PRESENTATION"))
    for keyword in ("NumberOfFrames", "EstimatedRadiographicMagnificationFactor"):
        if header.is_given(keyword) and header.number(keyword) is None:
            name = dictionary_description(keyword)
            yield Reason("damaged", say(header, f"its {name} is no number; export it again"))
    yield from _tomo_reasons(header, sop, synthetic=synthetic)
    yield from _purpose_reasons(header)
    yield from _part_reasons(header)


def _types(header: Header) -> list[str]:
    """The values of Image Type, with spaces where the standard has underscores: habit has both."""
    return header.text("ImageType").replace("_", " ").split("\\")


def is_synthetic(header: Header) -> bool:
    """True for a 2-D image computed from tomosynthesis.

    Of the tomosynthesis classes only Image Type can say so (PS3.3 C.8.21.6.1.1): "synthesized" is said of slabs, too.
    """
    if any(_GENERATED.search(word) for word in _types(header)):
        return True
    described = text_of(header, "SeriesDescription")
    if header.text("SOPClassUID") in _TOMO or SLICE_WORDS.search(described):
        return False
    return bool(SYNTHETIC_WORDS.search(described) or SYNTHETIC_WORDS.search(own_text(header, "ProtocolName")))


def _tomo_reasons(header: Header, sop: str, *, synthetic: bool) -> Iterator[Reason]:
    frames = header.whole("NumberOfFrames") or 1
    if is_synthetic(header) and frames == 1:
        if not synthetic:
            yield Reason("synthetic-2d", say(header, "computed from tomosynthesis; --synthetic accepts such images"))
    elif (
        sop in _TOMO
        or any(word.startswith("TOMO") for word in _types(header))
        or header.text("VolumeBasedCalculationTechnique") == "TOMOSYNTHESIS"
        or SLICE_WORDS.search(text_of(header, "SeriesDescription"))
        or TOMO_WORDS.search(own_text(header, "SeriesDescription"))
    ):
        yield Reason("tomosynthesis", say(header, "tomosynthesis; give the 2-D mammogram"))
        return
    if frames > 1:
        yield Reason("multi-frame", say(header, f"{frames} frames; expected one image a file"))
    elif frames < 1:
        yield Reason("damaged", say(header, f"{frames} frames; expected one"))


def _purpose_reasons(header: Header) -> Iterator[Reason]:
    words, types = kind_text(header), _types(header)
    marked = header.text("QualityControlImage") == "YES" or header.text("CalibrationImage") == "YES"
    part = text_of(header, "BodyPartExamined")
    if marked or "PHANTOM" in part or QUALITY_WORDS.search(words):
        yield Reason("quality-control", say(header, "a test or calibration image"))
    told = header.is_given("ContainerIdentifier") or SPECIMEN_WORDS.search(f"{words} ; {part}")
    if header.items("SpecimenDescriptionSequence") or told or "SPECIMEN" in types:
        yield Reason("specimen", say(header, "an image of a specimen"))
    if (
        any(word.startswith(_BIOPSY_TYPES) for word in types)
        or header.text("DetectorMode") == "STEREO"
        or header.text("PositionerType").startswith("STEREO")
        or BIOPSY_WORDS.search(words)
    ):
        yield Reason("biopsy", say(header, "an image of a biopsy or localisation"))
    low = "LOW ENERGY" in types or LOW_ENERGY_WORDS.search(words)
    if set(types) & _CONTRAST_TYPES or (CONTRAST_WORDS.search(words) and not low):
        text = "a subtracted, recombined or high-energy image of a contrast examination; give the low-energy image"
        yield Reason("contrast-enhanced", say(header, text))


def _part_reasons(header: Header) -> Iterator[Reason]:
    told = header.items("PartialViewCodeSequence") or header.text("PartialViewDescription")
    stated = header.text("PartialView")
    if stated not in ("", "NO", "N") or (told and not stated):  # YES; anything else is not NO either
        yield Reason("partial-breast", say(header, "a partial view of the breast"))
    elif DERIVED_WORDS.search(kind_text(header)):
        yield Reason("partial-breast", say(header, "a crop or mask made from a mammogram"))
    field = field_mm(header)
    if field is not None and 0 < max(field) < _SMALLEST_FIELD_MM:
        shown = f"{field[0]:.1f} x {field[1]:.1f} mm"
        least = f"the longer side of a screening view is {_SMALLEST_FIELD_MM:.0f} mm or more"
        yield Reason("partial-breast", say(header, f"its field is {shown}; {least}"))


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
