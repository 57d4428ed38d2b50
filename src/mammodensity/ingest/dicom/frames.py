"""The Pixel Data element: where it lies, whether it is whole, and what its codestream says of itself.

Everything is told from lengths and the codestream's own header, so that a truncated file, a false size or a
decompression bomb is refused before a decoder allocates anything.

References
----------
PS3.5 A.4 (encapsulation), ISO/IEC 10918-1 B.2 (JPEG markers), ISO/IEC 14495-1 C.2 (JPEG-LS), ISO/IEC 15444-1 A.5.1
(SIZ).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.headers import Header, opened_content
from mammodensity.ingest.dicom.sources import Source
from mammodensity.ingest.dicom.syntaxes import ENCAPSULATED, JPEG_2000, NATIVE, RLE

_UNDEFINED = 0xFFFFFFFF
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MOST_FRAGMENTS = 100_000
_LONG_VR = (b"OB", b"OW", b"UN", b"OV", b"OL", b"OF", b"OD")


@dataclass(frozen=True)
class Codestream:
    """Size and depth that a JPEG, JPEG-LS or JPEG 2000 codestream states itself."""

    rows: int
    columns: int
    samples: int
    precision: int
    process: int = 0
    """Second byte of the frame marker of a JPEG: C0 baseline, C1 extended, C3 lossless."""


@dataclass(frozen=True)
class PixelData:
    """Where the bytes of the pixels lie."""

    spans: tuple[tuple[int, int], ...]
    """Offset and length of each fragment; one for native pixels."""
    encapsulated: bool
    vr: str

    @property
    def length(self) -> int:
        """Bytes in all."""
        return sum(length for _, length in self.spans)


def find_pixel_data(header: Header, stream: Source) -> PixelData:
    """Locate the pixels without reading them.

    Raises
    ------
    DicomError
        None there, cut short, or not as the transfer syntax says.
    """
    path = header.path
    if header.pixel_start < 0:
        raise DicomError(f"{path} has no Pixel Data: it is no image, or cut off before its pixels", "no-pixels")
    order = "<" if header.little else ">"
    stream.seek(header.pixel_start)
    head = stream.read(12)
    if len(head) < 8:
        raise DicomError(f"{path} ends where its pixels begin; copy it again", "damaged")
    element = struct.unpack(f"{order}HH", head[:4])[1]
    if element != 0x0010:
        raise DicomError(f"{path} has floating-point pixels; no mammogram has", "unsupported-syntax")
    if header.implicit:
        vr, length, start = "OW", struct.unpack(f"{order}L", head[4:8])[0], header.pixel_start + 8
    elif head[4:6] in _LONG_VR and len(head) == 12:
        vr, length, start = head[4:6].decode(), struct.unpack(f"{order}L", head[8:12])[0], header.pixel_start + 12
    else:
        raise DicomError(f"{path} has a damaged Pixel Data element; copy it again", "damaged")
    if header.syntax in NATIVE:
        if length == _UNDEFINED:
            raise DicomError(f"{path} is encapsulated against its transfer syntax; export it again", "damaged")
        return PixelData(((start, length),), False, vr)
    if length != _UNDEFINED:
        raise DicomError(f"{path} is not encapsulated against its transfer syntax; export it again", "damaged")
    return PixelData(tuple(_fragments(header, stream, start)), True, vr)


def _fragments(header: Header, stream: Source, start: int) -> Iterator[tuple[int, int]]:
    """Offset and length of every fragment after the offset table."""
    place, size = start, header.size
    for count in range(_MOST_FRAGMENTS):
        stream.seek(place)
        head = stream.read(8)
        if head[:4] == _END:
            return
        if len(head) < 8 or head[:4] != _ITEM:
            raise DicomError(f"{header.path} has damaged or truncated pixel fragments; copy it again", "damaged")
        length = struct.unpack("<L", head[4:])[0]
        place += 8
        if place + length > size:
            raise DicomError(f"{header.path} is cut short in its pixels; copy it again", "damaged")
        if count:  # the first item is the offset table
            yield place, length
        place += length
    raise DicomError(f"{header.path} has more pixel fragments than any mammogram", "absurd-size")


def native_bytes(header: Header) -> int:
    """Bytes of one uncompressed frame by size and depth of the header."""
    pixels = (header.whole("Rows") or 0) * (header.whole("Columns") or 0)
    return pixels * (header.whole("SamplesPerPixel") or 1) * ((header.whole("BitsAllocated") or 16) // 8)


def read_pixel_bytes(header: Header) -> tuple[PixelData, bytes]:
    """The bytes of the pixels: native values of one frame, or the codestream."""
    with opened_content(header) as stream:
        found = find_pixel_data(header, stream)
        pieces = []
        for start, length in found.spans:
            stream.seek(start)
            pieces.append(stream.read(length if found.encapsulated else min(length, native_bytes(header))))
    return found, b"".join(pieces)


def read_codestream_head(stream: Source, found: PixelData) -> bytes:
    """The first bytes of the codestream, as many as its own header takes."""
    pieces = []
    for start, length in found.spans[:4]:
        stream.seek(start)
        pieces.append(stream.read(min(length, 1 << 16)))
        if length > 1 << 16:
            break
    return b"".join(pieces)


def codestream_of(header: Header, head: bytes) -> Codestream | None:
    """What the codestream states of itself; None for RLE, which states nothing.

    Raises
    ------
    DicomError
        It is no codestream of its transfer syntax.
    """
    if header.syntax in RLE:
        return None
    name = ENCAPSULATED[header.syntax]
    try:
        found = _size_of_j2k(head) if header.syntax in JPEG_2000 else _size_of_jpeg(head)
    except (struct.error, IndexError):
        found = None
    if found is None:
        raise DicomError(f"{header.path} has pixels that are no {name} stream; export it again", "damaged")
    return found


def _size_of_jpeg(head: bytes) -> Codestream | None:
    """Walk the markers up to the frame header (SOFn)."""
    if head[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 4 <= len(head):
        if head[place] != 0xFF:
            return None
        marker = head[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length = struct.unpack(">H", head[place + 2 : place + 4])[0]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, samples = struct.unpack(">BHHB", head[place + 4 : place + 10])
            return Codestream(rows, columns, samples, precision, marker)
        if marker == 0xDA or length < 2:
            return None
        place += 2 + length
    return None


def _size_of_j2k(head: bytes) -> Codestream | None:
    """The SIZ segment, at the beginning of a codestream or inside a JP2 box."""
    place = head.find(b"\xff\x4f\xff\x51", 0, 4096)
    if place < 0 or (place > 0 and head[4:8] != b"jP  "):
        return None
    siz = place + 4
    right, bottom, left, top = struct.unpack(">LLLL", head[siz + 4 : siz + 20])
    samples = struct.unpack(">H", head[siz + 36 : siz + 38])[0]
    precision = (head[siz + 38] & 0x7F) + 1
    return Codestream(bottom - top, right - left, samples, precision)


def is_complete(header: Header, codestream: bytes) -> bool:
    """True when the codestream ends with its end marker, zeros after it aside."""
    if header.syntax in RLE:
        return True
    return codestream.rstrip(b"\0")[-2:] == b"\xff\xd9" or codestream[-1:] == b"" or b"\xff\xd9" in codestream[-64:]
