"""An INFN reference network, read from a whole-model HDF5 file of Keras 2.2.4, tf.keras or Keras 3.

Only h5py is needed, not Keras. Keras keeps convolution kernels as (height, width, inputs / groups, outputs) and dense
kernels as (inputs, outputs); PyTorch has the outputs first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammodensity.anatomy.network_input import INFN_PREPROCESS, PreprocessSpec
from mammodensity.errors import KerasFileError, OptionError
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.keras_match import KerasLayer, MatchedNetwork, match_network, read_graph, shortened
from mammodensity.models.network import ResidualNetwork
from mammodensity.outputs import file_sha256
from mammodensity.terms import Projection

if TYPE_CHECKING:
    import h5py

_KERNEL = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_KERAS_NAMES = {"Conv2D": _KERNEL, "Dense": _KERNEL, "BatchNormalization": _NORM}
"""By class of layer: our name of each tensor, and that of Keras."""
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def import_keras(path: Path, projection: Projection) -> Checkpoint:
    """Make a checkpoint of a whole-model HDF5 file written by Keras, in evaluation mode.

    Images are preprocessed as by INFN, at the input size of the model (650 where the model leaves it open).

    Raises
    ------
    KerasFileError
        Absent, damaged, without a model, or another network (the first difference is named); or h5py is missing.
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
            training = {"source": "keras", **_history(file), "file": path.name, "sha256": file_sha256(path)}
        preprocess = _preprocess(matched)
    except KerasFileError as error:
        raise KerasFileError(f"{path}: {error}") from error
    except (OSError, RuntimeError, KeyError) as error:  # from HDF5, for a file cut short or overwritten
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
    """Refuse files of Theano, whose kernels are mirrored; Keras 2 turned them when it loaded such a file."""
    if _text(file.attrs.get("backend")) == "theano":
        raise KerasFileError("it was written with Theano, whose kernels are mirrored; save it with TensorFlow first")


def _preprocess(matched: MatchedNetwork) -> PreprocessSpec:
    rows, columns = (650 if size is None else size for size in matched.size)
    try:
        return replace(INFN_PREPROCESS, rows=rows, columns=columns)
    except OptionError as error:
        raise KerasFileError(f"its input size cannot be used: {error}") from error


def _network(file: h5py.File, matched: MatchedNetwork) -> ResidualNetwork:
    with torch.device("meta"):  # shapes only: no memory is allocated before the file fits
        network = ResidualNetwork(matched.spec)
    wanted = network.state_dict()
    tensors = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith("num_batches_tracked")}
    groups = file.get("model_weights", file)
    for module, layer in matched.modules.items():
        datasets = _datasets(groups, layer)
        for ours, keras_name in _KERAS_NAMES[layer.kind].items():
            name = f"{module}.{ours}"
            what = f"{keras_name} of layer {shortened(layer.name)}"
            tensors[name] = _tensor(datasets[keras_name], what, wanted[name], file.filename)
            if ours == "running_var" and tensors[name].min() < 0:
                raise KerasFileError(f"{what} has negative values; the file is damaged")
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def _datasets(groups: h5py.Group, layer: KerasLayer) -> dict[str, h5py.Dataset]:
    """The arrays of one layer by the last part of their names, without TensorFlow's ``:0``."""
    from h5py import Dataset, Group

    group, arrays = groups.get(layer.name) if isinstance(groups, Group) else None, {}
    if isinstance(group, Group):
        arrays = {name.rpartition("/")[2].removesuffix(":0"): group.get(name) for name in _names(group)}
    datasets = {name: array for name, array in arrays.items() if isinstance(array, Dataset)}
    wanted = sorted(_KERAS_NAMES[layer.kind].values())
    if sorted(datasets) != wanted:
        actual = ", ".join(shortened(name) for name in sorted(datasets)) or "none"
        raise KerasFileError(
            f"weights of layer {shortened(layer.name)}: expected {', '.join(wanted)}, found {actual}; "
            "save the whole model again"
        )
    return datasets


def _names(group: h5py.Group) -> list[str]:
    """The attribute ``weight_names``; Keras splits a long one into ``weight_names0``, ``weight_names1``..."""
    numbered = takewhile(group.attrs.__contains__, (f"weight_names{index}" for index in count()))
    parts = [group.attrs.get("weight_names", []), *(group.attrs[name] for name in numbered)]
    return [_text(name) or "" for part in parts for name in np.atleast_1d(part)]


def _tensor(dataset: h5py.Dataset, what: str, wanted: Tensor, filename: str) -> Tensor:
    """One array as a float32 tensor with the outputs first, checked against the shape of the ``wanted`` tensor."""
    shape = tuple(wanted.shape)
    expected = (*shape[2:], *shape[1::-1])  # OIHW to HWIO, (outputs, inputs) to (inputs, outputs)
    if dataset.external or dataset.is_virtual or dataset.file.filename != filename:
        raise KerasFileError(f"{what} is kept outside the file; save the model into one file")
    if dataset.shape != expected or dataset.dtype.kind != "f":
        actual = f"{dataset.dtype} {dataset.shape}"
        raise KerasFileError(f"{what}: expected floating-point values of shape {expected}, found {actual}")
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused below
        values: NDArray[np.float32] = dataset[()].astype(np.float32)
    if not np.isfinite(values).all():
        raise KerasFileError(f"{what} has values that are not finite; the training failed or the file is damaged")
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[values.ndim]
    return torch.from_numpy(np.ascontiguousarray(values.transpose(axes)))


def _history(file: h5py.File) -> dict[str, Any]:
    """The program that wrote the file and how the model was compiled, where the file states it; JSON values only."""
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
        return facts  # not compiled, or in an unknown form; these facts are not needed
    facts["training_config"] = {
        key: value
        for key, value in summary.items()
        if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
    }
    return facts


def _text(value: Any) -> str | None:
    """A text attribute: bytes from Keras 2, str from later writers; None if it is neither."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else None
