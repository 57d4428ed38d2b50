r"""Which breast and which view: every place of a header that states it, and how the image lies.

A header that states nothing, or contradicts itself, is refused.

Patient Orientation (PS3.3 C.7.6.1.1.1) has the direction of rows, then that of columns. Upright, a right breast is P\L
in a CC and P\FL in an MLO, a left one A\R and A\FR: rows run away from the chest wall or towards it, columns from the
breast's outer side (lateral, axilla) to the inner. By habit a left breast has its chest wall on the left of the image.
Mirroring changes the rows only, so the columns tell the breast, and rows and pixels tell whether it is mirrored.
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

PROCESSING = "Acquisition Device Processing Description"
_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "PerformedProcedureStepDescription")
_SIDES = {"R": "R", "L": "L", "B": "B", "RIGHT": "R", "LEFT": "L", "BOTH": "B"}
_OTHER = "another value"  # an unfamiliar value is not repeated: free text may name the patient


@dataclass(frozen=True)
class Statement:
    """A side or a view, and the place of the header that states it."""

    place: str
    """The attribute's name in the standard."""
    says: str


@dataclass(frozen=True)
class Statements:
    """Everything a header states of side, view and modifiers."""

    sides: tuple[Statement, ...]
    views: tuple[Statement, ...]
    modifiers: tuple[str, ...]
    described: Statement | None = None
    """A projection that a description names; counts only where no other place states it."""

    @property
    def side(self) -> str | None:
        """The first breast that is stated, ``"R"`` or ``"L"``."""
        sides = [statement.says for statement in self.sides if statement.says in ("R", "L")]
        return sides[0] if sides else self.described.says[-1] if self.described else None

    @property
    def series_of_both(self) -> bool:
        """True where Laterality has both breasts and Image Laterality one.

        Laterality is that of the series and may be absent where images have their own (PS3.3 C.7.3.1); a series may
        hold images of both breasts. Image Laterality is required of mammograms (C.8.11.7), and decides.
        """
        said = {statement.place: statement.says for statement in self.sides}
        return said.get("Laterality") == "B" and said.get("Image Laterality") in ("R", "L")

    @property
    def view(self) -> str | None:
        """The first view that is stated."""
        if self.views:
            return self.views[0].says
        return self.described.says[:-2] if self.described else None


def read_statements(header: Header) -> Statements:
    """Collect side and view from all the places that the standard and habit have for them."""
    sides = list(_sides(header))
    views: list[Statement] = []
    modifiers: list[str] = []
    for item in header.items("ViewCodeSequence"):
        _read_view_item(item, views)
        modifiers += _modifiers(header, item)
    modifiers += _modifiers(header)  # its place is in the view's item; some write it into the header itself
    word = header.text("ViewPosition")
    if word:
        view, side, displaced = view_in_word(word)
        views.append(Statement("View Position", view or _OTHER))
        if side:
            sides.append(Statement("View Position", side))
        if displaced:
            modifiers.append(IMPLANT_DISPLACED)
    if not views:  # CBIS-DDSM keeps the view in Patient Orientation
        view, side, _ = view_in_word(header.text("PatientOrientation"))
        if view:
            views.append(Statement("Patient Orientation", view))
        if side:
            sides.append(Statement("Patient Orientation", side))
    if not views:
        views += _processed_view(header)
    views += _other_regions(header)
    return Statements(tuple(sides), tuple(views), tuple(dict.fromkeys(modifiers)), _described(header))


def _processed_view(header: Header) -> list[Statement]:
    """The view that Fuji's units write into the description of their processing.

    The standard has the organ or the processing there (PS3.3 C.8.1.2, C.8.11.4) and not how the breast was positioned.
    So it counts only where no other element states the view, and contradicts none.
    """
    words = re.split(r"[\s,;:/\\]+", text_of(header, "AcquisitionDeviceProcessingDescription"))
    views = {view for view, _, _ in map(view_in_word, words) if view}
    return [Statement(PROCESSING, view) for view in views] if len(views) == 1 else []


def _described(header: Header) -> Statement | None:
    for keyword in _DESCRIPTIONS:
        projection = projection_in_name(header.text(keyword))
        if projection is not None:
            return Statement(keyword, projection.value)
    return None


def _sides(header: Header) -> Iterator[Statement]:
    for keyword, name in (("ImageLaterality", "Image Laterality"), ("Laterality", "Laterality")):
        word = header.text(keyword)
        if word:
            yield Statement(name, _SIDES.get(word, _OTHER))
    for group in header.items("SharedFunctionalGroupsSequence"):
        for item in header.items("FrameAnatomySequence", group):
            word = _text(item, "FrameLaterality")
            if word:
                yield Statement("Frame Laterality", _SIDES.get(word, _OTHER))
    for region in header.items("AnatomicRegionSequence"):
        side = SIDE_CODES.get(_text(region, "CodeValue"))
        if side:
            yield Statement("Anatomic Region Sequence", side)
        for modifier in header.items("AnatomicRegionModifierSequence", region):
            side = SIDE_CODES.get(_text(modifier, "CodeValue"))
            if side:
                yield Statement("Anatomic Region Modifier Sequence", side)
    word = header.text("BodyPartExamined")
    for side in ("LEFT", "RIGHT"):
        if side in word.replace("_", " ").split():
            yield Statement("Body Part Examined", side[0])


def _read_view_item(item: Any, views: list[Statement]) -> None:
    code = _text(item, "CodeValue") or _text(item, "LongCodeValue")
    meaning = _text(item, "CodeMeaning")
    view = VIEW_CODES.get(code) or view_in_word(meaning)[0]
    if view or code or meaning:
        views.append(Statement("View Code Sequence", view or _OTHER))


def _modifiers(header: Header, item: Any = None) -> Iterator[str]:
    """View modifiers in an item or in the header itself, by our names: a meaning is free text and is not repeated."""
    for modifier in header.items("ViewModifierCodeSequence", item):
        code, meaning = _text(modifier, "CodeValue"), _text(modifier, "CodeMeaning").lower()
        if code or meaning:
            yield MODIFIER_CODES.get(code, meaning if meaning in MODIFIER_CODES.values() else _OTHER)


def _other_regions(header: Header) -> Iterator[Statement]:
    """Regions next to the breast, which are no view of it."""
    for region in header.items("AnatomicRegionSequence"):
        if _text(region, "CodeValue") in AXILLA_CODES or "AXILLA" in _text(region, "CodeMeaning"):
            yield Statement("Anatomic Region Sequence", "axilla")
    if "AXILLA" in header.text("BodyPartExamined"):
        yield Statement("Body Part Examined", "axilla")


def _text(item: Any, keyword: str) -> str:
    try:
        value = item.get(keyword)
        return "" if value is None else " ".join(str(value).replace("\0", " ").split()).upper()
    except Exception:
        return ""


_CONTACT_MAGNIFICATION = 1.3  # contact views have 1.0 to 1.2, magnified ones 1.5 and more


def side_reasons(
    header: Header, statements: Statements, stated: Projection | None, oriented: str | None = None
) -> Iterator[Reason]:
    """Reasons against the stated side.

    ``oriented`` is the breast by Patient Orientation, which may contradict but is not enough alone: a CC that is stored
    upside down has the columns of the other breast.
    """
    said = {statement.place: statement.says for statement in statements.sides}
    unusable = {place: side for place, side in said.items() if side not in ("R", "L")}
    if statements.series_of_both:
        del unusable["Laterality"]
    for place, side in unusable.items():
        word = "both breasts" if side == "B" else "neither R nor L"
        yield Reason("missing-laterality", say(header, f"{place} says {word}; expected one breast"))
    sides = {place: side for place, side in said.items() if side in ("R", "L")}
    if statements.described:
        sides[statements.described.place] = statements.described.says[-1]
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


def view_reasons(header: Header, statements: Statements, stated: Projection | None) -> Iterator[Reason]:
    """Reasons against the stated view."""
    special = [f"{view.place} {view.says}" for view in statements.views if view.says not in SCREENING_VIEWS]
    special += [f"view modifier {modifier}" for modifier in statements.modifiers if not is_harmless(modifier)]
    magnification = _magnification(header)
    if magnification is not None and magnification > _CONTACT_MAGNIFICATION:
        special.append(f"magnified {magnification:.2f} times")
    if not special:
        paddle = PADDLE_WORDS.search(text_of(header, "PaddleDescription"))
        match = SPECIAL_WORDS.search(kind_text(header)) or paddle
        if match:
            special.append(f"description or paddle says {match['word']}")
    if special:
        text = f"{', '.join(special)}: not a screening view; expected CC or MLO without modifiers"
        yield Reason("non-screening-view", say(header, text))
    views = {view.place: view.says for view in statements.views if view.says in SCREENING_VIEWS}
    if statements.described:
        views.setdefault(statements.described.place, statements.described.says[:-2])
    if stated:
        views["the data set's table"] = stated.view_position
    if len(set(views.values())) > 1:
        shown = ", ".join(f"{place} {view}" for place, view in views.items())
        yield Reason("contradictory-view", say(header, f"{shown}; correct the header"))
    elif not views and not special:
        text = "no View Position or View Code Sequence, and no description tells the view"
        yield Reason("missing-view", say(header, text))


def _magnification(header: Header) -> float | None:
    """The stated magnification; where it is 0 or absent, source to detector by source to support (PS3.3 C.8.11.7)."""
    stated = header.number("EstimatedRadiographicMagnificationFactor")
    detector, support = header.number("DistanceSourceToDetector"), header.number("DistanceSourceToPatient")
    if not stated and detector and support and support > 0:
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
    """The breast, ``"R"`` or ``"L"``, by the direction of columns in Patient Orientation; None where that is open.

    An image that is upside down by its header (columns to H) has the columns of the other breast, which is allowed for.
    """
    columns = (_directions(header) or ("", ""))[1]
    if ("L" in columns) == ("R" in columns):
        return None
    return "R" if ("L" in columns) != ("H" in columns) else "L"


def turned_reasons(header: Header) -> Iterator[Reason]:
    """Reasons against a CC or MLO that Patient Orientation says is stored upside down or turned by a quarter.

    Upright, rows run to A or P; columns to F, R or L, never to A, P or H.
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
    """The side of the image with the chest wall, ``"L"`` or ``"R"``; None where that is not clear.

    Along the chest wall's side tissue reaches the image edge; along the other there is air.
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
    """Check the stated projection against the pixels; yield warnings.

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
    # rows are not enough: a swapped label of an upright image looks the same; the columns or the detector must agree
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
