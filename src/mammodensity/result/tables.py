"""Results as a table, one row an exam."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mammodensity.outputs import write_csv
from mammodensity.result.exam_result import ExamResult
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY, Scale

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


def result_columns(scale: Scale = CATEGORIES) -> tuple[str, ...]:
    """The columns of the table."""
    return (*_FIRST_COLUMNS, *scale, *_LAST_COLUMNS)


def scale_of(results: Sequence[ExamResult]) -> Scale:
    """The categories that results of one model are of; A to D where none has scores."""
    scored = (reading for result in results for reading in (result.exam, *result.projections.values()) if reading)
    return next((tuple(reading.scores) for reading in scored), CATEGORIES)


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
