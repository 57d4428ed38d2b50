"""Uncompressed pixels of which bytes were lost, inserted or overwritten: what tells it is how rows follow each other.

Nothing in the file says so, as long as the length is right. But rows of a mammogram resemble their neighbours, so:

- lost or inserted bytes shift all later pixels: a row does not fit the one above until it is moved along,
- an odd number of bytes exchanges high and low bytes: noise over the whole range of values,
- overwritten bytes begin within a row: full rows of one value follow a row of which the last part has that value.

Borders, collimated edges, padding and markers begin and end with rows or far from them, and nothing fits better when it
is moved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_COLUMNS = 512  # looked at, about, where rows are compared
_APART = 3  # rows: between them lies the row within which the bytes are missing
_GAPS = 4, 8, 16  # rows from the last sound one to the first after inserted bytes
_NEAR = 12  # rows to either side that say how much rows differ
_STEP, _LEAST_STEP = 2.5, 0.004  # of what is usual near by, and of the range
_MOST_STEPS = 24  # the largest ones are looked at
_FITS = 0.5  # of the difference that is left when a row is moved to where it fits best
_NOISE, _NOISY_ROWS = 0.12, 0.01  # of the range from pixel to pixel, in that share of the rows
_FEW, _PARTLY = 2, 0.02  # pixels, and of a row
_SOME = 0.1  # of a row, at least, to compare it across an even band
_WIDE = 0.35  # of the largest breast width: sound breasts taper to less before the rows without any
_LONG_TAIL = 0.12  # of the rows; less may be a collimated edge

Cells = NDArray[np.int32]


def row_damage(cells: Cells) -> str:
    """Name the damage in stored values (H, W), in words after "its rows"; empty where there is none to be seen."""
    low, high = np.percentile(cells[:: 1 + cells.shape[0] // 256, :: 1 + cells.shape[1] // 256], (0.5, 99.5))
    extent = max(float(high - low), 1.0)
    if _is_noise(cells, extent):
        return "are noise from some place on: bytes are missing"
    if _is_shifted(cells, extent):
        return "are shifted from some place on: bytes are missing or too many"
    if _is_overwritten(cells):
        return "are overwritten by one value from within a row on"
    return ""


def _sampled(cells: Cells) -> NDArray[np.float32]:
    return cells[:, :: 1 + cells.shape[1] // _COLUMNS].astype(np.float32)


def _is_noise(cells: Cells, extent: float) -> bool:
    """True when some rows jump over much of the range from pixel to pixel."""
    width = min(cells.shape[1], _COLUMNS)
    first = (cells.shape[1] - width) // 2
    stretch = np.clip(cells[:, first : first + width].astype(np.float32) / extent, -2, 2)
    jumps = np.abs(np.diff(stretch, axis=1)).mean(axis=1)
    return bool((jumps > _NOISE).mean() > _NOISY_ROWS)


def _is_shifted(cells: Cells, extent: float) -> bool:
    """True when a row fits one above it only after it is moved along."""
    rows = cells.shape[0]
    if rows < 4 * _NEAR:
        return False
    sample = _sampled(cells)
    steps = np.abs(sample[_APART:] - sample[:-_APART]).mean(axis=1)
    usual = _usual(steps)
    size = steps / np.maximum(usual, 1e-6 * extent)
    size[steps < _LEAST_STEP * extent] = 0
    for place in np.argsort(size)[::-1][:_MOST_STEPS]:
        if size[place] < _STEP:
            break
        first = max(0, int(place) - 1)
        for apart in _GAPS:
            if first + apart >= rows:
                break
            usually = max(float(usual[place]), _next_to(cells, first, apart))
            if _fits_when_moved(cells[first], cells[first + apart], usually):
                return True
    return False


def _usual(steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The larger of the medians above and below each step, the rows next to it left out."""
    from numpy.lib.stride_tricks import sliding_window_view

    padded = np.pad(steps, _NEAR + _APART, mode="reflect")
    medians = np.median(sliding_window_view(padded, _NEAR), axis=1)
    above = medians[: len(steps)]
    below = medians[2 * _APART + _NEAR + 1 :][: len(steps)]
    larger: NDArray[np.float32] = np.maximum(above, below)
    return larger


def _fits_when_moved(above: Cells, below: Cells, usual: float) -> bool:
    """True when a row resembles another one as neighbours do once it is moved along, its end put to its beginning."""
    upper, lower = (row - row.mean() for row in (above.astype(np.float64), below.astype(np.float64)))
    likeness = np.fft.irfft(np.fft.rfft(upper) * np.conj(np.fft.rfft(lower)), len(upper))
    moved = int(np.argmax(likeness))
    if moved == 0:
        return False
    left = float(np.abs(above - np.roll(below, moved)).mean())
    return left < _FITS * float(np.abs(above - below).mean()) and left < 2 * usual


def _is_overwritten(cells: Cells) -> bool:
    """True when rows of one value begin or end within a row, or cut the breast far from its lower end."""
    even = cells.max(axis=1) == cells.min(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], even, [False]]).astype(np.int8)))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if begin >= 2 and _begins_within(cells[begin - 1], cells[begin - 2], cells[begin, 0]):
            return True
        if end > len(cells) - 2:
            continue
        if _begins_within(cells[end, ::-1], cells[end + 1, ::-1], cells[begin, 0]):
            return True
        above, below = cells[begin - 2], cells[end + 1]
        filled = min(np.count_nonzero(row != cells[begin, 0]) for row in (above, below))
        if begin > _NEAR and filled > _SOME * len(above):
            usual = _next_to(cells, begin - 2, end - begin + _APART)
            if _fits_when_moved(above, below, usual):
                return True
    return bool(even[-1]) and _cuts_breast(cells, int(edges[-2]))


def _next_to(cells: Cells, row: int, rows: int) -> float:
    """Mean difference between a row and the one ``rows`` rows above it."""
    return float(np.abs(cells[row] - cells[max(0, row - rows)]).mean())


def _begins_within(row: Cells, before: Cells, value: int) -> bool:
    """True when the last part of a row has a value that the row before has hardly there."""
    other = np.flatnonzero(row != value)
    start = int(other[-1]) + 1 if len(other) else 0
    return _FEW < len(row) - start < len(row) - _FEW and float((before[start:] == value).mean()) < _PARTLY


def _cuts_breast(cells: Cells, begin: int) -> bool:
    """True when the rows from ``begin`` on have the value of the air, and the breast above them does not taper."""
    if begin < 2:
        return False
    filled = np.count_nonzero(cells != cells[-1, -1], axis=1)
    widest, last, cut = int(filled.max()), int(filled[begin - 2]), int(filled[begin - 1])
    if widest > 0.98 * cells.shape[1] or last < _WIDE * widest:
        return False
    top = int(np.flatnonzero(filled)[0])
    if top and filled[min(top + 1, begin - 1)] > _WIDE * widest:
        return False  # collimated above as well
    return cut < last - max(8, 0.1 * last) or len(cells) - begin > _LONG_TAIL * len(cells)
