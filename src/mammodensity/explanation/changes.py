"""Deletion and insertion: how the score of a category falls and rises as pixels go and come in the order of a map.

References
----------
Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.

What becomes of a network's answer and of its map when the image is changed a little, or outside the breast.

Does a marker outside the breast change a network's answer? Bright marks are planted where the image is free.

Images of archives carry letters and blocks of lead or paper beside the breast, and a sound network does not mind them.
A network that has learned to read density from a marker does, even where the image at hand carries none.

Does the answer change when the breast is moved in its field? Where a breast lies depends on the unit and on how women
are positioned, so that a network can learn a clinic's habits instead of density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift
from scipy.special import softmax

from mammodensity.anatomy.field import part
from mammodensity.errors import OptionError
from mammodensity.explanation.measures import NO_MUSCLE, Areas, Figures, Floats, Mask, Reasons, rank_correlation
from mammodensity.explanation.probe import Probe

REPLACEMENTS = {
    "median": "each pixel by the median of its own area: breast, muscle, or what lies outside",
    "blur": "the image blurred by a sixteenth of its rows",
}
"""The possible replacements of a pixel."""
STEPS = 8


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores of the category at shares 0, 1/N ... 1 of all pixels, most important first."""

    shares: NDArray[np.float64]
    deletion: NDArray[np.float64]
    """With that share of the pixels replaced; low is good."""
    insertion: NDArray[np.float64]
    """With all replaced but that share; high is good."""

    @property
    def deletion_area(self) -> float:
        """Mean score along the curve."""
        return float(np.trapezoid(self.deletion, self.shares))

    @property
    def insertion_area(self) -> float:
        """Mean score along the curve."""
        return float(np.trapezoid(self.insertion, self.shares))


def replaced(image: Floats, areas: Areas, replacement: str = "median") -> Floats:
    """Make the image (H, W) whose pixels replace those of ``image``; see `REPLACEMENTS`.

    Raises
    ------
    OptionError
        Unknown replacement.
    """
    if replacement not in REPLACEMENTS:
        raise OptionError(f"replacement must be one of {', '.join(REPLACEMENTS)}. Got {replacement!r} instead.")
    if replacement == "blur":
        blurred: Floats = gaussian_filter(image.astype(np.float32), image.shape[0] / 16)
        return blurred
    result = image.astype(np.float32, copy=True)
    for mask in (areas.breast, areas.muscle, areas.outside):
        if mask.any():
            result[mask] = np.median(image[mask])
    return result


def find_curves(
    maps: Mapping[str, Floats], image: Floats, without: Floats, probe: Probe, *, steps: int = STEPS, seed: int = 0
) -> dict[str, Curves]:
    """The curves of several maps (H, W) of one image; ties of a map are put in random order.

    Parameters
    ----------
    without
        (H, W), what pixels are replaced by.
    """
    shares = np.linspace(0, 1, steps + 1)
    ties = np.random.default_rng(seed).random(image.size)
    whole, none = image.astype(np.float32), without.astype(np.float32)
    changed = [whole, none]
    for values in maps.values():
        rank = np.empty(image.size, np.intp)
        rank[np.lexsort((ties, -values.ravel()))] = np.arange(image.size)
        for share in shares[1:-1]:
            first = (rank < round(share * image.size)).reshape(image.shape)
            changed += [np.where(first, none, whole), np.where(first, whole, none)]
    scores = softmax(probe.logits(np.stack(changed)), axis=1)[:, probe.category]
    inner = scores[2:].reshape(len(maps), steps - 1, 2)
    return {
        name: Curves(
            shares,
            np.concatenate([scores[:1], inner_scores[:, 0], scores[1:2]]),
            np.concatenate([scores[1:2], inner_scores[:, 1], scores[:1]]),
        )
        for name, inner_scores in zip(maps, inner, strict=True)
    }


SHIFT = 0.02
"""Distance that an image is moved, as a share of its rows."""
NOISE = 0.02
"""Standard deviation of added noise, of the image's range."""
_FIT_PX, _FIT_ROUNDS, _FIT_FINEST = 5000, 20, 1e-3  # pixels; rounds; least difference that counts
UNEVEN = "one of the maps has a single value in the breast"


def stability(values: Floats, image: Floats, areas: Areas, probe: Probe, seed: int = 0) -> tuple[Figures, Reasons]:
    """Spearman correlation inside the breast of a map with that of the image shifted, made noisy, and mirrored.

    The maps are brought back to the place of the first. Two shifts, along either diagonal, are averaged.
    """
    step = max(1, round(SHIFT * image.shape[0]))
    moves = [(step, step), (step, -step)]
    noise = np.random.default_rng(seed).normal(0, NOISE * float(np.ptp(image)), image.shape)
    changed = [_moved(image, move) for move in moves] + [image + noise, image[:, ::-1]]
    maps = probe.maps(np.stack(changed))
    back = [_moved(moved, (-down, -right)) for moved, (down, right) in zip(maps, moves, strict=False)]
    shifted = [rank_correlation(values, moved, areas.breast) for moved in back]
    correlations = [correlation for correlation in shifted if correlation is not None]
    figures: Figures = {
        "stability_shift": float(np.mean(correlations)) if len(correlations) == len(moves) else None,
        "stability_noise": rank_correlation(values, maps[2], areas.breast),
        "stability_mirror": rank_correlation(values, maps[3][:, ::-1], areas.breast),
    }
    return figures, {name: UNEVEN for name, value in figures.items() if value is None}


def _moved(image: Floats, move: tuple[int, int]) -> Floats:
    """The nearest edge comes in from outside."""
    moved: Floats = shift(image.astype(np.float64), move, order=0, mode="nearest")
    return moved


def background_changes(image: Floats, areas: Areas, probe: Probe) -> tuple[Figures, Reasons]:
    """Measure how far the answer depends on pixels outside the breast.

    ``background_change`` is the share of the scores (0 to 1) that moves to other categories when everything outside
    breast and muscle is black; ``muscle_change`` when moreover the muscle is smooth, so that it is still this muscle
    but no marker lies on it; ``background_logit`` and ``muscle_logit`` are the largest change of a logit, all of them
    centred.
    """
    black = _with_black_outside(image, areas)
    smooth = black.copy()
    if areas.muscle.any():
        smooth[areas.muscle] = _surface(image, areas.muscle)
    unchanged, unlit, plain = probe.logits(np.stack([image, black, smooth]))
    figures: Figures = {}
    figures["background_change"], figures["background_logit"] = change_of_answer(unchanged, unlit)
    figures["muscle_change"], figures["muscle_logit"] = change_of_answer(unlit, plain)
    if areas.muscle.any():
        return figures, {}
    lacking = ("muscle_change", "muscle_logit")
    return {**figures, **dict.fromkeys(lacking)}, dict.fromkeys(lacking, NO_MUSCLE)


def change_of_answer(before: Floats, after: Floats) -> tuple[float, float]:
    """Share of the scores that moves to other categories, and largest change of a logit, between logits (K,)."""
    scores, other = softmax(before), softmax(after)
    level = (after - after.mean()) - (before - before.mean())
    return float(np.abs(other - scores).sum() / 2), float(np.abs(level).max())


def _surface(image: Floats, muscle: Mask) -> Floats:
    """Greys of a muscle without detail: the surface of second order with the least absolute differences from them.

    What lies on less than half of the muscle, a marker say, hardly moves it. One grey would not do: proper networks
    mind a muscle that does not fade as muscles do.
    """
    rows, columns = np.nonzero(muscle)
    greys = image[muscle].astype(np.float64)
    down, right = (place / max(image.shape) for place in (rows, columns))
    terms = np.stack([np.ones_like(down), down, right, down**2, right**2, down * right], axis=1)
    some = slice(None, None, max(1, len(greys) // _FIT_PX))
    weights = np.ones_like(greys[some])
    for _ in range(_FIT_ROUNDS):
        coefficients, *_ = np.linalg.lstsq(terms[some] * weights[:, None], greys[some] * weights, rcond=None)
        weights = 1 / np.sqrt(np.maximum(np.abs(greys[some] - terms[some] @ coefficients), _FIT_FINEST))
    surface: Floats = np.clip(terms @ coefficients, greys.min(), greys.max())
    return surface


def randomised_similarity(
    values: Floats, image: Floats, areas: Areas, probe: Probe, seeds: tuple[int, ...]
) -> float | None:
    """Mean Spearman correlation inside the breast with the maps of copies of the network with random weights.

    A copy whose map has one value in the breast counts 0: nothing is left of the map.
    """
    correlations = [
        rank_correlation(values, probe.random_maps(image[None].astype(np.float32), seed)[0], areas.breast)
        for seed in seeds
    ]
    if np.ptp(values[areas.breast]) == 0:
        return None
    return float(np.mean([correlation or 0.0 for correlation in correlations]))


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
    """Measure in all ways how far the answer depends on pixels outside the breast; see `background_changes`."""
    figures: Figures = {}
    reasons: Reasons = {}
    for changes in (background_changes, marker_changes, position_changes):
        scores, lacking = changes(image, areas, probe)
        figures |= scores
        reasons |= lacking
    return figures, reasons


def marker_changes(image: Floats, areas: Areas, probe: Probe) -> tuple[Figures, Reasons]:
    """Measure how far the answer changes when a mark is put into a corner of an image whose outside is black.

    ``marker_change`` is the share of the scores (0 to 1) that moves to other categories, ``marker_logit`` the largest
    change of a logit, all of them centred: of a bright block and of letters, in each corner that is free, the largest.
    """
    black = _with_black_outside(image, areas)
    marked = [_with(black, mark, corner) for mark in _marks(image.shape[0]) for corner in _free(areas, mark)]
    return _largest_change("marker", black, marked, probe, NO_ROOM)


def _with_black_outside(image: Floats, areas: Areas) -> NDArray[np.float32]:
    black = image.astype(np.float32, copy=True)
    black[areas.outside] = image.min()
    return black


def _largest_change(
    name: str, before: Floats, changed: list[Floats], probe: Probe, reason: str
) -> tuple[Figures, Reasons]:
    """The largest change of the answer from an image to changed ones; None with a reason if there are none."""
    names = (f"{name}_change", f"{name}_logit")
    if not changed:
        return dict.fromkeys(names), dict.fromkeys(names, reason)
    unchanged, *others = probe.logits(np.stack([before, *changed]))
    largest = np.max([change_of_answer(unchanged, other) for other in others], axis=0).tolist()
    return dict(zip(names, largest, strict=True)), {}


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


NO_WAY = "the breast fills its field, so it cannot be moved"
_FARTHEST = 0.12  # share of the rows; predictions of sound networks change with longer moves
_MoveList = list[tuple[int, int]]


def position_changes(image: Floats, areas: Areas, probe: Probe) -> tuple[Figures, Reasons]:
    """Measure how far the answer changes when the breast is moved in its field, in an image whose outside is black.

    ``position_change`` is the share of the scores (0 to 1) that moves to other categories, ``position_logit`` the
    largest change of a logit, all of them centred: of all moves of `_moves`, the largest.
    """
    black = _with_black_outside(image, areas)
    field = probe.field or (0, 0, *image.shape)
    moved = []
    for move in _moves(part(~areas.outside, field)):
        changed = black.copy()
        part(changed, field)[:] = _moved(part(black, field), move)
        moved.append(changed)
    return _largest_change("position", black, moved, probe, NO_WAY)


def _moves(body: Mask) -> _MoveList:
    """Ways to move breast and muscle (H, W), rows and columns: none cuts them off.

    Up and down as far as there is room. Sideways only where they stand clear of both edges, and they stay clear: sound
    networks mind a gap at the chest wall that they have never seen.
    """
    farthest, least = (max(1, round(share * len(body))) for share in (_FARTHEST, SHIFT))
    rows, columns = (np.flatnonzero(body.any(axis=axis)) for axis in (1, 0))
    above, below = int(rows[0]), len(body) - 1 - int(rows[-1])
    left, right = int(columns[0]), body.shape[1] - 1 - int(columns[-1])
    clear = min(left, right) >= least
    steps = [(-above, 0), (below, 0), *([(0, least - left), (0, right - least)] if clear else [])]
    limited = [tuple(int(np.clip(step, -farthest, farthest)) for step in move) for move in steps]
    return [(down, across) for down, across in limited if max(abs(down), abs(across)) >= least]
