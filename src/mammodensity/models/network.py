"""The residual network of the INFN reference for one projection, with its shape as a spec.

References
----------
The table of layers is in ``docs/infn.md``. Residual bottleneck blocks: He et al., CVPR 2016. Cardinality (grouped
3x3 convolutions): Xie et al., CVPR 2017. Glorot uniform initial values: Glorot and Bengio, AISTATS 2010.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mammodensity.errors import OptionError
from mammodensity.settings import Field, settings
from mammodensity.terms import CATEGORIES

_BATCH_NORM_EPSILON = 1e-3  # Keras' default; PyTorch's is 1e-5
_LEAK = 0.3  # Keras' default slope; PyTorch's is 0.01

_MOST_WEIGHTS = 100_000_000  # INFN's network has 2 million
_Filters = Annotated[int, Field(ge=1, le=4096)]
_Blocks = Annotated[int, Field(ge=1, le=64)]
_MOST_STAGES = 8  # each halves the image
_EachStage = Field(strict=False, min_length=1, max_length=_MOST_STAGES)  # not strict, as JSON gives lists


@settings
class NetworkSpec:
    """Shape of the network. The defaults are those of INFN, but with one grey channel instead of three identical ones.

    The network takes any image size; the size it is trained at belongs to ``PreprocessSpec``.
    """

    channels: Literal[1, 3] = 1
    """Input channels: 1 grey, or 3 for weights of INFN (the grey value repeated)."""
    stem: _Filters = 64
    """Filters of the first convolution."""
    widths: Annotated[tuple[_Filters, ...], _EachStage] = (64, 128, 128, 128)
    """Inner filters of the blocks of each stage; every stage but the first halves the image."""
    outputs: Annotated[tuple[_Filters, ...], _EachStage] = (128, 256, 256, 256)
    """Output filters of the blocks of each stage."""
    depths: Annotated[tuple[_Blocks, ...], _EachStage] = (3, 3, 3, 3)
    """Blocks of each stage."""
    cardinality: _Filters = 1
    """Groups of the 3x3 convolutions."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the last features dropped in training."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Weight of a new batch in the running statistics of batch normalisation; Keras states that of the old value."""

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.outputs) == len(self.depths):
            raise OptionError("widths, outputs and depths must have one entry a stage each")
        if any(width % self.cardinality for width in self.widths):
            raise OptionError(f"every width must be a multiple of cardinality {self.cardinality}. Got {self.widths}.")
        if self.weights > _MOST_WEIGHTS:
            raise OptionError(f"a network may have at most {_MOST_WEIGHTS:,} weights. Got {self.weights:,} instead.")

    @property
    def weights(self) -> int:
        """Number of weights of the convolutions."""
        total, inputs = 9 * self.channels * self.stem, self.stem
        for width, outputs, depth in zip(self.widths, self.outputs, self.depths, strict=True):
            first = inputs * (width + outputs)  # with the shortcut
            total += first + (depth - 1) * outputs * width + depth * (9 * width // self.cardinality + outputs) * width
            inputs = outputs
        return total


class ResidualNetwork(nn.Module):
    """The INFN reference network, from one projection to a logit for each category.

    Input (B, channels, H, W) float32, any H and W from 16 pixels. Output logits (B, K), whose softmax are the scores.
    With the default number of ``categories`` these are A-D; otherwise those of another ``Scale``.
    """

    def __init__(self, spec: NetworkSpec, categories: int = len(CATEGORIES)) -> None:
        super().__init__()
        self.spec = spec
        self.categories = categories
        self.conv = _convolution(spec.channels, spec.stem, 3, 2)
        self.norm = _batch_norm(spec.stem)
        self.pool = SameMaxPool2d()
        self.stages = nn.ModuleList()
        inputs = spec.stem
        for stage, (width, outputs, depth) in enumerate(zip(spec.widths, spec.outputs, spec.depths, strict=True)):
            first = Bottleneck(inputs, width, outputs, spec.cardinality, stride=2 if stage else 1, project=True)
            others = (Bottleneck(outputs, width, outputs, spec.cardinality) for _ in range(depth - 1))
            self.stages.append(nn.Sequential(first, *others))
            inputs = outputs
        self.dropout = nn.Dropout(spec.dropout)
        self.head: nn.Module = linear_head(inputs, categories)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = spec.norm_momentum

    @property
    def last_block(self) -> nn.Module:
        """The last residual block; Grad-CAM weights its output."""
        stage = self.stages[-1]
        assert isinstance(stage, nn.Sequential)
        return stage[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) float32 to logits (B, K)."""
        return self.head(self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) float32 to the input of the head (B, F): dropout, then the mean over rows and columns."""
        features = nn.functional.leaky_relu(self.norm(self.conv(images)), _LEAK, inplace=True)
        features = self.pool(features)
        for stage in self.stages:
            features = stage(features)
        return self.dropout(features).mean(dim=(-2, -1))  # (B, F, h, w) to (B, F)


class Bottleneck(nn.Module):
    """Residual block: 1x1, 3x3 at the block's stride and 1x1, plus the shortcut; the activation follows the sum."""

    def __init__(
        self, inputs: int, width: int, outputs: int, cardinality: int, *, stride: int = 1, project: bool = False
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(inputs, width, 1), _batch_norm(width)
        self.conv2, self.norm2 = _convolution(width, width, 3, stride, cardinality), _batch_norm(width)
        self.conv3, self.norm3 = _convolution(width, outputs, 1), _batch_norm(outputs)
        self.recomputes = False
        """In training, keep only the input of batch normalisation, and compute the next layers again for gradients."""
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, 1, stride), _batch_norm(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
        inner = self._then(self.norm1, self.conv2, self.conv1(features))
        inner = self._then(self.norm2, self.conv3, inner)
        total = self.norm3(inner) + self.shortcut(features)
        return nn.functional.leaky_relu(total, _LEAK, inplace=True)

    def _then(self, norm: nn.Module, convolution: nn.Module, inner: Tensor) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint(_normalised, norm, convolution, inner, use_reentrant=False, preserve_rng_state=False)
        return _normalised(norm, convolution, inner)


def _normalised(norm: nn.Module, convolution: nn.Module, inner: Tensor) -> Tensor:
    """Batch normalisation, activation, convolution."""
    return convolution(nn.functional.leaky_relu(norm(inner), _LEAK, inplace=True))


class SameConv2d(nn.Conv2d):
    """Convolution with a bias and TensorFlow's "same" padding, at any image size."""

    def forward(self, input: Tensor) -> Tensor:
        stride = self.stride[0]
        images, padding = _padded(input, self.kernel_size[0], stride, 0.0)
        return nn.functional.conv2d(images, self.weight, self.bias, stride, padding, 1, self.groups)


class SameMaxPool2d(nn.Module):
    """3x3 maximum at stride 2 with TensorFlow's "same" padding."""

    def forward(self, images: Tensor) -> Tensor:
        images, padding = _padded(images, 3, 2, float("-inf"))
        return nn.functional.max_pool2d(images, 3, 2, padding)


def _padded(images: Tensor, kernel: int, stride: int, value: float) -> tuple[Tensor, tuple[int, int]]:
    """Images with "same" padding, and the padding left to the layer: all of it if each side is as wide as the other."""
    (top, bottom), (left, right) = (_same_padding(size, kernel, stride) for size in images.shape[-2:])
    if (top, left) == (bottom, right):
        return images, (top, left)
    return nn.functional.pad(images, (left, right, top, bottom), value=value), (0, 0)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding before and after; for stride 2 on an even size these are 0 and 1, not 1 and 1."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv2d:
    layer = SameConv2d(inputs, outputs, kernel, stride, groups=groups)
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    # Batch normalisation follows every convolution and removes the bias, so that its gradient is only rounding errors.
    # AdamW would make steps of these, and computing them takes 7 % of a step.
    layer.bias.requires_grad_(False)
    return layer


def _batch_norm(filters: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(filters, eps=_BATCH_NORM_EPSILON)


def linear_head(inputs: int, outputs: int = len(CATEGORIES)) -> nn.Linear:
    """A linear layer with Glorot's initial weights and zero biases."""
    head = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)
    return head
