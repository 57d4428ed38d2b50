"""The four statements on breast density that United States law asks a mammography report to hold.

The published JSON schema of `ExamResult`.

The result of one exam: what it is, how sure, what else it could be, and when not to trust it.

Results as a table, one row an exam.
"""

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
from mammodensity.scores import ExamScores
from mammodensity.terms import (
    DENSITY,
    FUSED_LEVELS,
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
"""21 CFR 900.12(c)(1)(vi), in force since 10 September 2024. It is the interpreting physician who states them."""


def result_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a list of results as ``predict --json`` writes it."""
    schema: dict[str, Any] = json.loads(files(__package__).joinpath("exam_result.schema.json").read_text("utf-8"))
    return schema


SCHEMA_VERSION = "1.3"


@dataclass(frozen=True)
class LevelResult:
    """Scores of one exam, breast or projection."""

    category: Category
    """With the highest score, the lower one on a tie."""
    scores: dict[Category, float]
    dense_probability: float
    """Score of the dense categories together: C and D, or of F, G and D the last."""
    calibrated: bool
    percent_density: float | None
    """Per cent, where the model measures it."""
    views: tuple[Projection, ...]
    """What it was fused from."""

    @property
    def dense(self) -> bool:
        """The dense categories together are more probable than the others; ``dense-disagrees`` tells of another one."""
        return self.dense_probability > 0.5


@dataclass(frozen=True)
class PredictionSet:
    """Categories among which the reference lies with the stated probability."""

    categories: tuple[DensityCategory, ...]
    coverage: float
    kind: str

    @property
    def text(self) -> str:
        """In words: ``B or C (90 %)``."""
        names = " or ".join(self.categories) if self.categories else "none"
        return f"{names} ({100 * self.coverage:g} %)"


@dataclass(frozen=True)
class ExamResult:
    """The honest result of one exam."""

    exam_id: str
    category: Category | None
    """None where the result abstains."""
    exam: LevelResult | None
    """None where views are missing and were not to be done without, or all were refused."""
    breasts: dict[str, LevelResult]
    projections: dict[Projection, LevelResult]
    prediction_set: PredictionSet | None
    """None without a calibration of these views."""
    flags: tuple[Flag, ...]
    abstained_for: tuple[Flag, ...]
    """The flags that made it abstain."""
    missing: tuple[Projection, ...]
    refused: dict[Projection, str]
    fusion: str
    policy: str
    calibration: str
    """What was calibrated, or why it was not."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def abstained(self) -> bool:
        """No category is given."""
        return self.category is None

    @property
    def notification(self) -> str | None:
        """The sentence of the United States rule for the category; None where it abstains, or is not of A to D."""
        return NOTIFICATION[self.category] if isinstance(self.category, DensityCategory) else None

    def to_dict(self, *, notification: bool = False) -> dict[str, Any]:
        """As the published JSON schema says (:func:`mammodensity.results.result.result_schema`)."""
        content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "note": RESEARCH_USE_ONLY,
            "exam_id": self.exam_id,
            "category": self.category,
            "most_likely": self.exam.category if self.exam else None,
            "abstained": self.abstained,
            "abstained_for": [vars(flag) for flag in self.abstained_for],
            "exam": _reading(self.exam),
            "breasts": {side: _reading(self.breasts.get(side)) for side in ("right", "left")},
            "projections": {view.value: _reading(self.projections.get(view)) for view in PROJECTIONS},
            "prediction_set": _set(self.prediction_set),
            "flags": [vars(flag) for flag in self.flags],
            "missing": [view.value for view in self.missing],
            "refused": {view.value: text for view, text in self.refused.items()},
            "fusion": self.fusion,
            "policy": self.policy,
            "calibration": self.calibration,
            "provenance": self.provenance,
        }
        return content | ({"notification": self.notification} if notification else {})


def exam_result(
    exam: ExamScores,
    calibration: Calibration | None = None,
    *,
    rules: Rules = STANDARD_RULES,
    coverage: float | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ExamResult:
    """Turn the scores of an exam into its result.

    Parameters
    ----------
    calibration
        The model's; None leaves the scores as they are, without a prediction set.
    coverage
        Of the prediction set; None for the calibration's own.

    Raises
    ------
    CheckpointError
        The calibration was fitted to scores of another fusion or policy.
    """
    if calibration is not None:
        require_same_fusion(calibration, exam.fusion, exam.policy)
    readings = {level: reading for level in _levels(exam) if (reading := _read(exam, level, calibration))}
    whole = readings.get("subject")
    values = {level: np.array(list(reading.scores.values())) for level, reading in readings.items()}
    found = _prediction_set(whole, values.get("subject"), calibration, coverage)
    flags = find_flags(exam, values, found.categories if found else None, rules)
    reasons = tuple(flag for flag in flags if flag.code in rules.abstain_on)
    return ExamResult(
        exam_id=exam.exam_id,
        category=whole.category if whole and not reasons else None,
        exam=whole,
        breasts={side: readings[side] for side in ("right", "left") if side in readings},
        projections={view: readings[view] for view in PROJECTIONS if view in readings},
        prediction_set=found,
        flags=flags,
        abstained_for=reasons,
        missing=exam.fused["subject"].missing,
        refused=dict(exam.refused),
        fusion=exam.fusion,
        policy=exam.policy,
        calibration=_about(calibration, whole),
        provenance=dict(provenance or {}),
    )


def require_same_fusion(calibration: Calibration, fusion: str, policy: str) -> None:
    """Raise ``CheckpointError`` where scores were fused otherwise than those the calibration was fitted to."""
    for name, found, wanted in (("fusion", fusion, calibration.fusion), ("policy", policy, calibration.policy)):
        if found != wanted:
            raise CheckpointError(
                f"the model was calibrated with {name} {wanted}, not {found}; leave --{name} out, or calibrate again"
            )


def _levels(exam: ExamScores) -> list[str]:
    return [*exam.projections, *FUSED_LEVELS]


def _read(exam: ExamScores, level: str, calibration: Calibration | None) -> LevelResult | None:
    if level in FUSED_LEVELS:
        scores, views = exam.fused[level].scores, exam.fused[level].views
    else:
        scores, views = np.asarray(exam.projections[Projection(level)], np.float64), (Projection(level),)
    if scores is None:
        return None
    better = calibration.calibrated(views, scores) if calibration else None
    values: NDArray[np.float64] = scores if better is None else better
    scale = exam.scale
    dense = sum(float(values[category.index]) for category in scale if category.dense)
    return LevelResult(
        category=scale[int(np.argmax(values))],
        scores={category: float(values[category.index]) for category in scale},
        dense_probability=min(1.0, dense),  # two rounded numbers may sum to a bit more
        calibrated=better is not None,
        percent_density=exam.percent_density.get(level),
        views=views,
    )


def _prediction_set(
    whole: LevelResult | None,
    values: NDArray[np.float64] | None,
    calibration: Calibration | None,
    coverage: float | None,
) -> PredictionSet | None:
    if whole is None or values is None or calibration is None or not whole.calibrated:
        return None
    categories = calibration.prediction_set(whole.views, values, coverage)
    return PredictionSet(categories, coverage or calibration.coverage, calibration.set_kind)


def _about(calibration: Calibration | None, whole: LevelResult | None) -> str:
    if whole is None and calibration is not None:
        return "nothing to calibrate"
    if whole is not None and tuple(whole.scores) != DENSITY.categories:
        return "not calibrated: calibration is made for the categories A to D only"
    if whole is None or calibration is None:
        return "not calibrated: the model has no calibration; `mammodensity calibrate` makes one"
    if not whole.calibrated:
        return "not calibrated: too few labelled exams had these views"
    fitted = calibration.views[whole.views]
    trained = ", some of its training: it promises too much" if calibration.overlap.trained else ""
    return f"calibrated on {len(fitted.reference)} exams ({fitted.calibration_map.kind}){trained}"


def _reading(reading: LevelResult | None) -> dict[str, Any] | None:
    if reading is None:
        return None
    return {
        "category": reading.category,
        "scores": {category.value: score for category, score in reading.scores.items()},
        "dense": reading.dense,
        "dense_probability": reading.dense_probability,
        "calibrated": reading.calibrated,
        "percent_density": reading.percent_density,
        "views": [view.value for view in reading.views],
    }


def _set(found: PredictionSet | None) -> dict[str, Any] | None:
    if found is None:
        return None
    names = [category.value for category in found.categories]
    return {"categories": names, "coverage": found.coverage, "kind": found.kind, "text": found.text}


_FIRST_COLUMNS = ("exam_id", "category", "most_likely", "abstained_for")
_LAST_COLUMNS = (
    "calibrated",
    "dense_probability",
    "prediction_set",
    "coverage",
    "percent_density",
    "right",
    "left",
    "missing",
    "flags",
    "policy",
    "note",
)


def write_result_table(path: Path, results: Sequence[ExamResult]) -> None:
    """Write one row an exam: a blank category where the result abstains; codes and sets separated by spaces.

    The scores stand in columns A to D, or F, G, D.
    """
    scale = scale_of(results)
    columns = result_columns(scale)
    write_csv(path, columns, (dict(zip(columns, _row(result, scale), strict=True)) for result in results))


def result_columns(scale: Scale = DENSITY) -> tuple[str, ...]:
    """The columns of the table."""
    return (*_FIRST_COLUMNS, *scale, *_LAST_COLUMNS)


def scale_of(results: Sequence[ExamResult]) -> Scale:
    """The categories that results of one model are of; A to D where none has scores."""
    scored = (reading for result in results for reading in (result.exam, *result.projections.values()) if reading)
    return next((reading.category.scale for reading in scored), DENSITY)


def _row(result: ExamResult, scale: Scale) -> tuple[str, ...]:
    whole, found = result.exam, result.prediction_set
    scores = [f"{whole.scores[category]:.6f}" if whole else "" for category in scale]
    percent = whole.percent_density if whole else None
    sides = [result.breasts[side].category if side in result.breasts else "" for side in ("right", "left")]
    return (
        result.exam_id,
        result.category or "",
        whole.category if whole else "",
        " ".join(dict.fromkeys(flag.code for flag in result.abstained_for)),
        *scores,
        ("yes" if whole.calibrated else "no") if whole else "",
        f"{whole.dense_probability:.6f}" if whole else "",
        " ".join(found.categories) if found else "",
        f"{found.coverage:g}" if found else "",
        "" if percent is None else f"{percent:.2f}",
        *sides,
        " ".join(result.missing),
        " ".join(dict.fromkeys(flag.code for flag in result.flags)),
        result.policy,
        RESEARCH_USE_ONLY,
    )
