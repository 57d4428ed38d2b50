"""Commands that train networks, convert them, and print the schema of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import mammodensity
from mammodensity.commands.options import Data, Device, Model
from mammodensity.commands.show import how_many, progress_bar, say, say_research_use_only, stage_bars, training_bars
from mammodensity.commands.show_figures import show_figures
from mammodensity.errors import OptionError, OutputError
from mammodensity.outputs import atomic_folder
from mammodensity.terms import Projection
from mammodensity.workers import launched

JointFusion = Literal["mean", "concat", "attention"]


def train(
    data: Data,
    model: Model,
    projection: Annotated[
        list[Projection] | None, typer.Option(help="Train only these projections, e.g. --projection CC_R MLO_R.")
    ] = None,
    recipe_name: Annotated[
        str, typer.Option("--recipe", help="Follow this recipe: small, origin, or a .json file.", metavar="NAME")
    ] = "small",
    epochs: Annotated[
        int | None, typer.Option(help="Train so many epochs, instead of the recipe's.", metavar="N")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Scale images to so many rows and columns, instead of the recipe's.", metavar="N")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Draw splits, weights and augmentation from this seed.", metavar="N")
    ] = None,
    shares: Annotated[
        tuple[float, float, float],
        typer.Option(
            help="Split the exams by these shares, if the data set has no splits.",
            metavar="TRAIN VALIDATION TEST",
            show_default="0.8 0.1 0.1",
        ),
    ] = (0.8, 0.1, 0.1),
    start: Annotated[
        Path | None,
        typer.Option(help="Begin with the weights of this model, e.g. one trained on phantoms.", metavar="DIR"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    device: Device = "auto",
    joint: Annotated[bool, typer.Option("--joint", help="Train one network for all four projections.")] = False,
    joint_fusion: Annotated[
        JointFusion | None, typer.Option(help="Choose how the joint network fuses views; default: mean.")
    ] = None,
    old_fusion: Annotated[JointFusion | None, typer.Option("--fusion", hidden=True)] = None,
    branches: Annotated[
        Literal["separate", "shared"] | None,
        typer.Option(
            help="Give each projection of the joint network a branch of its own (separate, the default), or share one "
            "between right and mirrored left."
        ),
    ] = None,
    view_dropout: Annotated[
        float | None,
        typer.Option(
            help="Leave out this share of the joint network's views at random; default: 0.25.", metavar="SHARE"
        ),
    ] = None,
    view_loss: Annotated[
        float | None,
        typer.Option(help="Weigh the loss of the joint network's single views by this; default: 1.", metavar="WEIGHT"),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Compute in this precision; not every processor has bf16.")
    ] = "fp32",
    checkpointing: Annotated[
        Literal["none", "views", "layers"] | None,
        typer.Option(help="Save memory of the joint network by computing views or layers twice; default: none."),
    ] = None,
) -> None:
    """Train a network for each projection of the data, or one for all (--joint), and score the test split.

    Example: mammodensity train phantoms --model model --epochs 20 --size 128

    Example: mammodensity train phantoms --model joint --joint --joint-fusion attention --epochs 20 --size 128

    Example: torchrun --standalone --nproc-per-node 2 -m mammodensity train phantoms --model model --size 128
    """
    from mammodensity.training.joint_network import JointPlan

    if old_fusion is not None:
        typer.echo("warning: --fusion of train is now called --joint-fusion", err=True)
    options: dict[str, Any] = {
        "fusion": joint_fusion or old_fusion,
        "branches": branches,
        "view_dropout": view_dropout,
        "view_loss": view_loss,
        "checkpointing": checkpointing,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if options and not joint:
        name = next(iter(options)).replace("fusion", "joint-fusion").replace("_", "-")
        raise OptionError(f"--{name} is of the joint network; add --joint")
    with training_bars() as (loading, report, testing):
        trained = mammodensity.train(
            data,
            model=model,
            recipe=recipe_name,
            epochs=epochs,
            size=size,
            seed=seed,
            projections=projection,
            joint=JointPlan(**options, precision=precision) if joint else None,
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
    place = launched()
    if place is not None and place.rank > 0:
        return
    if trained.figures:
        show_figures(trained.figures)
    say(f"model in {model}, described in {trained.card}")
    say_research_use_only()


def recipe(
    name: Annotated[str, typer.Argument(help="Name a recipe: small or origin.", metavar="NAME")] = "small",
) -> None:
    """Print a training recipe as JSON, to read it, or to change it for `train --recipe FILE.json`.

    Example: mammodensity recipe origin
    """
    from mammodensity.training.recipes import find_recipe

    typer.echo(json.dumps(find_recipe(name).to_dict(), indent=2))


def train_default(
    out: Annotated[Path, typer.Argument(help="Name a folder to write to, or one to continue in.", metavar="OUT")],
    breasts: Annotated[int, typer.Option(help="Make so many phantom breasts.", metavar="N")] = 480,
    outline_steps: Annotated[
        int, typer.Option(help="Train the network for breast and muscle so many steps.", metavar="N")
    ] = 5000,
    tissue_steps: Annotated[
        int, typer.Option(help="Train the first tissue network so many steps.", metavar="N")
    ] = 7500,
    readers_steps: Annotated[
        int,
        typer.Option(help="Train the second, on outlines by readers who differ, so many steps.", metavar="N"),
    ] = 15000,
    seed: Annotated[int, typer.Option(help="Draw weights and disturbances from this seed.", metavar="N")] = 1,
    device: Device = "auto",
) -> None:
    """Train the networks of the default model again, on synthetic breasts; it takes two hours on two cores.

    Example: mammodensity train-default default-networks
    """
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


def import_keras(
    file: Annotated[Path, typer.Argument(help="Give an HDF5 file of the whole Keras model.", metavar="FILE.h5")],
    projection: Annotated[Projection, typer.Option(help="Say which projection it was trained on.")],
    model: Model,
) -> None:
    """Convert a Keras file of INFN's network (Keras 2.2, tf.keras or Keras 3) into a network of this package.

    Example: mammodensity import-keras resnet_ccr.h5 --projection CC_R --model model
    """
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


def export(
    output: Annotated[Path, typer.Argument(help="Name a new folder to write to.", metavar="OUT")],
    model: Model,
    file_format: Annotated[
        Literal["onnx", "leaderboard", "monai"], typer.Option("--format", help="Choose the format of the files.")
    ] = "onnx",
) -> None:
    """Export the networks of a model for other programs, and compare the scores of each file with the network's.

    Example: mammodensity export exported --model model
    """
    from mammodensity.models.export import export_network, networks_to_export

    networks = networks_to_export(model, file_format)
    with progress_bar("export") as progress, atomic_folder(output) as staging:
        for done, network in enumerate(networks, start=1):
            name, difference = export_network(network, staging, file_format)
            progress(done, len(networks))
            say(f"{name}: scores differ from the network's by at most {difference:.1g}")
    say(f"{how_many(len(networks), 'network')} in {output}")
    say_research_use_only()


def schema() -> None:
    """Print the JSON schema of the results that `predict --json` writes.

    Example: mammodensity schema
    """
    from mammodensity.results.result import result_schema

    typer.echo(json.dumps(result_schema(), indent=2))
