"""Networks as files for other programs, each loaded again and compared with its network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from mammodensity.errors import CheckpointError
from mammodensity.exam import Mammogram
from mammodensity.models.batch import input_batch
from mammodensity.models.checkpoint import (
    Checkpoint,
    JointCheckpoint,
    joint_file,
    load_checkpoint,
    load_joint,
    network_files,
)
from mammodensity.models.engines import TOLERANCE, onnx_session
from mammodensity.models.monai_bundle import load_bundle, write_bundle
from mammodensity.models.onnx import WHOLE_SHAPE, to_onnx, to_whole_image_onnx
from mammodensity.outputs import write_bytes
from mammodensity.terms import DENSITY, PROJECTIONS

Network = Checkpoint | JointCheckpoint
Scores = NDArray[np.float32]
Written = tuple[Path, Scores, Scores]
"""Path of the file or folder, its scores, and those of the network."""


def networks_to_export(model: Path, file_format: str) -> Sequence[Network]:
    """The networks of a model folder that go into files of their own.

    A joint network goes into one file; in a format for single images, each view is treated as if its exam had no other.

    Raises
    ------
    CheckpointError
        A network is damaged or has other categories than A to D, or there is none.
    """
    file = joint_file(model)
    if file is not None:
        joint = load_joint(file)
        return [joint] if file_format in _JOINT_FORMATS else [joint.alone(projection) for projection in PROJECTIONS]
    networks = network_files(model)
    if not networks:
        raise CheckpointError(f"{model} holds no trained networks; name a folder written by train or import-keras")
    checkpoints = [load_checkpoint(file, projection) for projection, file in networks.items()]
    if checkpoints[0].scale != DENSITY:
        raise CheckpointError(f"{model} is of categories {checkpoints[0].scale}; only networks of A to D are exported")
    return checkpoints


def export_network(checkpoint: Network, folder: Path, file_format: str) -> tuple[str, float]:
    """Write a network into ``folder``, in one of ``FORMATS``.

    Returns
    -------
    Name of the file or folder, and the largest difference of a score from the network's.

    Raises
    ------
    OptionError
        A package is not installed, or the format cannot hold the network's preprocessing.
    CheckpointError
        Scores of the file differ from those of the network by more than ``TOLERANCE``.
    """
    path, scores, expected = FORMATS[file_format](checkpoint, folder)
    difference = float(np.abs(scores - expected).max())
    if not difference <= TOLERANCE:
        raise CheckpointError(f"the exported {checkpoint.name} differs from the network by {difference:.2g}")
    return path.name, difference


def _onnx(checkpoint: Network, folder: Path) -> Written:
    path = folder / f"{checkpoint.name}.onnx"
    write_bytes(path, to_onnx(checkpoint))
    inputs = _inputs(checkpoint)
    return path, softmax(onnx_session(path)(*inputs), axis=1), _scores(checkpoint.network, inputs)


def _monai(checkpoint: Network, folder: Path) -> Written:
    path = folder / f"mammodensity_{checkpoint.name}"
    write_bundle(checkpoint, path)
    inputs = _inputs(checkpoint)
    return path, _scores(load_bundle(path), inputs), _scores(checkpoint.network, inputs)


def _leaderboard(checkpoint: Checkpoint, folder: Path) -> Written:
    path = folder / f"{checkpoint.name}.onnx"
    write_bytes(path, to_whole_image_onnx(checkpoint))
    session, scores, expected = onnx_session(path), [], []
    for image in _pictures(checkpoint):
        scores.append(session((image.pixels / np.float32(image.full_scale)).astype(np.float32).reshape(WHOLE_SHAPE)))
        inputs = input_batch([image], checkpoint.preprocess, checkpoint.network.spec.channels).numpy()
        expected.append(_scores(checkpoint.network, [inputs]))
    return path, np.concatenate(scores), np.concatenate(expected)


FORMATS: dict[str, Callable[[Any, Path], Written]] = {"onnx": _onnx, "leaderboard": _leaderboard, "monai": _monai}
"""By name, the function that writes a network."""
_JOINT_FORMATS = ("onnx", "monai")


def _inputs(checkpoint: Network) -> list[NDArray[Any]]:
    """Noise in the shape of a network's inputs; of exams, with all views and with fewer."""
    spec, count, rng = checkpoint.preprocess, len(PROJECTIONS), np.random.default_rng(0)
    joint = isinstance(checkpoint, JointCheckpoint)
    shape = ((count, count) if joint else (3,)) + (checkpoint.network.spec.channels, spec.rows, spec.columns)
    images = rng.normal(0, 0.3, shape).astype(np.float32)
    return [images, np.tri(count, dtype=bool)[::-1].copy()] if joint else [images]


def _scores(network: nn.Module, inputs: Sequence[NDArray[Any]]) -> Scores:
    with torch.inference_mode():
        return softmax(network.cpu()(*map(torch.from_numpy, inputs)).numpy(), axis=1)


def _pictures(checkpoint: Checkpoint) -> Iterator[Mammogram]:
    """Bright half discs with no to much texture. On pure noise most networks are quite certain, and on a single picture
    an export might be right by chance.
    """
    y, x = np.ogrid[-1:1:1024j, 0:1:1024j]
    body = np.hypot(y, x) < 0.8
    noise = np.kron(np.random.default_rng(0).normal(0, 1, (64, 64)), np.ones((16, 16)))
    for contrast in (0.0, 0.03, 0.1, 0.3):
        grey = np.clip(0.4 + contrast * noise, 0, 1) * body
        yield Mammogram((65535 * grey).astype(np.uint16), checkpoint.projection)
