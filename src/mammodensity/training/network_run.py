"""Training one network a projection: bit-reproducible on the CPU, resumable at any step.

A plain loop rather than a framework's: an interrupted run must go on in the middle of an epoch and end with the very
same bits. For that, every random draw depends only on the seed, the epoch and the image or step, never on what was
drawn before; the state to keep is then the tensors of network and optimiser and a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mammodensity.data import LabelledImages, augment, with_channels
from mammodensity.errors import Interrupted, OutputError, TrainingError
from mammodensity.networks import Checkpoint, OriginNetwork, load_checkpoint, save_checkpoint
from mammodensity.preprocess.familiarity import fit_familiarity
from mammodensity.terms import Projection
from mammodensity.training.history import EpochFigures, write_history
from mammodensity.training.recipes import Recipe
from mammodensity.training.resume import RESUME_FILE, TrainingState, restore_state, save_state
from mammodensity.training.stopping import stop_requests

_PLATEAU_PATIENCE, _PLATEAU_FACTOR, _PLATEAU_FLOOR = 15, 0.1, 1e-3  # the origin's
_ONE_CYCLE_RISE = 0.2
_EVALUATION_BATCH = 16


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
    start: OriginNetwork | None = None
    """A network whose weights to begin with."""


@dataclass(frozen=True)
class Step:
    """Reported after every step."""

    epoch: int
    epochs: int
    step: int
    steps: int
    history: Sequence[EpochFigures]


def train_network(task: NetworkTask, report: Callable[[Step], None] | None = None) -> Checkpoint:
    """Train the network of one projection and keep its best epoch.

    If the task's folder holds an interrupted run of the same recipe, it goes on where that run was.

    Raises
    ------
    Interrupted
        Ctrl-C or SIGTERM; the state is in the folder and the same call goes on from there.
    CheckpointError
        The interrupted run in the folder had another recipe, or is damaged.
    TrainingError
        The loss is no longer finite.
    """
    run = _Run(task)
    run.save()  # before any network file: a network without a resume file is a finished one
    epochs = task.recipe.epochs
    with stop_requests() as stop, _tensorboard(task.folder, run.state.epoch) as board:
        while run.state.epoch < epochs:
            for step, steps in run.remaining_steps():
                run.take_step(step)
                if report:
                    report(Step(run.state.epoch, epochs, step + 1, steps, run.state.history))
                if stop.is_set():
                    run.save()
                    raise Interrupted(
                        f"{task.projection} was interrupted in epoch {run.state.epoch + 1} of {epochs}; "
                        f"its state is kept in {task.folder}, run the same command with --resume to go on"
                    )
            board(run.finish_epoch())
            run.save()
    (task.folder / RESUME_FILE).unlink(missing_ok=True)
    return load_checkpoint(task.folder, task.projection)


class _Run:
    """A network in training: its tensors and its state."""

    def __init__(self, task: NetworkTask) -> None:
        self.task, self.recipe = task, task.recipe
        torch.manual_seed(_seed(self.recipe.seed, "initial", task.projection))
        network = OriginNetwork(self.recipe.network)
        # channels_last: the layout oneDNN and cuDNN convolve fastest
        self.network = network.to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if task.start is not None:
            self.network.load_state_dict(task.start.state_dict())
        self.optimiser = _optimiser(self.network, self.recipe)
        restored = restore_state(task.folder, self.network, self.optimiser, self.recipe)
        self.state = restored or TrainingState(rate=self.recipe.learning_rate)
        self.familiarity = fit_familiarity(task.training.images[:, 0].numpy(), task.validation.images[:, 0].numpy())
        # A last batch of one image joins the one before: a single value a channel has no batch statistics.
        whole, rest = divmod(len(task.training), self.recipe.batch)
        self.steps = max(whole + (rest > 1), 1)

    def save(self) -> None:
        save_state(self.task.folder, self.state, self.network, self.optimiser, self.recipe)

    def remaining_steps(self) -> Iterator[tuple[int, int]]:
        """The steps of this epoch that are not done, each with the number of all."""
        self.network.train()
        for step in range(self.state.step, self.steps):
            yield step, self.steps

    def take_step(self, step: int) -> None:
        state, recipe = self.state, self.recipe
        order = _rng(recipe.seed, "order", state.epoch).permutation(len(self.task.training))
        end = (step + 1) * recipe.batch if step + 1 < self.steps else len(order)
        chosen = order[step * recipe.batch : end]
        rngs = [_rng(recipe.seed, "augment", state.epoch, int(index)) for index in chosen]
        images = augment(self.task.training.images[chosen], recipe.augment, rngs)
        targets = self.task.training.categories[chosen].to(self.task.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(step)
        torch.manual_seed(_seed(recipe.seed, "dropout", state.epoch, step))
        self.optimiser.zero_grad(set_to_none=True)
        logits = self.network(self._to_device(images))
        loss = nn.functional.cross_entropy(logits, targets)
        self._require_finite(loss.item(), "training")
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        state.loss_sum += loss.item() * len(chosen)
        state.correct += int((logits.argmax(1) == targets).sum())
        state.step = step + 1

    def finish_epoch(self) -> EpochFigures:
        """Validate, keep the network if it is the best so far, and go to the next epoch."""
        state = self.state
        loss, accuracy = self._validate()
        self._require_finite(loss, "validation")
        figures = EpochFigures(
            epoch=state.epoch + 1,
            learning_rate=self._learning_rate(self.steps - 1),
            train_loss=state.loss_sum / len(self.task.training),
            train_accuracy=state.correct / len(self.task.training),
            validation_loss=loss,
            validation_accuracy=accuracy,
        )
        if self._is_best(figures):
            save_checkpoint(self.task.folder, self._checkpoint(figures))
        if loss < state.lowest_loss:
            state.lowest_loss, state.stalled = loss, 0
        else:
            state.stalled += 1
            if state.stalled >= _PLATEAU_PATIENCE:
                state.rate, state.stalled = max(state.rate * _PLATEAU_FACTOR, _PLATEAU_FLOOR), 0
        state.history.append(figures)
        state.epoch, state.step, state.loss_sum, state.correct = state.epoch + 1, 0, 0.0, 0
        write_history(self.task.folder, state.history)
        return figures

    def _validate(self) -> tuple[float, float]:
        """Mean loss and accuracy over the validation images."""
        self.network.eval()
        loss, correct = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(self.task.validation), _EVALUATION_BATCH):
                images = self.task.validation.images[start : start + _EVALUATION_BATCH]
                targets = self.task.validation.categories[start : start + _EVALUATION_BATCH].to(self.task.device)
                logits = self.network(self._to_device(images))
                loss += nn.functional.cross_entropy(logits, targets, reduction="sum").item()
                correct += int((logits.argmax(1) == targets).sum())
        return loss / len(self.task.validation), correct / len(self.task.validation)

    def _require_finite(self, loss: float, kind: str) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.task.projection}: the {kind} loss is {loss} in epoch {self.state.epoch + 1}, so training has "
                "diverged; use a lower learning_rate"
            )

    def _to_device(self, images: Tensor) -> Tensor:
        batch = with_channels(images, self.recipe.network.channels)
        return batch.to(self.task.device).contiguous(memory_format=torch.channels_last)

    def _learning_rate(self, step: int) -> float:
        if self.recipe.schedule == "plateau":
            return self.state.rate
        done = (self.state.epoch * self.steps + step + 1) / (self.recipe.epochs * self.steps + 1)
        if done < _ONE_CYCLE_RISE:
            return self.recipe.learning_rate * done / _ONE_CYCLE_RISE
        fall = (done - _ONE_CYCLE_RISE) / (1 - _ONE_CYCLE_RISE)
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * fall))

    def _is_best(self, figures: EpochFigures) -> bool:
        if self.recipe.select == "loss":
            return all(figures.validation_loss < other.validation_loss for other in self.state.history)
        return all(figures.validation_accuracy > other.validation_accuracy for other in self.state.history)

    def _checkpoint(self, figures: EpochFigures) -> Checkpoint:
        training = {
            "recipe": self.recipe.to_dict(),
            "epoch": asdict(figures),
            "images": {"train": len(self.task.training), "validation": len(self.task.validation)},
            "familiarity": self.familiarity and self.familiarity.to_dict(),
            **self.task.facts,
        }
        return Checkpoint(self.network, self.task.projection, self.recipe.preprocess, training)


def _optimiser(network: OriginNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    # Weight decay is for kernels; on biases and batch normalisation it only fights the data.
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _rng(seed: int, *purpose: int | str) -> np.random.Generator:
    words = [int.from_bytes(str(word).encode(), "little") if isinstance(word, str) else word for word in purpose]
    return np.random.default_rng([seed, *words])


def _seed(seed: int, *purpose: int | str) -> int:
    return int(_rng(seed, *purpose).integers(2**63))


@contextmanager
def _tensorboard(folder: Path, first_epoch: int) -> Iterator[Callable[[EpochFigures], None]]:
    """A function that logs an epoch; entries of a run that went further before it was killed are purged."""
    from torch.utils.tensorboard import SummaryWriter

    def log(figures: EpochFigures) -> None:
        for name, value in asdict(figures).items():
            if name != "epoch":
                writer.add_scalar(name, value, figures.epoch)

    try:
        with SummaryWriter(folder / "tensorboard", purge_step=first_epoch + 1) as writer:
            yield log
    except OSError as error:
        raise OutputError(f"cannot write {folder / 'tensorboard'}: {error.strerror or error}") from error
