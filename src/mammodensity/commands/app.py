"""The command line: one command a stage, each calling the same functions as a notebook would.

Heavy libraries are imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from mammodensity import __version__
from mammodensity.commands.studies import Bootstrap, JsonFile, Manifest, compare, drift, readers, sample_size
from mammodensity.errors import (
    ImageError,
    Interrupted,
    LayoutError,
    MammodensityError,
    OptionError,
    OutputError,
    TableError,
    printable,
)
from mammodensity.terms import CATEGORIES, PROJECTIONS, RESEARCH_USE_ONLY, Category, Projection
from mammodensity.workers import launched

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mammodensity.data.dataset import DataSet
    from mammodensity.evaluation.score_tables import ScoreTable
    from mammodensity.models.default import TissueModel
    from mammodensity.models.trained import DensityModel
    from mammodensity.results.calibration import Calibration
    from mammodensity.results.rules import Rules
    from mammodensity.scores import ExamScores

app = typer.Typer(
    name="mammodensity",
    help=f"Breast density from screening mammograms, with the evidence for it. {RESEARCH_USE_ONLY}",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_MOST_PICTURED = 40  # exams on a page of results
_INTERRUPTED = 130  # what shells report for Ctrl-C
_STOPPED = "interrupted; no output was left half-written"
_NO_MEMORY = "not enough memory; use a smaller --size, a smaller batch or fewer images"

Data = Annotated[
    Path, typer.Argument(help="DICOM files, exam folders, the origin's folders, or a manifest.", metavar="DATA")
]
Model = Annotated[Path, typer.Option("--model", help="Model folder.", metavar="DIR")]
ModelOrDefault = Annotated[
    Path | None, typer.Option("--model", help="Model folder; without it, the default model.", metavar="DIR")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Fusion = Annotated[
    str | None, typer.Option("--fusion", help="How views are fused: mean (as by default), geometric-mean or vote.")
]
Policy = Annotated[
    str | None, typer.Option(help="What speaks for the subject: mean of the views, or the denser breast (denser).")
]
Synthetic = Annotated[
    bool, typer.Option("--synthetic", help="Accept 2-D images computed from tomosynthesis, and mark them.")
]
Split = Annotated[str | None, typer.Option(help="Only this split: train, validation or test.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if context.invoked_subcommand not in (None, "train") and launched():
        raise OptionError(
            f"{context.invoked_subcommand} runs in one process; only train runs under torchrun (predict has --workers)"
        )
    if version:
        typer.echo(f"mammodensity {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="New folder to write to.", metavar="OUT")],
    exams: Annotated[int, typer.Option(help="Exams to make, four images each.")] = 40,
    size: Annotated[int, typer.Option(help="Rows of each image.", metavar="ROWS")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 1,
    mix: Annotated[str, typer.Option(help="Categories A-D: balanced, or population (10/40/40/10 %).")] = "balanced",
    bits: Annotated[int, typer.Option(help="Bits a pixel: 8 or 16.")] = 8,
) -> None:
    """Make synthetic exams with known dense tissue, in the origin's folders.

    Example: mammodensity phantom --exams 40 --size 256 --seed 1 phantoms
    """
    from mammodensity.commands.show import how_many, progress_bar, say
    from mammodensity.phantom.exams import PhantomSpec, write_phantoms

    spec = PhantomSpec(rows=size, seed=seed, mix=mix, bits=bits)
    with progress_bar("phantoms") as progress:
        manifest = write_phantoms(spec, exams, out, progress=progress)
    say(f"{how_many(exams, 'exam')} in {out}, listed in {manifest}")


@app.command()
def check(
    paths: Annotated[
        list[Path], typer.Argument(help="Data sets, DICOM archives or files of any kind.", metavar="PATH...")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write a list with one entry a file.", metavar="FILE")
    ] = None,
    no_pixels: Annotated[bool, typer.Option("--no-pixels", help="Judge by headers and names alone.")] = False,
    synthetic: Synthetic = False,
) -> None:
    """Say what is there, which files are refused and why; exit code 1 if it should not be used.

    Example: mammodensity check phantoms
    """
    from mammodensity.commands.show import progress_bar, show_check
    from mammodensity.outputs import require_not_input, write_json
    from mammodensity.workflows.check import check_paths

    with progress_bar("check") as progress:
        results = check_paths(paths, read_pixels=not no_pixels, synthetic=synthetic, progress=progress)
    for result in results:
        show_check(result)
    require_not_input(json_file, (Path(file.path) for result in results for file in result.files))
    if json_file:
        write_json(json_file, [entry for result in results for entry in result.to_list()])
    for problem in (one for result in results for one in result.problems if one.code == "unknown-layout"):
        raise LayoutError(problem.text)
    if not all(result.usable for result in results):
        raise typer.Exit(1)


@app.command()
def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of a data set, or its table.", metavar="DATA")],
    out: Annotated[Path | None, typer.Argument(help="New folder to write to.", metavar="OUT")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="vindr, rsna, cbis-ddsm, ddsm, inbreast, embed, mini-mias, origin, csv; default: by its tables.",
            metavar="NAME",
        ),
    ] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Folder of the data set's tables, if it is not DATA.", metavar="DIR")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="For csv: field=column,... e.g. exam_id=StudyID,density=acr.", metavar="PAIRS")
    ] = None,
    meaning: Annotated[
        str | None, typer.Option("--values", help="For csv: value=category,... e.g. 1=A,2=B,9=.", metavar="PAIRS")
    ] = None,
    keep_unlabelled: Annotated[
        bool, typer.Option("--keep-unlabelled", help="With --dataset: keep exams without a category.")
    ] = False,
    spec_file: Annotated[
        Path | None, typer.Option("--spec", help="JSON with crop, pectoral, background, depth.", metavar="FILE")
    ] = None,
    salt: Annotated[str, typer.Option(help="Secret that goes into the keys; by default drawn and forgotten.")] = "",
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep names of exams and patients, and dates.")
    ] = False,
    synthetic: Synthetic = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the exams, by tables or by headers and names.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Make a training set of an archive or a public data set: cropped pictures in the origin's folders, and a manifest.

    Example: mammodensity prepare archive training-set
    """
    from mammodensity.commands.show import how_many, progress_bar, say, show_found, show_listed
    from mammodensity.data.dataset import exam_sources, found_images, refused_files
    from mammodensity.data.public.csv_table import column_spec
    from mammodensity.outputs import require_apart, require_not_input, write_json
    from mammodensity.workflows.prepare import find_exams, find_untabled, holds_known_tables, sources_of
    from mammodensity.workflows.training_set import ExportSpec, export_exams, read_preprocess

    if out is None and not dry_run:
        raise OptionError("OUT is needed: the folder to write to; or give --dry-run to list the exams only")
    if out is not None:
        require_apart(out, data)
    spec = ExportSpec(read_preprocess(spec_file), salt, keep_names)
    mapping = column_spec(columns, meaning) if columns or meaning else None
    by_tables = dataset or mapping or tables or holds_known_tables(data)
    images = None if by_tables else find_untabled(data, synthetic=synthetic, dry_run=dry_run)
    if images is None:
        with progress_bar("exams") as progress:
            found = find_exams(
                data, dataset, tables=tables, columns=mapping, keep_unlabelled=keep_unlabelled, progress=progress
            )
        show_found(found)
        if json_file:
            write_json(json_file, found.to_dict())
        exams = sources_of(found)
        refused = []
    else:
        require_not_input(json_file, (record.path for record in images.records))
        if dry_run:
            show_listed(found_images(images))
        if json_file:
            write_json(json_file, found_images(images))
        exams, refused = exam_sources(images), refused_files(images)
    if dry_run or out is None:
        return
    if not exams:
        raise LayoutError(f"{data} holds no image file of the exams in its tables; expected them beside or below it")
    with progress_bar("prepare") as progress:
        manifest = export_exams(exams, out, spec, refused=refused, resume=resume, progress=progress)
    say(f"{how_many(len(exams), 'exam')} in {out}, listed in {manifest}; files that were not used are in refused.csv")


@app.command()
def segment(
    images: Annotated[
        list[Path], typer.Argument(help="Pictures, DICOM files, or folders of them, of any depth.", metavar="IMAGES...")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write to.", metavar="DIR")],
    synthetic: Synthetic = False,
) -> None:
    """Find adipose (1), fibroglandular (2) and pectoral (3): label images, and segment.csv with percent density.

    Example: mammodensity segment phantoms/MLO_R/A --output tissue
    """
    from mammodensity.commands.show import progress_bar, say, say_research_use_only
    from mammodensity.workflows.segment import write_segmentations

    with progress_bar("segment") as progress:
        count, notes = write_segmentations(images, output, synthetic=synthetic, progress=progress)
    for note in notes:
        say(f"refused: {note}")
    say(f"{count} label images and segment.csv in {output}")
    say_research_use_only()


@app.command()
def recipe(name: Annotated[str, typer.Argument(help="Name of a recipe.")] = "small") -> None:
    """Print a training recipe as JSON, to look at or to change and give to `train --recipe FILE.json`.

    Example: mammodensity recipe origin
    """
    from mammodensity.training.recipes import find_recipe

    typer.echo(json.dumps(find_recipe(name).to_dict(), indent=2))


@app.command()
def train(
    data: Data,
    model: Model,
    projection: Annotated[
        list[Projection] | None, typer.Option(help="Train only these, e.g. --projection CC_R MLO_R.")
    ] = None,
    recipe_name: Annotated[str, typer.Option("--recipe", help="small, origin, or a .json file.")] = "small",
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the recipe's.")] = None,
    size: Annotated[int | None, typer.Option(help="Image rows and columns, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of splits, weights and augmentation.")] = None,
    shares: Annotated[
        tuple[float, float, float],
        typer.Option(
            help="Shares of train, validation and test, if the data set has no splits.",
            metavar="TRAIN VALIDATION TEST",
            show_default="0.8 0.1 0.1",
        ),
    ] = (0.8, 0.1, 0.1),
    start: Annotated[
        Path | None,
        typer.Option(help="Model folder whose networks to begin with, e.g. trained on phantoms.", metavar="DIR"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    device: Device = "auto",
    joint: Annotated[bool, typer.Option("--joint", help="Train one network of all four projections.")] = False,
    fusion: Annotated[
        str | None, typer.Option(help="Joint: how it fuses views: mean (as by default), concat or attention.")
    ] = None,
    branches: Annotated[
        str | None, typer.Option(help="Joint: separate (as by default), or shared by right and mirrored left.")
    ] = None,
    view_dropout: Annotated[
        float | None, typer.Option(help="Joint: share of views left out at random; by default 0.25.", metavar="SHARE")
    ] = None,
    view_loss: Annotated[
        float | None,
        typer.Option(help="Joint: weight of what each view alone gets right; by default 1.", metavar="WEIGHT"),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 on processors and GPUs that compute in it.")] = "fp32",
    checkpointing: Annotated[
        str | None,
        typer.Option(help="Joint: none (as by default), or in little memory, computing twice: views or layers."),
    ] = None,
) -> None:
    """Train a network for each projection of the data, or with --joint one of all four; then score the test split.

    Example: mammodensity train phantoms --model model --epochs 20 --size 128

    Example: mammodensity train phantoms --model joint --joint --fusion attention --epochs 20 --size 128

    Example: torchrun --standalone --nproc-per-node 2 -m mammodensity train phantoms --model model --size 128
    """
    from mammodensity.commands.show import say, say_research_use_only, show_figures, training_bars
    from mammodensity.training.joint_network import JointPlan
    from mammodensity.workflows.train import train as train_networks

    asked = {
        "fusion": fusion,
        "branches": branches,
        "view_dropout": view_dropout,
        "view_loss": view_loss,
        "checkpointing": checkpointing,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if given and not joint:
        raise OptionError(f"--{next(iter(given)).replace('_', '-')} is of the joint network; add --joint")
    place = launched()
    first = place is None or place.rank == 0
    with training_bars() as (loading, report, testing):
        trained = train_networks(
            data,
            model=model,
            recipe=recipe_name,
            epochs=epochs,
            size=size,
            seed=seed,
            projections=projection,
            joint=JointPlan(**given, precision=precision) if joint else None,
            precision=precision,
            device=device,
            shares=shares,
            start=start,
            resume=resume,
            loading=loading,
            report=report,
            testing=testing,
            note=say,
        )
    if not first:
        return
    if trained.figures:
        show_figures(trained.figures)
    say(f"model in {model}, described in {trained.card}")
    say_research_use_only()


@app.command("train-default")
def train_default(
    out: Annotated[Path, typer.Argument(help="Folder to write to, or to go on in.", metavar="OUT")],
    breasts: Annotated[int, typer.Option(help="Phantoms to trace.")] = 480,
    outline_steps: Annotated[int, typer.Option(help="Training steps of the segmenter.")] = 5000,
    tissue_steps: Annotated[int, typer.Option(help="Training steps of the first tissue network.")] = 7500,
    readers_steps: Annotated[int, typer.Option(help="Training steps of the second, of readers who differ.")] = 15000,
    seed: Annotated[int, typer.Option(help="Seed of weights and disturbances.")] = 1,
    device: Device = "auto",
) -> None:
    """Make the default model's networks again, from synthetic breasts and a seed; two hours on two cores.

    Example: mammodensity train-default default-networks
    """
    from mammodensity.commands.show import say, say_research_use_only, stage_bars
    from mammodensity.research.default_networks import DefaultRecipe
    from mammodensity.research.default_networks import train_default as train_networks
    from mammodensity.workers import find_device

    recipe = DefaultRecipe(
        breasts=breasts, outline_steps=outline_steps, tissue_steps=tissue_steps, readers_steps=readers_steps, seed=seed
    )
    with stage_bars() as progress:
        written = train_networks(out, recipe, find_device(device), progress)
    say("networks in " + " and ".join(str(path) for path in written))
    say_research_use_only()


@app.command()
def predict(
    data: Data,
    model: ModelOrDefault = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Table to write.", metavar="FILE")] = None,
    origin_txt: Annotated[
        Path | None, typer.Option("--origin-txt", help="Also write the origin's four text files.", metavar="DIR")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results, as `schema` says.", metavar="FILE")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Also write the results as a table, one row an exam.", metavar="FILE"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the results as a page.", metavar="FILE")] = None,
    split: Split = None,
    fusion: Fusion = None,
    policy: Policy = None,
    coverage: Annotated[
        float | None, typer.Option(help="Of prediction sets; by default the calibration's own.", metavar="SHARE")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="JSON file of rules for flags and abstention.", metavar="FILE")
    ] = None,
    notification: Annotated[
        bool, typer.Option("--notification", help="Add the sentence of 21 CFR 900.12(c) to results.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Fuse the views present where views are missing, and mark it.")
    ] = False,
    synthetic: Synthetic = False,
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option(help="What runs trained networks: torch, onnx, openvino or openvino-int8.")
    ] = "torch",
    workers: Annotated[
        int, typer.Option(help="Processes that score exams side by side and share the cores.", min=1)
    ] = 1,
) -> None:
    """Read exams: category or abstention, with flags; scores by exam, breast and projection.

    Without --model the default model reads them, which also gives percent density. A model that was calibrated gives
    calibrated scores and prediction sets (--json, --results, --html); --csv always holds the scores as they are.

    Example: mammodensity predict phantoms --csv predictions.csv --html results.html
    """
    from mammodensity.commands.show import how_many, say, say_research_use_only
    from mammodensity.data.dataset import require_complete
    from mammodensity.models.scoring import predict as predict_exams
    from mammodensity.models.scoring import predict_in_workers, require_networks
    from mammodensity.models.trained import load_model
    from mammodensity.outputs import require_not_input
    from mammodensity.results.rules import STANDARD_RULES, read_rules
    from mammodensity.results.score_calibration import require_coverage

    images = _images_of(data, split, synthetic=synthetic)
    outputs = [path for path in (csv, json_file, results, html) if path]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OptionError("--csv, --json, --results and --html must name different files")
    for output in outputs:
        require_not_input(output, _files_read(images, data, model))
    settings = read_rules(rules) if rules else STANDARD_RULES
    calibration = _read_calibration(model)
    fusion, policy = _fusion_and_policy(calibration, fusion, policy)
    require_coverage(0.9 if coverage is None else coverage)
    if coverage is not None and calibration is None:
        raise OptionError("--coverage needs a calibrated model: give its folder with --model; `calibrate` makes one")
    if notification and not (json_file or html):
        raise OptionError("--notification adds to --json and --html; give one of them")
    if origin_txt:
        require_complete(images)  # before any image is scored
    scorer = _load_model(model, device, engine)
    require_networks(scorer, images, all_projections=origin_txt is not None)
    how: dict[str, Any] = {"fusion": fusion, "policy": policy, "allow_missing": allow_missing}
    if workers > 1:
        exams = predict_in_workers(scorer, partial(load_model, model, device, engine), images, workers, **how)
    else:
        exams = predict_exams(scorer, images, **how)
    scored = _score(exams, images, csv)
    _write_scores(scored, images, csv, origin_txt)
    for exam in scored:
        for text in exam.refused.values():
            say(f"refused: {text}")
    _give_results(
        scored,
        (calibration, settings, coverage, model),
        {"json": json_file, "table": results, "page": html},
        notification=notification,
        warnings=(*scorer.warnings, *(calibration.warnings if calibration else ())),
        pictures=_tissue_pictures(scorer, images, scored) if html else {},
    )
    for path in (csv, results, json_file, html):
        if path:
            say(f"{how_many(len(scored), 'exam')} in {path}")
    say_research_use_only()


def _read_calibration(model: Path | None) -> Calibration | None:
    """The calibration of a model folder, and what its user must know."""
    from mammodensity.commands.show import say
    from mammodensity.results.calibration import read_calibration

    found = read_calibration(model) if model else None
    for warning in found.warnings if found else ():
        say(f"note: {model}: {warning}")
    return found


def _score(exams: Generator[ExamScores, None, None], images: DataSet, csv: Path | None) -> list[ExamScores]:
    """Score every exam; what is done is kept at Ctrl-C."""
    from mammodensity.commands.show import progress_bar

    scored: list[ExamScores] = []
    total = len({record.exam_id for record in images.records})
    try:
        with closing(exams), progress_bar("predict") as progress:
            for exam in exams:
                scored.append(exam)
                progress(len(scored), total)
    except KeyboardInterrupt:
        raise _keep_incomplete(csv, scored) from None
    refused = [text for exam in scored for text in exam.refused.values()]
    if refused and not any(exam.projections for exam in scored):
        raise ImageError(refused[0])
    return scored


def _write_scores(scored: list[ExamScores], images: DataSet, csv: Path | None, origin_txt: Path | None) -> None:
    from mammodensity.data.dataset import reference_densities
    from mammodensity.evaluation.infn_tables import write_origin_tables
    from mammodensity.evaluation.score_tables import write_score_table
    from mammodensity.models.scoring import stacked_projections
    from mammodensity.outputs import staged_folder

    if origin_txt:
        labels = reference_densities(images)
        # as the origin's files are sorted: by class folder, then by name
        rows = sorted(scored, key=lambda exam: (labels.get(exam.exam_id, ""), exam.exam_id))
        with staged_folder(origin_txt) as staging:  # all five files and the table, or none
            write_origin_tables(staging, [exam.exam_id for exam in rows], stacked_projections(rows), labels)
            if csv:
                write_score_table(csv, scored)
    elif csv:
        write_score_table(csv, scored)


def _give_results(
    scored: list[ExamScores],
    made_by: tuple[Calibration | None, Rules, float | None, Path | None],
    files: Mapping[str, Path | None],
    *,
    notification: bool,
    warnings: tuple[str, ...],
    pictures: Mapping[str, Any],
) -> None:
    """Turn scores into results by a calibration, rules and coverage; write those asked for, and show them."""
    from mammodensity.commands.show import show_results
    from mammodensity.models.trained import model_hashes, model_name
    from mammodensity.outputs import receipt, write_json
    from mammodensity.pages.results import MadeBy, write_results_page
    from mammodensity.results.result import exam_result, write_result_table

    calibration, rules, coverage, model = made_by
    name = model_name(model)
    facts = {"model_name": name, "model": model_hashes(model), "warnings": list(warnings), "rules": rules.to_dict()}
    provenance = receipt("predict", **facts)
    found = [exam_result(exam, calibration, rules=rules, coverage=coverage, provenance=provenance) for exam in scored]
    if path := files["json"]:
        write_json(path, [result.to_dict(notification=notification) for result in found])
    if path := files["table"]:
        write_result_table(path, found)
    if path := files["page"]:
        write_results_page(path, found, MadeBy(name, warnings), notification=notification, pictures=pictures)
    show_results(found)


def _tissue_pictures(scorer: Any, images: DataSet, scored: list[ExamScores]) -> dict[str, Any]:
    """What the default model found in the first exams, for their page; the maps of trained networks need a verdict."""
    from mammodensity.commands.show import progress_bar
    from mammodensity.data.images import load_exam
    from mammodensity.models.default import TissueModel
    from mammodensity.pages.examples import tissue_views

    if not isinstance(scorer, TissueModel):
        return {}
    pictures = {}
    records = images.exams()
    with progress_bar("pictures") as progress:
        for done, exam in enumerate(scored[:_MOST_PICTURED], start=1):
            used = {view: record for view, record in records[exam.exam_id].items() if view in exam.projections}
            pictures[exam.exam_id] = tissue_views(scorer, load_exam(exam.exam_id, used))
            progress(done, min(len(scored), _MOST_PICTURED))
    return pictures


def _fusion_and_policy(
    calibration: Calibration | None, fusion: str | None, policy: str | None
) -> tuple[str | None, str]:
    """As asked for; else as calibrated; else the model's own fusion, and the mean."""
    from mammodensity.results.result import require_same_fusion
    from mammodensity.scores import POLICIES

    if policy is not None and policy not in POLICIES:
        raise OptionError(f"--policy must be one of {', '.join(POLICIES)}. Got {policy!r} instead.")
    if calibration is None:
        return fusion, policy or "mean"
    chosen = fusion or calibration.fusion, policy or calibration.policy
    require_same_fusion(calibration, *chosen)
    return chosen


@app.command()
def schema() -> None:
    """Print the JSON schema of the results that `predict --json` writes.

    Example: mammodensity schema
    """
    from mammodensity.results.result import result_schema

    typer.echo(json.dumps(result_schema(), indent=2))


def _keep_incomplete(csv: Path | None, scored: list[Any]) -> Interrupted:
    """Write what is done beside the table that was asked for, under a name that says so."""
    from mammodensity.evaluation.score_tables import write_score_table

    if not scored or csv is None:
        return Interrupted("interrupted; nothing was written")
    incomplete = csv.with_name(f"{csv.stem}.incomplete{csv.suffix}")
    write_score_table(incomplete, scored)
    return Interrupted(f"interrupted; the {len(scored)} exams scored so far are in {incomplete}")


@app.command()
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
    from mammodensity.commands.show import say, say_resampled, say_research_use_only, show_figures
    from mammodensity.commands.study_tables import show_further
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


app.command()(compare)
app.command()(readers)
app.command()(drift)
app.command("sample-size")(sample_size)


def _require_calibratable(table: ScoreTable, labels: Mapping[str, Category]) -> None:
    """Too few exams are told before any work, whose figures would be lost."""
    from mammodensity.evaluation.labels import match, scored_exams
    from mammodensity.results.cross_validation import require_enough

    _require_densities(table)
    require_enough(scored_exams(table, match(table, labels))[1])


def _require_densities(table: ScoreTable) -> None:
    """Calibration and what follows from it are made for A to D."""
    if table.scale != CATEGORIES:
        raise TableError(f"the scores are of {', '.join(table.scale)}; only scores of A to D can be calibrated")


def _judge_calibration(table: ScoreTable, labels: Mapping[str, Category]) -> dict[str, Any]:
    """What calibration would be worth, by cross-validation on the subject's scores; shown, and as plain values."""
    from mammodensity.commands.show import progress_bar, show_calibration_figures
    from mammodensity.evaluation.labels import match, scored_exams
    from mammodensity.results.cross_validation import cross_validate

    scores, reference = scored_exams(table, match(table, labels))
    with progress_bar("calibrate") as progress:
        figures = cross_validate(scores, reference, progress=progress).to_dict()
    show_calibration_figures(figures)
    return {"calibration": figures}


@app.command()
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
    from mammodensity.commands.show import progress_bar, say, say_research_use_only, show_calibration
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

    images = _images_of(data, split, synthetic=synthetic)
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


@app.command("import-keras")
def import_keras(
    file: Annotated[Path, typer.Argument(help="Whole-model HDF5 file of the origin's network.", metavar="FILE.h5")],
    projection: Annotated[Projection, typer.Option(help="The projection it was trained on.")],
    model: Model,
) -> None:
    """Turn a Keras file of the origin's network (Keras 2.2, tf.keras or Keras 3) into a network of ours.

    Example: mammodensity import-keras resnet_ccr.h5 --projection CC_R --model model
    """
    from mammodensity.commands.show import say
    from mammodensity.models.checkpoint import joint_file, network_files, save_checkpoint
    from mammodensity.models.keras_import import import_keras as read_keras
    from mammodensity.pages.model_card import write_model_card

    if joint_file(model):
        raise OutputError(f"{model} holds a joint network; name another folder for networks of one projection")
    if projection in network_files(model):
        raise OutputError(f"{model} already holds a network for {projection}; remove it first or name another folder")
    path = save_checkpoint(model / projection.value, read_keras(file, projection))
    write_model_card(model)
    say(f"{projection} network in {path}")


@app.command()
def explain(
    data: Data,
    output: Annotated[
        Path, typer.Option(help="Folder to write to; what explain wrote there before goes.", metavar="DIR")
    ],
    model: ModelOrDefault = None,
    category: Annotated[
        str | None,
        typer.Option(
            help="Category to explain, instead of the predicted one: A to D, or F, G, D of a network of those.",
            metavar="LETTER",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Explain why the category rather than this one.", metavar="LETTER")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="For trained networks, one or several of: grad-cam (default), grad-cam++, hires-cam, layer-cam, "
            "score-cam, integrated-gradients, occlusion.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer, e.g. stages.2; by default the last block.")] = None,
    side: Annotated[
        bool, typer.Option("--side-by-side", help="Also each image and its map next to each other, at full size.")
    ] = False,
    split: Split = None,
    first: Annotated[int | None, typer.Option(help="Only the first N exams.", metavar="N", min=1)] = None,
    synthetic: Synthetic = False,
    device: Device = "auto",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write each map's scores, baselines and verdict.", metavar="FILE"),
    ] = None,
) -> None:
    """Draw the evidence: map, overlay and contour of each image, and a page of each exam, each with its verdict.

    Below a page stands what predict says of the exam: category or abstention, flags, warnings.

    Without --model that is the dense tissue the default model found, else where each network looked. Several methods
    get a page that shows them together.

    Example: mammodensity explain phantoms --first 4 --output explanations
    """
    from mammodensity.commands.show import how_many, progress_bar, say, say_research_use_only
    from mammodensity.outputs import require_apart, require_not_input
    from mammodensity.workflows.explain import SUMMARY_FILE, write_explanations

    images = _images_of(data, split, synthetic=synthetic).first_exams(first)
    if output.resolve() in {record.path.resolve().parent for record in images.records}:
        raise OutputError(f"{output} holds images of the data set; name another folder for the pictures")
    require_apart(output, data)
    require_not_input(json_file, _files_read(images, data, model))
    if json_file and json_file.resolve() == (output / SUMMARY_FILE).resolve():
        raise OutputError(f"{json_file} is the summary that explain writes itself; name another file for --json")
    explained = _load_model(model, device)
    calibration = _read_calibration(model)
    with progress_bar("explain") as progress:
        done = write_explanations(
            explained,
            images,
            output,
            methods=[name.strip() for name in method.split(",")] if method else (),
            category=category,
            against=against,
            layer=layer,
            scores_file=json_file,
            calibration=calibration,
            side=side,
            progress=progress,
        )
    for text in done.refused:
        say(f"refused: {text}")
    say(f"{how_many(len(done.pages), 'exam')} in {output}; look at {done.pages[0]} first")
    if json_file:
        say(f"scores and verdicts in {json_file}")
    say_research_use_only()


@app.command("explain-benchmark")
def explain_benchmark(
    json_file: Annotated[Path, typer.Option("--json", help="File to write the table to.", metavar="FILE")],
    model: Annotated[
        Path | None, typer.Option(help="Model with a network for MLO_R; without it, three small ones.", metavar="DIR")
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(help="Another model, trained on shuffled labels, say: how alike are the maps?", metavar="DIR"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Also images/ and masks/ of right MLO views.", metavar="FOLDER")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Only these methods; by default all.", metavar="NAME[,NAME...]")
    ] = None,
    exams: Annotated[int, typer.Option(help="Phantoms to train on.", metavar="N")] = 64,
    held_back: Annotated[int, typer.Option("--held-back", help="Phantoms to score on.", metavar="N")] = 8,
    epochs: Annotated[int, typer.Option(help="Of training.", metavar="N")] = 24,
    seed: Annotated[int, typer.Option(help="Of phantoms and training.")] = 5,
    device: Device = "auto",
) -> None:
    """Score explanation methods where the dense tissue is known: on phantoms, and on real masks if given.

    Without --model, three networks are trained on the fly: on true categories, on shuffled ones, and on phantoms with a
    marker that tells the category. Their maps show what the scores and verdicts can tell.

    Example: mammodensity explain-benchmark --json benchmark.json
    """
    from mammodensity.commands.show import say, say_research_use_only, show_table, stage_bars
    from mammodensity.explanation.methods import METHODS
    from mammodensity.models.trained import load_networks
    from mammodensity.outputs import require_not_input, write_json
    from mammodensity.research.benchmark_networks import BenchmarkSpec
    from mammodensity.research.explanation_benchmark import COLUMNS, run_benchmark, tables

    spec = BenchmarkSpec(exams=exams, held_back=held_back, epochs=epochs, seed=seed)
    files = [file for one in (model, other) if one for file in _model_files(one)]
    require_not_input(json_file, [*(data.rglob("*.png") if data else []), *files])
    with stage_bars() as progress:
        result = run_benchmark(
            spec,
            model=load_networks(model, device) if model else None,
            other=load_networks(other, device) if other else None,
            data=data,
            methods=[name.strip() for name in method.split(",")] if method else tuple(METHODS),
            progress=progress,
        )
    for title, rows in tables(result):
        say(title)
        show_table(COLUMNS, rows)
    write_json(json_file, result)
    say(f"all scores and baselines in {json_file}")
    say_research_use_only()


@app.command()
def counterfactual(
    output: Annotated[Path, typer.Option(help="Folder to write plots to.", metavar="DIR")],
    data: Annotated[
        Path | None, typer.Argument(help="Exams, which are painted with more or less dense tissue.", metavar="DATA")
    ] = None,
    model: ModelOrDefault = None,
    phantoms: Annotated[int, typer.Option(help="Also so many phantoms, rendered anew.", metavar="N", min=0)] = 0,
    steps: Annotated[int, typer.Option(help="Amounts of dense tissue, from 1 to 80 per cent.", metavar="N")] = 9,
    seed: Annotated[int, typer.Option(help="Of the phantoms.")] = 1,
    split: Split = None,
    first: Annotated[int | None, typer.Option(help="Only the first N exams.", metavar="N", min=1)] = None,
    synthetic: Synthetic = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Ask what the answer would be with more or less dense tissue, and how far each exam is from another answer.

    Example: mammodensity counterfactual phantoms --first 4 --output density --json density.json

    Example: mammodensity counterfactual --phantoms 8 --model model --output density
    """
    from mammodensity.commands.show import progress_bar, say, say_research_use_only, show_table
    from mammodensity.outputs import require_apart, require_not_input, write_json
    from mammodensity.workflows.counterfactuals import rows_of, write_counterfactuals

    images = None
    require_not_input(json_file, _model_files(model) if model else [])
    if data is not None:
        require_apart(output, data)
        images = _images_of(data, split, synthetic=synthetic).first_exams(first)
        require_not_input(json_file, _files_read(images, data, model))
    read = _load_model(model, device)
    with progress_bar("counterfactual") as progress:
        result = write_counterfactuals(
            read, images, output, phantoms=phantoms, steps=steps, seed=seed, progress=progress
        )
    show_table(
        ["exam", "category", "% dense", "flips below", "flips above", "points to flip", "monotone"], rows_of(result)
    )
    say(f"in {result['monotone_share']:.0%} of the exams more dense tissue never lowers the expected category")
    for text in result["refused"]:
        say(f"refused: {text}")
    if json_file:
        write_json(json_file, result)
        say(f"every step in {json_file}")
    say(f"plots in {output}")
    say_research_use_only()


@app.command()
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

    require_not_input(output, _model_files(run))
    with progress_bar("report") as progress:
        page = write_report(run, output or run / "report.html", progress=progress)
    say(f"report: {page.resolve()}")
    say_research_use_only()


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="New folder, a file or bundle a network.", metavar="OUT")],
    model: Model,
    file_format: Annotated[str, typer.Option("--format", help="onnx, leaderboard or monai.")] = "onnx",
) -> None:
    """Write a model's networks as files that other programs can run, each compared with the network it was made from.

    Example: mammodensity export exported --model model
    """
    from mammodensity.commands.show import how_many, progress_bar, say, say_research_use_only
    from mammodensity.models.export import FORMATS, export_network, networks_to_export
    from mammodensity.outputs import atomic_folder

    if file_format not in FORMATS:
        raise OptionError(f"--format must be one of {', '.join(FORMATS)}. Got {file_format!r} instead.")
    networks = networks_to_export(model, file_format)
    with progress_bar("export") as progress, atomic_folder(output) as staging:
        for done, network in enumerate(networks, start=1):
            name, difference = export_network(network, staging, file_format)
            progress(done, len(networks))
            say(f"{name}: scores as the network's within {difference:.1g}")
    say(f"{how_many(len(networks), 'network')} in {output}")
    say_research_use_only()


def _images_of(path: Path, split: str | None, *, synthetic: bool = False) -> DataSet:
    """The images of a data set, or of one of its splits."""
    from mammodensity.commands.show import say
    from mammodensity.data.dataset import SPLITS
    from mammodensity.data.find import find_images

    if split is not None and split not in SPLITS:
        raise OptionError(f"--split must be one of {', '.join(SPLITS)}. Got {split!r} instead.")
    images = find_images(path, synthetic=synthetic).in_split(split)
    if images.refused:
        say(f"{len(images.refused)} files in {path} were refused; `mammodensity check` says why")
    if not images.records:
        raise LayoutError(
            f"{path} has no image in the {split} split; `mammodensity check` shows which splits there are"
        )
    return images


def _files_read(images: DataSet, data: Path, model: Path | None) -> list[Path]:
    """What a command reads, so that it does not write over it."""
    of_model = _model_files(model) if model else []
    return [*(record.path for record in images.records), data, data / "manifest.csv", *of_model]


def _model_files(model: Path) -> list[Path]:
    kept = [path for pattern in ("*.safetensors", "*.json", "history.csv") for path in model.rglob(pattern)]
    return [*kept, model / "manifest.csv"]


def _load_model(path: Path | None, device: str, engine: str = "torch") -> DensityModel | TissueModel:
    """Load a model and say what its user must know."""
    from mammodensity.commands.show import say
    from mammodensity.models.trained import load_model

    model = load_model(path, device, engine)
    for warning in model.warnings:
        say(f"note: {path}: {warning}" if path else f"note: {warning}")
    return model


def _repeat_projection_option(arguments: list[str]) -> list[str]:
    """``--projection CC_R MLO_R`` as ``--projection CC_R --projection MLO_R``, which the parser understands."""
    spread: list[str] = []
    listing = False
    for argument in arguments:
        if listing and argument in PROJECTIONS and spread[-1] != "--projection":
            spread.append("--projection")
        elif argument not in PROJECTIONS:
            listing = argument == "--projection"
        spread.append(argument)
    return spread


def main(arguments: list[str] | None = None) -> None:
    """Run a command; every mistake of the user's ends in one line on standard error and a non-zero exit code."""
    # Threads that wait must not spin: on a shared machine that makes torch up to fifty times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop_politely)
    # Names in other scripts have letters that the pictures' font lacks; a box stands for them there.
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
    given = _repeat_projection_option(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given, standalone_mode=False)
    except MammodensityError as error:
        _fail(str(error), error.exit_code)
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "")  # pydantic's words, not ours
        _fail(f"{message} (see mammodensity --help)", OptionError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail(_STOPPED, _INTERRUPTED)
    except BrokenPipeError:
        with suppress(OSError):
            sys.stderr.close()
        sys.exit(1)
    except UnicodeEncodeError:
        _fail("a file or folder name is not valid UTF-8; rename it (`mammodensity check` may name it)", 1)
    except MemoryError:
        _fail(_NO_MEMORY, 1)
    except RuntimeError as error:
        if "memory" not in str(error):  # how torch says it, on the CPU and on a GPU
            raise
        _fail(_NO_MEMORY, 1)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}; check that it can be read and written", 1)
    if code == _INTERRUPTED:  # the parser's way to say Ctrl-C
        _fail(_STOPPED, _INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _stop_politely(_number: int, _frame: FrameType | None) -> None:
    """A SIGTERM stops as Ctrl-C does, so that working folders and worker processes go, too."""
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    place = launched()
    if place is None or place.rank == 0:
        print(f"mammodensity: {printable(' '.join(message.split()))}", file=sys.stderr)
    elif code != OptionError.exit_code:  # options are the same for all processes, and the first tells what is wrong
        whose = f"process {place.rank} of {place.size}, counted from 0"
        print(f"mammodensity: {whose}: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)
