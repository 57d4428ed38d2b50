"""Grad-CAM: where in the image a category's logit comes from.

References
----------
Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

from mammodensity.errors import OptionError
from mammodensity.terms import CATEGORIES, DensityCategory

Category = DensityCategory | str | int | None
"""A category, its letter or its index; None for the one with the highest logit."""


def grad_cam(
    network: nn.Module,
    images: Tensor,
    category: Category | Sequence[Category] = None,
    *,
    layer: nn.Module | str | None = None,
    positive: bool = True,
    upsample: bool = True,
) -> Tensor:
    """Grad-CAM maps of a batch.

    The features of ``layer`` are weighted by the mean gradient of the category's logit (before softmax) and summed.
    Each image's map is what it would be alone. The network is left as found: no hook, no gradient and no changed mode
    survives, also after an error.

    Parameters
    ----------
    network
        A module from (B, C, H, W) to logits (B, K).
    images
        (B, C, H, W) float.
    category
        One for all images, or one each; None is each image's own predicted category.
    layer
        A module of the network or its dotted name. By default the last residual block, or in another network the
        last convolution.
    positive
        Keep only what speaks for the category, as the method is defined; False keeps what speaks against it, too.
    upsample
        Enlarge the maps to (H, W) by bilinear interpolation; False returns them at the layer's size.

    Returns
    -------
    (B, H, W) or (B, h, w) float, unscaled, so that maps can be compared.

    Raises
    ------
    OptionError
        The layer or category does not exist, or the layer has no spatial features.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise OptionError(f"images must be a float tensor (B, C, H, W) with B > 0. Got {_what(images)} instead.")
    module = _find_layer(network, layer)
    with _evaluation_mode(network), torch.inference_mode(False), torch.enable_grad():
        inputs = images.detach().clone().requires_grad_(True)  # gradients flow even if all weights are frozen
        features, logits = _forward(network, module, inputs)
        chosen = _category_indices(category, logits)
        of_interest = logits.gather(1, chosen[:, None]).sum()
        [gradients] = torch.autograd.grad(of_interest, [features])
    weights = gradients.mean(dim=(-2, -1), keepdim=True)  # (B, F, h, w) to (B, F, 1, 1)
    maps = (weights * features.detach()).sum(dim=1)  # to (B, h, w)
    if positive:
        maps = maps.relu()
    if not upsample:
        return maps
    size = images.shape[-2:]
    return nn.functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _forward(network: nn.Module, module: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The features ``module`` gives in this pass, and the logits."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what follows may work in place, and must not change the features kept here

    handle = module.register_forward_hook(keep)
    try:
        logits = network(inputs)
    finally:
        handle.remove()
    if not kept or kept[-1].ndim != 4:
        raise OptionError("the layer for Grad-CAM must give features (B, F, h, w); name a convolution or a block")
    return kept[-1], logits


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Dropout off and batch statistics fixed within the block; every module's own mode is put back after it."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _find_layer(network: nn.Module, layer: nn.Module | str | None) -> nn.Module:
    if isinstance(layer, nn.Module):
        if all(layer is not module for module in network.modules()):
            raise OptionError("the layer for Grad-CAM must be a module of the network")
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


def _what(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _category_indices(category: Category | Sequence[Category], logits: Tensor) -> Tensor:
    """(B,) int64."""
    single = category is None or isinstance(category, str | Integral)
    wanted: list[Category] = [category] * len(logits) if single else list(category)  # type: ignore[list-item, arg-type]
    if len(wanted) != len(logits):
        raise OptionError(f"categories must be one, or one an image. Got {len(wanted)} for {len(logits)} images.")
    predicted = logits.argmax(dim=1)
    indices = [_category_index(one, logits.shape[1]) for one in wanted]
    return torch.stack(
        [predicted[i] if index is None else predicted.new_tensor(index) for i, index in enumerate(indices)]
    )


def _category_index(category: Category, count: int) -> int | None:
    if category is None:
        return None
    if isinstance(category, str) and category in CATEGORIES:
        return DensityCategory(category).index
    if isinstance(category, Integral) and not isinstance(category, bool) and 0 <= int(category) < count:
        return int(category)
    raise OptionError(f"category must be {', '.join(CATEGORIES)} or an index below {count}. Got {category!r} instead.")
