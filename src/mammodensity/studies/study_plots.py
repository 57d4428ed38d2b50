"""Plots of the statistics, as SVG or PNG: for files and for the report. They tell colours apart also in grey."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mammodensity.errors import OptionError
from mammodensity.evaluation.bootstrap import Figure
from mammodensity.studies.drift import Drift
from mammodensity.studies.triage import RejectCurve
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Blue and orange of Okabe and Ito (2008), told apart by colour-blind readers; fills of A to D get darker.
_BLUE, _ORANGE = "#0072B2", "#C24E00"
_INK, _FAINT = "#1d2733", "#8a949e"
_FILLS = ("#e8eff5", "#bcd3e6", "#79a7cd", "#2f6f9f")
_FORMATS = {".svg": "svg", ".png": "png"}


def drift_plot(found: Drift, file_format: str = "svg") -> bytes:
    """Shares of A to D by period as stacked bars, and below them the share of dense exams with its interval."""

    def draw(axes: Sequence[Axes]) -> None:
        place = np.arange(len(found.periods))
        bottom = np.zeros(len(place))
        for category, fill in zip(CATEGORIES, _FILLS, strict=True):
            values = np.array([one.shares[category.value].value for one in found.periods])
            axes[0].bar(
                place, values, 0.8, bottom=bottom, color=fill, edgecolor=_INK, linewidth=0.5, label=category.value
            )
            bottom += values
        axes[0].set_ylabel("share of exams")
        axes[0].legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
        _interval_line(axes[1], place, [one.dense for one in found.periods])
        axes[1].set_ylabel("dense (C, D)")
        step = max(1, -(-len(place) // 16))  # no more names than can be read
        names = [f"{one.period}\nn = {one.n}" for one in found.periods]
        axes[1].set_xticks(place[::step], names[::step], rotation=90 if len(place) > 6 else 0)

    return _picture(draw, 2, (max(4.0, min(12.0, 1.5 + 0.45 * len(found.periods))), 5.0), file_format)


def reject_plot(curve: RejectCurve, file_format: str = "svg") -> bytes:
    """Accuracy and linear kappa against the share abstained on, and below them the errors that remain."""

    def draw(axes: Sequence[Axes]) -> None:
        shares = [point.abstained for point in curve.points]
        axes[0].axhline(curve.area_random, color=_FAINT, linewidth=1.0, linestyle=":")
        axes[0].plot(shares, [point.accuracy for point in curve.points], color=_BLUE, label="accuracy")
        kappas = [point.linear_kappa for point in curve.points]
        axes[0].plot(shares, kappas, color=_ORANGE, linestyle="--", label="linear kappa")
        axes[0].set_ylim(top=1.02)
        axes[0].set_ylabel("of the exams kept")
        for name, colour, style, label in (
            ("wrong", _BLUE, "-", "wrong"),
            ("dense_flips", _ORANGE, "--", "dense or not mistaken"),
            ("two_or_more", _INK, "-.", "by two categories or more"),
        ):
            values = [getattr(point, name) for point in curve.points]
            axes[1].plot(shares, values, color=colour, linestyle=style, label=label)
        axes[1].set_ylim(bottom=0)
        axes[1].set_ylabel("errors that remain")
        axes[1].set_xlabel("share of exams left to a reader, the least sure first")
        for panel in axes:
            panel.legend(frameon=False, fontsize=8)
            panel.set_xlim(0, 1)

    return _picture(draw, 2, (4.6, 5.0), file_format)


def plot_format(path: Path) -> str:
    """The format of a plot by the file's ending.

    Raises
    ------
    OptionError
        It ends neither in .svg nor in .png.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OptionError(f"--plot must name a file that ends in .svg or .png. Got {path.name!r} instead.")
    return _FORMATS[path.suffix.lower()]


def _interval_line(axes: Axes, place: np.ndarray[tuple[int], np.dtype[np.int_]], shares: Sequence[Figure]) -> None:
    values = np.array([one.value for one in shares])
    low, high = (np.array([getattr(one, end) for one in shares]) for end in ("low", "high"))
    axes.errorbar(place, values, [values - low, high - values], color=_ORANGE, marker="o", markersize=4, capsize=3)
    axes.set_ylim(0, 1)


def _picture(draw: Callable[[Sequence[Axes]], None], panels: int, size: tuple[float, float], file_format: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    # Text stays text (small, sharp); a fixed salt makes the same figures the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mammodensity", "font.size": 10}):
        figure = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(panels, 1, sharex=True))
        draw(axes)
        for panel in axes:
            panel.spines[["top", "right"]].set_visible(False)
            panel.spines[["left", "bottom"]].set_color(_FAINT)
            panel.tick_params(colors=_INK, width=0.8)
        figure.supxlabel(RESEARCH_USE_ONLY, fontsize=7, color=_FAINT)
        stream = BytesIO()
        metadata = {"Date": None} if file_format == "svg" else {"Software": None}
        figure.savefig(stream, format=file_format, dpi=150, metadata=metadata)
    return stream.getvalue()
