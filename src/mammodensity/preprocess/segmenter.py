"""The segmenter: a small network that tells background, breast and pectoral muscle apart on a reduced image.

It is trained on phantoms alone (``benchmarks/train_segmenter.py``), so it carries no patient's data. A U-Net
(Ronneberger et al., MICCAI 2015) of 242,000 weights that works on 2 x 2 blocks of a reduced image.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

Floats = NDArray[np.floating[Any]]

SIZE = (192, 128)
"""Rows and columns the network sees, whatever the aspect of the image."""
WEIGHTS = Path(__file__).with_name("segmenter.safetensors")

_WIDTHS = (12, 20, 32, 48, 64)
_CLASSES = 3  # background, breast, muscle
_CHANNELS = 2


class Segmenter(nn.Module):
    """Grey images (B, 2, H, W) to logits (B, 3, H, W); H and W are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        before = 4 * _CHANNELS
        for width in _WIDTHS:
            self.down.append(_two_convolutions(before, width))
            before = width
        self.up = nn.ModuleList(
            _two_convolutions(low + high, high) for high, low in zip(_WIDTHS[-2::-1], _WIDTHS[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(_WIDTHS[0], 4 * _CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        values = nn.functional.pixel_unshuffle(images, 2)
        kept = []
        for number, block in enumerate(self.down):
            values = block(nn.functional.max_pool2d(values, 2) if number else values)
            kept.append(values)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            values = nn.functional.interpolate(values, scale_factor=2.0, mode="bilinear", align_corners=False)
            values = block(torch.cat([values, beside], dim=1))
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


def segmenter_input(grey: Floats) -> NDArray[np.float32]:
    """(2, H, W): the image between its darkest and brightest, and its logarithm, which shows the faint skin line."""
    low, high = np.percentile(grey, (0.5, 99.5))
    scaled = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1.2)
    dim = np.log(scaled + 0.02) / 4 + 0.5
    return np.stack([scaled, dim]).astype(np.float32)


@cache
def load_segmenter() -> Segmenter:
    """The segmenter that comes with the package, loaded once."""
    network = Segmenter()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def class_scores(grey: Floats) -> NDArray[np.float32]:
    """Scores (3, H, W) of background, breast and muscle for an image of ``SIZE`` with the chest wall on the left."""
    with torch.inference_mode():
        logits = load_segmenter()(torch.from_numpy(segmenter_input(grey))[None])
        scores: NDArray[np.float32] = torch.softmax(logits, dim=1)[0].numpy()
    return scores
