"""Commands that convert networks and print the schema of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from mammodensity.commands.options import Model
from mammodensity.errors import OutputError
from mammodensity.terms import Projection


def import_keras(
    file: Annotated[Path, typer.Argument(help="Give an HDF5 file of the whole Keras model.", metavar="FILE.h5")],
    projection: Annotated[Projection, typer.Option(help="Say which projection it was trained on.")],
    model: Model,
) -> None:
    """Convert a Keras file of INFN's network (Keras 2.2, tf.keras or Keras 3) into a network of this package.

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
    from mammodensity.commands.show import how_many, progress_bar, say, say_research_use_only
    from mammodensity.models.export import export_network, networks_to_export
    from mammodensity.outputs import atomic_folder

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
