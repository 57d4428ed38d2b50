"""Commands that convert networks and print the schema of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mammodensity.commands.options import Model
from mammodensity.errors import OptionError, OutputError
from mammodensity.terms import Projection


def import_keras(
    file: Annotated[Path, typer.Argument(help="Whole-model HDF5 file of INFN's network.", metavar="FILE.h5")],
    projection: Annotated[Projection, typer.Option(help="The projection it was trained on.")],
    model: Model,
) -> None:
    """Turn a Keras file of INFN's network (Keras 2.2, tf.keras or Keras 3) into a network of this package.

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


def schema() -> None:
    """Print the JSON schema of the results that `predict --json` writes.

    Example: mammodensity schema
    """
    from mammodensity.results.result import result_schema

    typer.echo(json.dumps(result_schema(), indent=2))
