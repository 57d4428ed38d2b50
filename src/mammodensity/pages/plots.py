"""The plots of the report, as SVG in data URIs: sharp on paper, and their names cannot clash on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from mammodensity.pages.pictures import data_uri, heat_map, png_bytes
from mammodensity.terms import CATEGORIES
from mammodensity.training.records import EpochFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Blue and orange of Okabe and Ito (2008), told apart by colour-blind readers; in grey the line style tells.
TRAINING_COLOUR, VALIDATION_COLOUR = "#0072B2", "#C24E00"
_INK, _FAINT = "#1d2733", "#8a949e"
_FEW_EPOCHS = 15  # up to here the single epochs are marked


def training_curves(
    histories: Mapping[str, Sequence[EpochFigures]],
    kept: Mapping[str, EpochFigures | None],
    categories: int = len(CATEGORIES),
) -> dict[str, str]:
    """Loss above accuracy by epoch, one picture a network, all on the same scales; none without a history."""
    shown = {network: history for network, history in histories.items() if history}
    every = [figures for history in shown.values() for figures in history]
    losses = (value for figures in every for value in (figures.train_loss, figures.validation_loss))
    highest = _finite_maximum(losses, math.log(categories))
    return {
        network: data_uri(_curves(history, kept.get(network), highest, categories), "image/svg+xml")
        for network, history in shown.items()
    }


def _finite_maximum(values: Iterable[float], default: float) -> float:
    return max((value for value in values if math.isfinite(value)), default=default)


def _curves(history: Sequence[EpochFigures], kept: EpochFigures | None, highest_loss: float, categories: int) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Text stays text (small, sharp); a fixed salt makes the same history the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mammodensity", "font.size": 10}):
        figure = Figure(figsize=(3.6, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        loss, accuracy = figure.subplots(2, 1, sharex=True)
        _panel(loss, history, kept, "loss", math.log(categories))
        _panel(accuracy, history, kept, "accuracy", 1 / categories)
        loss.set_ylim(0, 1.06 * max(highest_loss, math.log(categories)))
        accuracy.set_ylim(0, 1.03)
        accuracy.set_xlabel("epoch")
        accuracy.xaxis.get_major_locator().set_params(integer=True)
        stream = BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    return stream.getvalue()


def _panel(
    axes: Axes, history: Sequence[EpochFigures], kept: EpochFigures | None, quantity: str, chance: float
) -> None:
    epochs = [figures.epoch for figures in history]
    marker = "." if len(epochs) <= _FEW_EPOCHS else ""
    axes.axhline(chance, color=_FAINT, linewidth=1.0, linestyle=":")
    for split, colour, style in (("train", TRAINING_COLOUR, "-"), ("validation", VALIDATION_COLOUR, "--")):
        values = [getattr(figures, f"{split}_{quantity}") for figures in history]
        axes.plot(epochs, values, color=colour, linestyle=style, linewidth=1.5, marker=marker)
    if kept is not None:
        axes.axvline(kept.epoch, color=_INK, linewidth=0.8)
        axes.plot([kept.epoch], [getattr(kept, f"validation_{quantity}")], "o", color=_INK, markersize=5, zorder=5)
    axes.set_ylabel(quantity, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, width=0.8)
    axes.margins(x=0.04)


def colour_scale() -> str:
    """The colours of the maps from 0 to the exam's largest value, as a narrow picture."""
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[np.newaxis].repeat(8, axis=0)
    return data_uri(png_bytes(heat_map(ramp, 1.0)), "image/png")
