r"""Which breast and which view: every place of a header that says so, and what they say together.

Which breast and which view: why a header that says nothing, or contradicts itself, is refused.

How an image lies: what Patient Orientation says, where the chest wall is, and whether both fit the breast.

Patient Orientation (PS3.3 C.7.6.1.1.1) has the direction of rows, then that of columns. Upright, a right breast is P\L
in a CC and P\FL in an MLO, a left one A\R and A\FR: rows run away from the chest wall or to it, columns from the
breast's own side (lateral, axilla) to the other. By habit a left breast has its chest wall on the left of the image. A
mirrored image changes the rows only, so the columns tell the breast, and rows and pixels tell whether it is mirrored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.dicom.codes import (
    AXILLA_CODES,
    IMPLANT_DISPLACED,
    MODIFIER_CODES,
    PADDLE_WORDS,
    SCREENING_VIEWS,
    SIDE_CODES,
    SPECIAL_WORDS,
    VIEW_CODES,
    is_harmless,
    kind_text,
    text_of,
    view_in_word,
)
from mammodensity.data.dicom.file_checks import WARNINGS, Reason
from mammodensity.data.dicom.header import Header, say
from mammodensity.data.picture_files import projection_in_name
from mammodensity.errors import DicomError
from mammodensity.terms import Projection

_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "PerformedProcedureStepDescription")
_SIDES = {"R": "R", "L": "L", "B": "B", "RIGHT": "R", "LEFT": "L", "BOTH": "B"}
_OTHER = "another value"  # what is not known is not repeated: free text may name the patient


@dataclass(frozen=True)
class Evidence:
    """One place that tells a side or a view."""

    place: str
    """The attribute's name in the standard."""
    says: str


@dataclass(frozen=True)
class Found:
    """Everything a header says of side, view and modifiers."""

    sides: tuple[Evidence, ...]
    views: tuple[Evidence, ...]
    modifiers: tuple[str, ...]
    described: Evidence | None = None
    """A projection that a description names; counts only where nothing else tells."""


def find_projection(header: Header) -> Found:
    """Collect side and view from all the places the standard and habit know."""
    sides = list(_sides(header))
    views: list[Evidence] = []
    modifiers: list[str] = []
    for item in header.items("ViewCodeSequence"):
        _read_view_item(item, views)
        modifiers += _modifiers(header, item)
    modifiers += _modifiers(header)  # its place is in the view's item; some write it beside
    word = header.text("ViewPosition")
    if word:
        view, side, displaced = view_in_word(word)
        views.append(Evidence("View Position", view or _OTHER))
        if side:
            sides.append(Evidence("View Position", side))
        if displaced:
            modifiers.append(IMPLANT_DISPLACED)
    if not views:  # CBIS-DDSM keeps the view in Patient Orientation
        view, side, _ = view_in_word(header.text("PatientOrientation"))
        if view:
            views.append(Evidence("Patient Orientation", view))
        if side:
            sides.append(Evidence("Patient Orientation", side))
    views += _other_regions(header)
    return Found(tuple(sides), tuple(views), tuple(dict.fromkeys(modifiers)), _described(header))


def _described(header: Header) -> Evidence | None:
    for keyword in _DESCRIPTIONS:
        projection = projection_in_name(header.text(keyword))
        if projection is not None:
            return Evidence(keyword, projection.value)
    return None


def _sides(header: Header) -> Iterator[Evidence]:
    for keyword, name in (("ImageLaterality", "Image Laterality"), ("Laterality", "Laterality")):
        word = header.text(keyword)
        if word:
            yield Evidence(name, _SIDES.get(word, _OTHER))
    for group in header.items("SharedFunctionalGroupsSequence"):
        for item in header.items("FrameAnatomySequence", group):
            word = _text(item, "FrameLaterality")
            if word:
                yield Evidence("Frame Laterality", _SIDES.get(word, _OTHER))
    for region in header.items("AnatomicRegionSequence"):
        side = SIDE_CODES.get(_text(region, "CodeValue"))
        if side:
            yield Evidence("Anatomic Region Sequence", side)
        for modifier in header.items("AnatomicRegionModifierSequence", region):
            side = SIDE_CODES.get(_text(modifier, "CodeValue"))
            if side:
                yield Evidence("Anatomic Region Modifier Sequence", side)
    word = header.text("BodyPartExamined")
    for side in ("LEFT", "RIGHT"):
        if side in word.replace("_", " ").split():
            yield Evidence("Body Part Examined", side[0])


def _read_view_item(item: Any, views: list[Evidence]) -> None:
    code = _text(item, "CodeValue") or _text(item, "LongCodeValue")
    meaning = _text(item, "CodeMeaning")
    view = VIEW_CODES.get(code) or view_in_word(meaning)[0]
    if view or code or meaning:
        views.append(Evidence("View Code Sequence", view or _OTHER))


def _modifiers(header: Header, item: Any = None) -> Iterator[str]:
    """View modifiers in an item or in the header itself, by our names: a meaning is free text and is not repeated."""
    for modifier in header.items("ViewModifierCodeSequence", item):
        code, meaning = _text(modifier, "CodeValue"), _text(modifier, "CodeMeaning").lower()
        if code or meaning:
            known = meaning if meaning in MODIFIER_CODES.values() else _OTHER
            yield MODIFIER_CODES.get(code, known)


def _other_regions(header: Header) -> Iterator[Evidence]:
    """Regions beside the breast, which are no view of it."""
    for region in header.items("AnatomicRegionSequence"):
        if _text(region, "CodeValue") in AXILLA_CODES or "AXILLA" in _text(region, "CodeMeaning"):
            yield Evidence("Anatomic Region Sequence", "axilla")
    if "AXILLA" in header.text("BodyPartExamined"):
        yield Evidence("Body Part Examined", "axilla")


def _text(item: Any, keyword: str) -> str:
    try:
        value = item.get(keyword)
        return "" if value is None else " ".join(str(value).replace("\0", " ").split()).upper()
    except Exception:
        return ""


_CONTACT_MAGNIFICATION = 1.3  # contact views have 1.0 to 1.2, magnified ones 1.5 and more


def first_side(found: Found) -> str | None:
    sides = [one.says for one in found.sides if one.says in ("R", "L")]
    return sides[0] if sides else found.described.says[-1] if found.described else None


def first_view(found: Found) -> str | None:
    if found.views:
        return found.views[0].says
    return found.described.says[:-2] if found.described else None


def side_reasons(
    header: Header, found: Found, stated: Projection | None, oriented: str | None = None
) -> Iterator[Reason]:
    """``oriented``: the breast by Patient Orientation, which may contradict but is not enough alone.

    A CC that is stored upside down has the columns of the other breast.
    """
    said = {one.place: one.says for one in found.sides}
    unusable = {place: side for place, side in said.items() if side not in ("R", "L")}
    for place, side in unusable.items():
        word = "both breasts" if side == "B" else "neither R nor L"
        yield Reason("missing-laterality", say(header, f"{place} says {word}; expected one breast"))
    sides = {place: side for place, side in said.items() if side in ("R", "L")}
    if found.described:
        sides[found.described.place] = found.described.says[-1]
    if stated:
        sides["the data set's table"] = stated.laterality
    if sides and oriented:
        sides["Patient Orientation"] = oriented
    if len(set(sides.values())) > 1:
        shown = ", ".join(f"{place} {side}" for place, side in sides.items())
        upright = " or, where it is stored upside down, export it upright" if oriented else ""
        yield Reason("contradictory-laterality", say(header, f"{shown}; correct the header{upright}"))
    elif not sides and not unusable:
        text = "no Image Laterality, Laterality or Frame Laterality, and no description tells the breast"
        yield Reason("missing-laterality", say(header, text))


def view_reasons(header: Header, found: Found, stated: Projection | None) -> Iterator[Reason]:
    special = [f"{one.place} {one.says}" for one in found.views if one.says not in SCREENING_VIEWS]
    special += [f"view modifier {modifier}" for modifier in found.modifiers if not is_harmless(modifier)]
    magnification = _magnification(header)
    if magnification is not None and magnification > _CONTACT_MAGNIFICATION:
        special.append(f"magnified {magnification:.2f} times")
    if not special:
        paddle = PADDLE_WORDS.search(text_of(header, "PaddleDescription"))
        match = SPECIAL_WORDS.search(kind_text(header)) or paddle
        if match:
            special.append(f"description or paddle says {match['word']}")
    if special:
        text = f"{', '.join(special)}: no screening view; expected CC or MLO without modifiers"
        yield Reason("non-screening-view", say(header, text))
    views = {one.place: one.says for one in found.views if one.says in SCREENING_VIEWS}
    if found.described:
        views.setdefault(found.described.place, found.described.says[:-2])
    if stated:
        views["the data set's table"] = stated.view_position
    if len(set(views.values())) > 1:
        shown = ", ".join(f"{place} {view}" for place, view in views.items())
        yield Reason("contradictory-view", say(header, f"{shown}; correct the header"))
    elif not views and not special:
        text = "no View Position or View Code Sequence, and no description tells the view"
        yield Reason("missing-view", say(header, text))


def _magnification(header: Header) -> float | None:
    """As stated; else source to detector by source to breast support, which PS3.3 C.8.11.7 defines it by."""
    stated = header.number("EstimatedRadiographicMagnificationFactor")
    detector, support = header.number("DistanceSourceToDetector"), header.number("DistanceSourceToPatient")
    if stated is None and detector and support and support > 0:
        return detector / support
    return stated


_DIRECTION = re.compile("[APRLHF]{1,3}")


def _directions(header: Header) -> tuple[str, str] | None:
    """Directions of rows and columns; None where Patient Orientation is absent or holds something else."""
    words = header.text("PatientOrientation").split("\\")
    if len(words) != 2 or not all(_DIRECTION.fullmatch(word) for word in words):
        return None
    return words[0], words[1]


def side_by_columns(header: Header) -> str | None:
    """``"R"`` or ``"L"``: the breast whose CC or MLO has columns as Patient Orientation says; None where that is open.

    Of an image that is upside down by its header (columns to H) the other, so that it tells the breast all the same.
    """
    columns = (_directions(header) or ("", ""))[1]
    if ("L" in columns) == ("R" in columns):
        return None
    return "R" if ("L" in columns) != ("H" in columns) else "L"


def turned_reasons(header: Header) -> Iterator[Reason]:
    """A CC or MLO that is stored upside down or turned by a quarter, by Patient Orientation.

    Rows of an upright one run to A or P; columns to F, R or L, never to A, P or H.
    """
    rows, columns = _directions(header) or ("A", "F")
    if columns[0] in "AP" or rows[0] in "HF":
        how = "turned by a quarter"
    elif "H" in columns:
        how = "upside down"
    else:
        return
    text = f"stored {how}: Patient Orientation {rows}\\{columns}, expected rows to A or P and columns to F, R or L"
    yield Reason("turned", say(header, f"{text}; export it upright"))


def chest_wall_side(pixels: NDArray[np.uint16]) -> str | None:
    """``"L"`` or ``"R"``: the side of the image with the chest wall; None where it is not plain to see.

    The chest wall's side is that along which tissue reaches the image edge; the other is air.
    """
    rows, columns = pixels.shape
    small = pixels[:: max(1, rows // 256), :: max(1, columns // 256)].astype(np.float64)
    inner = small[small.shape[0] // 20 : -max(1, small.shape[0] // 20)]
    air = np.percentile(inner, 2)
    tissue = inner > air + 0.08 * (np.percentile(inner, 98) - air)
    profile = tissue.mean(axis=0)
    strip = max(2, len(profile) // 12)
    skip = max(1, len(profile) // 100)  # thin white borders
    left, right = profile[skip : skip + strip].mean(), profile[-skip - strip : -skip].mean()
    if profile.sum() == 0:
        return None
    centre = (profile * np.arange(len(profile))).sum() / profile.sum() / (len(profile) - 1)
    if left > right + 0.35 and right < 0.2 and centre < 0.5:
        return "L"
    if right > left + 0.35 and left < 0.2 and centre > 0.5:
        return "R"
    return None


def orientation_warnings(header: Header, projection: Projection, pixels: NDArray[np.uint16]) -> Iterator[Reason]:
    """Check header against pixels.

    Raises
    ------
    DicomError
        They contradict each other on the breast (``contradictory-laterality``).
    """
    side = chest_wall_side(pixels)
    row_direction = header.text("PatientOrientation").split("\\")[0][:1]
    said = {"A": "L", "P": "R"}.get(row_direction)
    if side is None:
        return
    if side == projection.laterality:
        if said is not None and said != side:
            yield Reason("orientation-disagrees", WARNINGS["orientation-disagrees"])
        return
    # rows alone do not do: a swapped label of an upright image looks the same; the columns or the detector must agree
    mirrored = header.text("FieldOfViewHorizontalFlip") == "YES"
    confirmed = mirrored or (said == side and side_by_columns(header) == projection.laterality)
    if said not in (side, None) or not confirmed:
        where = {"L": "left", "R": "right"}[side]
        raise DicomError(
            f"{header.path}: {projection} by its header, but the chest wall is on the {where} and neither Patient "
            "Orientation nor Field of View Horizontal Flip confirms that it is stored flipped; correct the header",
            "contradictory-laterality",
        )
    yield Reason("stored-flipped", WARNINGS["stored-flipped"])
