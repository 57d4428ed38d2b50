"""The joint network on disk: one safetensors file, as that of a single projection, in ``MODEL/joint``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mammodensity.errors import CheckpointError, OptionError
from mammodensity.networks.checkpoint import (
    NETWORK_FILE,
    Checkpoint,
    read_tensors,
    require_format,
    write_tensors,
)
from mammodensity.networks.joint import ExamView, JointNetwork, JointSpec, ViewBranch
from mammodensity.networks.origin import NetworkSpec
from mammodensity.preprocess import PreprocessSpec
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection

JOINT = "joint"
_FORMAT = "mammodensity joint network 1"


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
        "format": _FORMAT,
        "categories": [category.value for category in CATEGORIES],
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
    require_format(file, description, _FORMAT)
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
