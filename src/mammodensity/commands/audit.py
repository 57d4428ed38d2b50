"""Commands that measure how good a model is, and calibrate it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mammodensity.commands.options import (
    Bootstrap,
    Fusion,
    JsonFile,
    Manifest,
    Model,
    Policy,
    Split,
    Synthetic,
    find_exams,
    model_files,
)
from mammodensity.errors import OptionError, OutputError, TableError
from mammodensity.terms import DENSITY, PROJECTIONS, Category

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mammodensity.evaluation.score_tables import ScoreTable


def evaluate(
    csv: Annotated[Path | None, typer.Option("--csv", help="Table written by predict.", metavar="FILE")] = None,
    origin: Annotated[
        Path | None, typer.Option("--origin", help="Folder with the origin's four text files.", metavar="DIR")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table of exam_id (or row) and density, a manifest, or the origin's folders.", metavar="PATH"
        ),
    ] = None,
    manifest: Manifest = None,
    json_file: JsonFile = None,
    fusion: Annotated[str | None, typer.Option(help="Fuse the views anew: mean, geometric-mean or vote.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Also by this column of the labels or manifest: vendor, age.", metavar="COLUMN")
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Limits of bands, if COLUMN holds numbers, e.g. 40,50,60.", metavar="LIMITS")
    ] = None,
    subsets: Annotated[bool, typer.Option("--subsets", help="Also for every combination of 1 to 4 views.")] = False,
    bootstrap: Bootstrap = 2000,
    calibrate: Annotated[
        str | None, typer.Option(help="cv: also judge calibration and prediction sets by cross-validation.")
    ] = None,
) -> None:
    """Figures of merit for each projection, breast and subject, with 95 % bootstrap intervals over patients.

    Example: mammodensity evaluate --csv predictions.csv --labels phantoms/manifest.csv --json figures.json
    """
    from mammodensity.commands.show import say, say_resampled, say_research_use_only
    from mammodensity.commands.show_figures import show_figures, show_further
    from mammodensity.evaluation.bootstrap import BootstrapSpec
    from mammodensity.evaluation.figures import evaluate_table, to_json
    from mammodensity.evaluation.infn_tables import read_origin_tables
    from mammodensity.evaluation.labels import patients_of, read_exam_columns, read_labels, unused_labels
    from mammodensity.evaluation.score_tables import read_score_table
    from mammodensity.outputs import require_not_input, write_json
    from mammodensity.studies.further import FurtherSpec, further_figures

    if (csv is None) == (origin is None):
        raise OptionError("give either --csv FILE or --origin DIR; see mammodensity evaluate --help")
    if labels is None:
        raise OptionError("--labels PATH is needed: the reference density of each exam")
    if calibrate not in {None, "cv"}:
        raise OptionError(f"--calibrate must be cv. Got {calibrate!r} instead.")
    read = [labels, *([manifest] if manifest else []), *([csv] if csv else (origin or Path()).glob("*"))]
    require_not_input(json_file, read)
    table = read_score_table(csv, fusion) if csv else read_origin_tables(origin or Path(), fusion or "mean")
    reference = read_labels(labels)
    columns = [read_exam_columns(path) for path in (manifest, labels) if path]
    asked = FurtherSpec(by, bands, subsets, fusion or "mean")
    if calibrate:
        _require_calibratable(table, reference)
    further = further_figures(table, reference, columns, asked=asked, spec=BootstrapSpec(bootstrap))
    figures = evaluate_table(table, reference, patients=patients_of(columns), bootstrap=bootstrap)
    show_figures(figures)
    say_resampled(figures["subject"].patients)
    show_further(further)
    unused = unused_labels(table, reference)
    if unused:
        say(f"(of the exams in {labels}, {len(unused)} were not predicted)")
    judged = _judge_calibration(table, reference) if calibrate else {}
    if json_file:
        write_json(json_file, to_json(figures) | further.to_dict() | judged)
        say(f"all figures and intervals in {json_file}")
    say_research_use_only()


def _require_calibratable(table: ScoreTable, labels: Mapping[str, Category]) -> None:
    """Too few exams are told before any work, whose figures would be lost."""
    from mammodensity.evaluation.labels import match, scored_exams
    from mammodensity.results.cross_validation import require_enough

    _require_densities(table)
    require_enough(scored_exams(table, match(table, labels))[1])


def _require_densities(table: ScoreTable) -> None:
    """Calibration and what follows from it are made for A to D."""
    if table.scale != DENSITY:
        raise TableError(f"the scores are of {table.scale}; only scores of A to D can be calibrated")


def _judge_calibration(table: ScoreTable, labels: Mapping[str, Category]) -> dict[str, Any]:
    """What calibration would be worth, by cross-validation on the subject's scores; shown, and as plain values."""
    from mammodensity.commands.show import progress_bar
    from mammodensity.commands.show_figures import show_calibration_figures
    from mammodensity.evaluation.labels import match, scored_exams
    from mammodensity.results.cross_validation import cross_validate

    scores, reference = scored_exams(table, match(table, labels))
    with progress_bar("calibrate") as progress:
        figures = cross_validate(scores, reference, progress=progress).to_dict()
    show_calibration_figures(figures)
    return {"calibration": figures}


def calibrate(
    data: Annotated[
        Path,
        typer.Argument(help="Exams with known categories; with --labels, a table of predict.", metavar="LABELLED"),
    ],
    model: Model,
    labels: Annotated[
        Path | None, typer.Option(help="Table of exam_id and density: calibrate the scores of a model.", metavar="FILE")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Of the prediction sets; by default 0.9.", metavar="SHARE")
    ] = None,
    sets: Annotated[
        str | None, typer.Option(help="Prediction sets: ordinal (as by default), marginal or class-conditional.")
    ] = None,
    fusion: Fusion = None,
    policy: Policy = None,
    split: Split = None,
    synthetic: Synthetic = False,
) -> None:
    """Make scores mean what they say, with prediction sets, by labelled predictions (--labels); or fit the default
    model's categories to a site, from 20 labelled exams on.

    Take exams that the model was not trained on. With --labels and a folder that holds no model, the default model's
    scores are calibrated.

    Example: mammodensity calibrate predictions.csv --labels phantoms/manifest.csv --model site

    Example: mammodensity calibrate phantoms --model site
    """
    of_scores = {"--coverage": coverage, "--sets": sets, "--fusion": fusion, "--policy": policy}
    of_images = {"--split": split, "--synthetic": synthetic or None}
    wrong = [name for name, value in (of_scores if labels is None else of_images).items() if value is not None]
    if wrong:
        needs = "needs --labels and a table of predict" if labels is None else "is for images, not with --labels"
        raise OptionError(f"{wrong[0]} {needs}; see mammodensity calibrate --help")
    if labels is not None:
        share = 0.9 if coverage is None else coverage
        _calibrate_scores(data, labels, model, fusion, policy or "mean", share, sets or "ordinal")
    else:
        _calibrate_categories(data, model, split, synthetic=synthetic)


def _calibrate_scores(
    predictions: Path, labels: Path, model: Path, fusion: str | None, policy: str, coverage: float, sets: str
) -> None:
    from mammodensity.commands.show import progress_bar, say, say_research_use_only
    from mammodensity.commands.show_figures import show_calibration
    from mammodensity.evaluation.labels import match, read_labels
    from mammodensity.evaluation.score_tables import read_score_table
    from mammodensity.models.checkpoint import NETWORK_FILE, joint_file, network_files
    from mammodensity.models.default import write_default_category_map
    from mammodensity.outputs import require_not_input
    from mammodensity.results.calibration import (
        CALIBRATION_FILE,
        find_overlap,
        fit_calibration,
        scores_of_views,
        write_calibration,
    )
    from mammodensity.scores import BY_THE_NETWORK

    if model.is_file():
        raise OutputError(f"{model} is a file, expected the folder of a model")
    require_not_input(model / CALIBRATION_FILE, [predictions, labels])
    joint = joint_file(model) is not None
    if joint and fusion is not None:
        raise OptionError(f"{model} holds a joint network, which fuses the views itself; leave --fusion out")
    fusion = BY_THE_NETWORK if joint else fusion or "mean"
    table = read_score_table(predictions, None if joint else fusion)
    _require_densities(table)
    reference = match(table, read_labels(labels))
    with progress_bar("calibrate") as progress:
        found = fit_calibration(
            {view: table.scores[view.value] for view in PROJECTIONS},
            reference,
            fused=scores_of_views(table, fusion, policy),
            fusion=fusion,
            policy=policy,
            coverage=coverage,
            set_kind=sets,
            progress=progress,
        )
    if not (joint or network_files(model) or (model / NETWORK_FILE).is_file()):  # of several, or of one
        write_default_category_map(model)
    found = replace(found, overlap=find_overlap(model, labels, table.exam_ids))
    path = write_calibration(model, found)
    show_calibration(found)
    for warning in found.warnings:
        say(f"note: {warning}")
    say(f"calibration in {path}; use it with predict --model {model}")
    say_research_use_only()


def _calibrate_categories(data: Path, model: Path, split: str | None, *, synthetic: bool) -> None:
    from mammodensity.commands.show import progress_bar, say, say_research_use_only
    from mammodensity.results.category_fit import ENOUGH_EXAMS
    from mammodensity.results.category_fit import fit_categories as calibrate_map

    images = find_exams(data, split, synthetic=synthetic)
    with progress_bar("calibrate") as progress:
        found = calibrate_map(images, model, progress=progress)
    for text in found.refused:
        say(f"refused: {text}")
    cuts = " / ".join(f"{cut:.1f}" for cut in found.category_map.cuts)
    say(f"categories change at {cuts} % dense, from {found.exams} exams")
    if found.exams < ENOUGH_EXAMS:
        say(f"note: fewer than {ENOUGH_EXAMS} exams; the default map still weighs in")
    say(f"agreement: default map {found.agreement_default:.2f}, refitted {found.agreement_refitted:.2f} (ten-fold)")
    if found.agreement_refitted <= found.agreement_default:
        say("note: the refit agrees no better with these exams; more exams may help, or keep the default map")
    say(f"model in {model}; use it with --model {model}")
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
    from mammodensity.commands.show import progress_bar, say, say_research_use_only
    from mammodensity.outputs import require_not_input
    from mammodensity.pages.report import write_report

    require_not_input(output, model_files(run))
    with progress_bar("report") as progress:
        page = write_report(run, output or run / "report.html", progress=progress)
    say(f"report: {page.resolve()}")
    say_research_use_only()
