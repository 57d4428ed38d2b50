"""The gatekeeper: a header is accepted, or refused with every reason that can be told without decoding pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.frames import codestream_of, find_pixel_data, native_bytes, read_codestream_head
from mammodensity.ingest.dicom.headers import MOST_PIXELS, Header, opened_content, quiet, read_header
from mammodensity.ingest.dicom.projection import DESCRIPTIONS, Found, find_projection
from mammodensity.ingest.dicom.sources import Source
from mammodensity.ingest.dicom.syntaxes import (
    ENCAPSULATED,
    JPEG12_EXTRA,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LS,
    LOSSY,
    READABLE,
    has_jpeg12,
)
from mammodensity.ingest.dicom.verdicts import WARNINGS, Reason, Verdict, refusal
from mammodensity.ingest.dicom.views import (
    BIOPSY_WORDS,
    DERIVED_WORDS,
    IMPLANT_DISPLACED,
    SCREENING_VIEWS,
    SPECIAL_WORDS,
    SPECIMEN_WORDS,
    SYNTHETIC_WORDS,
    is_harmless,
)
from mammodensity.terms import Projection

_DIRECTORY = "1.2.840.10008.1.3.10"
_MG = "1.2.840.10008.5.1.4.1.1.1.2"
_MG_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
_TOMO = (
    "1.2.840.10008.5.1.4.1.1.13.1.3",  # Breast Tomosynthesis
    "1.2.840.10008.5.1.4.1.1.13.1.4",  # Breast Projection, for presentation
    "1.2.840.10008.5.1.4.1.1.13.1.5",  # Breast Projection, for processing
)
_CAPTURES = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3")
_OTHER_X_RAY = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1")  # CR and DX, met with Modality MG
_BREAST_WORDS = ("BREAST", "MAMM", "BRUST", "MAMA", "SEIN", "SENO", "BORST", "BRYST", "BROST")

_SMALLEST_SIDE_PX = 16
_LARGEST_SIDE_PX = 32_000
_MOST_PADDING_BYTES = 15  # less than the shortest row or column
_MOST_EXPANSION = 4  # JPEG Lossless takes up to 24 bits for 8
_CONTACT_MAGNIFICATION = 1.3  # contact views have 1.0 to 1.2, magnified ones 1.5 and more
_REDUCED_PX = 1000  # no detector has fewer pixels along its longer side
_SMALLEST_FIELD_MM = 130.0  # longer side; the smallest screening detector is 180 x 240 mm, biopsy fields about 50 x 50


def judge_file(path: Path, *, synthetic: bool = False) -> Verdict:
    """The verdict on one file by its header, whatever the file holds; never raises for what is in it."""
    try:
        with quiet():
            return judge(read_header(path), synthetic=synthetic)
    except DicomError as error:
        return refusal(path, error)
    except Exception as error:  # the last guard: no content of a file may stop a run over an archive
        return Verdict(path, (Reason("damaged", f"{path} cannot be followed ({type(error).__name__})"),))


def judge(header: Header, *, synthetic: bool = False, stated: Projection | None = None) -> Verdict:
    """The verdict on a header.

    Parameters
    ----------
    header
        As ``read_header`` gives it.
    synthetic
        Accept 2-D images computed from tomosynthesis, and mark them.
    stated
        The projection a manifest or data-set table states: enough where the header says nothing, contradicted where
        it says another.
    """
    kind = list(_kind_reasons(header, synthetic=synthetic, listed=stated is not None))
    if any(reason.code in ("not-mammography", "dicomdir") for reason in kind):
        return Verdict(header.path, tuple(kind))
    found = find_projection(header)
    sides = list(_side_reasons(header, found, stated))
    views = list(_view_reasons(header, found, stated))
    reasons = [*kind, *views, *sides, *_pixel_reasons(header)]
    warnings = [*_warnings(header, found), *_stated_warnings(header, found, stated, synthetic=synthetic)]
    side, view = _first_side(found), _first_view(found)
    projection = Projection(f"{view}_{side}") if side and view in SCREENING_VIEWS and not (sides or views) else stated
    if projection is None and not reasons:
        reasons.append(Reason("missing-view", _say(header, "nothing says which projection it is")))
    return Verdict(
        header.path,
        tuple(dict.fromkeys(reasons)),
        tuple(dict.fromkeys(warnings)),
        projection if not (sides or views) else None,
        exam_name(header),
        _digest(header.text("IssuerOfPatientID") + "|" + header.text("PatientID")) if header.text("PatientID") else "",
        _digest(header.text("SOPInstanceUID")) if header.text("SOPInstanceUID") else "",
        _rank(header, found),
    )


def exam_name(header: Header) -> str:
    """A name for the exam that tells nothing of the patient: from a hash of the Study Instance UID.

    Where there is none, from a hash of the folder.
    """
    study = header.text("StudyInstanceUID")
    return f"study-{_digest(study or f'folder {header.path.absolute().parent}')}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _say(header: Header, text: str) -> str:
    return f"{header.path}: {text}"


# --- what kind of file ----------------------------------------------------------------------------------------------


def _kind_reasons(header: Header, *, synthetic: bool, listed: bool) -> Iterator[Reason]:
    """``listed``: a table of mammograms names the file, which is enough where the header tells no modality at all."""
    sop, modality = header.text("SOPClassUID"), header.text("Modality")
    if sop == _DIRECTORY:
        yield Reason("dicomdir", _say(header, "an index of files; give the folder it lies in"))
        return
    mammographic = sop in (_MG, _MG_PROCESSING, *_TOMO)
    untold = listed and not sop and not modality
    if modality not in ("MG", "") or not (mammographic or modality == "MG" or untold):
        yield Reason("not-mammography", _say(header, f"its modality is {modality[:16] or 'not given'}; expected MG"))
        return
    if sop and not (mammographic or sop in _CAPTURES or sop in _OTHER_X_RAY):
        yield Reason("not-mammography", _say(header, "its SOP class is not one of mammography images"))
        return
    if "FOR PROCESSING" in header.text("PresentationIntentType") or sop == _MG_PROCESSING or sop == _TOMO[2]:
        yield Reason("for-processing", _say(header, "raw detector values; export the images FOR PRESENTATION"))
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
            yield Reason("synthetic-2d", _say(header, "computed from tomosynthesis; --synthetic accepts such images"))
    elif (
        sop in _TOMO
        or any(word.startswith("TOMO") for word in types)
        or header.text("VolumeBasedCalculationTechnique") == "TOMOSYNTHESIS"
        or ("TOMOSYNTHESIS" in described and ("RECON" in described or "PROJ" in described or "SLICE" in described))
    ):
        yield Reason("tomosynthesis", _say(header, "tomosynthesis; give the 2-D mammogram"))
        return
    if frames > 1:
        yield Reason("multi-frame", _say(header, f"{frames} frames; expected one image a file"))
    elif frames < 1:
        yield Reason("damaged", _say(header, f"{frames} frames; expected one"))


def _purpose_reasons(header: Header) -> Iterator[Reason]:
    if header.text("QualityControlImage") == "YES" or header.text("CalibrationImage") == "YES":
        yield Reason("quality-control", _say(header, "a test or calibration image"))
    words = " ".join(header.text(keyword) for keyword in (*DESCRIPTIONS, "PaddleDescription")).replace("_", " ")
    types = header.text("ImageType").split("\\")
    if header.items("SpecimenDescriptionSequence") or SPECIMEN_WORDS.search(words) or "SPECIMEN" in types:
        yield Reason("specimen", _say(header, "an image of a specimen"))
    if (
        any(word.startswith(("STEREO", "BIOPSY")) for word in types)
        or header.text("DetectorMode") == "STEREO"
        or header.text("PositionerType").startswith("STEREO")
        or BIOPSY_WORDS.search(words)
    ):
        yield Reason("biopsy", _say(header, "an image of a biopsy or localisation"))
    if header.text("PartialView") == "YES":
        yield Reason("partial-breast", _say(header, "a partial view of the breast"))
    elif DERIVED_WORDS.search(words):
        yield Reason("partial-breast", _say(header, "a crop or mask made from a mammogram"))
    field = field_mm(header)
    if field is not None and 0 < max(field) < _SMALLEST_FIELD_MM:
        shown = f"{field[0]:.0f} x {field[1]:.0f} mm"
        yield Reason("partial-breast", _say(header, f"its field is {shown}; a screening view is 180 x 240 mm or more"))


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


# --- which breast, which view ---------------------------------------------------------------------------------------


def _first_side(found: Found) -> str | None:
    sides = [one.says for one in found.sides if one.says in ("R", "L")]
    return sides[0] if sides else found.described.says[-1] if found.described else None


def _first_view(found: Found) -> str | None:
    if found.views:
        return found.views[0].says
    return found.described.says[:-2] if found.described else None


def _side_reasons(header: Header, found: Found, stated: Projection | None) -> Iterator[Reason]:
    said = {one.place: one.says for one in found.sides}
    unusable = {place: side for place, side in said.items() if side not in ("R", "L")}
    for place, side in unusable.items():
        word = "both breasts" if side == "B" else "neither R nor L"
        yield Reason("missing-laterality", _say(header, f"{place} says {word}; expected one breast"))
    sides = {place: side for place, side in said.items() if side in ("R", "L")}
    if found.described:
        sides[found.described.place] = found.described.says[-1]
    if stated:
        sides["the data set's table"] = stated.laterality
    if len(set(sides.values())) > 1:
        shown = ", ".join(f"{place} {side}" for place, side in sides.items())
        yield Reason("contradictory-laterality", _say(header, f"{shown}; correct the header"))
    elif not sides and not unusable:
        text = "no Image Laterality, Laterality or Frame Laterality, and no description tells the breast"
        yield Reason("missing-laterality", _say(header, text))


def _view_reasons(header: Header, found: Found, stated: Projection | None) -> Iterator[Reason]:
    special = [f"{one.place} {one.says}" for one in found.views if one.says not in SCREENING_VIEWS]
    special += [f"view modifier {modifier}" for modifier in found.modifiers if not is_harmless(modifier)]
    magnification = header.number("EstimatedRadiographicMagnificationFactor")
    if magnification is not None and magnification > _CONTACT_MAGNIFICATION:
        special.append(f"magnified {magnification:.2f} times")
    if not special or not found.views:
        words = " ".join(header.text(keyword) for keyword in (*DESCRIPTIONS, "PaddleDescription")).replace("_", " ")
        match = SPECIAL_WORDS.search(words)
        if match:
            special.append(f"description says {match['word']}")
    if special:
        text = f"{', '.join(special)}: no screening view; expected CC or MLO without modifiers"
        yield Reason("non-screening-view", _say(header, text))
    views = {one.place: one.says for one in found.views if one.says in SCREENING_VIEWS}
    if found.described:
        views.setdefault(found.described.place, found.described.says[:-2])
    if stated:
        views["the data set's table"] = stated.view_position
    if len(set(views.values())) > 1:
        shown = ", ".join(f"{place} {view}" for place, view in views.items())
        yield Reason("contradictory-view", _say(header, f"{shown}; correct the header"))
    elif not views and not special:
        text = "no View Position or View Code Sequence, and no description tells the view"
        yield Reason("missing-view", _say(header, text))


# --- the pixels, from outside ---------------------------------------------------------------------------------------


def _pixel_reasons(header: Header) -> Iterator[Reason]:
    try:
        require_decodable(header)
    except DicomError as error:
        yield Reason(error.code, str(error))


def require_decodable(header: Header) -> None:
    """Raise unless the pixels are there whole, of a sane size, and in a syntax that is read; nothing is decoded."""
    rows, columns, allocated, stored = _shape(header)
    _require_grey(header)
    syntax = header.syntax
    if syntax not in READABLE:
        text = f"transfer syntax {syntax[:64]} is not read; export it uncompressed"
        raise DicomError(_say(header, text), "unsupported-syntax")
    samples = header.whole("SamplesPerPixel") or 1
    with opened_content(header) as stream:
        found = find_pixel_data(header, stream)
        if syntax not in ENCAPSULATED:
            _require_native_length(header, stream, found.spans[0])
            return
        _require_codestream_length(header, found.length)
        head = read_codestream_head(stream, found)
    _require_codestream(header, head, rows, columns, (allocated, stored, samples))


def _shape(header: Header) -> tuple[int, int, int, int]:
    """Rows, columns, bits allocated and stored, each checked."""
    values = []
    for keyword, name in (("Rows", "Rows"), ("Columns", "Columns"), ("BitsAllocated", "Bits Allocated")):
        value = header.whole(keyword)
        if value is None:
            if header.pixel_start < 0:
                text = "no Pixel Data: it is no image, or cut off before its pixels"
                raise DicomError(_say(header, text), "no-pixels")
            raise DicomError(_say(header, f"{name} is absent or unreadable; export it again"), "missing-tag")
        values.append(value)
    rows, columns, allocated = values
    if rows <= 0 or columns <= 0:
        raise DicomError(_say(header, f"{rows} x {columns} pixels; expected an image"), "absurd-size")
    if min(rows, columns) < _SMALLEST_SIDE_PX or max(rows, columns) > _LARGEST_SIDE_PX or rows * columns > MOST_PIXELS:
        raise DicomError(_say(header, f"{rows} x {columns} pixels; no mammogram has that size"), "absurd-size")
    stored = header.whole("BitsStored")
    stored = allocated if stored is None else stored
    high = header.whole("HighBit")
    high = stored - 1 if high is None else high
    if allocated not in (8, 16) or not 8 <= stored <= allocated or not stored - 1 <= high < allocated:
        text = f"Bits Allocated {allocated}, Stored {stored}, High Bit {high}; expected 8 to 16 bits in 8 or 16"
        raise DicomError(_say(header, text), "depth")
    return rows, columns, allocated, stored


def _require_grey(header: Header) -> None:
    samples = header.whole("SamplesPerPixel") or 1
    photometric = header.text("PhotometricInterpretation")
    if not photometric:
        raise DicomError(_say(header, "Photometric Interpretation is absent; export it again"), "missing-tag")
    grey = photometric in ("MONOCHROME1", "MONOCHROME2") and samples == 1
    if not grey and not (photometric == "RGB" and samples == 3 and (header.whole("PlanarConfiguration") or 0) == 0):
        text = f"{photometric[:16]} with {samples} samples a pixel; expected MONOCHROME1 or MONOCHROME2"
        raise DicomError(_say(header, text), "colour")


def _require_native_length(header: Header, stream: Source, span: tuple[int, int]) -> None:
    """The pixels fill the element but for padding (PS3.5 8.1.1: to an even length; some writers pad to words)."""
    expected = native_bytes(header)
    start, length = span
    stream.seek(start + expected - 1)
    if length < expected or not stream.read(1):
        text = f"less than the {expected} bytes of pixels that its size needs; copy it again"
        raise DicomError(_say(header, text), "damaged")
    if length - expected > _MOST_PADDING_BYTES and (header.whole("NumberOfFrames") or 1) == 1:
        text = f"{length} bytes of pixels where its Rows and Columns need {expected}; export it again"
        raise DicomError(_say(header, text), "damaged")


def _require_codestream_length(header: Header, length: int) -> None:
    """No more bytes than a lossless coder can make of one frame, so that a false length costs no memory."""
    if not length:
        raise DicomError(_say(header, "its Pixel Data is empty; copy it again"), "damaged")
    most = _MOST_EXPANSION * native_bytes(header) + (1 << 20)
    if length > most and (header.whole("NumberOfFrames") or 1) == 1:
        text = f"{length} bytes of compressed pixels where its size needs at most {most}; export it again"
        raise DicomError(_say(header, text), "damaged")


def _require_codestream(header: Header, head: bytes, rows: int, columns: int, depth: tuple[int, int, int]) -> None:
    allocated, stored, samples = depth
    stream = codestream_of(header, head)
    if stream is None:
        return
    if (stream.rows, stream.columns) != (rows, columns) or stream.samples != samples:
        text = f"{rows} x {columns} by the header, {stream.rows} x {stream.columns} by its pixels; export it again"
        raise DicomError(_say(header, text), "damaged")
    if not 2 <= stream.precision <= 16 or stream.precision > allocated or stream.precision < stored - 8:
        raise DicomError(_say(header, f"{stream.precision} bits in its pixels, {stored} by its header"), "damaged")
    expected = {
        **dict.fromkeys(JPEG_BASELINE, (0xC0,)),
        **dict.fromkeys(JPEG_EXTENDED, (0xC0, 0xC1)),
        **dict.fromkeys(JPEG_LOSSLESS, (0xC3,)),
        **dict.fromkeys(JPEG_LS, (0xF7,)),
    }.get(header.syntax)
    if expected and stream.process not in expected and header.syntax not in JPEG_2000:
        raise DicomError(_say(header, "its pixels are another kind of JPEG than its transfer syntax says"), "damaged")
    if header.syntax in JPEG_EXTENDED and stream.precision > 8 and not has_jpeg12():
        text = f"12-bit JPEG Extended needs an optional decoder: pip install '{JPEG12_EXTRA}'"
        raise DicomError(_say(header, text), "unsupported-syntax")


# --- what is to be known --------------------------------------------------------------------------------------------


def _warnings(header: Header, found: Found) -> Iterator[Reason]:
    places = [one.place for one in found.views]
    body = header.text("BodyPartExamined")
    polarity = header.text("PresentationLUTShape"), header.text("PhotometricInterpretation")
    facts = {
        "implant": header.text("BreastImplantPresent") == "YES",
        "implant-displaced": IMPLANT_DISPLACED in found.modifiers,
        "no-presentation-intent": not header.text("PresentationIntentType"),
        "no-modality": not header.text("Modality"),
        "secondary-capture": header.text("SOPClassUID") in _CAPTURES,
        "burned-in-annotation": header.text("BurnedInAnnotation") == "YES",
        "header-leniency": bool(header.flags),
        "no-study": not header.text("StudyInstanceUID"),
        "body-part": bool(body) and not any(word in body for word in _BREAST_WORDS),
        "lossy": header.syntax in LOSSY or header.text("LossyImageCompression") == "01",
        "view-from-code": places == ["View Code Sequence"],
        "view-from-orientation": "Patient Orientation" in places,
        "polarity": polarity in (("INVERSE", "MONOCHROME2"), ("IDENTITY", "MONOCHROME1")),
    }
    for code, fact in facts.items():
        if fact:
            yield Reason(code, WARNINGS[code])


def _stated_warnings(header: Header, found: Found, stated: Projection | None, *, synthetic: bool) -> Iterator[Reason]:
    if synthetic and is_synthetic(header):
        yield Reason("synthetic-2d", WARNINGS["synthetic-2d"])
    unsaid = not found.views or not [one for one in found.sides if one.says in ("R", "L")]
    if found.described and unsaid and stated is None:
        yield Reason("projection-from-description", WARNINGS["projection-from-description"])


def _rank(header: Header, found: Found) -> tuple[int | float | str, ...]:
    """For the choice among candidates: acquired rather than computed, implant displaced, last taken, largest."""
    taken = header.text("AcquisitionDateTime")[:14] or (
        (header.text("AcquisitionDate") or header.text("ContentDate"))
        + (header.text("AcquisitionTime") or header.text("ContentTime"))[:6]
    )
    area = (header.whole("Rows") or 0) * (header.whole("Columns") or 0)
    return (
        int(not is_synthetic(header)),
        int(IMPLANT_DISPLACED in found.modifiers),
        taken,
        area,
        header.whole("InstanceNumber") or 0,
    )
