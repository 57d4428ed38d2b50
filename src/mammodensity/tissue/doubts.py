"""When breast, muscle and dense tissue can hardly be told apart, so that a percent density says little."""

from __future__ import annotations

from collections.abc import Iterator

from mammodensity.exam import Flag
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
