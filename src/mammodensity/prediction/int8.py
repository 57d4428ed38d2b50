"""A network in 8-bit integers: ranges of its layers measured on images of its training, and the loss checked on others.

References
----------
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from mammodensity.data import load_images, with_channels
from mammodensity.errors import CheckpointError, ImageError, LayoutError, OptionError
from mammodensity.ingest import MANIFEST_NAME, SPLITS, DataSet, read_manifest
from mammodensity.networks import Checkpoint
from mammodensity.networks.onnx_export import INPUT, quietly, send_nothing

LARGEST_MEAN_DIFFERENCE = 0.02
"""Of a score from that of the network in 32 bits, over the images of the check."""
LEAST_AGREEMENT = 0.95
"""Share of the images of the check that must stay in their category."""
_IMAGES = 32

Inputs = NDArray[np.float32]
"""(B, channels, rows, columns)."""
Samples = Callable[[], tuple[Inputs, Inputs]]
"""Network inputs to measure ranges on, and others for the check."""
ToScores = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From what a network gives for B images to scores (B, 4)."""


def scores_of_logits(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores (B, 4) of logits (B, 4)."""
    scores: NDArray[np.float64] = softmax(logits.astype(np.float64), axis=1)
    return scores


def training_inputs(model: Path, checkpoint: Checkpoint) -> tuple[Inputs, Inputs]:
    """Up to 32 images that trained a network and up to 32 of its validation, as the manifest of the model names them.

    Raises
    ------
    OptionError
        There is no manifest, or its images are not there any more.
    """
    try:
        data = read_manifest(model / MANIFEST_NAME)
        measured, checked = (_images(data, split, checkpoint) for split in SPLITS[:2])
    except (LayoutError, ImageError) as error:
        raise OptionError(
            "engine openvino-int8 measures a network once on the images of its training, which the model's "
            f"{MANIFEST_NAME} names, and cannot read them: {error}; run it once where they are, or take openvino"
        ) from error
    return measured, checked


def _images(data: DataSet, split: str, checkpoint: Checkpoint) -> Inputs:
    """Evenly drawn from the exams in sorted order."""
    own = [one for one in data.records if (one.projection, one.split) == (checkpoint.projection, split)]
    if not own:
        raise LayoutError(f"no {checkpoint.projection} image in the {split} split")
    own.sort(key=lambda record: record.exam_id)
    chosen = [own[place] for place in np.unique(np.linspace(0, len(own) - 1, _IMAGES).astype(int))]
    images = load_images(chosen, checkpoint.preprocess).images
    result: Inputs = with_channels(images, checkpoint.network.spec.channels).numpy()
    return result


def quantised(network: Path, inputs: Inputs) -> bytes:
    """An ONNX file in 8-bit integers, with the ranges that the layers of ``network`` have on ``inputs``."""
    send_nothing()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(inputs)

        def get_next(self) -> dict[str, Inputs] | None:
            image = next(self.rest, None)
            return None if image is None else {INPUT: image[np.newaxis]}

    with TemporaryDirectory() as folder, quietly(logging.root):
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        quant_pre_process(network, prepared, skip_symbolic_shape=True)  # joins convolutions and batch normalisations
        quantize_static(
            prepared,
            result,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True},  # a zero point is a layer of its own in OpenVINO
            op_types_to_quantize=["Conv"],  # nearly all of the time; of the rest, runtimes disagree
        )
        return result.read_bytes()


def require_same(checkpoint: Checkpoint, found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    """Raise ``CheckpointError`` where scores (B, 4) in 8 bits are too far from those in 32."""
    difference = float(np.abs(found - expected).mean())
    agreement = float((found.argmax(1) == expected.argmax(1)).mean())
    if not (difference <= LARGEST_MEAN_DIFFERENCE and agreement >= LEAST_AGREEMENT):
        changed = int((found.argmax(1) != expected.argmax(1)).sum())
        raise CheckpointError(
            f"in 8 bits {changed} of {len(found)} validation images of {checkpoint.projection} change their category "
            f"(allowed: {1 - LEAST_AGREEMENT:.0%}) and a score differs by {difference:.4f} on average (allowed: "
            f"{LARGEST_MEAN_DIFFERENCE:g}); use --engine openvino for this model"
        )
