"""Occlusion: how far what is explained falls when a window of the image is hidden.

References
----------
Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from mammodensity.errors import OptionError
from mammodensity.explanation.passes import IMAGES_AT_ONCE, changed_values, evaluating, hidden_value, require_images
from mammodensity.explanation.target import Categories, Target, choose_target

Window = tuple[slice, slice]
"""Rows and columns."""


def occlusion(
    network: nn.Module,
    images: Tensor,
    category: Categories = None,
    *,
    against: Categories = None,
    positive: bool = True,
    fill: float | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    at_once: int = IMAGES_AT_ONCE,
) -> Tensor:
    """Occlusion maps of a batch, without a gradient and without a layer.

    The value of a pixel is the mean, over the windows it lies in, of how far the category's logit, or the difference
    of two, falls when the window is hidden. A window that hides nothing is 0 and costs nothing. The network runs in
    the precision of its weights also within ``torch.autocast``: half precision rounds away most of a small fall.
    ``network``, ``images``, ``category`` and ``against`` as of :func:`grad_cam`.

    Parameters
    ----------
    positive
        Keep only what speaks for the category; False keeps what speaks against it, too.
    fill
        Value of a hidden window; None is each image's darkest value, in a mammogram its background.
    window
        Rows and columns of the window; None is an eighth of the image's, and at least 1.
    stride
        Rows and columns from one window to the next; None is half a window. The last window is cut at the border.
    at_once
        Images in one pass.

    Returns
    -------
    (B, H, W) float32, unscaled.

    Raises
    ------
    OptionError
        There is no such category, or the window does not fit, or the windows leave gaps.
    """
    require_images(images)
    kind = images.device.type
    if torch.is_autocast_enabled(kind):
        images = images.float()
    rows, columns = images.shape[-2:]
    window = window or (max(1, rows // 8), max(1, columns // 8))
    stride = stride or (max(1, window[0] // 2), max(1, window[1] // 2))
    if not all(1 <= s <= w <= n for s, w, n in zip(stride, window, (rows, columns), strict=True)):
        raise OptionError(
            f"window must fit in {rows} x {columns} and stride in the window, both at least 1. "
            f"Got window {window} and stride {stride} instead."
        )
    low = hidden_value(images, fill)
    places = list(product(_spans(rows, window[0], stride[0]), _spans(columns, window[1], stride[1])))
    with evaluating(network, gradients=False), torch.autocast(kind, enabled=False):
        logits = network(images.clone())
        target = choose_target(logits, category, against)
        pairs, hidden = _values_hidden(network, target, images, low, places=places, at_once=at_once)
    falls = torch.zeros((len(images), len(places)), device=images.device)
    falls[pairs[:, 0], pairs[:, 1]] = target.values(logits)[pairs[:, 0]] - hidden
    total = torch.zeros((len(images), rows, columns), device=images.device)
    covered = torch.zeros((rows, columns), device=images.device)
    for index, (down, across) in enumerate(places):
        total[:, down, across] += falls[:, index, None, None]
        covered[down, across] += 1
    maps = total / covered
    return maps.relu() if positive else maps


def _spans(length: int, window: int, stride: int) -> list[slice]:
    """Windows from 0 on that cover a side; the last is cut where it ends."""
    starts = range(0, max(length - window + stride, 1), stride)
    return [slice(start, min(start + window, length)) for start in starts]


def _values_hidden(
    network: nn.Module, target: Target, images: Tensor, low: Tensor, *, places: list[Window], at_once: int
) -> tuple[Tensor, Tensor]:
    """Where a window changes an image: (N, 2) image and window; and what is explained then, (N,)."""
    changes = (images != low).any(dim=1)  # (B, H, W)
    which = torch.stack([changes[:, down, across].flatten(1).any(dim=1) for down, across in places], dim=1)
    pairs = which.nonzero()  # (N, 2)

    def hidden(part: slice) -> Tensor:
        copies = images[pairs[part, 0]]
        for copy, (image, place) in zip(copies, pairs[part].tolist(), strict=True):
            down, across = places[place]
            copy[:, down, across] = low[image, 0]
        return copies

    return pairs, changed_values(network, target, pairs[:, 0], hidden, at_once)
