"""The page of many exams: a table to sort and filter, then each exam as on its own page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mammodensity.outputs import write_text
from mammodensity.pages.exam_page import (
    DOCUMENTATION,
    IMAGES,
    MethodBlock,
    exam_section,
    made_by_sentence,
    small_print,
)
from mammodensity.pages.templates import render_page
from mammodensity.pages.wording import OTHER_CATEGORIES, counted, sentence
from mammodensity.results.result import ExamResult, scale_of
from mammodensity.results.rules import shared_flags
from mammodensity.terms import DENSITY


def write_results_page(
    path: Path,
    results: Sequence[ExamResult],
    *,
    model: str,
    warnings: Sequence[str] = (),
    notification: bool = False,
    pictures: Mapping[str, Sequence[MethodBlock]] | None = None,
) -> Path:
    """Write one self-contained page of exam results.

    Parameters
    ----------
    model, warnings
        The name of the model, as a user knows it, and facts that a reader of its results must know, a line each.
    notification
        Add the statutory sentence of each exam's category.
    pictures
        The pictures of exams by name, one block for each method; exams without pictures show their scores only.

    Raises
    ------
    OutputError
        The page cannot be written.
    """
    shared, pictured = shared_flags([result.flags for result in results]), pictures or {}
    scale = scale_of(results)
    exams = [
        exam_section(result, pictured.get(result.exam_id, ()), hidden_flags=tuple(shared), notification=notification)
        | {"anchor": f"exam-{number}", "codes": _codes(result, shared), "prediction_set": result.prediction_set}
        | {"dense_probability": result.exam.dense_probability if result.exam else None}
        for number, result in enumerate(results, start=1)
    ]
    footers = [small_print(result) for result in results]
    common = [text for text in footers[0] if all(text in footer for footer in footers)] if footers else []
    for exam, footer in zip(exams, footers, strict=True):
        exam["small_print"] = [text for text in footer if text not in common]
    values = {
        "categories": scale,
        "counts": {category.value: sum(result.category is category for result in results) for category in scale},
        "abstained": sum(result.abstained for result in results),
        "warnings": [sentence(text) for text in (*warnings, *_scale_warnings(results))],
        "shared": [f"All {counted(len(results), 'exam')}: {sentence(text)}" for text in shared.values()],
        "measured": any(exam["percent_density"] is not None for exam in exams),
        "with_sets": any(result.prediction_set for result in results),
        "codes": sorted({code for exam in exams for code in exam["codes"]}),
        "pictured": len(pictured) if 0 < len(pictured) < len(results) else None,
        "images_only": any(block.method == IMAGES for blocks in pictured.values() for block in blocks),
        "exams": exams,
        "footer": [made_by_sentence(model), *common, DOCUMENTATION],
    }
    write_text(Path(path), render_page("results.html.jinja", values))
    return Path(path)


def _codes(result: ExamResult, shared: Mapping[str, str]) -> dict[str, bool]:
    """Short names of an exam's flags, and whether the exam has no category because of them."""
    abstaining = {flag.code for flag in result.abstained_for}
    codes = dict.fromkeys(flag.code for flag in result.flags if flag.code not in shared)
    return {code.replace("-", " "): code in abstaining for code in codes}


def _scale_warnings(results: Sequence[ExamResult]) -> list[str]:
    readings = [reading for result in results for reading in (result.exam, *result.projections.values()) if reading]
    if scale_of(results) != DENSITY:
        return [f"{OTHER_CATEGORIES[:-1]}; their scores are not calibrated, as calibration is made for A to D only"]
    if not any(reading.calibrated for reading in readings):
        return [
            "The scores are raw, not calibrated: how often they are right is not known, and there are no prediction "
            "sets. `mammodensity calibrate` makes a calibration from labelled exams"
        ]
    return []
