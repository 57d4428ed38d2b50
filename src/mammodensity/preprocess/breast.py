"""The breast region: from the segmenter's scores to one clean outline, and what tells that an image is no mammogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import (
    binary_closing,
    binary_dilation,
    binary_erosion,
    binary_fill_holes,
    binary_opening,
    gaussian_filter,
)

from mammodensity.errors import ImageError
from mammodensity.preprocess.orientation import largest_part

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

REDUCED = (192, 128)
"""Rows and columns of the image that outlines are found in."""

_SMALLEST_SHARE = 0.02  # of the image; small breasts on the largest detectors cover some 8 %
_LEAST_SHOWN = 0.05  # of the field, whose even margins are gone
_MARGIN = 0.005  # to refuse a good image is worse than to let an inverted one pass
_MOST_NOISE = 0.75  # detail finer than 3 of 192 rows, as a share of all contrast; mammograms have 0.05 to 0.3


def reduced_grey(pixels: NDArray[Any], full_scale: int) -> NDArray[np.float32]:
    """An image (H, W) averaged down to ``REDUCED``, 0..1 of full scale, whatever its aspect."""
    rows, columns = REDUCED
    small = np.asarray(Image.fromarray(pixels.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX))
    return (small / full_scale).astype(np.float32)


def require_structure(grey: Floats, name: object) -> None:
    """Refuse a reduced image (H, W) without structure.

    Raises
    ------
    ImageError
        It is noise.
    """
    if float((grey - gaussian_filter(grey, 1.5)).std()) > _MOST_NOISE * float(grey.std()):
        raise ImageError(f"{name}: nothing but noise, no breast was found in it", "no-breast")


def may_be_inverted(grey: Floats) -> bool:
    """Whether both corners of some side are bright: background, if inverted; else muscle and abdomen."""
    low, high = np.percentile(grey, (1, 99))
    rows, columns = grey.shape[0] // 16, grey.shape[1] // 16
    corners = [
        [float(np.median(grey[part, side])) for part in (np.s_[:rows], np.s_[-rows:])]
        for side in (np.s_[:columns], np.s_[-columns:])
    ]
    return bool(high > low and max(map(min, corners)) >= low + 0.7 * (high - low))


def shows_breast_more_surely(scores: Floats, others: Floats) -> bool:
    """Whether scores (3, H, W) tell a breast from background more surely than others do, or than others find none."""
    return _sureness(scores) > _sureness(others) + _MARGIN


def _sureness(scores: Floats) -> float:
    """0 to 1; 0 where there is hardly any breast."""
    return float(np.abs(2 * scores[0] - 1).mean()) if (scores[0] < 0.5).mean() > _LEAST_SHOWN else 0.0


def breast_scores(scores: Floats, name: object) -> NDArray[np.float32]:
    """The score of breast or muscle (H, W), 0 in all parts but the largest, 1 in its holes.

    Raises
    ------
    ImageError
        No region is large enough.
    """
    body = 1 - scores[0]
    region = largest_part(_smooth(body > 0.5))
    if region.mean() < _SMALLEST_SHARE:
        raise ImageError(f"{name}: no breast was found in it", "no-breast")
    return within(body, binary_fill_holes(region))


def _smooth(region: Mask) -> Mask:
    """Close holes, and notches narrower than 7 % of the width; cut off what is half as wide, or stands upright.

    The first are dark fat below the skin, the others folds of skin and strips of abdomen along the chest wall. A nipple
    is wider, lies across, and stays.
    """
    wide = 1 + 2 * round(0.035 * region.shape[1])
    closed = binary_closing(np.pad(binary_fill_holes(region), wide), _disc(wide))
    # Mirrored at the image's edge, so that what is cut there keeps its width.
    mirrored = np.pad(binary_fill_holes(closed)[wide:-wide, wide:-wide], wide, mode="symmetric")
    opened = binary_opening(binary_opening(mirrored, np.ones((1, wide))), _disc(wide // 2 + 1))
    result: Mask = opened[wide:-wide, wide:-wide]
    return result


def _disc(wide: int) -> Mask:
    y, x = np.indices((wide, wide)) - wide // 2
    result: Mask = y * y + x * x <= (wide / 2) ** 2
    return result


def within(scores: Floats, region: Mask) -> NDArray[np.float32]:
    """Scores whose part above one half is ``region``: kept along its border where they agree with it, else 0 or 1."""
    inside = binary_erosion(region, border_value=1)
    outside = ~binary_dilation(region)
    keep = ((scores > 0.5) == region) & ~inside & ~outside
    return np.where(keep, scores, region).astype(np.float32)
