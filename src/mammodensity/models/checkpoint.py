"""A network on disk: one safetensors file whose header also carries the specs as JSON. Never a pickle.

A model is a folder with one sub-folder a projection, each holding ``network.safetensors``. One file, because a file can
be replaced in one step: weights and specs are never out of step, whenever the power fails.

The joint network on disk: one safetensors file, as that of a single projection, in ``MODEL/joint``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.models.joint import ExamView, JointNetwork, JointSpec, ViewBranch
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.outputs import write_bytes
from mammodensity.terms import DENSITY, PROJECTIONS, SCALES, Projection, Scale

RESUME_FILE = "resume.safetensors"
"""Beside a network whose training was interrupted."""
NETWORK_FILE = "network.safetensors"
_FORMAT = "mammodensity network 1"
_CHECKSUM = "sha256"


ViewNetwork = ResidualNetwork | ExamView | ViewBranch
"""A network of one projection, the joint network with one view alone, or its branch of one view."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with everything needed to use it rightly."""

    network: ViewNetwork
    projection: Projection
    preprocess: PreprocessSpec
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it came to be: recipe, epoch, figures on the validation split, data hashes; JSON values only."""

    @property
    def scale(self) -> Scale:
        """The categories its scores are of."""
        return Scale.of(self.network.categories) if isinstance(self.network, ResidualNetwork) else DENSITY


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``folder/network.safetensors`` whole or not at all, and return its path."""
    tensors = checkpoint.network.state_dict()
    description = {
        "format": _FORMAT,
        "projection": checkpoint.projection.value,
        "categories": list(checkpoint.scale.letters),
        "network": asdict(checkpoint.network.spec),
        "preprocess": asdict(checkpoint.preprocess),
        "training": dict(checkpoint.training),
    }
    path = folder / NETWORK_FILE
    write_tensors(path, tensors, description)
    return path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a safetensors file whose header holds ``description`` and a checksum as JSON, whole or not at all."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {**description, _CHECKSUM: _digest(plain, description)}
    write_bytes(path, save(plain, {"mammodensity": json.dumps(header, allow_nan=False)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``write_tensors`` wrote.

    Raises
    ------
    CheckpointError
        The file is absent, damaged, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path} not found; expected a network written by `mammodensity train` or `import-keras`")
    try:
        with safe_open(path, framework="pt") as stream:
            header = (stream.metadata() or {}).get("mammodensity")
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file; restore it or train again") from error
    if header is None:
        raise CheckpointError(f"{path} was not written by mammodensity: it has no description of its network")
    try:
        description = dict(json.loads(header))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its description is not JSON; restore it or train again") from error
    if description.pop(_CHECKSUM, None) != _digest(tensors, description):
        raise CheckpointError(f"{path} is damaged: its content differs from its checksum; restore it or train again")
    return tensors, description


def _digest(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """SHA-256 over description, names, shapes and values, so that a single flipped bit is noticed."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(path: Path | str, projection: Projection | str | None = None) -> Checkpoint:
    """Load one network, in evaluation mode.

    Parameters
    ----------
    path
        A ``network.safetensors`` file, the folder that holds it, or a model folder.
    projection
        The projection wanted; needed when a model folder holds several, and checked in every case.

    Raises
    ------
    CheckpointError
        Nothing there, damaged, of another format, or for another projection.
    """
    if projection is not None and projection not in PROJECTIONS:
        raise OptionError(f"projection must be one of {', '.join(PROJECTIONS)}. Got {projection!r} instead.")
    file = _network_file(Path(path), None if projection is None else Projection(projection))
    tensors, description = read_tensors(file)
    checkpoint = _build(file, tensors, description)
    if projection is not None and checkpoint.projection != projection:
        raise CheckpointError(
            f"{file} is a network for {checkpoint.projection}, asked for {projection}; "
            "projections are not interchangeable, name the right network"
        )
    return checkpoint


def load_network(path: Path | str, projection: Projection | str | None = None) -> ViewNetwork:
    """Load one network as a ``torch.nn.Module`` in evaluation mode: (B, C, H, W) float32 to logits (B, K).

    The arguments and errors are those of ``load_checkpoint``.
    """
    return load_checkpoint(path, projection).network


def network_files(model: Path) -> dict[Projection, Path]:
    """The networks a model folder holds, by projection, in the one order."""
    files = {projection: model / projection.value / NETWORK_FILE for projection in PROJECTIONS}
    return {projection: file for projection, file in files.items() if file.is_file()}


def _network_file(path: Path, projection: Projection | None) -> Path:
    if path.is_file() or (path / NETWORK_FILE).is_file():
        return path if path.is_file() else path / NETWORK_FILE
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


def require_format(
    file: Path, description: Mapping[str, Any], expected: str, scales: Iterable[Scale] = (DENSITY,)
) -> None:
    """Raise ``CheckpointError`` unless a file is of the format, and its categories are those of one of ``scales``."""
    found = description.get("format")
    if found != expected:
        raise CheckpointError(f"{file}: expected format {expected!r}, found {found!r}; use the version that wrote it")
    known = [list(scale.letters) for scale in scales]
    if description.get("categories") not in known:
        names = " or ".join(" ".join(letters) for letters in known)
        raise CheckpointError(f"{file}: expected categories {names}, found {description.get('categories')}")


def _build(file: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> Checkpoint:
    require_format(file, description, _FORMAT, SCALES)
    try:
        network = ResidualNetwork(NetworkSpec(**description["network"]), len(description["categories"]))
        preprocess = PreprocessSpec(**description["preprocess"])
        projection = Projection(description["projection"])
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, OptionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: its description does not fit this version of the program ({reason})") from error
    network.eval()
    training = description.get("training")
    return Checkpoint(network, projection, preprocess, training if isinstance(training, dict) else {})


JOINT = "joint"
_JOINT_FORMAT = "mammodensity joint network 1"


@dataclass(frozen=True, eq=False)
class JointCheckpoint:
    """A joint network with everything needed to use it rightly."""

    network: JointNetwork
    preprocess: PreprocessSpec
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it came to be; JSON values only."""

    def alone(self, projection: Projection) -> Checkpoint:
        """The network for exams of which only this view is present."""
        network = ExamView(self.network, PROJECTIONS.index(projection)).eval()
        familiarity = (self.training.get("familiarity") or {}).get(projection.value)
        return Checkpoint(network, projection, self.preprocess, {**self.training, "familiarity": familiarity})

    def branch(self, projection: Projection) -> Checkpoint:
        """The part that one view goes through by itself; it gives features, not logits."""
        network = ViewBranch(self.network, PROJECTIONS.index(projection)).eval()
        return Checkpoint(network, projection, self.preprocess, self.training)


def joint_file(model: Path) -> Path | None:
    """The file of a model folder's joint network; None where it has none."""
    file = model / JOINT / NETWORK_FILE
    return file if file.is_file() else None


def save_joint(folder: Path, checkpoint: JointCheckpoint) -> Path:
    """Write ``folder/network.safetensors`` whole or not at all, and return its path."""
    description = {
        "format": _JOINT_FORMAT,
        "categories": list(DENSITY.letters),
        "projections": [projection.value for projection in PROJECTIONS],
        "network": asdict(checkpoint.network.spec),
        "preprocess": asdict(checkpoint.preprocess),
        "training": dict(checkpoint.training),
    }
    path = folder / NETWORK_FILE
    write_tensors(path, checkpoint.network.state_dict(), description)
    return path


def load_joint(file: Path) -> JointCheckpoint:
    """Load a joint network, in evaluation mode.

    Raises
    ------
    CheckpointError
        Nothing there, damaged, or of another format.
    """
    tensors, description = read_tensors(file)
    require_format(file, description, _JOINT_FORMAT)
    if description.get("projections") != [projection.value for projection in PROJECTIONS]:
        raise CheckpointError(f"{file}: expected projections {', '.join(PROJECTIONS)} in this order")
    try:
        spec = dict(description["network"])
        network = JointNetwork(JointSpec(**{**spec, "network": NetworkSpec(**spec["network"])}))
        preprocess = PreprocessSpec(**description["preprocess"])
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, OptionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: its description does not fit this version of the program ({reason})") from error
    training = description.get("training")
    return JointCheckpoint(network.eval(), preprocess, training if isinstance(training, dict) else {})
