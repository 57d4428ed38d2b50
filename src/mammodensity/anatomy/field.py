"""The field: the part of an image that is looked at, whatever size of frame the breast lies in.

Which side of the image the chest wall is on, from pixels, and whether the image is stored flipped.

Names do not tell: exports are often mirrored so that all breasts face one way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_fill_holes, binary_opening, gaussian_filter, label

from mammodensity.exam import Flag, Mammogram
from mammodensity.terms import Projection

Box = tuple[int, int, int, int]
"""First row, first column, height, width."""

_EVEN = 0.02  # share of the image's contrast: columns and rows of a margin vary less, those of film background more
_LEAST_SHARE = 0.02  # share of the image: a smaller uneven part is a mark, not a breast
_SAMPLE = 8  # the contrast is measured on every eighth row and column
_ABOVE_AND_BELOW, _BEHIND, _BEFORE = 0.1, 0.02, 0.3  # margins of the field around a breast, as shares of its size


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """The box about a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left


def part(image: NDArray[Any], box: Box) -> NDArray[Any]:
    """Cut a box out of an image (H, W); a view, no copy."""
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


STORED_FLIPPED = "stored-flipped"

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_OUTER = 0.02, 0.10
"""Share of the region's width at either side that is looked at; what lies further out may be a border of the film."""
_DRAW = 0.05
"""Shares of the two sides that differ by no more than this do not tell where the chest wall is."""
_SAMPLE_PX = 512  # rows and columns of the sample that the side is found on, at most


def bright_region(grey: Floats) -> Mask:
    """The largest bright part of an image (H, W): more than background by Otsu's threshold on the logarithm.

    The logarithm, because on film the skin is only little brighter than the background.
    """
    smooth = gaussian_filter(grey, 1.0)
    low, high = np.percentile(smooth, (1, 99.5))
    dim = np.log(np.clip((smooth - low) / max(float(high - low), 1e-6), 0, 1) + 0.02)
    opened = binary_opening(dim > otsu_threshold(dim), iterations=2)
    return largest_part(binary_fill_holes(opened))


def otsu_threshold(values: Floats, bins: int = 128) -> float:
    """The threshold that best splits values in two classes.

    References
    ----------
    Otsu, IEEE Trans. Syst. Man Cybern. 9:62, 1979.
    """
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * centres)
    above = np.maximum(total - below, 1)
    between = below * (total - below) * (sums / np.maximum(below, 1) - (sums[-1] - sums) / above) ** 2
    return float(centres[int(np.argmax(between))])


def largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask; an empty mask stays empty."""
    parts, count = label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    result: Mask = parts == int(np.argmax(sizes))
    return result


def chest_side(grey: Floats) -> str:
    """``"left"`` or ``"right"``: the side of the image (H, W) along which more of the breast lies.

    Decided by how much the bright region covers of either side of its box; a draw, by where the region's weight lies.
    """
    region = bright_region(grey)
    left, right = _covered(region)
    if abs(left - right) > _DRAW:
        return "left" if left > right else "right"
    columns = region.shape[1]
    weight = np.where(region, grey, 0).sum(axis=0)
    return "left" if weight[: columns // 2].sum() >= weight[-(columns // 2) :].sum() else "right"


def _covered(region: Mask) -> tuple[float, float]:
    """Share that a region covers of the left and right side of its box: most at the chest wall, little at a nipple.

    Of the box, not of the image: a breast may lie anywhere in its frame. An empty region covers nothing.
    """
    if not region.any():
        return 0.0, 0.0
    inside = part(region, bounding_box(region))
    columns = inside.shape[1]
    first, last = (max(number, round(share * columns)) for number, share in enumerate(_OUTER, start=1))
    return float(inside[:, first:last].mean()), float(inside[:, columns - last : columns - first].mean())


def stored_flipped(projection: Projection | None, side: str) -> bool | None:
    """True when an image is mirrored: right breasts have the chest wall on the right, left ones on the left.

    None where nothing says which breast it is. DICOM's Patient Orientation (0020,0020) tells the same.
    """
    if projection is None:
        return None
    return (projection.laterality == "R") != (side == "right")


def hangs_flipped(projection: Projection | None, mammogram: Mammogram) -> bool:
    """True when the pixels of a mammogram lie mirrored, judged by a sample of them; a draw counts as not mirrored."""
    step = max(1, *(size // _SAMPLE_PX for size in mammogram.pixels.shape))
    left, right = _covered(bright_region(mammogram.pixels[::step, ::step].astype(np.float32)))
    return abs(left - right) > _DRAW and bool(stored_flipped(projection, "left" if left > right else "right"))


def flip_flags(projection: Projection, mammogram: Mammogram) -> tuple[Flag, ...]:
    """A flag where an image lies mirrored: of use to the eye, and a hint that left and right may be mixed up."""
    if not hangs_flipped(projection, mammogram):
        return ()
    return (Flag(STORED_FLIPPED, "stored mirrored, or left and right are mixed up: see where the chest wall lies"),)
