"""A network as a MONAI bundle: a folder that ``python -m monai.bundle run`` can run on an image or an exam.

The bundle reads and preprocesses with this package, as a second implementation of the preprocessing would differ.

References
----------
MONAI Bundle Specification (docs.monai.io).
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.models.checkpoint import Checkpoint, JointCheckpoint
from mammodensity.models.network import NetworkSpec
from mammodensity.models.onnx import require_packages
from mammodensity.outputs import write_bytes, write_json
from mammodensity.terms import CATEGORIES, PROJECTIONS, RESEARCH_USE_ONLY

_FRAMEWORKS = {"monai": "monai", "pytorch": "torch", "numpy": "numpy"}
_README = """# {name}

{note}

{description} The network was exported by mammodensity {version}; how it was trained is in the model folder it comes
from. In this folder, with `mammodensity[monai]` installed:

    python -m monai.bundle run --meta_file configs/metadata.json --config_file configs/inference.json {example}
"""


@dataclass(frozen=True)
class _Subject:
    """The parts in which the bundles of one projection and of whole exams differ."""

    name: str
    description: str
    example: str
    """Option that names the image or exam to read."""
    network: dict[str, Any]
    """Configuration of the network."""
    entries: dict[str, str]
    """Entries of the configuration: the image or exam, and the expression for ``inputs``, a tuple."""


def write_bundle(checkpoint: Checkpoint | JointCheckpoint, folder: Path) -> None:
    """Write ``configs/metadata.json``, ``configs/inference.json``, ``models/model.pt`` and ``docs/README.md``.

    Raises
    ------
    OptionError
        MONAI is not installed.
    """
    require_packages("monai", "monai")
    subject = _of_exams(checkpoint) if isinstance(checkpoint, JointCheckpoint) else _of_images(checkpoint)
    weights = io.BytesIO()
    torch.save(checkpoint.network.cpu().state_dict(), weights)
    write_bytes(folder / "models" / "model.pt", weights.getvalue())
    write_json(folder / "configs" / "metadata.json", _metadata(subject, checkpoint))
    write_json(folder / "configs" / "inference.json", _inference(subject, checkpoint.preprocess))
    facts = {"note": RESEARCH_USE_ONLY, "version": metadata.version("mammodensity"), "example": subject.example}
    text = _README.format(name=subject.name, description=subject.description, **facts)
    write_bytes(folder / "docs" / "README.md", text.encode())


def load_bundle(folder: Path) -> nn.Module:
    """The network that MONAI builds from a bundle, with its weights, in evaluation mode."""
    require_packages("monai", "monai")
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.read_meta(folder / "configs" / "metadata.json")
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network")
    assert isinstance(network, nn.Module)
    return network


def _of_images(checkpoint: Checkpoint) -> _Subject:
    spec, projection = checkpoint.network.spec, checkpoint.projection.value
    image = "read_image(pathlib.Path(@image), Projection(@projection))"
    return _Subject(
        name=f"Breast density of {projection} mammograms",
        description=f"Scores of the density categories A-D from one {projection} mammogram, DICOM or picture.",
        example="--image FILE",
        network={"_target_": "mammodensity.models.network.ResidualNetwork", "spec": _network_spec(spec)},
        entries={
            "image": "image.png",
            "projection": projection,
            "inputs": f"$(input_batch([{image}], @preprocess, {spec.channels}),)",
        },
    )


def _of_exams(checkpoint: JointCheckpoint) -> _Subject:
    joint = checkpoint.network.spec
    spec = {**asdict(joint), "_target_": "mammodensity.models.joint.JointSpec", "network": _network_spec(joint.network)}
    return _Subject(
        name="Breast density of screening exams",
        description="Scores of the density categories A-D from the views of one exam, a folder of DICOM files "
        f"or pictures; up to four, {', '.join(PROJECTIONS)}.",
        example="--exam FOLDER",
        network={"_target_": "mammodensity.models.joint.JointNetwork", "spec": spec},
        entries={
            "exam": "exam",
            "inputs": f"$exam_batch(read_exam(pathlib.Path(@exam)), @preprocess, {joint.channels})",
        },
    )


def _network_spec(spec: NetworkSpec) -> dict[str, Any]:
    return {"_target_": "mammodensity.models.network.NetworkSpec", **asdict(spec)}


def _inference(subject: _Subject, preprocess: PreprocessSpec) -> dict[str, Any]:
    """The configuration to run: entries that begin with ``$`` are expressions, ``@`` names another entry."""
    return {
        "imports": [
            "$import json",
            "$import pathlib",
            "$import torch",
            "$from mammodensity.models.batch import exam_batch",
            "$from mammodensity.models.batch import input_batch",
            "$from mammodensity.data.images import read_exam",
            "$from mammodensity.data.images import read_image",
            "$from mammodensity.terms import Projection",
        ],
        "bundle_root": ".",
        **subject.entries,
        "network_def": subject.network,
        "weights": "$torch.load(pathlib.Path(@bundle_root) / 'models' / 'model.pt', weights_only=True)",
        "network": "$(@network_def.load_state_dict(@weights), @network_def.eval())[1]",
        "preprocess": {"_target_": "mammodensity.anatomy.network_input.PreprocessSpec", **asdict(preprocess)},
        "scores": "$torch.softmax(@network(*@inputs).detach(), 1)[0].tolist()",
        "result": f"$dict(zip({''.join(CATEGORIES)!r}, @scores), note={RESEARCH_USE_ONLY!r})",
        "run": ["$print(json.dumps(@result))"],
    }


def _metadata(subject: _Subject, checkpoint: Checkpoint | JointCheckpoint) -> dict[str, Any]:
    def tensor(kind: str, form: str, shape: list[int], channels: list[str], **more: str) -> dict[str, Any]:
        return {
            **{"type": kind, "format": form, **more, "num_channels": len(channels), "spatial_shape": shape},
            **{"dtype": "float32", "value_range": [], "is_patch_data": False},
            "channel_def": {str(place): name for place, name in enumerate(channels)},
        }

    grey, preprocess = ["grey values, preprocessed"] * checkpoint.network.spec.channels, checkpoint.preprocess
    inputs = tensor("image", "magnitude", [preprocess.rows, preprocess.columns], grey, modality="MG")
    scores = tensor("probabilities", "classes", [], [category.value for category in CATEGORIES])
    version = metadata.version("mammodensity")
    return {
        "version": version,
        "changelog": {version: "exported"},
        **{f"{name}_version": metadata.version(package) for name, package in _FRAMEWORKS.items()},
        "required_packages_version": {"mammodensity": version},
        "name": subject.name,
        "task": "Breast density classification (BI-RADS A-D)",
        "description": subject.description,
        "intended_use": RESEARCH_USE_ONLY,
        "data_type": "DICOM, PNG, TIFF, PGM or JPEG",
        "pred_classes": "logits in the order A, B, C, D",
        "network_data_format": {"inputs": {"image": inputs}, "outputs": {"pred": scores}},
    }
