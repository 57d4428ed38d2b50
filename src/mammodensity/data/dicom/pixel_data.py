"""The Pixel Data element: where it lies, whether it is whole, and what its codestream states of itself.

Everything is told from lengths and the codestream's own header, so that a truncated file, a false size or a
decompression bomb is refused before a decoder allocates anything. The parsers of pydicom do not serve here: the one for
fragments takes a stream that is cut off for a whole one, and the one for JPEG 2000 gives no size and loops forever on a
box of length 0.

References
----------
PS3.5 A.4 (encapsulation), ISO/IEC 10918-1 B.2 (JPEG markers), ISO/IEC 14495-1 C.2 (JPEG-LS), ISO/IEC 15444-1 A.5.1
(SIZ).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from mammodensity.data.dicom.codes import (
    ENCAPSULATED,
    JPEG12_EXTRA,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LS,
    NATIVE,
    READABLE,
    RLE,
    has_jpeg12,
)
from mammodensity.data.dicom.file_bytes import Source, opened
from mammodensity.data.dicom.file_checks import Reason
from mammodensity.data.dicom.header import Codestream, Header, PixelData, say
from mammodensity.data.picture_files import MOST_PIXELS, SMALLEST_SIDE_PX
from mammodensity.errors import DicomError

_UNDEFINED = 0xFFFFFFFF
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MOST_FRAGMENTS = 100_000
_MOST_HEAD_BYTES = 1 << 16  # of a codestream
_LONG_VR = (b"OB", b"OW", b"UN", b"OV", b"OL", b"OF", b"OD")


def find_pixels(header: Header, stream: BinaryIO) -> PixelData | Reason:
    """Find where the pixels lie in the opened file of a header, or why they cannot be read; nothing is decoded.

    The pixels of other modalities are not looked for: a film of ultrasound has thousands of fragments.
    """
    if header.text("Modality") not in ("MG", ""):
        return Reason("not-mammography", say(header, "pixels of another modality than MG are not read"))
    if header.syntax not in READABLE:
        named = header.syntax[:64] if re.fullmatch(r"[0-9.]+", header.syntax) else "that is no UID"
        text = f"transfer syntax {named} is not read; export it uncompressed"
        return Reason("unsupported-syntax", say(header, text))
    try:
        return _located(header, header.content(stream))
    except DicomError as error:
        return Reason(error.code, str(error))


def pixels_of(header: Header) -> PixelData:
    """Return the place of the pixels.

    Raises
    ------
    DicomError
        There are none, they are cut short, or they are in a transfer syntax that is not read or not as stated.
    """
    pixels = header.pixels
    if isinstance(pixels, PixelData):
        return pixels
    raise DicomError(pixels.text, pixels.code) if pixels else ValueError("the pixels were not looked for")


def _located(header: Header, stream: Source) -> PixelData:
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
    spans = tuple(_fragments(header, stream, start))
    return PixelData(spans, True, vr, _codestream(header.syntax, _first_bytes(stream, spans)))


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


def read_pixel_bytes(header: Header) -> bytes:
    """The bytes of the pixels: native values of one frame, or the codestream."""
    pixels = pixels_of(header)
    with opened(header.path) as (file, _):
        stream, pieces = header.content(file), []
        for start, length in pixels.spans:
            stream.seek(start)
            pieces.append(stream.read(length if pixels.encapsulated else min(length, native_bytes(header))))
    return b"".join(pieces)


def _first_bytes(stream: Source, spans: tuple[tuple[int, int], ...]) -> bytes:
    """The first bytes of the codestream, as many as its own header takes."""
    pieces = []
    for start, length in spans[:4]:
        stream.seek(start)
        pieces.append(stream.read(min(length, _MOST_HEAD_BYTES)))
        if length > _MOST_HEAD_BYTES:
            break
    return b"".join(pieces)


def _codestream(syntax: str, head: bytes) -> Codestream | None:
    """Read what the codestream states of itself; None for RLE, which states nothing, and for other bytes."""
    if syntax in RLE:
        return None
    try:
        return _size_of_j2k(head) if syntax in JPEG_2000 else _size_of_jpeg(head)
    except (struct.error, IndexError):
        return None


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


_LARGEST_SIDE_PX = 32_000
_MOST_PADDING_BYTES = 15  # less than the shortest row or column
_LARGE_BYTES = 60_000_000  # uncompressed; more than any detector gives
_MOST_COMPRESSION = 500  # of large images; scanned films reach 20 by lossless coders, and 100 with loss
_MOST_EXPANSION = 4  # JPEG Lossless takes up to 24 bits for 8
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


def require_decodable(header: Header) -> None:
    """Raise unless the pixels are there whole, of a sane size, and in a syntax that is read; nothing is decoded."""
    rows, columns, allocated, stored = _shape(header)
    _require_grey(header)
    if header.deflated_at >= 0:
        _require_no_bomb(header, header.size - header.deflated_at)
    pixels = pixels_of(header)
    if not pixels.encapsulated:
        _require_native_length(header, pixels.spans[0])
        return
    _require_codestream_length(header, pixels.length)
    _require_no_bomb(header, pixels.length)
    if header.syntax not in RLE:
        _require_codestream(header, pixels.codestream, rows, columns, (allocated, stored))


def _shape(header: Header) -> tuple[int, int, int, int]:
    """Rows, columns, bits allocated and stored, each checked."""
    values = []
    for keyword, name in (("Rows", "Rows"), ("Columns", "Columns"), ("BitsAllocated", "Bits Allocated")):
        value = header.whole(keyword)
        if value is None:
            if header.pixel_start < 0:
                text = "no Pixel Data: it is no image, or cut off before its pixels"
                raise DicomError(say(header, text), "no-pixels")
            raise DicomError(say(header, f"{name} is absent or unreadable; export it again"), "missing-tag")
        values.append(value)
    rows, columns, allocated = values
    if rows <= 0 or columns <= 0:
        raise DicomError(say(header, f"{rows} x {columns} pixels; expected an image"), "absurd-size")
    if min(rows, columns) < SMALLEST_SIDE_PX or max(rows, columns) > _LARGEST_SIDE_PX or rows * columns > MOST_PIXELS:
        raise DicomError(say(header, f"{rows} x {columns} pixels; no mammogram has that size"), "absurd-size")
    stored = header.whole("BitsStored")
    stored = allocated if stored is None else stored
    high = header.whole("HighBit")
    high = stored - 1 if high is None else high
    if allocated not in (8, 16) or not 8 <= stored <= allocated or not stored - 1 <= high < allocated:
        text = f"Bits Allocated {allocated}, Stored {stored}, High Bit {high}; expected 8 to 16 bits in 8 or 16"
        raise DicomError(say(header, text), "depth")
    return rows, columns, allocated, stored


def _require_grey(header: Header) -> None:
    samples = header.whole("SamplesPerPixel") or 1
    photometric = header.text("PhotometricInterpretation")
    if not photometric:
        raise DicomError(say(header, "Photometric Interpretation is absent; export it again"), "missing-tag")
    grey = photometric in ("MONOCHROME1", "MONOCHROME2") and samples == 1
    if not grey and not (photometric == "RGB" and samples == 3 and (header.whole("PlanarConfiguration") or 0) == 0):
        named = photometric if photometric in _PHOTOMETRIC else "Photometric Interpretation of another value"
        text = f"{named} with {samples} samples a pixel; expected MONOCHROME1 or MONOCHROME2"
        raise DicomError(say(header, text), "colour")


def _require_native_length(header: Header, span: tuple[int, int]) -> None:
    """The pixels fill the element but for padding (PS3.5 8.1.1: to an even length; some writers pad to words)."""
    expected = native_bytes(header)
    start, length = span
    if length < expected or not _reaches(header, start + expected):
        text = f"less than the {expected} bytes of pixels that its size needs; copy it again"
        raise DicomError(say(header, text), "damaged")
    if length - expected > _MOST_PADDING_BYTES and (header.whole("NumberOfFrames") or 1) == 1:
        text = f"{length} bytes of pixels where its Rows and Columns need {expected}; export it again"
        raise DicomError(say(header, text), "damaged")


def _reaches(header: Header, end: int) -> bool:
    """True when the content has so many bytes; where it is deflated, only inflating it tells."""
    if header.deflated_at < 0:
        return end <= header.size
    with opened(header.path) as (file, _):
        stream = header.content(file)
        stream.seek(end - 1)
        return bool(stream.read(1))


def _require_codestream_length(header: Header, length: int) -> None:
    """Refuse more bytes than a lossless coder can make of a frame, so that a false length costs no memory."""
    if not length:
        raise DicomError(say(header, "its Pixel Data is empty; copy it again"), "damaged")
    most = _MOST_EXPANSION * native_bytes(header) + (1 << 20)
    if length > most and (header.whole("NumberOfFrames") or 1) == 1:
        text = f"{length} bytes of compressed pixels where its size needs at most {most}; export it again"
        raise DicomError(say(header, text), "damaged")


def _require_no_bomb(header: Header, length: int) -> None:
    """Refuse a large image of so few compressed bytes that it would be black: decoding would be a waste."""
    native = native_bytes(header)
    if native > _LARGE_BYTES and length * _MOST_COMPRESSION < native:
        text = f"{length} compressed bytes for {native} bytes of pixels; no mammogram can be packed so small"
        raise DicomError(say(header, text), "absurd-size")


def _require_codestream(
    header: Header, stream: Codestream | None, rows: int, columns: int, depth: tuple[int, int]
) -> None:
    """Compare what the codestream states of itself with the header."""
    allocated, stored = depth
    if stream is None:
        name = ENCAPSULATED[header.syntax]
        raise DicomError(f"{header.path} has pixels that are no {name} stream; export it again", "damaged")
    samples = header.whole("SamplesPerPixel") or 1
    if (stream.rows, stream.columns) != (rows, columns) or stream.samples != samples:
        text = f"{rows} x {columns} by the header, {stream.rows} x {stream.columns} by its pixels; export it again"
        raise DicomError(say(header, text), "damaged")
    if not 2 <= stream.precision <= 16 or stream.precision > allocated or stream.precision < stored - 8:
        raise DicomError(say(header, f"{stream.precision} bits in its pixels, {stored} by its header"), "damaged")
    expected = {
        **dict.fromkeys(JPEG_BASELINE, (0xC0,)),
        **dict.fromkeys(JPEG_EXTENDED, (0xC0, 0xC1)),
        **dict.fromkeys(JPEG_LOSSLESS, (0xC3,)),
        **dict.fromkeys(JPEG_LS, (0xF7,)),
    }.get(header.syntax)
    if expected and stream.process not in expected and header.syntax not in JPEG_2000:
        raise DicomError(say(header, "its pixels are another kind of JPEG than its transfer syntax says"), "damaged")
    if header.syntax in JPEG_EXTENDED and stream.precision > 8 and not has_jpeg12():
        text = f"12-bit JPEG Extended needs an optional decoder: pip install '{JPEG12_EXTRA}'"
        raise DicomError(say(header, text), "unsupported-syntax")
