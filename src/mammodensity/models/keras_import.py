"""A network of the origin's kind, read from a whole-model HDF5 file of Keras: 2.2.4, tf.keras or Keras 3.

Only h5py is needed. Keras keeps convolution kernels as (height, width, inputs / groups, outputs) and dense kernels as
(inputs, outputs); PyTorch has the outputs first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammodensity.anatomy.network_input import ORIGIN_PREPROCESS, PreprocessSpec
from mammodensity.errors import KerasFileError, OptionError
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.keras_match import KerasLayer, MatchedNetwork, match_network, read_graph, shortened
from mammodensity.models.network import ResidualNetwork
from mammodensity.outputs import file_sha256
from mammodensity.terms import Projection

if TYPE_CHECKING:
    import h5py

_KERAS_NAMES = {  # by class of layer: our name of each tensor, and Keras's
    "Conv2D": {"weight": "kernel", "bias": "bias"},
    "Dense": {"weight": "kernel", "bias": "bias"},
    "BatchNormalization": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
}
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def import_keras(path: Path, projection: Projection) -> Checkpoint:
    """Read a whole-model HDF5 file written by Keras and make a checkpoint of it, in evaluation mode.

    The images are prepared as the origin prepared them, at the input size of the model (650 where it leaves it open).

    Raises
    ------
    KerasFileError
        Absent, damaged, without a model, of another network (the first difference is named), or h5py is missing.
    """
    path = Path(path)
    try:
        import h5py
    except ImportError as error:
        raise KerasFileError(f"reading {path} needs h5py; install the extra mammodensity[keras]") from error
    _require_hdf5(path)
    try:
        with h5py.File(path, "r") as file:
            _require_correlation(file)
            matched = match_network(read_graph(_model_config(file)))
            network = _network(file, matched)
            training = {"source": "keras", **_origin_of(file), "file": path.name, "sha256": file_sha256(path)}
        preprocess = _preprocess(matched)
    except KerasFileError as error:
        raise KerasFileError(f"{path}: {error}") from error
    except (OSError, RuntimeError, KeyError) as error:  # what HDF5 reports of a file cut short or overwritten
        reason = shortened(str(error))
        raise KerasFileError(f"{path} is damaged or cut short ({reason}); copy it again from its source") from error
    return Checkpoint(network, projection, preprocess, training)


def _require_hdf5(path: Path) -> None:
    if not path.is_file():
        raise KerasFileError(f"{path} not found; expected a whole-model HDF5 file written by Keras")
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_HDF5_SIGNATURE))
    except OSError as error:
        raise KerasFileError(f"{path} cannot be read: {error.strerror or error}") from error
    if start.startswith(b"PK"):
        raise KerasFileError(
            f"{path} is a zip archive such as Keras 3's .keras; save the model as .h5 with Keras first"
        )
    if start != _HDF5_SIGNATURE:
        raise KerasFileError(f"{path} is no HDF5 file; expected a whole model saved by Keras as .h5")


def _model_config(file: h5py.File) -> Any:
    text = _text(file.attrs.get("model_config"))
    if text is None:
        raise KerasFileError("it holds no model_config, so weights at most; save the whole model with model.save()")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KerasFileError(f"its model_config is not JSON ({shortened(str(error))}); save the model again") from error


def _require_correlation(file: h5py.File) -> None:
    """Theano mirrored its kernels (a true convolution); Keras 2 turned them when loading under another backend."""
    if _text(file.attrs.get("backend")) == "theano":
        raise KerasFileError("it was written with Theano, whose kernels are mirrored; save it with TensorFlow first")


def _preprocess(matched: MatchedNetwork) -> PreprocessSpec:
    rows, columns = (default if size is None else size for size, default in zip(matched.size, (650, 650), strict=True))
    try:
        return replace(ORIGIN_PREPROCESS, rows=rows, columns=columns)
    except OptionError as error:
        raise KerasFileError(f"its input size cannot be used: {error}") from error


def _network(file: h5py.File, matched: MatchedNetwork) -> ResidualNetwork:
    with torch.device("meta"):  # shapes only: nothing is allocated before the file is seen to fit
        network = ResidualNetwork(matched.spec)
    wanted = network.state_dict()
    tensors = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith("num_batches_tracked")}
    groups = file.get("model_weights", file)
    for module, layer in matched.modules.items():
        datasets = _datasets(groups, layer)
        for ours, theirs in _KERAS_NAMES[layer.kind].items():
            name = f"{module}.{ours}"
            what = f"{theirs} of layer {shortened(layer.name)}"
            tensors[name] = _tensor(datasets[theirs], what, wanted[name], file.filename)
            if ours == "running_var" and tensors[name].min() < 0:
                raise KerasFileError(f"{what} has negative values; the file is damaged")
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def _datasets(groups: h5py.Group, layer: KerasLayer) -> dict[str, h5py.Dataset]:
    """The arrays of one layer by the last part of their names, without TensorFlow's ``:0``."""
    from h5py import Dataset, Group

    found: dict[str, h5py.Dataset] = {}
    group = groups.get(layer.name) if isinstance(groups, Group) else None
    if isinstance(group, Group):
        arrays = {name.rpartition("/")[2].removesuffix(":0"): group.get(name) for name in _names(group)}
        found = {name: array for name, array in arrays.items() if isinstance(array, Dataset)}
    wanted = set(_KERAS_NAMES[layer.kind].values())
    if set(found) != wanted:
        there = ", ".join(shortened(name) for name in sorted(found)) or "none"
        raise KerasFileError(
            f"weights of layer {shortened(layer.name)}: expected {', '.join(sorted(wanted))}, found {there}; "
            "save the whole model again"
        )
    return found


def _names(group: h5py.Group) -> list[str]:
    """The attribute ``weight_names``; Keras splits it into ``weight_names0``, ``weight_names1``... when it is long."""
    parts = [group.attrs.get("weight_names", [])]
    for index in count():
        if f"weight_names{index}" not in group.attrs:
            break
        parts.append(group.attrs[f"weight_names{index}"])
    return [_text(name) or "" for part in parts for name in np.atleast_1d(part)]


def _tensor(dataset: h5py.Dataset, what: str, wanted: Tensor, filename: str) -> Tensor:
    """One array as a float32 tensor with the outputs first, checked against the tensor it is ``wanted`` for."""
    shape = tuple(wanted.shape)
    expected = (*shape[2:], *shape[1::-1])  # OIHW to HWIO, (outputs, inputs) to (inputs, outputs)
    if dataset.external or dataset.is_virtual or dataset.file.filename != filename:
        raise KerasFileError(f"{what} is kept outside the file; save the model into one file")
    if dataset.shape != expected or dataset.dtype.kind != "f":
        found = f"{dataset.dtype} {dataset.shape}"
        raise KerasFileError(f"{what}: expected floating-point values of shape {expected}, found {found}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite and is refused below
        values: NDArray[np.float32] = dataset[()].astype(np.float32)
    if not np.isfinite(values).all():
        raise KerasFileError(f"{what} has values that are not finite; the training failed or the file is damaged")
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[values.ndim]
    return torch.from_numpy(np.ascontiguousarray(values.transpose(axes)))


def _origin_of(file: h5py.File) -> dict[str, Any]:
    """Who wrote the file and how the model was compiled, where it says so; JSON values only."""
    facts: dict[str, Any] = {key: _text(file.attrs.get(key)) for key in ("keras_version", "backend")}
    try:
        compiled = json.loads(_text(file.attrs.get("training_config")) or "null")
        optimizer, loss = compiled["optimizer_config"], compiled.get("loss")
        settings = optimizer["config"]
        summary = {
            "optimizer": optimizer["class_name"].rpartition(">")[2],  # tf.keras 2.15 writes "Custom>SGD"
            "learning_rate": settings.get("learning_rate", settings.get("lr")),
            "loss": loss.get("class_name") if isinstance(loss, Mapping) else loss,
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return facts  # not compiled, or in a form of its own: nothing that is needed
    facts["training_config"] = {key: value for key, value in summary.items() if _plain(value)}
    return facts


def _plain(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))


def _text(value: Any) -> str | None:
    """A text attribute: bytes from Keras 2, str from later writers, None when it is neither."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else None
