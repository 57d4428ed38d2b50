"""What runs a network: torch, or another program for inference that may be faster on a processor.

Engines are chosen by name and never fall back to another. Each gives the scores of torch within ``TOLERANCE``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mammodensity.errors import OptionError
from mammodensity.networks import Checkpoint
from mammodensity.networks.onnx_export import require_engine_packages, to_onnx
from mammodensity.outputs import write_bytes

ENGINES: tuple[str, ...] = ("torch", "onnx", "openvino")
TOLERANCE = 1e-4
"""Largest difference of any score from torch's; measured differences are about 1e-6."""

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From network inputs (B, channels, rows, columns) to logits (B, 4)."""


def make_engine(name: str, checkpoint: Checkpoint, device: torch.device) -> Logits:
    """Make a network ready to run.

    Raises
    ------
    OptionError
        Unknown engine, one that is not installed, or one that does not run on the device.
    """
    if name not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}. Got {name!r} instead.")
    if name == "torch":
        return torch_logits(checkpoint, device)
    if device.type != "cpu":
        raise OptionError(f"engine {name} runs on the CPU; use --device cpu, or --engine torch")
    return _onnx_runtime(checkpoint) if name == "onnx" else _openvino(checkpoint)


def torch_logits(checkpoint: Checkpoint, device: torch.device) -> Logits:
    """Run the network itself."""

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        images = torch.from_numpy(inputs).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits: NDArray[np.float32] = checkpoint.network(images).float().cpu().numpy()
        return logits

    return run


def _onnx_runtime(checkpoint: Checkpoint) -> Logits:
    return onnx_session(_onnx_file(checkpoint))


def onnx_session(path: Path) -> Logits:
    """Run an ONNX file of one input and one output."""
    require_engine_packages("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {given.name: inputs})[0]
        return logits

    return run


def _openvino(checkpoint: Checkpoint) -> Logits:
    require_engine_packages("openvino")
    import openvino

    model = openvino.convert_model(_onnx_file(checkpoint))
    precision: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would take bfloat16 by themselves
    compiled = _openvino_core().compile_model(model, "CPU", precision)

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = np.asarray(compiled([inputs])[0])
        return logits

    return run


@cache
def _openvino_core() -> Any:
    """One for the process, never dropped.

    Each takes over its thread's alternate signal stack. Dropped in the order they were made, the last one puts back
    a stack that is gone already, and the next signal with a handler (Ctrl-C, the end of a child) kills the process.
    """
    import openvino

    return openvino.Core()


def _onnx_file(checkpoint: Checkpoint) -> Path:
    """The exported network, kept for the next time under a name that changes with its weights."""
    digest = hashlib.sha256(f"{torch.__version__} {checkpoint.preprocess}".encode())
    for name, tensor in sorted(checkpoint.network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = home / "mammodensity" / f"{digest.hexdigest()[:32]}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, to_onnx(checkpoint))
    return path
