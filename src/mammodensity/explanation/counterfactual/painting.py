"""The same view with more or less dense tissue: phantoms rendered anew, real images painted.

Painting moves the border of the dense tissue outwards or inwards. What becomes fat is brought down to the level of the
fat around it; what becomes dense is raised above it by the image's own contrast of dense tissue to fat, unevenly as
lobes are. Fine texture stays as it is, borders are blended. The rim below the skin and the muscle are never painted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from mammodensity.errors import OptionError
from mammodensity.exam import Mammogram
from mammodensity.phantom import PhantomSpec
from mammodensity.phantom.anatomy import draw_anatomy, stream
from mammodensity.phantom.appearance import tissue_labels, with_dense_share
from mammodensity.phantom.exam import trace_breast
from mammodensity.phantom.imaging import expose, present
from mammodensity.phantom.projection import PHANTOM_RULE, Paths
from mammodensity.terms import Projection
from mammodensity.tissue.maps import ADIPOSE, FIBROGLANDULAR

LONGER_SIDE_PX = 768
"""Real images are reduced to this before they are painted: networks see less."""

_RIM, _BLEND, _FINE, _SLOW, _LOBES = 0.03, 0.01, 0.01, 0.04, 0.012  # of the longer side
_BRIGHTER = 80  # percentile of the contrast in dense tissue
_UNEVEN = 0.35
_LEAST_COVER = 1e-3

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Step:
    """A view with a certain amount of dense tissue."""

    mammogram: Mammogram
    labels: Labels
    """(H, W): 0 background, 1 adipose, 2 fibroglandular, 3 muscle."""
    percent_density: float
    """Dense area per breast area without muscle, per cent, of these labels."""


def percent_density(labels: Labels) -> float:
    """Dense area per breast area without muscle, per cent.

    Raises
    ------
    OptionError
        There is no breast.
    """
    dense, fat = (int(np.count_nonzero(labels == value)) for value in (FIBROGLANDULAR, ADIPOSE))
    if dense + fat == 0:
        raise OptionError("the labels hold no breast, so dense tissue cannot be added or removed")
    return 100 * dense / (dense + fat)


def reduced_view(mammogram: Mammogram, labels: Labels) -> tuple[Mammogram, Labels]:
    """Image and labels with the longer side at most `LONGER_SIDE_PX`."""
    rows, columns = labels.shape
    factor = min(1.0, LONGER_SIDE_PX / max(rows, columns))
    size = (max(16, round(columns * factor)), max(16, round(rows * factor)))
    grey = np.asarray(Image.fromarray(mammogram.pixels.astype(np.float32)).resize(size, Image.Resampling.BOX))
    pixels: Any = np.rint(grey).astype(mammogram.pixels.dtype)
    small = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    spacing = None if mammogram.spacing_mm is None else mammogram.spacing_mm / factor
    return replace(mammogram, pixels=pixels, spacing_mm=spacing), small


def paint(mammogram: Mammogram, labels: Labels, percent: float) -> Step:
    """The view with another amount of dense tissue, as far as the breast within its rim allows.

    Raises
    ------
    OptionError
        ``percent`` is not 0 to 100, or there is no breast.
    """
    if not 0 <= percent <= 100:
        raise OptionError(f"percent density must be 0 to 100. Got {percent} instead.")
    before = labels == FIBROGLANDULAR
    breast = before | (labels == ADIPOSE)
    percent_density(labels)  # there is a breast
    after = _grown(before, breast, round(percent / 100 * np.count_nonzero(breast)))
    grey = mammogram.pixels.astype(np.float32)
    fat, contrast = _fat_and_contrast(grey, before, breast)
    level = _average(grey, breast, _FINE * max(labels.shape))
    longer = max(labels.shape)
    change = gaussian_filter(after.astype(np.float32), _BLEND * longer)
    change -= gaussian_filter(before.astype(np.float32), _BLEND * longer)
    change *= breast
    lobes = gaussian_filter(np.random.default_rng(0).standard_normal(grey.shape), _LOBES * longer)
    uneven = np.clip(1 + _UNEVEN * lobes / lobes.std(), 0, 2)
    rise, fall = np.clip(fat + contrast * uneven - level, 0, 2 * contrast), np.maximum(level - fat, 0)
    painted = grey + np.maximum(change, 0) * rise - np.maximum(-change, 0) * fall
    top = float(grey[breast].max())
    painted = np.where(breast, np.clip(painted, float(grey.min()), max(top, float(np.median(grey)))), grey)
    new = np.where(breast, np.where(after, FIBROGLANDULAR, ADIPOSE), labels).astype(np.uint8)
    pixels: Any = np.rint(painted).astype(mammogram.pixels.dtype)
    return Step(replace(mammogram, pixels=pixels), new, percent_density(new))


def _grown(dense: NDArray[np.bool_], breast: NDArray[np.bool_], wanted: int) -> NDArray[np.bool_]:
    """Dense tissue of so many pixels: its border moved; without any, it grows from the middle of the breast."""
    depth = distance_transform_edt(np.pad(breast, 1))[1:-1, 1:-1]
    inner = breast & (depth > _RIM * max(breast.shape))
    seed = dense if dense.any() else depth >= depth.max()
    order = distance_transform_edt(~seed) - distance_transform_edt(seed)
    order = np.where(dense | inner, order, np.inf)
    wanted = min(wanted, int(np.isfinite(order).sum()))
    grown = np.zeros(dense.size, bool)
    grown[np.argsort(order, axis=None, kind="stable")[:wanted]] = True
    return grown.reshape(dense.shape)


def _fat_and_contrast(grey: Floats, dense: NDArray[np.bool_], breast: NDArray[np.bool_]) -> tuple[Floats, float]:
    """The level of fat at each place, and how far dense tissue stands above it.

    That is taken from its brighter part: what is outlined as dense holds fat between strands.
    """
    fat = breast & ~dense
    low, high = (float(one) for one in np.percentile(grey[breast], (25, 99)))
    plain = (high - low) / 2  # where the image does not tell
    if not fat.any():
        return np.full(grey.shape, low, np.float32), plain
    level = _average(grey, fat, _SLOW * max(grey.shape))
    if not dense.any():
        return level, plain
    return level, max(0.0, float(np.percentile((grey - level)[dense], _BRIGHTER)))


def _average(grey: Floats, mask: NDArray[np.bool_], sigma: float) -> Floats:
    """The image within a mask, smoothed, and carried on beyond it."""
    weight = mask.astype(np.float32)
    cover = gaussian_filter(weight, sigma)
    filled: Floats = gaussian_filter(grey * weight, sigma) / np.maximum(cover, 1e-6)
    return np.where(cover > _LEAST_COVER, filled, np.median(grey[mask]))


@dataclass(frozen=True, eq=False)
class PhantomBreasts:
    """The traced views of one phantom exam, ready to be rendered with other amounts of dense tissue."""

    spec: PhantomSpec
    index: int
    paths: Mapping[Projection, Paths]

    @classmethod
    def trace(cls, spec: PhantomSpec, index: int) -> PhantomBreasts:
        """Trace both breasts of exam ``index``."""
        found = {}
        for side in "RL":
            for position, paths in trace_breast(spec, index, side).items():
                found[Projection(f"{position}_{side}")] = paths
        return cls(spec, index, {projection: found[projection] for projection in Projection})

    def render(self, projection: Projection, percent: float | None = None) -> Step:
        """A view with its own amount of dense tissue, or near another; noise and processing are always the same."""
        paths = self.paths[projection]
        if percent is not None:
            paths = with_dense_share(paths, percent / 100, PHANTOM_RULE)
        processing = draw_anatomy(self.spec.seed, self.index, self.spec.mix).processing
        rng = stream(self.spec.seed, self.index, "counterfactual", projection.value)
        image = present(expose(paths, processing, rng), paths, processing, self.spec.bits)
        labels = tissue_labels(paths, PHANTOM_RULE)
        flip = slice(None, None, -1 if projection.laterality == "R" else 1)
        turned = np.ascontiguousarray(labels[:, flip])
        mammogram = Mammogram(np.ascontiguousarray(image[:, flip]), projection, self.spec.spacing_mm)
        return Step(mammogram, turned, percent_density(turned))
