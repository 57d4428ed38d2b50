"""JPEG streams whose pixels cannot be what was coded: cut, damaged, or of another size than the header says.

Decoders of JPEG go on in silence where a stream is cut or damaged: they fill the rest with grey, or go on with shifted
blocks. A sound stream has the codes of exactly as many blocks (or samples, in JPEG Lossless) as its frame header
states, no coefficient beyond the 63rd, restart markers in order, and at most 7 bits of padding before a marker. Damaged
codes keep to all of that only by chance.

References
----------
ISO/IEC 10918-1: A.2 (order of blocks), A.3.3 (range of DC coefficients), B.1 and B.2 (markers), F.1.2 and H.1.2 (codes
and predictors of JPEG Lossless).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.jpeg_codes import (
    GUARD,
    LOSSLESS,
    PROGRESSIVE,
    SEQUENTIAL,
    Component,
    DamagedJpegError,
    Scan,
    Table,
    dc_values,
    follow,
)

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SCAN_END = re.compile(rb"\xff[^\x00]")
_FRAMES = tuple(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC))
_END = 0xD9
_NO_TABLE = (b"", b"")


@dataclass(slots=True)
class _Stream:
    """Tables and frame header from the markers before a scan."""

    content: bytes
    huffman: dict[int, Table] = field(default_factory=dict)
    dc_steps: dict[int, int] = field(default_factory=dict)  # of the quantisation tables
    interval: int = 0  # MCUs between restart markers
    process: int = 0
    precision: int = 0
    rows: int = 0
    columns: int = 0
    components: dict[int, Component] = field(default_factory=dict)

    def most(self, name: str) -> int:
        """The largest sampling factor, across or down."""
        factors: list[int] = [getattr(component, name) for component in self.components.values()]
        return max(factors)

    def mcus(self, components: list[Component]) -> tuple[int, int]:
        """Rows and columns of the MCUs of a scan of these components (A.2.2, A.2.3)."""
        side = 1 if self.process in LOSSLESS else 8
        tall, wide = self.most("rows"), self.most("columns")
        if len(components) > 1:
            return _over(self.rows, side * tall), _over(self.columns, side * wide)
        rows, columns = self.rows * components[0].rows, self.columns * components[0].columns
        return _over(_over(rows, tall), side), _over(_over(columns, wide), side)


def _over(number: int, divisor: int) -> int:
    """Divide and round up."""
    return -(-number // divisor)


def require_sound_jpeg(content: bytes, tables: bytes = b"") -> None:
    """Raise unless the codes of a stream are those of exactly the image that its header states.

    Streams of arithmetic coding, and hierarchical ones, are not followed. ``tables`` is a stream of tables only, as
    TIFF keeps it apart.

    Raises
    ------
    DamagedJpegError
        The codes are too many, too few, or no codes, or leave the range of grey levels.
    """
    stream = _Stream(tables[: tables.rfind(b"\xff\xd9")] + content[2:] if tables else content)
    try:
        _read(stream)
    except DamagedJpegError:
        raise
    except (struct.error, LookupError, ValueError) as error:
        raise DamagedJpegError("a damaged header") from error


def _read(stream: _Stream) -> None:
    """Read the segments one after the other, up to the end marker."""
    content, place = stream.content, 2
    while place + 4 <= len(content):
        marker, body, place = _segment(content, place)
        if marker == _END:
            break
        if marker in _FRAMES:
            if marker not in (*SEQUENTIAL, *PROGRESSIVE, *LOSSLESS):
                return
            _read_frame(stream, marker, body)
        elif marker == 0xDA:
            place = _read_scan(stream, body, place)
        elif marker == 0xC4:
            _read_codes(stream, body)
        elif marker == 0xDB:
            _read_steps(stream, body)
        elif marker == 0xDD:
            stream.interval = struct.unpack(">H", body)[0]
    if not stream.components or any(component.missing for component in stream.components.values()):
        raise DamagedJpegError("parts of the image are absent")


def _segment(content: bytes, place: int) -> tuple[int, bytes, int]:
    """Marker and content of the segment at a place, and the place after it; the end marker has no content."""
    while content[place : place + 2] == b"\xff\xff":  # fill bytes
        place += 1
    if content[place] != 0xFF:
        raise DamagedJpegError("bytes between its segments")
    if content[place + 1] == _END:
        return _END, b"", place + 2
    end = place + 2 + struct.unpack(">H", content[place + 2 : place + 4])[0]
    return content[place + 1], content[place + 4 : end], end


def _read_codes(stream: _Stream, body: bytes) -> None:
    place = 0
    while place < len(body):
        counts = body[place + 1 : place + 17]
        symbols = body[place + 17 : place + 17 + sum(counts)]
        if len(counts) < 16 or len(symbols) < sum(counts):
            raise DamagedJpegError("a damaged Huffman table")
        stream.huffman[body[place]] = (counts, symbols)
        place += 17 + len(symbols)


def _read_steps(stream: _Stream, body: bytes) -> None:
    """Read the step of the DC coefficient from each quantisation table."""
    place = 0
    while place < len(body):
        wide = bool(body[place] >> 4)
        step = struct.unpack(">H" if wide else ">B", body[place + 1 : place + 2 + wide])[0]
        stream.dc_steps[body[place] & 15] = step
        place += 129 if wide else 65


def _read_frame(stream: _Stream, marker: int, body: bytes) -> None:
    stream.process = marker
    stream.precision, stream.rows, stream.columns, count = struct.unpack(">BHHB", body[:6])
    for place in range(6, 6 + 3 * count, 3):
        factors = body[place + 1]
        stream.components[body[place]] = Component(factors >> 4, factors & 15, body[place + 2])
    factors_of_all = [factor for part in stream.components.values() for factor in (part.rows, part.columns)]
    if not stream.rows or not stream.columns or not all(1 <= factor <= 4 for factor in factors_of_all):
        raise DamagedJpegError("a damaged frame header")


def _read_scan(stream: _Stream, body: bytes, begin: int) -> int:
    """Follow a scan; the offset of the marker after it."""
    count = body[0]
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    components = []
    for place in range(1, 1 + 2 * count, 2):
        component, selector = stream.components[body[place]], body[place + 1]
        component.dc = stream.huffman.get(selector >> 4, _NO_TABLE)
        component.ac = stream.huffman.get(16 | (selector & 15), _NO_TABLE)
        if stream.process not in PROGRESSIVE:
            component.missing.clear()
        elif not bits & 15:
            component.missing -= set(range(first, last + 1))
        components.append(component)
    data, spans, end = _segments(stream.content, begin)
    rows, columns = stream.mcus(components)
    mcus, interval = rows * columns, stream.interval or rows * columns
    counts = [min(interval, mcus - start) for start in range(0, mcus, interval)]
    if len(counts) != len(spans):
        raise DamagedJpegError("restart markers that do not fit the image")
    units = components if count == 1 else [part for part in components for _ in range(part.rows * part.columns)]
    if stream.process in LOSSLESS:
        first = last = 0  # these were the predictor, and nothing
    scan = Scan(stream.process, stream.precision, units, first, last, bits >> 4, bits & 15, data, spans, counts)
    follow(scan)
    if scan.starts and stream.process not in LOSSLESS:
        for component in components:
            step = stream.dc_steps[component.quantisation] << scan.low
            _require_range(dc_values(scan, component), step, stream.precision)
    return end


def _segments(content: bytes, begin: int) -> tuple[bytes, list[tuple[int, int]], int]:
    """The bytes between restart markers, where they lie among them, and the offset of the marker after the scan."""
    pieces: list[bytes] = []
    spans: list[tuple[int, int]] = []
    place = length = 0
    while True:
        match = _MARKER.search(content, begin)
        place = match.start() if match else len(content)
        data = content[begin:place].replace(b"\xff\x00", b"\xff")
        spans.append((8 * length, 8 * (length + len(data))))
        pieces += [data, GUARD]
        length += len(data) + len(GUARD)
        if match is None or not 0xD0 <= content[place + 1] <= 0xD7:
            return b"".join(pieces), spans, place
        if content[place + 1] != 0xD0 + (len(spans) - 1) % 8:
            raise DamagedJpegError("restart markers out of order")
        begin = place + 2


def _require_range(values: NDArray[np.int64], step: int, precision: int) -> None:
    """Raise where DC coefficients are those of means that no image of the precision has.

    They are 8 times the mean above the middle of the range (A.3.3), rounded to a step.
    """
    if step * int(np.abs(values).max()) > (1 << (precision + 2)) + 0.75 * step:
        raise DamagedJpegError("grey levels beyond the range of its values")


# JPEG Lossless, where the decoded values are at hand


def fills_lossless_stream(content: bytes, pixels: NDArray[np.uint16]) -> bool | None:
    """True when the bits of decoded ``pixels`` (H, W) fill a stream; None for kinds of stream that are not counted.

    To count the bits that the values need under the stream's own Huffman table takes a single array operation, and
    much less time than to follow the codes.
    """
    stream, place, marker, body = _Stream(content), 2, 0, b""
    try:
        while marker != 0xDA:
            marker, body, place = _segment(content, place)
            if marker in LOSSLESS:
                _read_frame(stream, marker, body)
            elif marker == 0xC4:
                _read_codes(stream, body)
            elif marker == 0xDD:
                stream.interval = struct.unpack(">H", body)[0]
        count, _, selector, predictor, _, shift = body
        counts, symbols = stream.huffman[selector >> 4]
    except (DamagedJpegError, struct.error, LookupError, ValueError):
        return None
    if count != 1 or shift & 15 or stream.interval or not 2 <= stream.precision <= 16:
        return None
    lengths = np.zeros(17, np.int64)
    for category, length in zip(symbols, np.repeat(np.arange(1, 17), list(counts)), strict=True):
        if category <= 16:
            lengths[category] = length
    end = _SCAN_END.search(content, place)
    if end is None:
        return False
    data = end.start() - place - content.count(b"\xff\x00", place, end.start())
    bits = _bits(pixels, predictor, stream.precision, lengths)
    return bits is not None and -(-bits // 8) == data


def _bits(pixels: NDArray[np.uint16], predictor: int, precision: int, lengths: NDArray[np.int64]) -> int | None:
    """Number of bits for the differences of the values, which are modulo 2^16 as in unsigned arithmetic."""
    if not 1 <= predictor <= 7:
        return None
    halves = predictor in (5, 6, 7)  # these shift a signed sum right
    values = pixels.astype(np.int32) if halves else pixels
    left, above, corner = values[1:, :-1], values[:-1, 1:], values[:-1, :-1]
    if predictor <= 3:
        predicted = (left, above, corner)[predictor - 1]
    elif predictor == 4:
        predicted = left + above - corner
    elif predictor == 5:
        predicted = left + ((above - corner) >> 1)
    elif predictor == 6:
        predicted = above + ((left - corner) >> 1)
    else:
        predicted = (left + above) >> 1
    difference = np.empty(pixels.shape, np.uint16)
    difference[1:, 1:] = (values[1:, 1:] - predicted) & 0xFFFF
    difference[0, 1:] = pixels[0, 1:] - pixels[0, :-1]
    difference[1:, 0] = pixels[1:, 0] - pixels[:-1, 0]
    difference[0, 0] = (int(pixels[0, 0]) - (1 << (precision - 1))) & 0xFFFF
    extra = np.arange(17)
    extra[16] = 0  # category 16 has no further bits
    needed = np.where(lengths, lengths + extra, _NO_CODE).astype(np.uint8)[_CATEGORY][difference]
    return None if needed.max() == _NO_CODE else int(needed.sum(dtype=np.int64))


_NO_CODE = 255  # codes of at most 16 bits, and at most 15 further ones
_CATEGORY = np.frexp(np.minimum(np.arange(1 << 16), np.arange(1 << 16, 0, -1)))[1].astype(np.uint8)
"""Category of each difference modulo 2^16."""
