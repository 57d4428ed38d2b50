"""Score-CAM: the features of a layer, weighted by how far the image seen through each raises what is explained.

References
----------
Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mammodensity.explanation.passes import (
    IMAGES_AT_ONCE,
    changed_values,
    enlarged,
    evaluating,
    features_and_logits,
    find_layer,
    hidden_value,
    require_images,
)
from mammodensity.explanation.target import Categories, choose_target


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
    """Score-CAM maps of a batch; arguments and result as of :func:`grad_cam`, without any gradient.

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
        whose = torch.arange(count, device=images.device).repeat_interleave(filters)

        def seen_through(part: slice) -> Tensor:
            mask = enlarged(masks[part], images.shape[-2:])[:, None].to(images.dtype)
            hidden = low[whose[part]]
            return hidden + mask * (images[whose[part]] - hidden)

        raised = changed_values(network, target, whose, seen_through, at_once).reshape(count, filters)
    flat = masks.flatten(1).amax(dim=1).reshape(count, filters) == 0
    weights = raised.masked_fill(flat, float("-inf")).softmax(dim=1).nan_to_num(0)  # NaN: every feature is flat
    weights = (
        weights * target.weights.any(dim=1)[:, None]
    )  # nothing is explained where a category is set against itself
    maps = (weights[..., None, None] * features).sum(dim=1)  # to (B, h, w)
    maps = maps.relu() if positive else maps
    return enlarged(maps, images.shape[-2:]) if upsample else maps


def _stretched(features: Tensor) -> Tensor:
    """Each feature (h, w) from 0 to 1; all 0 where it has one value."""
    low, high = features.amin(dim=(-2, -1), keepdim=True), features.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    return torch.where(span > 0, (features - low) / span.where(span > 0, 1), 0)
