"""The calibration of a model: a calibration map and thresholds for each combination of views.

It is fitted to exams with known categories. They should not be exams of the model's training, so `find_overlap` looks
for them in the manifest of the training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from mammodensity.data.dataset import MANIFEST_NAME
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.evaluation.labels import ExamColumns, read_exam_columns
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.inputs import read_json
from mammodensity.outputs import file_sha256, receipt, write_json
from mammodensity.results.cross_validation import (
    LEAST_EXAMS,
    CalibrationFigures,
    cross_validate,
    fit_held_out,
    in_canonical_order,
    require_enough,
)
from mammodensity.results.score_calibration import (
    CalibrationMap,
    Floats,
    Positions,
    SetKind,
    fit_map,
    prediction_sets,
    thresholds,
)
from mammodensity.scores import BY_THE_NETWORK, FusionMethod, Policy, denser, fuse_views, score_problem
from mammodensity.settings import Field, settings
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory, Projection


@settings
class Overlap:
    """Number of calibration exams in each split of the manifest that the model was trained with."""

    train: int = 0
    validation: int = 0
    test: int = 0
    by_name: int = 0
    """Exams among these that were recognised by name only, as there were no images to compare."""

    @property
    def trained(self) -> int:
        """Exams that the weights or the number of epochs depend on."""
        return self.train + self.validation


def find_overlap(model: Path, labels: Path, exam_ids: Iterable[str]) -> Overlap:
    """Look for labelled exams in the manifest in a trained model's folder.

    Two exams of one name are the same exam if they share an image file (by path or by content), or if one of them has
    no image file that exists.

    Parameters
    ----------
    labels
        Table with ``exam_id`` (or ``exam``, ``row``); ``path`` names image files.

    Raises
    ------
    TableError
        A table cannot be read.
    """
    if not (model / MANIFEST_NAME).is_file():
        return Overlap()
    manifest, labelled = read_exam_columns(model / MANIFEST_NAME), read_exam_columns(labels)
    count = {"train": 0, "validation": 0, "test": 0, "by_name": 0}
    for exam_id in exam_ids:
        splits = manifest.exams.get(exam_id, {}).get("split", ())
        if not splits or splits[0] not in count:
            continue
        same = _same_image(_files(manifest, exam_id), _files(labelled, exam_id))
        if same is not False:
            count[splits[0]] += 1
            count["by_name"] += same is None
    return Overlap(**count)


def _files(table: ExamColumns, exam_id: str) -> list[Path]:
    files = [table.path.parent / text for text in table.exams.get(exam_id, {}).get("path", ())]
    return [file for file in files if file.is_file()]


def _same_image(first: list[Path], second: list[Path]) -> bool | None:
    """True when two exams share an image file; None if one of them has none."""
    if not first or not second:
        return None
    if {file.resolve() for file in first} & {file.resolve() for file in second}:
        return True
    sizes = {file.stat().st_size for file in first} & {file.stat().st_size for file in second}
    hashes = [{file_sha256(file) for file in files if file.stat().st_size in sizes} for files in (first, second)]
    return bool(hashes[0] & hashes[1])


CALIBRATION_FILE = "calibration.json"
_FORMAT = 1
Views = tuple[Projection, ...]
COMBINATIONS: tuple[Views, ...] = tuple(
    views for count in range(1, len(PROJECTIONS) + 1) for views in combinations(PROJECTIONS, count)
)
"""The fifteen combinations of views."""


@dataclass(frozen=True, eq=False)
class ViewsCalibration:
    """Calibration of the scores that are fused from one combination of views."""

    calibration_map: CalibrationMap
    held_out: Floats
    """(N, 4) scores of the labelled exams, calibrated by maps that were fitted to other exams."""
    reference: Positions
    """(N,) positions of their categories."""

    def limits(self, kind: str, coverage: float) -> Floats:
        """Threshold of each category (4,) for sets of a kind and coverage."""
        return thresholds(self.held_out, self.reference, kind, coverage)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "map": {
                "kind": self.calibration_map.kind,
                "coefficients": list(self.calibration_map.coefficients),
            },
            "held_out": np.round(self.held_out, 7).tolist(),
            "reference": "".join(CATEGORIES[index] for index in self.reference),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ViewsCalibration:
        """Read what `to_dict` gave; raise ``ValueError``, ``KeyError`` or ``OptionError`` if it is damaged."""
        held_out = np.array(content["held_out"])
        reference = np.array([DensityCategory(letter).index for letter in content["reference"]], dtype=np.intp)
        if held_out.shape != (len(reference), len(CATEGORIES)):
            raise ValueError("held-out scores and reference do not agree")
        if held_out.dtype.kind not in "fi":
            raise ValueError("held-out scores are not numbers")
        if any(score_problem(scores) for scores in held_out.tolist()):
            raise ValueError("held-out scores are not from 0 to 1 with sum 1")
        kind, coefficients = content["map"]["kind"], content["map"]["coefficients"]
        return cls(CalibrationMap(kind, tuple(coefficients)), held_out.astype(np.float64), reference)


@settings
class Calibration:
    """Calibration of a model's scores, and its prediction sets.

    Raises
    ------
    OptionError
        A setting is unknown or out of range.
    """

    views: Mapping[Views, ViewsCalibration]
    fusion: Literal[FusionMethod, "joint"] = "mean"
    policy: Policy = "mean"
    coverage: Annotated[float, Field(gt=0, lt=1)] = 0.9
    set_kind: SetKind = "ordinal"
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Cross-validated figures for all four views; empty if fewer than 20 exams have all four."""
    overlap: Overlap = Overlap()
    """Calibration exams that are in the manifest of the model's training."""

    @property
    def warnings(self) -> list[str]:
        """Warnings for the user of calibrated scores, a line each."""
        if not self.overlap.trained:
            return []
        exams = max((len(fitted.reference) for fitted in self.views.values()), default=0)
        by_name = ", by their names" if self.overlap.by_name else ""
        return [
            f"calibrated on {exams} exams, of which {self.overlap.train} trained the model and "
            f"{self.overlap.validation} chose its epochs{by_name}: the model is overconfident on such exams, so the "
            "calibrated scores and prediction sets promise too much; calibrate on exams that training never saw"
        ]

    def calibrated(self, views: Iterable[Projection], scores: Floats) -> Floats | None:
        """Calibrate scores (4,) that were fused from these views; None if the combination was not calibrated."""
        fitted = self.views.get(_sorted(views))
        return None if fitted is None else fitted.calibration_map(scores[np.newaxis])[0]

    def prediction_set(
        self, views: Iterable[Projection], calibrated: Floats, coverage: float | None = None
    ) -> tuple[DensityCategory, ...]:
        """Prediction set for calibrated scores (4,) of these views, which must have been calibrated."""
        limits = self.views[_sorted(views)].limits(self.set_kind, coverage or self.coverage)
        inside = prediction_sets(calibrated[np.newaxis], self.set_kind, limits)[0]
        return tuple(category for category in CATEGORIES if inside[category.index])


def scores_of_views(table: ScoreTable, fusion: str = "mean", policy: str = "mean") -> dict[Views, Floats]:
    """Scores (N, 4) of each combination of views in a table, with a row of NaN where an exam lacks a view.

    Scores of single views are fused anew. A joint network's are those of the table: of single views and breasts, and of
    the subject, with the views that it has.
    """
    single = {view: table.scores[view.value] for view in PROJECTIONS}
    if fusion != BY_THE_NETWORK:
        return fuse_combinations(single, fusion, policy)
    scores = {views: np.full((len(table.exam_ids), len(CATEGORIES)), np.nan) for views in COMBINATIONS}
    scores |= {(view,): of_view for view, of_view in single.items()}
    for level, complete in FUSED_LEVELS.items():
        for exam, missing in enumerate(table.missing.get(level, ((),) * len(table.exam_ids))):
            views = tuple(view for view in complete if view not in missing)
            if views:
                scores[views][exam] = table.scores[level][exam]
    if policy == "denser":
        right, left = scores[FUSED_LEVELS["right"]], scores[FUSED_LEVELS["left"]]
        scores[PROJECTIONS] = np.where(np.isnan(right + left), np.nan, denser(right, left))
    return scores


def fuse_combinations(
    scores: Mapping[Projection, Floats], fusion: str = "mean", policy: str = "mean"
) -> dict[Views, Floats]:
    """Fuse each combination of projections, (N, 4) each, with a row of NaN where an exam lacks a view."""
    combined = {}
    for views in COMBINATIONS:
        if set(views) <= set(scores):
            complete = ~np.any([np.isnan(scores[view]).any(axis=1) for view in views], axis=0)
            combined[views] = np.full((len(complete), len(CATEGORIES)), np.nan)
            if complete.any():
                present = {view: scores[view][complete] for view in views}
                combined[views][complete] = fuse_views(present, fusion, policy)
    return combined


def fit_calibration(
    scores: Mapping[Views, Floats],
    reference: Positions,
    *,
    fusion: str = "mean",
    policy: str = "mean",
    coverage: float = 0.9,
    set_kind: str = "ordinal",
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Calibrate each combination of views that at least 20 exams of two or more categories have.

    The result does not depend on the order of the exams.

    Parameters
    ----------
    scores
        (N, 4) for each combination of views, as `scores_of_views` and `fuse_combinations` give them.
    reference
        (N,) positions of the reference categories.
    fusion, policy
        How the scores were fused; kept with the calibration.

    Raises
    ------
    TableError
        No combination of views has 20 exams, or they are all of one category.
    OptionError
        A setting is unknown or out of range.
    """
    chosen: dict[str, Any] = {"fusion": fusion, "policy": policy, "coverage": coverage, "set_kind": set_kind}
    Calibration({}, **chosen)  # refuses wrong settings before any work
    fitted: dict[Views, ViewsCalibration] = {}
    figures: CalibrationFigures | None = None
    most = reference[:0]
    for done, (views, fused) in enumerate(scores.items(), start=1):
        complete = ~np.isnan(fused).any(axis=1)
        categories = reference[complete]
        most = max(most, categories, key=len)
        if len(categories) >= LEAST_EXAMS and len(set(categories.tolist())) > 1:
            ordered, categories = in_canonical_order(fused[complete], categories)
            held_out = fit_held_out(ordered, categories, np.random.default_rng(seed))
            calibration_map = fit_map(held_out.kind, ordered, categories)
            fitted[views] = ViewsCalibration(calibration_map, held_out.scores, categories)
            if len(views) == len(PROJECTIONS):
                figures = cross_validate(ordered, categories, coverages=sorted({0.8, 0.9, 0.95, coverage}), seed=seed)
        if progress:
            progress(done, len(scores))
    if not fitted:
        require_enough(most)
    return Calibration(fitted, **chosen, figures=figures.to_dict() if figures else {})


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write ``calibration.json`` into a model folder, with the hashes of the model's files."""
    path = Path(folder) / CALIBRATION_FILE
    content = {
        "note": RESEARCH_USE_ONLY,
        "format": _FORMAT,
        **{name: getattr(calibration, name) for name in _SETTINGS},
        "model": _hashes(folder),
        "exams_of_training": asdict(calibration.overlap),
        "figures": dict(calibration.figures),
        "views": [{"views": list(views), **fitted.to_dict()} for views, fitted in calibration.views.items()],
        "receipt": receipt("calibrate"),
    }
    write_json(path, content)
    return path


def read_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of a model folder; None if there is none.

    Raises
    ------
    CheckpointError
        The file is damaged, or of a later format, or the model has changed since.
    """
    path = Path(folder) / CALIBRATION_FILE
    if not os.path.lexists(path):  # a pipe or a link to nothing is refused: scores must not go uncalibrated in silence
        return None
    try:
        content = read_json(path)
        if content["format"] != _FORMAT:
            raise CheckpointError(f"{path} has format {content['format']}, expected {_FORMAT}; calibrate again")
        calibration = _calibration(content)
        _require_same_model(path, content.get("model", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}); calibrate again") from error
    return calibration


_SETTINGS = ("fusion", "policy", "coverage", "set_kind")


def _calibration(content: Mapping[str, Any]) -> Calibration:
    views = {
        _sorted(Projection(name) for name in entry["views"]): ViewsCalibration.from_dict(entry)
        for entry in content["views"]
    }
    if not views:
        raise ValueError("no combination of views")
    overlap = Overlap(**content.get("exams_of_training", {}))
    return Calibration(views, **{name: content[name] for name in (*_SETTINGS, "figures")}, overlap=overlap)


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that the scores depend on."""
    from mammodensity.models.trained import model_hashes  # imports torch

    return {name: value for name, value in model_hashes(folder).items() if name != CALIBRATION_FILE}


def _require_same_model(path: Path, made_for: Mapping[str, str]) -> None:
    """Raise ``CheckpointError`` if a file of the model has changed; calibrations of version 0.1 have no hashes."""
    hashes = _hashes(path.parent) if made_for else {}
    changed = [name for name, value in made_for.items() if hashes.get(name) != value]
    if changed:
        raise CheckpointError(
            f"{path} was made for scores of another model: {changed[0]} has changed since; calibrate again with the "
            "predictions of this model, or remove the file"
        )


def _sorted(views: Iterable[Projection]) -> Views:
    present = set(views)
    return tuple(view for view in PROJECTIONS if view in present)
