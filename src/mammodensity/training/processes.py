"""Several processes, on one machine or several, that train as one.

Each learns from its part of every batch; gradients, losses and batch statistics are summed over all, so that the result
is that of one process with the same batches, to float rounding. The first process alone reads data sets, reads and
writes the model folder and talks to the user; what it finds, errors included, it tells the others.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mammodensity.devices import find_device
from mammodensity.errors import DeviceError, MammodensityError, TrainingError
from mammodensity.workers import launched

PATIENCE = timedelta(minutes=10)
"""How long a step waits for the other processes."""
_LONG = timedelta(hours=12)  # while the first process checks a large data set
_INTERRUPTED = 130

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them; by itself there is only this one."""

    rank: int = 0
    """Which of them this is."""
    size: int = 1
    on_machine: int = 0
    """Which of those on its machine this is."""
    waiting: dist.ProcessGroup | None = None
    """For what may take long."""

    @property
    def first(self) -> bool:
        """Whether this one reads, writes and talks."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of so many things that lie in a row are this process's; none, where there are too few."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this process, where their order says nothing."""
        return items[self.rank :: self.size]

    def from_first(self, function: Callable[[], Result]) -> Result:
        """What the function gives in the first process, where alone it is called.

        Where it fails there, the others end with the same exit code, and say nothing.
        """
        if self.size == 1:
            return function()
        told: list[Any] = [None, None]
        if not self.first:
            self._tell(told)
        else:
            try:
                told[0] = function()
            except BaseException as error:
                self._tell([None, _exit_code(error)])
                raise
            self._tell(told)
        if told[1] is not None:
            raise SystemExit(told[1])
        result: Result = told[0]
        return result

    def _tell(self, values: list[Any]) -> None:
        with _contact():
            dist.broadcast_object_list(values, 0, group=self.waiting)

    def common(self, error: MammodensityError) -> BaseException:
        """What to raise for an error that all processes meet at once: only the first tells it."""
        return error if self.first else SystemExit(error.exit_code)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Each value summed over the processes."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64)
        add_over_processes(summed)
        return tuple(summed.tolist())

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of them."""
        return self.sums(flag)[0] > 0

    def sum_gradients(self, network: nn.Module) -> None:
        """Give every process the sum of all gradients; a weight that none has a gradient for keeps none."""
        if self.size == 1:
            return
        weights = list(network.parameters())
        known = weights[0].new_tensor([weight.grad is not None for weight in weights])
        each = [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in weights]
        flat = torch.cat([*each, known])  # always as long, whoever lacks what
        add_over_processes(flat)
        *sums, known = torch.split(flat, [*(weight.numel() for weight in weights), len(weights)])
        for weight, total, count in zip(weights, sums, known.tolist(), strict=True):
            if count:
                weight.grad = torch.empty_like(weight).copy_(total.view_as(weight))

    def whole(self, part: Tensor, count: int) -> Tensor:
        """The ``count`` rows of all processes, from the ``part`` of each."""
        if self.size == 1:
            return part
        rows = part.new_empty(count, *part.shape[1:])
        rows[self.part(count)] = part
        for rank in range(self.size):
            theirs = rows[Processes(rank, self.size).part(count)]
            if len(theirs):
                with _contact():
                    dist.broadcast(theirs.view(torch.uint8), rank, group=self.waiting)  # bool is unknown there
        return rows


ALONE = Processes()


@contextmanager
def joined(patience: timedelta = PATIENCE) -> Iterator[Processes]:
    """The processes that ``torchrun`` started this one with, or this one alone.

    Raises
    ------
    TrainingError
        The others cannot be found.
    """
    place = launched()
    if place is None:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _contact("cannot find"):
        dist.init_process_group(backend, timeout=patience)
        waiting = dist.new_group(backend="gloo", timeout=_LONG)
    try:
        yield Processes(place.rank, place.size, place.on_machine, waiting)
        dist.destroy_process_group()
    except BaseException as error:
        _end_in_peace()
        if not torch.cuda.is_available():  # NCCL might wait for those that are lost
            dist.destroy_process_group()
        if isinstance(error, KeyboardInterrupt) and place.rank > 0:
            raise SystemExit(_INTERRUPTED) from None
        raise


def own_device(name: str, processes: Processes) -> torch.device:
    """The device of that name, on GPUs one of its own for each process of a machine.

    Raises
    ------
    DeviceError
        It is absent, or one GPU is named for all.
    """
    device = processes.from_first(lambda: find_device(name))
    if processes.size == 1 or device.type == "cpu":
        return device
    if device.index is not None:
        raise processes.common(
            DeviceError(f"device {name} is one GPU, and each process needs its own; use cuda or auto")
        )
    own = find_device(f"cuda:{processes.on_machine}")
    torch.cuda.set_device(own)
    return own


def add_over_processes(tensor: Tensor) -> None:
    """Sum a tensor over the processes, in place; all of them must come here."""
    with _contact():
        dist.all_reduce(tensor)


@contextmanager
def _contact(what: str = "lost") -> Iterator[None]:
    """Say what became of the others in words."""
    try:
        yield
    except RuntimeError as error:
        if "memory" in str(error):
            raise
        raise TrainingError(
            f"{what} the other processes of this training: one of them ended, or did not answer in time; "
            "start all again, with --resume if they had begun"
        ) from error


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return error.exit_code if isinstance(error, MammodensityError) else 1


def _end_in_peace() -> None:
    """An ending process is told to end again: by the terminal, by ``torchrun``, or as another has ended before it."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
