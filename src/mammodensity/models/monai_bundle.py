"""A network as a MONAI bundle: a folder that ``python -m monai.bundle run`` can run on an image or an exam.

The bundle reads and preprocesses with this package, as a second implementation of the preprocessing would differ.

References
----------
MONAI Bundle Specification and the properties of an inference bundle (docs.monai.io).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.data.images import read_exam, read_image
from mammodensity.models.batch import exam_batch, input_batch
from mammodensity.models.checkpoint import Checkpoint, JointCheckpoint
from mammodensity.models.network import NetworkSpec
from mammodensity.models.onnx import require_packages
from mammodensity.outputs import write_bytes, write_json
from mammodensity.terms import CATEGORIES, PROJECTIONS, RESEARCH_USE_ONLY, Projection

_FRAMEWORKS = {"monai": "monai", "pytorch": "torch", "numpy": "numpy"}
_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_GREY = "grey values, preprocessed"
_AUTHORS = "whoever trained the network; the model folder holds the record of the training"
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
    entries: dict[str, Any]
    """Entries of the configuration: the image or exam to read, and how (``data`` and ``preprocessing``)."""
    inputs: dict[str, Any]
    """Description of the network's inputs."""


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
    write_json(folder / "configs" / "metadata.json", _metadata(subject))
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
    return _Subject(
        name=f"Breast density of {projection} mammograms",
        description=f"Scores of the density categories A-D from one {projection} mammogram, DICOM or picture.",
        example="--image FILE",
        network={"_target_": "mammodensity.models.network.ResidualNetwork", "spec": _network_spec(spec)},
        entries={
            "image": "image.png",
            "projection": projection,
            "data": ["@image"],
            "preprocessing": _call("read_view", projection="@projection", spec="@preprocess", channels=spec.channels),
        },
        inputs={"image": _image([_GREY] * spec.channels, [checkpoint.preprocess.rows, checkpoint.preprocess.columns])},
    )


def _of_exams(checkpoint: JointCheckpoint) -> _Subject:
    joint, size = checkpoint.network.spec, [checkpoint.preprocess.rows, checkpoint.preprocess.columns]
    spec = {**asdict(joint), "_target_": "mammodensity.models.joint.JointSpec", "network": _network_spec(joint.network)}
    views = [projection.value for projection in PROJECTIONS]
    present = _tensor("tuples", "indices", views, [], dtype="bool", value_range=[0, 1])
    return _Subject(
        name="Breast density of screening exams",
        description="Scores of the density categories A-D from the views of one exam, a folder of DICOM files "
        f"or pictures; up to four, {', '.join(PROJECTIONS)}.",
        example="--exam FOLDER",
        network={"_target_": "mammodensity.models.joint.JointNetwork", "spec": spec},
        entries={
            "exam": "exam",
            "data": ["@exam"],
            "preprocessing": _call("read_views", spec="@preprocess", channels=joint.channels),
        },
        inputs={
            "image": _image([f"{view}: {_GREY}" for view in views], [joint.channels, *size]),
            "present": present,
        },
    )


def read_view(path: str, projection: str, spec: PreprocessSpec, channels: int) -> dict[str, Tensor]:
    """Read and preprocess one mammogram: ``image`` (channels, rows, columns)."""
    return {"image": input_batch([read_image(Path(path), Projection(projection))], spec, channels)[0]}


def read_views(path: str, spec: PreprocessSpec, channels: int) -> dict[str, Tensor]:
    """Read and preprocess one exam: ``image`` (views, channels, rows, columns), and which are ``present`` (views,)."""
    views, present = exam_batch(read_exam(Path(path)), spec, channels)
    return {"image": views[0], "present": present[0]}


@dataclass(frozen=True, eq=False)
class Evaluator:
    """The network and the data set that a bundle runs it on, item by item."""

    dataset: Iterable[Mapping[str, Tensor]]
    """Inputs of the network without the batch axis, in its order."""
    network: nn.Module
    inferer: Callable[..., Tensor]
    postprocessing: Callable[[Tensor], Tensor]
    device: torch.device

    def run(self) -> list[Tensor]:
        """Scores (4,) of each image or exam, A to D."""
        results = []
        for item in self.dataset:
            first, *others = (tensor[None].to(self.device) for tensor in item.values())
            with torch.inference_mode():
                results.append(self.postprocessing(self.inferer(first, self.network, *others))[0])
        return results


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    """Configuration of a function of this module that still waits for a path."""
    return {"_target_": f"{__name__}.{name}", "_mode_": "callable", **arguments}


def _network_spec(spec: NetworkSpec) -> dict[str, Any]:
    return {"_target_": "mammodensity.models.network.NetworkSpec", **asdict(spec)}


def _inference(subject: _Subject, preprocess: PreprocessSpec) -> dict[str, Any]:
    """The configuration to run: entries that begin with ``$`` are expressions, ``@`` names another entry."""
    return {
        "imports": ["$import json", "$import pathlib", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "@bundle_root",
        "device": "$torch.device('cpu')",
        **subject.entries,
        "network_def": subject.network,
        "weights": "$torch.load(pathlib.Path(@bundle_root) / 'models' / 'model.pt', weights_only=True)",
        "network": "$(@network_def.load_state_dict(@weights), @network_def.to(@device).eval())[1]",
        "preprocess": {"_target_": "mammodensity.anatomy.network_input.PreprocessSpec", **asdict(preprocess)},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": "$lambda logits: torch.softmax(logits, 1)",
        "evaluator": {
            "_target_": f"{__name__}.Evaluator",
            "dataset": "@dataset",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "device": "@device",
        },
        "result": f"$dict(zip({''.join(CATEGORIES)!r}, @evaluator.run()[0].tolist()), note={RESEARCH_USE_ONLY!r})",
        "run": ["$print(json.dumps(@result))"],
    }


def _tensor(kind: str, form: str, channels: list[str], shape: list[int], **more: Any) -> dict[str, Any]:
    """Description of a tensor: without its first axis, the batch, it has these channels, then axes of this shape."""
    return {
        **{"type": kind, "format": form, "num_channels": len(channels), "spatial_shape": shape},
        **{"dtype": "float32", "value_range": [], "is_patch_data": False},
        "channel_def": {str(place): name for place, name in enumerate(channels)},
        **more,
    }


def _image(channels: list[str], shape: list[int]) -> dict[str, Any]:
    return _tensor("image", "magnitude", channels, shape, modality="MG")


def _metadata(subject: _Subject) -> dict[str, Any]:
    categories = [category.value for category in CATEGORIES]
    version = metadata.version("mammodensity")
    return {
        "schema": _SCHEMA,
        "version": version,
        "changelog": {version: "exported"},
        **{f"{name}_version": metadata.version(package) for name, package in _FRAMEWORKS.items()},
        "required_packages_version": {"mammodensity": version},
        "name": subject.name,
        "task": "Breast density classification (BI-RADS A-D)",
        "description": subject.description,
        "authors": _AUTHORS,
        "copyright": _AUTHORS,
        "intended_use": RESEARCH_USE_ONLY,
        "data_type": "DICOM, PNG, TIFF, PGM or JPEG",
        "pred_classes": "the network gives logits, the bundle their softmax, in the order A, B, C, D",
        "network_data_format": {
            "inputs": subject.inputs,
            "outputs": {"pred": _tensor("logits", "classes", categories, [])},
            "post_processed_outputs": {"pred": _tensor("probabilities", "classes", categories, [], value_range=[0, 1])},
        },
    }
