"""A small U-Net (Ronneberger et al., MICCAI 2015) that works on 2 x 2 blocks of a reduced image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
