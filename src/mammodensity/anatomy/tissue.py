"""When breast, muscle and dense tissue can hardly be told apart, so that a percent density says little.

The tissue of one mammogram: background, adipose, fibroglandular or pectoral, and the percent density from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.anatomy.field import bounding_box
from mammodensity.anatomy.outline import Outline, find_outline
from mammodensity.errors import ImageError
from mammodensity.exam import Flag, Mammogram
from mammodensity.terms import Projection

DOUBTFUL_TISSUE, NO_MUSCLE = "doubtful-tissue", "no-muscle"

_LEAST_SURE_OUTLINE, _LEAST_SURE_TISSUE = 0.85, 0.70
"""About what one disturbed phantom in a hundred, and one in twenty, fall below (docs/default-model.md); real mammograms
at hand do not."""


def doubts(outline: float, tissue: float, projection: Projection | None, *, muscle: bool) -> Iterator[Flag]:
    """Flags of an image.

    Parameters
    ----------
    outline, tissue
        How sure the networks are on average, 0 to 1: of background, breast and muscle; of dense against fatty tissue.
    projection
        What the image is said to be.
    muscle
        Whether a pectoral muscle was found.
    """
    if outline < _LEAST_SURE_OUTLINE:
        yield Flag(DOUBTFUL_TISSUE, f"breast, muscle and background can hardly be told apart (sureness {outline:.2f})")
    if tissue < _LEAST_SURE_TISSUE:
        yield Flag(DOUBTFUL_TISSUE, f"dense and fatty tissue can hardly be told apart (sureness {tissue:.2f})")
    if projection is not None and projection.view_position == "MLO" and not muscle:
        yield Flag(NO_MUSCLE, "no pectoral muscle was found; if there is one, it counts as breast")


BACKGROUND, ADIPOSE, FIBROGLANDULAR, PECTORAL = 0, 1, 2, 3
"""Values of a label image."""

Floats = NDArray[np.floating[Any]]
Shares = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class TissueMap:
    """Tissue of a mammogram pixel by pixel, and its percent density."""

    outline: Outline
    box: Shares
    """The breast's box in the field of the outline, as shares of the field's size: left, top, right, bottom."""
    dense_scores: NDArray[np.float32]
    """(h, w) scores of fibroglandular against adipose tissue in the box, turned so that the chest wall is on the left;
    0 in muscle and background."""
    percent_density: float
    """Fibroglandular area over fibroglandular plus adipose area, per cent."""
    shape: tuple[int, int]
    """(H, W) of the image."""
    doubts: tuple[Flag, ...] = ()
    """Why it may be wrong."""

    @property
    def chest_side(self) -> str:
        """``"left"`` or ``"right"``: the side of the image the chest wall is on."""
        return self.outline.chest_side

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """(H, W) at the size of the image: 0 background, 1 adipose, 2 fibroglandular, 3 pectoral muscle."""
        labels = self.outline.regions(self.shape).labels
        labels[(self.dense > 0.5) & (labels == ADIPOSE)] = FIBROGLANDULAR
        return labels

    @cached_property
    def dense(self) -> NDArray[np.float32]:
        """(H, W) scores of fibroglandular tissue at the size of the image, 0 outside the breast's box."""
        whole = np.zeros(self.shape, np.float32)
        covered = self.outline.seen(whole)
        rows, columns = covered.shape
        left, top, right, bottom = (
            round(share * size) for share, size in zip(self.box, (columns, rows, columns, rows), strict=True)
        )
        inside = Image.fromarray(self.dense_scores).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        covered[top:bottom, left:right] = np.asarray(inside)
        return whole


def find_tissue(mammogram: Mammogram, outline: Outline | None = None) -> TissueMap:
    """Find breast, muscle and dense tissue; a mirrored mammogram gives a mirrored map.

    ``outline`` is the mammogram's, if it was found already.

    Raises
    ------
    ImageError
        There is no breast in it, it is no mammogram or an oblique view upside down, or its grey values are inverted.
    """
    from mammodensity.anatomy.networks import TISSUE_SIZE, tissue_scores

    outline = outline or find_outline(mammogram)
    box = _box(outline.body > 0.5)
    grey = _cut(outline.seen(mammogram.pixels).astype(np.float32), box, TISSUE_SIZE)
    body = _cut(outline.body, box, TISSUE_SIZE) > 0.5
    muscle = np.zeros(TISSUE_SIZE, bool) if outline.muscle is None else _cut(outline.muscle, box, TISSUE_SIZE) > 0.5
    breast = body & ~muscle
    if not breast.any():
        name = mammogram.path if mammogram.path is not None else "the image"
        raise ImageError(f"{name}: nothing but muscle was found in it", code="no-breast")
    scores = tissue_scores(grey, breast)
    dense = np.where(breast, scores[FIBROGLANDULAR] / (scores[ADIPOSE] + scores[FIBROGLANDULAR] + 1e-6), 0)
    percent = 100 * float((dense > 0.5).sum()) / float(breast.sum())
    rows, columns = mammogram.pixels.shape
    flags = doubts(
        outline.sureness,
        float(np.abs(2 * dense[breast] - 1).mean()),
        mammogram.projection,
        muscle=outline.muscle is not None,
    )
    return TissueMap(outline, box, dense.astype(np.float32), percent, (rows, columns), tuple(flags))


def _box(body: NDArray[np.bool_]) -> Shares:
    top, left, height, width = bounding_box(body)
    rows, columns = body.shape
    return left / columns, top / rows, (left + width) / columns, (top + height) / rows


def _cut(image: NDArray[np.float32], box: Shares, size: tuple[int, int]) -> NDArray[np.float32]:
    """The part of an image (H, W) in the box, brought to ``size``."""
    rows, columns = image.shape
    left, top, right, bottom = box
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image)).resize(
            (size[1], size[0]),
            Image.Resampling.BILINEAR,
            box=(left * columns, top * rows, right * columns, bottom * rows),
        )
    )
