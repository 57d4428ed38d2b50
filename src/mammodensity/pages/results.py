"""Exam results as one HTML page: plain words first, numbers second, small print last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mammodensity import __version__
from mammodensity.outputs import write_text
from mammodensity.pages.examples import ViewPictures
from mammodensity.pages.pictures import HANGING_ORDER
from mammodensity.pages.templates import render
from mammodensity.pages.wording import OTHER_CATEGORIES, counted, listed, percent
from mammodensity.results.result import ExamResult, LevelResult, PredictionSet, scale_of
from mammodensity.results.rules import shared_flags
from mammodensity.terms import DENSITY, PROJECTIONS, RESEARCH_USE_ONLY, Category, DensityCategory

_IN_FULL = "scattered areas of fibroglandular density"  # as a report on a mammogram words it
_NOT_CALIBRATED = (
    "The scores were not calibrated: how often they are right is not known, and there are no prediction sets; "
    "`mammodensity calibrate` makes a calibration from labelled exams"
)


@dataclass(frozen=True)
class MadeBy:
    """What made the results of a page."""

    model: str
    """Its name, as a user knows it."""
    warnings: tuple[str, ...] = ()
    """What a reader of its results must know, a line each."""


def write_results_page(
    path: Path,
    results: Sequence[ExamResult],
    made_by: MadeBy,
    *,
    notification: bool = False,
    pictures: Mapping[str, tuple[ViewPictures, ...]] | None = None,
) -> Path:
    """Write one self-contained page of exam results, with the statutory sentence of each where asked for.

    ``pictures`` are the views of exams with the dense tissue that was found in them. What holds for all exams stands
    at the top, once.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    shared, pictured = shared_flags([result.flags for result in results]), pictures or {}
    uncalibrated = not any(reading.calibrated for result in results for reading in _readings(result))
    prints = {_small_print(result) for result in results}
    cards = [
        _card(result, notification, pictured.get(result.exam_id, ()), shared, alone=uncalibrated)
        | {"anchor": f"exam-{number}", "small_print": _small_print(result) if len(prints) > 1 else None}
        for number, result in enumerate(results, start=1)
    ]
    scale = scale_of(results)
    warnings = [*made_by.warnings]
    if scale != DENSITY:
        warnings.append(
            f"{OTHER_CATEGORIES[:-1]}; their scores are not calibrated, as calibration is made for A to D only"
        )
    elif uncalibrated:
        warnings.append(_NOT_CALIBRATED)
    values = {
        "research_use_only": RESEARCH_USE_ONLY,
        "categories": scale,
        "words": {category.value: _in_words(category) for category in scale},
        "counts": {category.value: sum(result.category is category for result in results) for category in scale},
        "model": made_by.model,
        "version": __version__,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "warnings": [f"{text[:1].upper()}{text[1:]}." for text in warnings],
        "shared": [f"All {counted(len(results), 'exam')}, {code}: {text}." for code, text in shared.items()],
        "small_print": prints.pop() if len(prints) == 1 else None,
        "abstained": [card for card in cards if not card["category"]],
        "pictured": len(pictured) if 0 < len(pictured) < len(results) else None,
        "results": cards,
    }
    write_text(Path(path), render("results.html.jinja", values))
    return Path(path)


def _readings(result: ExamResult) -> list[LevelResult]:
    return [*([result.exam] if result.exam else []), *result.breasts.values(), *result.projections.values()]


def _small_print(result: ExamResult) -> str:
    return f"{result.calibration}; views fused by {result.fusion}, policy {result.policy}"


def _card(
    result: ExamResult, notification: bool, views: Sequence[ViewPictures], shared: Mapping[str, str], *, alone: bool
) -> dict[str, Any]:
    """What the template shows of one exam; ``alone`` leaves out what the top of the page says of calibration."""
    rows = [("exam", result.exam)]
    rows += [(f"{side} breast", result.breasts.get(side)) for side in ("right", "left")]
    rows += [(view.value, result.projections.get(view)) for view in PROJECTIONS]
    return {
        "exam_id": result.exam_id,
        "category": result.category,
        "headline": _headline(result),
        "reasons": _reasons(result),
        "most_likely": result.exam.category if result.exam else None,
        "sentences": _sentences(result, alone=alone),
        "flags": [flag for flag in result.flags if flag.code not in shared],
        "shared": [code for code in shared if any(flag.code == code for flag in result.flags)],
        "views": _slots(views),
        "measured": any(reading and reading.percent_density is not None for _, reading in rows),
        "rows": [{"name": name, "reading": reading} for name, reading in rows],
        "notification": result.notification if notification else None,
    }


def _slots(views: Sequence[ViewPictures]) -> list[dict[str, Any]]:
    """The four places of an exam as it hangs; none where no view has pictures."""
    found = {view.projection: view for view in views}
    return [{"projection": place, "view": found.get(place)} for place in HANGING_ORDER] if found else []


def _headline(result: ExamResult) -> str:
    if result.category:
        return _in_words(result.category)
    return "no category is given"


def _in_words(category: Category) -> str:
    return _IN_FULL if category is DensityCategory.B else category.description


def _reasons(result: ExamResult) -> str:
    return listed(list(dict.fromkeys(flag.text for flag in result.abstained_for))) or "it has no scores"


def _sentences(result: ExamResult, *, alone: bool) -> list[str]:
    """The result in words, one thought a sentence."""
    found = []
    if result.abstained:
        found.append(f"The result abstains: {_reasons(result)}.")
        if result.exam:
            found.append(f"The highest score would be that of {result.exam.category}.")
    if result.prediction_set:
        found.append(_of_set(result.prediction_set))
    elif result.exam and not alone:
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


def _of_dense(exam: LevelResult) -> str:
    area = (
        f"; {exam.percent_density:.0f} % of the breast area is dense tissue" if exam.percent_density is not None else ""
    )
    word = "Dense" if exam.dense else "Not dense"
    share = exam.dense_probability if exam.dense else 1 - exam.dense_probability
    kind = "a probability" if exam.calibrated else "a score"
    several = [one.value for one in exam.scores if one.dense == exam.dense]
    pair = f"{listed(several)}{' together' if len(several) > 1 else ''}"
    but = f" for {pair}, although {exam.category} is the likeliest single category"
    differs = but if exam.dense != exam.category.dense else ""
    return f"{word}, with {kind} of {_probability(share)}{differs}{area}."


def _probability(share: float) -> str:
    """Whole percent; nothing is certain."""
    return percent(share) if share < 0.995 else f"more than {percent(0.99)}"
