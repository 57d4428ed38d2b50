"""Class activation maps: the features of a layer, weighted by gradients of what is explained.

With features A_k (h, w) of a layer and the gradients G_k of the explained logit, or difference of two, by them:

============  =====================================================================
Grad-CAM      sum over k of mean(G_k) A_k
Grad-CAM++    sum over k of w_k A_k, with w_k the sum of g / (2 + g S_k) over pixels, g = max(G_k, 0), S_k = sum of A_k
HiResCAM      sum over k of G_k A_k, pixel by pixel
Layer-CAM     sum over k of max(G_k, 0) A_k, pixel by pixel
============  =====================================================================

References
----------
Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep CNNs", WACV 2018.
Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of CNNs", arXiv:2011.08891, 2020.
Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 30:5875, 2021.

Score-CAM: the features of a layer, weighted by how far the image seen through each raises what is explained.

References
----------
Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Protocol

import torch
from torch import Tensor, nn

from mammodensity.explanation.passes import (
    IMAGES_AT_ONCE,
    Categories,
    changed_values,
    choose_target,
    enlarged,
    evaluating,
    features_and_logits,
    find_layer,
    gradient,
    hidden_value,
    require_images,
)


class ActivationMethod(Protocol):
    """A method that shows the features of a layer."""

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        category: Categories = None,
        *,
        against: Categories = None,
        layer: nn.Module | str | None = None,
        positive: bool = True,
        upsample: bool = True,
    ) -> Tensor:
        """Map each image of a batch.

        Each image's map is what it would be alone. The network is left as found: no hook, no gradient and no changed
        mode survives, also after an error.

        Parameters
        ----------
        network
            A module from (B, C, H, W) to logits (B, K).
        images
            (B, C, H, W) float.
        category
            One for all images, or one each; None is each image's own predicted category.
        against
            Explain why ``category`` rather than this one: by the difference of their logits. One for all images, or one
            each. The map is 0 where the predicted category is this very one.
        layer
            A module of the network or its dotted name. By default the last residual block, or in another network the
            last convolution.
        positive
            Keep only what speaks for the category, as the method is defined; False keeps what speaks against it, too.
        upsample
            Enlarge the maps to (H, W) by bilinear interpolation; False returns them at the layer's size.

        Returns
        -------
        (B, H, W) or (B, h, w) float32, unscaled, so that maps can be compared.

        Raises
        ------
        OptionError
            The layer or category does not exist, or the layer has no spatial features.
        """


def _by_gradients(combine: Callable[[Tensor, Tensor], Tensor]) -> ActivationMethod:
    """Make a method of a function that combines features and gradients (B, F, h, w) each to maps (B, h, w)."""

    def method(
        network: nn.Module,
        images: Tensor,
        category: Categories = None,
        *,
        against: Categories = None,
        layer: nn.Module | str | None = None,
        positive: bool = True,
        upsample: bool = True,
    ) -> Tensor:
        require_images(images)
        module = find_layer(network, layer)
        with evaluating(network, gradients=True):
            features, logits = features_and_logits(network, module, images.detach().clone())
            target = choose_target(logits.detach(), category, against)
            gradients = gradient(target.values(logits), features)
            maps = combine(features.detach().float(), gradients)
        maps = maps.relu() if positive else maps
        return enlarged(maps, images.shape[-2:]) if upsample else maps

    method.__name__ = method.__qualname__ = combine.__name__
    method.__doc__ = "\n\n".join(cleandoc(str(text)) for text in (combine.__doc__, ActivationMethod.__call__.__doc__))
    return method


@_by_gradients
def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weight the features of a layer by the mean gradient of the category's logit (before softmax), and sum them."""
    return (gradients.mean(dim=(-2, -1), keepdim=True) * features).sum(dim=1)


@_by_gradients
def grad_cam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """Weight pixels by how much the logit rises with them, so that several or small regions of one kind count fully.

    The factor exp(logit) of the whole image is left out, so that maps of several images can be compared. The method is
    derived for features that are not negative: S_k sums the positive ones. The paper's weights are
    alpha = g^2 / (2 g^2 + S g^3) times g where g > 0; with g^2 cancelled, no 0 / 0 remains.
    """
    rising = gradients.relu()
    sums = features.relu().sum(dim=(-2, -1), keepdim=True)
    weights = (rising / (2 + rising * sums)).sum(dim=(-2, -1), keepdim=True)  # to (B, F, 1, 1)
    return (weights * features).sum(dim=1)


@_by_gradients
def hires_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Multiply features by their gradients pixel by pixel, and sum them.

    Before its positive part is taken, the map of a layer that only a mean and a linear head follow sums to the logit
    less its bias.
    """
    return (gradients * features).sum(dim=1)


@_by_gradients
def layer_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Multiply features by their positive gradients pixel by pixel, and sum them: good for early, finer layers, too."""
    return (gradients.relu() * features).sum(dim=1)


def score_cam(
    network: nn.Module,
    images: Tensor,
    category: Categories = None,
    *,
    against: Categories = None,
    layer: nn.Module | str | None = None,
    positive: bool = True,
    upsample: bool = True,
    fill: float | None = None,
    at_once: int = IMAGES_AT_ONCE,
) -> Tensor:
    """Score-CAM maps of a batch; arguments and result as of :class:`ActivationMethod`, without any gradient.

    Each feature, enlarged and stretched to 0..1, is a mask on the image. The features are weighted by the softmax over
    them of the category's logit, or of the difference of two, and summed. A feature of one value everywhere shows
    nothing and counts nothing. One pass a feature: a network of 256 features is run 256 times an image.

    Parameters
    ----------
    fill
        Value of what a mask hides; None is each image's darkest value, in a mammogram its background.
    at_once
        Masked images in one pass.
    """
    require_images(images)
    module = find_layer(network, layer)
    low = hidden_value(images, fill)
    with evaluating(network, gradients=False):
        features, logits = features_and_logits(network, module, images.clone())
        features = features.float()
        target = choose_target(logits, category, against)
        count, filters = features.shape[:2]
        masks = _stretched(features).flatten(0, 1)  # (B, F, h, w) to (B * F, h, w)
        owners = torch.arange(count, device=images.device).repeat_interleave(filters)

        def seen_through(part: slice) -> Tensor:
            mask = enlarged(masks[part], images.shape[-2:])[:, None].to(images.dtype)
            hidden = low[owners[part]]
            return hidden + mask * (images[owners[part]] - hidden)

        raised = changed_values(network, target, owners, seen_through, at_once).reshape(count, filters)
    flat = masks.flatten(1).amax(dim=1).reshape(count, filters) == 0
    weights = raised.masked_fill(flat, float("-inf")).softmax(dim=1).nan_to_num(0)  # NaN: every feature is flat
    weights = weights * target.weights.any(dim=1)[:, None]  # 0 where a category is set against itself
    maps = (weights[..., None, None] * features).sum(dim=1)  # to (B, h, w)
    maps = maps.relu() if positive else maps
    return enlarged(maps, images.shape[-2:]) if upsample else maps


def _stretched(features: Tensor) -> Tensor:
    """Stretch each feature (h, w) to 0..1; all 0 where it has one value."""
    low, high = features.amin(dim=(-2, -1), keepdim=True), features.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    return torch.where(span > 0, (features - low) / span.where(span > 0, 1), 0)
