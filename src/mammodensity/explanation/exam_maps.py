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
from mammodensity.prediction import DensityModel, TissueModel
from mammodensity.preprocess import placement
from mammodensity.terms import CATEGORIES, PROJECTIONS, DensityCategory, Projection

METHODS: Mapping[str, Callable[..., Tensor]] = {"grad-cam": grad_cam}
"""Explanation methods of trained networks by name: functions of network, images, category and layer."""
DEFAULT_METHOD = "grad-cam"
TISSUE = "tissue"
"""What explains the default model: the scores of dense tissue, from which percent density and category follow."""


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
    percent_density: float | None = None
    """Where the model measures it."""


@dataclass(frozen=True, eq=False)
class ExamMaps:
    """The maps of one exam's images, which share one scale."""

    exam_id: str
    method: str
    maps: Mapping[Projection, ActivationMap]

    @property
    def scale(self) -> float:
        """The end of the exam's one colour scale: its largest map value, 0 when every map is empty; 1 for tissue."""
        if self.method == TISSUE:
            return 1.0
        return max((float(one.values.max()) for one in self.maps.values()), default=0.0)


def explain_exam(
    model: DensityModel | TissueModel,
    exam: Exam,
    *,
    method: str | None = None,
    category: DensityCategory | None = None,
    layer: str | None = None,
) -> ExamMaps:
    """Explain every image of an exam that the model has a network for.

    Parameters
    ----------
    method
        One of ``METHODS``; None is ``grad-cam``, and for the default model its tissue map, which is all it has.
    category
        The category to explain; None is what each image's own network predicts.
    layer
        Dotted name of the layer; None is the last residual block.

    Raises
    ------
    OptionError
        Unknown method or layer, or one that the default model does not have.
    ImageError
        The default model refuses an image.
    """
    if isinstance(model, TissueModel):
        _require_no_choice(method, category, layer)
        return ExamMaps(exam.exam_id, TISSUE, {p: _tissue(model, p, exam.mammograms[p]) for p in exam.mammograms})
    method = method or DEFAULT_METHOD
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


def _require_no_choice(method: str | None, category: DensityCategory | None, layer: str | None) -> None:
    if method not in (None, TISSUE) or category or layer:
        raise OptionError(
            "the default model is explained by its tissue map, which is the same for every category; "
            "leave out method, category and layer, or name a trained model"
        )


def _tissue(model: TissueModel, projection: Projection, mammogram: Mammogram) -> ActivationMap:
    found = model.find_tissue(projection, mammogram)
    scores = model.category_map.scores(found.percent_density)
    category = CATEGORIES[int(np.argmax(scores))]
    return ActivationMap(mammogram, category, scores, found.dense, found.percent_density)


def _map_of(
    checkpoint: Checkpoint, mammogram: Mammogram, method: Callable[..., Tensor], category: DensityCategory
) -> NDArray[np.float32]:
    network = checkpoint.network
    images = input_batch([mammogram], checkpoint.preprocess, network.spec.channels)
    images = images.to(network.head.weight.device, memory_format=torch.channels_last)
    values = method(network, images, category)[0].cpu().numpy()
    rows, columns = mammogram.pixels.shape
    return placement(mammogram, checkpoint.preprocess).to_image(values, (rows, columns))
