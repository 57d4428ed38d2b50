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


def provenance(entry: Mapping[str, Any]) -> str:
    """One line: date, commit, machine and versions; ``results.json`` has the rest."""
    machine = entry["machine"]
    runs = [run for program_runs in entry["runs"].values() for run in program_runs]
    versions = {name: version for run in runs for name, version in run["facts"].get("versions", {}).items()}
    machine_words = f"{machine['processor']}, {machine['cores']} cores"
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if name != "numpy")
    words = [f"{entry['measured'][:10]}, commit {entry['commit'] or 'unknown'}", machine_words, packages]
    return f"<sub>{'; '.join(word for word in words if word)}</sub>"


def _number(value: float) -> str:
    """Three digits that count.

    >>> [_number(value) for value in (0.01234, 1.2345, 123.45, 4482.3)]
    ['0.0123', '1.23', '123', '4482']
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _spread(found: Spread, times: float = 1.0) -> str:
    low, middle, high = (_number(times * found[name]) for name in ("low", "median", "high"))
    return middle if found["count"] == 1 else f"{middle} ({low}-{high})"


def _of(name: str) -> Callable[[Row], str]:
    return lambda row: _spread(row[name]) if name in row else ""


def _each(times: float) -> Callable[[Row], str]:
    return lambda row: _spread(row["wall_s"], times / row["images"])


COLUMNS: Mapping[str, tuple[str, Callable[[Row], str]]] = {
    "step_s": ("seconds per step", _of("wall_s")),
    "image_ms": ("ms per image", _each(1000)),
    "exam_s": ("seconds per exam", _each(1)),
    "times_as_fast": ("speed, Keras = 1", _of("times_as_fast")),
    "time_ratio": ("time, plain = 1", _of("time_ratio")),
    "memory_ratio": ("memory, Keras = 1", _of("memory_ratio")),
    "peak_mb": ("peak memory, MB", _of("peak_mb")),
    "difference": (
        "largest logit difference",
        lambda row: f"{row['difference']:.0e}" if "difference" in row else "",
    ),
}
"""The columns of tables: their titles, and what makes a cell of a row."""
