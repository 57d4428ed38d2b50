"""Layers that look at a whole batch of which this process has a part: batch normalisation, and dropout.

Batch statistics are those of the whole batch, forward and backward, and a dropout mask is the part of that which one
process would draw. ``nn.SyncBatchNorm`` does neither on a CPU, nor where a process has no image.

References
----------
Batch normalisation: Ioffe and Szegedy, ICML 2015. Gradients: those of ``nn.BatchNorm2d``,
with both sums over all processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mammodensity.training.processes import Processes, add_over_processes


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
