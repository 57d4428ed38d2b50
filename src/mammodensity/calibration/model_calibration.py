"""The calibration of a model: a map and thresholds for every combination of views, fitted to labelled predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mammodensity.calibration.conformal import (
    SET_KINDS,
    prediction_sets,
    require_coverage,
    thresholds,
)
from mammodensity.calibration.cross_validation import (
    LEAST_EXAMS,
    CalibrationFigures,
    cross_validate,
    fit_held_out,
    in_canonical_order,
    require_enough,
)
from mammodensity.calibration.maps import CalibrationMap, Floats, Positions, fit_map
from mammodensity.calibration.overlap import Overlap
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.evaluation import ScoreTable
from mammodensity.fusion import BY_THE_NETWORK, FUSION_METHODS, POLICIES, denser, fuse_views
from mammodensity.outputs import receipt, write_json
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory, Projection

CALIBRATION_FILE = "calibration.json"
_FORMAT = 1
Views = tuple[Projection, ...]
COMBINATIONS: tuple[Views, ...] = tuple(
    views for count in range(1, len(PROJECTIONS) + 1) for views in combinations(PROJECTIONS, count)
)
"""The fifteen combinations of views."""


@dataclass(frozen=True, eq=False)
class ViewsCalibration:
    """Calibration of what is fused from one combination of views."""

    calibration_map: CalibrationMap
    held_out: Floats
    """(N, 4) scores of the labelled exams, calibrated by maps that did not see them."""
    reference: Positions
    """(N,) their categories."""

    def limits(self, kind: str, coverage: float) -> Floats:
        """Threshold of each category (4,) for sets of one kind and coverage."""
        return thresholds(self.held_out, self.reference, kind, coverage)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What makes the scores of a model calibrated, and gives prediction sets.

    Raises
    ------
    OptionError
        A setting is unknown or out of range.
    """

    views: Mapping[Views, ViewsCalibration]
    fusion: str = "mean"
    policy: str = "mean"
    coverage: float = 0.9
    set_kind: str = "ordinal"
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Of all four views, by cross-validation; empty where fewer than 20 exams have all four."""
    overlap: Overlap = field(default_factory=Overlap)
    """Exams that had a part in the model's training."""

    def __post_init__(self) -> None:
        require_coverage(self.coverage)
        for name, value, known in (
            ("fusion", self.fusion, (*FUSION_METHODS, BY_THE_NETWORK)),
            ("policy", self.policy, POLICIES),
            ("set_kind", self.set_kind, SET_KINDS),
        ):
            if value not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}. Got {value!r} instead.")

    @property
    def warnings(self) -> list[str]:
        """What a user of calibrated scores must know, a line each."""
        overlap, of_all = self.overlap, max((len(one.reference) for one in self.views.values()), default=0)
        if not overlap.trained:
            return []
        known = ", by their names" if overlap.by_name else ""
        return [
            f"calibrated on {of_all} exams, of which {overlap.train} trained the model and {overlap.validation} chose "
            f"its epochs{known}: a model is surer of such exams than of new ones, so that calibrated scores and "
            "prediction sets promise too much; calibrate on exams that training never saw"
        ]

    def calibrated(self, views: Iterable[Projection], scores: Floats) -> Floats | None:
        """Calibrate scores (4,) that were fused from these views; None where the combination was not calibrated."""
        found = self.views.get(_sorted(views))
        return None if found is None else found.calibration_map(scores[np.newaxis])[0]

    def prediction_set(
        self, views: Iterable[Projection], calibrated: Floats, coverage: float | None = None
    ) -> tuple[DensityCategory, ...]:
        """Categories of the set for calibrated scores (4,) of these views, which must have been calibrated."""
        limits = self.views[_sorted(views)].limits(self.set_kind, coverage or self.coverage)
        inside = prediction_sets(calibrated[np.newaxis], self.set_kind, limits)[0]
        return tuple(category for category in CATEGORIES if inside[category.index])


def scores_of_views(table: ScoreTable, fusion: str = "mean", policy: str = "mean") -> dict[Views, Floats]:
    """Scores (N, 4) of every combination of views in a table, a row of NaN where an exam has none.

    By a method, the views' own scores are fused anew. Those of a joint network are the table's: of single views, of
    breasts, and of the subject, where it says from which views.
    """
    single = {view: table.scores[view.value] for view in PROJECTIONS}
    if fusion != BY_THE_NETWORK:
        return _fused(single, fusion, policy)
    found = {views: np.full((len(table.exam_ids), len(CATEGORIES)), np.nan) for views in COMBINATIONS}
    found |= {(view,): scores for view, scores in single.items()}
    for level, wanted in FUSED_LEVELS.items():
        for exam, missing in enumerate(table.missing.get(level, ((),) * len(table.exam_ids))):
            views = tuple(view for view in wanted if view not in missing)
            if views:
                found[views][exam] = table.scores[level][exam]
    if policy == "denser":
        right, left = found[FUSED_LEVELS["right"]], found[FUSED_LEVELS["left"]]
        found[PROJECTIONS] = np.where(np.isnan(right + left), np.nan, denser(right, left))
    return found


def _fused(scores: Mapping[Projection, Floats], fusion: str, policy: str) -> dict[Views, Floats]:
    """Scores (N, 4) of every combination of the projections there are, a row of NaN where an exam lacks a view."""
    found = {}
    for views in COMBINATIONS:
        if set(views) <= set(scores):
            lacks = np.any([np.isnan(scores[view]).any(axis=1) for view in views], axis=0)
            fused = np.full((len(lacks), len(CATEGORIES)), np.nan)
            if not lacks.all():
                fused[~lacks] = fuse_views({view: scores[view][~lacks] for view in views}, fusion, policy)
            found[views] = fused
    return found


def fit_calibration(
    scores: Mapping[Projection, Floats],
    reference: Positions,
    *,
    fused: Mapping[Views, Floats] | None = None,
    fusion: str = "mean",
    policy: str = "mean",
    coverage: float = 0.9,
    set_kind: str = "ordinal",
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Calibrate every combination of views that at least 20 exams of two categories or more have.

    The order of the exams has no influence.

    Parameters
    ----------
    scores
        (N, 4) of each projection, a row of NaN where an exam lacks it.
    fused
        The same of each combination of views, as :func:`scores_of_views` has them; None fuses ``scores``.
    reference
        (N,) positions of the reference categories.

    Raises
    ------
    TableError
        No combination of views has 20 exams, or they are all of one category.
    OptionError
        A setting is unknown or out of range.
    """
    settings: dict[str, Any] = {"fusion": fusion, "policy": policy, "coverage": coverage, "set_kind": set_kind}
    Calibration({}, **settings)  # wrong settings are told before any work
    fitted: dict[Views, ViewsCalibration] = {}
    figures: CalibrationFigures | None = None
    combined = _fused(scores, fusion, policy) if fused is None else fused
    most = reference[:0]
    for done, views in enumerate(COMBINATIONS):
        if views not in combined:
            continue
        has = ~np.isnan(combined[views]).any(axis=1)
        known = reference[has]
        most = max(most, known, key=len)
        if len(known) >= LEAST_EXAMS and len(set(known.tolist())) > 1:
            ordered, known = in_canonical_order(combined[views][has], known)
            held_out = fit_held_out(ordered, known, np.random.default_rng(seed))
            fitted[views] = ViewsCalibration(fit_map(held_out.kind, ordered, known), held_out.held_out, known)
            if len(views) == len(PROJECTIONS):
                figures = cross_validate(ordered, known, coverages=sorted({0.8, 0.9, 0.95, coverage}), seed=seed)
        if progress:
            progress(done + 1, len(COMBINATIONS))
    if not fitted:
        require_enough(most)
    return Calibration(fitted, **settings, figures=figures.to_dict() if figures else {})


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write ``calibration.json`` into a model folder, with the hashes of the model it is for."""
    path = Path(folder) / CALIBRATION_FILE
    content = {
        "note": RESEARCH_USE_ONLY,
        "format": _FORMAT,
        "fusion": calibration.fusion,
        "policy": calibration.policy,
        "coverage": calibration.coverage,
        "set_kind": calibration.set_kind,
        "model": _hashes(folder),
        "exams_of_training": calibration.overlap.to_dict(),
        "figures": dict(calibration.figures),
        "views": [
            {
                "views": list(views),
                "map": {"kind": one.calibration_map.kind, "coefficients": list(one.calibration_map.coefficients)},
                "held_out": np.round(one.held_out, 7).tolist(),
                "reference": "".join(CATEGORIES[place] for place in one.reference),
            }
            for views, one in calibration.views.items()
        ],
        "receipt": receipt("calibrate"),
    }
    write_json(path, content)
    return path


def read_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of a model folder; None where there is none.

    Raises
    ------
    CheckpointError
        The file is damaged, or of a later format, or the model was trained or fitted anew since.
    """
    path = Path(folder) / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise CheckpointError(f"{path} has format {content['format']}, expected {_FORMAT}; calibrate again")
        views = _read_all_views(content["views"])
        settings = {name: content[name] for name in ("fusion", "policy", "coverage", "set_kind", "figures")}
        _require_same_model(path, content.get("model", {}))
        overlap = Overlap.from_dict(content.get("exams_of_training", {}))
        return Calibration(views, **settings, overlap=overlap)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}); calibrate again") from error


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that make the scores; torch, which this needs, only loads here."""
    from mammodensity.prediction import model_hashes

    return {name: value for name, value in model_hashes(folder).items() if name != CALIBRATION_FILE}


def _require_same_model(path: Path, made_for: Mapping[str, str]) -> None:
    """Raise ``CheckpointError`` where a file of the model changed or went; files of 0.1 say nothing of the model."""
    found = _hashes(path.parent) if made_for else {}
    changed = [name for name, value in made_for.items() if found.get(name) != value]
    if changed:
        raise CheckpointError(
            f"{path} was made for scores of another model: {changed[0]} has changed since; calibrate again with the "
            "predictions of this model, or remove the file"
        )


def _read_all_views(content: Sequence[Mapping[str, Any]]) -> dict[Views, ViewsCalibration]:
    if not content:
        raise ValueError("no combination of views")
    return {_sorted(Projection(name) for name in one["views"]): _read_views(one) for one in content}


def _read_views(content: Mapping[str, Any]) -> ViewsCalibration:
    held_out = np.array(content["held_out"], dtype=np.float64)
    reference = np.array([DensityCategory(letter).index for letter in content["reference"]], dtype=np.intp)
    if held_out.shape != (len(reference), len(CATEGORIES)):
        raise ValueError("held-out scores and reference do not agree")
    if not ((held_out >= 0) & (held_out <= 1)).all():  # NaN compares False
        raise ValueError("held-out scores are not from 0 to 1")
    described = content["map"]
    return ViewsCalibration(
        CalibrationMap(described["kind"], tuple(float(value) for value in described["coefficients"])),
        held_out,
        reference,
    )


def _sorted(views: Iterable[Projection]) -> Views:
    present = set(views)
    return tuple(view for view in PROJECTIONS if view in present)
