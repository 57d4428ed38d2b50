"""Several processes, on one machine or several, that train a network together by DistributedDataParallel.

Each process learns from its share of every batch, and gradients are averaged over the whole batch. Batch statistics are
per process on CPUs (gloo), where each process normalises its own images, and synchronised on GPUs (NCCL), by
``SyncBatchNorm``. Dropout masks are each process's own. So several processes do not give the bits of one process; the
same number of processes gives the same bits again.

The first process alone reads data sets, reads and writes the model folder and talks to the user. It tells the others
what it read, errors included.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mammodensity.errors import DeviceError, MammodensityError, TrainingError
from mammodensity.stopping import ignore_signals
from mammodensity.workers import find_device, launched

PATIENCE = timedelta(minutes=10)
"""How long a step waits for the other processes."""
_LONG = timedelta(hours=12)  # while the first process checks a large data set
_INTERRUPTED = 130

Result = TypeVar("Result")
Items = TypeVar("Items", bound="_Sliceable")


class _Sliceable(Protocol):
    def __getitem__(self, part: slice, /) -> Any: ...


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them; ``ALONE`` is a training in one process."""

    rank: int = 0
    """The number of this process."""
    size: int = 1
    on_machine: int = 0
    """Its number on its machine."""
    waiting: dist.ProcessGroup | None = None
    """For what may take long."""

    @property
    def first(self) -> bool:
        """True for the process that reads, writes and talks."""
        return self.rank == 0

    @property
    def numbered(self) -> tuple[int, ...]:
        """Further parts of a seed: none in the first process, so that one process alone is like it."""
        return (self.rank,) if self.rank else ()

    def share(self, items: Items) -> Items:
        """The items of this process; shares differ in length by one at most."""
        part: Items = items[self.rank :: self.size]
        return part

    def from_first(self, function: Callable[[], Result]) -> Result:
        """Call the function in the first process only, and return its result in all.

        Where it fails, the first process raises its error, and the others end silently with the same exit code.
        """
        if self.size == 1:
            return function()
        message: list[Any] = [None, None]
        if not self.first:
            self._broadcast(message)
        else:
            try:
                message[0] = function()
            except BaseException as error:
                self._broadcast([None, _exit_code(error)])
                raise
            self._broadcast(message)
        if message[1] is not None:
            raise SystemExit(message[1])
        result: Result = message[0]
        return result

    def _broadcast(self, message: list[Any]) -> None:
        with _contact():
            dist.broadcast_object_list(message, 0, group=self.waiting)

    def common(self, error: MammodensityError) -> BaseException:
        """The exception to raise for an error that all processes meet at once: the first alone reports it."""
        return error if self.first else SystemExit(error.exit_code)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Sum each value over the processes."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        with _contact():
            dist.all_reduce(total)
        return tuple(total.tolist())

    def any(self, flag: bool) -> bool:
        """True when the flag is set in any process."""
        return self.sums(flag)[0] > 0

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network for a training step, with weights and statistics as in the first process.

        Each step must use all weights in all processes.
        """
        if self.size == 1:
            return network
        if next(network.parameters()).is_cuda:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        with _contact():
            return DistributedDataParallel(network, forward_sync_buffers=False)

    def backward(self, loss: Tensor) -> None:
        """Go back through a network of ``parallel``; gradients are then those of the sum of all processes' losses."""
        if self.size == 1:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        with _contact(), warnings.catch_warnings():
            # The strides of 1 x 1 kernels differ in name only.
            warnings.filterwarnings("ignore", message="Grad strides do not match", category=UserWarning)
            (loss * self.size).backward()  # type: ignore[no-untyped-call]  # as gradients are averaged

    def average_statistics(self, network: nn.Module) -> None:
        """Give every process the mean of all running statistics."""
        for statistic in network.buffers() if self.size > 1 else ():
            if statistic.is_floating_point():
                with _contact():
                    dist.all_reduce(statistic)
                statistic.div_(self.size)

    def whole(self, part: Tensor, count: int) -> Tensor:
        """Collect all ``count`` rows from the rows that each process has as its share."""
        if self.size == 1:
            return part
        rows = part.new_empty(count, *part.shape[1:])
        rows[self.rank :: self.size] = part
        for rank in range(self.size):
            sent = rows[rank :: self.size].clone(memory_format=torch.contiguous_format)
            if len(sent):
                with _contact():
                    dist.broadcast(sent.view(torch.uint8), rank, group=self.waiting)  # gloo does not send bool
            rows[rank :: self.size] = sent
        return rows


ALONE = Processes()


@contextmanager
def joined(patience: timedelta = PATIENCE) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started together with this one, if it did.

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
        ignore_signals()
        if not torch.cuda.is_available():  # NCCL might wait for those that are lost
            dist.destroy_process_group()
        if isinstance(error, KeyboardInterrupt) and place.rank > 0:
            raise SystemExit(_INTERRUPTED) from None
        raise


def device_of_process(name: str, processes: Processes) -> torch.device:
    """The device of that name; each process of a machine gets its own GPU.

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
    chosen = find_device(f"cuda:{processes.on_machine}")
    torch.cuda.set_device(chosen)
    return chosen


@contextmanager
def _contact(failure: str = "lost") -> Iterator[None]:
    """Explain what happened where the other processes do not answer; other errors are raised as they are."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in ("gloo", "nccl")):
            raise
        raise TrainingError(
            f"{failure} the other processes of this training: one of them ended, or did not answer in time; "
            "start all again, with --resume if they had begun"
        ) from error


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return error.exit_code if isinstance(error, MammodensityError) else 1
