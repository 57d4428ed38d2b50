"""Whether labelled exams had a part in the training of the model that they are to calibrate.

The calibration of a model: a map and thresholds for every combination of views, fitted to labelled predictions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mammodensity.data.dataset import MANIFEST_NAME
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.evaluation.labels import ExamColumns, read_exam_columns
from mammodensity.evaluation.score_tables import ScoreTable
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
    SET_KINDS,
    CalibrationMap,
    Floats,
    Positions,
    fit_map,
    prediction_sets,
    require_coverage,
    thresholds,
)
from mammodensity.scores import BY_THE_NETWORK, FUSION_METHODS, POLICIES, denser, fuse_views
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory, Projection


@dataclass(frozen=True)
class Overlap:
    """How many of the exams of a calibration stand in each split of the model's own manifest."""

    train: int = 0
    validation: int = 0
    test: int = 0
    by_name: int = 0
    """Of these, known by name alone, as no images could be compared."""

    @property
    def trained(self) -> int:
        """Exams that weights or epochs were chosen by."""
        return self.train + self.validation

    def to_dict(self) -> dict[str, int]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Overlap:
        """The reverse of `to_dict`."""
        return cls(**{name: int(value) for name, value in content.items()})


def find_overlap(model: Path, labels: Path, exam_ids: Iterable[str]) -> Overlap:
    """Look for labelled exams in the manifest that a trained model's folder holds.

    Exams of one name are the same where an image file is (by its place or its content); where the table of labels, or
    the manifest, names no file that is there, by their name alone.

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
    known, given = read_exam_columns(model / MANIFEST_NAME), read_exam_columns(labels)
    count = {"train": 0, "validation": 0, "test": 0, "by_name": 0}
    for exam_id in exam_ids:
        splits = known.exams.get(exam_id, {}).get("split", ())
        if not splits or splits[0] not in count:
            continue
        same = _same_image(_files(known, exam_id), _files(given, exam_id))
        if same is not False:
            count[splits[0]] += 1
            count["by_name"] += same is None
    return Overlap(**count)


def _files(table: ExamColumns, exam_id: str) -> list[Path]:
    texts = table.exams.get(exam_id, {}).get("path", ())
    files = [table.path.parent / text for text in texts]
    return [file for file in files if file.is_file()]


def _same_image(first: list[Path], second: list[Path]) -> bool | None:
    """Whether any file of one exam is one of the other; None where there are none to compare."""
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
    from mammodensity.models.trained import model_hashes

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
