"""The command that reads exams."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mammodensity.commands.options import (
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
from mammodensity.errors import Interrupted, OptionError

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
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Fuse the views present where an exam lacks some, and flag it.")
    ] = False,
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
    from mammodensity.commands.show import how_many, progress_bar, say, say_research_use_only
    from mammodensity.commands.show_results import show_results
    from mammodensity.outputs import require_not_input
    from mammodensity.workflows.predict import predict as predict_exams

    outputs = [path for path in (csv, json_file, results, html) if path]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OptionError("--csv, --json, --results and --html must name different files")
    for option, asked, files in (
        ("--identify", identify, {"--json": json_file, "--results": results, "--html": html}),
        ("--notification", notification, {"--json": json_file, "--html": html}),
    ):
        if asked and not any(files.values()):
            raise OptionError(f"{option} adds to {' and '.join(files)}; give one of them")
    exams = find_exams(data, split, synthetic=synthetic)
    for output in outputs:
        require_not_input(output, files_read(exams, data, model))
    try:
        with progress_bar("predict") as progress:
            done = predict_exams(
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
    for note in done.warnings:
        say(f"note: {note}")
    for text in done.refused:
        say(f"refused: {text}")
    if origin_txt:
        done.write_infn(origin_txt, table=csv)
    for path, write in (
        (None if origin_txt else csv, done.write_scores),
        (json_file, partial(done.write_json, notification=notification)),
        (results, done.write_results),
        (html, partial(done.write_page, notification=notification)),
    ):
        if path:
            write(path)
    show_results(done.results, most=None if show_all else 12)
    for output in outputs:
        say(f"{how_many(len(done.results), 'exam')} in {output}")
    say_research_use_only()


def _keep_incomplete(csv: Path | None, stopped: Interrupted) -> Interrupted:
    """Write what is done beside the table that was asked for, under a name that says so."""
    if stopped.done is None or not stopped.done.scores or csv is None:
        return Interrupted("interrupted; nothing was written")
    incomplete = csv.with_name(f"{csv.stem}.incomplete{csv.suffix}")
    stopped.done.write_scores(incomplete)
    return Interrupted(f"interrupted; the {len(stopped.done.scores)} exams scored so far are in {incomplete}")
