"""Networks as files for other programs, each loaded again and compared with the network it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from mammodensity.errors import CheckpointError
from mammodensity.exam import Mammogram
from mammodensity.models.batch import input_batch
from mammodensity.models.checkpoint import (
    JOINT,
    Checkpoint,
    JointCheckpoint,
    joint_file,
    load_checkpoint,
    load_joint,
    network_files,
)
from mammodensity.models.engines import TOLERANCE, onnx_session, torch_engine
from mammodensity.models.monai_bundle import load_bundle, write_bundle
from mammodensity.models.onnx import WHOLE_SHAPE, to_joint_onnx, to_onnx, to_whole_image_onnx
from mammodensity.outputs import write_bytes
from mammodensity.terms import DENSITY, PROJECTIONS

Scores = NDArray[np.float32]
Written = tuple[Path, Scores, Scores]
"""Path of the file or folder, the scores found with it, and those of the network."""


def networks_to_export(model: Path, file_format: str) -> Sequence[Checkpoint | JointCheckpoint]:
    """What of a model folder goes into files of their own.

    A joint network is one, but files of a single image take each view as if its exam had no other.

    Raises
    ------
    CheckpointError
        A network is damaged or of other categories than A to D, or there is none.
    """
    file = joint_file(model)
    if file is not None:
        joint = load_joint(file)
        return [joint] if file_format in JOINT_FORMATS else [joint.alone(projection) for projection in PROJECTIONS]
    networks = network_files(model)
    if not networks:
        raise CheckpointError(f"{model} holds no trained networks; name a folder written by train or import-keras")
    found = [load_checkpoint(one, projection) for projection, one in networks.items()]
    if found[0].scale != DENSITY:
        raise CheckpointError(f"{model} is of categories {found[0].scale}; only networks of A to D are exported")
    return found


def export_network(checkpoint: Checkpoint | JointCheckpoint, folder: Path, file_format: str) -> tuple[str, float]:
    """Write a network into ``folder``, in one of ``FORMATS``, or for a joint one of ``JOINT_FORMATS``.

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
    if isinstance(checkpoint, JointCheckpoint):
        name: str = JOINT
        path, found, expected = JOINT_FORMATS[file_format](checkpoint, folder)
    else:
        name = checkpoint.projection
        path, found, expected = FORMATS[file_format](checkpoint, folder)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise CheckpointError(f"the exported {name} differs from the network by {difference:.2g}")
    return path.name, difference


def _onnx(checkpoint: Checkpoint, folder: Path) -> Written:
    path = folder / f"{checkpoint.projection}.onnx"
    write_bytes(path, to_onnx(checkpoint))
    inputs = _inputs(checkpoint)
    return path, softmax(onnx_session(path)(inputs), axis=1), _scores(checkpoint, inputs)


def _leaderboard(checkpoint: Checkpoint, folder: Path) -> Written:
    path = folder / f"{checkpoint.projection}.onnx"
    write_bytes(path, to_whole_image_onnx(checkpoint))
    session, found, expected = onnx_session(path), [], []
    for image in _pictures(checkpoint):
        whole = (image.pixels / np.float32(image.full_scale)).astype(np.float32).reshape(WHOLE_SHAPE)
        found.append(session(whole))
        inputs = input_batch([image], checkpoint.preprocess, checkpoint.network.spec.channels).numpy()
        expected.append(_scores(checkpoint, inputs))
    return path, np.concatenate(found), np.concatenate(expected)


def _pictures(checkpoint: Checkpoint) -> Iterator[Mammogram]:
    """Bright half discs with texture from none to much: of noise alone most networks are quite sure, and of one picture
    an export might be right by chance.
    """
    y, x = np.ogrid[-1:1:1024j, 0:1:1024j]
    body = np.hypot(y, x) < 0.8
    noise = np.kron(np.random.default_rng(0).normal(0, 1, (64, 64)), np.ones((16, 16)))
    for contrast in (0.0, 0.03, 0.1, 0.3):
        grey = np.clip(0.4 + contrast * noise, 0, 1) * body
        yield Mammogram((65535 * grey).astype(np.uint16), checkpoint.projection)


def _monai(checkpoint: Checkpoint, folder: Path) -> Written:
    path = folder / f"mammodensity_{checkpoint.projection}"
    write_bundle(checkpoint, path)
    inputs = _inputs(checkpoint)
    with torch.inference_mode():
        logits = load_bundle(path)(torch.from_numpy(inputs)).numpy()
    return path, softmax(logits, axis=1), _scores(checkpoint, inputs)


def _joint_onnx(checkpoint: JointCheckpoint, folder: Path) -> Written:
    path = folder / f"{JOINT}.onnx"
    write_bytes(path, to_joint_onnx(checkpoint))
    views, present = _exams(checkpoint)
    found = softmax(onnx_session(path)(views, present), axis=1)
    return path, found, _joint_scores(checkpoint.network, views, present)


def _joint_monai(checkpoint: JointCheckpoint, folder: Path) -> Written:
    path = folder / f"mammodensity_{JOINT}"
    write_bundle(checkpoint, path)
    views, present = _exams(checkpoint)
    found, expected = (_joint_scores(one, views, present) for one in (load_bundle(path), checkpoint.network))
    return path, found, expected


def _exams(checkpoint: JointCheckpoint) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Noise, with all views and with fewer."""
    spec, count = checkpoint.preprocess, len(PROJECTIONS)
    shape = (count, count, checkpoint.network.spec.network.channels, spec.rows, spec.columns)
    views = np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)
    return views, np.tri(count, dtype=bool)[::-1].copy()


def _joint_scores(network: nn.Module, views: NDArray[np.float32], present: NDArray[np.bool_]) -> Scores:
    with torch.inference_mode():
        logits = network.cpu()(torch.from_numpy(views), torch.from_numpy(present))
    scores: Scores = softmax(logits.numpy(), axis=1)
    return scores


def _inputs(checkpoint: Checkpoint) -> NDArray[np.float32]:
    spec = checkpoint.preprocess
    shape = (3, checkpoint.network.spec.channels, spec.rows, spec.columns)
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


def _scores(checkpoint: Checkpoint, inputs: NDArray[np.float32]) -> Scores:
    scores: Scores = softmax(torch_engine(checkpoint, torch.device("cpu"))(inputs), axis=1)
    return scores


FORMATS: dict[str, Callable[[Checkpoint, Path], Written]] = {
    "onnx": _onnx,
    "leaderboard": _leaderboard,
    "monai": _monai,
}
"""By name, what writes a network."""
JOINT_FORMATS: dict[str, Callable[[JointCheckpoint, Path], Written]] = {"onnx": _joint_onnx, "monai": _joint_monai}
