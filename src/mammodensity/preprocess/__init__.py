"""From a mammogram to the network's input: one code path for training, prediction and explanation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.errors import OptionError
from mammodensity.exam import Mammogram

__all__ = ["ORIGIN_PREPROCESS", "PreprocessSpec", "fitted_box", "preprocess"]

_CHOICES = {
    "interpolation": ("area", "nearest"),
    "aspect": ("squash", "pad"),
    "intensity": ("full-scale", "image-range"),
    "centring": ("mean", "standardise", "none"),
}


@dataclass(frozen=True)
class PreprocessSpec:
    """How pixels become network input; stored with every network. ``ORIGIN_PREPROCESS`` is the origin's choice."""

    rows: int = 650
    """Height of the result in pixels."""
    columns: int = 650
    """Width of the result in pixels."""
    interpolation: str = "area"
    """``"area"`` averages what falls into a pixel; ``"nearest"`` picks one, as the origin does."""
    aspect: str = "squash"
    """``"squash"`` stretches to the size, as the origin does; ``"pad"`` keeps the aspect and adds black."""
    intensity: str = "full-scale"
    """``"full-scale"`` divides by the largest value the pixel type holds; ``"image-range"`` maps the image's own
    smallest and largest value to 0 and 1."""
    centring: str = "mean"
    """``"mean"`` subtracts the image's own mean, as the origin does; ``"standardise"`` also divides by its standard
    deviation; ``"none"`` leaves the values."""

    def __post_init__(self) -> None:
        if not 16 <= self.rows <= 8192 or not 16 <= self.columns <= 8192:
            raise OptionError(f"image size must be 16 to 8192 pixels a side. Got {self.rows} x {self.columns} instead.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"{name} must be one of {', '.join(choices)}. Got {getattr(self, name)!r} instead.")


ORIGIN_PREPROCESS = PreprocessSpec(interpolation="nearest")


def fitted_box(shape: tuple[int, int], spec: PreprocessSpec) -> tuple[int, int, int, int]:
    """Where an image of ``shape`` (H, W) lands in the network's input: first row, first column, height, width."""
    if spec.aspect == "squash":
        return 0, 0, spec.rows, spec.columns
    scale = min(spec.rows / shape[0], spec.columns / shape[1])
    height, width = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    return (spec.rows - height) // 2, (spec.columns - width) // 2, height, width


def preprocess(mammogram: Mammogram, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Turn a mammogram into network input.

    Returns
    -------
    (rows, columns) float32: resized, scaled to 0..1, then centred as the spec says.
    """
    values = mammogram.pixels.astype(np.float32)
    if spec.intensity == "full-scale":
        values /= mammogram.full_scale
    else:
        values = (values - values.min()) / (values.max() - values.min())
    top, left, height, width = fitted_box(values.shape, spec)
    resampling = Image.Resampling.NEAREST if spec.interpolation == "nearest" else Image.Resampling.BOX
    if spec.interpolation == "area" and (height > values.shape[0] or width > values.shape[1]):
        resampling = Image.Resampling.BILINEAR  # nothing to average when the image is enlarged
    resized = np.asarray(Image.fromarray(values).resize((width, height), resampling))
    result = np.zeros((spec.rows, spec.columns), np.float32)
    result[top : top + height, left : left + width] = resized
    if spec.centring != "none":
        result -= result.mean(dtype=np.float64)
    if spec.centring == "standardise":
        result /= max(float(result.std(dtype=np.float64)), 1e-6)
    return result
