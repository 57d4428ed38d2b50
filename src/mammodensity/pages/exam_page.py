"""The page of one exam: its result in words, and its views with their evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity import __version__
from mammodensity.anatomy.field import STORED_FLIPPED
from mammodensity.anatomy.read_view import ReadView
from mammodensity.errors import ImageError
from mammodensity.explanation.maps import TISSUE, ActivationMap, ExamMaps
from mammodensity.explanation.verdicts import VERDICTS, Verdict
from mammodensity.pages.pictures import (
    HANGING_ORDER,
    Evidence,
    Picture,
    RgbImage,
    side_by_side,
    view_picture,
)
from mammodensity.pages.templates import render_page
from mammodensity.pages.wording import listed, percent, plain, sentence
from mammodensity.results.result import ExamResult, LevelResult, PredictionSet, scale_of
from mammodensity.terms import PROJECTIONS, RESEARCH_USE_ONLY, Category, DensityCategory, Projection

METHOD_NAMES = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "hires-cam": "HiResCAM",
    "layer-cam": "Layer-CAM",
    "score-cam": "Score-CAM",
    "integrated-gradients": "integrated gradients",
}
"""Explanation methods as their authors write them."""

IMAGES = "images"
"""The method of a block that shows the images alone."""
DOCUMENTATION = "The documentation explains results and flags in docs/results.md, and maps in docs/explanations.md."
EXAM_PAGE_PX, LIST_PX = 1200, 640
"""Longer side of a picture on the page of one exam, and on a page of many."""


@dataclass(frozen=True)
class ViewPictures:
    """One view of an exam with the map of one method."""

    projection: Projection
    picture: Picture
    mirrored: bool = False
    """The file is stored mirrored, and shown turned back."""
    explained: Category | None = None
    """The category that the map explains; None without a map."""
    against: Category | None = None
    """The category that the explained one is set against."""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class MethodBlock:
    """The views of an exam with the maps of one method, in any order."""

    method: str
    views: tuple[ViewPictures, ...]


def map_block(
    maps: ExamMaps, *, verdicts: Mapping[Projection, Verdict] | None = None, longest_px: int = EXAM_PAGE_PX
) -> MethodBlock:
    """Make the pictures of an exam's maps, on one scale, with the outlines of tissue where a breast was found.

    Parameters
    ----------
    verdicts
        Of each map; a map without one is shown as not checked.
    longest_px
        Longer side of each picture.
    """
    views = []
    for projection, shown in maps.maps.items():
        mirrored = shown.view is not None and is_mirrored(shown.view)
        picture = view_picture(evidence_of(maps, projection), flip=mirrored, longest_px=longest_px)
        verdict = (verdicts or {}).get(projection)
        views.append(ViewPictures(projection, picture, mirrored, shown.category, shown.against, verdict))
    return MethodBlock(maps.method, tuple(views))


def image_block(views: Mapping[Projection, ReadView], *, longest_px: int = EXAM_PAGE_PX) -> MethodBlock:
    """Make the pictures of an exam's images alone."""
    shown = []
    for projection, view in views.items():
        mirrored = is_mirrored(view)
        picture = view_picture(Evidence(view.mammogram), flip=mirrored, longest_px=longest_px)
        shown.append(ViewPictures(projection, picture, mirrored))
    return MethodBlock(IMAGES, tuple(shown))


def side_picture(
    result: ExamResult, maps: ExamMaps, projection: Projection, verdict: Verdict | None = None
) -> RgbImage:
    """Draw one view and its evidence next to each other at full size, with title, verdict and legend below."""
    shown, reading = maps.maps[projection], result.projections.get(projection)
    density = reading.percent_density if reading else None
    title = f"Exam {result.exam_id}, {projection}: {reading.category if reading else 'no category'}"
    title += f", {percent(density / 100)} dense" if density is not None else ""
    caption = [f"{title}. {_heading(maps.method)}."]
    if maps.method != TISSUE:
        caption.append(f"{_explained(projection, shown.category, shown.against, result)}.")
    if verdict:
        caption.append(sentence(plain(verdict.text)))
    return side_by_side(
        evidence_of(maps, projection), caption=[*caption, RESEARCH_USE_ONLY], line_words=line_words(maps.method)
    )


def evidence_of(maps: ExamMaps, projection: Projection) -> Evidence:
    """Collect what to draw of one view's map."""
    shown = maps.maps[projection]
    return Evidence(shown.mammogram, shown.values, maps.scale, tissue_labels(shown), maps.method != TISSUE)


def tissue_labels(shown: ActivationMap) -> NDArray[np.uint8] | None:
    """Label (H, W) the tissue of a map's image; None if no breast was found or looked for."""
    if shown.view is not None:
        with suppress(ImageError):
            return shown.view.tissue.labels
    return None


def is_mirrored(view: ReadView) -> bool:
    """True when the file is stored mirrored."""
    return any(flag.code == STORED_FLIPPED for flag in view.flags)


def render_exam_page(
    result: ExamResult,
    blocks: Sequence[MethodBlock] = (),
    *,
    model: str,
    reference: Category | None = None,
    warnings: Sequence[str] = (),
    statement: str | None = None,
) -> str:
    """Write the page of one exam as HTML text that needs no other file.

    Parameters
    ----------
    blocks
        One for each explanation method; none for a page without pictures.
    model
        The name of the model, as `mammodensity.models.trained.model_name` gives it.
    reference
        The reader's category, where there is one.
    warnings
        What a reader of the model's results must know, a line each.
    statement
        A sentence about the model that holds for all its maps.
    """
    return render_page(
        "exam.html.jinja",
        {
            "exam": exam_section(result, blocks, reference=reference, statement=statement),
            "categories": scale_of([result]),
            "warnings": [sentence(text) for text in warnings],
            "footer": [made_by_sentence(model), *small_print(result), DOCUMENTATION],
        },
    )


def exam_section(
    result: ExamResult,
    blocks: Sequence[MethodBlock] = (),
    *,
    reference: Category | None = None,
    statement: str | None = None,
    hidden_flags: Sequence[str] = (),
    notification: bool = False,
) -> dict[str, Any]:
    """The values that the template of one exam shows (``exam_section`` of ``exam_parts.html.jinja``).

    ``hidden_flags`` are codes of flags that the page tells once for all its exams.
    """
    rows = _rows(result)
    return {
        "exam_id": result.exam_id,
        "category": result.category,
        "headline": category_in_words(result.category) if result.category else "No category",
        "percent_density": result.exam.percent_density if result.exam else None,
        "facts": _facts(result, reference),
        "sentences": _sentences(result),
        "flags": [
            sentence(plain(flag.text))
            for flag in result.flags
            if flag.code not in hidden_flags and flag not in result.abstained_for
        ],
        "rows": rows,
        "measured": any(reading.percent_density is not None for _, reading in rows),
        "blocks": [_block(block, result) for block in blocks if block.views],
        "evidence": any(view.picture.lines or view.picture.fill for block in blocks for view in block.views),
        "statement": sentence(statement) if statement else None,
        "notification": result.notification if notification else None,
    }


def made_by_sentence(model: str) -> str:
    """One sentence about model, version and time."""
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return f"Read by {model} with mammodensity {__version__} on {date}."


def small_print(result: ExamResult) -> list[str]:
    """Sentences on calibration, prediction sets, and how the views were combined."""
    rules = {
        "mean": "The exam's scores are the mean of its views.",
        "geometric-mean": "The exam's scores are the geometric mean of its views.",
        "vote": "The exam's scores are the votes of its views.",
        "joint": "One network read all views together.",
    }
    sentences = [rules.get(result.fusion, f"The views were combined by {result.fusion}.")]
    if result.policy == "denser":
        sentences.append("The denser breast decides the exam's category.")
    if result.exam:
        sentences.append(f"The scores are {_calibration_in_words(result.calibration)}.")
    if result.prediction_set:
        share = percent(result.prediction_set.coverage)
        sentences.append(
            f"A {share} prediction set holds the reader's category in {share} of exams like those of the calibration."
        )
    return sentences


def _calibration_in_words(text: str) -> str:
    """State whether the scores are calibrated, without the name of a command or method."""
    return re.sub(r" \([a-z-]+\)", "", plain(text).split("; ")[0])


def category_in_words(category: Category) -> str:
    """The category in words, as a report on a mammogram has it."""
    return "scattered areas of fibroglandular density" if category is DensityCategory.B else category.description


def reasons_in_words(result: ExamResult) -> str:
    """Reasons why the exam has no category."""
    return listed(list(dict.fromkeys(plain(flag.text) for flag in result.abstained_for))) or "it has no scores"


def _facts(result: ExamResult, reference: Category | None) -> list[tuple[str, str]]:
    exam = result.exam
    facts = []
    if exam and exam.percent_density is not None:
        facts.append(("Percent density", percent(exam.percent_density / 100)))
    if result.prediction_set:
        facts.append(
            (f"{percent(result.prediction_set.coverage)} prediction set", _set_in_words(result.prediction_set))
        )
    if reference:
        facts.append(("Reference", reference.value))
    return facts


def _set_in_words(prediction_set: PredictionSet) -> str:
    return listed(prediction_set.categories, "or") if prediction_set.categories else "no category"


def _sentences(result: ExamResult) -> list[str]:
    """The result in words, one thought a sentence."""
    sentences = []
    if result.abstained:
        sentences.append(f"Reason: {reasons_in_words(result)}.")
    if result.exam:
        if result.abstained:
            sentences.append(f"The highest score is that of {result.exam.category}.")
        sentences.append(_dense_sentence(result.exam))
    names = {"study_date": "Study date", "accession_number": "Accession number", "file": "Files"}
    unit = " ".join(filter(None, map(result.source, ("vendor", "model", "station"))))
    facts = [(title, result.source(name)) for name, title in names.items()]
    return sentences + [f"{title}: {text}." for title, text in (("Unit", unit), *facts) if text]


def _dense_sentence(exam: LevelResult) -> str:
    word = "Dense" if exam.dense else "Not dense"
    share = exam.dense_probability if exam.dense else 1 - exam.dense_probability
    kind = "probability" if exam.calibrated else "raw score"
    several = [category.value for category in exam.scores if category.dense == exam.dense]
    differs = f", although {exam.category} has the highest single score" if exam.dense != exam.category.dense else ""
    shown = percent(share) if share < 0.995 else f"more than {percent(0.99)}"
    return f"{word}: {kind} of {listed(several, 'or')} {shown}{differs}."


def _rows(result: ExamResult) -> list[tuple[str, LevelResult]]:
    """Exam, breasts and views with their scores; those without any are left out."""
    levels: list[tuple[str, LevelResult | None]] = [("exam", result.exam)]
    levels += [(f"{side} breast", result.breasts.get(side)) for side in ("right", "left")]
    levels += [(view.value, result.projections.get(view)) for view in PROJECTIONS]
    return [(name, reading) for name, reading in levels if reading]


def _block(block: MethodBlock, result: ExamResult) -> dict[str, Any]:
    """The values of one method: the views in pairs as they hang, and the meaning of the lines."""
    views = {view.projection: view for view in block.views}
    shown = [_view(views[projection], block.method, result) for projection in HANGING_ORDER if projection in views]
    pairs = [[view for view in shown if view["position"] == position] for position in ("CC", "MLO")]
    verdicts = [view["verdict"] for view in shown]
    shared = len(shown) > 1 and all(verdict == verdicts[0] for verdict in verdicts)
    graded = block.method != TISSUE and any(view.picture.fill for view in block.views)
    drawn = {name for view in block.views for name, path in view.picture.lines.items() if path}
    return {
        "method": block.method,
        "heading": _heading(block.method),
        "pairs": [pair for pair in pairs if pair],
        "graded": graded,
        "lines": [(name, text) for name, text in line_words(block.method).items() if name in drawn],
        "verdict": verdicts[0] if shared else None,
    }


def _heading(method: str) -> str:
    if method == TISSUE:
        return "Dense tissue found"
    if method == IMAGES:
        return "Images"
    return f"What the network looked at ({METHOD_NAMES.get(method, method)})"


def line_words(method: str) -> dict[str, str]:
    evidence = "dense tissue found" if method == TISSUE else "half of the exam's largest map value"
    return {"evidence": evidence, "dense": "dense tissue", "breast": "edge of the breast", "muscle": "chest muscle"}


def _view(view: ViewPictures, method: str, result: ExamResult) -> dict[str, Any]:
    reading, verdict, explained = result.projections.get(view.projection), view.verdict, None
    if view.explained and method != TISSUE:
        explained = _explained(view.projection, view.explained, view.against, result)
        verdict = verdict or Verdict("not-scored", VERDICTS["not-scored"])
    return {
        "name": view.projection.value,
        "position": view.projection.view_position,
        "side": view.projection.laterality,
        "mirrored": view.mirrored,
        "picture": view.picture,
        "category": reading.category if reading else None,
        "percent_density": reading.percent_density if reading else None,
        "explained": explained,
        "verdict": {"text": sentence(plain(verdict.text)), "trusted": verdict.trusted} if verdict else None,
        "alt": _alt(view, method, result.exam_id),
    }


def _explained(projection: Projection, category: Category, against: Category | None, result: ExamResult) -> str:
    """The question that the map of a view answers, with the scores."""
    reading = result.projections.get(projection)
    if reading is None or category not in reading.scores:
        return f"Map: why {category}"
    kind = "score" if reading.calibrated else "raw score"
    rather = f" rather than {against} ({reading.scores[against]:.2f})" if against else ""
    return f"Map: why {category} ({kind} {reading.scores[category]:.2f}){rather}"


def _alt(view: ViewPictures, method: str, exam_id: str) -> str:
    shown = "the dense tissue found" if method == TISSUE else "what the network looked at"
    return f"{view.projection} of exam {exam_id}" + (f" with {shown}" if view.picture.fill else "")
