"""What the command line shows: progress bars and tables. Tables go to standard output, progress to standard error."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
from mammodensity.terms import CATEGORIES, LEVELS, PROJECTIONS, RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from mammodensity.data.dicom.file_checks import FileCheck, Reason
    from mammodensity.evaluation.figures import FiguresOfMerit
    from mammodensity.results.calibration import Calibration
    from mammodensity.results.result import ExamResult
    from mammodensity.training.loop import TrainingStep
    from mammodensity.workflows.check import CheckResult, Problem
    from mammodensity.workflows.prepare import FoundExams

# A file or pipe has no width: 80 columns would cut tables in a log.
_OUT = Console(width=None if sys.stdout.isatty() else 120)
_PROGRESS = Console(stderr=True)
_MOST = 20  # lines of one kind
Counted = Callable[[int, int], None]
"""Takes how much is done, and of how much."""


def say(text: str) -> None:
    """One plain line on standard output."""
    _OUT.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def how_many(count: int, noun: str) -> str:
    """A number with its noun: ``1 exam``, ``20 exams``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def say_research_use_only() -> None:
    """The line that goes with every result."""
    _OUT.print(RESEARCH_USE_ONLY, style="yellow", highlight=False)


def say_resampled(patients: int | None) -> None:
    """What the intervals were drawn over."""
    if patients is None:
        say("(intervals over exams, as no patient_id is known; they are too narrow if a patient has several)")
    else:
        say(f"(intervals over {patients} patients)")


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


def show_check(result: CheckResult) -> None:
    """What a data set holds, and each problem."""
    say(f"{result.root}: {result.images} images of {result.exams} exams of {result.patients} patients, {result.layout}")
    columns = list(result.scale.letters)
    categories = {name for splits in result.counts.values() for found in splits.values() for name in found}
    columns += sorted(categories - set(columns))
    table = _table("projection", "split", *columns)
    for projection, splits in result.counts.items():
        for split, found in splits.items():
            table.add_row(projection, split, *(str(found.get(name, 0)) for name in columns))
    if result.counts:
        _OUT.print(table)
    _show_files(result)
    if result.ignored and not result.named:
        say(f"{result.ignored} files that are no images were left alone")
    for problems in _by_code(result.problems):
        for problem in problems[:_MOST]:
            say(f"{'ERROR' if problem.severe else 'note'} [{problem.code}] {problem.text}")
        if len(problems) > _MOST:
            say(f"... and {len(problems) - _MOST} more [{problems[0].code}]; --json FILE lists every file")
    severe = sum(problem.severe for problem in result.problems)
    say(f"{severe} errors, {len(result.problems) - severe} notes: {'usable' if result.usable else 'not usable yet'}")


def _by_code(problems: Sequence[Problem]) -> Iterator[list[Problem]]:
    """Problems of one code together, in the order in which codes first appear."""
    for code in dict.fromkeys(problem.code for problem in problems):
        yield [problem for problem in problems if problem.code == code]


def show_found(found: FoundExams, most: int = 12) -> None:
    """The first exams of a public data set, its counts, and what was left out for which reason."""
    summary = found.summary()
    table = _table("exam", *(projection.value for projection in PROJECTIONS), "right", "left", "exam's", "split")
    for exam in found.data.exams[:most]:
        right, left = (exam.breast_categories.get(side) or "-" for side in "RL")
        views = ["x" if projection in exam.images else "-" for projection in PROJECTIONS]
        table.add_row(printable(exam.exam_id), *views, right, left, exam.category or "-", exam.split or "-")
    _OUT.print(table)
    if summary["exams"] > most:
        say(f"... and {summary['exams'] - most} more exams; --json lists all")
    say(
        f"{found.data.dataset}: {summary['exams']} exams of {summary['patients']} patients, "
        f"{summary['images']} images; {summary['complete_exams']} exams have all four projections"
    )
    for name in ("by_category", "images_by_category", "images_by_tissue", "by_projection", "by_split"):
        if name in summary:
            say(f"{name.replace('_', ' ')}: {', '.join(f'{key} {count}' for key, count in summary[name].items())}")
    say(f"image files: {summary['files_found']} found, {summary['files_absent']} not there")
    for word, reasons in (("left out", found.data.left_out), ("note", found.data.notes)):
        for reason in reasons:
            say(f"{word} [{reason.code}] {reason.count} {reason.unit}: {reason.text}")


def show_listed(listed: Mapping[str, Any], most: int = 12) -> None:
    """The first exams of a data set without tables, as ``found_images`` lists them."""
    table = _table("exam", *(projection.value for projection in PROJECTIONS), "exam's", "split")
    for exam in listed["exams"][:most]:
        views = ["x" if projection.value in exam["projections"] else "-" for projection in PROJECTIONS]
        table.add_row(printable(exam["exam_id"]), *views, exam["density"] or "-", exam["split"] or "-")
    _OUT.print(table)
    if len(listed["exams"]) > most:
        say(f"... and {len(listed['exams']) - most} more exams; --json lists all")
    summary = listed["summary"]
    say(f"{listed['dataset']}: {summary['exams']} exams, {summary['images']} images")
    if summary["refused"]:
        say(f"{summary['refused']} files would not be used; `mammodensity check` says why")


def _show_files(result: CheckResult) -> None:
    """How many files were refused or marked for which reason, and the first of them by name.

    What is said of the whole data set, or of files that are no images, is said once, by ``show_check``.
    """
    if result.layout != "DICOM archive" and all(one.accepted for one in result.files):
        return
    files = [file for file in result.files if result.named or "not-dicom" not in {one.code for one in file.reasons}]
    count = Counter((kind, one.code) for file in files for kind, ones in _told(file) for one in ones)
    if count:
        table = _table("", "code", "files")
        for (kind, code), number in sorted(count.items(), key=lambda pair: (pair[0][0] != "refused", -pair[1])):
            table.add_row(kind, code, str(number))
        _OUT.print(table)
    said = {problem.text for problem in result.problems}
    refused = [file for file in files if not file.accepted]
    lines = []
    for file in refused:
        if others := [one for one in file.reasons if one.text not in said]:
            codes = ", ".join(dict.fromkeys(one.code for one in others))
            lines.append(f"refused [{codes}] {'; '.join(dict.fromkeys(one.text for one in others))}")
    for line in lines[:_MOST]:
        say(line)
    if len(lines) > _MOST:
        say(f"... and {len(lines) - _MOST} more; --json FILE lists every file")
    say(f"{len(files) - len(refused)} files accepted, {len(refused)} refused")


def _told(file: FileCheck) -> tuple[tuple[str, Sequence[Reason]], ...]:
    return ("refused", file.reasons), ("warning", file.warnings)


def show_figures(figures: Mapping[str, FiguresOfMerit]) -> None:
    """Figures of merit by level, with the interval of the accuracy, and the subject's confusion matrix."""
    names = {
        "accuracy": "acc.",
        "macro_recall": "recall",
        "macro_precision": "prec.",
        "linear_kappa": "linear\nkappa",
        "quadratic_kappa": "quadr.\nkappa",
        "dense_accuracy": "dense",
        "auc": "AUC",
    }
    table = _table("", "exams", *names.values(), "accuracy\n95 %")
    for level in LEVELS:
        if level not in figures:
            continue
        one = figures[level]
        interval = one.intervals.get("accuracy")
        shown = [number(getattr(one, name)) for name in names]
        style = "bold" if level == "subject" else None
        table.add_row(level, str(one.n), *shown, limits(interval), style=style)
    _OUT.print(table)
    subject = figures.get("subject")
    if subject is not None and subject.n:
        scale = subject.scale
        matrix = _table("subject is", *(f"said {category}" for category in scale))
        for category, row in zip(scale, subject.confusion, strict=True):
            matrix.add_row(category.value, *map(str, row))
        _OUT.print(matrix)
    for level, one in figures.items():
        for name, reason in one.undefined.items() if one.n else ():
            if name in names:
                say(f"{level}: {name.replace('_', ' ')} is undefined, {reason}")
        if one.n_not_given:
            say(f"{level}: exams without scores, as views are missing, and so not counted: {one.n_not_given}")
        if one.n_partial:
            say(f"{level}: exams scored without all of their views: {one.n_partial}")


def show_results(results: list[ExamResult], most: int = 12) -> None:
    """The results of the first exams: views, category or abstention, set, and flags; those of all exams once, below."""
    from mammodensity.results.result import scale_of
    from mammodensity.results.rules import shared_flags

    measured = any(result.exam and result.exam.percent_density is not None for result in results)
    sets = any(result.prediction_set for result in results)
    extra = [*(["possible"] if sets else []), *(["% dense"] if measured else [])]
    table = _table(
        "exam",
        *(projection.value for projection in PROJECTIONS),
        "result",
        "    ".join(scale_of(results)),
        *extra,
        "flags",
    )
    shared = shared_flags([result.flags for result in results])
    for result in results[:most]:
        views = [
            result.projections[projection].category if projection in result.projections else "-"
            for projection in PROJECTIONS
        ]
        scores = " ".join(f"{score:.2f}" for score in result.exam.scores.values()) if result.exam else "-"
        possible = [" ".join(result.prediction_set.categories) if result.prediction_set else "-"] if sets else []
        percent = result.exam.percent_density if result.exam else None
        density = ["-" if percent is None else f"{percent:.0f}"] if measured else []
        flags = " ".join(dict.fromkeys(flag.code for flag in result.flags if flag.code not in shared))
        table.add_row(printable(result.exam_id), *views, result.category or "-", scores, *possible, *density, flags)
    _OUT.print(table)
    if len(results) > most:
        say(f"... and {len(results) - most} more")
    for code, text in shared.items():
        say(f"all {len(results)} exams are flagged {code}: {text}")
    bare = sum(result.exam is None and not result.projections for result in results)
    unscored = sum(result.exam is None for result in results)
    if unscored > bare:
        say(
            f"{unscored - bare} of {len(results)} exams get no subject score, as views are missing; "
            "--allow-missing fuses those present"
        )
    if bare:
        say(f"{bare} of {len(results)} exams get no score, as no image of theirs could be used")
    flagged = sum(result.abstained for result in results) - unscored
    if flagged:
        say(f"{flagged} of {len(results)} exams get no category, for their flags; --json or --html says why")


def show_calibration(calibration: Calibration) -> None:
    """How many combinations of views were calibrated, and what it is worth for all four."""
    exams = {len(one.reference) for one in calibration.views.values()}
    counts = f"{min(exams)} to {max(exams)}" if len(exams) > 1 else f"{max(exams)}"
    say(f"{len(calibration.views)} of 15 combinations of views calibrated, on {counts} exams each")
    known = {int(place) for one in calibration.views.values() for place in one.reference}
    absent = [category for category in CATEGORIES if category.index not in known]
    if absent:
        say(f"note: no labelled exam is of category {', '.join(absent)}, which will hardly ever be found")
    if calibration.figures:
        show_calibration_figures(calibration.figures, calibration.set_kind)
        _show_what_got_worse(calibration.figures)
    else:
        say("(too few exams have all four views to judge the calibration of whole exams)")


def _show_what_got_worse(figures: Mapping[str, Any]) -> None:
    """A calibration is written even so: what it is worth is told, and left to the user."""
    if figures["nll_after"] >= figures["nll_before"]:
        say("note: the scores are no better calibrated than before; take more exams, or do without")
    lost = figures["accuracy_before"] - figures["accuracy_after"]
    if lost * figures["exams"] >= 1:
        say(f"note: accuracy is {100 * lost:.1f} points lower than before; take more exams, or do without")


def show_calibration_figures(figures: Mapping[str, Any], kind: str = "ordinal") -> None:
    """Figures before and after calibration, and the sets, by cross-validation."""
    table = _table("calibration", "before", "after")
    for name, key in (("log likelihood, negative", "nll"), ("accuracy", "accuracy"), ("calibration error", "ece")):
        table.add_row(name, number(figures[f"{key}_before"]), number(figures[f"{key}_after"]))
    _OUT.print(table)
    band = f"{figures['ece_null_low']:.3f} to {figures['ece_null_high']:.3f}"
    say(f"with {figures['exams']} exams a perfectly calibrated reader has a calibration error of {band} (9 in 10)")
    table = _table(f"{kind} sets for", "covered", "mean size", "covered A", "B", "C", "D")
    sets = figures["by_kind_of_set"][kind]
    for coverage, covered in sets["coverage"].items():
        by_category = ["-" if one is None else f"{one:.2f}" for one in sets["coverage_by_category"][coverage]]
        size = sets["mean_set_size"][coverage]
        table.add_row(f"{100 * float(coverage):g} %", f"{100 * covered:.1f} %", f"{size:.2f}", *by_category)
    _OUT.print(table)
    say(f"(each exam judged by others: {figures['folds']} folds, {figures['repeats']} times)")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of plain texts."""
    table = _table()
    for name in columns:
        table.add_column(Text(printable(name)))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # names in brackets are no markup
    _OUT.print(table)


def _table(*columns: str) -> Table:
    """Narrow enough for a terminal of 80 columns."""
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")


def limits(interval: tuple[float, float] | None) -> str:
    """Of an interval, which may lie below zero; a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def number(value: float) -> str:
    """A figure of merit; a dash where it is undefined."""
    return "-" if value != value else f"{value:.3f}"  # noqa: PLR0124  (NaN is not equal to itself)
