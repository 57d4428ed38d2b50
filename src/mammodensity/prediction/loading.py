"""Trained networks from a model folder: one a projection, or a joint one."""

from __future__ import annotations

from pathlib import Path

import torch

from mammodensity.devices import find_device
from mammodensity.networks import load_checkpoint, network_files
from mammodensity.networks.joint_checkpoint import joint_file
from mammodensity.prediction.density_model import DensityModel
from mammodensity.prediction.joint_model import load_joint_model
from mammodensity.training.resume import RESUME_FILE


def load_networks(path: Path | str, device: str = "auto", engine: str = "torch") -> DensityModel:
    """Load the networks of a model folder as written by ``mammodensity train`` or ``import-keras``.

    A folder with a joint network gives a :class:`JointModel`.

    Parameters
    ----------
    path
        A model folder, or the folder or file of a single network.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    engine
        ``torch``, ``onnx``, ``openvino`` or ``openvino-int8``.

    Raises
    ------
    CheckpointError
        Nothing there, or a network is damaged, lies in the folder of another projection, or is of other categories.
    DeviceError
        The device is absent.
    OptionError
        The engine is unknown or not installed.
    """
    joint = joint_file(Path(path))
    if joint is not None:
        return load_joint_model(joint, device, engine)
    where = find_device(device)
    files = network_files(Path(path))
    if files:
        checkpoints = {projection: load_checkpoint(file, projection) for projection, file in files.items()}
    else:
        only = load_checkpoint(path)
        checkpoints = {only.projection: only}
    for checkpoint in checkpoints.values():
        checkpoint.network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    unfinished = tuple(p for p, file in files.items() if (file.parent / RESUME_FILE).exists())
    model = DensityModel(checkpoints, where, unfinished, engine, Path(path))
    model.prepare()
    return model
