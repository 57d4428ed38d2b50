"""Forward and backward passes of explanations; they leave the network as it was.

The number explained is the logit of a category, or its distance from the logit of another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn

from mammodensity.errors import OptionError
from mammodensity.terms import SCALES, Category

Choice = Category | str | int | None
"""A category, its letter or its index; None for the one with the highest logit."""
Categories = Choice | Sequence[Choice]
"""One for all images of a batch, or one each."""


@dataclass(frozen=True, eq=False)
class Target:
    """The number explained for each image of a batch, by its weights on the logits."""

    weights: Tensor
    """(B, K) float32: 1 at the category, -1 at the one it is set against; all 0 where both are one."""

    def values(self, logits: Tensor, images: Tensor | None = None) -> Tensor:
        """(N,) float32 of logits (N, K); ``images`` (N,) says whose logits they are, else all B in their order."""
        weights = self.weights if images is None else self.weights[images]
        return (logits.float() * weights).sum(dim=1)


def choose_target(logits: Tensor, category: Categories, against: Categories) -> Target:
    """Choose the number to explain for each image by its logits (B, K).

    Parameters
    ----------
    category
        None is each image's own predicted category.
    against
        The category to set it against, or one an image; None is none. Where an image's predicted category is the very
        one it is set against, the difference is 0 and so is its map.

    Raises
    ------
    OptionError
        There is no such category, their number is not that of the images, or one is set against itself.
    """
    chosen, others = _indices(category, logits), _indices(against, logits)
    if any(index is not None and index == other_index for index, other_index in zip(chosen, others, strict=True)):
        raise OptionError("a category cannot be set against itself; name another one to set it against, or none")
    predicted = logits.argmax(dim=1).tolist()
    weights = torch.zeros(logits.shape, dtype=torch.float32)
    for image, (index, other_index) in enumerate(zip(chosen, others, strict=True)):
        weights[image, predicted[image] if index is None else index] += 1
        if other_index is not None:
            weights[image, other_index] -= 1
    return Target(weights.to(logits.device))


def _indices(category: Categories, logits: Tensor) -> list[int | None]:
    """The index for each image; None where none is named."""
    single = category is None or isinstance(category, str | Integral)
    wanted: list[Choice] = [category] * len(logits) if single else list(category)  # type: ignore[list-item, arg-type]
    if len(wanted) != len(logits):
        raise OptionError(f"categories must be one, or one an image. Got {len(wanted)} for {len(logits)} images.")
    return [_index(choice, logits.shape[1]) for choice in wanted]


def _index(category: Choice, count: int) -> int | None:
    if category is None:
        return None
    places = {entry.value: entry.index for scale in SCALES if len(scale) == count for entry in scale}
    if isinstance(category, str) and category in places:
        return places[category]
    if isinstance(category, Integral) and not isinstance(category, bool) and 0 <= int(category) < count:
        return int(category)
    letters = f"{', '.join(places)} or " if places else ""
    raise OptionError(f"category must be {letters}an index below {count}. Got {category!r} instead.")


IMAGES_AT_ONCE = 8
"""Changed images in one pass, where a method needs many: bounds the memory."""
_SCALES = 4096.0, 1.0
"""Powers of two, so exact; the first keeps small gradients from vanishing in half precision, if nothing overflows."""


def require_images(images: Tensor) -> None:
    """Raise ``OptionError`` unless these are images for a network: (B, C, H, W) float, B > 0, finite."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise OptionError(f"images must be a float tensor (B, C, H, W) with B > 0. Got {_what(images)} instead.")
    if not images.isfinite().all():
        raise OptionError("images must be finite, but there are NaN or infinite values in them; prepare them again")


def _what(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


@contextmanager
def evaluating(network: nn.Module, *, gradients: bool) -> Iterator[None]:
    """Dropout off and batch statistics fixed within the block; every module's own mode is put back after it.

    Gradients are on or off as asked, whatever the caller has set.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            yield
    finally:
        for module, training in modes:
            module.training = training


def find_layer(network: nn.Module, layer: nn.Module | str | None) -> nn.Module:
    """The module named; by default the last residual block, or in another network the last convolution.

    Raises
    ------
    OptionError
        There is none.
    """
    if isinstance(layer, nn.Module):
        if all(layer is not module for module in network.modules()):
            raise OptionError("the layer to explain must be a module of the network")
        return layer
    if isinstance(layer, str):
        try:
            return network.get_submodule(layer)
        except AttributeError as error:
            names = ", ".join(name for name, _ in network.named_children())
            raise OptionError(
                f"the network has no layer {layer!r}; its parts are {names}, and what is in them"
            ) from error
    last_block = getattr(network, "last_block", None)
    if isinstance(last_block, nn.Module):
        return last_block
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise OptionError("the network has no convolution to explain; name a layer")
    return convolutions[-1]


def features_and_logits(network: nn.Module, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The features (B, F, h, w) that ``module`` gives in this pass, as a leaf of the graph, and the logits (B, K).

    Where the network says that it ``mirrors`` its images, the features are turned back, to lie as the images do.

    Raises
    ------
    OptionError
        It gives none, or such without rows and columns.
    """
    kept: list[Tensor] = []
    mirrors = getattr(network, "mirrors", False)

    def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise _no_features()
        # A leaf: gradients stop here, also if all weights are frozen. What follows may work in place, on a copy.
        as_images = output.detach().flip(-1) if mirrors else output.detach()
        kept.append(as_images.requires_grad_(torch.is_grad_enabled()))
        return kept[-1].flip(-1) if mirrors else kept[-1].clone()

    handle = module.register_forward_hook(keep)
    try:
        logits = network(images)
    finally:
        handle.remove()
    if not kept:
        raise _no_features()
    return kept[-1], logits


def _no_features() -> OptionError:
    return OptionError("the layer to explain must give features (B, F, h, w); name a convolution or a block")


def gradient(of_interest: Tensor, inputs: Tensor) -> Tensor:
    """Gradient (as ``inputs``, float32) of numbers (N,), each of which depends on its own entry of ``inputs``."""
    for scale in _SCALES:
        [slopes] = torch.autograd.grad(of_interest.sum() * scale, [inputs], retain_graph=True)
        if slopes.isfinite().all():
            break
    return slopes.float() / scale


@torch.no_grad()
def changed_values(
    network: nn.Module, target: Target, whose: Tensor, changed: Callable[[slice], Tensor], at_once: int
) -> Tensor:
    """Compute the numbers explained (N,) of N changed images, of which no more than ``at_once`` exist at a time.

    Parameters
    ----------
    whose
        (N,) int64: from which image of the batch each is made.
    changed
        Makes the images (n, C, H, W) of a slice of the N.
    """
    values = [
        target.values(network(changed(part)), whose[part])
        for part in (slice(start, start + at_once) for start in range(0, len(whose), at_once))
    ]
    return torch.cat(values) if values else target.weights.new_zeros(0)


def darkest(images: Tensor) -> Tensor:
    """(B, 1, 1, 1): the smallest value of each image, which in a mammogram is its background."""
    return images.amin(dim=(1, 2, 3), keepdim=True)


def hidden_value(images: Tensor, fill: float | None) -> Tensor:
    """(B, 1, 1, 1): what stands where an image is hidden: ``fill``, or each image's darkest value."""
    return darkest(images) if fill is None else torch.full_like(images[:, :1, :1, :1], fill)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, h, w) at (H, W), by bilinear interpolation."""
    return nn.functional.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
