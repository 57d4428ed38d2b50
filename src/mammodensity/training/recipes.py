"""What networks compute in while they are trained.

Training recipes: everything that decides what a training run computes, as one readable value.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mammodensity.anatomy.network_input import ORIGIN_PREPROCESS, PreprocessSpec
from mammodensity.errors import OptionError
from mammodensity.models.batch import AugmentSpec
from mammodensity.models.network import NetworkSpec

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
"""What convolutions compute in; weights, statistics, fusion and loss stay in float32."""


def require_precision(precision: str) -> None:
    """Raise ``OptionError`` for any other word."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}. Got {precision!r} instead.")


def in_precision(images: Tensor, precision: str) -> torch.autocast:
    """The context in which networks run on images."""
    return torch.autocast(images.device.type, PRECISIONS[precision], enabled=PRECISIONS[precision] is not None)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    name: str
    epochs: int = 100
    batch: int = 4
    """Images a step."""
    optimiser: str = "sgd"
    """``"sgd"`` (plain, no momentum) or ``"adamw"``."""
    learning_rate: float = 0.01
    weight_decay: float = 0.0
    schedule: str = "plateau"
    """``"plateau"`` divides the rate by 10 when validation loss stalls for 15 epochs, down to 0.001; ``"one-cycle"``
    rises for a fifth of the steps and falls along a cosine to zero."""
    select: str = "accuracy"
    """The checkpoint kept is the epoch best in validation ``"accuracy"`` or ``"loss"``; the first one on a tie."""
    seed: int = 1
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    network: NetworkSpec = field(default_factory=NetworkSpec)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise OptionError(f"seed must be at least 0. Got {self.seed} instead.")
        if self.epochs < 1 or self.batch < 1:
            raise OptionError(f"epochs and batch must be at least 1. Got {self.epochs} and {self.batch} instead.")
        if not 0 < self.learning_rate <= 10 or self.weight_decay < 0:
            raise OptionError("learning_rate must be above 0 and at most 10, weight_decay at least 0.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"{name} must be one of {', '.join(choices)}. Got {getattr(self, name)!r} instead.")

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


_CHOICES = {
    "optimiser": ("sgd", "adamw"),
    "schedule": ("plateau", "one-cycle"),
    "select": ("accuracy", "loss"),
}

ORIGIN = Recipe("origin", preprocess=ORIGIN_PREPROCESS, network=NetworkSpec(channels=3))
"""The origin's recipe and network, three identical channels included."""

SMALL = Recipe(
    "small",
    epochs=40,
    batch=8,
    optimiser="adamw",
    learning_rate=3e-3,
    weight_decay=0.01,
    schedule="one-cycle",
    select="loss",
    augment=AugmentSpec(zoom=0.1, shift=0.05, rotation_degrees=10.0),
    preprocess=PreprocessSpec(rows=256, columns=256, centring="standardise"),
    network=NetworkSpec(stem=16, widths=(16, 32, 64), outputs=(32, 64, 128), depths=(2, 2, 2), norm_momentum=0.1),
)
"""For tens to a few thousand exams; ``docs/measurements.md`` has the measurements behind each difference."""

RECIPES = {recipe.name: recipe for recipe in (SMALL, ORIGIN)}
DEFAULT_RECIPE = SMALL.name


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or the one in a JSON file of that path.

    Raises
    ------
    OptionError
        No such recipe, or a file that does not hold one.
    """
    if name in RECIPES:
        return RECIPES[name]
    if not name.endswith(".json"):
        raise OptionError(f"unknown recipe {name!r}; expected {', '.join(RECIPES)} or a .json file")
    try:
        return recipe_from_dict(json.loads(Path(name).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise OptionError(f"recipe file {name} not found") from error
    except (OSError, ValueError) as error:
        raise OptionError(f"recipe file {name} is not readable JSON: {error}") from error


def recipe_from_dict(values: Any) -> Recipe:
    """Build a recipe from what ``Recipe.to_dict`` gave.

    Raises
    ------
    OptionError
        An unknown entry, or a value that makes no sense.
    """
    try:
        _require_types(values, SMALL.to_dict(), "")
        parts = {
            "augment": AugmentSpec(**values["augment"]),
            "preprocess": PreprocessSpec(**values["preprocess"]),
            "network": NetworkSpec(**values["network"]),
        }
        return Recipe(**{**values, **parts})
    except (KeyError, TypeError) as error:
        raise OptionError(f"not a training recipe: {error}; `mammodensity recipe small` prints one") from error


def _require_types(values: Any, example: Any, name: str) -> None:
    """Raise ``OptionError`` where a value is of another kind than its example: a text, a fraction for a count."""
    if isinstance(example, dict) and isinstance(values, dict):
        for key in values.keys() & example.keys():
            _require_types(values[key], example[key], f"{name}.{key}" if name else key)
    elif isinstance(example, list) and isinstance(values, list):
        for value in values:
            _require_types(value, example[0], name)
    else:
        kinds = (int, float) if isinstance(example, float) else type(example)
        finite = not isinstance(values, float) or math.isfinite(values)
        if not isinstance(values, kinds) or isinstance(values, bool) or not finite:
            raise OptionError(f"recipe: {name or 'it'} must be like {example!r}. Got {values!r} instead.")


def adapted(recipe: Recipe, *, epochs: int | None = None, size: int | None = None, seed: int | None = None) -> Recipe:
    """The recipe with other epochs, a square image size or a seed, where given."""
    if size is not None:
        recipe = replace(recipe, preprocess=replace(recipe.preprocess, rows=size, columns=size))
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    return recipe if seed is None else replace(recipe, seed=seed)
