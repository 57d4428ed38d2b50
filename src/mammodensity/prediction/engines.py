"""What runs a network: torch, or another program for inference that may be faster on a processor.

Engines are chosen by name and never fall back to another. Each gives the scores of torch within ``TOLERANCE``, but for
``openvino-int8``, whose limits are those of ``mammodensity.prediction.int8``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mammodensity.errors import OptionError, OutputError
from mammodensity.networks import Checkpoint
from mammodensity.networks.onnx_export import require_packages, send_nothing, to_onnx
from mammodensity.outputs import file_sha256, write_bytes, write_text
from mammodensity.prediction.int8 import Samples, ToScores, quantised, require_same, scores_of_logits
from mammodensity.workers import threads_told

_MAKING = 2
"""Of kept files: raised when networks are exported or quantised in another way."""
ENGINES: tuple[str, ...] = ("torch", "onnx", "openvino", "openvino-int8")
TOLERANCE = 1e-4
"""Largest difference of any score in 32 bits from torch's; measured differences are about 1e-6."""

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From network inputs (B, channels, rows, columns) to what the network gives: logits (B, 4), or features (B, F)."""


def make_engine(
    name: str,
    checkpoint: Checkpoint,
    device: torch.device,
    samples: Samples | None = None,
    to_scores: ToScores = scores_of_logits,
) -> Run:
    """Make a network ready to run.

    Parameters
    ----------
    samples
        Gives images of the network's training; asked only by ``openvino-int8``, and only the first time.
    to_scores
        From what the network gives to scores (B, 4), for the check of ``openvino-int8``.

    Raises
    ------
    OptionError
        Unknown engine, one that is not installed, one that does not run on the device, or there are no samples.
    CheckpointError
        The network loses too much in 8 bits.
    """
    if name not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}. Got {name!r} instead.")
    if name == "torch":
        return torch_engine(checkpoint, device)
    if device.type != "cpu":
        raise OptionError(f"engine {name} runs on the CPU; use --device cpu, or --engine torch")
    if name == "onnx":
        return onnx_session(_onnx_file(checkpoint))
    require_packages("engines", "openvino")
    if name == "openvino":
        return openvino_session(_onnx_file(checkpoint))
    return _openvino_int8(checkpoint, samples, to_scores)


def torch_engine(checkpoint: Checkpoint, device: torch.device) -> Run:
    """Run the network itself."""

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        images = torch.from_numpy(inputs).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            outputs: NDArray[np.float32] = checkpoint.network(images).float().cpu().numpy()
        return outputs

    return run


def onnx_session(path: Path) -> Callable[..., NDArray[np.float32]]:
    """Run an ONNX file of one output on its inputs, in their order."""
    require_packages("engines", "onnxruntime")
    send_nothing()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads_told()  # 0: as many as it likes
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: NDArray[Any]) -> NDArray[np.float32]:
        outputs: NDArray[np.float32] = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return outputs

    return run


def openvino_session(path: Path, precision: str = "f32") -> Run:
    """Run an ONNX file of one input and one output; what is not quantised in it runs in ``f32`` or ``bf16``."""
    core = _openvino_core()
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}  # some processors would take bf16 by themselves
    if threads_told():
        settings["INFERENCE_NUM_THREADS"] = threads_told()
    compiled = core.compile_model(core.read_model(path), "CPU", settings)

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs: NDArray[np.float32] = np.asarray(compiled([inputs])[0])
        return outputs

    return run


def precision_beside_int8() -> str:
    """``bf16`` where the processor computes in it, which is fine enough beside 8 bits; else ``f32``."""
    return "bf16" if "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _openvino_int8(checkpoint: Checkpoint, samples: Samples | None, to_scores: ToScores) -> Run:
    """In 8-bit integers; quantised and checked the first time, then kept."""
    require_packages("engines", "onnx", "onnxruntime")
    network = _onnx_file(checkpoint)
    precision = precision_beside_int8()
    path = network.with_suffix(f".int8-{precision}.onnx")  # each is checked
    if _is_whole(path):
        return openvino_session(path, precision)
    if samples is None:
        raise OptionError("engine openvino-int8 needs images of the training; load the network from its model folder")
    measured, checked = samples()
    with TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_bytes(quantised(network, measured))
        run, exact = openvino_session(trial, precision), torch_engine(checkpoint, torch.device("cpu"))
        found, expected = (np.concatenate([one(image[np.newaxis]) for image in checked]) for one in (run, exact))
        require_same(checkpoint, to_scores(found), to_scores(expected))
        _keep(path, trial.read_bytes())
    return openvino_session(path, precision)


@cache
def _openvino_core() -> Any:
    """One for the process, never dropped.

    Each takes over its thread's alternate signal stack. Dropped in the order they were made, the last one puts back
    a stack that is gone already, and the next signal with a handler (Ctrl-C, the end of a child) kills the process.
    """
    send_nothing()
    import openvino

    return openvino.Core()


def _onnx_file(checkpoint: Checkpoint) -> Path:
    """The exported network, kept for the next time under a name that changes with its weights.

    And with its projection: mirrored views share a branch's weights.
    """
    digest = hashlib.sha256(f"{_MAKING} {torch.__version__} {checkpoint.projection} {checkpoint.preprocess}".encode())
    for name, tensor in sorted(checkpoint.network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = home / "mammodensity" / f"{digest.hexdigest()[:32]}.onnx"
    if not _is_whole(path):
        _keep(path, to_onnx(checkpoint))
    return path


def _keep(path: Path, content: bytes) -> None:
    """Write a file for the next time, and beside it the hash that it must have."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
        write_text(_hash_file(path), hashlib.sha256(content).hexdigest())
    except (OSError, OutputError) as error:
        raise OutputError(
            f"cannot keep an exported network in {path.parent}, where engines other than torch look for it: {error}; "
            "set XDG_CACHE_HOME to a folder that can be written, or take --engine torch"
        ) from error


def _is_whole(path: Path) -> bool:
    """Whether a kept file is there and is what was written: a damaged one is made again, never run."""
    try:
        return file_sha256(path) == _hash_file(path).read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
