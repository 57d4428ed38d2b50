"""Training recipes, which decide what a training run computes, and the precision it computes in."""

from __future__ import annotations

import json
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor

from mammodensity.anatomy.network_input import INFN_PREPROCESS, PreprocessSpec
from mammodensity.errors import OptionError
from mammodensity.inputs import read_json
from mammodensity.models.batch import AugmentSpec
from mammodensity.models.network import NetworkSpec
from mammodensity.settings import Field, settings

Precision = Literal["fp32", "bf16"]
"""Precision of convolutions; weights, statistics, fusion and loss stay in float32."""


def require_precision(precision: str) -> None:
    """Raise ``OptionError`` for any other word."""
    if precision not in get_args(Precision):
        raise OptionError(f"precision must be one of {', '.join(get_args(Precision))}. Got {precision!r} instead.")


def in_precision(images: Tensor, precision: Precision) -> torch.autocast:
    """A context in which a network computes in a precision, on the images' device."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16")


_Count = Annotated[int, Field(ge=1)]


@settings
class Recipe:
    """Settings of a network's training."""

    name: str
    epochs: _Count = 100
    batch: _Count = 4
    """Images a step."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """``sgd`` is plain, without momentum."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.01
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    schedule: Literal["plateau", "one-cycle"] = "plateau"
    """``plateau`` divides the rate by 10 when validation loss stalls for 15 epochs, down to 0.001; ``one-cycle`` rises
    for a fifth of the steps and falls along a cosine to zero."""
    select: Literal["accuracy", "loss"] = "accuracy"
    """The epoch that is kept is the best in validation ``accuracy`` or ``loss``; the first of several on a tie."""
    seed: Annotated[int, Field(ge=0)] = 1
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    network: NetworkSpec = field(default_factory=NetworkSpec)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values, as in ``recipe.json``."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


INFN = Recipe("origin", preprocess=INFN_PREPROCESS, network=NetworkSpec(channels=3))
"""Recipe and network of the INFN reference, three identical channels included."""

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

RECIPES = {recipe.name: recipe for recipe in (SMALL, INFN)}
DEFAULT_RECIPE = SMALL.name


def find_recipe(name: str) -> Recipe:
    """Find a recipe by its name, or read it from a JSON file.

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
        return recipe_from_dict(read_json(Path(name)))
    except FileNotFoundError as error:
        raise OptionError(f"recipe file {name} not found") from error
    except (OSError, ValueError) as error:
        raise OptionError(f"recipe file {name} is not readable JSON: {error}") from error
    except OptionError as error:
        raise OptionError(f"recipe file {name}: {error}") from error


def recipe_from_dict(values: Any) -> Recipe:
    """Build a recipe from the result of ``Recipe.to_dict``.

    Raises
    ------
    OptionError
        An unknown entry, or a value that makes no sense.
    """
    try:
        parts = {
            "augment": AugmentSpec(**values["augment"]),
            "preprocess": PreprocessSpec(**values["preprocess"]),
            "network": NetworkSpec(**values["network"]),
        }
        return Recipe(**{**values, **parts})
    except (KeyError, TypeError) as error:
        raise OptionError(f"not a training recipe: {error}; `mammodensity recipe small` prints one") from error


def adapted(recipe: Recipe, *, epochs: int | None = None, size: int | None = None, seed: int | None = None) -> Recipe:
    """Change the epochs, the size (rows and columns) or the seed of a recipe, where they are given."""
    if size is not None:
        recipe = replace(recipe, preprocess=replace(recipe.preprocess, rows=size, columns=size))
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    return recipe if seed is None else replace(recipe, seed=seed)
