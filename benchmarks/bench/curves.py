"""The picture of the scaling curves: time an image or exam, and peak memory, against size, batch, exams and cores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan import Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXES = {
    "scaling-size": "rows and columns",
    "scaling-batch": "images a batch",
    "scaling-exams": "exams in the folder",
    "scaling-cores": "cores",
}
_STYLES = {"training": ("C0", "o"), "inference": ("C1", "s"), "`predict`": ("C2", "^")}


def draw_curves(pairs: list[Pair], entries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write a picture of the pairs that have curves: time above, memory below, lines with their spread."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [pair for pair in pairs if pair.name in _AXES]
    figure, grid = plt.subplots(2, len(shown), figsize=(11, 5), layout="constrained", squeeze=False, sharey="row")
    for column, pair in enumerate(shown):
        rows = entries[pair.name]["figures"]
        _draw(grid[0, column], pair, rows, "wall_s")
        _draw(grid[1, column], pair, rows, "peak_mb")
        grid[1, column].set_xlabel(_AXES[pair.name])
    grid[0, 0].set_ylabel("seconds an image or exam")
    grid[1, 0].set_ylabel("peak memory, MB")
    handles = {line.get_label(): line for axes in grid[0] for line in axes.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw(axes: Axes, pair: Pair, rows: list[Mapping[str, Any]], name: str) -> None:
    from matplotlib.ticker import LogLocator

    for curve, (colour, marker) in _STYLES.items():
        points = [
            (program.place, row[name], program.images if name == "wall_s" else 1)
            for program, row in zip(pair.programs, rows, strict=True)
            if program.curve == curve
        ]
        if points:
            places = [place for place, _, _ in points]
            low, middle, high = (
                [found[key] / share for _, found, share in points] for key in ("low", "median", "high")
            )
            axes.plot(places, middle, color=colour, marker=marker, label=curve.strip("`"))
            axes.fill_between(places, low, high, color=colour, alpha=0.2)
    ticks = sorted({program.place for program in pair.programs if program.place is not None})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize="small")
    if name == "wall_s":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
