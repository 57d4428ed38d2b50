"""Pictures of activation maps: heat map, overlay, iso-contour, outlines of tissue, original and map side by side."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from mammodensity.anatomy.tissue import ADIPOSE, BACKGROUND, FIBROGLANDULAR, PECTORAL
from mammodensity.exam import Mammogram
from mammodensity.explanation.maps import ActivationMap
from mammodensity.terms import Projection

COLOUR_MAP = "inferno"
"""Perceptually even, readable in grey print and for most colour-blind readers."""
CONTOUR_SHARE = 0.5
"""The contour encloses what exceeds this share of the exam's scale."""
HANGING_ORDER = (Projection.CC_R, Projection.CC_L, Projection.MLO_R, Projection.MLO_L)
"""As a radiologist hangs an exam: right breast on the left, the chest walls back to back."""

CONTOUR_COLOUR = (64, 224, 255)
OUTLINE_COLOURS = {"breast": (235, 235, 235), "muscle": (255, 150, 200), "dense": (150, 245, 110)}
"""Of what was found in the image; muscle is that of the chest wall."""
_OVERLAY_STRENGTH = 0.75
_CONTOUR_WIDTH, _OUTLINE_WIDTH, _SEAM_WIDTH = 1 / 300, 1 / 700, 1 / 100  # of the longer side

RgbImage = NDArray[np.uint8]
"""(H, W, 3)."""
Contour = NDArray[np.float64]
"""(N, 2) rows and columns of a line, in pixels."""


def grey_picture(mammogram: Mammogram) -> NDArray[np.uint8]:
    """The mammogram as 8-bit grey (H, W), its own smallest to largest value."""
    values = mammogram.pixels.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    return np.round((values - low) * (255 / (high - low))).astype(np.uint8)


def heat_map(values: NDArray[np.float32], scale: float) -> RgbImage:
    """Colours of a map (H, W) from 0 to ``scale``."""
    from matplotlib import colormaps

    colours: RgbImage = colormaps[COLOUR_MAP](_shares(values, scale), bytes=True)[..., :3]
    return colours


def overlay(mammogram: Mammogram, values: NDArray[np.float32], scale: float) -> RgbImage:
    """The map over the mammogram; where the map is zero the mammogram is left as it is."""
    grey = np.repeat(grey_picture(mammogram)[..., np.newaxis], 3, axis=2)
    opacity = _OVERLAY_STRENGTH * _shares(values, scale)[..., np.newaxis]
    return np.round(grey * (1 - opacity) + heat_map(values, scale) * opacity).astype(np.uint8)


def iso_contours(values: NDArray[np.float32], level: float) -> list[Contour]:
    """The lines on which a map (H, W) has the value ``level``; closed at the border of the image.

    Taken from the map itself, not from a picture of it. Empty where the map does not reach the level.
    """
    from contourpy import contour_generator

    if not level > 0 or values.max() < level:
        return []
    framed = np.pad(values, 1, constant_values=min(0.0, float(values.min())))  # so that lines close at the border
    lines = contour_generator(z=framed).lines(level)
    rows, columns = values.shape
    return [np.clip(np.asarray(line)[:, ::-1] - 1, 0, (rows - 1, columns - 1)) for line in lines]


def tissue_outlines(labels: NDArray[np.uint8], *, dense: bool = True) -> dict[str, list[Contour]]:
    """The borders of breast, muscle and, if wanted, dense tissue of a label image (H, W); open where the image ends."""
    from contourpy import contour_generator

    masks = {
        "breast": np.isin(labels, (ADIPOSE, FIBROGLANDULAR)),
        "muscle": labels == PECTORAL,
        "dense": (labels == FIBROGLANDULAR) & dense,
    }
    return {
        name: [np.asarray(line)[:, ::-1] for line in contour_generator(z=mask.astype(np.float32)).lines(0.5)]
        for name, mask in masks.items()
        if mask.any()
    }


def draw_contours(
    picture: RgbImage | NDArray[np.uint8],
    contours: Sequence[Contour],
    colour: tuple[int, int, int] = CONTOUR_COLOUR,
    width: float = _CONTOUR_WIDTH,
) -> RgbImage:
    """A grey or colour picture with the contours on it; ``width`` is a share of its longer side."""
    image = Image.fromarray(picture).convert("RGB")
    pen = ImageDraw.Draw(image)
    wide = max(1, round(max(image.size) * width))
    for contour in contours:
        pen.line([(float(column), float(row)) for row, column in contour], fill=colour, width=wide)
    return np.asarray(image)


def contour_level(scale: float) -> float:
    """The map value the contour of an exam with this scale is drawn at."""
    return CONTOUR_SHARE * scale


def contour_picture(one: ActivationMap, scale: float) -> RgbImage:
    """The mammogram with the iso-contour of its map."""
    return draw_contours(grey_picture(one.mammogram), iso_contours(one.values, contour_level(scale)))


def side_by_side(one: ActivationMap, scale: float, labels: NDArray[np.uint8] | None, *, dense: bool = True) -> RgbImage:
    """The mammogram and, to its right, the same with map, contour and outlines of tissue, each of its full size.

    Parameters
    ----------
    labels
        (H, W) as `tissue_outlines` takes them; None where no breast was found.
    dense
        Outline dense tissue, too; the default model's map is outlined already.
    """
    mapped = overlay(one.mammogram, one.values, scale)
    for name, lines in ({} if labels is None else tissue_outlines(labels, dense=dense)).items():
        mapped = draw_contours(mapped, lines, OUTLINE_COLOURS[name], _OUTLINE_WIDTH)
    mapped = draw_contours(mapped, iso_contours(one.values, contour_level(scale)))
    plain = np.repeat(grey_picture(one.mammogram)[..., np.newaxis], 3, axis=2)
    rows, columns = one.values.shape
    seam = np.full((rows, max(2, round(max(rows, columns) * _SEAM_WIDTH)), 3), 40, np.uint8)
    return np.concatenate([plain, seam, mapped], axis=1)


def png_bytes(picture: RgbImage | NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=2)  # twice as fast as 6, a tenth larger
    return stream.getvalue()


def resized(one: ActivationMap, longer_side: int) -> ActivationMap:
    """Image and map at the size of a page, before colours are mixed: a hundredth of the work at full size."""
    rows, columns = one.mammogram.pixels.shape
    factor = longer_side / max(rows, columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    grey = Image.fromarray(grey_picture(one.mammogram)).resize(size, Image.Resampling.LANCZOS)
    values = Image.fromarray(one.values).resize(size, Image.Resampling.BILINEAR)
    mammogram = replace(one.mammogram, pixels=np.asarray(grey))
    return replace(one, mammogram=mammogram, values=np.asarray(values))


def _shares(values: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Map values as shares of the scale, 0 to 1."""
    if not scale > 0:
        return np.zeros_like(values)
    shares: NDArray[np.float32] = np.clip(values / np.float32(scale), 0, 1)
    return shares


LEAST_PX, MOST_PX = 600, 1400
"""Limits of a picture's longer side: small images are enlarged, large ones reduced."""
FILL_COLOUR, FILL_OPACITY = (255, 140, 0), 0.35
"""The one hue of a map, and its opacity at the end of the scale: tissue stays visible below it."""
LINE_COLOURS = {"evidence": "#ffc23d", "breast": "#e0e0e0", "muscle": "#8fc4ff", "dense": "#8ee36b"}

_JPEG_QUALITY = 88
_SMOOTHING = 1 / 350  # of the longer side; about one pixel of the tissue network, whose output has a 2 x 2 pattern
_BLACK_PERCENTILE, _WHITE_PERCENTILE = 1, 99.9  # of the pixels: a few darker ones are margins, brighter ones markers
_BLACK = 24.0  # of 255: without an outline of the breast, the fill fades out below this grey value
_LINE_TOLERANCE_PX = 0.3


@dataclass(frozen=True)
class Picture:
    """One view for a page: the mammogram, and the evidence in layers above it, which a page can fade or hide."""

    width: int
    height: int
    plain: str
    """The mammogram as a JPEG data URI."""
    fill: str | None = None
    """The map as a transparent PNG data URI in one hue; None without a map."""
    lines: Mapping[str, str] = field(default_factory=dict)
    """SVG path data by name, in pixels of the picture: ``evidence``, ``breast``, ``muscle``, ``dense``."""


def view_picture(
    mammogram: Mammogram,
    *,
    values: NDArray[np.float32] | None = None,
    scale: float = 1.0,
    labels: NDArray[np.uint8] | None = None,
    outline_dense: bool = False,
    flip: bool = False,
    longest_px: int = 1200,
) -> Picture:
    """Make the picture of one view, with its evidence as a translucent fill and a contour.

    The map is smoothed before it is filled and contoured, so that the grid of the network does not show. The fill
    leaves black what is outside the breast; the contour is drawn wherever the map exceeds half of the scale.

    Parameters
    ----------
    values
        (H, W) map at the size of the image; None for the mammogram alone.
    scale
        The end of the exam's scale: the largest map value of the exam, 1 for tissue scores.
    labels
        (H, W) 0 background, 1 adipose, 2 fibroglandular, 3 pectoral muscle; None where no breast was found.
    outline_dense
        Outline dense tissue, too: for maps that do not show it themselves.
    flip
        Mirror the view, so that it hangs with the chest wall towards the other breast.
    longest_px
        Longer side of the picture, within `LEAST_PX` and `MOST_PX`.
    """
    rows, columns = mammogram.pixels.shape
    factor = min(max(longest_px, LEAST_PX), MOST_PX) / max(rows, columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))

    def fitted(image: NDArray[Any], resampling: Image.Resampling) -> NDArray[np.float32]:
        turned = np.ascontiguousarray(image[:, ::-1] if flip else image, np.float32)
        return np.asarray(Image.fromarray(turned).resize(size, resampling))

    def smoothed(image: NDArray[Any]) -> NDArray[np.float32]:
        smooth: NDArray[np.float32] = gaussian_filter(
            fitted(image, Image.Resampling.BILINEAR), max(_SMOOTHING * max(size), 0.6 * factor), mode="nearest"
        )
        return smooth

    grey = _windowed(fitted(mammogram.pixels, Image.Resampling.BICUBIC))
    plain = data_uri(_encoded(Image.fromarray(grey), "JPEG", quality=_JPEG_QUALITY, optimize=True), "image/jpeg")
    lines: dict[str, str] = {}
    if labels is not None:
        masks = {"breast": labels != BACKGROUND, "muscle": labels == PECTORAL}
        if outline_dense:
            masks["dense"] = labels == FIBROGLANDULAR
        lines = {name: _path(_level_lines(smoothed(mask), 0.5)) for name, mask in masks.items() if mask.any()}
    if values is None:
        return Picture(*size, plain, lines=lines)
    smooth = smoothed(values)
    lines["evidence"] = _path(iso_contours(smooth, contour_level(scale)))
    breast = grey / _BLACK if labels is None else fitted(labels != BACKGROUND, Image.Resampling.BILINEAR)
    inside = np.clip(breast, 0, 1).astype(np.float32)
    return Picture(*size, plain, _fill(_shares(smooth, scale) * inside), lines)


def data_uri(content: bytes, media_type: str) -> str:
    """A file as the address of itself, so that a page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _windowed(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8-bit grey from the background to the brightest tissue."""
    low, high = np.percentile(image, (_BLACK_PERCENTILE, _WHITE_PERCENTILE))
    shares = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    grey: NDArray[np.uint8] = np.round(255 * shares).astype(np.uint8)
    return grey


def _fill(shares: NDArray[np.float32]) -> str:
    """A transparent picture of one hue: each palette entry is a step of opacity."""
    steps = np.round(64 * shares).astype(np.uint8)
    image = Image.fromarray(steps).convert("P")
    palette = [(*FILL_COLOUR, round(255 * FILL_OPACITY * step / 64)) for step in range(65)]
    image.putpalette(bytes(np.array(palette, np.uint8)), "RGBA")
    return data_uri(_encoded(image, "PNG", optimize=True), "image/png")


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _level_lines(values: NDArray[np.float32], level: float) -> list[Contour]:
    """The lines on which an image (H, W) has the value ``level``, open where the image ends."""
    from contourpy import contour_generator

    return [np.asarray(line)[:, ::-1] for line in contour_generator(z=values).lines(level)]


def _path(contours: Iterable[Contour]) -> str:
    """SVG path data of contours, without points that a straight line replaces."""
    from matplotlib.path import Path as Line

    parts = []
    for contour in contours:
        line = Line(contour[:, ::-1])
        line.simplify_threshold = _LINE_TOLERANCE_PX
        points = np.asarray(line.cleaned(simplify=True).vertices)[:-1]  # the last one is a stop
        parts.append("M" + "L".join(f"{x + 0.5:.1f} {y + 0.5:.1f}" for x, y in points))
    return "".join(parts)
