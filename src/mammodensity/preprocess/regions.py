"""Breast and pectoral muscle of a mammogram, found on a reduced image and drawn at the size of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.preprocess.breast import (
    breast_scores,
    certainty,
    may_be_inverted,
    reduced_grey,
    require_structure,
)
from mammodensity.preprocess.orientation import chest_side
from mammodensity.preprocess.pectoral import muscle_scores
from mammodensity.preprocess.plausibility import require_mammogram

BACKGROUND, BREAST, PECTORAL = 0, 1, 3
"""Values of a label image; 2 is reserved for fibroglandular tissue."""

_MARGIN = 0.005  # to refuse a good image is worse than to let an inverted one pass


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
    def box(self) -> tuple[int, int, int, int]:
        """The bounding box of the breast, muscle included: first row, first column, height, width."""
        return bounding_box(self.labels != BACKGROUND)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """First row, first column, height and width of the box about a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left


@dataclass(frozen=True, eq=False)
class Outline:
    """Breast and muscle on the reduced image, turned so that the chest wall is on the left."""

    body: NDArray[np.float32]
    """(h, w) scores of breast or muscle: above one half is inside."""
    muscle: NDArray[np.float32] | None
    """(h, w) scores of muscle, or None where there is none."""
    chest_side: str
    """``"left"`` or ``"right"``: the side of the image the chest wall is on."""

    @property
    def flip(self) -> slice:
        """Of columns: between the image and this."""
        return slice(None, None, -1 if self.chest_side == "right" else 1)

    def regions(self, shape: tuple[int, ...]) -> Regions:
        """The regions at the size (H, W) of the image."""
        labels = _enlarged(self.body[:, self.flip], shape).astype(np.uint8)
        if self.muscle is not None:
            labels[_enlarged(self.muscle[:, self.flip], shape) & (labels == BREAST)] = PECTORAL
        return Regions(labels, self.chest_side)


def find_regions(mammogram: Mammogram) -> Regions:
    """Find the breast and, unless the projection is known to be CC, the pectoral muscle.

    A mirrored mammogram gives mirrored regions.

    Raises
    ------
    ImageError
        There is no breast in it, it is no mammogram, or its grey values are inverted.
    """
    return find_outline(mammogram).regions(mammogram.pixels.shape)


def find_outline(mammogram: Mammogram) -> Outline:
    """Breast and muscle as :func:`find_regions` finds them, before they are drawn at the size of the image.

    Raises
    ------
    ImageError
        There is no breast in it, it is no mammogram, or its grey values are inverted.
    """
    from mammodensity.preprocess.segmenter import SIZE

    name = mammogram.path if mammogram.path is not None else "the image"
    grey = reduced_grey(mammogram, SIZE)
    require_structure(grey, name)
    side, scores = _side_and_scores(grey)
    if may_be_inverted(grey) and certainty(_side_and_scores(grey.max() - grey)[1]) > certainty(scores) + _MARGIN:
        raise ImageError(
            f"{name}: its background is brighter than the breast; invert it first (MONOCHROME1?)", "inverted"
        )
    body = breast_scores(scores, name)
    turned = grey[:, :: -1 if side == "right" else 1]
    require_mammogram(mammogram.pixels, turned, body > 0.5, name)
    is_cc = mammogram.projection is not None and mammogram.projection.view_position == "CC"
    return Outline(body, None if is_cc else muscle_scores(scores, body > 0.5), side)


def _side_and_scores(grey: NDArray[np.float32]) -> tuple[str, NDArray[np.float32]]:
    """The side the chest wall is on, and the scores (3, H, W) with that side on the left."""
    from mammodensity.preprocess.segmenter import class_scores  # only here is torch needed

    side = chest_side(grey)
    return side, class_scores(np.ascontiguousarray(grey[:, :: -1 if side == "right" else 1]))


def _enlarged(scores: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where scores exceed one half at the size (H, W) of the image; interpolated, so that outlines stay smooth."""
    size = (shape[1], shape[0])
    picture = Image.fromarray(np.ascontiguousarray(scores)).resize(size, Image.Resampling.BILINEAR)
    result: NDArray[np.bool_] = np.asarray(picture) > 0.5
    return result
