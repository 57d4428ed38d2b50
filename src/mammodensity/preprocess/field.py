"""The field: the part of an image that is looked at, whatever size of frame the breast lies in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]
"""First row, first column, height, width."""

_EVEN = 0.02  # of the image's contrast: a margin's columns and rows vary less; the ground of film more
_LEAST_SHARE = 0.02  # of the image: what is smaller than this is a mark on an even image, and no breast
_SAMPLE = 8  # of every so many pixels is the contrast told
_ABOVE_AND_BELOW, _BEHIND, _BEFORE = 0.1, 0.02, 0.3  # of the breast: what is looked at around it


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """The box about a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left


def part(image: NDArray[Any], box: Box) -> NDArray[Any]:
    """What of an image (H, W) lies in a box; a view, no copy."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def without_margins(pixels: NDArray[Any]) -> Box:
    """An image (H, W) without the even margins that bring images of all sizes to one, or the black around a breast.

    What is not even stays, and all of an image that is even everywhere.
    """
    _, even = _dark_and_even(pixels)
    whole: Box = 0, 0, pixels.shape[0], pixels.shape[1]
    box = whole
    while True:  # a frame may lie within a frame
        rest = part(pixels, box)
        rows, columns = (np.flatnonzero(rest.max(axis).astype(float) - rest.min(axis) > even) for axis in (1, 0))
        if not len(rows) or not len(columns):
            return whole
        height, width = int(rows[-1] + 1 - rows[0]), int(columns[-1] + 1 - columns[0])
        if (height, width) == rest.shape:
            break
        box = box[0] + int(rows[0]), box[1] + int(columns[0]), height, width
    return box if box[2] * box[3] >= _LEAST_SHARE * pixels.size else whole


def around(breast: NDArray[np.bool_], field: Box, image: NDArray[Any]) -> Box:
    """The field about a breast: its box with some background on all sides, as far as there is any.

    Even margins are left out again, but for a dark one before the breast: there black is air, elsewhere it cuts the
    breast.

    Parameters
    ----------
    breast
        (h, w), of any size, within ``field``.
    image
        (H, W), chest wall on the left.
    """
    top, left, height, width = bounding_box(breast)
    down, along = field[2] / breast.shape[0], field[3] / breast.shape[1]
    first_row = max(0, field[0] + round(down * (top - _ABOVE_AND_BELOW * height)))
    last_row = min(image.shape[0], field[0] + round(down * (top + (1 + _ABOVE_AND_BELOW) * height)))
    first_column = max(0, field[1] + round(along * (left - _BEHIND * width)))
    last_column = min(image.shape[1], field[1] + round(along * (left + (1 + _BEFORE) * width)))
    about = image[first_row:last_row, first_column:last_column]
    row, column, rows, columns = without_margins(about)
    before = about[row : row + rows, column + columns :]
    dark, even = _dark_and_even(part(about, (row, column, rows, columns)))
    if before.size and float(before.max()) <= dark + even:
        columns = about.shape[1] - column
    return first_row + row, first_column + column, rows, columns


def with_dark_margins(reduced: NDArray[np.float32], field: Box, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A whole image (h, w) from its reduced ``field`` (h, w), the even margins as dark as its darkest parts.

    Parameters
    ----------
    shape
        (H, W) of the image.
    """
    size = reduced.shape
    first = [round(start * small / large) for start, small, large in zip(field[:2], size, shape, strict=True)]
    last = [
        max(begin + 1, round((start + length) * small / large))
        for begin, start, length, small, large in zip(first, field[:2], field[2:], size, shape, strict=True)
    ]
    whole = np.full(size, np.percentile(reduced, 0.5), np.float32)
    inside = Image.fromarray(reduced).resize((last[1] - first[1], last[0] - first[0]), Image.Resampling.BOX)
    whole[first[0] : last[0], first[1] : last[1]] = np.asarray(inside)[: size[0] - first[0], : size[1] - first[1]]
    return whole


def _dark_and_even(image: NDArray[Any]) -> tuple[float, float]:
    """The value of the darkest parts of an image, and by how much what is even in it may vary."""
    low, high = np.percentile(image[::_SAMPLE, ::_SAMPLE], (0.5, 99.5))
    return float(low), _EVEN * float(high - low)
