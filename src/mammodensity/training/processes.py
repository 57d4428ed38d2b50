"""Several processes, on one machine or several, that train as one.

Each learns from its part of every batch; gradients, losses and batch statistics are summed over all, so that the result
is that of one process with the same batches, to float rounding. The first process alone reads data sets, reads and
writes the model folder and talks to the user; what it finds, errors included, it tells the others.

Layers that look at a whole batch of which this process has a part: batch normalisation, and dropout.

Batch statistics are those of the whole batch, forward and backward, and a dropout mask is the part of that which one
process would draw. ``nn.SyncBatchNorm`` does neither on a CPU, nor where a process has no image.

References
----------
Batch normalisation: Ioffe and Szegedy, ICML 2015. Gradients: those of ``nn.BatchNorm2d``,
with both sums over all processes.
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

from mammodensity.errors import DeviceError, MammodensityError, TrainingError
from mammodensity.workers import find_device, launched

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


def spread(network: nn.Module, processes: Processes) -> None:
    """Have the layers of a network look at the whole batch, where there are several processes."""
    if processes.size == 1:
        return
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                parent.add_module(name, WholeBatchNorm2d(layer))
            elif isinstance(layer, nn.Dropout):
                parent.add_module(name, WholeDropout(layer.p))


def place(network: nn.Module, rows: Tensor | slice, count: int) -> None:
    """Say which rows of a batch of so many the network is given next; until it is said again."""
    for layer in network.modules():
        if isinstance(layer, WholeBatchNorm2d | WholeDropout):
            layer.rows, layer.count = rows, count


class WholeBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes."""

    rows: Tensor | slice
    count: int

    def __init__(self, like: nn.BatchNorm2d) -> None:
        super().__init__(like.num_features, like.eps, like.momentum)
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked

    def forward(self, input: Tensor) -> Tensor:
        """(n, C, h, w) to the same; n may be 0."""
        if not self.training:
            return super().forward(input)
        values = self.count * input.shape[2] * input.shape[3]
        given = input, self.weight, self.bias, (self.eps, values)
        normalised, mean, variance = _Normalise.apply(*given)  # type: ignore[no-untyped-call]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            unbiased = variance * (values / (values - 1))
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.copy_((1 - self.momentum) * running + self.momentum * new)
        result: Tensor = normalised
        return result


class WholeDropout(nn.Dropout):
    """Dropout with this process's part of the mask of the whole batch."""

    rows: Tensor | slice
    count: int

    def forward(self, input: Tensor) -> Tensor:
        """(n, C, h, w) to the same; n may be 0."""
        if not self.training:
            return super().forward(input)
        last = input.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format  # a mask is drawn as it lies in memory
        whole = input.new_ones(self.count, *input.shape[1:]).contiguous(memory_format=layout)
        return input * nn.functional.dropout(whole, self.p)[self.rows]


class _Normalise(torch.autograd.Function):
    """Images (n, C, h, w), weight and bias (C,) to normalised images, and mean and variance (C,) over all processes."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, how: tuple[float, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        eps, values = how
        sums = torch.zeros(2, len(weight), dtype=torch.float64, device=images.device)
        if len(images):
            mean, variance = (one.double() for one in torch.batch_norm_update_stats(images.float(), None, None, 0.0))
            own = images.numel() // len(weight)
            sums[0], sums[1] = own * mean, own * (variance + mean.square())
        add_over_processes(sums)
        sums /= values
        mean, variance = sums[0].float(), (sums[1] - sums[0].square()).clamp_min(0).float()
        ctx.save_for_backward(images, weight, mean, variance)
        ctx.eps, ctx.values = eps, values
        ctx.mark_non_differentiable(mean, variance)
        if not len(images):
            return images.clone(), mean, variance
        normalised = torch.native_batch_norm(images, weight, bias, mean, variance, False, 0.0, eps)[0]
        return normalised, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        images, weight, mean, variance = ctx.saved_tensors
        gradient = gradients[0]
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        if len(images):  # as if mean and variance were given
            gradient, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, images, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        sums = torch.stack([of_bias, of_weight]).double()
        add_over_processes(sums)
        if len(images):  # and what changes as they change with the images
            by_mean, by_variance = (sums / ctx.values).float()
            scale = torch.rsqrt(variance + ctx.eps)
            shift = (images - _by_channel(mean)) * _by_channel(by_variance * scale) + _by_channel(by_mean)
            gradient = (gradient - shift * _by_channel(weight * scale)).to(images.dtype)
        return gradient, of_weight, of_bias, None


def _by_channel(values: Tensor) -> Tensor:
    return values[:, None, None]
