"""The origin's network by one of the engines; settings: engine, size, batch. Of random weights: only speed is asked."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import worker

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.engines import (
    Run,
    onnx_session,
    openvino_session,
    precision_beside_int8,
    quantised,
    torch_engine,
)
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.models.onnx import to_onnx
from mammodensity.terms import Projection

_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "openvino-int8": "openvino"}


def main() -> None:
    """A step is one batch; what it gives for a first image is told, to be compared with torch's."""
    name, size = worker.given["engine"], worker.given["size"]
    torch.set_num_threads(worker.cores)
    torch.manual_seed(0)
    spec = PreprocessSpec(rows=size, columns=size)
    network = ResidualNetwork(NetworkSpec()).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint = Checkpoint(network, Projection.CC_L, spec)
    shape = (worker.given["batch"], 1, size, size)
    images = np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)
    run = _engine(name, checkpoint, images[:1])
    versions = {package: metadata.version(package) for package in ("torch", *filter(None, [_PACKAGES.get(name)]))}
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


if __name__ == "__main__":
    main()
