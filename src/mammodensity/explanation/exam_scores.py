"""Scores and verdicts of the maps of an exam, how its views agree, and what a run tells of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from mammodensity.anatomy.field import bounding_box, part
from mammodensity.errors import ImageError
from mammodensity.explanation.class_activation import grad_cam
from mammodensity.explanation.map_scores import STANDARD_SCORING, ExplanationScores, ScoreSpec, score_explanation
from mammodensity.explanation.maps import TISSUE, ActivationMap, ExamMaps
from mammodensity.explanation.measures import Areas, Figures, Floats, Mask, Reasons, areas_of, rank_correlation
from mammodensity.explanation.methods import DEFAULT_METHOD, explain_images
from mammodensity.explanation.probe import Probe
from mammodensity.explanation.verdicts import Dependence, Verdict, depends_on_outside, learned, worst
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.default import TissueModel
from mammodensity.models.trained import DensityModel
from mammodensity.terms import RESEARCH_USE_ONLY, Category, Projection

Method = Callable[..., Tensor]
_FRAME = (32, 24)  # rows and columns on which views are compared
_LEAST_PX = 16


@dataclass(frozen=True, eq=False)
class MapScores:
    """The scores of one view's map, on the network's input."""

    scores: ExplanationScores | None
    """None if the map could not be scored."""
    verdict: Verdict
    values: Floats | None = None
    """(rows, columns), the map that was scored."""
    areas: Areas | None = None
    image: Floats | None = None

    def to_dict(self) -> dict[str, Any]:
        """The scores as JSON values."""
        if self.scores is None:
            return {"scores": {}, "baselines": {}, "reasons": {}, "verdict": self.verdict.to_dict()}
        return self.scores.to_dict() | {"verdict": self.verdict.to_dict()}


@dataclass(frozen=True, eq=False)
class ExamVerdict:
    """The scores of an exam's maps."""

    exam_id: str
    method: str
    views: Mapping[Projection, MapScores]
    agreement: Mapping[str, float | None]
    """Correlation of the maps of two views; None where there is no pair to compare."""
    baselines: Mapping[str, Mapping[str, float | None]]
    """The same for the bright-pixel map."""
    reasons: Mapping[str, str]
    verdict: Verdict

    @property
    def verdicts(self) -> dict[Projection, Verdict]:
        """The verdict on each map."""
        return {projection: view.verdict for projection, view in self.views.items()}

    def to_dict(self) -> dict[str, Any]:
        """The exam's values, as JSON values; those of its images are in ``views``."""
        return {
            "exam_id": self.exam_id,
            "method": self.method,
            "agreement": dict(self.agreement),
            "baselines": {name: dict(figures) for name, figures in self.baselines.items()},
            "reasons": dict(self.reasons),
            "verdict": self.verdict.to_dict(),
        }


def score_exam_maps(
    model: DensityModel | TissueModel,
    maps: ExamMaps,
    *,
    method: Method = grad_cam,
    spec: ScoreSpec = STANDARD_SCORING,
) -> ExamVerdict:
    """Score the maps of an exam.

    Parameters
    ----------
    method
        What made the maps: a function of network, images and category.
    """
    views = {}
    for projection, activation in maps.maps.items():
        if activation.against == activation.category:
            verdict = Verdict("empty", "Empty map: the category is compared with itself")
            views[projection] = MapScores(None, verdict)
            continue
        try:
            if isinstance(model, TissueModel):
                views[projection] = _tissue_scores(activation)
            else:
                views[projection] = _network_scores(model.checkpoints[projection], activation, method=method, spec=spec)
        except ImageError as error:
            text = str(error).removeprefix(f"{activation.mammogram.path}: ")
            views[projection] = MapScores(None, Verdict("not-scored", f"Not checked: {text}"))
    agreement, reasons = view_agreement({p: (v.values, v.areas) for p, v in views.items()})
    bright, lacking = view_agreement({p: (v.image, v.areas) for p, v in views.items()})
    reasons |= {f"bright.{name}": reason for name, reason in lacking.items()}
    verdict = worst({projection.value: view.verdict for projection, view in views.items()})
    return ExamVerdict(maps.exam_id, maps.method, views, agreement, {"bright": bright}, reasons, verdict)


def _network_scores(checkpoint: Checkpoint, activation: ActivationMap, *, method: Method, spec: ScoreSpec) -> MapScores:
    assert activation.view is not None and activation.on_input is not None  # as `explain_exam` makes maps
    network_input = activation.view.network_input(checkpoint.preprocess)
    labels = network_input.placement.from_image(activation.view.tissue.labels, network_input.grey.shape, labels=True)
    if not np.isin(labels, (1, 2)).any():
        raise ImageError("no breast is left in what the network is given")
    areas = areas_of(labels)
    probe = Probe(
        activation.network
        or checkpoint.network,  # a joint network's view in its exam, or else the checkpoint's network
        activation.category.index,
        method,
        centring=checkpoint.preprocess.centring,
        channels=checkpoint.network.spec.channels,
        field=network_input.placement.target,
        better_than_chance=learned(checkpoint.training),
    )
    scores = score_explanation(activation.on_input, network_input.grey, areas, probe=probe, spec=spec)
    return MapScores(scores, scores.verdict, activation.on_input, areas, network_input.grey)


def _tissue_scores(activation: ActivationMap) -> MapScores:
    """Score the default model's map, which is what it measures, for its place only."""
    assert activation.view is not None  # as `explain_exam` makes maps
    rows, columns = activation.mammogram.pixels.shape
    factor = min(1.0, 512 / max(rows, columns))
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    image, values = (
        np.asarray(Image.fromarray(pixels.astype(np.float32)).resize(size, Image.Resampling.BOX))
        for pixels in (activation.mammogram.pixels, activation.values)
    )
    labels = np.asarray(Image.fromarray(activation.view.tissue.labels).resize(size, Image.Resampling.NEAREST))
    areas = areas_of(labels)
    scores = score_explanation(values, image, Areas(areas.breast, None, areas.muscle))
    return MapScores(scores, tissue_verdict(scores), values, areas, image)


def tissue_verdict(scores: ExplanationScores) -> Verdict:
    """The verdict on the default model's map: measured, unless it is empty or lies outside the breast."""
    text = "The outline is the dense tissue that was measured; percent density and category follow from it"
    return scores.verdict if scores.verdict.code in ("empty", "outside") else Verdict("measured", text)


def view_agreement(
    views: Mapping[Projection, tuple[Floats | None, Areas | None]],
) -> tuple[Figures, Reasons]:
    """Correlate the maps of an exam's views, each in the box of its own breast, chest wall on the left.

    ``left_right_cc`` and ``left_right_mlo``: Spearman correlation of the two breasts' maps where both boxes hold
    breast. ``depth_right`` and ``depth_left``: of the maps' means by depth from the chest wall in CC and MLO, which is
    what the two views share. ``mean``: of those there are.
    """
    pairs = {
        "left_right_cc": (Projection.CC_R, Projection.CC_L),
        "left_right_mlo": (Projection.MLO_R, Projection.MLO_L),
        "depth_right": (Projection.CC_R, Projection.MLO_R),
        "depth_left": (Projection.CC_L, Projection.MLO_L),
    }
    framed = {
        projection: _framed(values, areas, projection.laterality)
        for projection, (values, areas) in views.items()
        if values is not None and areas is not None
    }
    figures: Figures = {}
    reasons: Reasons = {}
    for name, (first, second) in pairs.items():
        figures[name] = None
        if first not in framed or second not in framed:
            missing = first if first not in framed else second
            reasons[name] = f"{missing} has no scored map"
            continue
        compare = _same_place if name.startswith("left_right") else _same_depth
        figures[name] = compare(framed[first], framed[second])
        if figures[name] is None:
            reasons[name] = "one of the maps is even, or the breasts do not overlap"
    correlations = [value for value in figures.values() if value is not None]
    figures["mean"] = float(np.mean(correlations)) if correlations else None
    if not correlations:
        reasons["mean"] = "no two views can be compared"
    return figures, reasons


def _framed(values: Floats, areas: Areas, laterality: str) -> tuple[Floats, Mask]:
    """Map and breast in a common frame, chest wall on the left: as stored, it is on the right for a right breast."""
    box = bounding_box(areas.breast)
    flip = slice(None, None, -1 if _chest_on_right(areas.breast, laterality) else 1)
    size = (_FRAME[1], _FRAME[0])

    def fitted(image: Floats) -> Floats:
        turned = np.ascontiguousarray(part(image, box)[:, flip].astype(np.float32))
        return np.asarray(Image.fromarray(turned).resize(size, Image.Resampling.BOX))

    return fitted(values), fitted(areas.breast.astype(np.float32)) > 0.5


def _chest_on_right(breast: Mask, laterality: str) -> bool:
    """The chest wall is the side on which the breast is taller; where both are alike, by the convention."""
    _, left, _, width = bounding_box(breast)
    heights = breast[:, left : left + width].sum(axis=0)
    third = max(1, width // 3)
    first, last = float(heights[:third].sum()), float(heights[-third:].sum())
    return last > first if first != last else laterality == "R"


def _same_place(first: tuple[Floats, Mask], second: tuple[Floats, Mask]) -> float | None:
    both = first[1] & second[1]
    return rank_correlation(first[0], second[0], both) if both.sum() >= _LEAST_PX else None


def _same_depth(first: tuple[Floats, Mask], second: tuple[Floats, Mask]) -> float | None:
    profiles = [_profile(*view) for view in (first, second)]
    defined = np.isfinite(profiles[0]) & np.isfinite(profiles[1])
    return rank_correlation(profiles[0], profiles[1], defined)


def _profile(values: Floats, breast: Mask) -> Floats:
    """Mean of the map in each column of the breast."""
    count = breast.sum(axis=0)
    total = np.where(breast, values, 0).sum(axis=0)
    profile: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return profile


class RunScores:
    """Scores the maps of one model, keeps their figures for the file, and counts what they tell of the model.

    Parameters
    ----------
    against, layer
        What the maps were made with, as of :func:`mammodensity.explain_images`.
    """

    def __init__(
        self,
        model: DensityModel | TissueModel,
        *,
        against: Category | str | None = None,
        layer: str | None = None,
        spec: ScoreSpec = ScoreSpec(stability=False),  # noqa: B008  (frozen)
    ) -> None:
        self._model, self._spec = model, spec
        self._explain = partial(explain_images, against=against, layer=layer)
        self._images: list[dict[str, Any]] = []
        self._exams: list[dict[str, Any]] = []
        self._depends: dict[tuple[str, Projection], tuple[bool, bool | None]] = {}

    def score(self, maps: ExamMaps, names: Mapping[Projection, str]) -> ExamVerdict:
        """Score the maps of an exam by one method; ``names`` are those of its images."""
        method = DEFAULT_METHOD if maps.method == TISSUE else maps.method
        verdict = score_exam_maps(self._model, maps, method=partial(self._explain, method=method), spec=self._spec)
        for projection, activation in maps.maps.items():
            entry = {
                "image": names[projection],
                "exam_id": maps.exam_id,
                "projection": projection.value,
                "method": maps.method,
                "category": activation.category.value,
                "against": None if activation.against is None else activation.against.value,
                "score_of_category": activation.score,
            }
            scored = verdict.views[projection]
            self._images.append(entry | scored.to_dict())
            if scored.scores and scored.scores.scores.get("background_change") is not None:
                assert isinstance(self._model, DensityModel)  # the default model is not asked about changed images
                depends = bool(depends_on_outside(dict(scored.scores.scores), self._spec.rules))
                better = learned(self._model.checkpoints[projection].training)
                self._depends[maps.exam_id, projection] = depends, better
        self._exams.append(verdict.to_dict())
        return verdict

    @property
    def exams(self) -> int:
        """Number of exam maps that were scored; each method makes one for an exam."""
        return len(self._exams)

    @property
    def statement(self) -> str | None:
        """The number of images whose prediction depends on pixels outside the breast, in sentences; None for a few.

        Images of networks that do not predict better than chance are left out, unless there are no others.
        """
        useful = [depends for depends, better in self._depends.values() if better is not False]
        answers = {better for _, better in self._depends.values() if better is not False}
        better_than_chance = True if answers == {True} else None
        if self._depends and not useful:
            better_than_chance = False
        return Dependence(sum(useful), len(useful), better_than_chance).statement(self._spec.rules)

    def document(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """JSON values of ``explain --json``: scores, baselines and verdict by image; agreement and verdict by exam."""
        return {
            "note": RESEARCH_USE_ONLY,
            "rules": self._spec.rules.to_dict(),
            "replacement": self._spec.replacement,
            "model_statement": self.statement,
            "images": self._images,
            "exams": self._exams,
            "receipt": dict(receipt),
        }
