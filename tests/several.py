"""What one of several processes does in tests/test_processes.py, which starts it: trainings, or a mishap."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

from mammodensity.data.find import find_images
from mammodensity.errors import TrainingError
from mammodensity.terms import Projection
from mammodensity.training.joint_network import JointPlan
from mammodensity.training.processes import ALONE, Processes, joined
from mammodensity.training.recipes import Recipe, find_recipe
from mammodensity.workflows.train import train_model


def _recipe(name: str, **changes: object) -> Recipe:
    recipe = find_recipe(name)
    network = replace(recipe.network, stem=4, widths=(4, 4), outputs=(8, 8), depths=(1, 1))
    preprocess = replace(recipe.preprocess, rows=32, columns=32)
    return replace(recipe, **{"epochs": 2, "network": network, "preprocess": preprocess, **changes})


# Of 24 exams, 19 are for training: in batches of 8 that is 8, 8 and 3, of which the first process gets one.
JOBS: dict[str, tuple[Recipe, JointPlan | None]] = {
    "small": (_recipe("small"), None),
    "origin": (_recipe("origin"), None),
    "one image a step": (_recipe("origin", batch=1, epochs=1), None),
    "joint mean": (_recipe("small"), JointPlan()),
    "joint views": (
        _recipe("origin", batch=8),
        JointPlan(branches="shared", view_dropout=0.5, checkpointing="views"),
    ),
    "joint layers, branches absent": (
        _recipe("origin", batch=2),
        JointPlan(fusion="attention", view_dropout=0.6, checkpointing="layers"),
    ),
}


def train_all(data: Path, out: Path, processes: Processes = ALONE) -> None:
    """All of ``JOBS``, each in its folder."""
    for name, (recipe, plan) in JOBS.items():
        train_model(
            find_images(data), out / name, recipe, projections=[Projection.CC_R], joint=plan, processes=processes
        )


def _train(data: Path, out: Path) -> None:
    """A function of its own, as the command's: nothing of the group outlives it, to end with the interpreter."""
    with joined() as processes:
        train_all(data, out, processes)


def _mishap(what: str) -> None:
    """The second process dies, or does not come; the first says what it is told."""
    with joined(timedelta(seconds=3)) as processes:
        processes.sums(1.0)
        if not processes.first:
            if what == "death":
                os._exit(9)
            time.sleep(60)
        try:
            processes.sums(1.0)
        except TrainingError as error:
            print(error, flush=True)
            raise SystemExit(1) from None


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] in ("death", "silence"):
        _mishap(sys.argv[1])
    else:
        _train(Path(sys.argv[1]), Path(sys.argv[2]))
