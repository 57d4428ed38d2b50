"""Tensors on disk: safetensors files, never pickles; ours also hold a description as JSON, and a checksum.

Tensors are checked when they are read: a network with a value that is not finite would give scores that mean nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mammodensity.errors import CheckpointError
from mammodensity.inputs import open_file, parse_json
from mammodensity.outputs import write_bytes
from mammodensity.stopping import stops_wait

MOST_BYTES = 2_000_000_000
"""The largest network that its spec allows, with the state of its optimiser."""
_CHECKSUM = "sha256"
_RESTORE = "restore it or train again"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a safetensors file whose header holds ``description`` and a checksum as JSON, whole or not at all."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {**description, _CHECKSUM: _digest(plain, description)}
    write_bytes(path, save(plain, {"mammodensity": json.dumps(header, allow_nan=False)}))


def _digest(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """SHA-256 over description, names, shapes and values, so that a single flipped bit is noticed."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the description that `write_tensors` wrote.

    Raises
    ------
    CheckpointError
        The file is absent, no regular file, damaged, or not written by this program; or a tensor holds values that no
        network of ours can have.
    """
    tensors, metadata = _read(path)
    header = metadata.get("mammodensity")
    if header is None:
        raise CheckpointError(f"{path} was not written by mammodensity: it has no description of its network")
    try:
        description = dict(parse_json(header))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: its description is not JSON; {_RESTORE}") from error
    if description.pop(_CHECKSUM, None) != _digest(tensors, description):
        raise CheckpointError(f"{path} is damaged: its content differs from its checksum; {_RESTORE}")
    _require_usable(path, tensors)
    return tensors, description


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a network that comes with the package; they have 16 bits and no description.

    Raises
    ------
    CheckpointError
        As of `read_tensors`.
    """
    tensors = {
        name: tensor.float() if tensor.dtype == torch.half else tensor for name, tensor in _read(path)[0].items()
    }
    _require_usable(path, tensors)
    return tensors


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        open_file(path, MOST_BYTES).close()
        # what a signal raises within it becomes an error of its own, as of a damaged file
        with stops_wait(), safe_open(path, framework="pt") as stream:
            names = list(stream.keys())
            tensors = {name: stream.get_tensor(name).clone() for name in names}  # apart from the file, which may change
            return tensors, stream.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} not found; expected a network written by `mammodensity train` or `import-keras`"
        ) from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file; {_RESTORE}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _require_usable(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.int64):
            raise CheckpointError(f"{path}: {name} is of type {tensor.dtype}, expected torch.float32; {_RESTORE}")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} has values that are not finite; {_RESTORE}")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{path}: {name} has negative values, and is a variance; {_RESTORE}")
