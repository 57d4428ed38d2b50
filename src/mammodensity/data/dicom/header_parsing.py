"""Read the header of a DICOM file, without pixels and with bounded memory, whatever the file claims.

Reading is lenient: an element that makes no sense counts as absent. Where such an element speaks against the image (a
view modifier, a magnification), the image would be accepted because its header is damaged. So coded elements, and only
these, must be readable. Free text is not checked: it has odd bytes in sound files, too.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import VR

from mammodensity.data.dicom.file_bytes import MOST_HEADER_BYTES, Bounded, Inflating, NotDicomError, opened
from mammodensity.data.dicom.header import WANTED_TAGS, Header
from mammodensity.errors import DicomError

_PREFIX = b"DICM"
_LARGEST_FILE_BYTES = 2_000_000_000
_FIRST_BYTES = 144  # preamble, prefix and the beginning of the first element
_MOST_META_BYTES = 1 << 20
_MOST_VALUE_BYTES = 2_000_000  # a look-up table takes 130 kB; sequences are parsed whole, so a large one costs time
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


def looks_like_dicom(path: Path) -> bool:
    """True when the content begins as a DICOM file does, with or without the preamble."""
    try:
        with opened(path) as (stream, _):
            return _begin(stream.read(_FIRST_BYTES)) is not None
    except DicomError:
        return False


def _begin(start: bytes) -> int | None:
    """Offset of the first element: after preamble and prefix, or where one or both are absent; None for other files."""
    if start[128:132] == _PREFIX:
        return 132
    if start[:4] == _PREFIX:
        return 4
    if len(start) < 16:
        return None
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", start[:4])
        if group not in (0x0002, 0x0008) or element > 0x0060:
            continue
        if start[4:6].isalpha() and start[4:6].isupper():
            length = struct.unpack(f"{order}H", start[6:8])[0]
            if length <= 256:
                return 0
        elif struct.unpack(f"{order}L", start[4:8])[0] <= 256 and order == "<":
            return 0
    return None


def parse_header(path: Path, stream: BinaryIO, state: os.stat_result) -> Header:
    """Read the elements of ``TAGS`` from an opened file, no pixels.

    Raises
    ------
    NotDicomError
        Its content does not begin as that of a DICOM file.
    DicomError
        Its header cannot be followed.
    """
    size = state.st_size
    if size == 0:
        raise NotDicomError(f"{path} is empty; copy it again", "damaged")
    begin = _begin(stream.read(_FIRST_BYTES))
    if begin is None:
        raise NotDicomError(f"{path} is no DICOM file", "not-dicom")
    if size > _LARGEST_FILE_BYTES:
        raise DicomError(f"{path} is larger than any mammogram ({size} bytes)", "absurd-size")
    stream.seek(begin)
    meta, after = _meta(path, stream, min(size, _MOST_META_BYTES))
    syntax = str(meta.get("TransferSyntaxUID", "") or "").strip()
    flags = (("no-preamble",) if begin < 132 else ()) + (() if syntax else ("no-transfer-syntax",))
    deflated = syntax == DeflatedExplicitVRLittleEndian
    stream.seek(after)
    source = Bounded(Inflating(stream, after, path), MOST_HEADER_BYTES) if deflated else Bounded(stream, size)
    implicit, little = _encoding(source, syntax)
    if not syntax:
        syntax = ImplicitVRLittleEndian if implicit else "1.2.840.10008.1.2.1" if little else ExplicitVRBigEndian
    dataset, pixel_start = _data_set(path, source, implicit=implicit, little=little)
    if not dataset.get("SOPClassUID") and meta.get("MediaStorageSOPClassUID"):
        dataset.SOPClassUID = meta.get("MediaStorageSOPClassUID")
    deflated_at = after if deflated else -1
    return Header(path, dataset, syntax, size, state.st_mtime_ns, pixel_start, implicit, little, flags, deflated_at)


def _data_set(path: Path, source: Bounded, *, implicit: bool, little: bool) -> tuple[Dataset, int]:
    """The wanted elements, and the offset of Pixel Data (-1: none)."""
    tags: list[int] = []
    disordered = False

    def at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:
        nonlocal disordered
        disordered = disordered or is_disordered([*tags, int(tag)])
        tags[:] = [int(tag)]
        return tag in _PIXEL_TAGS

    reader: Any = source
    dataset = read_dataset(
        reader, implicit, little, stop_when=at_pixels, defer_size=_MOST_VALUE_BYTES, specific_tags=WANTED_TAGS
    )
    pixel_start = source.tell() if tags and tags[0] in _PIXEL_TAGS else -1
    if pixel_start < 0:
        if source.cut or any(_is_short(element) for element in dataset.values()):
            raise DicomError(f"{path} ends inside an element of its header; copy it again", "damaged")
        if not tags:
            raise DicomError(f"{path} ends before its data set; copy it again", "damaged")
    _require_small(path, dataset)
    if disordered:
        raise DicomError(f"{path}: the elements of its header are out of order; copy or export it again", "damaged")
    if is_unsound(dataset):
        raise DicomError(f"{path}: its header has codes of bytes that no code has; copy it again", "damaged")
    return dataset, pixel_start


def _is_short(element: Any) -> bool:
    """True for an element with fewer bytes than its length says: the file ends there."""
    return isinstance(element, RawDataElement) and len(element.value or b"") < element.length <= _MOST_VALUE_BYTES


def _require_small(path: Path, dataset: Dataset) -> None:
    """Values above the limit are left unread; only those of every frame may be so long, in files of many frames."""
    for element in dataset.values():
        unread = isinstance(element, RawDataElement) and element.value is None and element.length > _MOST_VALUE_BYTES
        if unread and element.tag != Tag("PerFrameFunctionalGroupsSequence"):
            raise DicomError(f"{path}: element {element.tag} is larger than in any header; export it again", "damaged")


def _meta(path: Path, stream: BinaryIO, size: int) -> tuple[Dataset, int]:
    """The file meta information (group 2) and the offset after it; empty where there is none."""
    begin = stream.tell()
    first = stream.read(8)
    stream.seek(begin)
    if len(first) == 8 and struct.unpack("<H", first[:2])[0] != 2:
        return Dataset(), begin
    implicit = not first[4:6].isalpha()  # against the standard, but met

    def after_meta(tag: Any, _vr: str | None, _length: int) -> bool:
        return int(tag) >> 16 != 2

    source = Bounded(stream, size)
    reader: Any = source
    meta = read_dataset(reader, implicit, True, stop_when=after_meta)
    after = _rewound(source, begin, implicit)
    if source.cut:
        raise DicomError(f"{path} ends inside its file meta information; copy it again", "damaged")
    return meta, after


def _rewound(source: Any, begin: int, implicit: bool) -> int:
    """Offset of the first element that is not of group 2, found by walking: the next group may be big-endian."""
    source.seek(begin)
    while True:
        place = source.tell()
        head = source.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return int(place)
        if implicit:
            length = struct.unpack("<L", head[4:])[0]
        elif head[4:6] in (b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF"):
            length = struct.unpack("<L", source.read(4).ljust(4, b"\0"))[0]
        else:
            length = struct.unpack("<H", head[6:8])[0]
        source.seek(source.tell() + length)


def _encoding(source: Any, syntax: str) -> tuple[bool, bool]:
    """Implicit VR? little endian? As the first element shows; the transfer syntax where it shows nothing."""
    begin = source.tell()
    head = source.read(6)
    source.seek(begin)
    little = syntax != ExplicitVRBigEndian
    if len(head) < 6:
        return syntax == ImplicitVRLittleEndian, little
    if not syntax:
        little = struct.unpack("<H", head[:2])[0] < struct.unpack(">H", head[:2])[0]
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return not explicit, little


_VR_NAMES = {kind.value for kind in VR}
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

    ``coded``: the elements are those of a code itself, so that their texts are checked, too.
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
    if element.VR is not None and element.VR not in _VR_NAMES:
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
