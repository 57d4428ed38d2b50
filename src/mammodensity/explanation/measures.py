"""The places where a map may lie: breast, dense tissue, muscle, and everything else.

Scores of a map against the areas of its image, and the maps it is compared with.

References
----------
Spearman correlation of map and image: Lizzi et al., Applied Sciences 2022, 12, 148. Pointing game: Zhang et al.,
Int. J. Comput. Vision 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mammodensity.anatomy.outline import Regions
from mammodensity.anatomy.tissue import ADIPOSE, FIBROGLANDULAR, PECTORAL, TissueMap
from mammodensity.errors import OptionError

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Areas:
    """Masks (H, W) of an image.

    Raises
    ------
    OptionError
        The masks differ in shape, or there is no breast.
    """

    breast: Mask
    """Without muscle."""
    dense: Mask | None
    """Dense tissue within the breast; None where it was not told apart."""
    muscle: Mask

    def __post_init__(self) -> None:
        shapes = {mask.shape for mask in (self.breast, self.dense, self.muscle) if mask is not None}
        if len(shapes) > 1 or self.breast.ndim != 2:
            raise OptionError(f"the masks of an image must have one shape (H, W). Got {sorted(shapes)} instead.")
        if not self.breast.any():
            raise OptionError("the regions hold no breast, so there is nothing to score a map against")

    @property
    def outside(self) -> Mask:
        """Background, markers and labels: neither breast nor muscle."""
        return ~(self.breast | self.muscle)


def areas_of(regions: Areas | Regions | TissueMap | NDArray[np.uint8]) -> Areas:
    """The areas of a label image (0 background, 1 adipose, 2 fibroglandular, 3 muscle), or of what was found in one.

    Raises
    ------
    OptionError
        It is no label image, or holds no breast.
    """
    if isinstance(regions, Areas):
        return regions
    labels = np.asarray(regions.labels if isinstance(regions, (Regions, TissueMap)) else regions)
    if labels.ndim != 2 or not np.isin(labels, (0, ADIPOSE, FIBROGLANDULAR, PECTORAL)).all():
        what = f"values up to {labels.max()}" if labels.ndim == 2 and labels.size else f"shape {labels.shape}"
        raise OptionError(
            "regions must be a label image (H, W) of 0 background, 1 adipose, 2 fibroglandular, 3 muscle. "
            f"Got {what} instead."
        )
    dense = None if isinstance(regions, Regions) else labels == FIBROGLANDULAR
    return Areas(np.isin(labels, (ADIPOSE, FIBROGLANDULAR)), dense, labels == PECTORAL)


BASELINES = {
    "uniform": "the same value everywhere",
    "random": "noise, as smooth as the map",
    "blob": "a bell over the middle of the breast",
    "bright": "the image itself: bright pixels",
}
"""Baselines that every score is compared with."""

EMPTY = "the map is empty"
EVEN = "the map has one value in the whole breast"
NO_DENSE = "there is no dense tissue"
UNKNOWN_DENSE = "dense tissue was not told apart"
NO_MUSCLE = "there is no muscle in the image"

Figures = dict[str, float | None]
Reasons = dict[str, str]
_LEAST_PX = 3  # fewer have no correlation worth the name


def place_scores(values: Floats, image: Floats, areas: Areas) -> tuple[Figures, Reasons]:
    """Measure where a map (H, W) lies, and how it follows the image.

    Shares are of the positive part of the map. ``inside_breast``, ``on_muscle`` and ``outside`` sum to 1.
    ``dense_lift`` is the share inside dense tissue over that of an even map of the breast: 1 is chance.

    Returns
    -------
    The figures, and for each that is None the reason.
    """
    mass = np.maximum(values, 0).astype(np.float64)
    total = float(mass.sum())
    figures: Figures = {}
    reasons: Reasons = {}

    def put(name: str, value: float | None, reason: str = "") -> None:
        figures[name] = value
        if value is None:
            reasons[name] = reason

    def share(mask: Mask) -> float | None:
        return float(mass[mask].sum()) / total if total > 0 else None

    put("inside_breast", share(areas.breast), EMPTY)
    muscle = areas.muscle.any()
    put("on_muscle", share(areas.muscle) if muscle else None, EMPTY if muscle else NO_MUSCLE)
    put("outside", share(areas.outside), EMPTY)
    lacking = UNKNOWN_DENSE if areas.dense is None else NO_DENSE
    dense = areas.dense if areas.dense is not None and areas.dense.any() else None
    put("inside_dense", None if dense is None else share(dense), lacking if dense is None else EMPTY)
    inside = float(mass[areas.breast].sum())
    lift = None
    if dense is not None and inside > 0:
        lift = float(mass[dense].sum()) / inside / (float(dense.sum()) / float(areas.breast.sum()))
    put("dense_lift", lift, lacking if dense is None else "the map is empty inside the breast")
    put("spearman", rank_correlation(values, image, areas.breast), EVEN)
    point = None if dense is None or total <= 0 else float(dense[values == values.max()].mean())
    put("pointing_game", point, lacking if dense is None else EMPTY)
    return figures, reasons


def rank_correlation(first: Floats, second: Floats, mask: Mask) -> float | None:
    """Spearman's rank correlation of two maps within a mask; None where one of them has a single value there."""
    first_values, second_values = first[mask], second[mask]
    if len(first_values) < _LEAST_PX or np.ptp(first_values) == 0 or np.ptp(second_values) == 0:
        return None
    return float(np.corrcoef(_ranks(first_values), _ranks(second_values))[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing their mean rank; importing `scipy.stats` for this takes a second."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def baseline_maps(values: Floats, image: Floats, areas: Areas, seed: int = 0) -> dict[str, Floats]:
    """The maps of `BASELINES` for an image, (H, W) each."""
    noise = np.random.default_rng(seed).standard_normal(values.shape)
    noise = gaussian_filter(noise, smoothness(values))
    return {
        "uniform": np.ones(values.shape),
        "random": noise - noise.min(),
        "blob": _blob(areas.breast),
        "bright": image.astype(np.float64) - float(image.min()),
    }


def smoothness(values: Floats) -> float:
    """Width in pixels of the Gaussian that makes white noise as smooth as a map; 1 where the map is even.

    By the variance of the map over that of its slope, which for such noise is twice the square of the width.
    """
    centred = values.astype(np.float64)
    slopes = [np.diff(centred, axis=axis) for axis in (0, 1)]
    slope = float(np.mean([np.mean(slope_values**2) for slope_values in slopes]))
    if slope == 0:
        return 1.0
    return float(np.clip(np.sqrt(centred.var() / (2 * slope)), 0.5, max(values.shape) / 4))


def _blob(breast: Mask) -> Floats:
    """A bell at the middle of the breast, as wide as the breast is spread."""
    result = np.zeros(breast.shape)
    for axis in np.meshgrid(*(np.arange(size, dtype=np.float64) for size in breast.shape), indexing="ij"):
        inside = axis[breast]
        result = result - ((axis - inside.mean()) / max(float(inside.std()), 1.0)) ** 2 / 2
    blob: Floats = np.exp(result)
    return blob
