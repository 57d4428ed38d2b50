"""Sanity of a method: its maps must change as the network's weights are lost, and with what the network has learned.

References
----------
Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from mammodensity.errors import OptionError
from mammodensity.explanation.scoring.areas import Areas, Floats
from mammodensity.explanation.scoring.measures import rank_correlation
from mammodensity.explanation.scoring.probe import Probe, randomise


@dataclass(frozen=True)
class Depth:
    """How alike maps are once a layer and all after it have random weights."""

    layer: str
    """Dotted name; that of the first row is empty: nothing is random yet."""
    similarity: float | None
    """Mean Spearman correlation inside the breast with the maps of the whole network; None if all maps are even."""


def cascade(
    probe: Probe, images: Sequence[Floats], areas: Sequence[Areas], *, seed: int = 0, steps: int | None = None
) -> list[Depth]:
    """Randomise the weights of a copy of the network layer by layer, from the last to the first.

    A map that has one value in the breast counts 0: nothing is left of it.

    Parameters
    ----------
    images, areas
        (H, W) each, of one size.
    steps
        At most so many, each of several layers; by default as many as there are layers.

    Raises
    ------
    OptionError
        No images, or not as many areas; fewer than one step.
    """
    if steps is not None and steps < 1:
        raise OptionError(f"steps must be at least 1. Got {steps} instead.")
    stack = _stack(images, areas)
    whole = probe.maps(stack)
    copy = deepcopy(probe.network)
    asked = replace(probe, network=copy)
    found = [Depth("", similarity(whole, asked.maps(stack), areas))]
    layers = [(name, module) for name, module in copy.named_modules() if _has_own_weights(module)]
    shown = set(np.linspace(0, len(layers) - 1, min(steps or len(layers), len(layers))).round().astype(int))
    for place, (name, module) in enumerate(reversed(layers)):
        randomise(module, seed + place)
        if place in shown or place == len(layers) - 1:
            found.append(Depth(name, similarity(whole, asked.maps(stack), areas)))
    return found


def against_other(probe: Probe, other: nn.Module, images: Sequence[Floats], areas: Sequence[Areas]) -> float | None:
    """Similarity with the maps of another network of the same input: one trained on shuffled labels, say.

    Near 1, the maps show the image and not what the network has learned.

    Raises
    ------
    OptionError
        No images, or not as many areas.
    """
    stack = _stack(images, areas)
    return similarity(probe.maps(stack), replace(probe, network=other).maps(stack), areas)


def similarity(first: Floats, second: Floats, areas: Sequence[Areas]) -> float | None:
    """Mean Spearman correlation inside the breast of maps (B, H, W); None where all of the first are even."""
    known = [
        rank_correlation(one, other, area.breast) or 0.0
        for one, other, area in zip(first, second, areas, strict=True)
        if np.ptp(one[area.breast]) > 0
    ]
    return float(np.mean(known)) if known else None


def _stack(images: Sequence[Floats], areas: Sequence[Areas]) -> Floats:
    if not len(images) or len(images) != len(areas):
        raise OptionError(f"expected images and as many areas. Got {len(images)} and {len(areas)} instead.")
    return np.stack([image.astype(np.float32) for image in images])


def _has_own_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
