"""The command that reads exams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mammodensity
from mammodensity.commands.options import (
    AllowMissing,
    Device,
    Engine,
    Exams,
    Fusion,
    ModelOrDefault,
    Policy,
    Split,
    Synthetic,
    files_read,
    find_exams,
)
from mammodensity.commands.show import MOST, how_many, progress_bar, say, say_each, say_research_use_only, show_table
from mammodensity.errors import Interrupted, OptionError
from mammodensity.outputs import require_not_input, written_together
from mammodensity.terms import PROJECTIONS, Scale

if TYPE_CHECKING:
    from mammodensity.results.result import ExamResult, LevelResult

_MOST_PICTURED = 40  # exams on a page of results; each has up to a megabyte of pictures


def predict(
    data: Exams,
    model: ModelOrDefault = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write the scores as the model gives them.", metavar="FILE")
    ] = None,
    origin_txt: Annotated[
        Path | None, typer.Option("--origin-txt", help="Also write the four text files of INFN.", metavar="DIR")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results; `schema` describes the file.", metavar="FILE")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Also write the results as a table, one row an exam.", metavar="FILE"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the results as a web page.", metavar="FILE")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Print every exam, not only the first 12.")] = False,
    split: Split = None,
    fusion: Fusion = None,
    policy: Policy = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Set the coverage of prediction sets; default: that of the calibration.", metavar="SHARE"),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Read the rules for flags and abstention from a JSON file.", metavar="FILE")
    ] = None,
    notification: Annotated[
        bool, typer.Option("--notification", help="Add the sentence of 21 CFR 900.12(c) to --json and --html.")
    ] = False,
    identify: Annotated[
        bool,
        typer.Option(
            "--identify",
            help="Name the file, study date, unit and accession number of each image in --json, --results and --html. "
            "This may identify patients.",
        ),
    ] = False,
    allow_missing: AllowMissing = False,
    synthetic: Synthetic = False,
    device: Device = "auto",
    engine: Engine = "torch",
    workers: Annotated[int, typer.Option(help="Score exams in several processes, which share the cores.", min=1)] = 1,
) -> None:
    """Read exams: print the density category of each, or why it gets none.

    Without --model the default model reads them, which also measures percent density. A calibrated model gives
    calibrated scores and prediction sets (--json, --results, --html); --csv always holds the uncalibrated scores.

    Example: mammodensity predict phantoms --csv predictions.csv --html results.html
    """
    outputs = [path for path in (csv, json_file, results, html) if path]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OptionError("--csv, --json, --results and --html must name different files")
    if identify:
        _require_one_of("--identify", {"--json": json_file, "--results": results, "--html": html})
    if notification:
        _require_one_of("--notification", {"--json": json_file, "--html": html})
    exams = find_exams(data, split, synthetic=synthetic)
    for output in outputs:
        require_not_input(output, files_read(exams, data, model))
    try:
        with progress_bar("predict") as progress:
            done = mammodensity.predict(
                exams,
                model=model,
                fusion=fusion,
                policy=policy,
                coverage=coverage,
                rules=rules,
                allow_missing=allow_missing,
                complete=origin_txt is not None,
                device=device,
                engine=engine,
                workers=workers,
                pictures=_MOST_PICTURED if html else 0,
                identify=identify,
                progress=progress,
            )
    except Interrupted as stopped:
        raise _keep_incomplete(csv, stopped) from None
    say_each("note", done.warnings)
    say_each("refused", done.refused)
    with written_together():
        for path, write in (
            (origin_txt, done.write_infn),
            (csv, done.write_scores),
            (json_file, partial(done.write_json, notification=notification)),
            (results, done.write_results),
            (html, partial(done.write_page, notification=notification)),
        ):
            if path:
                write(path)
    show_results(done.results, most=None if show_all else MOST)
    for output in outputs:
        say(f"{how_many(len(done.results), 'exam')} in {output}")
    say_research_use_only()


def _require_one_of(option: str, files: Mapping[str, Path | None]) -> None:
    """Raise ``OptionError`` unless a file is written that the option adds to."""
    if not any(files.values()):
        raise OptionError(f"{option} adds to {' and '.join(files)}; give one of them")


def _keep_incomplete(csv: Path | None, stopped: Interrupted) -> Interrupted:
    """Write what is done beside the table that was asked for, under a name that says so."""
    if stopped.done is None or not stopped.done.scores or csv is None:
        return Interrupted("interrupted; nothing was written")
    incomplete = csv.with_name(f"{csv.stem}.incomplete{csv.suffix}")
    stopped.done.write_scores(incomplete)
    return Interrupted(f"interrupted; the {len(stopped.done.scores)} exams scored so far are in {incomplete}")


def show_results(results: Sequence[ExamResult], most: int | None = MOST) -> None:
    """Print the first exams, or all for None, and a summary: what each view says, the category, and the flags.

    Flags that all exams have are printed once, below.
    """
    from mammodensity.results.result import scale_of
    from mammodensity.results.rules import shared_flags

    scale = scale_of(results)
    shared = shared_flags([result.flags for result in results])
    measured = any(level.percent_density is not None for result in results for level in _levels(result))
    sets = any(result.prediction_set for result in results)
    columns = ["exam", *PROJECTIONS, "result", "    ".join(scale)]
    columns += [*(["possible"] if sets else []), *(["% dense"] if measured else []), "flags"]
    rows = []
    for result in results[:most]:
        row = [result.exam_id, *(_cell(result.projections.get(view)) for view in PROJECTIONS), result.category or "-"]
        row.append(" ".join(f"{score:.2f}" for score in result.exam.scores.values()) if result.exam else "-")
        if sets:
            row.append(" ".join(result.prediction_set.categories) if result.prediction_set else "-")
        if measured:
            percent = result.exam.percent_density if result.exam else None
            row.append("-" if percent is None else f"{percent:.0f}")
        row.append(" ".join(dict.fromkeys(flag.code for flag in result.flags if flag.code not in shared)))
        rows.append(row)
    show_table(columns, rows)
    if most is not None and len(results) > most:
        say(f"... and {len(results) - most} more; --all prints every exam")
    for code, text in shared.items():
        say(f"all {len(results)} exams are flagged {code}: {text}")
    _show_summary(results, scale)


def _levels(result: ExamResult) -> list[LevelResult]:
    return [*([result.exam] if result.exam else []), *result.breasts.values(), *result.projections.values()]


def _cell(view: LevelResult | None) -> str:
    """Write the category of a view, with its percent density where the model measures it."""
    if view is None:
        return "-"
    return view.category if view.percent_density is None else f"{view.category} {view.percent_density:.0f}%"


def _show_summary(results: Sequence[ExamResult], scale: Scale) -> None:
    """Count the exams of each category, those without one and why, and the images that were refused."""
    count = Counter(result.category for result in results if result.category)
    parts = [f"{count[category]} {category}" for category in scale]
    exams = how_many(len(results), "exam")
    if without := sum(result.abstained for result in results):
        parts.append(f"{without} without a category")
    if refused := sum(len(result.refused) for result in results):
        parts.append(f"{how_many(refused, 'image')} refused")
    say(f"{exams}: {', '.join(parts)}")
    unread = sum(result.exam is None and not result.projections for result in results)
    unscored = sum(result.exam is None for result in results)
    if unscored > unread:
        say(f"{unscored - unread} of {exams}: no category (views are missing; --allow-missing uses the views present)")
    if unread:
        say(f"{unread} of {exams}: no category (no image could be used)")
    if flagged := without - unscored:
        say(f"{flagged} of {exams}: no category (flagged; --json or --html says why)")
