"""What becomes of a network's answer and of its map when the image is changed a little, or outside the breast."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import shift
from scipy.special import softmax

from mammodensity.explanation.scoring.areas import Areas, Floats
from mammodensity.explanation.scoring.measures import NO_MUSCLE, Figures, Reasons, rank_correlation
from mammodensity.explanation.scoring.probe import Probe

SHIFT = 0.02
"""Of the rows: how far an image is moved."""
NOISE = 0.02
"""Standard deviation of added noise, of the image's range."""
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
    breast and muscle is black; ``muscle_change`` when moreover the muscle has one grey, its own median, so that it is
    still a muscle but no marker lies on it; ``background_logit`` and ``muscle_logit`` are the largest change of a
    logit, all of them centred.
    """
    black = image.astype(np.float32, copy=True)
    black[areas.outside] = image.min()
    filled = black.copy()
    if areas.muscle.any():
        filled[areas.muscle] = np.median(image[areas.muscle])
    logits = probe.logits(np.stack([image, black, filled]))
    scores = softmax(logits, axis=1)
    level = logits - logits.mean(axis=1, keepdims=True)
    figures: Figures = {
        "background_change": float(np.abs(scores[1] - scores[0]).sum() / 2),
        "background_logit": float(np.abs(level[1] - level[0]).max()),
        "muscle_change": float(np.abs(scores[2] - scores[1]).sum() / 2),
        "muscle_logit": float(np.abs(level[2] - level[1]).max()),
    }
    if areas.muscle.any():
        return figures, {}
    lacking = ("muscle_change", "muscle_logit")
    return {**figures, **dict.fromkeys(lacking)}, dict.fromkeys(lacking, NO_MUSCLE)


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
