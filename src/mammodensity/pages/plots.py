"""The plots of the report, as SVG in data URIs: sharp on paper, and separate from the page's own names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mammodensity.pages.pictures import data_uri
from mammodensity.results.cross_validation import reliability
from mammodensity.terms import CATEGORIES
from mammodensity.training.records import EpochFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and orange of Okabe and Ito (2008), told apart by colour-blind readers; in grey the line style tells.
TRAINING_COLOUR, VALIDATION_COLOUR = "#0072B2", "#C24E00"
_INK, _FAINT, _BAR = "#1d2733", "#8a949e", "#79a7cd"
_FEW_EPOCHS = 15  # up to here the single epochs are marked


def training_curves(
    histories: Mapping[str, Sequence[EpochFigures]],
    kept: Mapping[str, EpochFigures | None],
    categories: int = len(CATEGORIES),
) -> dict[str, str]:
    """Plot loss and accuracy by epoch, one picture for each network with a history, all on the same scales."""
    shown = {network: history for network, history in histories.items() if history}
    every = [figures for history in shown.values() for figures in history]
    losses = (value for figures in every for value in (figures.train_loss, figures.validation_loss))
    highest = _finite_maximum(losses, math.log(categories))
    return {network: _curves(history, kept.get(network), highest, categories) for network, history in shown.items()}


def _finite_maximum(values: Iterable[float], default: float) -> float:
    return max((value for value in values if math.isfinite(value)), default=default)


def _curves(history: Sequence[EpochFigures], kept: EpochFigures | None, highest_loss: float, categories: int) -> str:
    figure = _figure((3.6, 4.0))
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    _panel(loss, history, kept, "loss", math.log(categories))
    _panel(accuracy, history, kept, "accuracy", 1 / categories)
    loss.set_ylim(0, 1.06 * max(highest_loss, math.log(categories)))
    accuracy.set_ylim(0, 1.03)
    accuracy.set_xlabel("epoch")
    accuracy.xaxis.get_major_locator().set_params(integer=True)
    return _svg_uri(figure)


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
    _plain(axes)
    axes.margins(x=0.04)


def reliability_diagram(scores: NDArray[np.float64], reference: NDArray[np.intp]) -> str:
    """Plot the share of right categories against the highest score, above the number of exams.

    Parameters
    ----------
    scores
        (N, 4) of each exam.
    reference
        (N,) positions of the reference categories.
    """
    bins = reliability(scores, reference)
    figure = _figure((3.6, 4.2))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    edges = np.linspace(0, 1, len(bins.count) + 1)
    above.bar(edges[:-1], [share or 0.0 for share in bins.accuracy], 0.1, align="edge", color=_BAR, ec=_INK, lw=0.5)
    above.plot([0, 1], [0, 1], color=_INK, linewidth=1.0, linestyle="--")
    pairs = zip(bins.confidence, bins.accuracy, strict=True)
    points = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
    above.plot(*points.T, "o", color=_INK, markersize=4)
    above.set_ylabel("share of right categories")
    above.set_ylim(0, 1.02)
    below.bar(edges[:-1], bins.count, 0.1, align="edge", color=_FAINT)
    below.set_ylabel("exams")
    below.set_xlabel("highest score of the exam")
    below.set_xlim(0, 1)
    for axes in (above, below):
        _plain(axes)
    return _svg_uri(figure)


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, width=0.8)


def _svg_uri(figure: Figure) -> str:
    """The figure as a data URI: text stays text (small, sharp); a fixed salt makes the same figure the same bytes."""
    from matplotlib import rc_context

    stream = BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mammodensity"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    return data_uri(stream.getvalue(), "image/svg+xml")
