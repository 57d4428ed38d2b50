"""Pixels of which bytes were lost, inserted or overwritten: what tells it is how rows follow each other.

Nothing in the file says so, as long as the length is right. But rows of a mammogram resemble their neighbours, so:

- lost or inserted bytes shift all later pixels: a row does not fit the one above until it is moved along; where that
  happens above the breast, the breast is torn in two (each row goes on at the other end of the next one), or its
  chest wall stands free, with more air behind it than before it,
- rows of a false length hold several rows side by side, which resemble each other,
- an odd number of bytes exchanges high and low bytes: noise over the whole range of values,
- overwritten bytes begin within a row: full rows of one value follow a row of which the last part has that value.

Borders, collimated edges, padding and markers begin and end with rows or far from them, and nothing fits better when it
is moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

_COLUMNS = 512  # looked at, about, where rows are compared
_APART = 3  # rows: between them lies the row within which the bytes are missing
_GAPS = 4, 8, 16  # rows from the last sound one to the first after inserted bytes
_NEAR = 12  # rows to either side that say how much rows differ
_STEP, _LEAST_STEP = 2.5, 0.004  # of what is usual near by, and of the range
_MOST_STEPS = 24  # the largest ones are looked at
_FITS = 0.5  # of the difference that is left when a row is moved to where it fits best
_NOISE, _NOISY_ROWS = 0.12, 0.01  # of the range from pixel to pixel, in that share of the rows
_PLACES = 8  # rows to either side whose places are compared with a row's
_MOVED, _FITS_MOVED, _FLAT = 2, 0.4, 1e-5  # columns looked at; of the squared difference; of the squared range
_PARTS, _MARKER_PARTS = 16, 2  # of a row, and those that a slanting marker may lie in
_FITS_ELSEWHERE, _ELSEWHERE = 0.75, 0.2  # of the difference in the other parts, and their share of all
_FEW, _PARTLY = 2, 0.02  # pixels, and of a row
_SOME = 0.1  # of a row, at least, to compare it across an even band
_WIDE = 0.35  # of the largest breast width: sound breasts taper to less before the rows without any
_LONG_TAIL = 0.12  # of the rows; less may be a collimated edge
_TORN_ROWS, _SEAM, _OTHER_SEAM, _TEXTURE = 0.2, 1.6, 0.5, 0.02  # of the rows; of usual differences; of the range
_AIR, _BEHIND_WALL, _WALL = 0.93, 0.06, 0.4  # of the rows, columns, and rows of the breast

_FOLDED, _FOLDED_ROWS, _LEAST_COLUMNS = 0.7, 8, 16  # of the difference of rows so far apart: blocks of JPEG have 8
_UNEVEN = 0.3  # of the rows, at least
_SHIFTED = "are shifted from some place on: bytes are missing or too many"

Cells = NDArray[np.int32]


def row_damage(cells: Cells, *, picture: bool = False) -> str:
    """Name the damage in stored values (H, W), in words after "its rows"; empty where there is none to be seen.

    Where the breast of a ``picture`` lies says nothing: margins are cut off and put on.
    """
    low, high = np.percentile(cells[:: 1 + cells.shape[0] // 256, :: 1 + cells.shape[1] // 256], (0.5, 99.5))
    extent = max(float(high - low), 1.0)
    if _is_noise(cells, extent):
        return "are noise from some place on: bytes are missing"
    if _is_shifted(cells, extent) or _jumps(cells, extent) or _is_torn(cells, extent):
        return _SHIFTED
    if not picture and _is_off_the_wall(cells):
        return _SHIFTED
    return "are overwritten by one value from within a row on" if _is_overwritten(cells) else folding(cells)


def folding(cells: NDArray[Any]) -> str:
    """Name the damage when rows hold several rows side by side: parts of them resemble each other as rows do."""
    for count in (2, 3, 4):
        width = cells.shape[1] // count
        if len(cells) <= 2 * _FOLDED_ROWS or width < _LEAST_COLUMNS:
            break
        parts = cells[:, : count * width].reshape(len(cells), count, width)
        sample = parts[:, :, :: 1 + width // 128].astype(np.int32)
        across = np.abs(np.diff(sample, axis=1)).mean(axis=(1, 2))[_FOLDED_ROWS:]
        down = np.abs(sample[_FOLDED_ROWS:] - sample[:-_FOLDED_ROWS]).mean(axis=(1, 2))
        uneven = np.maximum(across, down) > 0
        if uneven.mean() > _UNEVEN and np.median(across[uneven]) < _FOLDED * np.median(down[uneven]):
            return "hold several rows of the image side by side: its size is not that of the pixels"
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
    larger: NDArray[np.float32] = np.maximum(*_medians(steps, _NEAR, _APART))
    return larger


def _medians(values: NDArray[Any], count: int, gap: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The medians of so many values above and below each value, those next to it left out."""
    padded = np.pad(values, count + gap, mode="reflect")
    medians = np.median(sliding_window_view(padded, count), axis=1)
    return medians[: len(values)], medians[2 * gap + count + 1 :][: len(values)]


def _fits_when_moved(above: Cells, below: Cells, usual: float) -> bool:
    """True when a row resembles another one as neighbours do once it is moved along, its end put to its beginning."""
    upper, lower = (row - row.mean() for row in (above.astype(np.float64), below.astype(np.float64)))
    likeness = np.fft.irfft(np.fft.rfft(upper) * np.conj(np.fft.rfft(lower)), len(upper))
    moved = int(np.argmax(likeness))
    if moved == 0:
        return False
    left = float(np.abs(above - np.roll(below, moved)).mean())
    return left < _FITS * float(np.abs(above - below).mean()) and left < 2 * usual


def _jumps(cells: Cells, extent: float) -> bool:
    """True when a row fits the one above best a few columns away, while the rows above and below fit in place.

    Outlines and markers that slant move from row to row, too, but steadily, or in a small part of the row.
    """
    if len(cells) < 4 * _NEAR:
        return False
    sample = _sampled(cells) / np.float32(extent)
    sample -= sample.mean(axis=1, keepdims=True)
    squares, spectrum = np.einsum("ij,ij->i", sample, sample), rfft(sample, axis=1)
    columns = sample.shape[1]
    likeness = irfft(spectrum[:-_APART] * np.conj(spectrum[_APART:]), columns, axis=1)
    apart = (squares[:-_APART, None] + squares[_APART:, None] - 2 * likeness) / columns
    best = apart.argmin(axis=1)
    least = apart[np.arange(len(best)), best]
    moved = np.where(best > columns // 2, best - columns, best)
    above, below = _medians(moved, _PLACES, _APART + 1)
    usual = np.maximum(*_medians(least, _PLACES, _APART + 1))
    alone = (abs(moved - above) >= _MOVED) & (abs(moved - below) >= _MOVED) & (abs(above - below) <= _MOVED)
    for row in map(int, np.flatnonzero(alone & (least < 3 * usual + _FLAT))):
        if not 0 < row < len(best) - 2 or np.abs(moved[[row - 1, row + 1]] - moved[row]).min() > 1:
            continue
        gap = _APART + 1
        near = np.r_[moved[max(0, row - gap - _PLACES) : max(0, row - gap) + 1], moved[row + gap :][:_PLACES]]
        place = int(np.median(near))
        in_place = apart[row, place % columns]
        if (abs(near - place) > _MOVED).mean() > 0.2 or in_place < _FLAT or least[row] > _FITS_MOVED * in_place:
            continue
        parts, moved_parts = (
            np.abs(sample[row] - np.roll(sample[row + _APART], by))[: columns // _PARTS * _PARTS]
            .reshape(_PARTS, -1)
            .mean(axis=1)
            for by in (place, int(moved[row]))
        )
        rest = parts.argsort()[:-_MARKER_PARTS]
        if moved_parts[rest].sum() < _FITS_ELSEWHERE * parts[rest].sum() > _ELSEWHERE * parts.sum():
            return True
    return False


def _is_torn(cells: Cells, extent: float) -> bool:
    """True when rows go on, detail by detail, at the other end of the next row."""
    ends, begins = cells[:-1, -1] / extent, cells[1:, 0] / extent
    sides = np.stack([cells[:-1, -3:], cells[1:, :3]])
    inner = np.abs(np.diff(sides, axis=2)).max(axis=2).mean(axis=0) / extent
    length = round(_TORN_ROWS * len(cells))
    if length < 4 * _NEAR:
        return False
    for first in range(0, len(ends) - length + 1, length // 2):
        rows = slice(first, first + length)
        end, begin = ends[rows], begins[rows]
        if min(end.std(), begin.std()) < _TEXTURE:
            continue
        seam = np.abs(end - begin).mean()
        others = [np.abs(end[by:] - begin[:-by]).mean() for by in (8, 16)]
        others += [np.abs(end[:-by] - begin[by:]).mean() for by in (8, 16)]
        if seam < _SEAM * inner[rows].mean() and seam < _OTHER_SEAM * min(others):
            return True
    return False


def _is_off_the_wall(cells: Cells) -> bool:
    """True when the breast has a straight edge within the image, and more air of one value behind it than before it.

    Images that were brought to a size have as much on either side, or air that is not of one value.
    """
    air = cells[min(_NEAR, len(cells) - 1), 0]
    breast = cells != air
    filled = breast.mean(axis=0)
    columns = np.flatnonzero(filled > 1 - _AIR)
    if not len(columns) or not (breast.any(axis=1).mean() < 1):
        return False
    left, right = int(columns[0]), cells.shape[1] - 1 - int(columns[-1])
    behind, before = max(left, right), min(left, right)
    wall, tip = (columns[0], columns[-1]) if left > right else (columns[-1], columns[0])
    if before < 1 or behind < _BEHIND_WALL * cells.shape[1] or behind < 1.25 * before + 0.02 * cells.shape[1]:
        return False
    rows = breast[:, columns[0] : columns[-1] + 1].any(axis=1).mean()
    return bool(filled[wall] > _WALL * rows and filled[tip] < _WALL * rows)


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
