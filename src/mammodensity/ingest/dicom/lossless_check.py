"""Whether a decoded JPEG Lossless image uses up its stream, to the bit.

The decoder pads or resynchronises silently where a stream is damaged. The number of bits that the decoded values need
under the stream's own Huffman table, in all one array operation, tells: it must fill the stream up to its end marker.

References
----------
ISO/IEC 10918-1, H.1.2 (prediction, table H.1) and F.1.2 (Huffman coding of differences).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray


def uses_up_stream(codestream: bytes, pixels: NDArray[np.uint16]) -> bool | None:
    """True when ``pixels`` (H, W), as decoded, fill the stream; None where the stream has forms not checked here."""
    segments = _segments(codestream)
    if segments is None:
        return None
    tables, table, predictor, shift, restart, begin, precision = segments
    lengths = tables.get(table)
    if lengths is None or shift or restart:
        return None
    scan = codestream[begin:]
    end = _end_of_scan(scan)
    if end is None:
        return False
    data = end - scan.count(b"\xff\x00", 0, end)
    bits = _bits(pixels, predictor, precision, lengths)
    return bits is not None and -(-bits // 8) == data


def _segments(stream: bytes) -> tuple[dict[int, NDArray[np.int64]], int, int, int, int, int, int] | None:
    place, restart, precision = 2, 0, 0
    tables: dict[int, NDArray[np.int64]] = {}
    while place + 4 <= len(stream):
        if stream[place] != 0xFF:
            return None
        marker = stream[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length = struct.unpack(">H", stream[place + 2 : place + 4])[0]
        body = stream[place + 4 : place + 2 + length]
        if marker == 0xC4:
            _read_tables(body, tables)
        elif marker == 0xDD:
            restart = struct.unpack(">H", body[:2])[0]
        elif marker == 0xC3:
            precision = body[0] if body else 0
        elif marker == 0xDA:
            if len(body) < 6 or body[0] != 1 or not 2 <= precision <= 16:
                return None
            return tables, body[2] >> 4, body[3], body[5] & 15, restart, place + 2 + length, precision
        place += 2 + length
    return None


def _read_tables(body: bytes, tables: dict[int, NDArray[np.int64]]) -> None:
    """Code lengths by category (0 to 16) of each Huffman table in a DHT segment; 0 where a category has no code."""
    place = 0
    while place + 17 <= len(body):
        name, counts = body[place] & 15, body[place + 1 : place + 17]
        lengths = np.zeros(17, np.int64)
        at = place + 17
        for length, count in enumerate(counts, start=1):
            for category in body[at : at + count]:
                if category <= 16:
                    lengths[category] = length
            at += count
        tables[name] = lengths
        place = at


def _end_of_scan(scan: bytes) -> int | None:
    """Offset of the first marker in the entropy-coded bytes."""
    place = 0
    while True:
        place = scan.find(b"\xff", place)
        if place < 0 or place + 1 >= len(scan):
            return None
        if scan[place + 1] != 0:
            return place
        place += 2


def _bits(pixels: NDArray[np.uint16], predictor: int, precision: int, lengths: NDArray[np.int64]) -> int | None:
    """Bits the differences of the values need; differences are modulo 2^16, as unsigned arithmetic has them."""
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
_CATEGORY = np.array([min(n, (1 << 16) - n).bit_length() for n in range(1 << 16)], np.uint8)
"""Category of each difference modulo 2^16."""
