"""Files of a training run: figures by epoch, the state when it was interrupted, and the record of a model folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mammodensity.data.csv_rows import read_csv
from mammodensity.data.dataset import MANIFEST_NAME, DataSet, read_manifest
from mammodensity.errors import CheckpointError
from mammodensity.inputs import as_number, read_entries, read_json
from mammodensity.models.checkpoint import JOINT, RESUME_FILE, joint_file, network_files
from mammodensity.models.joint import JointNetwork, JointSpec
from mammodensity.models.network import NetworkSpec
from mammodensity.models.trained import DensityModel, JointModel, load_networks
from mammodensity.outputs import file_sha256, write_csv, write_text
from mammodensity.tensors import read_tensors, write_tensors
from mammodensity.terms import PROJECTIONS, Projection, Scale

RECIPE_FILE = "recipe.json"
RECEIPT_FILE = "receipt.json"
JOINT_FILE = "joint.json"

HISTORY_FILE = "history.csv"
_INFN_FILES = {
    "acc_train.txt": "train_accuracy",
    "acc_val.txt": "validation_accuracy",
    "loss_train.txt": "train_loss",
    "loss_val.txt": "validation_loss",
}


@dataclass(frozen=True)
class EpochFigures:
    """One epoch: means over the images of the split (training figures with augmentation and dropout)."""

    epoch: int
    """Counted from 1."""
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


def write_history(folder: Path, history: Sequence[EpochFigures]) -> None:
    """Write ``history.csv`` and INFN's files with one number a line, ``acc_train.txt`` and so on."""
    columns = [column.name for column in fields(EpochFigures)]
    write_csv(folder / HISTORY_FILE, columns, (asdict(figures) for figures in history))
    for name, column in _INFN_FILES.items():
        write_text(folder / name, "".join(f"{getattr(figures, column):.18e}\n" for figures in history))


def read_history(folder: Path) -> list[EpochFigures]:
    """Read ``history.csv``; an empty list where there is none (an imported network).

    Raises
    ------
    TableError
        The table is damaged.
    """
    path = folder / HISTORY_FILE
    if not path.exists():
        return []
    numbers = [column.name for column in fields(EpochFigures)[1:]]
    history: list[EpochFigures] = []
    for row in read_csv(path, ("epoch", *numbers)):
        cells = {name: as_number(row[name]) for name in numbers}
        values = {name: value for name, value in cells.items() if value is not None}
        if len(values) < len(cells) or row["epoch"] != str(len(history) + 1):
            raise row.error("expected an epoch as `mammodensity train` writes it, each after the one before")
        history.append(EpochFigures(len(history) + 1, **values))
    return history


# The state of an interrupted run


_INFINITE = 1e300  # stands for infinity, which JSON does not have


@dataclass
class TrainingState:
    """The state of a run, besides its tensors."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    rate: float = 0.0
    """Learning rate of the plateau schedule."""
    stalled: int = 0
    """Epochs without a better validation loss, for the plateau schedule."""
    lowest_loss: float = math.inf
    history: list[EpochFigures] = field(default_factory=list)


def require_same_recipe(path: Path, recipe: Mapping[str, Any], advice: str) -> None:
    """Raise ``CheckpointError`` unless a file holds this recipe; ``advice`` says what to do otherwise."""
    try:
        stored = read_json(path)
        difference = first_difference(recipe, dict(stored))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged; {advice}") from error
    if difference:
        raise CheckpointError(f"{path} is of another recipe: {difference}; {advice}")


def require_same_shape(start: Path, wanted: NetworkSpec | JointSpec, actual: NetworkSpec | JointSpec) -> None:
    """Raise ``CheckpointError`` unless a network to begin with has the shape of the recipe's."""
    difference = first_difference(asdict(wanted), asdict(actual))
    if difference:
        raise CheckpointError(f"{start} has another architecture than the recipe: {difference}")


def save_state(
    folder: Path,
    state: TrainingState,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Mapping[str, Any],
) -> None:
    """Write ``resume.safetensors`` whole or not at all."""
    tensors = run_tensors(network, optimiser)
    numbers = {**asdict(state), "lowest_loss": min(state.lowest_loss, _INFINITE)}
    write_tensors(folder / RESUME_FILE, tensors, {"recipe": dict(recipe), "state": numbers})


def restore_state(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, recipe: Mapping[str, Any]
) -> TrainingState | None:
    """Put network and optimiser back where they were; None where no run was interrupted.

    Raises
    ------
    CheckpointError
        The run had another recipe, or its file is damaged.
    """
    path = folder / RESUME_FILE
    if not path.exists():
        return None
    tensors, description = read_tensors(path)
    difference = first_difference(dict(recipe), description.get("recipe"))
    if difference:
        raise CheckpointError(f"{path} is of another recipe: {difference}; use the same options to go on")
    try:
        restore_tensors(tensors, network, optimiser)
        numbers = dict(description["state"])
        history = [EpochFigures(**figures) for figures in numbers.pop("history")]
        return TrainingState(**numbers, history=history)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged; remove the folder {folder} to train it from the start") from error


def run_tensors(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of a network and its optimiser by name."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{name}/{key}"] = value
    return tensors


def restore_tensors(tensors: Mapping[str, Tensor], network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """The inverse of :func:`run_tensors`."""
    network.load_state_dict(tensors_under(tensors, "network/"))
    for name, parameter in network.named_parameters():
        saved = tensors_under(tensors, f"optimiser/{name}/")
        if saved:
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in saved.items()
            }


def first_difference(here: Any, there: Any, name: str = "") -> str | None:
    """Name the first entry in which two JSON values differ; None when they are equal."""
    if isinstance(here, dict) and isinstance(there, dict):
        differences = (
            first_difference(here.get(key), there.get(key), f"{name}.{key}" if name else str(key))
            for key in dict.fromkeys([*here, *there])
        )
        return next(filter(None, differences), None)
    return None if here == there else f"{name or 'it'} is {there!r} there and {here!r} here"


def tensors_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with names that begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# The record of a model folder


@dataclass(frozen=True)
class RunRecord:
    """A model and the record of its training; parts that a folder lacks are None or empty."""

    folder: Path
    model: DensityModel
    data: DataSet | None
    """The images it was trained and tested on, with their splits; None for imported networks."""
    recipe: Mapping[str, Any] | None
    receipt: Mapping[str, Any] | None
    histories: Mapping[str, list[EpochFigures]]
    """By projection, or ``joint``; empty lists for networks that were not trained here."""
    network_hashes: Mapping[str, str]
    """SHA-256 of the network files, by projection, or ``joint``."""

    @property
    def kept(self) -> dict[str, EpochFigures | None]:
        """The epoch whose weights were kept, by projection, or ``joint``; None for an imported network."""
        if self.joint:
            return {JOINT: self.kept_epoch(PROJECTIONS[0])}
        return {view.value: self.kept_epoch(view) for view in self.model.checkpoints}

    @property
    def joint(self) -> JointNetwork | None:
        """The joint network, if the model is one."""
        return self.model.network if isinstance(self.model, JointModel) else None

    def training(self, projection: Projection) -> Mapping[str, Any]:
        """The training of a network, as its checkpoint has it; empty where it has nothing."""
        notes = self.model.checkpoints[projection].training
        return notes if isinstance(notes, Mapping) else {}

    def kept_epoch(self, projection: Projection) -> EpochFigures | None:
        """The epoch whose weights were kept; None for an imported network."""
        try:
            return EpochFigures(**self.training(projection)["epoch"])
        except (KeyError, TypeError):
            return None

    @property
    def imported(self) -> tuple[Projection, ...]:
        """Projections whose network was imported from Keras."""
        return tuple(p for p in self.model.checkpoints if self.training(p).get("source") == "keras")

    @property
    def scale(self) -> Scale:
        """The categories that the networks tell apart."""
        return self.model.scale

    @property
    def data_facts(self) -> Mapping[str, Any]:
        """Layout and hash of the data set, as the training run noted them."""
        notes = [self.receipt or {}, *(self.training(projection) for projection in self.model.checkpoints)]
        return next((note["data"] for note in notes if isinstance(note.get("data"), Mapping)), {})

    @property
    def phantoms(self) -> bool:
        """True when the networks were trained on synthetic images."""
        return self.model.trained_on_phantoms


def read_run(folder: Path, device: str = "cpu") -> RunRecord:
    """Read a model folder, or the folder of a single network.

    Raises
    ------
    CheckpointError
        No model there; or a network, recipe or receipt is damaged.
    LayoutError
        The manifest is damaged, or an image it names is gone.
    TableError
        A history is damaged.
    """
    folder = Path(folder)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; expected a model folder")
    model = load_networks(folder, device)
    places: dict[str, Path] = {name: file.parent for name, file in _files(folder).items()}
    places = places or dict.fromkeys(model.checkpoints, folder)
    manifest = folder / MANIFEST_NAME
    return RunRecord(
        folder=folder,
        model=model,
        data=read_manifest(manifest) if manifest.is_file() else None,
        recipe=_read_facts(folder / RECIPE_FILE),
        receipt=_read_facts(folder / RECEIPT_FILE),
        histories={projection: read_history(place) for projection, place in places.items()},
        network_hashes=network_hashes(folder),
    )


def network_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each network file of a model folder, by projection, or ``joint``."""
    return {name: file_sha256(file) for name, file in _files(folder).items()}


def _files(folder: Path) -> dict[str, Path]:
    joint = joint_file(folder)
    return {JOINT: joint} if joint else {view.value: file for view, file in network_files(folder).items()}


def _read_facts(path: Path) -> dict[str, Any] | None:
    return read_entries(path, CheckpointError, "restore it or train again") if path.exists() else None
