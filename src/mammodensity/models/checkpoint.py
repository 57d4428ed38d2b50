"""A network on disk: one safetensors file whose header also carries the specs as JSON. Never a pickle.

A model is a folder with a sub-folder for each projection, or one named ``joint``, each with ``network.safetensors``. It
is one file because a file can be replaced in one step, so that weights and specs always belong together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.models.joint import ExamView, JointNetwork, JointSpec, ViewBranch
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.tensors import read_tensors, write_tensors
from mammodensity.terms import DENSITY, PROJECTIONS, SCALES, Projection, Scale

NETWORK_FILE = "network.safetensors"
RESUME_FILE = "resume.safetensors"
"""Lies beside a network whose training was interrupted."""
JOINT = "joint"
_FORMAT = "mammodensity network 1"
_JOINT_FORMAT = "mammodensity joint network 1"

ViewNetwork = ResidualNetwork | ExamView | ViewBranch
"""A network of one projection, the joint network with one view alone, or its branch of one view."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network of one projection with everything needed to use it."""

    network: ViewNetwork
    projection: Projection
    preprocess: PreprocessSpec
    training: Mapping[str, Any] = field(default_factory=dict)
    """Record of its training: recipe, epoch, figures on the validation split, data hashes; JSON values only."""

    @property
    def name(self) -> str:
        """Name of its folder in a model, and of files made of it."""
        return self.projection.value

    @property
    def scale(self) -> Scale:
        """The categories of its scores."""
        return Scale.of(self.network.categories) if isinstance(self.network, ResidualNetwork) else DENSITY


@dataclass(frozen=True, eq=False)
class JointCheckpoint:
    """A joint network with everything needed to use it."""

    network: JointNetwork
    preprocess: PreprocessSpec
    training: Mapping[str, Any] = field(default_factory=dict)
    """Record of its training; JSON values only."""
    name: ClassVar[str] = JOINT
    scale: ClassVar[Scale] = DENSITY

    def alone(self, projection: Projection) -> Checkpoint:
        """The network for exams in which only this view is present."""
        network = ExamView(self.network, PROJECTIONS.index(projection)).eval()
        familiarity = (self.training.get("familiarity") or {}).get(projection.value)
        return Checkpoint(network, projection, self.preprocess, {**self.training, "familiarity": familiarity})

    def branch(self, projection: Projection) -> Checkpoint:
        """The branch of one view; it gives features, not logits."""
        network = ViewBranch(self.network, PROJECTIONS.index(projection)).eval()
        return Checkpoint(network, projection, self.preprocess, self.training)


# Saving


def save_checkpoint(folder: Path, checkpoint: Checkpoint | JointCheckpoint) -> Path:
    """Write ``folder/network.safetensors`` whole or not at all, and return its path."""
    views: dict[str, Any] = {"format": _JOINT_FORMAT, "projections": [projection.value for projection in PROJECTIONS]}
    if isinstance(checkpoint, Checkpoint):
        views = {"format": _FORMAT, "projection": checkpoint.projection.value}
    description = {
        **views,
        "categories": list(checkpoint.scale.letters),
        "network": asdict(checkpoint.network.spec),
        "preprocess": asdict(checkpoint.preprocess),
        "training": dict(checkpoint.training),
    }
    path = folder / NETWORK_FILE
    write_tensors(path, checkpoint.network.state_dict(), description)
    return path


# Loading


def load_network(path: Path | str, projection: Projection | str | None = None) -> ViewNetwork:
    """Load one network as a ``torch.nn.Module`` in evaluation mode: (B, C, H, W) float32 to logits (B, K).

    The arguments and errors are those of ``load_checkpoint``.
    """
    return load_checkpoint(path, projection).network


def load_checkpoint(path: Path | str, projection: Projection | str | None = None) -> Checkpoint:
    """Load one network, in evaluation mode.

    Parameters
    ----------
    path
        A ``network.safetensors`` file, the folder that holds it, or a model folder.
    projection
        The wanted projection; needed if a model folder holds several, and checked in every case.

    Raises
    ------
    CheckpointError
        Absent, damaged, of another format, or for another projection.
    """
    if projection is not None and projection not in PROJECTIONS:
        raise OptionError(f"projection must be one of {', '.join(PROJECTIONS)}. Got {projection!r} instead.")
    file = _network_file(Path(path), None if projection is None else Projection(projection))
    tensors, description = read_tensors(file)
    _require_format(file, description, _FORMAT, SCALES)
    with _fitting(file):
        with torch.device("meta"):  # shapes only: no memory is taken before the tensors fit
            network = ResidualNetwork(NetworkSpec(**description["network"]), len(description["categories"]))
        preprocess, written = PreprocessSpec(**description["preprocess"]), Projection(description["projection"])
        network.load_state_dict(tensors, assign=True)
    if projection not in (None, written):
        raise CheckpointError(
            f"{file} is a network for {written}, asked for {projection}; "
            "projections are not interchangeable, name the right network"
        )
    return Checkpoint(network.eval(), written, preprocess, _training(description))


def load_joint(file: Path) -> JointCheckpoint:
    """Load a joint network, in evaluation mode.

    Raises
    ------
    CheckpointError
        Absent, damaged, or of another format.
    """
    tensors, description = read_tensors(file)
    _require_format(file, description, _JOINT_FORMAT, (DENSITY,))
    if description.get("projections") != [projection.value for projection in PROJECTIONS]:
        raise CheckpointError(f"{file}: expected projections {', '.join(PROJECTIONS)} in this order")
    with _fitting(file):
        spec = dict(description["network"])
        with torch.device("meta"):
            network = JointNetwork(JointSpec(**{**spec, "network": NetworkSpec(**spec["network"])}))
        preprocess = PreprocessSpec(**description["preprocess"])
        network.load_state_dict(tensors, assign=True)
    return JointCheckpoint(network.eval(), preprocess, _training(description))


def _require_format(file: Path, description: Mapping[str, Any], expected: str, scales: Iterable[Scale]) -> None:
    """Raise ``CheckpointError`` unless a file is of the format, and its categories are those of one of ``scales``."""
    actual = description.get("format")
    if actual != expected:
        raise CheckpointError(f"{file}: expected format {expected!r}, found {actual!r}; use the version that wrote it")
    if description.get("categories") not in [list(scale.letters) for scale in scales]:
        names = " or ".join(" ".join(scale.letters) for scale in scales)
        raise CheckpointError(f"{file}: expected categories {names}, found {description.get('categories')}")


@contextmanager
def _fitting(file: Path) -> Iterator[None]:
    """Turn errors of a network that is built from its description into one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, OptionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: its description does not fit this version of the program ({reason})") from error


def _training(description: Mapping[str, Any]) -> dict[str, Any]:
    training = description.get("training")
    return training if isinstance(training, dict) else {}


# Files of a model folder


def network_files(model: Path) -> dict[Projection, Path]:
    """The networks in a model folder, by projection, in the order of ``PROJECTIONS``.

    Pipes and links to nothing are among them: loading refuses these, and a network must not be missing in silence.
    """
    files = {projection: model / projection.value / NETWORK_FILE for projection in PROJECTIONS}
    return {projection: file for projection, file in files.items() if os.path.lexists(file)}


def joint_file(model: Path) -> Path | None:
    """The file of a model folder's joint network; None where it has none."""
    file = model / JOINT / NETWORK_FILE
    return file if os.path.lexists(file) else None


def _network_file(path: Path, projection: Projection | None) -> Path:
    if os.path.lexists(path) and not path.is_dir():
        return path
    if os.path.lexists(path / NETWORK_FILE):
        return path / NETWORK_FILE
    if not path.exists():
        raise CheckpointError(f"{path} not found; expected a model folder or a {NETWORK_FILE}")
    files = network_files(path)
    if not files:
        raise CheckpointError(f"{path} holds no network; expected {'/'.join(PROJECTIONS)} folders with {NETWORK_FILE}")
    if projection is None and len(files) == 1:
        return next(iter(files.values()))
    if projection is None:
        raise CheckpointError(f"{path} holds networks for {', '.join(files)}; say which projection is wanted")
    if projection not in files:
        raise CheckpointError(f"{path} holds no network for {projection}, only for {', '.join(files)}")
    return files[projection]
