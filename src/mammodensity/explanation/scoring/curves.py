"""Deletion and insertion: how the score of a category falls and rises as pixels go and come in the order of a map.

References
----------
Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import softmax

from mammodensity.errors import OptionError
from mammodensity.explanation.scoring.areas import Areas, Floats
from mammodensity.explanation.scoring.probe import Probe

REPLACEMENTS = {
    "median": "each pixel by the median of its own area: breast, muscle, or what lies outside",
    "blur": "the image blurred by a sixteenth of its rows",
}
"""What takes the place of a pixel."""
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
    """What an image (H, W) becomes where its pixels are replaced; see `REPLACEMENTS`.

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
            np.concatenate([scores[:1], one[:, 0], scores[1:2]]),
            np.concatenate([scores[1:2], one[:, 1], scores[:1]]),
        )
        for name, one in zip(maps, inner, strict=True)
    }
