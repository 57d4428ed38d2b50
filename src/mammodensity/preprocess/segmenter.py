"""The segmenter: a small network that tells background, breast and pectoral muscle apart on a reduced image.

It is trained on phantoms alone (``docs/preprocessing.md``), so it carries no patient's data. A U-Net
of 242,000 weights.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from mammodensity.preprocess.unet import UNet

Floats = NDArray[np.floating[Any]]

WEIGHTS = Path(__file__).with_name("segmenter.safetensors")


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
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def class_scores(grey: Floats) -> NDArray[np.float32]:
    """Scores (3, H, W) of background, breast and muscle for a reduced image with the chest wall on the left."""
    with torch.inference_mode():
        logits = load_segmenter()(torch.from_numpy(segmenter_input(grey))[None])
        scores: NDArray[np.float32] = torch.softmax(logits, dim=1)[0].numpy()
    return scores
