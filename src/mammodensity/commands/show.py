"""Show lines and tables on standard output, and progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from mammodensity.errors import printable
from mammodensity.terms import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from mammodensity.training.loop import TrainingStep

# A file or pipe has no width: 80 columns would cut tables in a log.
_OUT = Console(width=None if sys.stdout.isatty() else 120)
_PROGRESS = Console(stderr=True)
Counted = Callable[[int, int], None]
"""Takes how much is done, and of how much."""


def say(text: str) -> None:
    """Print one plain line."""
    _OUT.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def how_many(count: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 exam``, ``20 exams``."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def say_research_use_only() -> None:
    """Print the line that goes with every result."""
    _OUT.print(RESEARCH_USE_ONLY, style="yellow", highlight=False)


def say_resampled(patients: int | None) -> None:
    """Say what was resampled for the intervals."""
    if patients is None:
        say("(intervals over exams, as no patient_id is known; they are too narrow if a patient has several)")
    else:
        say(f"(intervals over {how_many(patients, 'patient')})")


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is moved by calling the yielded function with how many are done and how many there are."""
    with _bars() as bars:
        task = bars.add_task(description, total=None, note="")
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def training_bars() -> Iterator[tuple[Counted, Callable[[str, TrainingStep], None], Counted]]:
    """A bar for reading images, one for each projection in training with its last figures, and one for testing.

    They are shown from the first report on, so that a mistake that ends the command before is the only line.
    """
    bars = _bars()
    tasks: dict[str, TaskID] = {}

    def task(name: str) -> TaskID:
        bars.start()
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=None, note="")
        return tasks[name]

    def show(projection: str, step: TrainingStep) -> None:
        done = step.epoch * step.steps + step.step
        note = f"epoch {step.epoch + 1}/{step.epochs}"
        if step.history:
            last = step.history[-1]
            note += f" val. loss {last.validation_loss:.2f} acc. {last.validation_accuracy:.2f}"
        bars.update(task(f"train {projection}"), completed=done, total=step.epochs * step.steps, note=note)
        if len(step.history) > step.epoch and not _PROGRESS.is_terminal:  # a log shows no bar
            print(f"train {projection} {note}", file=sys.stderr, flush=True)

    def counted(name: str) -> Counted:
        return lambda done, total: bars.update(task(name), completed=done, total=total)

    try:
        yield counted("read images"), show, counted("test")
    finally:
        if tasks:
            bars.stop()


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of a long run, in the order they begin."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, note="")
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def _bars() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=_PROGRESS)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, bold: str | None = None) -> None:
    """Print a table of plain texts; the row that begins with ``bold`` stands out."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")
    for name in columns:
        table.add_column(Text("\n".join(map(printable, name.split("\n")))))
    for row in rows:
        cells = (Text(printable(cell)) for cell in row)  # names in brackets are no markup
        table.add_row(*cells, style="bold" if row[0] == bold else None)
    _OUT.print(table)
