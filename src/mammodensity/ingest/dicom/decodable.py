"""The pixels, from outside: whether they are there whole, grey, of a sane size, and in a syntax that is read."""

from __future__ import annotations

import re

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.frames import codestream_of, find_pixel_data, native_bytes, read_codestream_head
from mammodensity.ingest.dicom.headers import MOST_PIXELS, Header, opened_content, say
from mammodensity.ingest.dicom.sources import Source
from mammodensity.ingest.dicom.syntaxes import (
    ENCAPSULATED,
    JPEG12_EXTRA,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LS,
    READABLE,
    has_jpeg12,
)

_SMALLEST_SIDE_PX = 16
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
    syntax = header.syntax
    if syntax not in READABLE:
        named = syntax[:64] if re.fullmatch(r"[0-9.]+", syntax) else "that is no UID"
        text = f"transfer syntax {named} is not read; export it uncompressed"
        raise DicomError(say(header, text), "unsupported-syntax")
    samples = header.whole("SamplesPerPixel") or 1
    if header.deflated_at >= 0:
        _require_no_bomb(header, header.size - header.deflated_at)
    with opened_content(header) as stream:
        found = find_pixel_data(header, stream)
        if syntax not in ENCAPSULATED:
            _require_native_length(header, stream, found.spans[0])
            return
        _require_codestream_length(header, found.length)
        _require_no_bomb(header, found.length)
        head = read_codestream_head(stream, found)
    _require_codestream(header, head, rows, columns, (allocated, stored, samples))


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
    if min(rows, columns) < _SMALLEST_SIDE_PX or max(rows, columns) > _LARGEST_SIDE_PX or rows * columns > MOST_PIXELS:
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


def _require_native_length(header: Header, stream: Source, span: tuple[int, int]) -> None:
    """The pixels fill the element but for padding (PS3.5 8.1.1: to an even length; some writers pad to words)."""
    expected = native_bytes(header)
    start, length = span
    stream.seek(start + expected - 1)
    if length < expected or not stream.read(1):
        text = f"less than the {expected} bytes of pixels that its size needs; copy it again"
        raise DicomError(say(header, text), "damaged")
    if length - expected > _MOST_PADDING_BYTES and (header.whole("NumberOfFrames") or 1) == 1:
        text = f"{length} bytes of pixels where its Rows and Columns need {expected}; export it again"
        raise DicomError(say(header, text), "damaged")


def _require_codestream_length(header: Header, length: int) -> None:
    """No more bytes than a lossless coder can make of one frame, so that a false length costs no memory."""
    if not length:
        raise DicomError(say(header, "its Pixel Data is empty; copy it again"), "damaged")
    most = _MOST_EXPANSION * native_bytes(header) + (1 << 20)
    if length > most and (header.whole("NumberOfFrames") or 1) == 1:
        text = f"{length} bytes of compressed pixels where its size needs at most {most}; export it again"
        raise DicomError(say(header, text), "damaged")


def _require_no_bomb(header: Header, length: int) -> None:
    """Of a large image so few compressed bytes that it would be black: decoding takes time and memory for nothing."""
    native = native_bytes(header)
    if native > _LARGE_BYTES and length * _MOST_COMPRESSION < native:
        text = f"{length} compressed bytes for {native} bytes of pixels; no mammogram can be packed so small"
        raise DicomError(say(header, text), "absurd-size")


def _require_codestream(header: Header, head: bytes, rows: int, columns: int, depth: tuple[int, int, int]) -> None:
    allocated, stored, samples = depth
    stream = codestream_of(header, head)
    if stream is None:
        return
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
