"""The record of how a model came to be, as its folder has it: networks, data, recipe, receipt, histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import MANIFEST_NAME, DataSet, read_manifest
from mammodensity.errors import CheckpointError
from mammodensity.inputs import read_json
from mammodensity.models.checkpoint import JOINT, joint_file, network_files
from mammodensity.models.joint import JointNetwork
from mammodensity.models.trained import DensityModel, JointModel, load_networks
from mammodensity.outputs import file_sha256
from mammodensity.terms import PROJECTIONS, Projection, Scale
from mammodensity.training.records import RECEIPT_FILE, RECIPE_FILE, EpochFigures, read_history

_LEVELS_UP = 4  # root/CC_R/train/A/image.png is the deepest arrangement there is


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
    if not path.exists():
        return None
    try:
        facts = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: it is no readable JSON; restore it or train again") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} is damaged: expected named entries; restore it or train again")
    return facts
