"""Activation maps of the images of an exam, at the size of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mammodensity.anatomy.network_input import placement
from mammodensity.errors import OptionError
from mammodensity.exam import Exam, Mammogram
from mammodensity.explanation.methods import DEFAULT_METHOD, explain, require_methods
from mammodensity.models.batch import input_batch
from mammodensity.models.default import TissueModel
from mammodensity.models.trained import DensityModel, JointModel
from mammodensity.terms import CATEGORIES, PROJECTIONS, Category, Projection, Scale

TISSUE = "tissue"
"""What explains the default model: the scores of dense tissue, from which percent density and category follow."""


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """What a network looked at in one image."""

    mammogram: Mammogram
    category: Category
    """The category explained."""
    scores: NDArray[np.float64]
    """(K,) scores of the image; of the whole exam, where a joint network saw all its views."""
    values: NDArray[np.float32]
    """(H, W) map at the size of the image, unscaled."""
    percent_density: float | None = None
    """Where the model measures it."""
    against: Category | None = None
    """The category that the explained one is set against; where both are one, the map is 0."""
    network: nn.Module | None = None
    """What was explained, where it is a network."""


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
    category: Category | str | None = None,
    against: Category | str | None = None,
    layer: str | None = None,
    each: Callable[[], None] | None = None,
) -> ExamMaps:
    """Explain every image of an exam that the model has a network for.

    Of a joint network, each view is explained with the others as they are: where in this view the exam's logit comes
    from.

    Parameters
    ----------
    method
        One of ``METHODS``; None is ``grad-cam``, and for the default model its tissue map, which is all it has.
    category
        The category to explain, or its letter; None is what each image's network predicts, or a joint one of the exam.
    against
        Explain why ``category`` rather than this one.
    layer
        Dotted name of the layer; None is the last residual block.
    each
        Called after each image.

    Raises
    ------
    OptionError
        Unknown method or layer, one that the default model or the method does not have, or a category against itself.
    ImageError
        The default model refuses an image.
    """
    if isinstance(model, TissueModel):
        _require_no_choice(method, category, against, layer)
        name = TISSUE
    else:
        name = method or DEFAULT_METHOD
        require_methods([name], layer)
    maps = {}
    asked = _Question(category, against, name, layer)
    joint = _joint_views(model, exam) if isinstance(model, JointModel) else {}
    for projection in PROJECTIONS:
        if projection in exam.mammograms and projection in model.projections:
            mammogram = exam.mammograms[projection]
            if isinstance(model, TissueModel):
                maps[projection] = _tissue(model, projection, mammogram)
            elif projection in joint:
                maps[projection] = _map_of(model, projection, mammogram, joint[projection], asked)
            else:
                scores = model.score_images(projection, [mammogram])[0]
                network = model.checkpoints[projection].network
                maps[projection] = _map_of(model, projection, mammogram, (network, scores), asked)
            if each:
                each()
    return ExamMaps(exam.exam_id, name, maps)


def _require_no_choice(method: str | None, *others: object) -> None:
    if method not in (None, TISSUE) or any(others):
        raise OptionError(
            "the default model is explained by its tissue map, which is the same for every category; "
            "leave out method, category, against and layer, or name a trained model"
        )


def _tissue(model: TissueModel, projection: Projection, mammogram: Mammogram) -> ActivationMap:
    found = model.find_tissue(projection, mammogram)
    scores = model.category_map.scores(found.percent_density)
    category = CATEGORIES[int(np.argmax(scores))]
    return ActivationMap(mammogram, category, scores, found.dense, found.percent_density)


@dataclass(frozen=True)
class _Question:
    """What is to be explained, and how."""

    category: Category | str | None
    against: Category | str | None
    method: str
    layer: str | None


def _joint_views(model: JointModel, exam: Exam) -> dict[Projection, tuple[nn.Module, NDArray[np.float64]]]:
    """For each view of an exam the network of it with the others as they are, and the exam's scores."""
    images = {view: exam.mammograms[view] for view in PROJECTIONS if view in exam.mammograms}
    features = {view: model.features_of(view, image) for view, image in images.items()}
    return {view: (model.view_of(view, features), model.scores_of(features)) for view in images}


def _map_of(
    model: DensityModel,
    projection: Projection,
    mammogram: Mammogram,
    answering: tuple[nn.Module, NDArray[np.float64]],
    asked: _Question,
) -> ActivationMap:
    network, scores = answering
    checkpoint = model.checkpoints[projection]
    scale = checkpoint.scale
    chosen = _on_scale(asked.category, scale) or scale[int(np.argmax(scores))]
    against = _on_scale(asked.against, scale)
    rows, columns = mammogram.pixels.shape
    if asked.category is None and chosen == against:
        empty = np.zeros((rows, columns), np.float32)
        return ActivationMap(mammogram, chosen, scores, empty, against=against, network=network)
    images = input_batch([mammogram], checkpoint.preprocess, checkpoint.network.spec.channels)
    images = images.to(model.device, memory_format=torch.channels_last)
    maps = explain(network, images, chosen, method=asked.method, against=against, layer=asked.layer)
    on_image = placement(mammogram, checkpoint.preprocess).to_image(maps[0].cpu().numpy(), (rows, columns))
    return ActivationMap(mammogram, chosen, scores, on_image, against=against, network=network)


def _on_scale(category: str | None, scale: Scale) -> Category | None:
    """The network's category with the letter asked for."""
    if category is None:
        return None
    own = scale.named(category)
    if own is None:
        raise OptionError(f"the network's categories are {scale}. Got {category} instead.")
    return own
