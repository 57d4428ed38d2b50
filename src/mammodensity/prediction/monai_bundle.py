"""A network as a MONAI bundle, a folder that ``python -m monai.bundle run`` can run on an image.

The bundle reads and preprocesses with this package: a second preprocessing would be another one.

References
----------
MONAI Bundle Specification (docs.monai.io).
"""

from __future__ import annotations

import io
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mammodensity.networks import Checkpoint
from mammodensity.networks.onnx_export import require_packages
from mammodensity.outputs import write_bytes, write_json
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY

_README = """# Breast density of {projection} mammograms

{note}

Categories A-D (BI-RADS) from one {projection} view. The network was exported by mammodensity {version}; how it was
trained is in the model folder it comes from. In this folder, with `mammodensity[monai]` installed, of one image (DICOM
or picture):

    python -m monai.bundle run --meta_file configs/metadata.json --config_file configs/inference.json --image FILE
"""


def write_bundle(checkpoint: Checkpoint, folder: Path) -> None:
    """Write ``configs/metadata.json``, ``configs/inference.json``, ``models/model.pt`` and ``docs/README.md``.

    Raises
    ------
    OptionError
        MONAI is not installed.
    """
    require_packages("monai", "monai")
    weights = io.BytesIO()
    torch.save(checkpoint.network.cpu().state_dict(), weights)
    write_bytes(folder / "models" / "model.pt", weights.getvalue())
    write_json(folder / "configs" / "metadata.json", _metadata(checkpoint))
    write_json(folder / "configs" / "inference.json", _inference(checkpoint))
    facts = {"projection": checkpoint.projection, "note": RESEARCH_USE_ONLY, "version": _version("mammodensity")}
    write_bytes(folder / "docs" / "README.md", _README.format(**facts).encode())


def load_bundle(folder: Path) -> nn.Module:
    """The network of a bundle, built by MONAI from its configuration, with its weights, in evaluation mode."""
    require_packages("monai", "monai")
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.read_meta(folder / "configs" / "metadata.json")
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network")
    assert isinstance(network, nn.Module)
    return network


def _inference(checkpoint: Checkpoint) -> dict[str, Any]:
    """What to run: entries that begin with ``$`` are expressions, ``@`` names another entry."""
    network = {"_target_": "mammodensity.networks.NetworkSpec", **asdict(checkpoint.network.spec)}
    spec = {"_target_": "mammodensity.preprocess.PreprocessSpec", **asdict(checkpoint.preprocess)}
    image = "read_image(pathlib.Path(@image), Projection(@projection))"
    return {
        "imports": [
            "$import json",
            "$import pathlib",
            "$import torch",
            "$from mammodensity.data import input_batch",
            "$from mammodensity.ingest import read_image",
            "$from mammodensity.terms import Projection",
        ],
        "bundle_root": ".",
        "image": "image.png",
        "projection": checkpoint.projection.value,
        "network_def": {"_target_": "mammodensity.networks.OriginNetwork", "spec": network},
        "weights": "$torch.load(pathlib.Path(@bundle_root) / 'models' / 'model.pt', weights_only=True)",
        "network": "$(@network_def.load_state_dict(@weights), @network_def.eval())[1]",
        "preprocess": spec,
        "inputs": f"$input_batch([{image}], @preprocess, {checkpoint.network.spec.channels})",
        "scores": "$torch.softmax(@network(@inputs).detach(), 1)[0].tolist()",
        "result": f"$dict(zip({''.join(CATEGORIES)!r}, @scores), note={RESEARCH_USE_ONLY!r})",
        "run": ["$print(json.dumps(@result))"],
    }


def _metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    spec, channels = checkpoint.preprocess, checkpoint.network.spec.channels
    inputs = {
        "type": "image",
        "format": "magnitude",
        "modality": "MG",
        "num_channels": channels,
        "spatial_shape": [spec.rows, spec.columns],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(channel): "grey values, preprocessed" for channel in range(channels)},
    }
    scores = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": len(CATEGORIES),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(category.index): category.value for category in CATEGORIES},
    }
    return {
        "version": _version("mammodensity"),
        "changelog": {_version("mammodensity"): "exported"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {"mammodensity": _version("mammodensity")},
        "name": f"Breast density of {checkpoint.projection} mammograms",
        "task": "Breast density classification (BI-RADS A-D)",
        "description": f"Scores of the density categories A-D from one {checkpoint.projection} mammogram.",
        "intended_use": RESEARCH_USE_ONLY,
        "data_type": "DICOM, PNG, TIFF, PGM or JPEG",
        "pred_classes": "logits in the order A, B, C, D",
        "network_data_format": {"inputs": {"image": inputs}, "outputs": {"pred": scores}},
    }


def _version(package: str) -> str:
    return metadata.version(package)
