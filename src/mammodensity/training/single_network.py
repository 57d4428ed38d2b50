"""Training of one network for each projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammodensity.anatomy.quality import fit_familiarity
from mammodensity.errors import CheckpointError
from mammodensity.models.batch import LabelledImages, augment, with_channels
from mammodensity.models.checkpoint import Checkpoint, load_checkpoint, network_files, save_checkpoint
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.terms import DENSITY, Projection, Scale
from mammodensity.training.loop import TrainingStep, keep_memory, loss_and_confusion, rng_for, run_training, seed_for
from mammodensity.training.processes import ALONE, Processes
from mammodensity.training.recipes import Precision, Recipe, in_precision
from mammodensity.training.records import EpochFigures, require_same_shape


@dataclass(frozen=True, eq=False)
class NetworkTask:
    """The network to train, its images, and the folder to keep it in."""

    projection: Projection
    training: LabelledImages
    validation: LabelledImages
    recipe: Recipe
    folder: Path
    device: torch.device
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of the checkpoint's record; JSON values only."""
    scale: Scale = DENSITY
    """The categories that the network tells apart."""
    start: Mapping[str, Tensor] | None = None
    """Weights to begin with, of those that the network has; see :func:`first_weights`."""
    precision: Precision = "fp32"
    processes: Processes = ALONE


def train_network(task: NetworkTask, report: Callable[[TrainingStep], None] | None = None) -> Checkpoint:
    """Train the network of one projection and keep its best epoch.

    If the task's folder holds an interrupted run of the same recipe, it goes on where that run was.

    Raises
    ------
    Interrupted, CheckpointError, TrainingError
        As of :func:`mammodensity.training.loop.run_training`.
    """
    if task.device.type == "cpu":
        keep_memory()
    run_training(_NetworkLearner(task), task.recipe, task.folder, report)
    return task.processes.from_first(lambda: load_checkpoint(task.folder, task.projection))


def first_weights(start: Path, projection: Projection, spec: NetworkSpec, scale: Scale) -> dict[str, Tensor]:
    """Read the weights of another model's network to begin with; without the head, where that is of another scale.

    Raises
    ------
    CheckpointError
        The folder has no network of the projection, or one of another shape.
    """
    file = network_files(start).get(projection)
    if file is None:
        raise CheckpointError(f"{start} has no network for {projection} to begin with")
    network = load_checkpoint(file, projection).network
    assert isinstance(network, ResidualNetwork)
    require_same_shape(start, spec, network.spec)
    same = network.categories == len(scale)
    return {name: tensor for name, tensor in network.state_dict().items() if same or not name.startswith("head.")}


class _NetworkLearner:
    """The network of one projection, and its images."""

    def __init__(self, task: NetworkTask) -> None:
        self.settings: Mapping[str, Any] = {} if task.precision == "fp32" else {"precision": task.precision}
        self.task, self.recipe, self.processes = task, task.recipe, task.processes
        self.name = task.projection.value
        torch.manual_seed(seed_for(self.recipe.seed, "initial", task.projection))
        network = ResidualNetwork(self.recipe.network, len(task.scale))
        network.load_state_dict({**network.state_dict(), **(task.start or {})})
        # channels_last: the layout oneDNN and cuDNN convolve fastest
        self.network = network.to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parallel = task.processes.parallel(self.network)
        self.familiarity = fit_familiarity(task.training.images[:, 0].numpy(), task.validation.images[:, 0].numpy())

    def __len__(self) -> int:
        return len(self.task.training)

    def learn(self, chosen: NDArray[np.intp], epoch: int, step: int) -> tuple[float, int]:
        """Go forward and backward through the network."""
        recipe = self.recipe
        share = self.processes.share(chosen)
        rngs = [rng_for(recipe.seed, "augment", epoch, int(index)) for index in share]
        images = augment(self.task.training.images[share], recipe.augment, rngs)
        targets = self.task.training.categories[share].to(self.task.device)
        torch.manual_seed(seed_for(recipe.seed, "dropout", epoch, step, *self.processes.numbered))
        logits = self._logits(self.parallel, images)
        loss = nn.functional.cross_entropy(logits, targets, reduction="sum") / len(chosen)
        self.processes.backward(loss)
        return loss.item(), int((logits.argmax(1) == targets).sum())

    def validate(self) -> tuple[float, float]:
        """Compute the mean loss and the accuracy over the validation images."""
        images, categories = self.task.validation.images, self.task.validation.categories
        loss, self.confusion = loss_and_confusion(
            self.processes,
            categories,
            len(self.task.scale),
            lambda part: self._logits(self.network, images[part]),
            self.task.device,
        )
        return loss, int(self.confusion.trace()) / len(categories)

    def keep(self, figures: EpochFigures) -> None:
        """Write the checkpoint."""
        training = {
            "recipe": self.recipe.to_dict(),
            "epoch": asdict(figures),
            "images": {"train": len(self.task.training), "validation": len(self.task.validation)},
            "validation_confusion": self.confusion.tolist(),
            "familiarity": self.familiarity and self.familiarity.to_dict(),
            **self.task.facts,
        }
        checkpoint = Checkpoint(self.network, self.task.projection, self.recipe.preprocess, training)
        save_checkpoint(self.task.folder, checkpoint)

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        batch = with_channels(images, self.recipe.network.channels).to(self.task.device)
        with in_precision(batch, self.task.precision):
            logits: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
        return logits.float()
