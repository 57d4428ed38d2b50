"""Show lines and tables on standard output, and progress bars on standard error.

rich is imported when something is shown, so that ``--help`` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammodensity.errors import printable
from mammodensity.outputs import write_json
from mammodensity.terms import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from mammodensity.training.loop import TrainingStep

Counted = Callable[[int, int], None]
"""Takes how much is done, and of how much."""
MOST = 12
"""Exams that are printed where not all are asked for."""


@cache
def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    # A file or pipe has no width: 80 columns would cut tables in a log.
    return Console(stderr=stderr, width=None if stderr or sys.stdout.isatty() else 120)


def say(text: str) -> None:
    """Print one plain line."""
    _console().print(printable(text), markup=False, highlight=False, soft_wrap=True)


def say_each(label: str, texts: Iterable[str]) -> None:
    """Print texts that have one label, a line each: ``note: ...``, ``refused: ...``."""
    for text in texts:
        say(f"{label}: {text}")


def how_many(count: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 exam``, ``20 exams``."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def say_research_use_only() -> None:
    """Print the line that goes with every result."""
    _console().print(RESEARCH_USE_ONLY, style="yellow", highlight=False)


def finish(json_file: Path | None, values: Any, written: str = "all figures and intervals") -> None:
    """End a command: write its values as JSON if a file is named, and print the line that goes with every result."""
    if json_file:
        write_json(json_file, values)
        say(f"{written} in {json_file}")
    say_research_use_only()


def say_resampled(patients: int | None) -> None:
    """Say what was resampled for the intervals."""
    if patients is None:
        say("(intervals over exams, as there is no patient_id; too narrow if patients have several exams)")
    else:
        say(f"(intervals over {how_many(patients, 'patient')})")


@contextmanager
def progress_bar(description: str) -> Iterator[Counted]:
    """Show a bar that moves when the yielded function is called with how much is done and of how much."""
    with stage_bars() as update:
        yield lambda done, total: update(description, done, total)


@contextmanager
def training_bars() -> Iterator[tuple[Counted, Callable[[str, TrainingStep], None], Counted]]:
    """Show a bar for reading images, one for each projection in training with its last figures, and one for testing."""
    with stage_bars() as update:

        def show(projection: str, step: TrainingStep) -> None:
            note = f"epoch {step.epoch + 1}/{step.epochs}"
            if step.history:
                last = step.history[-1]
                note += f" val. loss {last.validation_loss:.2f} acc. {last.validation_accuracy:.2f}"
            update(f"train {projection}", step.epoch * step.steps + step.step, step.epochs * step.steps, note)
            if len(step.history) > step.epoch and not _console(stderr=True).is_terminal:  # a log shows no bar
                print(f"train {projection} {note}", file=sys.stderr, flush=True)

        yield partial(update, "read images"), show, partial(update, "test")


@contextmanager
def stage_bars() -> Iterator[Callable[..., None]]:
    """Show a bar for each stage of a long run, in the order in which they begin.

    Bars appear with the first report, so that a mistake that ends the command before is the only line.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=_console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def update(name: str, done: int, total: int, note: str = "") -> None:
        bars.start()
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=None, note="")
        bars.update(tasks[name], completed=done, total=total, note=note)

    try:
        yield update
    finally:
        if tasks:
            bars.stop()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, bold: str | None = None) -> None:
    """Print a table of plain texts; the row that begins with ``bold`` stands out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")
    for name in columns:
        table.add_column(Text("\n".join(map(printable, name.split("\n")))), overflow="fold")
    for row in rows:
        cells = (Text(printable(cell)) for cell in row)  # names in brackets are no markup
        table.add_row(*cells, style="bold" if row[0] == bold else None)
    _console().print(table)
