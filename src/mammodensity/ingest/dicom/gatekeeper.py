"""The gatekeeper: a header is accepted, or refused with every reason that can be told without decoding pixels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.decodable import require_decodable
from mammodensity.ingest.dicom.headers import Header, quiet, read_header, say
from mammodensity.ingest.dicom.kinds import CAPTURES, is_synthetic, kind_reasons
from mammodensity.ingest.dicom.orientation import side_by_columns, turned_reasons
from mammodensity.ingest.dicom.projection import Found, find_projection
from mammodensity.ingest.dicom.side_view import first_side, first_view, side_reasons, view_reasons
from mammodensity.ingest.dicom.syntaxes import LOSSY
from mammodensity.ingest.dicom.verdicts import WARNINGS, Reason, Verdict, refusal
from mammodensity.ingest.dicom.views import IMPLANT_DISPLACED, SCREENING_VIEWS
from mammodensity.terms import Projection

_BREAST_WORDS = ("BREAST", "MAMM", "BRUST", "MAMA", "SEIN", "SENO", "BORST", "BRYST", "BROST")


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
    kind = list(kind_reasons(header, synthetic=synthetic, listed=stated is not None))
    if any(reason.code in ("not-mammography", "dicomdir") for reason in kind):
        return Verdict(header.path, tuple(kind))
    found = find_projection(header)
    views = list(view_reasons(header, found, stated))
    upright = not (kind or views)  # what Patient Orientation must be is known of CC and MLO only
    sides = list(side_reasons(header, found, stated, side_by_columns(header) if upright else None))
    turned = turned_reasons(header) if upright else ()
    reasons = [*kind, *views, *sides, *turned, *_pixel_reasons(header)]
    warnings = [*_warnings(header, found), *_stated_warnings(header, found, stated, synthetic=synthetic)]
    side, view = first_side(found), first_view(found)
    projection = Projection(f"{view}_{side}") if side and view in SCREENING_VIEWS and not (sides or views) else stated
    if projection is None and not reasons:
        reasons.append(Reason("missing-view", say(header, "nothing says which projection it is")))
    return Verdict(
        header.path,
        tuple(dict.fromkeys(reasons)),
        tuple(dict.fromkeys(warnings)),
        projection if not (sides or views) else None,
        exam_name(header),
        _digest(header.text("PatientID")),
        _digest(header.text("IssuerOfPatientID")),
        _digest(header.text("SOPInstanceUID")),
        _rank(header, found),
    )


def exam_name(header: Header) -> str:
    """A name for the exam that tells nothing of the patient: from a hash of the Study Instance UID.

    Where there is none, from a hash of folder, Patient ID and Study Date: two patients in one folder are two exams.
    """
    study = header.text("StudyInstanceUID")
    if not study:
        whose = [header.text(keyword) for keyword in ("IssuerOfPatientID", "PatientID", "StudyDate")]
        study = "|".join([f"folder {header.path.absolute().parent}", *whose])
    return f"study-{_digest(study)}"


def _digest(text: str) -> str:
    """Twelve digits; nothing for nothing."""
    return text and hashlib.sha256(text.encode()).hexdigest()[:12]


def _pixel_reasons(header: Header) -> Iterator[Reason]:
    try:
        require_decodable(header)
    except DicomError as error:
        yield Reason(error.code, str(error))


def _warnings(header: Header, found: Found) -> Iterator[Reason]:
    places = [one.place for one in found.views]
    body = header.text("BodyPartExamined")
    polarity = header.text("PresentationLUTShape"), header.text("PhotometricInterpretation")
    facts = {
        "implant": header.text("BreastImplantPresent") == "YES",
        "implant-displaced": IMPLANT_DISPLACED in found.modifiers,
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
    area = (header.whole("Rows") or 0) * (header.whole("Columns") or 0)
    return (
        int(not is_synthetic(header)),
        int(IMPLANT_DISPLACED in found.modifiers),
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
