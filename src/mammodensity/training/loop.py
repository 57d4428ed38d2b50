"""The training loop: the same bits again on the CPU, and resumable at any step, whatever is trained.

A plain loop rather than a framework's: an interrupted run must go on in the middle of an epoch and end with the same
bits as a run that was not interrupted. For that, every random draw depends only on the seed, the epoch and the image or
step, never on what was drawn before. The state to keep is then the tensors of network and optimiser and a few numbers.
A ``Learner`` is what is trained, one network or the joint one; the loop knows order, rates, epochs, files and how to
stop.

Here is also how the C library treats the memory of freed tensors. By default glibc keeps freed blocks of up to 32 MB
and gives larger ones back to the system, which must clear them page by page when the next step asks again.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammodensity.errors import Interrupted, OutputError, TrainingError
from mammodensity.models.checkpoint import RESUME_FILE
from mammodensity.stopping import stop_requests
from mammodensity.training.processes import Processes
from mammodensity.training.recipes import Recipe
from mammodensity.training.records import (
    EpochFigures,
    TrainingState,
    restore_state,
    restore_tensors,
    run_tensors,
    save_state,
    write_history,
)

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # parameters of glibc's mallopt
_LARGE = 16 << 20
_DEFAULT_MMAP_MAX = 65536
_NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Keep the memory of freed tensors for the next ones, from now on; False where the C library is not glibc.

    A step then takes less time, as the system need not clear pages for it, and the process holds more memory.
    """
    return _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER})


def return_large_blocks() -> bool:
    """Give the memory of freed tensors of 16 MB and more back at once, from now on; False as for ``keep_memory``.

    Smaller ones are kept until ``return_kept_memory``. To keep all blocks would cost the step in little memory what it
    saves; to keep none would cost much time for page faults. Both aims are measured in ``docs/measurements.md``.
    """
    return _set({_MMAP_MAX: _DEFAULT_MMAP_MAX, _MMAP_THRESHOLD: _LARGE, _TRIM_THRESHOLD: _LARGE})


def ask_for_large_pages() -> None:
    """Put tensors into memory pages of 2 MB where the system has such pages, so that there are fewer page faults.

    PyTorch reads the variable once: this has no effect after the first tensor of the process.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_kept_memory() -> None:
    """Give the memory of freed tensors that was kept back to the system, once."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return all(mallopt(name, value) for name, value in values.items())


EVALUATION_BATCH = 16
_PLATEAU_PATIENCE, _PLATEAU_FACTOR, _PLATEAU_FLOOR = 15, 0.1, 1e-3  # the INFN reference's
_ONE_CYCLE_RISE = 0.2


@dataclass(frozen=True)
class TrainingStep:
    """Reported after every step, and once more when an epoch is validated: then ``history`` ends with its figures."""

    epoch: int
    epochs: int
    step: int
    steps: int
    history: Sequence[EpochFigures]


class Learner(Protocol):
    """A network with its data."""

    @property
    def name(self) -> str:
        """A projection, or ``joint``; for messages."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Choices besides the recipe that decide the result; JSON values."""

    @property
    def processes(self) -> Processes:
        """The processes that train it together."""

    def __len__(self) -> int:
        """Number of images or exams to learn from."""

    def learn(self, chosen: NDArray[np.intp], epoch: int, step: int) -> tuple[float, int]:
        """Add the gradients of a step to the weights, and return the mean loss and the number of right answers.

        With several processes, each takes its share of those chosen; loss and number are to be summed over them.
        """

    def validate(self) -> tuple[float, float]:
        """Mean loss and accuracy on the validation split."""

    def keep(self, figures: EpochFigures) -> None:
        """Write the network, as it is the best so far."""


def run_training(
    learner: Learner, recipe: Recipe, folder: Path, report: Callable[[TrainingStep], None] | None = None
) -> None:
    """Train all epochs, or those that an interrupted run in the folder left.

    Raises
    ------
    Interrupted
        Ctrl-C or SIGTERM; the state is in the folder and the same call goes on from there.
    CheckpointError
        The interrupted run in the folder had another recipe, or is damaged.
    TrainingError
        The loss is no longer finite.
    """
    processes = learner.processes
    run = _Run(learner, recipe, folder)
    processes.from_first(run.save)  # before any network file: a network without a resume file is a finished one
    stopping = stop_requests(once=processes.size > 1)
    with stopping as stop, _tensorboard(folder if processes.first else None, run.state.epoch) as board:
        while run.state.epoch < recipe.epochs:
            for step, steps in run.remaining_steps():
                run.take_step(step)
                if report:
                    report(TrainingStep(run.state.epoch, recipe.epochs, step + 1, steps, run.state.history))
                if processes.any(stop.is_set()):
                    processes.average_statistics(learner.network)
                    processes.from_first(run.save)
                    raise processes.common(
                        Interrupted(
                            f"{learner.name} was interrupted in epoch {run.state.epoch + 1} of {recipe.epochs}; "
                            f"its state is kept in {folder}, run the same command with --resume to go on"
                        )
                    )
            figures, best = run.finish_epoch()
            processes.from_first(partial(run.write_epoch, figures, best, board))
            if report:
                report(TrainingStep(figures.epoch - 1, recipe.epochs, run.steps, run.steps, run.state.history))
    processes.from_first(lambda: (folder / RESUME_FILE).unlink(missing_ok=True))


class _Run:
    """A network in training: its tensors and its state."""

    def __init__(self, learner: Learner, recipe: Recipe, folder: Path) -> None:
        self.learner, self.recipe, self.folder = learner, recipe, folder
        self.optimiser = _optimiser(learner.network, recipe)
        self.facts = {**recipe.to_dict(), **learner.settings}
        self.state = self._begun() or TrainingState(rate=recipe.learning_rate)
        # A last batch that gives a process a single image joins the one before: batch statistics need two.
        whole, rest = divmod(len(learner), recipe.batch)
        self.steps = max(whole + (rest >= 2 * learner.processes.size), 1)

    def _begun(self) -> TrainingState | None:
        """Go back to where an interrupted run was, in all processes as in the first."""
        network, optimiser, processes = self.learner.network, self.optimiser, self.learner.processes

        def read() -> tuple[TrainingState | None, dict[str, Tensor]]:
            state = restore_state(self.folder, network, optimiser, self.facts)
            return state, {name: tensor.cpu() for name, tensor in run_tensors(network, optimiser).items()}

        state, tensors = processes.from_first(read)
        if not processes.first:
            restore_tensors(tensors, network, optimiser)
        return state

    def save(self) -> None:
        save_state(self.folder, self.state, self.learner.network, self.optimiser, self.facts)

    def remaining_steps(self) -> Iterator[tuple[int, int]]:
        """Yield the steps of this epoch that are not done, each with the number of all its steps."""
        self.learner.network.train()
        for step in range(self.state.step, self.steps):
            yield step, self.steps

    def take_step(self, step: int) -> None:
        state, recipe = self.state, self.recipe
        order = rng_for(recipe.seed, "order", state.epoch).permutation(len(self.learner))
        end = (step + 1) * recipe.batch if step + 1 < self.steps else len(order)
        chosen = order[step * recipe.batch : end]
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(step)
        self.optimiser.zero_grad(set_to_none=True)
        loss, correct = self.learner.processes.sums(*self.learner.learn(chosen, state.epoch, step))
        self._require_finite(loss, "training")
        self.optimiser.step()
        state.loss_sum += loss * len(chosen)
        state.correct += int(correct)
        state.step = step + 1

    def finish_epoch(self) -> tuple[EpochFigures, bool]:
        """Validate and go to the next epoch; return the figures, and whether they are the best so far."""
        state = self.state
        self.learner.processes.average_statistics(self.learner.network)
        self.learner.network.eval()
        loss, accuracy = self.learner.validate()
        self._require_finite(loss, "validation")
        figures = EpochFigures(
            epoch=state.epoch + 1,
            learning_rate=self._learning_rate(self.steps - 1),
            train_loss=state.loss_sum / len(self.learner),
            train_accuracy=state.correct / len(self.learner),
            validation_loss=loss,
            validation_accuracy=accuracy,
        )
        best = self._is_best(figures)
        if loss < state.lowest_loss:
            state.lowest_loss, state.stalled = loss, 0
        else:
            state.stalled += 1
            if state.stalled >= _PLATEAU_PATIENCE:
                state.rate, state.stalled = max(state.rate * _PLATEAU_FACTOR, _PLATEAU_FLOOR), 0
        state.history.append(figures)
        state.epoch, state.step, state.loss_sum, state.correct = state.epoch + 1, 0, 0.0, 0
        return figures, best

    def write_epoch(self, figures: EpochFigures, best: bool, board: Callable[[EpochFigures], None]) -> None:
        """The network if it is the best so far, the history, and where the run is."""
        if best:
            self.learner.keep(figures)
        write_history(self.folder, self.state.history)
        board(figures)
        self.save()

    def _require_finite(self, loss: float, kind: str) -> None:
        if not math.isfinite(loss):
            raise self.learner.processes.common(
                TrainingError(
                    f"{self.learner.name}: the {kind} loss is {loss} in epoch {self.state.epoch + 1}, so training has "
                    "diverged; use a lower learning_rate"
                )
            )

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


def loss_and_confusion(
    processes: Processes, targets: Tensor, kinds: int, logits_of: Callable[[slice], Tensor], device: torch.device
) -> tuple[float, NDArray[np.int_]]:
    """Compute mean loss and confusion matrix (K, K; reference by row) over a validation split.

    ``logits_of`` gives the logits (B, K) of a part of the split; K is the number of kinds.
    """
    loss, pairs = 0.0, torch.zeros(kinds * kinds)
    with torch.inference_mode():
        for start in processes.share(range(0, len(targets), EVALUATION_BATCH)):
            part = slice(start, start + EVALUATION_BATCH)
            logits, expected = logits_of(part), targets[part].to(device)
            loss += nn.functional.cross_entropy(logits, expected, reduction="sum").item()
            pairs += torch.bincount(expected * kinds + logits.argmax(1), minlength=kinds * kinds).cpu()
    whole_loss, *counts = processes.sums(loss, *pairs.tolist())
    return whole_loss / len(targets), np.reshape(counts, (kinds, kinds)).astype(int)


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    # Weight decay is for kernels; on biases and batch normalisation it only fights the data.
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def rng_for(seed: int, *purpose: int | str) -> np.random.Generator:
    """Make a generator for one purpose, such as an epoch's order, whatever was drawn before."""
    words = [int.from_bytes(str(word).encode(), "little") if isinstance(word, str) else word for word in purpose]
    return np.random.default_rng([seed, *words])


def seed_for(seed: int, *purpose: int | str) -> int:
    """Draw a seed for torch, as :func:`rng_for`."""
    return int(rng_for(seed, *purpose).integers(2**63))


@contextmanager
def _tensorboard(folder: Path | None, first_epoch: int) -> Iterator[Callable[[EpochFigures], None]]:
    """Yield a function that logs an epoch; entries of a run that went further before it was killed are purged."""
    if folder is None:
        yield lambda _figures: None
        return
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
