"""A network asked about changed images: its answers, its maps, and the maps of copies with random weights.

Sanity of a method: its maps must change as the network's weights are lost, and with what the network has learned.

References
----------
Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammodensity.anatomy.field import Box
from mammodensity.anatomy.network_input import centred
from mammodensity.errors import OptionError
from mammodensity.explanation.class_activation import grad_cam
from mammodensity.explanation.measures import Areas, Floats, rank_correlation
from mammodensity.models.batch import with_channels

_BATCH = 16


@dataclass(frozen=True, eq=False)
class Probe:
    """A network and the category that was explained."""

    network: nn.Module
    """From (B, C, H, W) to logits (B, K)."""
    category: int
    """Index of the category explained."""
    explain: Callable[..., Tensor] = grad_cam
    """From network, images (B, C, H, W) and category to maps (B, H, W): what made the map to be scored."""
    centring: str = "none"
    """The centring of grey values before the network, as in ``PreprocessSpec``."""
    channels: int = 1
    field: Box | None = None
    """The part of the network's input in which the image lies, with a crop the breast; None is all of it."""
    better_than_chance: bool | None = None
    """Whether the network predicts better than chance; None if that is not known."""
    _random: dict[int, nn.Module] = dataclass_field(default_factory=dict, repr=False)

    def logits(self, images: Floats) -> NDArray[np.float64]:
        """Logits (B, K) of images (B, H, W)."""
        return _in_batches(self._answer, images)

    def maps(self, images: Floats) -> NDArray[np.float64]:
        """Maps (B, H, W) of images (B, H, W) for the category."""
        return _in_batches(partial(self._explain, self.network), images)

    def random_maps(self, images: Floats, seed: int) -> NDArray[np.float64]:
        """The same of a copy of the network with random weights."""
        if seed not in self._random:
            self._random[seed] = randomised(self.network, seed)
        return _in_batches(partial(self._explain, self._random[seed]), images)

    def for_category(self, category: int, explain: Callable[..., Tensor] | None = None) -> Probe:
        """The same network, another category, and if given another method."""
        return replace(self, category=category, explain=explain or self.explain)

    def _answer(self, images: Floats) -> Tensor:
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            with torch.inference_mode():
                return self.network(self._inputs(images)).double()  # type: ignore[no-any-return]
        finally:
            for module, training in modes:
                module.training = training

    def _explain(self, network: nn.Module, images: Floats) -> Tensor:
        return self.explain(network, self._inputs(images), self.category)

    def _inputs(self, images: Floats) -> Tensor:
        """(B, H, W) to (B, C, H, W)."""
        ready = np.stack([centred(image.astype(np.float32), self.centring) for image in images])
        device = next((weights.device for weights in self.network.parameters()), torch.device("cpu"))
        return with_channels(torch.from_numpy(ready)[:, None], self.channels).to(device).contiguous()


def _in_batches(ask: Callable[[Floats], Tensor], images: Floats) -> NDArray[np.float64]:
    parts = [ask(images[start : start + _BATCH]).detach().cpu() for start in range(0, len(images), _BATCH)]
    result: NDArray[np.float64] = torch.cat(parts).numpy().astype(np.float64)
    return result


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """A copy of a network whose every weight is drawn anew; the network itself is left as found."""
    copy = deepcopy(network)
    randomise(copy, seed)
    return copy


def randomise(module: nn.Module, seed: int) -> None:
    """Draw the weights of a module anew, as large as they are: kernels normal with their own spread, the rest shuffled.

    Kernels keep their size so that the features neither vanish nor explode; biases, scales and batch statistics are
    the same numbers in another order.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.ndim > 1:
                drawn = torch.randn(tensor.shape, generator=generator) * float(tensor.std())
                tensor.copy_(drawn.to(tensor))
            elif tensor.ndim == 1:
                tensor.copy_(tensor[torch.randperm(len(tensor), generator=generator).to(tensor.device)])


@dataclass(frozen=True)
class Depth:
    """Similarity of maps once a layer and all after it have random weights."""

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
    depths = [Depth("", similarity(whole, asked.maps(stack), areas))]
    layers = [(name, module) for name, module in copy.named_modules() if _has_own_weights(module)]
    shown = set(np.linspace(0, len(layers) - 1, min(steps or len(layers), len(layers))).round().astype(int))
    for place, (name, module) in enumerate(reversed(layers)):
        randomise(module, seed + place)
        if place in shown or place == len(layers) - 1:
            depths.append(Depth(name, similarity(whole, asked.maps(stack), areas)))
    return depths


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
    correlations = [
        rank_correlation(first_map, second_map, area.breast) or 0.0
        for first_map, second_map, area in zip(first, second, areas, strict=True)
        if np.ptp(first_map[area.breast]) > 0
    ]
    return float(np.mean(correlations)) if correlations else None


def _stack(images: Sequence[Floats], areas: Sequence[Areas]) -> Floats:
    if not len(images) or len(images) != len(areas):
        raise OptionError(f"expected images and as many areas. Got {len(images)} and {len(areas)} instead.")
    return np.stack([image.astype(np.float32) for image in images])


def _has_own_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
