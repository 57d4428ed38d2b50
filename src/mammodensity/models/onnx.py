"""A network as an ONNX file, which other programs can run: on preprocessed images, or on whole ones.

A network of whole images includes its preprocessing, for programs that hand over images as they are. It does the same
as ``preprocess``: resizing is linear in rows and in columns, so it becomes two matrices.

References
----------
Open Neural Network Exchange, operator set 18 (onnx.ai).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from mammodensity.anatomy.network_input import PreprocessSpec, resizing_matrices
from mammodensity.errors import OptionError
from mammodensity.models.checkpoint import Checkpoint, JointCheckpoint
from mammodensity.models.joint import WholeExam
from mammodensity.terms import CATEGORIES, PROJECTIONS, RESEARCH_USE_ONLY

INPUT, PRESENT, OUTPUT = "images", "present", "logits"
WHOLE_INPUT, WHOLE_OUTPUT = "image", "scores"
WHOLE_SHAPE = (1, 1, 1024, 1024)
"""Shape of the input of a network of whole images, as density leaderboards require it."""
_OPSET = 18
_LARGEST_BATCH = 1024


def to_onnx(checkpoint: Checkpoint | JointCheckpoint) -> bytes:
    """Export a network that takes preprocessed images and gives ``logits`` (batch, 4), A-D.

    A network of one projection takes ``images`` (batch, channels, rows, columns) float32. A joint network takes
    ``images`` (batch, 4, channels, rows, columns) float32 and ``present`` (batch, 4) bool; absent views may hold
    anything finite. The batch may have any size, the images the size that the network was trained at.

    The file's metadata hold the preprocessing (``preprocess`` as JSON, ``preprocess_steps`` in words), the projection
    or the order of the views, and the categories.

    Raises
    ------
    OptionError
        The extra ``engines`` is not installed.
    """
    spec, batch = checkpoint.preprocess, torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    image = torch.zeros(checkpoint.network.spec.channels, spec.rows, spec.columns)
    network: nn.Module = checkpoint.network.cpu().eval()
    if isinstance(checkpoint, JointCheckpoint):
        network = WholeExam(checkpoint.network).eval()
        present = torch.ones(2, len(PROJECTIONS), dtype=torch.bool)
        example = {INPUT: image.repeat(*present.shape, 1, 1, 1), PRESENT: present}
        facts = {"projections": " ".join(PROJECTIONS)}
    else:
        example, facts = {INPUT: image.repeat(2, 1, 1, 1)}, {"projection": checkpoint.projection.value}
    facts |= {"preprocess": json.dumps(asdict(spec)), "preprocess_steps": preprocess_steps(spec)}
    return _exported(network, example, OUTPUT, facts, dynamic_shapes={name: {0: batch} for name in example})


def preprocess_steps(spec: PreprocessSpec) -> str:
    """The preprocessing in words, one step after the other, for whoever repeats it in another program."""
    steps = [
        {
            "full-scale": "divide grey values by the largest value of the pixel type (255, or 65535)",
            "image-range": "map the image's smallest and largest grey value to 0 and 1",
        }[spec.intensity]
    ]
    if spec.depth == "8-bit":
        steps.append("round to multiples of 1/255")
    if spec.pectoral != "leave":
        grey = {"fill": "the median grey value of the breast", "mask": "0"}[spec.pectoral]
        steps.append(f"set the pectoral muscle to {grey}")
    if spec.background == "mask":
        steps.append("set everything outside the breast to 0")
    if spec.crop == "breast":
        steps.append("crop to the bounding box of the breast")
    size = f"{spec.rows} rows and {spec.columns} columns"
    way = {
        "nearest": "nearest neighbour",
        "area": "the mean of the area under each pixel (Pillow's BOX), or bilinear in both directions (Pillow's "
        "BILINEAR) if rows or columns are enlarged",
    }[spec.interpolation]
    steps.append(
        f"resize to {size} by {way}"
        if spec.aspect == "squash"
        else f"resize by {way}, with the same factor in both directions, to fit into {size}, and centre it on 0"
    )
    if spec.centring != "none":
        steps.append("subtract the mean")
    if spec.centring == "standardise":
        steps.append("divide by the standard deviation")
    return "; ".join(steps)


def to_whole_image_onnx(checkpoint: Checkpoint) -> bytes:
    """Export a network with its preprocessing: ``image`` (1, 1, 1024, 1024) float32 to ``scores`` (1, 4), A-D.

    Grey values range from 0 (black) to 1 (white); the image is upright and of the checkpoint's projection.

    Raises
    ------
    OptionError
        The extra ``engines`` is not installed, or such a file cannot hold the preprocessing.
    """
    network = WholeImageNetwork(checkpoint, WHOLE_SHAPE[2:]).eval()
    facts = {"projection": checkpoint.projection.value, "input": "grey values from 0 (black) to 1 (white)"}
    return _exported(network, {WHOLE_INPUT: torch.zeros(WHOLE_SHAPE)}, WHOLE_OUTPUT, facts)


def _exported(
    network: nn.Module, example: dict[str, Tensor], output: str, facts: dict[str, str], dynamic_shapes: Any = None
) -> bytes:
    """The file, with ``facts`` and the usual entries in its metadata; ``example`` has the inputs by name."""
    require_packages("engines", "onnx", "onnxscript")
    with quietly(logging.getLogger("torch.onnx")):
        program = torch.onnx.export(
            network,
            tuple(example.values()),
            dynamo=True,
            input_names=list(example),
            output_names=[output],
            dynamic_shapes=dynamic_shapes,
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update({"note": RESEARCH_USE_ONLY, "categories": " ".join(CATEGORIES), **facts})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        program.save(path)
        return path.read_bytes()


class WholeImageNetwork(nn.Module):
    """Grey images (B, 1, H, W) from 0 (black) to 1 (white) to scores (B, 4) in the order A-D.

    Parameters
    ----------
    checkpoint
        The network; it is used, not copied.
    shape
        H and W.

    Raises
    ------
    OptionError
        The preprocessing finds breast or muscle first, which such a network cannot do.
    """

    to_rows: Tensor
    to_columns: Tensor

    def __init__(self, checkpoint: Checkpoint, shape: tuple[int, int]) -> None:
        super().__init__()
        spec = checkpoint.preprocess
        if spec.needs_regions:
            raise OptionError(
                f"{checkpoint.projection}: its preprocessing finds breast and muscle (crop {spec.crop}, pectoral "
                f"{spec.pectoral}, background {spec.background}), which a file of this format cannot hold; use "
                "--format onnx, or train with a recipe that leaves them"
            )
        self.network = checkpoint.network.cpu().eval()
        self.channels = checkpoint.network.spec.channels
        self.spec = spec
        rows, columns = resizing_matrices(shape, spec)
        self.register_buffer("to_rows", torch.from_numpy(rows))
        self.register_buffer("to_columns", torch.from_numpy(columns.T.copy()))

    def forward(self, images: Tensor) -> Tensor:
        values = images
        if self.spec.intensity == "image-range":
            low, high = torch.amin(values, (2, 3), keepdim=True), torch.amax(values, (2, 3), keepdim=True)
            values = (values - low) / (high - low)
        if self.spec.depth == "8-bit":
            values = torch.round(values * 255) / 255
        values = self.to_rows @ values @ self.to_columns
        if self.spec.centring != "none":
            values = values - values.mean((2, 3), keepdim=True)
        if self.spec.centring == "standardise":
            values = values / values.square().mean((2, 3), keepdim=True).sqrt().clamp(min=1e-6)
        return torch.softmax(self.network(values.expand(-1, self.channels, -1, -1)), dim=1)


def require_packages(extra: str, *names: str) -> None:
    """Raise ``OptionError`` if a package of an extra is absent."""
    from importlib.util import find_spec

    absent = [name for name in names if find_spec(name) is None]
    if absent:
        raise OptionError(
            f"{', '.join(absent)} is not installed; install the extra: pip install 'mammodensity[{extra}]'"
        )


def send_nothing() -> None:
    """Keep OpenVINO and ONNX Runtime, imported after this, from sending telemetry and leaving ids in the home folder.

    OpenVINO uses a stub if its telemetry package cannot be imported. Its messages were sent by copies of this process,
    which could wait for each other for ever.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as the import system has it
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@contextmanager
def quietly(log: logging.Logger) -> Iterator[None]:
    """Silence warnings, output and ``log``, in which a tool speaks to its own developers."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
