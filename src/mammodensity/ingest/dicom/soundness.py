"""Signs in a header that bytes of it were lost or changed: what decides on a file must not go unread.

Reading is lenient: an element that makes no sense counts as absent. Where it is one that speaks against the image (a
view modifier, a magnification), an image would be accepted because its header is damaged. So coded elements, and only
these, must be readable. Free text is not looked at: it has odd bytes in sound files, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import VR

_KNOWN = {kind.value for kind in VR}
_CODED = {"AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"}
_TEXT = {"LO", "SH"}
_STRANGE = re.compile(rb"[\x00-\x1f\x7f-\xff]")  # PS3.5 6.2: none of these is in any coded value
_CONTROL = re.compile(rb"[\x00-\x1a\x1c-\x1f]")  # escapes are legal in text
_BODY_PART = Tag("BodyPartExamined")  # free text with accents in some archives
_SEQUENCES = frozenset(
    Tag(name)
    for name in (
        "ViewCodeSequence",
        "ViewModifierCodeSequence",
        "AnatomicRegionSequence",
        "AnatomicRegionModifierSequence",
        "PartialViewCodeSequence",
    )
)
"""Sequences of codes that decide; those of frames may have thousands of items, and are read where they are needed."""


def is_disordered(tags: Iterable[int]) -> bool:
    """True when elements do not follow each other by their numbers, as they must (PS3.5 7.1)."""
    before = -1
    for tag in tags:
        if tag <= before:
            return True
        before = tag
    return False


def is_unsound(dataset: Dataset, *, coded: bool = False) -> bool:
    """True when an element is of no kind that there is, or is coded and holds bytes that no code has.

    ``coded``: the elements are those of a code itself, whose texts are looked at, too.
    """
    return any(_is_unsound(dataset, tag, coded=coded) for tag in dataset.keys())  # noqa: SIM118  (elements stay unread)


def _is_unsound(dataset: Dataset, tag: Any, *, coded: bool) -> bool:
    if tag in _SEQUENCES:
        try:
            items = list(dataset[tag].value or [])
        except Exception:  # whatever its bytes lead to
            return True
        return any(is_disordered(map(int, item.keys())) or is_unsound(item, coded=True) for item in items)
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement):
        return False
    if element.VR is not None and element.VR not in _KNOWN:
        return True
    value = element.value
    return isinstance(value, bytes) and _has_strange_bytes(element, value, coded=coded)


def _has_strange_bytes(element: RawDataElement, value: bytes, *, coded: bool) -> bool:
    kind = _kind(element)
    if coded and len(value) < element.length:
        return True
    value = value.rstrip(b"\0 ")
    if kind in _CODED and element.tag != _BODY_PART:
        return bool(_STRANGE.search(value))
    return bool((kind in _CODED or (coded and kind in _TEXT)) and _CONTROL.search(value))


def _kind(element: RawDataElement) -> str:
    if element.VR not in (None, "UN"):
        return str(element.VR)
    try:
        return dictionary_VR(element.tag)
    except KeyError:
        return ""
