"""From raw times and peaks to medians, spreads and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench.harness import Run
from bench.plan import Pair

_ENOUGH_FOR_QUARTILES = 4

Spread = dict[str, float]
"""``median``, ``low``, ``high``: quartiles, or smallest and largest of fewer than four values; and ``count``."""


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
    """Of values to others that were measured in the same turn; turns that only one of them had do not count.

    >>> ratios([2.0, 6.0], [1.0, 2.0])
    {'median': 2.5, 'low': 2.0, 'high': 3.0, 'count': 2}
    """
    return spread([value / other for value, other in zip(values, others, strict=False)])


def figures(pair: Pair, runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """A row a program of what was measured; ratios are to the pair's baselines, turn by turn."""
    rows = []
    torch_logits = _logits(runs, "`torch`")
    for program in pair.programs:
        own = runs[program.label]
        wall = _steps(own, "wall_s")
        row: dict[str, Any] = {
            "label": program.label,
            "images": program.images,
            "wall_s": spread(wall),
            "processor_s": spread(_steps(own, "processor_s")),
            "peak_mb": spread([run["peak_mb"] for run in own]),
        }
        if pair.baseline:
            base, other = runs[pair.baseline], runs[pair.time_baseline or pair.baseline]
            row["memory_ratio"] = ratios([run["peak_mb"] for run in own], [run["peak_mb"] for run in base])
            row["time_ratio"] = ratios(wall, _steps(other, "wall_s"))
            row["processor_ratio"] = ratios(_steps(own, "processor_s"), _steps(other, "processor_s"))
            row["times_as_fast"] = ratios(_steps(other, "wall_s"), wall)
            row["times_as_thrifty"] = ratios(_steps(other, "processor_s"), _steps(own, "processor_s"))
        if "gflop" in own[0]["facts"]:
            row["gflop_s"] = own[0]["facts"]["gflop"] / row["wall_s"]["median"]
        found = own[0]["facts"].get("logits")
        if found and torch_logits:
            row["difference"] = max(abs(one - other) for one, other in zip(found, torch_logits, strict=True))
        rows.append(row)
    return rows


def _steps(runs: Sequence[Run], name: str) -> list[float]:
    return [step[name] for run in runs for step in run["steps"]]


def _logits(runs: dict[str, list[Run]], label: str) -> list[float] | None:
    found: list[float] | None = runs[label][0]["facts"].get("logits") if label in runs else None
    return found
