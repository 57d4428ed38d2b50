"""The way from a mammogram to a network's input, by a specification stored with it, and the way back for maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.anatomy.field import Box, part
from mammodensity.anatomy.outline import BACKGROUND, BREAST, PECTORAL, Regions, find_regions
from mammodensity.exam import Mammogram
from mammodensity.settings import Field, settings

Side = Annotated[int, Field(ge=16, le=8192)]


@settings
class PreprocessSpec:
    """Settings of the network input, stored with every network; `INFN_PREPROCESS` has those of INFN."""

    rows: Side = 650
    """Height of the result in pixels."""
    columns: Side = 650
    """Width of the result in pixels."""
    interpolation: Literal["area", "nearest"] = "area"
    """``area`` averages the pixels that fall into one, or is bilinear in both directions where a side is enlarged;
    ``nearest`` takes one of them (INFN)."""
    aspect: Literal["squash", "pad"] = "squash"
    """``squash`` stretches to the size (INFN); ``pad`` keeps the aspect ratio and adds black."""
    intensity: Literal["full-scale", "image-range"] = "full-scale"
    """``full-scale`` divides by the largest value of the pixel type; ``image-range`` maps the image's own smallest and
    largest value to 0 and 1."""
    centring: Literal["mean", "standardise", "none"] = "mean"
    """``mean`` subtracts the image's mean (INFN); ``standardise`` also divides by its standard deviation."""
    crop: Literal["none", "breast"] = "none"
    """``breast`` crops to the bounding box of the breast, as INFN's exports are."""
    pectoral: Literal["leave", "fill", "mask"] = "leave"
    """The pectoral muscle in MLO: ``fill`` it with the median grey of the breast, as in INFN's exports, or ``mask`` it
    with black."""
    background: Literal["leave", "mask"] = "leave"
    """``mask`` blackens everything outside the breast, markers and labels included."""
    depth: Literal["full", "8-bit"] = "full"
    """``8-bit`` rounds grey values to 256 levels, as in INFN's exports."""

    @property
    def needs_regions(self) -> bool:
        """True when breast and muscle must be found first."""
        return (self.crop, self.pectoral, self.background) != ("none", "leave", "leave")


INFN_PREPROCESS = PreprocessSpec(interpolation="nearest")
"""Preprocessing of the INFN reference for its exported images, which are already cropped and filled."""

RAW_PREPROCESS = PreprocessSpec(interpolation="nearest", crop="breast", pectoral="fill", depth="8-bit")
"""The same for mammograms from a detector or an archive: cropped and filled as INFN did."""


@dataclass(frozen=True)
class Placement:
    """The part of an image that is used, and its place in the network's input.

    Boxes are first row, first column, height, width.
    """

    source: Box
    """In the image: all of it, or the bounding box of the breast."""
    target: Box
    """In the network's input."""

    def to_image(self, values: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
        """A map (rows, columns) over the network's input, drawn over the image (H, W); 0 where the crop cut."""
        inside = np.ascontiguousarray(part(values, self.target), dtype=np.float32)
        _, _, height, width = self.source
        fitted = np.asarray(Image.fromarray(inside).resize((width, height), Image.Resampling.BILINEAR))
        if (height, width) == shape:
            return fitted
        result = np.zeros(shape, np.float32)
        part(result, self.source)[:] = fitted
        return result

    def from_image(self, values: NDArray[Any], shape: tuple[int, int], *, labels: bool = False) -> NDArray[Any]:
        """A map (H, W) of the image, or a label image, over the network's input of ``shape``; 0 beside the target."""
        inside = np.ascontiguousarray(part(values, self.source))
        _, _, rows, columns = self.target
        way = Image.Resampling.NEAREST if labels else Image.Resampling.BILINEAR
        result = np.zeros(shape, inside.dtype)
        part(result, self.target)[:] = np.asarray(Image.fromarray(inside).resize((columns, rows), way))
        return result


def fitted_box(shape: tuple[int, int], spec: PreprocessSpec) -> Box:
    """Compute the box of the network's input that an image (H, W), cropped or not, is resized to."""
    if spec.aspect == "squash":
        return 0, 0, spec.rows, spec.columns
    scale = min(spec.rows / shape[0], spec.columns / shape[1])
    height, width = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    return (spec.rows - height) // 2, (spec.columns - width) // 2, height, width


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """The input that a network gets for one mammogram."""

    grey: NDArray[np.float32]
    """(rows, columns) 0 to 1, before the mean is subtracted."""
    values: NDArray[np.float32]
    """(rows, columns) as the network takes them."""
    placement: Placement
    """The place of the image in the input."""


def network_input(mammogram: Mammogram, spec: PreprocessSpec, regions: Regions | None = None) -> NetworkInput:
    """Turn a mammogram into network input: muscle and background, crop, size, grey scale, mean.

    Parameters
    ----------
    regions
        Breast and muscle of the mammogram; found here if the spec needs them and they are not given.

    Raises
    ------
    ImageError
        The spec needs breast and muscle, and the image is refused (no breast, inverted, no mammogram).
    """
    if spec.needs_regions and regions is None:
        regions = find_regions(mammogram)
    values, source = visible_part(mammogram, spec, regions)
    placed = Placement(source, fitted_box(source[2:], spec))
    grey = _resized(values, placed, spec)
    return NetworkInput(grey, centred(grey, spec.centring), placed)


def preprocess(mammogram: Mammogram, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Turn a mammogram into the values (rows, columns) float32 that a network takes; see :func:`network_input`."""
    return network_input(mammogram, spec).values


def centred(values: NDArray[np.float32], centring: str) -> NDArray[np.float32]:
    """Network input (rows, columns) from grey values, by the ``centring`` of a ``PreprocessSpec``."""
    if centring == "none":
        return values
    result = values.copy()
    result -= result.mean(dtype=np.float64)
    if centring == "standardise":
        result /= max(float(result.std(dtype=np.float64)), 1e-6)
    return result


def visible_part(
    mammogram: Mammogram, spec: PreprocessSpec, regions: Regions | None
) -> tuple[NDArray[np.float32], Box]:
    """Grey values (H, W) from 0 to 1 with muscle and background as the spec says, and the part that its crop leaves.

    ``regions`` are the mammogram's, needed where ``spec.needs_regions`` says so.
    """
    values: NDArray[np.float32] = mammogram.pixels.astype(np.float32)
    if spec.intensity == "full-scale":
        values /= np.float32(mammogram.full_scale)
    else:
        values = (values - values.min()) / (values.max() - values.min())
    if spec.depth == "8-bit":
        values = (np.rint(values * 255) / np.float32(255)).astype(np.float32, copy=False)
    if regions is not None:
        _apply_regions(values, regions, spec)
    rows, columns = mammogram.pixels.shape
    return values, regions.box if spec.crop == "breast" and regions is not None else (0, 0, rows, columns)


def _apply_regions(values: NDArray[np.float32], regions: Regions, spec: PreprocessSpec) -> None:
    """Fill or mask the muscle, mask the background, in place."""
    labels = regions.labels
    if spec.pectoral != "leave":
        muscle, breast = labels == PECTORAL, labels == BREAST
        if muscle.any():
            # Every fourth pixel of every fourth row: the median of 100,000 values is that of a million.
            step = 4 if values.size > 1_000_000 else 1
            sample = values[::step, ::step][breast[::step, ::step]]
            values[muscle] = np.median(sample) if spec.pectoral == "fill" and sample.size else 0
    if spec.background == "mask":
        values[labels == BACKGROUND] = 0


def resizing_matrices(shape: tuple[int, int], spec: PreprocessSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute two matrices that resize an uncropped image (H, W) as ``preprocess`` does.

    Returns
    -------
    (rows, H) and (columns, W) float32: the first times the image times the second transposed is the resized image.
    """
    row, column, rows, columns = fitted_box(shape, spec)
    resampling = _resampling(shape, (rows, columns), spec)
    matrices = []
    for length, wanted, start, end in (
        (shape[0], spec.rows, row, row + rows),
        (shape[1], spec.columns, column, column + columns),
    ):
        matrix = np.zeros((wanted, length), np.float32)
        identity = Image.fromarray(np.eye(length, dtype=np.float32))
        matrix[start:end] = np.asarray(identity.resize((length, end - start), resampling))
        matrices.append(matrix)
    return matrices[0], matrices[1]


def _resized(values: NDArray[np.float32], place: Placement, spec: PreprocessSpec) -> NDArray[np.float32]:
    height, width = place.source[2:]
    cropped = np.ascontiguousarray(part(values, place.source))
    rows, columns = place.target[2:]
    result = np.zeros((spec.rows, spec.columns), np.float32)
    part(result, place.target)[:] = np.asarray(
        Image.fromarray(cropped).resize((columns, rows), _resampling((height, width), (rows, columns), spec))
    )
    return result


def _resampling(shape: tuple[int, int], wanted: tuple[int, int], spec: PreprocessSpec) -> Image.Resampling:
    if spec.interpolation == "nearest":
        return Image.Resampling.NEAREST
    if wanted[0] > shape[0] or wanted[1] > shape[1]:
        return Image.Resampling.BILINEAR  # nothing to average when the image is enlarged
    return Image.Resampling.BOX
