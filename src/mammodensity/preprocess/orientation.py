"""Which side of the image the chest wall is on, from pixels, and whether the image is stored flipped.

Names do not tell: exports are often mirrored so that all breasts face one way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, binary_opening, gaussian_filter, label

from mammodensity.exam import Flag, Mammogram
from mammodensity.preprocess.field import bounding_box, part
from mammodensity.terms import Projection

STORED_FLIPPED = "stored-flipped"

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_OUTER = 0.02, 0.10
"""Share of the region's width at either side that is looked at; what lies further out may be a border of the film."""
_DRAW = 0.05
"""Shares of the two sides that differ by no more than this do not tell where the chest wall is."""
_SAMPLE = 512  # rows and columns looked at, at most, where a side is told of an image of any size


def bright_region(grey: Floats) -> Mask:
    """The largest bright part of an image (H, W): more than background by Otsu's threshold on the logarithm.

    The logarithm, because on film the skin is only little brighter than the background.
    """
    smooth = gaussian_filter(grey, 1.0)
    low, high = np.percentile(smooth, (1, 99.5))
    dim = np.log(np.clip((smooth - low) / max(float(high - low), 1e-6), 0, 1) + 0.02)
    found = binary_opening(dim > otsu_threshold(dim), iterations=2)
    return largest_part(binary_fill_holes(found))


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
    """Whether an image is mirrored: right breasts have the chest wall on the right, left ones on the left.

    None where nothing says which breast it is. DICOM's Patient Orientation (0020,0020) tells the same.
    """
    if projection is None:
        return None
    return (projection.laterality == "R") != (side == "right")


def hangs_flipped(projection: Projection | None, mammogram: Mammogram) -> bool:
    """Whether the pixels of a mammogram lie mirrored, as far as a look at some of them tells; a draw is no."""
    step = max(1, *(size // _SAMPLE for size in mammogram.pixels.shape))
    left, right = _covered(bright_region(mammogram.pixels[::step, ::step].astype(np.float32)))
    return abs(left - right) > _DRAW and bool(stored_flipped(projection, "left" if left > right else "right"))


def flip_flags(projection: Projection, mammogram: Mammogram) -> tuple[Flag, ...]:
    """A flag where an image lies mirrored: of use to the eye, and a hint that left and right may be mixed up."""
    if not hangs_flipped(projection, mammogram):
        return ()
    return (Flag(STORED_FLIPPED, "stored mirrored, or left and right are mixed up: see where the chest wall lies"),)
