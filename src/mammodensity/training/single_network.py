"""Training one network a projection."""

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
from mammodensity.models.batch import LabelledImages, augment, with_channels
from mammodensity.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mammodensity.models.network import ResidualNetwork
from mammodensity.terms import CATEGORIES, Projection
from mammodensity.training.loop import EVALUATION_BATCH, TrainingStep, keep_memory, rng_for, run_training, seed_for
from mammodensity.training.processes import ALONE, Processes, place, spread
from mammodensity.training.recipes import Precision, Recipe, in_precision
from mammodensity.training.records import EpochFigures


@dataclass(frozen=True, eq=False)
class NetworkTask:
    """Which network to train, on what, and where to keep it."""

    projection: Projection
    training: LabelledImages
    validation: LabelledImages
    recipe: Recipe
    folder: Path
    device: torch.device
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else to record in the checkpoint; JSON values only."""
    categories: int = len(CATEGORIES)
    """How many it tells apart."""
    start: ResidualNetwork | None = None
    """A network whose weights to begin with."""
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


class _NetworkLearner:
    """The network of one projection, and its images."""

    def __init__(self, task: NetworkTask) -> None:
        self.settings: Mapping[str, Any] = {} if task.precision == "fp32" else {"precision": task.precision}
        self.task, self.recipe, self.processes = task, task.recipe, task.processes
        self.name = task.projection.value
        torch.manual_seed(seed_for(self.recipe.seed, "initial", task.projection))
        network = ResidualNetwork(self.recipe.network, task.categories)
        # channels_last: the layout oneDNN and cuDNN convolve fastest
        self.network = network.to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if task.start is not None:
            weights = task.start.state_dict()
            if task.start.categories != task.categories:  # what it knows of other categories is left out
                weights |= {f"head.{name}": tensor for name, tensor in network.head.state_dict().items()}
            self.network.load_state_dict(weights)
        spread(self.network, task.processes)
        self.familiarity = fit_familiarity(task.training.images[:, 0].numpy(), task.validation.images[:, 0].numpy())

    def __len__(self) -> int:
        return len(self.task.training)

    def learn(self, chosen: NDArray[np.intp], epoch: int, step: int) -> tuple[float, int]:
        """Forward and backward."""
        recipe = self.recipe
        rows = self.processes.part(len(chosen))
        own = chosen[rows]
        rngs = [rng_for(recipe.seed, "augment", epoch, int(index)) for index in own]
        images = augment(self.task.training.images[own], recipe.augment, rngs)
        targets = self.task.training.categories[own].to(self.task.device)
        torch.manual_seed(seed_for(recipe.seed, "dropout", epoch, step))
        place(self.network, rows, len(chosen))
        logits = self._logits(images)
        loss = nn.functional.cross_entropy(logits, targets, reduction="sum") / len(chosen)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), int((logits.argmax(1) == targets).sum())

    def validate(self) -> tuple[float, float]:
        """Mean loss and accuracy over the validation images."""
        loss, correct = 0.0, 0
        with torch.inference_mode():
            for start in self.processes.share(range(0, len(self.task.validation), EVALUATION_BATCH)):
                images = self.task.validation.images[start : start + EVALUATION_BATCH]
                targets = self.task.validation.categories[start : start + EVALUATION_BATCH].to(self.task.device)
                logits = self._logits(images)
                loss += nn.functional.cross_entropy(logits, targets, reduction="sum").item()
                correct += int((logits.argmax(1) == targets).sum())
        whole_loss, all_correct = self.processes.sums(loss, correct)
        return whole_loss / len(self.task.validation), all_correct / len(self.task.validation)

    def keep(self, figures: EpochFigures) -> None:
        """Write the checkpoint."""
        training = {
            "recipe": self.recipe.to_dict(),
            "epoch": asdict(figures),
            "images": {"train": len(self.task.training), "validation": len(self.task.validation)},
            "familiarity": self.familiarity and self.familiarity.to_dict(),
            **self.task.facts,
        }
        checkpoint = Checkpoint(self.network, self.task.projection, self.recipe.preprocess, training)
        save_checkpoint(self.task.folder, checkpoint)

    def _logits(self, images: Tensor) -> Tensor:
        batch = with_channels(images, self.recipe.network.channels).to(self.task.device)
        with in_precision(batch, self.task.precision):
            logits: Tensor = self.network(batch.contiguous(memory_format=torch.channels_last))
        return logits.float()
