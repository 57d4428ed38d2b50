"""Results as a table, one row an exam."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mammodensity.outputs import write_csv
from mammodensity.result.exam_result import ExamResult
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY

RESULT_COLUMNS = (
    "exam_id",
    "category",
    "most_likely",
    "abstained_for",
    *(category.value for category in CATEGORIES),
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
    """Write one row an exam: a blank category where the result abstains; codes and sets separated by spaces."""
    write_csv(path, RESULT_COLUMNS, (dict(zip(RESULT_COLUMNS, _row(result), strict=True)) for result in results))


def _row(result: ExamResult) -> tuple[str, ...]:
    whole, found = result.exam, result.prediction_set
    scores = [f"{whole.scores[category]:.6f}" if whole else "" for category in CATEGORIES]
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
