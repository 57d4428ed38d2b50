"""Which breast and which view: why a header that says nothing, or contradicts itself, is refused."""

from __future__ import annotations

from collections.abc import Iterator

from mammodensity.ingest.dicom.descriptions import PADDLE_WORDS, SPECIAL_WORDS, kind_text, text_of
from mammodensity.ingest.dicom.headers import Header, say
from mammodensity.ingest.dicom.projection import Found
from mammodensity.ingest.dicom.verdicts import Reason
from mammodensity.ingest.dicom.views import SCREENING_VIEWS, is_harmless
from mammodensity.terms import Projection

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
