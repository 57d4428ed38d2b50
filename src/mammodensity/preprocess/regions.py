"""Breast and pectoral muscle of a mammogram, found on a reduced image and drawn at the size of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.preprocess.breast import (
    breast_scores,
    may_be_inverted,
    reduced_grey,
    require_structure,
    shows_breast_more_surely,
)
from mammodensity.preprocess.field import Box, around, bounding_box, part, with_dark_margins, without_margins
from mammodensity.preprocess.orientation import chest_side
from mammodensity.preprocess.pectoral import muscle_scores
from mammodensity.preprocess.plausibility import Signs, require_mammogram, require_one_chest_wall, signs_of

BACKGROUND, BREAST, PECTORAL = 0, 1, 3
"""Values of a label image; 2 is reserved for fibroglandular tissue."""
_LOWER_MUSCLE, _SURELY_MUSCLE = 0.05, 0.2
"""Of the breast, below: less may be a fold or chest wall in MLO views, or an armpit where the view is unknown."""


@dataclass(frozen=True, eq=False)
class Regions:
    """What is where in a mammogram."""

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
    """(h, w) scores of muscle, or None where there is none."""
    chest_side: str
    """``"left"`` or ``"right"``: the side of the image the chest wall is on."""
    field: Box
    """The part of the turned image that the scores cover, in its pixels; outside of it is background."""
    sureness: float
    """By how much the likeliest of background, breast and muscle leads, on average: 0 to 1."""

    @property
    def flip(self) -> slice:
        """Of columns: between the image and the turned one."""
        return _flip(self.chest_side)

    def seen(self, image: NDArray[Any]) -> NDArray[Any]:
        """What of an image (H, W) the scores cover, turned; a view, no copy."""
        return part(image[:, self.flip], self.field)

    def regions(self, shape: tuple[int, ...]) -> Regions:
        """The regions at the size (H, W) of the image."""
        labels = np.zeros(shape, np.uint8)
        seen = self.seen(labels)
        seen[:] = _enlarged(self.body, seen.shape)
        if self.muscle is not None:
            seen[_enlarged(self.muscle, seen.shape) & (seen == BREAST)] = PECTORAL
        return Regions(labels, self.chest_side)


def find_regions(mammogram: Mammogram) -> Regions:
    """Find the breast and, unless the projection is known to be CC, the pectoral muscle.

    A mirrored mammogram gives mirrored regions.

    Raises
    ------
    ImageError
        There is no breast in it, it is no mammogram or an oblique view upside down, or its grey values are inverted.
    """
    return find_outline(mammogram).regions(mammogram.pixels.shape)


def find_outline(mammogram: Mammogram) -> Outline:
    """Breast and muscle as :func:`find_regions` finds them, before they are drawn at the size of the image.

    Raises
    ------
    ImageError
        There is no breast in it, it is no mammogram or an oblique view upside down, or its grey values are inverted.
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
    is_cc = mammogram.projection is not None and mammogram.projection.view_position == "CC"
    muscle = None if is_cc else muscle_scores(scores, body > 0.5)
    if muscle is None and not is_cc:
        _require_upright(grey, body > 0.5, name, _SURELY_MUSCLE if mammogram.projection is None else _LOWER_MUSCLE)
    _, second, first = np.sort(scores, axis=0)
    return Outline(body, muscle, look.side, field, float((first - second).mean()))


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
    """What the rules look at by which an image is no mammogram.

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
    """Of ``grey``, in the pixels of the turned image."""


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
    """Of columns: brings the chest wall from ``side`` to the left, and back."""
    return slice(None, None, -1 if side == "right" else 1)


def _class_scores(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    from mammodensity.preprocess.segmenter import class_scores  # only here is torch needed

    return class_scores(np.ascontiguousarray(grey))


def _enlarged(scores: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where scores exceed one half at the size (H, W) of the image; interpolated, so that outlines stay smooth."""
    size = (shape[1], shape[0])
    picture = Image.fromarray(np.ascontiguousarray(scores)).resize(size, Image.Resampling.BILINEAR)
    result: NDArray[np.bool_] = np.asarray(picture) > 0.5
    return result
