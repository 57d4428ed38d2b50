"""A small U-Net (Ronneberger et al., MICCAI 2015) that works on 2 x 2 blocks of a reduced image.

The segmenter: a small network that tells background, breast and pectoral muscle apart on a reduced image.

It is trained on phantoms alone (``docs/preprocessing.md``), so it carries no patient's data. A U-Net
of 242,000 weights.

The tissue networks: adipose and fibroglandular tissue inside a breast that has been found already.

Two of one architecture, whose mean counts: one learned what one rule calls dense, the other what readers may outline,
who differ. They are trained on phantoms alone, as the segmenter of :mod:`mammodensity.preprocess`, so they carry no
patient's data. They see the bounding box of the breast, whose grey values are scaled on the inner breast: what a reader
judges is how much brighter tissue is than the fat beside it, and tone curves differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from torch import Tensor, nn

from mammodensity.tensors import read_weights


class UNet(nn.Module):
    """Images (B, ``channels``, H, W) to logits (B, ``classes``, H, W).

    H and W are multiples of 2 to the power of the number of ``widths``, the channels of its levels.
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        before = 4 * channels
        for width in widths:
            self.down.append(_two_convolutions(before, width))
            before = width
        self.up = nn.ModuleList(
            _two_convolutions(low + high, high) for high, low in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 4 * classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        values = nn.functional.pixel_unshuffle(images, 2)
        kept = []
        for number, block in enumerate(self.down):
            values = block(nn.functional.max_pool2d(values, 2) if number else values)
            kept.append(values)
        for block, skipped in zip(self.up, kept[-2::-1], strict=True):
            values = nn.functional.interpolate(values, scale_factor=2.0, mode="bilinear", align_corners=False)
            values = block(torch.cat([values, skipped], dim=1))
        return nn.functional.pixel_shuffle(self.head(values), 2)


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


Floats = NDArray[np.floating[Any]]

SEGMENTER_WEIGHTS = Path(__file__).with_name("segmenter.safetensors")


def new_segmenter() -> UNet:
    """Its architecture, with weights at random: grey images (B, 2, H, W) to logits (B, 3, H, W)."""
    return UNet(2, 3, (12, 20, 32, 48, 64))  # background, breast, muscle


def segmenter_input(grey: Floats) -> NDArray[np.float32]:
    """(2, H, W): the image between its darkest and brightest, and its logarithm, which shows the faint skin line."""
    low, high = np.percentile(grey, (0.5, 99.5))
    scaled = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1.2)
    dim = np.log(scaled + 0.02) / 4 + 0.5
    return np.stack([scaled, dim]).astype(np.float32)


@cache
def load_segmenter() -> UNet:
    """The segmenter that comes with the package, loaded once."""
    network = new_segmenter()
    network.load_state_dict(read_weights(SEGMENTER_WEIGHTS))
    return network.eval()


def class_scores(grey: Floats) -> NDArray[np.float32]:
    """Scores (3, H, W) of background, breast and muscle for a reduced image with the chest wall on the left."""
    with torch.inference_mode():
        logits = load_segmenter()(torch.from_numpy(segmenter_input(grey))[None])
        scores: NDArray[np.float32] = torch.softmax(logits, dim=1)[0].numpy()
    return scores


Mask = NDArray[np.bool_]

TISSUE_SIZE = (256, 160)
"""Rows and columns the networks see, whatever the aspect of the breast."""
TISSUE_WEIGHTS = tuple(Path(__file__).with_name(f"{name}.safetensors") for name in ("tissue", "readers"))

_RIM = 0.04  # of the rows: skin and the equalised edge are left out where grey values are scaled
_LEAST_PX = 200


def new_tissue_network() -> UNet:
    """Its architecture, with weights at random: (B, 4, H, W) to logits of background, adipose, dense and muscle."""
    return UNet(4, 4, (16, 32, 64, 96, 128))


def tissue_input(grey: Floats, breast: Mask) -> NDArray[np.float32]:
    """Four channels (4, H, W) of a crop with the chest wall on the left.

    The grey values between the 5th and the 99th percentile of the inner breast; their ranks in it, which no tone curve
    changes; their contrast to its median, as a share of how far that stands above the background, which tells an even
    breast from one with much contrast; and the logarithm of the whole crop, which shows the faint edge.

    Parameters
    ----------
    grey
        (H, W), any scale.
    breast
        (H, W), without muscle.
    """
    rim = max(1, round(_RIM * grey.shape[0]))
    inner = binary_erosion(np.pad(breast, ((0, 0), (rim, 0)), mode="edge"), iterations=rim)[:, rim:]
    values = np.sort(grey[inner if inner.sum() >= _LEAST_PX else breast])
    low, high = values[int(0.05 * len(values))], values[int(0.99 * (len(values) - 1))]
    scaled = np.clip((grey - low) / max(float(high - low), 1e-6), -1, 2)
    ranks = np.searchsorted(values[:: max(1, len(values) // 512)], grey) / 512
    dark, bright = np.percentile(grey, (0.5, 99.5))
    middle = values[len(values) // 2]
    contrast = np.clip(4 * (grey - middle) / max(float(middle - dark), 1e-6), -2, 2)
    dim = np.log(np.clip((grey - dark) / max(float(bright - dark), 1e-6), 0, 1.2) + 0.02) / 4 + 0.5
    return np.stack([scaled, np.minimum(ranks, 1.2), contrast, dim]).astype(np.float32)


@cache
def load_tissue_networks() -> tuple[UNet, ...]:
    """The tissue networks that come with the package, loaded once."""
    networks = []
    for path in TISSUE_WEIGHTS:
        network = new_tissue_network()
        network.load_state_dict(read_weights(path))
        networks.append(network.eval())
    return tuple(networks)


def tissue_scores(grey: Floats, breast: Mask) -> NDArray[np.float32]:
    """Scores (4, H, W) of background, adipose, fibroglandular and muscle for a crop of ``SIZE``."""
    inputs = torch.from_numpy(tissue_input(grey, breast))[None]
    with torch.inference_mode():
        scores_by_network = [torch.softmax(network(inputs), dim=1)[0] for network in load_tissue_networks()]
        scores: NDArray[np.float32] = torch.stack(scores_by_network).mean(0).numpy()
    return scores
