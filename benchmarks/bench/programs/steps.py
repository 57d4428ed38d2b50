"""The steps of this package that are measured; the setting ``step`` names one of the functions below.

Networks have random weights, as only speed and memory are asked for.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import worker
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.data.dataset import ImageRecord
from mammodensity.models.batch import AugmentSpec, LabelledImages, load_images
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.engines import (
    Run,
    onnx_session,
    openvino_session,
    precision_beside_int8,
    quantised,
    torch_engine,
)
from mammodensity.models.joint import JointNetwork, JointSpec
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.models.onnx import to_onnx
from mammodensity.terms import CATEGORIES, Projection
from mammodensity.training.joint_network import joint_features, still_statistics
from mammodensity.training.loop import ask_for_large_pages, return_large_blocks
from mammodensity.training.recipes import Recipe, find_recipe, in_precision
from mammodensity.training.single_network import NetworkTask, train_network

_VERSIONS = {"torch": torch.__version__}
_MATRIX_ROWS = 2048
_MOST_STEPS = 16
_VIEW = Projection.CC_R


def ceiling(precision: str) -> None:
    """Multiply large matrices in fp32 or bf16: the most that a processor reaches."""
    kind = torch.float32 if precision == "fp32" else torch.bfloat16
    left, right = (torch.rand(_MATRIX_ROWS, _MATRIX_ROWS).to(kind) for _ in range(2))
    out = torch.empty_like(left)
    worker.ready(versions=_VERSIONS, gflop=2 * _MATRIX_ROWS**3 / 1e9)

    def step() -> None:
        torch.mm(left, right, out=out)

    worker.serve(step)


def infer(engine: str, size: int, batch: int) -> None:
    """Run INFN's network on a batch by an engine; the first image's logits are reported, to compare with torch's."""
    torch.manual_seed(0)
    network = ResidualNetwork(NetworkSpec()).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint = Checkpoint(network, Projection.CC_L, PreprocessSpec(rows=size, columns=size))
    images = np.random.default_rng(0).normal(0, 0.3, (batch, 1, size, size)).astype(np.float32)
    run = _engine(engine, checkpoint, images[:1])
    package = {"onnx": "onnxruntime", "openvino": "openvino", "openvino-int8": "openvino"}.get(engine)
    versions = {name: metadata.version(name) for name in ("torch", package) if name}
    worker.ready(versions=versions, logits=run(images)[0].tolist())

    def step() -> None:
        run(images)

    worker.serve(step)


def _engine(name: str, checkpoint: Checkpoint, image: np.ndarray) -> Run:
    if name == "torch":
        return torch_engine(checkpoint, torch.device("cpu"))
    with TemporaryDirectory() as folder:
        exact, eight = Path(folder) / "exact.onnx", Path(folder) / "eight.onnx"
        exact.write_bytes(to_onnx(checkpoint))
        if name == "onnx":
            return onnx_session(exact)
        if name == "openvino":
            return openvino_session(exact)
        eight.write_bytes(quantised(exact, image))
        return openvino_session(eight, precision_beside_int8())


def read_exams(data: str, model: str, engine: str) -> None:
    """Do what `predict --json` does on a folder once the model is loaded, but for the writing."""
    # Imported here, so that they do not count in the memory of the other steps.
    from mammodensity.data.find import find_images
    from mammodensity.models.scoring import predict
    from mammodensity.models.trained import load_model
    from mammodensity.outputs import receipt
    from mammodensity.results.result import exam_result

    loaded = load_model(model or None, "cpu", engine)
    worker.ready(versions=_VERSIONS)

    def step() -> None:
        results = [
            exam_result(scored, provenance=receipt("predict")) for scored in predict(loaded, find_images(Path(data)))
        ]
        views = sum(len(result.projections) for result in results)
        if not results or views != 4 * len(results):
            raise SystemExit(f"{data}: {views} views of {len(results)} exams were read, not all four of each")

    worker.serve(step)


def joint(size: int, batch: int, fusion: str, precision: str, checkpointing: str) -> None:
    """Train the joint network, or INFN's network of one view where ``checkpointing`` is ``single``."""
    if checkpointing in {"views", "layers"}:
        ask_for_large_pages()  # as `train --checkpointing` does
        return_large_blocks()
    torch.manual_seed(1)
    spec = NetworkSpec(channels=3)
    network: nn.Module = ResidualNetwork(spec) if checkpointing == "single" else JointNetwork(JointSpec(spec, fusion))
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    views = torch.rand(batch, 4, 1, size, size).expand(-1, -1, 3, -1, -1)
    present = torch.ones(batch, 4, dtype=torch.bool)
    labels = torch.arange(batch) % 4

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        if isinstance(network, JointNetwork):
            features = joint_features(network, views, present, checkpointing=checkpointing, precision=precision)
            logits = network.fuse(features, present)
        else:
            images = views[:, 0].contiguous(memory_format=torch.channels_last)
            with in_precision(images, precision):
                logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        with still_statistics(network):
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    worker.ready(versions=_VERSIONS)
    worker.serve(step)


def train(size: int, batch: int, source: str, files: str = "", precision: str = "fp32") -> None:
    """Train INFN's network of one view by the loop of `mammodensity train`.

    The source of images is ``memory``, ``changed`` (also changed at random) or ``files`` (also read anew each time,
    from a folder of pictures). A step is the time between two reports: order, images, changes, forward, backward,
    optimiser.
    """
    recipe = replace(find_recipe("origin"), batch=batch, epochs=1)
    recipe = replace(recipe, preprocess=replace(recipe.preprocess, rows=size, columns=size))
    if source == "memory":
        recipe = replace(recipe, augment=AugmentSpec(0.0, 0.0, 0.0))
    few = torch.rand(2, 1, size, size)
    many = few[:1].expand(batch * _MOST_STEPS, -1, -1, -1)  # one image in memory, however many there are
    images: Any = _Pictures(list(Path(files).iterdir()), recipe, many) if source == "files" else many
    training = LabelledImages(images, torch.arange(len(many)) % 4)
    worker.ready(versions=_VERSIONS, gflop=_step_gflop(recipe))
    with TemporaryDirectory() as folder:
        validation, device = LabelledImages(few, torch.arange(2)), torch.device("cpu")
        task = NetworkTask(_VIEW, training, validation, recipe, Path(folder), device, precision=precision)
        worker.serve_loop(lambda report: train_network(task, lambda _step: report()))


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


def _step_gflop(recipe: Recipe) -> float:
    """Additions and multiplications of a step's convolutions, counted on small images: they grow with the pixels."""
    small = 65
    with FlopCounterMode(display=False) as counter:
        ResidualNetwork(recipe.network)(torch.rand(1, recipe.network.channels, small, small)).sum().backward()
    pixels = recipe.preprocess.rows * recipe.preprocess.columns / small**2
    return float(counter.get_total_flops() * pixels * recipe.batch / 1e9)


if __name__ == "__main__":
    torch.set_num_threads(worker.cores)
    steps = {"ceiling": ceiling, "infer": infer, "read exams": read_exams, "joint": joint, "train": train}
    step_name = worker.settings.pop("step")
    steps[step_name](**worker.settings)
