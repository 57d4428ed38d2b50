"""The result of one exam: category, scores, prediction set and flags; its JSON schema, and a table of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import CheckpointError
from mammodensity.exam import Flag
from mammodensity.outputs import write_csv
from mammodensity.results.calibration import Calibration
from mammodensity.results.rules import STANDARD_RULES, Rules, find_flags
from mammodensity.scores import ExamScores, score_problem
from mammodensity.terms import (
    DENSITY,
    FUSED_LEVELS,
    LEVELS,
    PROJECTIONS,
    RESEARCH_USE_ONLY,
    Category,
    DensityCategory,
    Projection,
    Scale,
)

NOTIFICATION: dict[DensityCategory, str] = {
    DensityCategory.A: "The breasts are almost entirely fatty.",
    DensityCategory.B: "There are scattered areas of fibroglandular density.",
    DensityCategory.C: "The breasts are heterogeneously dense, which may obscure small masses.",
    DensityCategory.D: "The breasts are extremely dense, which lowers the sensitivity of mammography.",
}
"""The sentence on density that a mammography report must hold in the United States: 21 CFR 900.12(c)(1)(vi), in force
since 10 September 2024. The interpreting physician has to state it."""

SCHEMA_VERSION = "1.4"


def result_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a list of results, as ``predict --json`` writes it."""
    schema: dict[str, Any] = json.loads(files(__package__).joinpath("exam_result.schema.json").read_text("utf-8"))
    return schema


@dataclass(frozen=True)
class LevelResult:
    """Scores of one exam, breast or projection."""

    category: Category
    """The category with the highest score; the lower one on a tie."""
    scores: dict[Category, float]
    dense_probability: float
    """Sum of the scores of the dense categories: C and D, or the last of F, G and D."""
    calibrated: bool
    percent_density: float | None
    """Per cent, where the model measures it."""
    views: tuple[Projection, ...]
    """The views it was fused from."""

    @property
    def dense(self) -> bool:
        """True when the dense categories together are more probable than the others.

        The category may say otherwise; the exam then has the flag ``dense-disagrees``.
        """
        return self.dense_probability > 0.5

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "category": self.category,
            "scores": {category.value: score for category, score in self.scores.items()},
            "dense": self.dense,
            "dense_probability": self.dense_probability,
            "calibrated": self.calibrated,
            "percent_density": self.percent_density,
            "views": [view.value for view in self.views],
        }


@dataclass(frozen=True)
class PredictionSet:
    """Categories that contain the reference with the stated probability."""

    categories: tuple[DensityCategory, ...]
    coverage: float
    kind: str

    @property
    def text(self) -> str:
        """The set in words: ``B or C (90 %)``."""
        names = " or ".join(self.categories) if self.categories else "none"
        return f"{names} ({100 * self.coverage:g} %)"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        names = [category.value for category in self.categories]
        return {"categories": names, "coverage": self.coverage, "kind": self.kind, "text": self.text}


@dataclass(frozen=True)
class ExamResult:
    """The result of one exam."""

    exam_id: str
    category: Category | None
    """None where the result abstains."""
    exam: LevelResult | None
    """None where views are missing and were not allowed to be, or all were refused."""
    breasts: dict[str, LevelResult]
    projections: dict[Projection, LevelResult]
    prediction_set: PredictionSet | None
    """None without a calibration for these views."""
    flags: tuple[Flag, ...]
    abstained_for: tuple[Flag, ...]
    """The flags for which it abstains."""
    missing: tuple[Projection, ...]
    refused: dict[Projection, str]
    fusion: str
    policy: str
    calibration: str
    """How the scores were calibrated, or why they were not."""
    provenance: dict[str, Any] = field(default_factory=dict)
    sources: Mapping[Projection, Mapping[str, str]] = field(default_factory=dict)
    """File and header facts of each image, by the names in `SOURCE_FACTS`; they may identify the patient."""

    @property
    def abstained(self) -> bool:
        """True when the exam gets no category."""
        return self.category is None

    @property
    def notification(self) -> str | None:
        """The sentence of the United States rule for the category; None without a category of A to D."""
        return NOTIFICATION[self.category] if isinstance(self.category, DensityCategory) else None

    def source(self, name: str) -> str:
        """One of `SOURCE_FACTS` of all images, different ones separated by semicolons."""
        return "; ".join(dict.fromkeys(facts[name] for facts in self.sources.values() if facts[name]))

    def to_dict(self, *, notification: bool = False) -> dict[str, Any]:
        """Return plain values that follow `result_schema`."""
        breasts = {side: self.breasts.get(side) for side in ("right", "left")}
        projections = {view.value: self.projections.get(view) for view in PROJECTIONS}
        content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "note": RESEARCH_USE_ONLY,
            "exam_id": self.exam_id,
            "category": self.category,
            "most_likely": self.exam.category if self.exam else None,
            "abstained": self.abstained,
            "abstained_for": [vars(flag) for flag in self.abstained_for],
            "exam": self.exam and self.exam.to_dict(),
            "breasts": {side: level and level.to_dict() for side, level in breasts.items()},
            "projections": {view: level and level.to_dict() for view, level in projections.items()},
            "prediction_set": self.prediction_set and self.prediction_set.to_dict(),
            "flags": [vars(flag) for flag in self.flags],
            "missing": [view.value for view in self.missing],
            "refused": {view.value: text for view, text in self.refused.items()},
            "fusion": self.fusion,
            "policy": self.policy,
            "calibration": self.calibration,
            "provenance": self.provenance,
        }
        if self.sources:
            content["sources"] = {view.value: dict(facts) for view, facts in self.sources.items()}
        return content | ({"notification": self.notification} if notification else {})


def exam_result(
    exam: ExamScores,
    calibration: Calibration | None = None,
    *,
    rules: Rules = STANDARD_RULES,
    coverage: float | None = None,
    provenance: Mapping[str, Any] | None = None,
    sources: Mapping[Projection, Mapping[str, str]] | None = None,
) -> ExamResult:
    """Make the result of an exam from its scores.

    Parameters
    ----------
    calibration
        The model's calibration; without it the scores stay raw and there is no prediction set.
    coverage
        Coverage of the prediction set; None is that of the calibration.
    sources
        File and header facts of each image, where results are to name them.

    Raises
    ------
    CheckpointError
        The calibration was fitted to scores of another fusion or policy.
    """
    if calibration is not None:
        require_same_fusion(calibration, exam.fusion, exam.policy)
    levels: dict[str, LevelResult] = {}
    for projection, projection_scores in exam.projections.items():
        levels[projection] = _level(exam, projection, np.asarray(projection_scores, np.float64), calibration)
    for name, fused in exam.fused.items():
        if fused.scores is not None:
            levels[name] = _level(exam, name, fused.scores, calibration)
    whole = levels.get("subject")
    scores = {name: np.array(list(level.scores.values())) for name, level in levels.items()}
    prediction_set = None
    if calibration and whole and whole.calibrated:
        categories = calibration.prediction_set(whole.views, scores["subject"], coverage)
        prediction_set = PredictionSet(categories, coverage or calibration.coverage, calibration.set_kind)
    flags = find_flags(exam, scores, prediction_set.categories if prediction_set else None, rules)
    reasons = tuple(flag for flag in flags if flag.code in rules.abstain_on)
    return ExamResult(
        exam_id=exam.exam_id,
        category=whole.category if whole and not reasons else None,
        exam=whole,
        breasts={side: levels[side] for side in ("right", "left") if side in levels},
        projections={view: levels[view] for view in PROJECTIONS if view in levels},
        prediction_set=prediction_set,
        flags=flags,
        abstained_for=reasons,
        missing=exam.fused["subject"].missing,
        refused=dict(exam.refused),
        fusion=exam.fusion,
        policy=exam.policy,
        calibration=_calibration_text(calibration, whole),
        provenance=dict(provenance or {}),
        sources=sources or {},
    )


def require_same_fusion(calibration: Calibration, fusion: str, policy: str) -> None:
    """Raise ``CheckpointError`` unless the calibration was fitted to scores of this fusion and policy."""
    for name, used, expected in (("fusion", fusion, calibration.fusion), ("policy", policy, calibration.policy)):
        if used != expected:
            raise CheckpointError(
                f"the model was calibrated with {name} {expected}, not {used}; leave --{name} out, or calibrate again"
            )


def _level(exam: ExamScores, name: str, raw: NDArray[np.float64], calibration: Calibration | None) -> LevelResult:
    views = exam.fused[name].views if name in FUSED_LEVELS else (Projection(name),)
    calibrated = calibration.calibrated(views, raw) if calibration else None
    values = raw if calibrated is None else calibrated
    scores = {category: float(values[category.index]) for category in exam.scale}
    if problem := score_problem(list(scores.values())):
        raise CheckpointError(f"exam {exam.exam_id}, {name}: {problem}; calibrate again, or restore the model")
    dense = sum(score for category, score in scores.items() if category.dense)
    return LevelResult(
        category=exam.scale[int(np.argmax(values))],
        scores=scores,
        dense_probability=min(1.0, dense),  # two rounded numbers may sum to a bit more
        calibrated=calibrated is not None,
        percent_density=exam.percent_density.get(name),
        views=views,
    )


def _calibration_text(calibration: Calibration | None, whole: LevelResult | None) -> str:
    if whole is None and calibration is not None:
        return "nothing to calibrate"
    if whole is not None and whole.category.scale != DENSITY:
        return "not calibrated: calibration exists for the categories A to D only"
    if whole is None or calibration is None:
        return "not calibrated: the model has no calibration; `mammodensity calibrate` makes one"
    if not whole.calibrated:
        return "not calibrated: too few labelled exams had these views"
    fitted = calibration.views[whole.views]
    trained = ", some of its training: it promises too much" if calibration.overlap.trained else ""
    return f"calibrated on {len(fitted.reference)} exams ({fitted.calibration_map.kind}){trained}"


SOURCE_FACTS = ("file", "study_date", "vendor", "model", "station", "accession_number")
"""Facts of an image in `ExamResult.sources`: its path, and those of a DICOM header; blank where it has none."""


def write_result_table(path: Path, results: Sequence[ExamResult]) -> None:
    """Write one row for each exam; the category is blank where the result abstains.

    The scores have columns A to D, or F, G, D. Codes and the categories of a set are separated by spaces. Columns
    follow for the percent density of each projection and breast, where the model measures it, and for the sources of
    the images, where the results name them.
    """
    scale = scale_of(results)
    rows = [_row(result) for result in results]
    further = (*(f"percent_density_{level}" for level in LEVELS if level != "subject"), *SOURCE_FACTS)
    write_csv(path, [*result_columns(scale), *(name for name in further if any(name in row for row in rows))], rows)


def result_columns(scale: Scale = DENSITY) -> tuple[str, ...]:
    """Name the columns that every table of results has."""
    scores = ("calibrated", "dense_probability", "prediction_set", "coverage", "percent_density", "right", "left")
    return (
        *("exam_id", "category", "most_likely", "abstained_for", *scale.letters),
        *(*scores, "missing", "flags", "policy", "note"),
    )


def scale_of(results: Sequence[ExamResult]) -> Scale:
    """The scale of the results of one model; A to D where none has scores."""
    levels = (level for result in results for level in (result.exam, *result.projections.values()) if level)
    return next((level.category.scale for level in levels), DENSITY)


def _row(result: ExamResult) -> dict[str, str]:
    """Make the cells of an exam; those that are left out are blank."""
    row = {
        "exam_id": result.exam_id,
        "category": result.category or "",
        "abstained_for": " ".join(dict.fromkeys(flag.code for flag in result.abstained_for)),
        "missing": " ".join(result.missing),
        "flags": " ".join(dict.fromkeys(flag.code for flag in result.flags)),
        "policy": result.policy,
        "note": RESEARCH_USE_ONLY,
    }
    if whole := result.exam:
        row |= {category.value: f"{score:.6f}" for category, score in whole.scores.items()}
        row |= {"most_likely": whole.category, "calibrated": "yes" if whole.calibrated else "no"}
        row["dense_probability"] = f"{whole.dense_probability:.6f}"
    if chosen := result.prediction_set:
        row |= {"prediction_set": " ".join(chosen.categories), "coverage": f"{chosen.coverage:g}"}
    row |= {side: breast.category for side, breast in result.breasts.items()}
    levels: dict[str, LevelResult | None] = {"": result.exam, **result.breasts}
    levels |= {view.value: level for view, level in result.projections.items()}
    for name, level in levels.items():
        if level and level.percent_density is not None:
            row[f"percent_density_{name}".rstrip("_")] = f"{level.percent_density:.2f}"
    return row | {name: result.source(name) for name in SOURCE_FACTS if result.sources}
