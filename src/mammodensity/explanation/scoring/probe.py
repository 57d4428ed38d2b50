"""A network asked about changed images: its answers, its maps, and the maps of copies with random weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammodensity.data import with_channels
from mammodensity.explanation.class_activation import grad_cam
from mammodensity.explanation.scoring.areas import Floats
from mammodensity.preprocess.network_input import centred

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
    """What is done to grey values before the network sees them, as ``PreprocessSpec`` has it."""
    channels: int = 1
    _random: dict[int, nn.Module] = field(default_factory=dict, repr=False)

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
        return Probe(self.network, category, explain or self.explain, self.centring, self.channels, self._random)

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
        device = next((one.device for one in self.network.parameters()), torch.device("cpu"))
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
