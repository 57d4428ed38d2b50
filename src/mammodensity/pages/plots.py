"""Plots of training, certainty and drift, as SVG or PNG. Line styles tell lines apart also in grey."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError
from mammodensity.pages.pictures import data_uri
from mammodensity.results.cross_validation import reliability
from mammodensity.studies.drift import Drift
from mammodensity.studies.further import RejectCurve
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY
from mammodensity.training.records import EpochFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and orange of Okabe and Ito (2008), told apart by colour-blind readers; fills of A to D get darker.
_BLUE, _ORANGE = "#0072B2", "#C24E00"
_INK, _FAINT, _BAR = "#1d2733", "#8a949e", "#79a7cd"
_FILLS = ("#e8eff5", "#bcd3e6", "#79a7cd", "#2f6f9f")
_FORMATS = {".svg": "svg", ".png": "png"}
_FEW_EPOCHS = 15  # up to here the single epochs are marked
_MOST_LABELS = 16  # no more names of periods than can be read


def training_curves(
    histories: Mapping[str, Sequence[EpochFigures]],
    kept: Mapping[str, EpochFigures | None],
    categories: int = len(CATEGORIES),
) -> dict[str, str]:
    """Plot loss and accuracy by epoch, one picture for each network with a history, all on the same scales."""
    shown = {network: history for network, history in histories.items() if history}
    epochs = [epoch for history in shown.values() for epoch in history]
    losses = [loss for epoch in epochs for loss in (epoch.train_loss, epoch.validation_loss) if math.isfinite(loss)]
    chance = math.log(categories)
    highest = max([*losses, chance])
    curves = {}
    for network, history in shown.items():
        figure, (loss, accuracy) = _panels((3.6, 4.0))
        _curve(loss, history, kept.get(network), "loss", chance)
        _curve(accuracy, history, kept.get(network), "accuracy", 1 / categories)
        loss.set_ylim(0, 1.06 * highest)
        accuracy.set_ylim(0, 1.03)
        accuracy.set_xlabel("epoch")
        accuracy.locator_params(axis="x", integer=True)
        curves[network] = _svg_uri(figure)
    return curves


def _curve(
    axes: Axes, history: Sequence[EpochFigures], kept: EpochFigures | None, quantity: str, chance: float
) -> None:
    epochs = [figures.epoch for figures in history]
    marker = "." if len(epochs) <= _FEW_EPOCHS else ""
    axes.axhline(chance, color=_FAINT, linewidth=1.0, linestyle=":")
    for split, colour, style in (("train", _BLUE, "-"), ("validation", _ORANGE, "--")):
        values = [getattr(figures, f"{split}_{quantity}") for figures in history]
        axes.plot(epochs, values, color=colour, linestyle=style, linewidth=1.5, marker=marker)
    if kept is not None:
        axes.axvline(kept.epoch, color=_INK, linewidth=0.8)
        axes.plot([kept.epoch], [getattr(kept, f"validation_{quantity}")], "o", color=_INK, markersize=5, zorder=5)
    axes.set_ylabel(quantity, color=_INK)
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
    figure, (above, below) = _panels((3.6, 4.2), height_ratios=[3, 1])
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
    return _svg_uri(figure)


def reject_plot(curve: RejectCurve) -> str:
    """Plot accuracy and linear kappa against the share abstained on, and below them the errors that remain."""
    figure, (above, below) = _panels((4.6, 5.0))
    shares = [point.abstained for point in curve.points]
    above.axhline(curve.area_random, color=_FAINT, linewidth=1.0, linestyle=":")
    for axes, name, colour, style, label in (
        (above, "accuracy", _BLUE, "-", "accuracy"),
        (above, "linear_kappa", _ORANGE, "--", "linear kappa"),
        (below, "wrong", _BLUE, "-", "wrong"),
        (below, "dense_flips", _ORANGE, "--", "dense or not mistaken"),
        (below, "two_or_more", _INK, "-.", "by two categories or more"),
    ):
        values = [getattr(point, name) for point in curve.points]
        axes.plot(shares, values, color=colour, linestyle=style, label=label)
    above.set_ylim(top=1.02)
    above.set_ylabel("of the exams kept")
    below.set_ylim(bottom=0)
    below.set_ylabel("errors that remain")
    below.set_xlabel("share of exams left to a reader, the least certain first")
    for axes in (above, below):
        axes.legend(frameon=False, fontsize=8)
        axes.set_xlim(0, 1)
    return data_uri(_with_note(figure, "svg"), "image/svg+xml")


def drift_plot(drift: Drift, file_format: str = "svg") -> bytes:
    """Plot shares of A to D by period as stacked bars, and below them the share of dense exams with its interval."""
    periods = drift.periods
    figure, (above, below) = _panels((max(4.0, min(12.0, 1.5 + 0.45 * len(periods))), 5.0))
    place, bottom = np.arange(len(periods)), np.zeros(len(periods))
    for category, fill in zip(CATEGORIES, _FILLS, strict=True):
        shares = np.array([period.shares[category.value].value for period in periods])
        above.bar(place, shares, 0.8, bottom=bottom, color=fill, ec=_INK, lw=0.5, label=category.value)
        bottom += shares
    above.set_ylabel("share of exams")
    above.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    dense, low, high = np.array([(period.dense.value, period.dense.low, period.dense.high) for period in periods]).T
    below.errorbar(place, dense, [dense - low, high - dense], color=_ORANGE, marker="o", markersize=4, capsize=3)
    below.set_ylim(0, 1)
    below.set_ylabel("dense (C, D)")
    step = max(1, -(-len(place) // _MOST_LABELS))
    names = [f"{period.period}\nn = {period.n}" for period in periods]
    below.set_xticks(place[::step], names[::step], rotation=90 if len(place) > 6 else 0)
    return _with_note(figure, file_format)


def plot_format(path: Path) -> str:
    """Tell the format of a plot by the file's ending.

    Raises
    ------
    OptionError
        It ends neither in .svg nor in .png.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OptionError(f"--plot must name a file that ends in .svg or .png. Got {path.name!r} instead.")
    return _FORMATS[path.suffix.lower()]


def _panels(size: tuple[float, float], **options: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure of two panels, one above the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(2, 1, sharex=True, **options))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_FAINT)
        axes.tick_params(colors=_INK, width=0.8)
    return figure, panels


def _with_note(figure: Figure, file_format: str) -> bytes:
    """Save a plot that may be shown on its own."""
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=7, color=_FAINT)
    return _saved(figure, file_format)


def _svg_uri(figure: Figure) -> str:
    """Save a plot as a data URI: sharp on paper, and separate from the page's own names."""
    return data_uri(_saved(figure, "svg", transparent=True), "image/svg+xml")


def _saved(figure: Figure, file_format: str, *, transparent: bool = False) -> bytes:
    """Save a plot: text stays text (small, sharp), and a fixed salt makes the same plot the same bytes."""
    from matplotlib import rc_context

    stream = BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {"Software": None}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mammodensity"}):
        figure.savefig(stream, format=file_format, dpi=150, metadata=metadata, transparent=transparent)
    return stream.getvalue()
