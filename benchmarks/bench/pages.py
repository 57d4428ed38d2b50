"""Tables of what was measured, and the page that has them between markers.

Only what stands between ``<!-- measured: NAME -->`` and ``<!-- end -->`` is written; the rest of the page is by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.figures import Spread
from bench.harness import BenchmarkError

Row = Mapping[str, Any]
_BLOCK = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(page: str, blocks: Mapping[str, str]) -> str:
    r"""The page with the text of these blocks in place of what stood between their markers.

    Raises
    ------
    BenchmarkError
        The page has no place for a block.

    >>> renewed("a <!-- measured: x -->\nold\n<!-- end --> b", {"x": "new"})
    'a <!-- measured: x -->\nnew\n<!-- end --> b'
    """
    absent = set(blocks) - {found[2] for found in _BLOCK.finditer(page)}
    if absent:
        raise BenchmarkError(f"the page has no markers for {', '.join(sorted(absent))}: <!-- measured: NAME -->")
    return _BLOCK.sub(
        lambda found: f"{found[1]}{blocks[found[2]]}\n{found[3]}" if found[2] in blocks else found[0], page
    )


def table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table of figures; columns are names of ``COLUMNS``."""
    used = [COLUMNS[name] for name in columns]
    lines = [["what", *(title for title, _ in used)], ["---"] * (len(used) + 1)]
    lines += [[row["label"], *(cell(row) for _, cell in used)] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def told(entry: Mapping[str, Any]) -> str:
    """One line: when, on what, with which versions, and what else the machine did meanwhile."""
    machine = entry["machine"]
    runs = [run for own in entry["runs"].values() for run in own]
    versions = {name: version for run in runs for name, version in run["facts"].get("versions", {}).items()}
    having = f" with {', '.join(machine['instructions'])}" if machine["instructions"] else ""
    settings = entry["settings"]
    words = [
        f"{entry['measured'][:10]}, commit {entry['commit'] or 'unknown'}",
        f"{machine['processor']} (family, model, stepping {machine['model']}){having}; {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}",
        ", ".join(
            [f"Python {machine['python']}", *(f"{name} {version}" for name, version in sorted(versions.items()))]
        ),
        f"{settings['rounds']} x {settings['steps']} steps each in turns; other work took at most "
        f"{max(run['others'] for run in runs):.2f} cores",
    ]
    return f"<sub>{'; '.join(words)}.</sub>"


def _number(value: float) -> str:
    """Three digits that count.

    >>> [_number(value) for value in (0.01234, 1.2345, 123.45, 4482.3)]
    ['0.0123', '1.23', '123', '4482']
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _spread(found: Spread, times: float = 1.0) -> str:
    low, middle, high = (_number(times * found[name]) for name in ("low", "median", "high"))
    return middle if found["count"] == 1 else f"{middle} ({low} to {high})"


def _of(name: str) -> Callable[[Row], str]:
    return lambda row: _spread(row[name]) if name in row else ""


def _each(times: float) -> Callable[[Row], str]:
    return lambda row: _spread(row["wall_s"], times / row["images"])


COLUMNS: Mapping[str, tuple[str, Callable[[Row], str]]] = {
    "step_s": ("s a step", _of("wall_s")),
    "processor_s": ("processor time, s", _of("processor_s")),
    "image_ms": ("ms an image", _each(1000)),
    "each_s": ("s an image or exam", _each(1)),
    "exam_s": ("s an exam", _each(1)),
    "images_s": ("images a second", lambda row: _number(row["images"] / row["wall_s"]["median"])),
    "times_as_fast": ("times as fast", _of("times_as_fast")),
    "times_as_thrifty": ("the same of processor time", _of("times_as_thrifty")),
    "processor_ratio": ("processor time, to plain", _of("processor_ratio")),
    "time_ratio": ("time, to plain", _of("time_ratio")),
    "memory_ratio": ("memory, to Keras", _of("memory_ratio")),
    "peak_mb": ("peak memory, MB", _of("peak_mb")),
    "rate": ("GFLOP a second", lambda row: _number(row["gflop_s"]) if "gflop_s" in row else ""),
    "difference": (
        "largest difference of a logit, to torch",
        lambda row: f"{row['difference']:.0e}" if "difference" in row else "",
    ),
}
"""The columns of tables: their titles, and what makes a cell of a row."""
