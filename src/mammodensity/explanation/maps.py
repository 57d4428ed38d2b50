"""Explanation maps of the views of an exam, each for the category that the result gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mammodensity.anatomy.read_view import ReadView
from mammodensity.errors import OptionError
from mammodensity.exam import Exam, Mammogram
from mammodensity.explanation.methods import DEFAULT_METHOD, explain_images, require_methods
from mammodensity.models.batch import with_channels
from mammodensity.models.default import TissueModel
from mammodensity.models.scoring import ScoredExam, score_exam
from mammodensity.models.trained import DensityModel, JointModel
from mammodensity.results.result import ExamResult, LevelResult, exam_result
from mammodensity.terms import PROJECTIONS, Category, Projection, Scale

TISSUE = "tissue"
"""The map of the default model: its scores of dense tissue, which percent density and category are computed from."""


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """The map of one view: the places that the explained category comes from."""

    mammogram: Mammogram
    category: Category
    """The category explained."""
    scores: NDArray[np.float64]
    """(K,) scores of the view; those of the whole exam where a joint network saw all its views."""
    values: NDArray[np.float32]
    """(H, W) map at the size of the image, unscaled."""
    percent_density: float | None = None
    """Per cent, where the model measures it."""
    against: Category | None = None
    """The category that the explained one is compared with; if both are the same, the map is 0."""
    network: nn.Module | None = None
    """The network that was explained; None for the default model."""
    view: ReadView | None = None
    """The image as read, with what was found in it."""
    on_input: NDArray[np.float32] | None = None
    """(rows, columns) the map on the network's input; None for the default model."""

    @property
    def score(self) -> float:
        """The score of the explained category."""
        return float(self.scores[self.category.index])

    @property
    def scores_by_letter(self) -> dict[str, float]:
        """The scores by category."""
        return dict(zip(Scale.of(len(self.scores)).letters, self.scores.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class ExamMaps:
    """The maps of one exam's views, which share one scale."""

    exam_id: str
    method: str
    maps: Mapping[Projection, ActivationMap]

    @property
    def scale(self) -> float:
        """End of the exam's one colour scale: its largest map value, 0 if every map is empty; 1 for tissue."""
        if self.method == TISSUE:
            return 1.0
        return max((float(activation.values.max()) for activation in self.maps.values()), default=0.0)


def explain_exam(
    model: DensityModel | TissueModel,
    exam: Exam | ScoredExam,
    *,
    result: ExamResult | None = None,
    method: str | None = None,
    category: Category | str | None = None,
    against: Category | str | None = None,
    layer: str | None = None,
    each: Callable[[], None] | None = None,
) -> ExamMaps:
    """Explain every view of an exam that has scores.

    With a joint network, each view is explained with the others as they are: where in this view the exam's logit comes
    from.

    Parameters
    ----------
    exam
        As scored; an exam of mammograms is scored first.
    result
        The exam's result, whose category is explained; None is the result without a calibration.
    method
        One of ``METHODS``; None is ``grad-cam``, and for the default model its tissue map, which is all it has.
    category
        The category to explain, or its letter; None is the one that the result gives the view, or with a joint network
        the exam.
    against
        Explain why ``category`` rather than this one.
    layer
        Dotted name of the layer; None is the last residual block.
    each
        Called after each view.

    Raises
    ------
    OptionError
        Unknown method or layer, one that the default model or the method does not have, or a category against itself.
    """
    if isinstance(model, TissueModel):
        _require_no_choice(method, category, against, layer)
        method = TISSUE
    else:
        method = method or DEFAULT_METHOD
        require_methods([method], layer)
    scored = score_exam(model, exam) if isinstance(exam, Exam) else exam
    result = result or exam_result(scored.scores)
    question = _Question(category, against, method, layer)
    maps = {}
    for projection in PROJECTIONS:
        if projection in scored.views:
            if isinstance(model, TissueModel):
                maps[projection] = _tissue_map(scored.views[projection], result.projections[projection])
            else:
                maps[projection] = _network_map(model, scored, result, projection, question)
            if each:
                each()
    return ExamMaps(scored.scores.exam_id, method, maps)


def _require_no_choice(method: str | None, *others: object) -> None:
    if method not in (None, TISSUE) or any(others):
        raise OptionError(
            "the default model is explained by its tissue map, which is the same for every category; "
            "leave out method, category, against and layer, or name a trained model"
        )


def _tissue_map(view: ReadView, level: LevelResult) -> ActivationMap:
    scores = np.array(list(level.scores.values()))
    return ActivationMap(
        view.mammogram, level.category, scores, view.tissue.dense, view.tissue.percent_density, view=view
    )


@dataclass(frozen=True)
class _Question:
    """The category to explain, and the method."""

    category: Category | str | None
    against: Category | str | None
    method: str
    layer: str | None


def _network_map(
    model: DensityModel, scored: ScoredExam, result: ExamResult, projection: Projection, question: _Question
) -> ActivationMap:
    view, level = scored.views[projection], result.projections[projection]
    network: nn.Module = model.checkpoints[projection].network
    if isinstance(model, JointModel) and result.exam:
        level = result.exam
        features = {
            place: view_scores.features
            for place, view_scores in scored.view_scores.items()
            if view_scores.features is not None
        }
        network = model.view_of(projection, features)
    scale = model.checkpoints[projection].scale
    category = _on_scale(question.category, scale) or level.category
    against = _on_scale(question.against, scale)
    shape = view.mammogram.pixels.shape
    checkpoint = model.checkpoints[projection]
    network_input = view.network_input(checkpoint.preprocess)
    if question.category is None and category == against:
        on_input = np.zeros(network_input.values.shape, np.float32)
    else:
        images = with_channels(torch.from_numpy(network_input.values)[None, None], checkpoint.network.spec.channels)
        images = images.to(model.device).contiguous(memory_format=torch.channels_last)
        maps = explain_images(network, images, category, method=question.method, against=against, layer=question.layer)
        on_input = maps[0].cpu().numpy()
    return ActivationMap(
        view.mammogram,
        category,
        np.array(list(level.scores.values())),
        network_input.placement.to_image(on_input, shape),
        against=against,
        network=network,
        view=view,
        on_input=on_input,
    )


def _on_scale(category: str | None, scale: Scale) -> Category | None:
    """The network's category with the letter asked for."""
    if category is None:
        return None
    named = scale.named(category)
    if named is None:
        raise OptionError(f"the network's categories are {scale}. Got {category} instead.")
    return named
