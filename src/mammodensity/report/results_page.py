"""Exam results as one HTML page: plain words first, numbers second, small print last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammodensity.outputs import write_text
from mammodensity.report.examples import ViewPictures
from mammodensity.report.page import render
from mammodensity.report.wording import listed, percent
from mammodensity.result import ExamResult, PredictionSet, Reading
from mammodensity.terms import CATEGORIES, PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory

_WORDS = {
    DensityCategory.A: "almost entirely fatty",
    DensityCategory.B: "scattered areas of fibroglandular density",
    DensityCategory.C: "heterogeneously dense",
    DensityCategory.D: "extremely dense",
}


def write_results_page(
    path: Path,
    results: Sequence[ExamResult],
    *,
    notification: bool = False,
    pictures: Mapping[str, tuple[ViewPictures, ...]] | None = None,
) -> Path:
    """Write one self-contained page of exam results, with the statutory sentence of each where asked for.

    ``pictures`` are the views of exams with the dense tissue that was found in them.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    values = {
        "research_use_only": RESEARCH_USE_ONLY,
        "categories": CATEGORIES,
        "words": {category.value: text for category, text in _WORDS.items()},
        "counts": {category.value: sum(result.category is category for result in results) for category in CATEGORIES},
        "abstained": sum(result.abstained for result in results),
        "results": [_card(result, notification, (pictures or {}).get(result.exam_id, ())) for result in results],
    }
    write_text(Path(path), render("results.html.jinja", values))
    return Path(path)


def _card(result: ExamResult, notification: bool, views: tuple[ViewPictures, ...]) -> dict[str, Any]:
    """What the template shows of one exam."""
    rows = [("exam", result.exam)]
    rows += [(f"{side} breast", result.breasts.get(side)) for side in ("right", "left")]
    rows += [(view.value, result.projections.get(view)) for view in PROJECTIONS]
    return {
        "exam_id": result.exam_id,
        "category": result.category,
        "headline": _headline(result),
        "sentences": _sentences(result),
        "flags": result.flags,
        "views": views,
        "measured": any(reading and reading.percent_density is not None for _, reading in rows),
        "rows": [{"name": name, "reading": reading} for name, reading in rows],
        "notification": result.notification if notification else None,
        "small_print": f"{result.calibration}; views fused by {result.fusion}, policy {result.policy}",
    }


def _headline(result: ExamResult) -> str:
    if result.category:
        return _WORDS[result.category]
    return "no category is given"


def _sentences(result: ExamResult) -> list[str]:
    """The result in words, one thought a sentence."""
    found = []
    if result.abstained:
        reasons = listed(list(dict.fromkeys(flag.text for flag in result.abstained_for))) or "it has no scores"
        found.append(f"The result abstains: {reasons}.")
        if result.exam:
            found.append(f"The highest score would be that of {result.exam.category}.")
    if result.prediction_set:
        found.append(_of_set(result.prediction_set))
    elif result.exam:
        found.append("How sure this is was not calibrated.")
    if result.exam:
        found.append(_of_dense(result.exam))
    return found


def _of_set(found: PredictionSet) -> str:
    often = (
        f"in {percent(found.coverage)} of exams like those it was calibrated on, the reader's category is in the set"
    )
    if not found.categories:
        return f"No category fits ({often})."
    return f"Possible: {listed(found.categories, 'or')} ({often})."


def _of_dense(exam: Reading) -> str:
    area = (
        f"; {exam.percent_density:.0f} % of the breast area is dense tissue" if exam.percent_density is not None else ""
    )
    word = "Dense" if exam.dense else "Not dense"
    share = exam.dense_probability if exam.dense else 1 - exam.dense_probability
    kind = "a probability" if exam.calibrated else "a score"
    return f"{word}, with {kind} of {_probability(share)}{area}."


def _probability(share: float) -> str:
    """Whole percent; nothing is certain."""
    return percent(share) if share < 0.995 else f"more than {percent(0.99)}"
