"""Engines that run a network: torch, or an inference program that may be faster on a processor.

Engines are chosen by name and never replaced by another. Each gives the scores of torch within ``TOLERANCE``, except
``openvino-int8``, which computes in 8-bit integers. The ranges of its layers are measured on training images; the loss
is checked on validation images, and a network that loses too much is refused.

References
----------
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from mammodensity.data.dataset import MANIFEST_NAME, SPLITS, DataSet, read_manifest
from mammodensity.errors import CheckpointError, ImageError, LayoutError, OptionError, OutputError
from mammodensity.inputs import read_file
from mammodensity.models.batch import load_images, with_channels
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.onnx import INPUT, quietly, require_packages, send_nothing, to_onnx
from mammodensity.outputs import file_sha256, write_bytes, write_text
from mammodensity.workers import threads_told

ENGINES: tuple[str, ...] = ("torch", "onnx", "openvino", "openvino-int8")
TOLERANCE = 1e-4
"""Largest difference of any score in 32 bits from torch's; measured differences are about 1e-6."""
LARGEST_MEAN_DIFFERENCE = 0.02
"""Largest mean difference of scores in 8 bits from those in 32 bits, over the validation images of the check."""
LEAST_AGREEMENT = 0.95
"""Smallest share of these images that must keep their category."""
_IMAGES = 32
_HASH_BYTES = 64
_MAKING = 2  # part of the names of kept files; raised when networks are exported or quantised in another way

Inputs = NDArray[np.float32]
"""(B, channels, rows, columns)."""
Run = Callable[[Inputs], NDArray[np.float32]]
"""From network inputs to the network's output: logits (B, 4), or features (B, F) of a branch."""
Samples = Callable[[], tuple[Inputs, Inputs]]
"""Gives network inputs to measure ranges on, and others for the check."""
ToScores = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From a network's output for B images to scores (B, 4)."""


def scores_of_logits(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores (B, 4) of logits (B, 4).

    Raises
    ------
    CheckpointError
        A logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise CheckpointError(
            "the network gives values that are not finite; its weights are damaged, restore it or train again"
        )
    return softmax(logits.astype(np.float64), axis=1)


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
        Gives images of the network's training; needed by ``openvino-int8``, and only the first time.
    to_scores
        Turns the network's output into scores (B, 4), for the check of ``openvino-int8``.

    Raises
    ------
    OptionError
        The engine is unknown, not installed or does not run on the device, or there are no samples.
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

    def run(inputs: Inputs) -> NDArray[np.float32]:
        images = torch.from_numpy(inputs).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return checkpoint.network(images).float().cpu().numpy()

    return run


def onnx_session(path: Path) -> Callable[..., NDArray[np.float32]]:
    """Run an ONNX file of one output, called with its inputs in their order."""
    require_packages("engines", "onnxruntime")
    send_nothing()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads_told()  # 0: as many as it likes
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: NDArray[Any]) -> NDArray[np.float32]:
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return run


def openvino_session(path: Path, precision: str = "f32") -> Run:
    """Run an ONNX file of one input and one output; its layers that are not quantised run in ``f32`` or ``bf16``."""
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}  # some processors would choose bf16 themselves
    if threads_told():
        settings["INFERENCE_NUM_THREADS"] = threads_told()
    core = _openvino_core()
    compiled = core.compile_model(core.read_model(path), "CPU", settings)

    def run(inputs: Inputs) -> NDArray[np.float32]:
        return np.asarray(compiled([inputs])[0])

    return run


@cache
def _openvino_core() -> Any:
    """The only core of the process, which is never dropped.

    Each core takes over its thread's alternate signal stack. If cores are dropped in the order they were made, the last
    one puts back a stack that no longer exists, and the next signal with a handler (Ctrl-C, the end of a child) kills
    the process.
    """
    send_nothing()
    import openvino

    return openvino.Core()


# 8-bit integers


def _openvino_int8(checkpoint: Checkpoint, samples: Samples | None, to_scores: ToScores) -> Run:
    """The engine in 8-bit integers; quantised and checked the first time, then kept."""
    require_packages("engines", "onnx", "onnxruntime")
    network = _onnx_file(checkpoint)
    precision = precision_beside_int8()
    path = network.with_suffix(f".int8-{7 if _sums_saturate() else 8}-{precision}.onnx")  # each is checked
    if _is_whole(path):
        return openvino_session(path, precision)
    if samples is None:
        raise OptionError("engine openvino-int8 needs images of the training; load the network from its model folder")
    measured, checked = samples()
    with TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_bytes(quantised(network, measured))
        in_8_bits, in_32_bits = (
            to_scores(np.concatenate([run(image[np.newaxis]) for image in checked]))
            for run in (openvino_session(trial, precision), torch_engine(checkpoint, torch.device("cpu")))
        )
        require_same(checkpoint, in_8_bits, in_32_bits)
        _keep(path, trial.read_bytes())
    return openvino_session(path, precision)


def precision_beside_int8() -> str:
    """``bf16`` where the processor computes in it, which is precise enough beside 8 bits; otherwise ``f32``."""
    return "bf16" if "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def training_inputs(model: Path, checkpoint: Checkpoint) -> tuple[Inputs, Inputs]:
    """Up to 32 training images of a network and up to 32 of its validation, as the manifest of the model names them.

    Raises
    ------
    OptionError
        There is no manifest, or its images are gone.
    """
    try:
        data = read_manifest(model / MANIFEST_NAME)
        measured, checked = (_images(data, split, checkpoint) for split in SPLITS[:2])
    except (LayoutError, ImageError) as error:
        raise OptionError(
            "engine openvino-int8 measures a network once on the images of its training, which the model's "
            f"{MANIFEST_NAME} names, and cannot read them: {error}; run it once where they are, or take openvino"
        ) from error
    return measured, checked


def _images(data: DataSet, split: str, checkpoint: Checkpoint) -> Inputs:
    """Images of a split, evenly drawn from the exams in sorted order."""
    key = checkpoint.projection, split
    records = sorted(
        (record for record in data.records if (record.projection, record.split) == key),
        key=lambda record: record.exam_id,
    )
    if not records:
        raise LayoutError(f"no {checkpoint.projection} image in the {split} split")
    chosen = [records[place] for place in np.unique(np.linspace(0, len(records) - 1, _IMAGES).astype(int))]
    images = load_images(chosen, checkpoint.preprocess).images
    return with_channels(images, checkpoint.network.spec.channels).numpy()


def quantised(network: Path, inputs: Inputs) -> bytes:
    """An ONNX file in 8-bit integers, with the ranges that the layers of ``network`` have on ``inputs``."""
    send_nothing()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(inputs)

        def get_next(self) -> dict[str, Inputs] | None:
            image = next(self.rest, None)
            return None if image is None else {INPUT: image[np.newaxis]}

    with TemporaryDirectory() as folder, quietly(logging.root):
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        quant_pre_process(network, prepared, skip_symbolic_shape=True)  # joins convolutions and batch normalisations
        quantize_static(
            prepared,
            result,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            reduce_range=_sums_saturate(),
            extra_options={"ActivationSymmetric": True},  # a zero point would be a layer of its own in OpenVINO
            op_types_to_quantize=["Conv"],  # nearly all of the time; runtimes disagree about the other layers
        )
        return result.read_bytes()


def _sums_saturate() -> bool:
    """True for a processor without VNNI: it adds products of 8 bits in 16 bits, so weights may have 7 bits only."""
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True


def require_same(checkpoint: Checkpoint, in_8_bits: NDArray[np.float64], in_32_bits: NDArray[np.float64]) -> None:
    """Raise ``CheckpointError`` if scores (B, 4) in 8 bits are too far from those in 32 bits."""
    difference = float(np.abs(in_8_bits - in_32_bits).mean())
    changed = in_8_bits.argmax(1) != in_32_bits.argmax(1)
    if not (difference <= LARGEST_MEAN_DIFFERENCE and changed.mean() <= 1 - LEAST_AGREEMENT):
        raise CheckpointError(
            f"in 8 bits {changed.sum()} of {len(changed)} validation images of {checkpoint.projection} change their "
            f"category (allowed: {1 - LEAST_AGREEMENT:.0%}) and a score differs by {difference:.4f} on average "
            f"(allowed: {LARGEST_MEAN_DIFFERENCE:g}); use --engine openvino for this model"
        )


# Files kept for the next time


def _onnx_file(checkpoint: Checkpoint) -> Path:
    """The exported network, kept under a name that depends on its weights and its projection.

    (Mirrored views share a branch and its weights.)
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
    """Write a file for the next time, and its hash beside it."""
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
    """True when a kept file is as it was written; a damaged one is made again, never run."""
    try:
        return file_sha256(path) == read_file(_hash_file(path), _HASH_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return False


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
