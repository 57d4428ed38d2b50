"""Commands that explain the results of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import mammodensity
from mammodensity.commands.options import (
    AllowMissing,
    Device,
    Exams,
    First,
    JsonFile,
    ModelOrDefault,
    Split,
    Synthetic,
    files_read,
    find_exams,
    load_model,
    model_files,
)
from mammodensity.commands.show import (
    finish,
    how_many,
    progress_bar,
    say,
    say_each,
    say_research_use_only,
    show_table,
    stage_bars,
)
from mammodensity.errors import OutputError
from mammodensity.outputs import require_apart, require_not_input


def explain(
    data: Exams,
    output: Annotated[
        Path, typer.Option(help="Name a folder to write to; pages of an earlier run are replaced.", metavar="DIR")
    ],
    model: ModelOrDefault = None,
    category: Annotated[
        str | None,
        typer.Option(
            help="Explain this category, A to D or F, G, D, instead of the one that predict gives.",
            metavar="LETTER",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Explain why the category, and not this one.", metavar="LETTER")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Choose methods for trained networks: grad-cam (default), grad-cam++, hires-cam, layer-cam, "
            "score-cam, integrated-gradients, occlusion.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Explain at this layer, e.g. stages.2; default: the last block.", metavar="NAME")
    ] = None,
    allow_missing: AllowMissing = False,
    arrays: Annotated[
        bool, typer.Option("--arrays", help="Also write each map as a NumPy array at the size of its image.")
    ] = False,
    side: Annotated[
        bool,
        typer.Option("--side-by-side", help="Also write each image and its map next to each other, at full size."),
    ] = False,
    split: Split = None,
    first: First = None,
    synthetic: Synthetic = False,
    device: Device = "auto",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the scores, baselines and verdict of each map.", metavar="FILE"),
    ] = None,
) -> None:
    """Explain results: write a page for each exam, with a map of each view and the verdict on it.

    Without --model, the map is the dense tissue that the default model measured; with a trained model, where the
    network looked. Each map explains the category that predict gives.

    Example: mammodensity explain phantoms --first 4 --output explanations
    """
    from mammodensity.workflows.explain import SUMMARY_FILE

    images = find_exams(data, split, synthetic=synthetic).first_exams(first)
    if output.resolve() in {record.path.resolve().parent for record in images.records}:
        raise OutputError(f"{output} holds images of the data set; name another folder for the pages")
    for path in data:
        require_apart(output, path)
    require_not_input(json_file, files_read(images, data, model))
    if json_file and json_file.resolve() == (output / SUMMARY_FILE).resolve():
        raise OutputError(f"{json_file} is the summary that explain writes itself; name another file for --json")
    with progress_bar("explain") as progress:
        explanations = mammodensity.explain(
            images,
            model=model,
            output=output,
            methods=[name.strip() for name in method.split(",")] if method else (),
            category=category,
            against=against,
            layer=layer,
            allow_missing=allow_missing,
            device=device,
            arrays=arrays,
            side=side,
            scores_file=json_file,
            progress=progress,
        )
    say_each("note", explanations.warnings)
    say_each("refused", explanations.refused)
    say(f"{how_many(len(explanations.pages), 'exam')} in {output}; look at {explanations.pages[0]} first")
    if explanations.statement:
        say(explanations.statement)
    if json_file:
        say(f"scores and verdicts in {json_file}")
    say_research_use_only()


def counterfactual(
    output: Annotated[Path, typer.Option(help="Name a folder to write plots to.", metavar="DIR")],
    data: Annotated[
        Path | None, typer.Argument(help="Give exams, whose dense tissue is painted over.", metavar="DATA")
    ] = None,
    model: ModelOrDefault = None,
    phantoms: Annotated[
        int, typer.Option(help="Also make so many phantoms with more and less dense tissue.", metavar="N", min=0)
    ] = 0,
    steps: Annotated[int, typer.Option(help="Try so many amounts of dense tissue, from 1 to 80 %.", metavar="N")] = 9,
    seed: Annotated[int, typer.Option(help="Draw the phantoms from this seed.", metavar="N")] = 1,
    split: Split = None,
    first: First = None,
    synthetic: Synthetic = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Show how the result would change with more or less dense tissue, and at which percent density.

    Example: mammodensity counterfactual phantoms --first 4 --output density --json density.json

    Example: mammodensity counterfactual --phantoms 8 --model model --output density
    """
    from mammodensity.workflows.counterfactuals import rows_of, write_counterfactuals

    images = None
    require_not_input(json_file, model_files(model))
    if data is not None:
        require_apart(output, data)
        images = find_exams(data, split, synthetic=synthetic).first_exams(first)
        require_not_input(json_file, files_read(images, data, model))
    loaded = load_model(model, device)
    with progress_bar("counterfactual") as progress:
        result = write_counterfactuals(
            loaded, images, output, phantoms=phantoms, steps=steps, seed=seed, progress=progress
        )
    show_table(
        ["exam", "category", "% dense", "changes below", "changes above", "points to change", "monotone"],
        rows_of(result),
    )
    say(f"in {result['monotone_share']:.0%} of the exams, more dense tissue never lowers the expected category")
    say_each("refused", result["refused"])
    say(f"plots in {output}")
    finish(json_file, result, "every step")


def explain_benchmark(
    json_file: Annotated[Path, typer.Option("--json", help="Name a file to write all scores to.", metavar="FILE")],
    model: Annotated[
        Path | None,
        typer.Option(help="Explain this model's network for MLO_R; without it, four small ones.", metavar="DIR"),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(help="Compare the maps with those of another model, e.g. of shuffled labels.", metavar="DIR"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Also score on images/ and masks/ of right MLO views in this folder.", metavar="DIR"),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Score only these methods; default: all.", metavar="NAME[,NAME...]")
    ] = None,
    exams: Annotated[int, typer.Option(help="Train on so many phantoms.", metavar="N")] = 64,
    held_back: Annotated[int, typer.Option("--held-back", help="Score on so many phantoms.", metavar="N")] = 8,
    epochs: Annotated[int, typer.Option(help="Train so many epochs.", metavar="N")] = 24,
    seed: Annotated[int, typer.Option(help="Draw phantoms and weights from this seed.", metavar="N")] = 5,
    device: Device = "auto",
) -> None:
    """Score explanation methods on phantoms, whose dense tissue is known, and on real masks if given.

    Without --model, four networks are trained: on true categories, on shuffled ones, and on phantoms with a marker
    or a place of the breast that shows the category. Their maps show which errors the scores and verdicts find.

    Example: mammodensity explain-benchmark --json benchmark.json
    """
    from mammodensity.explanation.methods import METHODS
    from mammodensity.models.trained import load_networks
    from mammodensity.research.benchmark_networks import BenchmarkSpec
    from mammodensity.research.explanation_benchmark import COLUMNS, run_benchmark, tables

    spec = BenchmarkSpec(exams=exams, held_back=held_back, epochs=epochs, seed=seed)
    masks = data.rglob("*.png") if data else []
    require_not_input(json_file, [*masks, *model_files(model), *model_files(other)])
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
    finish(json_file, result, "all scores and baselines")
