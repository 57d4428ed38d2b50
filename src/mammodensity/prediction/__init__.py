"""From exams to scores: trained networks, or the default model that comes with the package."""

from __future__ import annotations

from pathlib import Path

from mammodensity.devices import find_device
from mammodensity.errors import OptionError
from mammodensity.prediction.calibration import ENOUGH_EXAMS, Calibration, calibrate
from mammodensity.prediction.density_model import DensityModel
from mammodensity.prediction.joint_model import JointModel
from mammodensity.prediction.loading import load_networks
from mammodensity.prediction.parallel import predict_in_workers
from mammodensity.prediction.provenance import model_hashes, model_name
from mammodensity.prediction.scoring import Model, ViewReading, predict, require_networks, stacked_projections
from mammodensity.prediction.tissue_model import MAP_FILE, TissueModel, read_category_map, write_default_category_map

__all__ = [
    "ENOUGH_EXAMS",
    "Calibration",
    "DensityModel",
    "JointModel",
    "Model",
    "TissueModel",
    "ViewReading",
    "calibrate",
    "load_model",
    "load_networks",
    "model_hashes",
    "model_name",
    "predict",
    "predict_in_workers",
    "require_networks",
    "stacked_projections",
    "write_default_category_map",
]


def load_model(
    path: Path | str | None = None, device: str = "auto", engine: str = "torch"
) -> DensityModel | TissueModel:
    """Load the default model, or a model folder as written by ``train``, ``import-keras`` or ``calibrate``.

    Parameters
    ----------
    path
        None: the model that comes with the package. Otherwise a model folder, or the folder or file of a single
        network.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, for trained networks; the default model is small and runs on the CPU.
    engine
        What runs trained networks: ``torch``, ``onnx``, ``openvino`` or ``openvino-int8``.

    Raises
    ------
    CheckpointError
        Nothing there, or it is damaged, or a network lies in the folder of another projection.
    DeviceError
        The device is absent.
    OptionError
        The engine is unknown, not installed, or not for this model or device.
    """
    if path is not None and not (Path(path) / MAP_FILE).is_file():
        return load_networks(path, device, engine)
    if engine != "torch":
        raise OptionError("the default model runs in torch; leave --engine out, or name a trained model")
    find_device(device)  # one that is absent is an error for every model
    return TissueModel() if path is None else TissueModel(read_category_map(Path(path)))
