"""The breast region: from the segmenter's scores to one clean outline, and the refusal of what is no mammogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_fill_holes, gaussian_filter, gaussian_gradient_magnitude
from scipy.spatial import ConvexHull

from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.preprocess.orientation import largest_part, otsu_threshold

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_SMALLEST_SHARE = 0.02  # of the image; small breasts on the largest detectors cover some 8 %
_MOST_NOISE = 0.75  # detail finer than 3 of 192 rows, as a share of all contrast; mammograms have 0.05 to 0.3


def reduced_grey(mammogram: Mammogram, size: tuple[int, int]) -> NDArray[np.float32]:
    """The image averaged down to ``size`` (H, W), 0..1 of full scale, whatever its aspect."""
    values = Image.fromarray(mammogram.pixels.astype(np.float32))
    rows, columns = size
    small = np.asarray(values.resize((columns, rows), Image.Resampling.BOX))
    return (small / mammogram.full_scale).astype(np.float32)


def require_mammogram(grey: Floats, name: object) -> None:
    """Refuse a reduced image without structure, or with a bright background around something dark.

    Raises
    ------
    ImageError
        It is noise, or inverted.
    """
    contrast = float(grey.std())
    if float((grey - gaussian_filter(grey, 1.5)).std()) > _MOST_NOISE * contrast:
        raise ImageError(f"{name}: nothing but noise, no breast was found in it", code="no-breast")
    if _looks_inverted(grey):
        raise ImageError(
            f"{name}: its background is brighter than the breast; invert it first (MONOCHROME1?)", code="inverted"
        )


def _looks_inverted(grey: Floats) -> bool:
    """Both corners away from the chest wall are background.

    Inverted: some side has two bright corners and none has two dark ones. Where there are both, one of them is muscle
    and abdomen: the background is what varies least, and the breast is the rounder of the two.
    """
    low, high = np.percentile(grey, (1, 99))
    scaled = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1)
    rows, columns = grey.shape
    high_px, wide_px = rows // 16, columns // 16
    sides = [
        [float(np.median(scaled[part, side])) for part in (np.s_[:high_px], np.s_[-high_px:])]
        for side in (np.s_[:wide_px], np.s_[-wide_px:])
    ]
    if max(map(min, sides)) < 0.7:
        return False
    if min(map(max, sides)) > 0.3:
        return True
    slope = gaussian_gradient_magnitude(scaled, 1.5)
    if np.median(scaled[slope <= np.percentile(slope, 10)]) < 0.6:
        return False
    bright = scaled > otsu_threshold(scaled)
    return _convexity(~bright) > _convexity(bright)


def _convexity(mask: Mask) -> float:
    """Area of the largest part of a mask over that of its convex hull."""
    places = np.argwhere(largest_part(mask))
    if len(places) < 3 or min(np.ptp(places, axis=0)) == 0:
        return 0.0
    return len(places) / max(float(ConvexHull(places).volume), 1.0)


def breast_scores(scores: Floats, name: object) -> NDArray[np.float32]:
    """The score of breast or muscle (H, W), brought below one half outside the one region kept and above in its holes.

    Raises
    ------
    ImageError
        No region is large enough.
    """
    body = 1 - scores[0]
    region = largest_part(body > 0.5)
    if region.mean() < _SMALLEST_SHARE:
        raise ImageError(f"{name}: no breast was found in it", code="no-breast")
    return within(body, binary_fill_holes(region))


def within(scores: Floats, region: Mask) -> NDArray[np.float32]:
    """Scores whose part above one half is ``region``, changed only where they say otherwise."""
    result: NDArray[np.float32] = np.where(region, np.maximum(scores, 0.505), np.minimum(scores, 0.495)).astype(
        np.float32
    )
    return result
