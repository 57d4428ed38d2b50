"""Commands that measure how good a model is, and calibrate it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import mammodensity
from mammodensity.commands.options import (
    Bootstrap,
    Fusion,
    JsonFile,
    Manifest,
    Policy,
    Split,
    Synthetic,
)
from mammodensity.commands.show import (
    finish,
    how_many,
    progress_bar,
    say,
    say_each,
    say_resampled,
    say_research_use_only,
)
from mammodensity.commands.show_figures import (
    show_calibration,
    show_calibration_figures,
    show_category_fit,
    show_figures,
    show_further,
)
from mammodensity.errors import OptionError
from mammodensity.outputs import require_not_input


def evaluate(
    csv: Annotated[Path | None, typer.Option("--csv", help="Read a table that predict wrote.", metavar="FILE")] = None,
    origin: Annotated[
        Path | None, typer.Option("--origin", help="Read the four text files of INFN from a folder.", metavar="DIR")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Read the reference: a table of exam_id (or row) and density, a manifest, or folders of INFN.",
            metavar="PATH",
        ),
    ] = None,
    manifest: Manifest = None,
    json_file: JsonFile = None,
    fusion: Annotated[
        Literal["mean", "geometric-mean", "vote"] | None,
        typer.Option(help="Fuse the views anew by this method, instead of taking the fused scores."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Also show figures by a column of labels or manifest, e.g. vendor or age.", metavar="COLUMN"),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Put the numbers of that column into bands, e.g. 40,50,60.", metavar="LIMITS"),
    ] = None,
    subsets: Annotated[
        bool, typer.Option("--subsets", help="Also show figures for every combination of one to four views.")
    ] = False,
    bootstrap: Bootstrap = 2000,
    calibrate: Annotated[
        Literal["cv"] | None,
        typer.Option(help="Also judge calibration and prediction sets by cross-validation (cv)."),
    ] = None,
) -> None:
    """Compare scores with the reference: figures of merit by projection, breast and exam, with 95 % intervals.

    Intervals are made by bootstrap over patients, or over exams where no patients are known.

    Example: mammodensity evaluate --csv predictions.csv --labels phantoms/manifest.csv --json figures.json
    """
    if (csv is None) == (origin is None):
        raise OptionError("give either --csv FILE or --origin DIR; see mammodensity evaluate --help")
    if labels is None:
        raise OptionError("--labels PATH is needed: the reference density of each exam")
    read = [labels, *([manifest] if manifest else []), *([csv] if csv else (origin or Path()).glob("*"))]
    require_not_input(json_file, read)
    with progress_bar("evaluate") as progress:
        done = mammodensity.evaluate(
            csv or origin or Path(),
            labels,
            manifest=manifest,
            fusion=fusion,
            by=by,
            bands=bands,
            subsets=subsets,
            bootstrap=bootstrap,
            calibration=calibrate is not None,
            progress=progress,
        )
    show_figures(done.figures)
    say_resampled(done.patients)
    show_further(done.further)
    if done.unused_labels:
        say(f"({how_many(len(done.unused_labels), 'exam')} of {labels} without scores)")
    if done.calibration:
        show_calibration_figures(done.calibration)
    finish(json_file, done.to_dict())


def calibrate(
    data: Annotated[
        list[Path],
        typer.Argument(help="Give labelled images, or with --labels a table that predict wrote.", metavar="DATA"),
    ],
    model: Annotated[Path, typer.Option("--model", help="Name the model folder to write to.", metavar="DIR")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Calibrate scores with this table of exam_id and density.", metavar="FILE"),
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Set the coverage of prediction sets; default: 0.9.", metavar="SHARE")
    ] = None,
    sets: Annotated[
        Literal["ordinal", "marginal", "class-conditional"] | None,
        typer.Option(help="Choose the kind of prediction sets; default: ordinal."),
    ] = None,
    fusion: Fusion = None,
    policy: Policy = None,
    split: Split = None,
    synthetic: Synthetic = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write a category fit that is worse than the default categories.")
    ] = False,
) -> None:
    """Calibrate scores with labelled exams (--labels), or fit the default model's categories to a site.

    Calibrated scores are probabilities, and come with prediction sets. Without --labels, the cuts between the
    categories are fitted to the percent density of labelled images; take 20 exams or more. Take exams that the model
    was not trained on. With --labels and a folder that holds no model, the default model is calibrated.

    Example: mammodensity calibrate predictions.csv --labels phantoms/manifest.csv --model site

    Example: mammodensity calibrate phantoms --model site
    """
    if labels is not None and len(data) > 1:
        raise OptionError("with --labels, give one table of scores; see mammodensity calibrate --help")
    with progress_bar("calibrate") as progress:
        done = mammodensity.calibrate(
            data[0] if len(data) == 1 else data,
            model=model,
            labels=labels,
            coverage=coverage,
            sets=sets,
            fusion=fusion,
            policy=policy,
            split=split,
            synthetic=synthetic,
            force=force,
            progress=progress,
        )
    say_each("refused", done.refused)
    if done.calibration:
        show_calibration(done.calibration)
    if done.category_fit:
        show_category_fit(done.category_fit)
    say_each("note", done.warnings)
    if done.file is None:
        say("nothing was written; --force writes the fitted categories even so")
        say_research_use_only()
        raise typer.Exit(1)
    say(f"{'calibration' if done.calibration else 'categories'} in {done.file}; use it with predict --model {model}")
    say_research_use_only()


def report(
    run: Annotated[Path, typer.Argument(help="Model folder.", metavar="RUN")],
    output: Annotated[
        Path | None, typer.Option(help="Page to write; by default RUN/report.html.", metavar="FILE")
    ] = None,
) -> None:
    """Write one self-contained HTML page of a training run and its test exams.

    Example: mammodensity report model
    """
    with progress_bar("report") as progress:
        page = mammodensity.report(run, output, progress=progress)
    say(f"report: {page.resolve()}")
    say_research_use_only()
