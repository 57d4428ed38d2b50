"""Pictures of mammograms with what was found in them: a translucent fill, its contour, and outlines of tissue."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from mammodensity.anatomy.tissue import BACKGROUND, FIBROGLANDULAR, PECTORAL
from mammodensity.exam import Mammogram
from mammodensity.terms import Projection

HANGING_ORDER = (Projection.CC_R, Projection.CC_L, Projection.MLO_R, Projection.MLO_L)
"""The order in which a radiologist hangs an exam: right breast on the left, the chest walls back to back."""
LEAST_PX, MOST_PX = 600, 1400
"""Limits of a picture's longer side: small images are enlarged, large ones reduced."""
FILL_COLOUR, FILL_OPACITY = (255, 140, 0), 0.35
"""The one hue of a map, and its opacity at the end of the scale: tissue stays visible below it."""
LINE_COLOURS = {"evidence": "#ffc23d", "breast": "#e0e0e0", "muscle": "#8fc4ff", "dense": "#8ee36b"}
CONTOUR_SHARE = 0.5
"""The contour encloses what exceeds this share of the exam's scale."""

_CAPTION_COLOUR = "#e0e0e0"
_JPEG_QUALITY = 88
_SMOOTHING = 1 / 350  # of the longer side; about one pixel of the tissue network, whose output has a 2 x 2 pattern
_OUTLINE_SMOOTHING = 1 / 120  # breast and muscle are found on a coarser grid
_BLACK_PERCENTILE, _WHITE_PERCENTILE = 1, 99.9  # of the pixels: a few darker ones are margins, brighter ones markers
_BLACK = 24.0  # of 255: without an outline of the breast, the fill fades out below this grey value
_LINE_TOLERANCE_PX = 0.3

RgbImage = NDArray[np.uint8]
"""(H, W, 3)."""
Contour = NDArray[np.float64]
"""(N, 2) rows and columns of a line, in pixels."""


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


@dataclass(frozen=True, eq=False)
class Evidence:
    """A mammogram with the map and the outlines to draw on it."""

    mammogram: Mammogram
    values: NDArray[np.float32] | None = None
    """(H, W) map at the size of the image; None for the mammogram alone."""
    scale: float = 1.0
    """The end of the exam's scale: the largest map value of the exam, 1 for tissue scores."""
    labels: NDArray[np.uint8] | None = None
    """(H, W) 0 background, 1 adipose, 2 fibroglandular, 3 pectoral muscle; None where no breast was found."""
    outline_dense: bool = False
    """Outline dense tissue, too: for maps that do not show it themselves."""


def view_picture(evidence: Evidence, *, flip: bool = False, longest_px: int = 1200) -> Picture:
    """Make the picture of one view, with its evidence as a translucent fill and a contour.

    The map is smoothed before it is filled and contoured, so that the grid of the network does not show. The fill
    leaves black what is outside the breast; the contour is drawn wherever the map exceeds half of the scale.

    Parameters
    ----------
    flip
        Mirror the view, so that it hangs with the chest wall towards the other breast.
    longest_px
        Longer side of the picture, within `LEAST_PX` and `MOST_PX`.
    """
    factor = min(max(longest_px, LEAST_PX), MOST_PX) / max(evidence.mammogram.pixels.shape)
    layers = _layers(evidence, factor, flip=flip)
    rows, columns = layers.grey.shape
    plain = _encoded(Image.fromarray(layers.grey), "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Picture(
        width=columns,
        height=rows,
        plain=data_uri(plain, "image/jpeg"),
        fill=None if layers.shares is None else _fill(layers.shares),
        lines={name: "".join(_path(line) for line in lines) for name, lines in layers.lines.items()},
    )


def evidence_picture(evidence: Evidence, *, flip: bool = False, longest_px: int | None = None) -> RgbImage:
    """Draw a mammogram with its evidence in one picture.

    The parameters are those of `view_picture`; without ``longest_px`` the picture has the size of the image, or is
    enlarged to `LEAST_PX`.
    """
    mammogram = evidence.mammogram
    factor = longest_px / max(mammogram.pixels.shape) if longest_px else _enlargement(mammogram)
    return _drawn(_layers(evidence, factor, flip=flip))


def side_by_side(evidence: Evidence, *, caption: Sequence[str], line_words: Mapping[str, str]) -> RgbImage:
    """Draw a mammogram and, to its right, its `evidence_picture`, with a caption below.

    Parameters
    ----------
    caption
        Paragraphs below the pictures.
    line_words
        The meaning of each line; those that were drawn follow the caption.
    """
    layers = _layers(evidence, _enlargement(evidence.mammogram))
    seam = np.full((len(layers.grey), max(2, max(layers.grey.shape) // 100), 3), 40, np.uint8)
    picture = np.concatenate([_rgb(layers.grey), seam, _drawn(layers)], axis=1)
    words = {name: text for name, text in line_words.items() if layers.lines.get(name)}
    return np.concatenate([picture, _caption(picture.shape[1], caption, words)])


def iso_contours(values: NDArray[np.float32], level: float) -> list[Contour]:
    """The lines on which a map (H, W) has the value ``level``, closed at the border of the image.

    Empty where the map does not reach the level.
    """
    if not level > 0 or values.max() < level:
        return []
    framed = np.pad(values, 1, constant_values=min(0.0, float(values.min())))  # so that lines close at the border
    rows, columns = values.shape
    return [np.clip(line - 1, 0, (rows - 1, columns - 1)) for line in _level_lines(framed, level)]


def contour_level(scale: float) -> float:
    """The map value at which the contour of an exam with this scale is drawn."""
    return CONTOUR_SHARE * scale


def png_bytes(picture: RgbImage | NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file."""
    return _encoded(Image.fromarray(picture), "PNG", compress_level=2)  # twice as fast as 6, a tenth larger


def data_uri(content: bytes, media_type: str) -> str:
    """A file as the address of itself, so that a page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True, eq=False)
class _Layers:
    """A view at the size of its picture."""

    grey: NDArray[np.uint8]
    shares: NDArray[np.float32] | None
    """Smoothed map as shares of the scale, 0 outside the breast."""
    lines: dict[str, list[Contour]]


def _layers(evidence: Evidence, factor: float, *, flip: bool = False) -> _Layers:
    labels, scale = evidence.labels, evidence.scale
    rows, columns = evidence.mammogram.pixels.shape
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))

    def fitted(image: NDArray[Any], resampling: Image.Resampling = Image.Resampling.BILINEAR) -> NDArray[np.float32]:
        turned = np.ascontiguousarray(image[:, ::-1] if flip else image, np.float32)
        return np.asarray(Image.fromarray(turned).resize(size, resampling, reducing_gap=2.0))

    def smoothed(image: NDArray[Any], share: float = _SMOOTHING) -> NDArray[np.float32]:
        blur = max(share * max(size), 0.6 * factor)
        smooth: NDArray[np.float32] = gaussian_filter(fitted(image), blur, mode="nearest")
        return smooth

    grey = _windowed(fitted(evidence.mammogram.pixels, Image.Resampling.BICUBIC))
    lines: dict[str, list[Contour]] = {}
    if labels is not None:
        for name, mask in (("breast", labels != BACKGROUND), ("muscle", labels == PECTORAL)):
            if mask.any():
                lines[name] = _level_lines(smoothed(mask, _OUTLINE_SMOOTHING), 0.5)
        if evidence.outline_dense and (dense := labels == FIBROGLANDULAR).any():
            lines["dense"] = _level_lines(smoothed(dense), 0.5)
    if evidence.values is None:
        return _Layers(grey, None, lines)
    smooth = smoothed(evidence.values)
    lines["evidence"] = iso_contours(smooth, contour_level(scale))
    breast = grey / _BLACK if labels is None else fitted(labels != BACKGROUND)
    shares = np.clip(smooth / scale, 0, 1) if scale > 0 else np.zeros_like(smooth)
    return _Layers(grey, (shares * np.clip(breast, 0, 1)).astype(np.float32), lines)


def _enlargement(mammogram: Mammogram) -> float:
    longest: int = max(mammogram.pixels.shape)
    return max(1.0, LEAST_PX / longest)


def _rgb(grey: NDArray[np.uint8]) -> RgbImage:
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


def _drawn(layers: _Layers) -> RgbImage:
    """The layers in one picture."""
    opacity = FILL_OPACITY * np.asarray(layers.shares)[..., np.newaxis]
    filled = _rgb(layers.grey) * (1 - opacity) + np.array(FILL_COLOUR) * opacity
    image = Image.fromarray(np.round(filled).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for name, lines in layers.lines.items():
        width = max(1, round(max(image.size) / (400 if name == "evidence" else 800)))
        for line in lines:
            pen.line([(column, row) for row, column in line.tolist()], fill=LINE_COLOURS[name], width=width)
    return np.asarray(image)


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


def _path(contour: Contour) -> str:
    """SVG path data of a contour, without points that a straight line replaces."""
    from matplotlib.path import Path as Line

    line = Line(contour[:, ::-1])
    line.simplify_threshold = _LINE_TOLERANCE_PX
    points = np.asarray(line.cleaned(simplify=True).vertices)[:-1]  # the last one is a stop
    return "M" + "L".join(f"{x + 0.5:.1f} {y + 0.5:.1f}" for x, y in points)


def _caption(columns: int, paragraphs: Sequence[str], line_words: Mapping[str, str]) -> RgbImage:
    """A strip (h, columns, 3) with paragraphs, then a sample of each line with its meaning."""
    size = max(10, columns // 90)
    font, pitch = ImageFont.load_default(size), round(1.4 * size)
    rows = [(row, "") for text in paragraphs for row in wrapped(text, font, columns - size)]
    rows += [(text, LINE_COLOURS[name]) for name, text in line_words.items()]
    strip = Image.new("RGB", (columns, pitch * len(rows) + pitch // 2))
    pen = ImageDraw.Draw(strip)
    for place, (text, colour) in enumerate(rows):
        left, top = size // 2, round(pitch * (place + 0.25))
        if colour:
            pen.line([(left, top + size // 2), (left + 2 * size, top + size // 2)], colour, max(1, size // 6))
        pen.text((left + (round(2.5 * size) if colour else 0), top), text, _CAPTION_COLOUR, font)
    return np.asarray(strip)


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Lines of whole words no wider than asked for, unless one word alone is."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
