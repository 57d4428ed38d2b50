"""The breast region: from the segmenter's scores to one clean outline, and what tells that an image is no mammogram.

The pectoral muscle of MLO views: one region in the upper corner on the chest side.

Breast and pectoral muscle of a mammogram, found on a reduced image and drawn at the size of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    label,
)

from mammodensity.anatomy.field import (
    Box,
    around,
    bounding_box,
    chest_side,
    largest_part,
    part,
    with_dark_margins,
    without_margins,
)
from mammodensity.anatomy.plausibility import Signs, require_mammogram, require_one_chest_wall, signs_of
from mammodensity.anatomy.wedge import is_dome, require_stated_view, wedge_sureness
from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram

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
    """True when both corners of some side are bright: background, if inverted; else muscle and abdomen."""
    low, high = np.percentile(grey, (1, 99))
    rows, columns = grey.shape[0] // 16, grey.shape[1] // 16
    corners = [
        [float(np.median(grey[part, side])) for part in (np.s_[:rows], np.s_[-rows:])]
        for side in (np.s_[:columns], np.s_[-columns:])
    ]
    return bool(high > low and max(map(min, corners)) >= low + 0.7 * (high - low))


def shows_breast_more_surely(scores: Floats, others: Floats) -> bool:
    """True when scores (3, H, W) tell a breast from background more surely than others do, or others find none."""
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


_LEAST_SHARE = 0.02  # of the breast region: less is a sliver of chest wall


def muscle_scores(scores: Floats, breast: Mask) -> NDArray[np.float32] | None:
    """The score of muscle (H, W), 0 in all parts but the one in the upper corner on the left.

    None where there is none: nothing touches that corner, or too little.
    """
    parts, count = label((scores[2] > 0.5) & breast)
    if not count:
        return None
    rows = np.flatnonzero(breast.any(axis=1))
    columns = np.flatnonzero(breast.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    corner = parts[rows[0] : rows[0] + height // 4, columns[0] : columns[0] + max(2, width // 4)]
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    touching = np.unique(corner[corner > 0])
    if not len(touching):
        return None
    chosen = touching[int(np.argmax(sizes[touching]))]
    region = binary_fill_holes(parts == chosen) & breast
    if region.sum() < _LEAST_SHARE * breast.sum() or not _tapers(region, int(rows[0]), int(height)):
        return None
    return within(scores[2], region)


def _tapers(region: Mask, top: int, height: int) -> bool:
    """True when a region is wider at the top of the breast than at half height, unlike a strip of chest wall in CC."""
    widths = region.sum(axis=1)
    middle = top + height // 2
    return bool(widths[top : top + height // 8].mean() > widths[middle : middle + height // 8].mean())


BACKGROUND, BREAST, PECTORAL = 0, 1, 3
"""Values of a label image; 2 is reserved for fibroglandular tissue."""
_LOWER_MUSCLE, _SURELY_MUSCLE = 0.05, 0.2
"""Shares of the breast. A smaller muscle at the lower end does not show that the image is upside down: it may be a fold
or chest wall in MLO views, or an armpit where the view is unknown."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Breast, pectoral muscle and background of a mammogram, as a label image."""

    labels: NDArray[np.uint8]
    """(H, W) at the size of the image: 0 background, 1 breast, 3 pectoral muscle."""
    chest_side: str
    """``"left"`` or ``"right"``: the side of the image the chest wall is on."""

    @property
    def view_position(self) -> str:
        """``"MLO"`` if a pectoral muscle was found, else ``"CC"``: a guess where nothing says the view."""
        return "MLO" if (self.labels == PECTORAL).any() else "CC"

    @property
    def box(self) -> Box:
        """The bounding box of the breast, muscle included: first row, first column, height, width."""
        return bounding_box(self.labels != BACKGROUND)


@dataclass(frozen=True, eq=False)
class Outline:
    """Breast and muscle on a reduced field of the image, turned so that the chest wall is on the left."""

    body: NDArray[np.float32]
    """(h, w) scores of breast or muscle: above one half is inside."""
    muscle: NDArray[np.float32] | None
    """(h, w) scores of muscle; None where there is none, or the view is said to be CC."""
    chest_side: str
    """``"left"`` or ``"right"``: the side of the image the chest wall is on."""
    field: Box
    """The part of the turned image that the scores cover, in its pixels; outside of it is background."""
    sureness: float
    """By how much the likeliest of background, breast and muscle leads, on average: 0 to 1."""
    wedge: float
    """Certainty, 0 to 1, that the image shows the muscle of an oblique view; the stated view does not count."""
    dome: bool
    """True when the skin line is that of a CC."""

    @property
    def flip(self) -> slice:
        """The slice of columns that turns the image, or turns it back."""
        return _flip(self.chest_side)

    def seen(self, image: NDArray[Any]) -> NDArray[Any]:
        """The part of an image (H, W) that the scores cover, turned; a view, no copy."""
        return part(image[:, self.flip], self.field)

    def regions(self, shape: tuple[int, ...]) -> Regions:
        """The regions at the size (H, W) of the image."""
        labels = np.zeros(shape, np.uint8)
        covered = self.seen(labels)
        covered[:] = _enlarged(self.body, covered.shape)
        if self.muscle is not None:
            covered[_enlarged(self.muscle, covered.shape) & (covered == BREAST)] = PECTORAL
        return Regions(labels, self.chest_side)


def find_regions(mammogram: Mammogram) -> Regions:
    """Find the breast and, unless the projection is known to be CC, the pectoral muscle.

    A mirrored mammogram gives mirrored regions.

    Raises
    ------
    ImageError
        As :func:`find_outline`.
    """
    return find_outline(mammogram).regions(mammogram.pixels.shape)


def find_outline(mammogram: Mammogram) -> Outline:
    """Breast and muscle as :func:`find_regions` finds them, before they are drawn at the size of the image.

    Raises
    ------
    ImageError
        There is no breast in it, it is no mammogram, an oblique view upside down or one that is called CC, or its grey
        values are inverted.
    """
    name = _name(mammogram)
    look = _first_look(mammogram)
    try:
        body = breast_scores(look.scores, name)
    except ImageError:
        require_one_chest_wall(look.whole, name)  # which would be why
        raise
    require_mammogram(signs_of(mammogram.pixels, look.whole, look.grey, body > 0.5), name)
    # A second look at the field about the breast: so it is seen at much the same size whatever frame it lies in.
    turned = mammogram.pixels[:, _flip(look.side)]
    field = around(body > 0.5, look.field, turned)
    grey = reduced_grey(part(turned, field), mammogram.full_scale)
    scores = _class_scores(grey)
    body = breast_scores(scores, name)
    muscle = muscle_scores(scores, body > 0.5)
    dome = is_dome(look.grey, look.scores[0] < 0.5)
    wedge = 0.0 if muscle is None else wedge_sureness(muscle > 0.5, scores[2], body > 0.5)
    require_stated_view(mammogram.projection, wedge, name)
    if mammogram.projection is not None and mammogram.projection.view_position == "CC":
        muscle = None
    elif muscle is None:
        _require_upright(grey, body > 0.5, name, _SURELY_MUSCLE if mammogram.projection is None else _LOWER_MUSCLE)
    _, second, first = np.sort(scores, axis=0)
    return Outline(body, muscle, look.side, field, float((first - second).mean()), wedge, dome)


def _require_upright(grey: NDArray[np.float32], breast: NDArray[np.bool_], name: object, least: float) -> None:
    """Refuse what has a muscle, of more than a share of the breast, only when it stands on its head."""
    muscle = muscle_scores(_class_scores(grey[::-1]), breast[::-1])
    if muscle is not None and (muscle > 0.5).sum() > least * breast.sum():
        raise ImageError(
            f"{name}: the pectoral muscle seems to be at its lower end, so it is upside down, or lacks its upper part; "
            "turn it, or give the whole view",
            "turned",
        )


def mammogram_signs(mammogram: Mammogram) -> Signs:
    """Measure the signs by which images that are no mammograms are refused.

    Raises
    ------
    ImageError
        There is no breast in it, or its grey values are inverted.
    """
    look = _first_look(mammogram)
    return signs_of(mammogram.pixels, look.whole, look.grey, breast_scores(look.scores, _name(mammogram)) > 0.5)


def _name(mammogram: Mammogram) -> object:
    return mammogram.path if mammogram.path is not None else "the image"


@dataclass(frozen=True, eq=False)
class _Look:
    """An image as it is seen first."""

    whole: NDArray[np.float32]
    """(h, w) all of it, turned and reduced, even margins made dark."""
    grey: NDArray[np.float32]
    """(h, w) without even margins, turned so that the chest wall is on the left."""
    scores: NDArray[np.float32]
    """(3, h, w) of ``grey``."""
    side: str
    field: Box
    """The part of the turned image that ``grey`` shows, in its pixels."""


def _first_look(mammogram: Mammogram) -> _Look:
    name, pixels = _name(mammogram), mammogram.pixels
    field = without_margins(pixels)
    grey = reduced_grey(part(pixels, field), mammogram.full_scale)
    side = chest_side(grey)
    if side == "right":  # turned before it is reduced, so that a mirrored image gives the same
        pixels = pixels[:, ::-1]
        field = field[0], pixels.shape[1] - field[1] - field[3], *field[2:]
        grey = reduced_grey(part(pixels, field), mammogram.full_scale)
    require_structure(grey, name)
    scores = _class_scores(grey)
    if may_be_inverted(grey) and _shows_more_when_inverted(grey, scores):
        raise ImageError(
            f"{name}: its background is brighter than the breast; invert it first (MONOCHROME1?)", "inverted"
        )
    return _Look(with_dark_margins(grey, field, pixels.shape), grey, scores, side, field)


def _shows_more_when_inverted(grey: NDArray[np.float32], scores: NDArray[np.float32]) -> bool:
    inverted = grey.max() - grey
    turned = inverted[:, _flip(chest_side(inverted))]
    return shows_breast_more_surely(_class_scores(turned), scores)


def _flip(side: str) -> slice:
    """The slice of columns that brings the chest wall from ``side`` to the left, and back."""
    return slice(None, None, -1 if side == "right" else 1)


def _class_scores(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    from mammodensity.anatomy.networks import class_scores  # only here is torch needed

    return class_scores(np.ascontiguousarray(grey))


def _enlarged(scores: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mask of scores above one half at the size (H, W) of the image; interpolated, so that outlines stay smooth."""
    size = (shape[1], shape[0])
    picture = Image.fromarray(np.ascontiguousarray(scores)).resize(size, Image.Resampling.BILINEAR)
    result: NDArray[np.bool_] = np.asarray(picture) > 0.5
    return result
