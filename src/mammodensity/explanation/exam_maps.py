"""Activation maps of the images of an exam, at the size of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammodensity.data import input_batch
from mammodensity.errors import OptionError
from mammodensity.exam import Exam, Mammogram
from mammodensity.explanation.grad_cam import grad_cam
from mammodensity.networks import Checkpoint
from mammodensity.prediction import DensityModel
from mammodensity.preprocess import placement
from mammodensity.terms import CATEGORIES, PROJECTIONS, DensityCategory, Projection

METHODS: Mapping[str, Callable[..., Tensor]] = {"grad-cam": grad_cam}
"""Explanation methods by name: functions of network, images, category and layer."""
DEFAULT_METHOD = "grad-cam"


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """What a network looked at in one image."""

    mammogram: Mammogram
    category: DensityCategory
    """The category explained."""
    scores: NDArray[np.float64]
    """(4,) scores of the image."""
    values: NDArray[np.float32]
    """(H, W) map at the size of the image, unscaled."""


@dataclass(frozen=True, eq=False)
class ExamMaps:
    """The maps of one exam's images, which share one scale."""

    exam_id: str
    method: str
    maps: Mapping[Projection, ActivationMap]

    @property
    def scale(self) -> float:
        """The largest map value in the exam: the end of its one colour scale; 0 when every map is empty."""
        return max((float(one.values.max()) for one in self.maps.values()), default=0.0)


def explain_exam(
    model: DensityModel,
    exam: Exam,
    *,
    method: str = DEFAULT_METHOD,
    category: DensityCategory | None = None,
    layer: str | None = None,
) -> ExamMaps:
    """Explain every image of an exam that the model has a network for.

    Parameters
    ----------
    category
        The category to explain; None is what each image's own network predicts.
    layer
        Dotted name of the layer; None is the last residual block.

    Raises
    ------
    OptionError
        Unknown method or layer.
    """
    if method not in METHODS:
        raise OptionError(f"method must be one of {', '.join(METHODS)}. Got {method!r} instead.")
    maps = {}
    for projection in PROJECTIONS:
        if projection in exam.mammograms and projection in model.checkpoints:
            mammogram = exam.mammograms[projection]
            scores = model.score_images(projection, [mammogram])[0]
            chosen = category or CATEGORIES[int(np.argmax(scores))]
            values = _map_of(model.checkpoints[projection], mammogram, partial(METHODS[method], layer=layer), chosen)
            maps[projection] = ActivationMap(mammogram, chosen, scores, values)
    return ExamMaps(exam.exam_id, method, maps)


def _map_of(
    checkpoint: Checkpoint, mammogram: Mammogram, method: Callable[..., Tensor], category: DensityCategory
) -> NDArray[np.float32]:
    network = checkpoint.network
    images = input_batch([mammogram], checkpoint.preprocess, network.spec.channels)
    images = images.to(network.head.weight.device, memory_format=torch.channels_last)
    values = method(network, images, category)[0].cpu().numpy()
    rows, columns = mammogram.pixels.shape
    return placement(mammogram, checkpoint.preprocess).to_image(values, (rows, columns))
