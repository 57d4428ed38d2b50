"""Pictures of activation maps: heat map, overlay, iso-contour, and the page of a whole exam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mammodensity.exam import Mammogram
from mammodensity.explanation.exam_maps import TISSUE, ActivationMap, ExamMaps
from mammodensity.explanation.scoring.captions import caption, caption_colour
from mammodensity.explanation.scoring.verdicts import Verdict
from mammodensity.terms import RESEARCH_USE_ONLY, Projection

COLOUR_MAP = "inferno"
"""Perceptually even, readable in grey print and for most colour-blind readers."""
CONTOUR_SHARE = 0.5
"""The contour encloses what exceeds this share of the exam's scale."""
HANGING_ORDER = (Projection.CC_R, Projection.CC_L, Projection.MLO_R, Projection.MLO_L)
"""As a radiologist hangs an exam: right breast on the left, the chest walls back to back."""

_CONTOUR_COLOUR = (64, 224, 255)
_OVERLAY_STRENGTH = 0.75
_CAPTION_LETTERS = 42  # of a line below a view of the page

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


def draw_contours(picture: RgbImage | NDArray[np.uint8], contours: Sequence[Contour]) -> RgbImage:
    """A grey or colour picture with the contours on it."""
    image = Image.fromarray(picture).convert("RGB")
    pen = ImageDraw.Draw(image)
    width = max(1, round(max(image.size) / 300))
    for contour in contours:
        pen.line([(float(column), float(row)) for row, column in contour], fill=_CONTOUR_COLOUR, width=width)
    return np.asarray(image)


def contour_level(scale: float) -> float:
    """The map value the contour of an exam with this scale is drawn at."""
    return CONTOUR_SHARE * scale


def contour_picture(one: ActivationMap, scale: float) -> RgbImage:
    """The mammogram with the iso-contour of its map."""
    return draw_contours(grey_picture(one.mammogram), iso_contours(one.values, contour_level(scale)))


def png_bytes(picture: RgbImage | NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=2)  # twice as fast as 6, a tenth larger
    return stream.getvalue()


def exam_page(exam: ExamMaps, title: str, verdicts: Mapping[Projection, Verdict] | None = None) -> bytes:
    """The exam's four views in hanging order, plain above and with maps below, on one colour scale, as a PNG file.

    Below each map is its verdict; without one, that it was not scored.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    shown = [projection for projection in HANGING_ORDER if projection in exam.maps]
    figure = Figure(figsize=(2.9 * len(shown) + 1.2, 8.2), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, projection in enumerate(shown):
        one = exam.maps[projection]
        score = one.scores[one.category.index]
        axes[0, column].imshow(grey_picture(one.mammogram), cmap="gray", interpolation="bilinear")
        axes[0, column].set_title(projection.value, color="white")
        axes[1, column].imshow(overlay(one.mammogram, one.values, exam.scale), interpolation="bilinear")
        for line in iso_contours(one.values, contour_level(exam.scale)):
            axes[1, column].plot(line[:, 1], line[:, 0], color=np.array(_CONTOUR_COLOUR) / 255, linewidth=1.2)
        density = "" if one.percent_density is None else f", {one.percent_density:.0f} % dense"
        axes[1, column].set_title(f"why {one.category}: score {score:.2f}{density}", color="white", fontsize=10)
        verdict = (verdicts or {}).get(projection)
        said = "\n".join(wrap(caption(verdict), _CAPTION_LETTERS))
        colour = np.array(caption_colour(verdict)) / 255
        axes[1, column].set_xlabel(said, color=colour, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=(), yticks=(), frame_on=False)  # not set_axis_off, which leaves no room for the verdict
    scale = ScalarMappable(Normalize(0, exam.scale or 1), colormaps[COLOUR_MAP])
    bar = figure.colorbar(scale, ax=axes, shrink=0.42, anchor=(0, 0.03), pad=0.01)  # beside the lower row
    bar.ax.tick_params(colors="white", labelsize=8)
    tissue = exam.method == TISSUE
    bar.set_label(
        "score of dense tissue" if tissue else f"{exam.method}, one scale for the exam", color="white", fontsize=8
    )
    figure.suptitle(title, color="white", parse_math=False)  # an exam's name may hold a dollar sign
    meaning = "Line: outline of dense tissue." if tissue else "Line: half of the exam's largest value."
    separator = "\n" if len(shown) == 1 else " "  # one view alone makes a narrow page
    figure.supxlabel(f"{meaning}{separator}{RESEARCH_USE_ONLY}", color="#bbbbbb", fontsize=9 if len(shown) > 1 else 7)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _shares(values: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Map values as shares of the scale, 0 to 1."""
    if not scale > 0:
        return np.zeros_like(values)
    shares: NDArray[np.float32] = np.clip(values / np.float32(scale), 0, 1)
    return shares
