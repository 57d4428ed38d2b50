"""Does a marker outside the breast change a network's answer? Bright marks are planted where the image is free.

Images of archives carry letters and blocks of lead or paper beside the breast, and a sound network does not mind them.
A network that has learned to read density from a marker does, even where the image at hand carries none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mammodensity.explanation.scoring.areas import Areas, Floats, Mask
from mammodensity.explanation.scoring.changes import background_changes, change_of_answer
from mammodensity.explanation.scoring.measures import Figures, Reasons
from mammodensity.explanation.scoring.probe import Probe

NO_ROOM = "no corner of the image is free for a marker"
_SIZE, _GAP = 0.08, 0.03  # of the rows: height of a mark, and how far from the border it lies
_LETTERS = (
    "###..#....",
    "#..#.#....",
    "###..#....",
    "#.#..#....",
    "#..#.####.",
)  # R L


def outside_changes(image: Floats, areas: Areas, probe: Probe) -> tuple[Figures, Reasons]:
    """All that is known of how far the answer depends on what is no breast; see `background_changes`."""
    figures, reasons = background_changes(image, areas, probe)
    marked, lacking = marker_changes(image, areas, probe)
    return figures | marked, reasons | lacking


def marker_changes(image: Floats, areas: Areas, probe: Probe) -> tuple[Figures, Reasons]:
    """How far the answer changes when a mark is put into a corner of an image whose outside is black.

    ``marker_change`` is the share of the scores (0 to 1) that moves to other categories, ``marker_logit`` the largest
    change of a logit, all of them centred: of a bright block and of letters, in each corner that is free, the largest.
    """
    black = image.astype(np.float32, copy=True)
    black[areas.outside] = image.min()
    marked = [_with(black, mark, corner) for mark in _marks(image.shape[0]) for corner in _free(areas, mark)]
    if not marked:
        names = ("marker_change", "marker_logit")
        return dict.fromkeys(names), dict.fromkeys(names, NO_ROOM)
    before, *after = probe.logits(np.stack([black, *marked]))
    share, logit = np.max([change_of_answer(before, one) for one in after], axis=0).tolist()
    return {"marker_change": share, "marker_logit": logit}, {}


def _marks(rows: int) -> list[Mask]:
    """A block and two letters, for an image of so many rows."""
    side = max(4, round(_SIZE * rows))
    glyphs = np.array([[cell == "#" for cell in line] for line in _LETTERS])
    down, right = np.arange(side) * glyphs.shape[0] // side, np.arange(2 * side) * glyphs.shape[1] // (2 * side)
    return [np.ones((side, side), bool), glyphs[np.ix_(down, right)]]


def _free(areas: Areas, mark: Mask) -> list[tuple[int, int]]:
    """Upper left ends of the places near the four corners where neither breast nor muscle is."""
    outside = areas.outside
    (rows, columns), (high, wide) = outside.shape, mark.shape
    gap = max(1, round(_GAP * rows))
    places = [(top, left) for top in (gap, rows - gap - high) for left in (gap, columns - gap - wide)]
    return [
        (top, left)
        for top, left in places
        if min(top, left) >= 0 and outside[top : top + high, left : left + wide].all()
    ]


def _with(image: NDArray[np.float32], mark: Mask, corner: tuple[int, int]) -> NDArray[np.float32]:
    """The image with a mark as bright as its brightest pixel."""
    (top, left), (high, wide) = corner, mark.shape
    marked = image.copy()
    marked[top : top + high, left : left + wide][mark] = image.max()
    return marked
