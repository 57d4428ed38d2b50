"""The codes of one scan of a JPEG stream, followed from the first to the last.

Numpy looks up all bit positions of a piece at once: how many bits the codes there take, and how many coefficients they
pass. What is left to Python is one step for every 16 bits or so.

References
----------
ISO/IEC 10918-1: B.1.1 (padding and fill bytes), C.2 (codes), F.1.2 and F.2.2 (sequential coding), G.1.2 (progressive
coding), H.1.2 (lossless coding).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Table = tuple[bytes, bytes]
"""Numbers of codes of 1 to 16 bits, and the symbols in the order of the codes."""

GUARD = b"\xff\xff\xff"
"""Bytes after each segment: no code is all ones (C.2)."""

SEQUENTIAL, PROGRESSIVE, LOSSLESS = (0xC0, 0xC1), (0xC2,), (0xC3,)
"""Frame headers (SOFn) of streams that are followed."""

_PIECE = 1 << 17  # bytes that are looked up at a time
_MARGIN = 1 << 14  # more than the longest MCU
_LAST = 63
_END_OF_BLOCK = 32
_BEYOND = 64  # more coefficients than a block has
_CUT = "the stream ends before its image does"
_NO_CODE = "codes that its tables do not have"


class DamagedJpegError(ValueError):
    """A stream whose codes do not add up to the image of its header."""


@dataclass(slots=True)
class Component:
    """A component of the frame, with the tables that it has in the present scan."""

    columns: int
    """Sampling factor across; ``rows`` is the one down."""
    rows: int
    quantisation: int
    dc: Table = (b"", b"")
    ac: Table = (b"", b"")
    missing: set[int] = field(default_factory=lambda: set(range(64)))
    """Coefficients that still lack bits, or have not come yet."""
    coefficients: list[int] = field(default_factory=list)
    """For each block a bit for each coefficient that is not 0; kept for progressive streams only."""


@dataclass(slots=True)
class Scan:
    """A scan: its header and its entropy-coded bytes without stuffing, with a guard after each segment."""

    process: int
    precision: int
    units: list[Component]
    """The component of each block of an MCU."""
    first: int
    last: int
    high: int
    low: int
    data: bytes
    spans: list[tuple[int, int]]
    """First and last bit of each segment."""
    counts: list[int]
    """Number of MCUs in each segment."""
    starts: list[NDArray[np.int64]] = field(default_factory=list)
    """Bits at which blocks begin; filled where blocks have DC coefficients."""


def follow(scan: Scan) -> None:
    """Follow the codes of a scan.

    Raises
    ------
    DamagedJpegError
        They are too many, too few, or no codes.
    """
    if scan.process in PROGRESSIVE and scan.first:
        _follow_coefficients(scan)
    elif scan.process in PROGRESSIVE and scan.high:
        for span, count in zip(scan.spans, scan.counts, strict=True):
            _require_end(scan, span, span[0] + count * len(scan.units))  # one bit a block
    elif scan.process in LOSSLESS and len(scan.units) == 1:
        _follow_samples(scan)
    else:
        _follow_blocks(scan)


def _require_end(scan: Scan, span: tuple[int, int], place: int) -> None:
    """The codes end in the last byte of their segment, and equal bits pad it (B.1.1.5: ones; some coders write zeros).

    Bytes of ones before a marker are fill bytes (B.1.1.2).
    """
    end = span[1]
    if place > end:
        raise DamagedJpegError(_CUT)
    ones = (1 << (end - place)) - 1
    rest = int.from_bytes(scan.data[place // 8 : end // 8], "big") & ones
    if rest != ones and (rest or end - place > 7):
        raise DamagedJpegError("codes are left after the end of its image")


# --- tables ---------------------------------------------------------------------------------------------------------


@lru_cache(16)
def _symbols(table: Table) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Length and symbol of the code that 16 bits begin with; length 0 where no code does (C.2)."""
    lengths, symbols = np.zeros(1 << 16, np.int32), np.zeros(1 << 16, np.int32)
    place, begin = 0, 0
    for length, count in enumerate(table[0], start=1):
        for symbol in table[1][place : place + count]:
            end = begin + (1 << (16 - length))
            lengths[begin:end], symbols[begin:end] = length, symbol
            begin = end
        place += count
    if begin >= 1 << 16 or not place:
        raise DamagedJpegError("a damaged Huffman table")
    return lengths, symbols


@lru_cache(16)
def _dc_lengths(table: Table, most: int) -> NDArray[np.uint8]:
    """Bits of the code and the difference that 16 bits begin with; 0 where there is none."""
    lengths, categories = _symbols(table)
    further = np.where(categories == 16, 0, categories)
    return np.where((lengths > 0) & (categories <= most), lengths + further, 0).astype(np.uint8)


def _packed(bits: NDArray[np.int32], ends: NDArray[np.bool_], steps: NDArray[np.int32]) -> NDArray[np.uint16]:
    return (bits | _END_OF_BLOCK * ends | steps << 6).astype(np.uint16)


class _Codes(NamedTuple):
    """For 16 bits: the length of what they begin with, whether it ends the block, coefficients passed, if it is one."""

    bits: NDArray[np.int32]
    ends: NDArray[np.bool_]
    steps: NDArray[np.int32]
    valid: NDArray[np.bool_]


@lru_cache(16)
def _ac_codes(table: Table, most: int) -> _Codes:
    lengths, symbols = _symbols(table)
    size = symbols & 15
    ends = (symbols == 0) & (lengths > 0)
    valid = (lengths > 0) & (size <= most) & ((size > 0) | (symbols == 0) | (symbols == 0xF0))
    bits = np.where(valid, lengths + size, 0)
    return _Codes(bits, ends, np.where(ends, 0, np.where(valid, (symbols >> 4) + 1, _BEYOND)), valid)


@lru_cache(16)
def _ac_steps(table: Table, most: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """For 16 bits: the first AC code, and all that lie within."""
    codes = _ac_codes(table, most)
    return _packed(*codes[:3]), _packed(*_joined(codes, codes))


@lru_cache(16)
def _block_steps(dc: Table, most: int, ac: Table | None, most_ac: int) -> NDArray[np.uint16]:
    """For 16 bits: a DC code and the AC codes that lie within."""
    bits = _dc_lengths(dc, most).astype(np.int32)
    none, alone = np.zeros(1 << 16, np.int32), np.full(1 << 16, ac is None)
    start = _Codes(bits, alone, none, bits > 0)
    return _packed(*(start[:3] if ac is None else _joined(start, _ac_codes(ac, most_ac))))


def _joined(start: _Codes, codes: _Codes) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int32]]:
    """The start with all codes after it that lie whole within 16 bits, up to one that ends the block."""
    bits, ends, steps, valid = codes
    all_bits, all_ends, all_steps = start.bits.copy(), start.ends.copy(), start.steps.copy()
    going = np.flatnonzero(start.valid & ~start.ends & (start.bits < 16))
    while going.size:
        then = (going << all_bits[going]) & 0xFFFF
        fits = valid[then] & (all_bits[going] + bits[then] <= 16)
        going, then = going[fits], then[fits]
        all_bits[going] += bits[then]
        all_steps[going] += steps[then]
        all_ends[going] = ends[then]
        going = going[~ends[then]]
    return all_bits, all_ends, all_steps


_NO_AC = (np.zeros(1 << 16, np.uint16), np.full(1 << 16, _END_OF_BLOCK, np.uint16))  # each block ends at once


@lru_cache(16)
def _sample_steps(table: Table) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """For 16 bits: bits of the first difference and the number 1; bits and number of all that lie within."""
    bits = _dc_lengths(table, 16).astype(np.int32)
    valid = bits > 0
    codes = _Codes(bits, np.zeros(1 << 16, np.bool_), valid.astype(np.int32), valid)
    all_bits, _, number = _joined(codes, codes)
    return (bits | 32 * valid).astype(np.uint16), (all_bits | number << 5).astype(np.uint16)


def _windows(data: bytes) -> NDArray[np.uint16]:
    """The 16 bits from each bit on."""
    values = np.frombuffer(data + GUARD, np.uint8).astype(np.uint32)
    wide = values[:-3] << 16 | values[1:-2] << 8 | values[2:-1]
    windows = np.empty((wide.size, 8), np.uint16)
    for shift in range(8):
        windows[:, shift] = wide >> (8 - shift)
    return windows.reshape(-1)


# --- codes ----------------------------------------------------------------------------------------------------------


def _pieces(scan: Scan) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    """The data piece by piece: the first bit of each, and its windows."""
    for begin in range(0, len(scan.data), _PIECE):
        yield 8 * begin, _windows(scan.data[begin : begin + _PIECE + _MARGIN])


def _follow_blocks(scan: Scan) -> None:  # noqa: PLR0912, PLR0915  (a function for each block would take twice the time)
    """Follow blocks of a DC and the AC coefficients, or of a DC coefficient alone."""
    deep = scan.precision > 8
    most = 16 if scan.process in LOSSLESS else 15 if deep else 11
    most_ac = 14 if deep else 10
    dcs = [_dc_lengths(unit.dc, most) for unit in scan.units]
    acs = {unit.ac: _ac_steps(unit.ac, most_ac) if scan.last else _NO_AC for unit in scan.units}
    firsts = [_block_steps(unit.dc, most, unit.ac if scan.last else None, most_ac).data for unit in scan.units]
    segment, left, place = 0, scan.counts[0], 0
    for begin, windows in _pieces(scan):
        several = {table: steps[windows].data for table, (_, steps) in acs.items()}
        looks = [
            (first, several[unit.ac], dc, acs[unit.ac][0])
            for first, dc, unit in zip(firsts, dcs, scan.units, strict=True)
        ]
        bits = windows.data
        place -= begin
        starts: list[int] = []
        add = starts.append
        while place < 8 * _PIECE:
            if not left:
                _require_end(scan, scan.spans[segment], place + begin)
                segment += 1
                if segment == len(scan.spans):
                    break
                left, place = scan.counts[segment], scan.spans[segment][0] - begin
                continue
            for first, ac, dc, codes in looks:
                add(place)
                step = first[bits[place]]
                coefficient = step >> 6
                if coefficient < _LAST:
                    place += step & 31
                    if step & _END_OF_BLOCK:
                        continue
                else:
                    place += int(dc[bits[place]])
                    coefficient = 0
                while True:
                    step = ac[place]
                    coefficient += step >> 6
                    if coefficient < _LAST:
                        place += step & 31
                        if step & _END_OF_BLOCK:
                            break
                    elif coefficient == _LAST and not step & _END_OF_BLOCK:
                        place += step & 31
                        break
                    else:  # the last of these codes belong to the next block
                        single = int(codes[windows[place]])
                        coefficient += (single >> 6) - (step >> 6)
                        if coefficient > _LAST:
                            cut = place + begin + 16 > scan.spans[segment][1]
                            raise DamagedJpegError(_CUT if cut else "codes of more than 63 coefficients, or no codes")
                        place += single & 31
                        if coefficient == _LAST or single & _END_OF_BLOCK:
                            break
            left -= 1
            if place + begin > scan.spans[segment][1]:
                raise DamagedJpegError(_CUT)
        places = np.array(starts, np.int64)
        for number, table in enumerate(dcs):
            if not table[windows[places[number :: len(dcs)]]].all():
                raise DamagedJpegError(_NO_CODE)
        scan.starts.append(places + begin)
        place += begin
        if segment == len(scan.spans):
            return
    raise DamagedJpegError(_CUT)


def _follow_samples(scan: Scan) -> None:
    """Follow the differences of JPEG Lossless of one component."""
    codes, several = _sample_steps(scan.units[0].dc)
    segment, left, place = 0, scan.counts[0], 0
    for begin, windows in _pieces(scan):
        steps = several[windows].data
        place -= begin
        while place < 8 * _PIECE:
            stop = min(scan.spans[segment][1] - begin - 48, 8 * _PIECE)
            while place < stop:
                step = steps[place]
                place += step & 31
                left -= step >> 5
                if not step:
                    raise DamagedJpegError(_NO_CODE)
            while left > 0 and place < 8 * _PIECE:
                single = int(codes[windows[place]])
                if not single:
                    raise DamagedJpegError(_CUT)
                place += single & 31
                left -= 1
            if left > 0:
                break
            if left < 0:
                raise DamagedJpegError("codes are left after the end of its image")
            _require_end(scan, scan.spans[segment], place + begin)
            segment += 1
            if segment == len(scan.spans):
                return
            left, place = scan.counts[segment], scan.spans[segment][0] - begin
        place += begin
    raise DamagedJpegError(_CUT)


def _follow_coefficients(scan: Scan) -> None:
    """Follow AC coefficients of a progressive scan, the first bits or a further one (G.1.2.2, G.1.2.3)."""
    coefficients = scan.units[0].coefficients
    coefficients.extend([0] * (sum(scan.counts) - len(coefficients)))
    lengths, symbols = (table.tolist() for table in _symbols(scan.units[0].ac))
    windows = _windows(scan.data + bytes(_MARGIN)).data
    block = 0
    for (begin, end), count in zip(scan.spans, scan.counts, strict=True):
        place, empty = begin, 0  # empty: blocks without further codes
        for _ in range(count):
            at = scan.first
            if not empty:
                coefficients[block], at, place, empty = _block(
                    scan, coefficients[block], windows, (lengths, symbols), place
                )
            if empty:
                empty -= 1
                if scan.high:  # a bit for each known coefficient
                    place += ((coefficients[block] & ((1 << (scan.last + 1)) - 1)) >> at).bit_count()
            if place > end:
                raise DamagedJpegError(_CUT)
            block += 1
        if empty:
            raise DamagedJpegError("codes of more blocks than the image has")
        _require_end(scan, (0, end), place)


def _block(
    scan: Scan, coefficient: int, windows: memoryview[int], table: tuple[list[int], list[int]], place: int
) -> tuple[int, int, int, int]:
    """Known coefficients after a block, the first coefficient without a code, the next bit, and empty blocks."""
    lengths, symbols = table
    at, last, refines = scan.first, scan.last, bool(scan.high)
    while at <= last:
        bits = windows[place]
        length, run, size = lengths[bits], symbols[bits] >> 4, symbols[bits] & 15
        if not length or (refines and size > 1):
            raise DamagedJpegError(_NO_CODE)
        place += length
        if not size and run < 15:
            return coefficient, at, place + run, (1 << run) + (windows[place] >> (16 - run))
        place += size
        while at <= last:
            if refines and coefficient >> at & 1:
                place += 1
            elif run:
                run -= 1
            else:
                break
            at += 1
        if size:
            if at > last:
                raise DamagedJpegError("codes of more than 63 coefficients")
            coefficient |= 1 << at
        at += 1
    return coefficient, at, place, 0


def dc_values(scan: Scan, component: Component) -> NDArray[np.int64]:
    """DC coefficients of a component in a scan that was followed, (MCUs, blocks in each)."""
    chosen = np.array([unit is component for unit in scan.units])
    places = np.concatenate(scan.starts).reshape(-1, len(scan.units))[:, chosen]
    data = np.frombuffer(scan.data + bytes(8), np.uint8).astype(np.int64)
    byte, bit = places >> 3, places & 7
    window = np.zeros(places.shape, np.int64)
    for number in range(5):
        window |= data[byte + number] << (32 - 8 * number)
    lengths, categories = _symbols(component.dc)
    code = (window >> (24 - bit)) & 0xFFFF
    length, size = lengths[code].astype(np.int64), categories[code].astype(np.int64)
    value = (window >> (40 - bit - length - size)) & ((1 << size) - 1)
    value = np.where(value < (1 << size >> 1), value - (1 << size) + 1, value)
    total: NDArray[np.int64] = np.cumsum(value.reshape(-1)).reshape(places.shape)
    begins = np.cumsum([0, *scan.counts[:-1]])
    before = np.where(begins > 0, total[begins - 1, -1], 0)
    total -= np.repeat(before, scan.counts)[:, None]
    return total
