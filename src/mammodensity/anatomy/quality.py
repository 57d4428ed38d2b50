"""Images of which no reading should be trusted much: too small, too coarse in grey, saturated, or without contrast.

Nothing here refuses an image; what is found goes with the result as flags.

Is an image like those a network learned from? A few plain measures of the network's input, and how usual they are.

The Mahalanobis distance of ten measures from those of the training images tells film from digital, an inverted or
mirrored image, another crop or another processing; it does not tell everything that can be strange about an image.

References
----------
Mahalanobis 1936; Ledoit and Wolf, J. Multivar. Anal. 2004 (why the covariance is shrunk where images are few).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import CheckpointError
from mammodensity.exam import Flag, Mammogram

LOW_QUALITY = "low-quality"

_LEAST_PX = 96  # along the longer side; below, percent density strays, see docs/measurements.md
_MOST_ASPECT = 5  # tight crops of narrow breasts reach 3
_LEAST_LEVELS = 32  # of the brighter half of the image: 5 bits
_MOST_SATURATED = 0.02  # of the image; muscle and markers alone saturate less
_LEAST_CONTRAST = 0.04  # of full scale, between the 10th and 99th percentile of the brighter part
_SAMPLE = 512  # rows and columns looked at, at most


def quality_flags(mammogram: Mammogram) -> tuple[Flag, ...]:
    """Flag faults of the pixels of a mammogram; empty where there are none."""
    rows, columns = mammogram.pixels.shape
    texts = []
    if max(rows, columns) < _LEAST_PX or max(rows, columns) > _MOST_ASPECT * min(rows, columns):
        texts.append(f"the image has only {rows} x {columns} pixels")
    step = max(1, rows // _SAMPLE, columns // _SAMPLE)
    sample = mammogram.pixels[::step, ::step]
    middle = (int(sample.min()) + int(np.percentile(sample, 99))) / 2
    bright = sample[sample > middle / 2]
    levels = len(np.unique(bright))
    if levels < _LEAST_LEVELS and sample.size > 4 * _LEAST_LEVELS:
        texts.append(f"the breast has only {levels} grey levels")
    top = int(sample.max())
    saturated = float((sample == top).mean()) if top == mammogram.full_scale else 0.0
    if saturated > _MOST_SATURATED:
        texts.append(f"{100 * saturated:.0f} % of the image is saturated")
    low, high = np.percentile(bright, (10, 99)) if bright.size else (0.0, 0.0)
    contrast = float(high - low) / max(top, 1)
    if contrast < _LEAST_CONTRAST:
        texts.append(f"the breast spans only {100 * contrast:.1f} % of the grey range in use")
    return tuple(Flag(LOW_QUALITY, f"{text}, so density may be read wrongly") for text in texts)


Floats = NDArray[np.float64]

_MEASURES = 10
_SHRUNK = 0.1  # share of the covariance given to its diagonal
_BEYOND = 1.5  # times the largest distance of images held out
_LEAST_IMAGES = 20  # below, nothing can be said


@dataclass(frozen=True)
class Familiarity:
    """The usual range of F measures of network inputs, as training images have it."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    """Inverse covariance of the scaled measures, (F, F)."""
    limit: float
    """Distance beyond which an image is unlike the others."""

    def distance(self, image: NDArray[np.floating[Any]]) -> float:
        """Mahalanobis distance of one network input (rows, columns)."""
        return float(_distances(_measures(image)[np.newaxis], self)[0])

    def to_dict(self) -> dict[str, Any]:
        """The values as a dictionary of plain numbers and lists."""
        return {
            "mean": list(self.mean),
            "scale": list(self.scale),
            "precision": [list(row) for row in self.precision],
            "limit": self.limit,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Familiarity:
        """Read what `to_dict` gave.

        Raises
        ------
        CheckpointError
            The values are not of that form.
        """
        try:
            parts = [np.array(values[name]) for name in ("mean", "scale", "precision", "limit")]
            shapes = [part.shape for part in parts]
            numbers = all(part.dtype.kind in "fi" for part in parts)
        except (KeyError, TypeError, ValueError):
            numbers, shapes = False, []
        if not numbers or shapes != [(_MEASURES,), (_MEASURES,), (_MEASURES, _MEASURES), ()] or (parts[1] <= 0).any():
            raise CheckpointError("the network's record of its training images is damaged; restore it or train again")
        mean, scale, precision, limit = (part.tolist() for part in parts)
        return cls(tuple(mean), tuple(scale), tuple(map(tuple, precision)), limit)


def fit_familiarity(training: NDArray[np.floating[Any]], held_out: NDArray[np.floating[Any]]) -> Familiarity | None:
    """Learn what is usual from network inputs (N, rows, columns); the limit comes from others, held out.

    None where there are fewer than 20 training images or none held out.
    """
    if len(training) < _LEAST_IMAGES or not len(held_out):
        return None
    measures = np.stack([_measures(image) for image in training])
    mean, scale = measures.mean(axis=0), measures.std(axis=0) + 1e-6
    covariance = np.cov((measures - mean) / scale, rowvar=False)
    shrunk = (1 - _SHRUNK) * covariance + _SHRUNK * np.diag(np.diag(covariance) + 1e-6)
    precision = np.linalg.inv(shrunk)
    usual = Familiarity(tuple(mean.tolist()), tuple(scale.tolist()), tuple(map(tuple, precision.tolist())), 0.0)
    others = np.stack([_measures(image) for image in held_out])
    limit = _BEYOND * float(max(_distances(others, usual).max(), _distances(measures, usual).max()))
    return Familiarity(usual.mean, usual.scale, usual.precision, limit)


def _distances(measures: Floats, usual: Familiarity) -> Floats:
    away = (measures - np.array(usual.mean)) / np.array(usual.scale)
    squared = np.einsum("nf,fg,ng->n", away, np.array(usual.precision), away)
    result: Floats = np.sqrt(np.maximum(squared, 0))
    return result


def _measures(image: NDArray[np.floating[Any]]) -> Floats:
    """(F,) levels, contrast, fineness and place of the light of one input."""
    values = np.asarray(image, dtype=np.float64)
    levels = np.percentile(values, (2, 25, 50, 75, 98))
    span = max(float(levels[-1] - levels[0]), 1e-6)
    light = np.clip((values - levels[0]) / span, 0, 1)
    rows, columns = light.shape
    total = max(float(light.sum()), 1e-6)
    row = float((light.sum(axis=1) * np.arange(rows)).sum()) / total / rows
    column = float((light.sum(axis=0) * np.arange(columns)).sum()) / total / columns
    fine = float(np.abs(np.diff(light, axis=0)).mean() + np.abs(np.diff(light, axis=1)).mean())
    dark = float((light < 0.05).mean())
    return np.array([*levels, row, column, np.log(fine + 1e-6), dark, light.std()])
