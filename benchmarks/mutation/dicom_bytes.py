"""A DICOM file as bytes whose header can be changed to what no writer lets pass, in any uncompressed header syntax."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydicom.datadict import dictionary_VR, tag_for_keyword

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"
NATIVE = (IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)
PIXELS = 0x7FE00010
_LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OV", b"OL", b"OF", b"OD", b"UC", b"UR")
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Element:
    """One element of the data set, as bytes."""

    tag: int
    vr: bytes
    value: bytes


@dataclass(frozen=True)
class DicomBytes:
    """A file of one frame: everything before the data set, the elements before the pixels, and the pixels."""

    before: bytes
    """Preamble, prefix and file meta information."""
    syntax: str
    elements: tuple[Element, ...]
    stream: bytes
    """Native values, or the codestream."""

    @property
    def is_native(self) -> bool:
        """True when the pixels are not compressed by a coder."""
        return self.syntax in NATIVE

    def value(self, keyword: str) -> bytes | None:
        """The bytes of an element; None where there is none."""
        tag = tag_for_keyword(keyword)
        return next((element.value for element in self.elements if element.tag == tag), None)

    def changed(self, keyword: str, value: bytes | str | None) -> DicomBytes:
        """Another value for an element, which is added where there is none; None removes it."""
        tag = tag_for_keyword(keyword)
        assert tag is not None
        rest = [element for element in self.elements if element.tag != tag]
        if value is not None:
            content = value.encode("latin-1") if isinstance(value, str) else value
            blank = b"\0" if dictionary_VR(tag) in ("UI", "OB") else b" "
            rest.append(Element(tag, dictionary_VR(tag)[:2].encode(), content + blank * (len(content) % 2)))
        return replace(self, elements=tuple(sorted(rest, key=lambda element: element.tag)))

    def whole_number(self, keyword: str, value: int) -> DicomBytes:
        """Another value for an element of 16 bits."""
        return self.changed(keyword, struct.pack(self._order + "H", value & 0xFFFF))

    @property
    def _order(self) -> str:
        return ">" if self.syntax == BIG_ENDIAN else "<"

    def content(self) -> bytes:
        """The file."""
        data = b"".join(self._head(element, len(element.value)) + element.value for element in self.elements)
        pixels = Element(PIXELS, b"OW" if self.is_native else b"OB", b"")
        if self.is_native:
            data += self._head(pixels, len(self.stream)) + self.stream
        else:
            stream = self.stream + b"\0" * (len(self.stream) % 2)
            data += self._head(pixels, _UNDEFINED) + b"\xfe\xff\x00\xe0" + bytes(4)
            data += b"\xfe\xff\x00\xe0" + struct.pack("<L", len(stream)) + stream + b"\xfe\xff\xdd\xe0" + bytes(4)
        if self.syntax == DEFLATED:
            squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
            data = squeeze.compress(data) + squeeze.flush()
            data += b"\0" * (len(data) % 2)
        return self.before + data

    def span(self) -> tuple[int, int]:
        """Where the pixels begin and end in the file; the whole data set where it is deflated."""
        content = self.content()
        if self.syntax == DEFLATED:
            return len(self.before), len(content)
        end = len(content) - (0 if self.is_native else 8)
        return end - len(self.stream), end

    def _head(self, element: Element, length: int) -> bytes:
        order = self._order
        tag = struct.pack(order + "HH", element.tag >> 16, element.tag & 0xFFFF)
        if self.syntax == IMPLICIT:
            return tag + struct.pack(order + "L", length)
        if element.vr in _LONG:
            return tag + element.vr + b"\0\0" + struct.pack(order + "L", length)
        return tag + element.vr + struct.pack(order + "H", length)


def parse(content: bytes, stream: bytes | None = None) -> DicomBytes:
    """Take apart a sound file as pydicom writes it; ``stream`` is the codestream where the pixels are encapsulated."""
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    uid = content.index(b"\x02\x00\x10\x00UI") + 8
    syntax = content[uid : uid + int.from_bytes(content[uid - 2 : uid], "little")].rstrip(b"\0").decode()
    before, data = content[:start], content[start:]
    if syntax == DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)
    elements = []
    for element in _walk(data, ">" if syntax == BIG_ENDIAN else "<", implicit=syntax == IMPLICIT):
        if element.tag == PIXELS:
            return DicomBytes(before, syntax, tuple(elements), element.value if stream is None else stream)
        elements.append(element)
    raise ValueError("no pixels")


def _walk(data: bytes, order: str, *, implicit: bool) -> Iterator[Element]:
    place = 0
    while place + 8 <= len(data):
        group, number = struct.unpack_from(order + "HH", data, place)
        vr = b"" if implicit else data[place + 4 : place + 6]
        at, form = (place + 4, "L") if implicit else (place + 8, "L") if vr in _LONG else (place + 6, "H")
        length = struct.unpack_from(order + form, data, at)[0]
        begin = at + struct.calcsize("=" + form)
        end = len(data) if length == _UNDEFINED else begin + length
        yield Element(group << 16 | number, vr, data[begin:end])
        place = end
