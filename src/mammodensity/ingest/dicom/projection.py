"""Which breast and which view: every place of a header that says so, and what they say together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mammodensity.ingest.dicom.headers import Header
from mammodensity.ingest.dicom.views import (
    AXILLA_CODES,
    IMPLANT_DISPLACED,
    MODIFIER_CODES,
    SIDE_CODES,
    VIEW_CODES,
    view_in_word,
)
from mammodensity.ingest.names import projection_in_name

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
