"""Program of the processes that tests/test_processes.py starts: learn, train, or meet a mishap."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mammodensity.data.find import find_images
from mammodensity.errors import TrainingError
from mammodensity.terms import Projection
from mammodensity.training.joint_network import JointPlan
from mammodensity.training.processes import ALONE, Processes, joined
from mammodensity.training.recipes import Recipe, find_recipe
from mammodensity.workflows.train import train_model

ROWS = 5  # so that the first of two processes has three of them, and the second two


class Net(nn.Module):
    """Two branches, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.branches = nn.ModuleList(nn.Linear(3, 2) for _ in range(2))
        self.norm = nn.BatchNorm1d(3, affine=False)

    def forward(self, inputs: Tensor) -> Tensor:
        self.norm(inputs)
        return torch.stack([branch(inputs).square() for branch in self.branches]).sum(dim=(0, 2))


def learn(processes: Processes) -> dict[str, Tensor]:
    """Weights and statistics after three steps, and the last gradients."""
    if processes.rank:
        torch.manual_seed(9)
    net = Net()
    if processes.rank:
        nn.init.zeros_(net.branches[0].weight)  # that of the first counts
    model = processes.parallel(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    inputs = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(2))
    for _ in range(3):
        optimiser.zero_grad()
        share = processes.share(inputs)
        loss = model(share).sum() / len(inputs)
        processes.backward(loss)
        optimiser.step()
    processes.average_statistics(net)
    gradients = {f"gradient of {name}": weight.grad for name, weight in net.named_parameters()}
    return {**net.state_dict(), **gradients, "whole": processes.whole(processes.share(inputs) > 0, len(inputs))}


def _recipe(name: str, **changes: object) -> Recipe:
    recipe = find_recipe(name)
    network = replace(recipe.network, stem=4, widths=(4, 4), outputs=(8, 8), depths=(1, 1))
    preprocess = replace(recipe.preprocess, rows=32, columns=32)
    return replace(recipe, **{"epochs": 2, "network": network, "preprocess": preprocess, **changes})


# Of 24 exams, 19 are for training: in batches of 8 that is 8 and 11, in batches of 2 eight times 2 and 3.
JOBS: dict[str, tuple[Recipe, JointPlan | None]] = {
    "small": (_recipe("small"), None),
    "joint, branches absent": (
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
    """Learn and train twice. A function, so that nothing of the group outlives it, to end with the interpreter."""
    with joined() as processes:
        save_file(learn(processes), out / f"learned_{processes.rank}.safetensors")
        for turn in ("first", "second"):
            train_all(data, out / turn, processes)


def _mishap(kind: str) -> None:
    """The second process dies, or does not come; the first prints its error."""
    with joined(timedelta(seconds=3)) as processes:
        model = processes.parallel(Net())
        loss = model(torch.ones(2, 3)).sum()
        if not processes.first:
            if kind == "death":
                os._exit(9)
            time.sleep(60)
        try:
            processes.backward(loss)
        except TrainingError as error:
            print(error, flush=True)
            raise SystemExit(1) from None


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] in ("death", "silence"):
        _mishap(sys.argv[1])
    else:
        _train(Path(sys.argv[1]), Path(sys.argv[2]))
