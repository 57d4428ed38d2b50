"""Where tensors are computed. A device asked for by name and absent is an error; only ``auto`` chooses."""

from __future__ import annotations

import torch

from mammodensity.errors import DeviceError


def find_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is the first GPU if there is one, else the CPU.

    Raises
    ------
    DeviceError
        This machine does not have it.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cpu" and device.index:
        raise DeviceError(f"device {name} was asked for, but there is one cpu; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise DeviceError(f"device {name} was asked for, but this machine has {gpus} GPUs; use --device cpu or auto")
    return device
