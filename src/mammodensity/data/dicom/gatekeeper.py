"""The gatekeeper: it accepts a header, or refuses it with every reason that can be told without decoding pixels.

The reasons here are about the kind of file: another modality, tomosynthesis, a specimen, a part of the breast.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydicom.datadict import dictionary_description

from mammodensity.data.dicom.codes import (
    BIOPSY_WORDS,
    CONTRAST_WORDS,
    DERIVED_WORDS,
    IMPLANT_DISPLACED,
    LOSSY,
    LOW_ENERGY_WORDS,
    NO_IMAGE_WORDS,
    QUALITY_WORDS,
    SCREENING_VIEWS,
    SLICE_WORDS,
    SPECIMEN_WORDS,
    SYNTHETIC_WORDS,
    TOMO_WORDS,
    kind_text,
    own_text,
    text_of,
)
from mammodensity.data.dicom.file_bytes import NotDicomError, opened
from mammodensity.data.dicom.file_checks import WARNINGS, FileCheck, Reason
from mammodensity.data.dicom.header import Header, quiet, say
from mammodensity.data.dicom.header_parsing import parse_header
from mammodensity.data.dicom.pixel_data import find_pixels, require_decodable
from mammodensity.data.dicom.side_and_view import (
    PROCESSING,
    Statements,
    read_statements,
    side_by_columns,
    side_reasons,
    turned_reasons,
    view_reasons,
)
from mammodensity.errors import DicomError
from mammodensity.terms import Projection

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
_DECIDING_NUMBERS = {
    "NumberOfFrames": 1,
    "EstimatedRadiographicMagnificationFactor": 1,
    "DistanceSourceToDetector": 1,
    "DistanceSourceToPatient": 1,
    "FieldOfViewDimensions": 2,
    "ImagerPixelSpacing": 2,
    "PixelSpacing": 2,
    "NominalScannedPixelSpacing": 2,
}
"""Elements by which an image is refused or measured, and how many of their values are read."""
_SMALLEST_FIELD_MM = 130.0  # longer side; the smallest screening detector is 180 x 240 mm, biopsy fields about 50 x 50


def kind_reasons(header: Header, *, synthetic: bool, listed: bool) -> Iterator[Reason]:
    """Reasons against the kind of image.

    ``listed``: a table of mammograms names the file, which is enough where the header states no modality at all.
    """
    sop, modality = header.text("SOPClassUID"), header.text("Modality")
    if sop == _DIRECTORY:
        yield Reason("dicomdir", say(header, "an index of files; give the folder it lies in"))
        return
    mammographic = sop in (_MG, _MG_PROCESSING, *_TOMO)
    silent = not sop and not modality
    if modality not in ("MG", "") or not (mammographic or modality == "MG" or (listed and silent)):
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
    yield from _number_reasons(header)
    yield from _tomo_reasons(header, sop, synthetic=synthetic)
    yield from _purpose_reasons(header)
    yield from _part_reasons(header)


def _number_reasons(header: Header) -> Iterator[Reason]:
    """Reasons against numbers that cannot be read: taken as absent, they would let a magnified or small view pass."""
    for keyword, count in _DECIDING_NUMBERS.items():
        if header.is_given(keyword) and any(header.number(keyword, place) is None for place in range(count)):
            text = f"its {dictionary_description(keyword)} is no number; expected digits and a decimal point"
            yield Reason("damaged", say(header, f"{text}; export it again"))


def _types(header: Header) -> list[str]:
    """The values of Image Type, with spaces where the standard has underscores: both are in use."""
    return header.text("ImageType").replace("_", " ").split("\\")


def is_synthetic(header: Header) -> bool:
    """True for a 2-D image computed from tomosynthesis.

    In the tomosynthesis classes only Image Type can state it (PS3.3 C.8.21.6.1.1): slabs are called synthesized, too.
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
    described = header.is_given("ContainerIdentifier") or SPECIMEN_WORDS.search(f"{words} ; {part}")
    if header.items("SpecimenDescriptionSequence") or described or "SPECIMEN" in types:
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
    described = header.items("PartialViewCodeSequence") or header.text("PartialViewDescription")
    stated = header.text("PartialView")
    if stated not in ("", "NO", "N") or (described and not stated):  # YES; anything else is not NO either
        yield Reason("partial-breast", say(header, "a partial view of the breast"))
    elif DERIVED_WORDS.search(kind_text(header)):
        yield Reason("partial-breast", say(header, "a crop or mask made from a mammogram"))
    field = field_mm(header)
    if field is not None and 0 < max(field) < _SMALLEST_FIELD_MM:
        shown = f"{field[0]:.1f} x {field[1]:.1f} mm"
        least = f"the longer side of a screening view is {_SMALLEST_FIELD_MM:.0f} mm or more"
        yield Reason("partial-breast", say(header, f"its field is {shown}; {least}"))


def field_mm(header: Header) -> tuple[float, float] | None:
    """Height and width of the field at the detector, as stated or by the pixels; None where neither says.

    The pixels of reduced copies say nothing: their spacing is often that of the original.
    """
    wide, high = header.number("FieldOfViewDimensions", 0), header.number("FieldOfViewDimensions", 1)
    if wide and high and wide > 0 and high > 0:
        return high, wide
    rows, columns = header.whole("Rows"), header.whole("Columns")
    down, across = header.number("ImagerPixelSpacing", 0), header.number("ImagerPixelSpacing", 1)
    if not (rows and columns and down and across) or max(rows, columns) < _REDUCED_PX:
        return None
    return rows * down, columns * across


_BREAST_WORDS = ("BREAST", "MAMM", "BRUST", "MAMA", "SEIN", "SENO", "BORST", "BRYST", "BROST")


def judge_file(path: Path, *, synthetic: bool = False) -> FileCheck:
    """Judge one file by its header; never raises, whatever the file holds."""
    try:
        with quiet():
            return judge(read_header(path), synthetic=synthetic)
    except DicomError as error:
        reason, is_dicom = Reason(error.code, str(error)), not isinstance(error, NotDicomError)
    except Exception as error:  # the last guard: no content of a file may stop a run over an archive
        reason, is_dicom = Reason("damaged", f"{path} cannot be followed ({type(error).__name__})"), True
    return FileCheck(path, (reason,), is_dicom=is_dicom)


def read_header(path: Path) -> Header:
    """Read the header of a DICOM file and find its pixels, in one opening.

    Raises
    ------
    NotDicomError
        It is no DICOM file, or cannot be opened.
    DicomError
        Its header cannot be followed.
    """
    with opened(path) as (stream, state):
        try:
            with quiet():
                header = parse_header(path, stream, state)
                return replace(header, pixels=find_pixels(header, stream))
        except DicomError as error:
            text = str(error)
            raise type(error)(text if str(path) in text else f"{path}: {text}", error.code) from error
        except OSError:
            raise
        except Exception as error:  # pydicom raises many types on damaged bytes
            raise DicomError(
                f"{path} has a damaged header ({type(error).__name__}); copy it again", "damaged"
            ) from error


def judge(header: Header, *, synthetic: bool = False, stated: Projection | None = None) -> FileCheck:
    """Judge a header.

    Parameters
    ----------
    header
        From ``read_header``.
    synthetic
        Accept 2-D images computed from tomosynthesis, and mark them.
    stated
        The projection that a manifest or data-set table states. It is enough where the header states none; where the
        header states another, the file is refused.
    """
    kind = list(kind_reasons(header, synthetic=synthetic, listed=stated is not None))
    if any(reason.code in ("not-mammography", "dicomdir") for reason in kind):
        return FileCheck(header.path, tuple(kind), is_dicom=True)
    statements = read_statements(header)
    views = list(view_reasons(header, statements, stated))
    upright = not (kind or views)  # the right Patient Orientation is defined for CC and MLO only
    sides = list(side_reasons(header, statements, stated, side_by_columns(header) if upright else None))
    turned = turned_reasons(header) if upright else ()
    reasons = [*kind, *views, *sides, *turned, *_pixel_reasons(header)]
    warnings = [*_warnings(header, statements), *_stated_warnings(header, statements, stated, synthetic=synthetic)]
    side, view = statements.side, statements.view
    projection = Projection(f"{view}_{side}") if side and view in SCREENING_VIEWS and not (sides or views) else stated
    if projection is None and not reasons:
        reasons.append(Reason("missing-view", say(header, "nothing says which projection it is")))
    return FileCheck(
        header.path,
        tuple(dict.fromkeys(reasons)),
        tuple(dict.fromkeys(warnings)),
        projection if not (sides or views) else None,
        exam_name(header),
        _digest(header.text("PatientID")),
        _digest(header.text("IssuerOfPatientID")),
        _digest(header.text("SOPInstanceUID")),
        _rank(header, statements),
        is_dicom=True,
        header=None if reasons else header,
    )


def exam_name(header: Header) -> str:
    """Name the exam by a hash of the Study Instance UID, which says nothing of the patient.

    Without a UID the hash is of folder, Patient ID and Study Date: two patients in the same folder are two exams.
    """
    study = header.text("StudyInstanceUID")
    if not study:
        parts = [header.text(keyword) for keyword in ("IssuerOfPatientID", "PatientID", "StudyDate")]
        study = "|".join([f"folder {header.path.absolute().parent}", *parts])
    return f"study-{_digest(study)}"


def _digest(text: str) -> str:
    """The first twelve digits of a hash; blank for a blank text."""
    return text and hashlib.sha256(text.encode()).hexdigest()[:12]


def _pixel_reasons(header: Header) -> Iterator[Reason]:
    try:
        require_decodable(header)
    except DicomError as error:
        yield Reason(error.code, str(error))


def _warnings(header: Header, statements: Statements) -> Iterator[Reason]:
    places = [statement.place for statement in statements.views]
    body = header.text("BodyPartExamined")
    polarity = header.text("PresentationLUTShape"), header.text("PhotometricInterpretation")
    facts = {
        "implant": header.text("BreastImplantPresent") == "YES",
        "implant-displaced": IMPLANT_DISPLACED in statements.modifiers,
        "no-presentation-intent": not header.text("PresentationIntentType"),
        "no-modality": not header.text("Modality"),
        "secondary-capture": header.text("SOPClassUID") in CAPTURES,
        "burned-in-annotation": header.text("BurnedInAnnotation") == "YES",
        "header-leniency": bool(header.flags),
        "no-study": not header.text("StudyInstanceUID"),
        "body-part": bool(body) and not any(word in body for word in _BREAST_WORDS),
        "lossy": header.syntax in LOSSY or header.text("LossyImageCompression") == "01",
        "view-from-code": places == ["View Code Sequence"],
        "view-from-orientation": "Patient Orientation" in places,
        "laterality-both": statements.series_of_both,
        "polarity": polarity in (("INVERSE", "MONOCHROME2"), ("IDENTITY", "MONOCHROME1")),
    }
    for code, fact in facts.items():
        if fact:
            yield Reason(code, WARNINGS[code])


def _stated_warnings(
    header: Header, statements: Statements, stated: Projection | None, *, synthetic: bool
) -> Iterator[Reason]:
    if synthetic and is_synthetic(header):
        yield Reason("synthetic-2d", WARNINGS["synthetic-2d"])
    from_processing = any(view.place == PROCESSING for view in statements.views)
    unstated = not statements.views or not any(side.says in ("R", "L") for side in statements.sides)
    if (from_processing or (statements.described and unstated)) and stated is None:
        yield Reason("projection-from-description", WARNINGS["projection-from-description"])


def _rank(header: Header, statements: Statements) -> tuple[int | float | str, ...]:
    """Rank of a candidate: acquired rather than computed, implant displaced, last taken, largest."""
    area = (header.whole("Rows") or 0) * (header.whole("Columns") or 0)
    return (
        int(not is_synthetic(header)),
        int(IMPLANT_DISPLACED in statements.modifiers),
        _taken(header),
        area,
        header.whole("InstanceNumber") or 0,
    )


def _taken(header: Header) -> str:
    """Date, time and microseconds as digits, so that texts sort as times do: repeats may follow within a second.

    DA, TM and DT may stop early, TM and DT may have a fraction, DT a time zone (PS3.5 6.2); old files have colons.
    """
    whole = header.text("AcquisitionDateTime")
    date = whole[:8] or header.text("AcquisitionDate") or header.text("ContentDate")
    time = whole[8:] or header.text("AcquisitionTime") or header.text("ContentTime")
    seconds, _, fraction = re.split(r"[+-]", time.replace(":", ""))[0].partition(".")
    return f"{date.replace('.', '')[:8]:0<8}{seconds[:6]:0<6}{fraction[:6]:0<6}"
