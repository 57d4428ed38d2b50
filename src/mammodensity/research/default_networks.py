"""Training of the networks that come with the package, on phantoms alone: one for outlines, two for tissue.

Every training image depends on the seed and on its number only, so a run can be stopped and resumed at any step.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from mammodensity.anatomy.networks import UNet, new_segmenter, new_tissue_network
from mammodensity.errors import Interrupted
from mammodensity.outputs import file_sha256, receipt, write_bytes, write_json
from mammodensity.phantom.appearance import Look
from mammodensity.phantom.disturbances import Disturbance
from mammodensity.phantom.exams import PhantomSpec
from mammodensity.research.default_phantoms import PhantomPaths, Sample, outline_sample, phantom_paths, tissue_sample
from mammodensity.settings import Field, settings
from mammodensity.stopping import stop_requests
from mammodensity.tensors import read_tensors, write_tensors
from mammodensity.terms import RESEARCH_USE_ONLY
from mammodensity.training.loop import keep_memory
from mammodensity.training.records import require_same_recipe, restore_tensors, run_tensors, tensors_under
from mammodensity.workers import quiet_start, start_worker, usable_cores

_RISE = 0.1  # share of the steps in which the learning rate rises
_LARGEST_GRADIENT = 1.0
_KEPT_EVERY = 250
Progress = Callable[[str, int, int], None]
"""Takes the name of the work, the steps done, and all steps."""

READERS = Disturbance(look=Look(involution=True, readers=True, masses=True), lower_folds=True)
"""Images of the second tissue network also have a reader each, masses, involuted breasts and folds below."""
_Draw = Callable[[PhantomPaths, np.random.Generator, Disturbance], Sample]


_Count = Annotated[int, Field(ge=1)]


@settings
class DefaultRecipe:
    """Settings of the training of the default networks."""

    breasts: _Count = 480
    """Phantoms traced; each gives a CC and an MLO view."""
    rows: _Count = 256
    """Rows of a phantom image."""
    phantom_seed: int = 91
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of weights and of every disturbance."""
    outline_steps: _Count = 5000
    tissue_steps: _Count = 7500
    """Steps of the network that learns what one rule calls dense."""
    readers_steps: _Count = 15000
    """Steps of the network that learns what readers may outline."""
    batch: _Count = 8
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: float = 0.02
    averaging: float = 0.995
    """The weights kept are a running mean; this share of it is kept at each step."""
    changes: Disturbance = field(default_factory=Disturbance)
    readers_changes: Disturbance = READERS
    """Disturbances of the images of the last network."""


@dataclass(frozen=True)
class _Task:
    """A network to train."""

    name: str
    new_network: Callable[[], UNet]
    steps: int
    changes: Disturbance
    sample: _Draw
    loss: Callable[[Tensor, Tensor], Tensor]


def train_default(
    folder: Path, recipe: DefaultRecipe, device: torch.device, progress: Progress | None = None
) -> list[Path]:
    """Trace the phantoms, train the networks, and write ``segmenter``, ``tissue`` and ``readers.safetensors``.

    An earlier run in ``folder`` is continued.

    Raises
    ------
    CheckpointError
        The folder holds a run of another recipe.
    Interrupted
        Ctrl-C or SIGTERM; the same call goes on.
    """
    _require_recipe(folder, recipe)
    spec = PhantomSpec(rows=recipe.rows, seed=recipe.phantom_seed, ducts=True)
    phantoms = phantom_paths(folder / "phantoms", spec, recipe.breasts, progress and partial(progress, "phantoms"))
    written = []
    for task in _tasks(recipe):
        path = folder / f"{task.name}.safetensors"
        if not path.is_file():
            with _half_of_the_cores():
                network = _train(task, recipe, phantoms, device=device, folder=folder, progress=progress)
            write_bytes(path, _half(network))
        (folder / f"{task.name}.resume").unlink(missing_ok=True)
        written.append(path)
    hashes = {path.name: file_sha256(path) for path in written}
    write_json(folder / "receipt.json", {"note": RESEARCH_USE_ONLY, **receipt("train-default", networks=hashes)})
    return written


def _require_recipe(folder: Path, recipe: DefaultRecipe) -> None:
    path = folder / "recipe.json"
    if path.is_file():
        require_same_recipe(path, asdict(recipe), "name another folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(recipe))


class _Images(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Disturbed phantoms; image ``index`` depends on the seed and on ``index`` alone."""

    def __init__(self, task: _Task, phantoms: PhantomPaths, recipe: DefaultRecipe, first: int, count: int) -> None:
        self.sample, self.changes = task.sample, task.changes
        self.phantoms, self.seed = phantoms, recipe.seed
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, self.first + index])
        image, classes = self.sample(self.phantoms, rng, self.changes)
        return torch.from_numpy(image), torch.from_numpy(classes)


def _train(
    task: _Task,
    recipe: DefaultRecipe,
    phantoms: PhantomPaths,
    *,
    device: torch.device,
    folder: Path,
    progress: Progress | None,
) -> UNet:
    """Train by AdamW with one cycle of the learning rate, and return the running mean of the weights."""
    steps = task.steps
    torch.manual_seed(recipe.seed)
    network = task.new_network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    running_mean = torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.averaging)  # type: ignore[no-untyped-call]
    averaged = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=running_mean, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay)
    path = folder / f"{task.name}.resume"
    done = _restore(path, network, averaged, optimiser)
    keep_memory()
    images = _Images(task, phantoms, recipe, done * recipe.batch, steps * recipe.batch)
    network.train()
    with stop_requests() as stop:
        for step, (inputs, classes) in enumerate(_batches(images, recipe.batch), start=done):
            _set_pace(optimiser, recipe.learning_rate, step, steps)
            logits = network(inputs.to(device).contiguous(memory_format=torch.channels_last))
            loss = task.loss(logits.float(), classes.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
            optimiser.step()
            averaged.update_parameters(network)
            if progress:
                progress(task.name, step + 1, steps)
            if (step + 1) % _KEPT_EVERY == 0 or stop.is_set() or step + 1 == steps:
                _save(path, step + 1, network, averaged, optimiser)
            if stop.is_set():
                raise Interrupted(f"stopped at step {step + 1} of {steps} ({task.name}); the same command goes on")
    final = averaged.module.cpu()
    assert isinstance(final, UNet)
    return final


def _batches(images: _Images, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches in order; the images are made by other processes.

    These are forked from a process without threads: a fork of this one might wait for ever on a lock of its threads.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    loader = torch.utils.data.DataLoader(
        images,
        batch,
        num_workers=usable_cores(),
        multiprocessing_context=processes,
        worker_init_fn=_start_maker,
    )
    with quiet_start():
        return iter(loader)


@contextmanager
def _half_of_the_cores() -> Iterator[None]:
    """Leave the other half to the processes that make images: with more threads, all wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, usable_cores() // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start_maker(number: int) -> None:
    """Start a process that makes images."""
    start_worker(number)
    keep_memory()


def _set_pace(optimiser: torch.optim.Optimizer, highest: float, step: int, steps: int) -> None:
    """Set learning rate and momentum for a step of one cycle: the rate goes up and down, momentum the other way.

    Smith and Topin, SPIE 2019. A function of the step alone, so that a resumed run needs no schedule's state.
    """
    top = _RISE * steps - 1
    if step <= top:
        start, end, momentum, share = highest / 25, highest, (0.95, 0.85), step / max(top, 1)
    else:
        start, end, momentum, share = highest, highest / 25e4, (0.85, 0.95), (step - top) / max(steps - 1 - top, 1)
    for group in optimiser.param_groups:
        group["lr"], group["betas"] = _between(start, end, share), (_between(*momentum, share), 0.999)


def _between(start: float, end: float, share: float) -> float:
    """Go from start to end along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _save(path: Path, done: int, network: UNet, averaged: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    tensors = run_tensors(network, optimiser)
    tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.state_dict().items()}
    write_tensors(path, tensors, {"done": done})


def _restore(path: Path, network: UNet, averaged: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Put everything back where it was, and return the number of steps done."""
    if not path.is_file():
        return 0
    tensors, description = read_tensors(path)
    restore_tensors(tensors, network, optimiser)
    averaged.load_state_dict(tensors_under(tensors, "averaged/"))
    return int(description["done"])


def _half(network: UNet) -> bytes:
    """Write the weights in 16 bits, which takes half the bytes."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return save({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()})


def outline_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Add up the cross-entropy and one minus the soft Dice of breast (muscle included) and of muscle."""
    scores = torch.softmax(logits, dim=1)
    loss = nn.functional.cross_entropy(logits, classes)
    for area, true in ((1 - scores[:, 0], classes > 0), (scores[:, 2], classes == 2)):
        loss = loss + (1 - _dice(area, true, 50)).mean()
    return loss


def tissue_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Add up cross-entropy, half of one minus the soft Dice of dense tissue and of muscle, and the density's error."""
    scores = torch.softmax(logits, dim=1)
    loss = nn.functional.cross_entropy(logits, classes)
    for index in (2, 3):
        loss = loss + 0.5 * (1 - _dice(scores[:, index], classes == index, 200)).mean()
    density = _share(scores[:, 1], scores[:, 2])
    true = _share((classes == 1).float(), (classes == 2).float())
    return loss + (density - true).abs().mean()


def _dice(area: Tensor, true: Tensor, smooth: float) -> Tensor:
    """(B,) soft Dice coefficients."""
    both = (area * true).sum((1, 2))
    return (2 * both + smooth) / (area.sum((1, 2)) + true.sum((1, 2)) + smooth)


def _share(adipose: Tensor, dense: Tensor) -> Tensor:
    """(B,) dense area as a share of dense and adipose area."""
    return dense.sum((1, 2)) / (adipose.sum((1, 2)) + dense.sum((1, 2)) + 1)


def _tasks(recipe: DefaultRecipe) -> tuple[_Task, ...]:
    ordinary, readers = recipe.changes, recipe.readers_changes
    return (
        _Task("segmenter", new_segmenter, recipe.outline_steps, ordinary, outline_sample, outline_loss),
        _Task("tissue", new_tissue_network, recipe.tissue_steps, ordinary, tissue_sample, tissue_loss),
        _Task("readers", new_tissue_network, recipe.readers_steps, readers, tissue_sample, tissue_loss),
    )
