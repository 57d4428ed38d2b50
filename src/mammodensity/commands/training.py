"""Commands that train networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mammodensity.commands.options import Data, Device, Model
from mammodensity.errors import OptionError
from mammodensity.terms import Projection
from mammodensity.workers import launched


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
        Literal["mean", "concat", "attention"] | None,
        typer.Option(help="Joint: how it fuses views; mean by default."),
    ] = None,
    branches: Annotated[
        Literal["separate", "shared"] | None,
        typer.Option(help="Joint: a branch for each projection (default), or shared by right and mirrored left."),
    ] = None,
    view_dropout: Annotated[
        float | None, typer.Option(help="Joint: share of views left out at random; by default 0.25.", metavar="SHARE")
    ] = None,
    view_loss: Annotated[
        float | None,
        typer.Option(help="Joint: weight of what each view alone gets right; by default 1.", metavar="WEIGHT"),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="bf16 is for processors and GPUs that compute in it.")
    ] = "fp32",
    checkpointing: Annotated[
        Literal["none", "views", "layers"] | None,
        typer.Option(help="Joint: what is computed twice to save memory; none by default."),
    ] = None,
) -> None:
    """Train a network for each projection of the data, or with --joint one of all four; then score the test split.

    Example: mammodensity train phantoms --model model --epochs 20 --size 128

    Example: mammodensity train phantoms --model joint --joint --fusion attention --epochs 20 --size 128

    Example: torchrun --standalone --nproc-per-node 2 -m mammodensity train phantoms --model model --size 128
    """
    from mammodensity.commands.show import say, say_research_use_only, training_bars
    from mammodensity.commands.show_figures import show_figures
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


def recipe(name: Annotated[str, typer.Argument(help="Name of a recipe.")] = "small") -> None:
    """Print a training recipe as JSON, to look at or to change and give to `train --recipe FILE.json`.

    Example: mammodensity recipe origin
    """
    from mammodensity.training.recipes import find_recipe

    typer.echo(json.dumps(find_recipe(name).to_dict(), indent=2))


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
