"""From raw times and peaks to medians, ratios, tables on the page of measurements, and the picture of scaling.

Only text between ``<!-- measured: NAME -->`` and ``<!-- end -->`` of the page is written; the rest is by hand.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness import BenchmarkError, Run
from bench.plan import Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
"""Figures of a program: spreads, and ratios to the pair's baselines."""
Spread = dict[str, float]
"""``median``, ``low``, ``high``: quartiles, or smallest and largest of fewer than four values; and ``count``."""
_ENOUGH_FOR_QUARTILES = 4
_BLOCK = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


# Figures


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'low': 1.0, 'high': 3.0, 'count': 3}
    """
    low, high = min(values), max(values)
    if len(values) >= _ENOUGH_FOR_QUARTILES:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": statistics.median(values), "low": low, "high": high, "count": len(values)}


def ratios(values: Sequence[float], others: Sequence[float]) -> Spread:
    """Spread of the ratios of values to others of the same turn; turns that only one of them had do not count.

    >>> ratios([2.0, 6.0], [1.0, 2.0])
    {'median': 2.5, 'low': 2.0, 'high': 3.0, 'count': 2}
    """
    return spread([value / other for value, other in zip(values, others, strict=False)])


def figures(pair: Pair, runs: Mapping[str, list[Run]]) -> list[dict[str, Any]]:
    """A row for each program; ratios are to the pair's baselines, turn by turn."""
    rows = []
    torch_logits = runs["`torch`"][0]["facts"].get("logits") if "`torch`" in runs else None
    for program in pair.programs:
        measured = runs[program.label]
        facts = measured[0]["facts"]
        wall, processor = _steps(measured, "wall_s"), _steps(measured, "processor_s")
        peaks = [run["peak_mb"] for run in measured]
        row: dict[str, Any] = {
            "label": program.label,
            "images": program.images,
            "wall_s": spread(wall),
            "processor_s": spread(processor),
            "peak_mb": spread(peaks),
        }
        if pair.baseline:
            base, time_base = runs[pair.baseline], runs[pair.time_baseline or pair.baseline]
            base_wall, base_processor = _steps(time_base, "wall_s"), _steps(time_base, "processor_s")
            row["memory_ratio"] = ratios(peaks, [run["peak_mb"] for run in base])
            row["time_ratio"] = ratios(wall, base_wall)
            row["processor_ratio"] = ratios(processor, base_processor)
            row["times_as_fast"] = ratios(base_wall, wall)
            row["times_as_thrifty"] = ratios(base_processor, processor)
        if "gflop" in facts:
            row["gflop_s"] = facts["gflop"] / row["wall_s"]["median"]
        if torch_logits and facts.get("logits"):
            row["difference"] = max(abs(a - b) for a, b in zip(facts["logits"], torch_logits, strict=True))
        rows.append(row)
    return rows


def _steps(runs: Sequence[Run], name: str) -> list[float]:
    return [step[name] for run in runs for step in run["steps"]]


# Tables on the page


def blocks(pairs: Sequence[Pair], measured: Mapping[str, Any]) -> dict[str, str]:
    """The text of each pair with columns: its table, and a line on where it was measured."""
    return {
        pair.name: f"{table(pair.columns, measured[pair.name]['figures'])}\n\n{provenance(measured[pair.name])}"
        for pair in pairs
        if pair.columns
    }


def renewed(page: str, blocks: Mapping[str, str]) -> str:
    r"""The page with the text of these blocks between their markers.

    Raises
    ------
    BenchmarkError
        The page has no place for a block.

    >>> renewed("a <!-- measured: x -->\nold\n<!-- end --> b", {"x": "new"})
    'a <!-- measured: x -->\nnew\n<!-- end --> b'
    """
    absent = set(blocks) - {match[2] for match in _BLOCK.finditer(page)}
    if absent:
        raise BenchmarkError(f"the page has no markers for {', '.join(sorted(absent))}: <!-- measured: NAME -->")
    return _BLOCK.sub(
        lambda match: f"{match[1]}{blocks[match[2]]}\n{match[3]}" if match[2] in blocks else match[0], page
    )


def table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table of figures; columns are names of ``COLUMNS``."""
    used = [COLUMNS[name] for name in columns]
    lines = [["what", *(title for title, _ in used)], ["---"] * (len(used) + 1)]
    lines += [[row["label"], *(cell(row) for _, cell in used)] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def provenance(entry: Mapping[str, Any]) -> str:
    """One line: date, commit, machine and versions; ``results.json`` has the rest."""
    machine = entry["machine"]
    runs = [run for program_runs in entry["runs"].values() for run in program_runs]
    versions = {name: version for run in runs for name, version in run["facts"].get("versions", {}).items()}
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if name != "numpy")
    parts = [
        f"{entry['measured'][:10]}, commit {entry['commit'] or 'unknown'}",
        f"{machine['processor']}, {machine['cores']} cores",
        packages,
    ]
    return f"<sub>{'; '.join(filter(None, parts))}</sub>"


def _number(value: float) -> str:
    """Three significant digits.

    >>> [_number(value) for value in (0.01234, 1.2345, 123.45, 4482.3)]
    ['0.0123', '1.23', '123', '4482']
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _cell(name: str, times: float = 1.0, *, each_image: bool = False) -> Callable[[Row], str]:
    """A function from a row to the text of a spread, multiplied, and divided by the images of a step."""

    def text(row: Row) -> str:
        if name not in row:
            return ""
        factor = times / row["images"] if each_image else times
        low, middle, high = (_number(factor * row[name][key]) for key in ("low", "median", "high"))
        return middle if row[name]["count"] == 1 else f"{middle} ({low}-{high})"

    return text


COLUMNS: Mapping[str, tuple[str, Callable[[Row], str]]] = {
    "step_s": ("seconds per step", _cell("wall_s")),
    "image_ms": ("ms per image", _cell("wall_s", 1000, each_image=True)),
    "exam_s": ("seconds per exam", _cell("wall_s", each_image=True)),
    "times_as_fast": ("speed, Keras = 1", _cell("times_as_fast")),
    "time_ratio": ("time, plain = 1", _cell("time_ratio")),
    "memory_ratio": ("memory, Keras = 1", _cell("memory_ratio")),
    "peak_mb": ("peak memory, MB", _cell("peak_mb")),
    "difference": (
        "largest logit difference",
        lambda row: f"{row['difference']:.0e}" if "difference" in row else "",
    ),
}
"""The columns of tables: title, and the function that makes a cell of a row."""


# The picture of scaling

_AXES = {
    "scaling-size": "rows and columns",
    "scaling-batch": "images a batch",
    "scaling-exams": "exams in the folder",
    "scaling-cores": "cores",
}
_STYLES = {"training": ("C0", "o"), "inference": ("C1", "s"), "`predict`": ("C2", "^")}


def draw_curves(pairs: Sequence[Pair], measured: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write a picture of the pairs that have curves: time above, memory below, lines with their spread."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [pair for pair in pairs if pair.name in _AXES]
    figure, grid = plt.subplots(2, len(shown), figsize=(11, 5), layout="constrained", squeeze=False, sharey="row")
    for column, pair in enumerate(shown):
        rows = measured[pair.name]["figures"]
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


def _draw(axes: Axes, pair: Pair, rows: Sequence[Row], name: str) -> None:
    from matplotlib.ticker import LogLocator

    for curve, (colour, marker) in _STYLES.items():
        points = [
            (program.place, row[name], program.images if name == "wall_s" else 1)
            for program, row in zip(pair.programs, rows, strict=True)
            if program.curve == curve
        ]
        if points:
            places = [place for place, _, _ in points]
            values = {key: [row[key] / images for _, row, images in points] for key in ("low", "median", "high")}
            axes.plot(places, values["median"], color=colour, marker=marker, label=curve.strip("`"))
            axes.fill_between(places, values["low"], values["high"], color=colour, alpha=0.2)
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
