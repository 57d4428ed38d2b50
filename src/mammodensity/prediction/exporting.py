"""Networks as files for other programs, each loaded again and compared with the network it was made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from mammodensity.data import input_batch
from mammodensity.errors import CheckpointError
from mammodensity.exam import Mammogram
from mammodensity.networks import Checkpoint
from mammodensity.networks.onnx_export import WHOLE_SHAPE, to_onnx, to_whole_image_onnx
from mammodensity.outputs import write_bytes
from mammodensity.prediction.engines import TOLERANCE, onnx_session, torch_logits
from mammodensity.prediction.monai_bundle import load_bundle, write_bundle

Scores = NDArray[np.float32]


def export_network(checkpoint: Checkpoint, folder: Path, file_format: str) -> tuple[str, float]:
    """Write a network into ``folder``, in one of ``FORMATS``.

    Returns
    -------
    Name of the file or folder written, and the largest difference of a score from the network's.

    Raises
    ------
    OptionError
        A package is not installed, or the format cannot hold the network's preprocessing.
    CheckpointError
        What was written gives other scores than the network, beyond ``TOLERANCE``.
    """
    path, found, expected = FORMATS[file_format](checkpoint, folder)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise CheckpointError(f"the exported {checkpoint.projection} differs from the network by {difference:.2g}")
    return path.name, difference


def _onnx(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Scores, Scores]:
    path = folder / f"{checkpoint.projection}.onnx"
    write_bytes(path, to_onnx(checkpoint))
    inputs = _inputs(checkpoint)
    return path, softmax(onnx_session(path)(inputs), axis=1), _scores(checkpoint, inputs)


def _leaderboard(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Scores, Scores]:
    path = folder / f"{checkpoint.projection}.onnx"
    write_bytes(path, to_whole_image_onnx(checkpoint))
    noise = np.random.default_rng(0).integers(0, 65536, (64, 64)).astype(np.uint16)
    image = Mammogram(np.kron(noise, np.ones((16, 16), np.uint16)), checkpoint.projection)
    inputs = input_batch([image], checkpoint.preprocess, checkpoint.network.spec.channels).numpy()
    whole = (image.pixels / np.float32(image.full_scale)).astype(np.float32).reshape(WHOLE_SHAPE)
    return path, onnx_session(path)(whole), _scores(checkpoint, inputs)


def _monai(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Scores, Scores]:
    path = folder / f"mammodensity_{checkpoint.projection}"
    write_bundle(checkpoint, path)
    inputs = _inputs(checkpoint)
    with torch.inference_mode():
        logits = load_bundle(path)(torch.from_numpy(inputs)).numpy()
    return path, softmax(logits, axis=1), _scores(checkpoint, inputs)


def _inputs(checkpoint: Checkpoint) -> NDArray[np.float32]:
    spec = checkpoint.preprocess
    shape = (3, checkpoint.network.spec.channels, spec.rows, spec.columns)
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


def _scores(checkpoint: Checkpoint, inputs: NDArray[np.float32]) -> Scores:
    scores: Scores = softmax(torch_logits(checkpoint, torch.device("cpu"))(inputs), axis=1)
    return scores


FORMATS: dict[str, Callable[[Checkpoint, Path], tuple[Path, Scores, Scores]]] = {
    "onnx": _onnx,
    "leaderboard": _leaderboard,
    "monai": _monai,
}
"""By name, what writes a network, and gives the path, the scores found there and those expected."""
