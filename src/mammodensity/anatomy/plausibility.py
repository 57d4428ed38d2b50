"""Rules that tell an image which is no mammogram although an outline was found in it.

The segmenter looks for a breast and finds something breast-like in most pictures. Each rule rests on what all
mammograms share, whatever the unit, and is told to the user in its own words. The limits lie well outside what real
mammograms and phantoms reach (``docs/preprocessing.md`` has the figures): to refuse a mammogram is worse than to let a
photograph pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    distance_transform_edt,
    gaussian_filter,
    gaussian_gradient_magnitude,
    label,
)

from mammodensity.errors import ImageError

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_BORDER = 0.08  # of the image at each side: film edges, white borders and most labels lie there
_LEAST_BACKGROUND = 0.005  # of the image: where less is left, nothing is said about it
_ENOUGH = 1_000_000  # pixels looked at, in whole rows, to count grey levels
_MOST_ARM = 0.5  # of what is not breast: an image with more of it has no dark background
_NEAR = 4  # pixels of the reduced image to either side of the outline that belong to neither
_FAR = 8  # pixels from the outline within which its two sides are compared
_ALIKE = 0.9  # correlation with the mirror image, left to right
_NO_SIDE = "its left and right are alike, so there is no chest wall on one side"
_TURNED = -0.35  # the same, top to bottom
_TURN_IT = "the chest wall is neither on the left nor on the right; turn it"


@dataclass(frozen=True)
class Signs:
    """Measures that the rules use; shares are 0 to 1, and None where there are too few pixels to measure."""

    grey_levels: int
    """Different grey values in the image."""
    detail: float
    """Detail finer than 3 of 192 rows, as a share of all contrast."""
    edges: float
    """The 95th percentile of the steps from pixel to pixel in the breast, as a share of all contrast."""
    mirror: float
    """Correlation of the image with its mirror image, left to right."""
    upside_down: float
    """Correlation of the image with its mirror image, top to bottom."""
    corners: int
    """Number of corners of the image that lie in the breast."""
    order: float | None
    """Share of pairs of a breast pixel and a background pixel in which the breast pixel is brighter."""
    lost: float | None
    """Share of the breast that is no brighter than half of the background."""
    outline: float | None
    """Share of the outline along which the breast's side is brighter than the other."""
    step: float | None
    """Edges in the breast as multiples of how far the breast stands above the background."""


_RULES: tuple[tuple[Callable[[Signs], bool], str], ...] = (
    # Label images and drawings; film scanned with 8 bit has more than 100.
    (lambda signs: signs.grey_levels < 32, "it has only a handful of grey levels, as label images and drawings have"),
    # Text and screens; detectors and film resolve breasts far beyond their finest structures at this size.
    (lambda signs: signs.detail > 0.55 or signs.edges > 0.2, "it is all sharp edges, as text and drawings are"),
    # A breast is cut off at one side only, so its two sides are never alike.
    (lambda signs: signs.mirror > _ALIKE, _NO_SIDE),
    # A breast hangs from the side; one that lies in the upper or lower half only hangs from above or below.
    (lambda signs: signs.upside_down < _TURNED, _TURN_IT),
    # There is air below the nipple, however narrow the field of view; above, the tail may fill a corner.
    (lambda signs: signs.corners > 3, "the outline fills all four corners of the image, which no breast does"),
    # X-rays lose more in any tissue than in air: the background is the darkest part (white film borders set aside).
    (
        lambda signs: (signs.order is not None and signs.order < 0.9) or (signs.lost is not None and signs.lost > 0.3),
        "there is no dark background beside the breast",
    ),
    (lambda signs: signs.outline is not None and signs.outline < 0.6, "the outline is no edge between breast and air"),
    (
        lambda signs: signs.step is not None and signs.step > 0.9,
        "edges inside the breast are larger than its own outline's",
    ),
)


def require_mammogram(signs: Signs, name: object) -> None:
    """Refuse what is no mammogram.

    Raises
    ------
    ImageError
        A rule says so; its message says which.
    """
    for broken, text in _RULES:
        if broken(signs):
            raise _refusal(name, text)


def require_one_chest_wall(whole: Floats, name: object) -> None:
    """Refuse a whole image, reduced (h, w), by the rules that need no outline of a breast.

    Raises
    ------
    ImageError
        Its chest wall is above or below, or it has none, or two.
    """
    whole = _scaled(whole)
    if _likeness(whole, whole[:, ::-1]) > _ALIKE:
        raise _refusal(name, _NO_SIDE)
    if _likeness(whole, whole[::-1]) < _TURNED:
        raise _refusal(name, _TURN_IT)


def _refusal(name: object, text: str) -> ImageError:
    return ImageError(f"{name}: no mammogram: {text}", "no-mammogram")


def signs_of(pixels: NDArray[np.integer[Any]], whole: Floats, grey: Floats, region: Mask) -> Signs:
    """Measure what the rules look at.

    Parameters
    ----------
    pixels
        The image at its own size.
    whole
        The same, reduced (h, w), even margins made dark.
    grey
        The image without even margins, reduced (h, w), with the chest wall on the left.
    region
        (h, w): the breast found in ``grey``, muscle included.
    """
    whole, scaled = _scaled(whole), _scaled(grey)
    inside = binary_erosion(region, iterations=_NEAR, border_value=1)
    away = ~binary_dilation(region, iterations=_NEAR)
    steps = gaussian_gradient_magnitude(scaled, 1.0)[inside]
    edges = float(np.percentile(steps, 95)) if steps.size else 0.0
    order, lost, step = _against_background(gaussian_filter(scaled, 1.0), inside, away, edges)
    return Signs(
        grey_levels=int(np.count_nonzero(np.bincount(pixels[:: 1 + pixels.size // _ENOUGH].ravel()))),
        detail=float((grey - gaussian_filter(grey, 1.5)).std()) / max(float(grey.std()), 1e-6),
        edges=edges,
        mirror=_likeness(whole, whole[:, ::-1]),
        upside_down=_likeness(whole, whole[::-1]),
        corners=_corners(region),
        order=order,
        lost=lost,
        outline=_outline(gaussian_filter(scaled, 1.5), region, inside, away),
        step=step,
    )


def _scaled(grey: Floats) -> NDArray[np.float32]:
    low, high = np.percentile(grey, (0.5, 99.5))
    scaled: NDArray[np.float32] = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    return scaled


def _against_background(
    smooth: Floats, inside: Mask, away: Mask, edges: float
) -> tuple[float | None, float | None, float | None]:
    """``order``, ``lost`` and ``step`` of ``Signs``.

    The border of the image is left out, and so are an arm and what is brighter than nearly all of the breast: labels
    and markers.
    """
    rows, columns = (round(_BORDER * size) for size in smooth.shape)
    breast = np.sort(smooth[inside])
    if not breast.size or not away.any():
        return None, None, None
    air = away & ~_arm(smooth, away, float(np.median(breast)))
    air[:rows] = air[-rows:] = air[:, :columns] = air[:, -columns:] = False
    values = smooth[air]
    values = values[values <= breast[int(0.95 * (breast.size - 1))]]
    if values.size < _LEAST_BACKGROUND * smooth.size:
        return None, None, None
    middle = float(np.median(values))
    order = 1 - float(np.searchsorted(breast, values).mean()) / breast.size
    lost = float((breast < middle + 0.02).mean())
    return order, lost, edges / max(float(np.median(breast)) - middle, 0.02)


def _arm(smooth: Floats, away: Mask, breast: float) -> Mask:
    """Mask of an arm or a shoulder that hangs into the image from its upper edge beside the breast.

    It covers less than half of what is not breast, does not reach the lower edge, and is nearer to the brightness of
    the breast, its median, than to that of the air.
    """
    air = float(np.percentile(smooth[away], 5))
    parts, _ = label(away & (smooth > (air + breast) / 2))
    hanging = np.setdiff1d(parts[: _NEAR - 1], [0, *np.unique(parts[-_NEAR:])])
    arm: Mask = binary_dilation(np.isin(parts, hanging), iterations=_NEAR) & away
    return arm if arm.sum() < _MOST_ARM * away.sum() else np.zeros_like(away)


def _likeness(first: Floats, second: Floats) -> float:
    """The correlation of two images; 0 for an even one."""
    if float(first.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _corners(region: Mask) -> int:
    rows, columns = (size // 10 for size in region.shape)
    parts = (region[:rows, :columns], region[:rows, -columns:], region[-rows:, :columns], region[-rows:, -columns:])
    return sum(float(part.mean()) > 0.5 for part in parts)


def _outline(smooth: Floats, region: Mask, inside: Mask, away: Mask) -> float | None:
    """Compare the nearest pixels to both sides of each point of the outline; None where the image has no background."""
    if not inside.any() or not away.any():
        return None
    ring = region & ~binary_erosion(region, border_value=1)
    within, to_inside = distance_transform_edt(~inside, return_indices=True)
    beyond, to_away = distance_transform_edt(~away, return_indices=True)
    free = ring & (within < _FAR) & (beyond < _FAR)
    if free.sum() < _FAR:
        return None
    rise = smooth[tuple(to_inside[:, free])] - smooth[tuple(to_away[:, free])]
    return float((rise > 0.01).mean())
