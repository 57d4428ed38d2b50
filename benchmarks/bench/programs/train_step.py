"""Training steps of the origin's network of one view, by the training loop of `mammodensity train` itself.

Settings: size, batch, source (``memory``; ``changed``: also changed at random; ``files``: also read anew each time),
files (a folder of pictures, for ``files``), precision (``fp32``, or ``bf16``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import worker
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mammodensity.data.dataset import ImageRecord
from mammodensity.models.batch import AugmentSpec, LabelledImages, load_images
from mammodensity.models.network import ResidualNetwork
from mammodensity.terms import CATEGORIES, Projection
from mammodensity.training.recipes import Recipe, find_recipe
from mammodensity.training.single_network import NetworkTask, train_network

_MOST_STEPS = 16
_VIEW = Projection.CC_R


class _Pictures:
    """Stands for a tensor of images: each is read from its file and prepared whenever a step takes it."""

    def __init__(self, files: list[Path], recipe: Recipe, images: Tensor) -> None:
        self.recipe, self.images = recipe, images
        self.records = [
            ImageRecord(path.stem, path.stem, _VIEW, path, CATEGORIES[number % 4])
            for number, path in enumerate(sorted(files))
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Any) -> Tensor:
        if not isinstance(chosen, np.ndarray):
            return self.images[chosen]
        records = [self.records[index % len(self.records)] for index in chosen]
        return load_images(records, self.recipe.preprocess).images


def main() -> None:
    """A step is what the loop does between two reports: order, images, changes, forward, backward, optimiser."""
    given = worker.given
    torch.set_num_threads(worker.cores)
    recipe = replace(find_recipe("origin"), batch=given["batch"], epochs=1)
    recipe = replace(recipe, preprocess=replace(recipe.preprocess, rows=given["size"], columns=given["size"]))
    if given["source"] == "memory":
        recipe = replace(recipe, augment=AugmentSpec(0.0, 0.0, 0.0))
    few = torch.rand(2, 1, given["size"], given["size"])
    many = few[:1].expand(given["batch"] * _MOST_STEPS, -1, -1, -1)  # one image in memory, however many there are
    images: Any = many
    if given["source"] == "files":
        images = _Pictures(list(Path(given["files"]).iterdir()), recipe, many)
    training = LabelledImages(images, torch.arange(len(many)) % 4)
    worker.ready(versions={"torch": torch.__version__}, gflop=_step_gflop(recipe))
    with TemporaryDirectory() as folder:
        task = NetworkTask(
            _VIEW,
            training,
            LabelledImages(few, torch.arange(2)),
            recipe,
            Path(folder),
            torch.device("cpu"),
            precision=given.get("precision", "fp32"),
        )
        worker.serve_loop(lambda report: train_network(task, lambda _step: report()))


def _step_gflop(recipe: Recipe) -> float:
    """Additions and multiplications of a step's convolutions, counted on small images: they grow with the pixels."""
    small = 65
    with FlopCounterMode(display=False) as counter:
        ResidualNetwork(recipe.network)(torch.rand(1, recipe.network.channels, small, small)).sum().backward()
    pixels = recipe.preprocess.rows * recipe.preprocess.columns / small**2
    return float(counter.get_total_flops() * pixels * recipe.batch / 1e9)


if __name__ == "__main__":
    main()
