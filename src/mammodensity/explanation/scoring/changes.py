"""What becomes of a network's answer and of its map when the image is changed a little, or outside the breast."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import shift
from scipy.special import softmax

from mammodensity.explanation.scoring.areas import Areas, Floats, Mask
from mammodensity.explanation.scoring.measures import NO_MUSCLE, Figures, Reasons, rank_correlation
from mammodensity.explanation.scoring.probe import Probe

SHIFT = 0.02
"""Of the rows: how far an image is moved."""
NOISE = 0.02
"""Standard deviation of added noise, of the image's range."""
_FIT_PX, _FIT_ROUNDS, _FIT_FINEST = 5000, 20, 1e-3  # pixels that tell; of full scale, what is no difference
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
    back = [_moved(one, (-down, -right)) for one, (down, right) in zip(maps, moves, strict=False)]
    shifted = [rank_correlation(values, one, areas.breast) for one in back]
    known = [one for one in shifted if one is not None]
    figures: Figures = {
        "stability_shift": float(np.mean(known)) if len(known) == len(moves) else None,
        "stability_noise": rank_correlation(values, maps[2], areas.breast),
        "stability_mirror": rank_correlation(values, maps[3][:, ::-1], areas.breast),
    }
    return figures, {name: UNEVEN for name, value in figures.items() if value is None}


def _moved(image: Floats, move: tuple[int, int]) -> Floats:
    """The nearest edge comes in from outside."""
    moved: Floats = shift(image.astype(np.float64), move, order=0, mode="nearest")
    return moved


def background_changes(image: Floats, areas: Areas, probe: Probe) -> tuple[Figures, Reasons]:
    """How far the answer depends on what is no breast.

    ``background_change`` is the share of the scores (0 to 1) that moves to other categories when everything outside
    breast and muscle is black; ``muscle_change`` when moreover the muscle is smooth, so that it is still this muscle
    but no marker lies on it; ``background_logit`` and ``muscle_logit`` are the largest change of a logit, all of them
    centred.
    """
    black = image.astype(np.float32, copy=True)
    black[areas.outside] = image.min()
    smooth = black.copy()
    if areas.muscle.any():
        smooth[areas.muscle] = _surface(image, areas.muscle)
    own, unlit, plain = probe.logits(np.stack([image, black, smooth]))
    figures: Figures = {}
    figures["background_change"], figures["background_logit"] = change_of_answer(own, unlit)
    figures["muscle_change"], figures["muscle_logit"] = change_of_answer(unlit, plain)
    if areas.muscle.any():
        return figures, {}
    lacking = ("muscle_change", "muscle_logit")
    return {**figures, **dict.fromkeys(lacking)}, dict.fromkeys(lacking, NO_MUSCLE)


def change_of_answer(before: Floats, after: Floats) -> tuple[float, float]:
    """From logits (K,) to others: share of the scores that moves to other categories, largest change of a logit."""
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
        found, *_ = np.linalg.lstsq(terms[some] * weights[:, None], greys[some] * weights, rcond=None)
        weights = 1 / np.sqrt(np.maximum(np.abs(greys[some] - terms[some] @ found), _FIT_FINEST))
    surface: Floats = np.clip(terms @ found, greys.min(), greys.max())
    return surface


def randomised_similarity(
    values: Floats, image: Floats, areas: Areas, probe: Probe, seeds: tuple[int, ...]
) -> float | None:
    """Mean Spearman correlation inside the breast with the maps of copies of the network with random weights.

    A copy whose map has one value in the breast counts 0: nothing is left of the map.
    """
    found = [
        rank_correlation(values, probe.random_maps(image[None].astype(np.float32), seed)[0], areas.breast)
        for seed in seeds
    ]
    if np.ptp(values[areas.breast]) == 0:
        return None
    return float(np.mean([one or 0.0 for one in found]))
