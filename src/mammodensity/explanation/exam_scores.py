"""Scores and verdicts of the maps of an exam, and how its four views agree.

The scores of a whole run of ``explain``: what its networks depend on first, then exam after exam, then the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mammodensity.anatomy.field import bounding_box, part
from mammodensity.anatomy.network_input import placement, preprocess
from mammodensity.anatomy.tissue import TissueMap, find_tissue
from mammodensity.data.dataset import ImageRecord
from mammodensity.data.images import load_exam
from mammodensity.errors import ImageError
from mammodensity.exam import Exam, Mammogram
from mammodensity.explanation.changes import outside_changes
from mammodensity.explanation.class_activation import grad_cam
from mammodensity.explanation.map_scores import STANDARD_SCORING, ExplanationScores, ScoreSpec, score_explanation
from mammodensity.explanation.maps import TISSUE, ActivationMap, ExamMaps
from mammodensity.explanation.measures import Areas, Figures, Floats, Mask, Reasons, areas_of, rank_correlation
from mammodensity.explanation.methods import DEFAULT_METHOD, explain
from mammodensity.explanation.probe import Probe
from mammodensity.explanation.verdicts import Dependence, Verdict, VerdictRules, depends_on_outside, worst
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.default import TissueModel
from mammodensity.models.trained import DensityModel
from mammodensity.terms import RESEARCH_USE_ONLY, Category, Projection

Method = Callable[..., Tensor]
_FRAME = (32, 24)  # rows and columns on which views are compared
_LEAST_PX = 16


@dataclass(frozen=True, eq=False)
class ViewScores:
    """The scores of one image's map, on the network's input."""

    found: ExplanationScores | None
    """None where the image could not be scored."""
    verdict: Verdict
    values: Floats | None = None
    """(rows, columns), the map that was scored."""
    areas: Areas | None = None
    image: Floats | None = None
    tissue: TissueMap | None = None
    """What was found in the image, at its own size."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        if self.found is None:
            return {"scores": {}, "baselines": {}, "reasons": {}, "verdict": self.verdict.to_dict()}
        return self.found.to_dict() | {"verdict": self.verdict.to_dict()}


@dataclass(frozen=True, eq=False)
class ExamVerdict:
    """The scores of an exam's maps."""

    exam_id: str
    method: str
    views: Mapping[Projection, ViewScores]
    agreement: Mapping[str, float | None]
    """How alike the views are; None where there is no pair to compare."""
    baselines: Mapping[str, Mapping[str, float | None]]
    """The same for the bright-pixel map."""
    reasons: Mapping[str, str]
    verdict: Verdict

    @property
    def verdicts(self) -> dict[Projection, Verdict]:
        """Of each map."""
        return {projection: view.verdict for projection, view in self.views.items()}

    @property
    def labels(self) -> dict[Projection, NDArray[np.uint8]]:
        """(H, W) labels of each image in which a breast was found, at its own size."""
        return {p: view.tissue.labels for p, view in self.views.items() if view.tissue is not None}

    def to_dict(self) -> dict[str, Any]:
        """The exam's own values, as JSON values; those of its images are in ``views``."""
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
    dependence: Mapping[Projection, Dependence] | None = None,
    spec: ScoreSpec = STANDARD_SCORING,
) -> ExamVerdict:
    """Score the maps of an exam.

    Parameters
    ----------
    method
        What made the maps: a function of network, images and category.
    dependence
        Of each projection's network on what lies outside the breast; see :func:`find_dependence`.
    """
    views = {}
    for projection, one in maps.maps.items():
        if one.against == one.category:
            views[projection] = ViewScores(
                None, Verdict("empty", "the map is empty: nothing to set the category against")
            )
            continue
        try:
            if isinstance(model, TissueModel):
                views[projection] = _tissue_scores(one, projection)
            else:
                known = (dependence or {}).get(projection)
                checkpoint = model.checkpoints[projection]
                views[projection] = _network_scores(
                    checkpoint, one, projection, method=method, dependence=known, spec=spec
                )
        except ImageError as error:
            name = one.mammogram.path
            text = str(error).removeprefix(f"{name}: ")
            views[projection] = ViewScores(None, Verdict("not-scored", f"not scored: {text}"))
    agreement, reasons = view_agreement({p: (v.values, v.areas) for p, v in views.items()})
    bright, lacking = view_agreement({p: (v.image, v.areas) for p, v in views.items()})
    reasons |= {f"bright.{name}": reason for name, reason in lacking.items()}
    verdict = worst({projection.value: one.verdict for projection, one in views.items()})
    return ExamVerdict(maps.exam_id, maps.method, views, agreement, {"bright": bright}, reasons, verdict)


def _network_scores(
    checkpoint: Checkpoint,
    one: ActivationMap,
    projection: Projection,
    *,
    method: Method,
    dependence: Dependence | None,
    spec: ScoreSpec,
) -> ViewScores:
    image, areas, tissue = _network_view(checkpoint, one.mammogram, projection)
    place = placement(one.mammogram, checkpoint.preprocess)
    values = place.from_image(one.values, image.shape)
    probe = _probe(checkpoint, one.category.index, method, one.network)
    found = score_explanation(values, image, areas, probe=probe, dependence=dependence, spec=spec)
    return ViewScores(found, found.verdict, values, areas, image, tissue)


def _probe(checkpoint: Checkpoint, category: int, method: Method = grad_cam, network: nn.Module | None = None) -> Probe:
    """Of the checkpoint's network, or of ``network``: the same view of an exam in which a joint network saw others."""
    own = checkpoint.network
    return Probe(network or own, category, method, checkpoint.preprocess.centring, own.spec.channels)


def _network_view(
    checkpoint: Checkpoint, mammogram: Mammogram, projection: Projection
) -> tuple[Floats, Areas, TissueMap]:
    """What the network is given of a mammogram before it is centred, and the areas in it."""
    spec = checkpoint.preprocess
    tissue = find_tissue(replace(mammogram, projection=projection))
    image = preprocess(mammogram, replace(spec, centring="none"))
    placed = placement(mammogram, spec).from_image(tissue.labels, image.shape, labels=True)
    if not np.isin(placed, (1, 2)).any():
        raise ImageError("no breast is left in what the network is given")
    return image, areas_of(placed), tissue


def _tissue_scores(one: ActivationMap, projection: Projection) -> ViewScores:
    """Of the default model's map, which is what it measures: scored for its place only."""
    found: TissueMap = find_tissue(replace(one.mammogram, projection=projection))
    rows, columns = one.mammogram.pixels.shape
    factor = min(1.0, 512 / max(rows, columns))
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    image = np.asarray(Image.fromarray(one.mammogram.pixels.astype(np.float32)).resize(size))
    values = np.asarray(Image.fromarray(one.values).resize(size))
    areas = areas_of(np.asarray(Image.fromarray(found.labels).resize(size, Image.Resampling.NEAREST)))
    scored = score_explanation(values, image, Areas(areas.breast, None, areas.muscle))
    return ViewScores(scored, tissue_verdict(scored), values, areas, image, found)


def tissue_verdict(scored: ExplanationScores) -> Verdict:
    """On the default model's map: what was measured, unless it is empty or lies outside the breast."""
    text = "the map is the dense tissue that was measured, from which the category follows"
    return scored.verdict if scored.verdict.code in ("empty", "outside") else Verdict("measured", text)


def find_dependence(
    model: DensityModel | TissueModel, exams: Iterable[Exam], rules: VerdictRules
) -> dict[Projection, Dependence]:
    """In how many images of some exams each network's answer depends on what lies outside the breast.

    Images without a breast, and those the network has no projection for, are passed over.
    """
    if isinstance(model, TissueModel):
        return {}
    counts = {projection: [0, 0] for projection in model.checkpoints}
    for exam in exams:
        for projection, mammogram in exam.mammograms.items():
            if projection not in counts:
                continue
            checkpoint = model.checkpoints[projection]
            try:
                image, areas, _ = _network_view(checkpoint, mammogram, projection)
            except ImageError:
                continue
            figures, _ = outside_changes(image, areas, _probe(checkpoint, 0))
            counts[projection][0] += bool(depends_on_outside(figures, rules))
            counts[projection][1] += 1
    return {projection: Dependence(changed, images) for projection, (changed, images) in counts.items() if images}


def view_agreement(
    views: Mapping[Projection, tuple[Floats | None, Areas | None]],
) -> tuple[Figures, Reasons]:
    """How alike the maps of an exam's views are, each in the box of its own breast, chest wall on the left.

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
    known = [value for value in figures.values() if value is not None]
    figures["mean"] = float(np.mean(known)) if known else None
    if not known:
        reasons["mean"] = "no two views can be compared"
    return figures, reasons


def _framed(values: Floats, areas: Areas, laterality: str) -> tuple[Floats, Mask]:
    """Map and breast in a common frame, chest wall on the left: as stored, it is on the right for a right breast."""
    box = bounding_box(areas.breast)
    flip = slice(None, None, -1 if _chest_on_right(areas.breast, laterality) else 1)
    size = (_FRAME[1], _FRAME[0])

    def fitted(one: Floats) -> Floats:
        turned = np.ascontiguousarray(part(one, box)[:, flip].astype(np.float32))
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
    profiles = [_profile(*one) for one in (first, second)]
    known = np.isfinite(profiles[0]) & np.isfinite(profiles[1])
    return rank_correlation(profiles[0], profiles[1], known)


def _profile(values: Floats, breast: Mask) -> Floats:
    """Mean of the map in each column of the breast."""
    count = breast.sum(axis=0)
    total = np.where(breast, values, 0).sum(axis=0)
    profile: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return profile


_SAMPLED = 12  # exams on which a network's dependence on the background is measured first


class RunScores:
    """Scores the maps of one model, and keeps what is told of them.

    Parameters
    ----------
    exams
        All of the run; some of them, evenly spaced, show what the networks depend on.
    against, layer
        What the maps were made with, as of :func:`mammodensity.explain`.
    """

    def __init__(
        self,
        model: DensityModel | TissueModel,
        exams: Mapping[str, Mapping[Projection, ImageRecord]],
        *,
        against: Category | str | None = None,
        layer: str | None = None,
        spec: ScoreSpec = ScoreSpec(stability=False),  # noqa: B008  (frozen)
    ) -> None:
        self._model, self._spec = model, spec
        self._explain = partial(explain, against=against, layer=layer)
        self._dependence = find_dependence(model, _sampled(exams), spec.rules)
        self._images: list[dict[str, Any]] = []
        self._exams: list[dict[str, Any]] = []

    def score(self, maps: ExamMaps, names: Mapping[Projection, str]) -> ExamVerdict:
        """Score the maps of an exam by one method; ``names`` are those of its images."""
        method = DEFAULT_METHOD if maps.method == TISSUE else maps.method
        found = score_exam_maps(
            self._model,
            maps,
            method=partial(self._explain, method=method),
            dependence=self._dependence,
            spec=self._spec,
        )
        for projection, one in maps.maps.items():
            entry = {
                "image": names[projection],
                "exam_id": maps.exam_id,
                "projection": projection.value,
                "method": maps.method,
                "category": one.category.value,
                "against": None if one.against is None else one.against.value,
                "score_of_category": float(one.scores[one.category.index]),
            }
            self._images.append(entry | found.views[projection].to_dict())
        self._exams.append(found.to_dict())
        return found

    def document(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """What ``explain --json`` writes: scores, baselines and verdict by image; agreement and verdict by exam."""
        return {
            "note": RESEARCH_USE_ONLY,
            "rules": self._spec.rules.to_dict(),
            "replacement": self._spec.replacement,
            "images": self._images,
            "exams": self._exams,
            "receipt": dict(receipt),
        }


def _sampled(exams: Mapping[str, Mapping[Projection, ImageRecord]]) -> Iterator[Exam]:
    """Exams evenly spaced over a data set, one after the other: enough to see what a network depends on.

    Exams that cannot be read are passed over.
    """
    ids = list(exams)
    for place in sorted({round(index) for index in np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLED))}):
        with suppress(ImageError):
            yield load_exam(ids[place], exams[ids[place]])
