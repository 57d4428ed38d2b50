"""Example exams for a report: chosen by rule, with small pictures of what the networks looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.anatomy.field import hangs_flipped
from mammodensity.data.dataset import DataSet
from mammodensity.data.images import load_exam
from mammodensity.errors import OptionError
from mammodensity.evaluation.labels import match
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.explanation.exam_scores import RunScores
from mammodensity.explanation.maps import TISSUE, ExamMaps, explain_exam
from mammodensity.explanation.verdicts import Verdict, caption
from mammodensity.models.trained import DensityModel
from mammodensity.pages.pictures import (
    HANGING_ORDER,
    RgbImage,
    contour_level,
    data_uri,
    draw_contours,
    grey_picture,
    iso_contours,
    overlay,
    resized,
)
from mammodensity.terms import Category, Projection
from mammodensity.workers import Progress

_LONGER_SIDE_PX = 420  # sharp at the width a view has on the page, at a tenth of the size of the page's limit
_JPEG_QUALITY = 82  # artefacts are below what the overlay hides; a quarter of the bytes of a PNG

KINDS = ("correct", "wrong", "uncertain")


@dataclass(frozen=True, eq=False)
class Choice:
    """An exam chosen as an example."""

    exam_id: str
    kind: str
    """One of `KINDS`: why it was chosen."""
    reference: Category
    predicted: Category
    scores: NDArray[np.float64]
    """(K,) of the subject."""


@dataclass(frozen=True)
class ViewPictures:
    """One view of an example, as data URIs."""

    projection: Projection
    category: Category
    """What this view's own network predicts, which is also what its map explains."""
    score: float
    plain: str
    mapped: str
    caption: str
    """The verdict on the map."""
    trusted: bool
    width: int
    height: int
    mirrored: bool
    """It is stored mirrored, and shown turned back."""


@dataclass(frozen=True)
class Example:
    """An example exam with its pictures, in hanging order."""

    choice: Choice
    views: tuple[ViewPictures, ...]


def choose_examples(table: ScoreTable, labels: Mapping[str, Category], count: int) -> list[Choice]:
    """Choose examples from the subject scores: correct, wrong and most uncertain ones, each exam once.

    A third each, as far as there are such exams; free places go to the correct ones, then to the uncertain. Wrong are
    those with the highest score for a wrong category; uncertain those whose two highest scores are closest, right or
    wrong; correct those with the highest score, one of each category before a second of any. The exam's name decides
    ties.

    Raises
    ------
    OptionError
        ``count`` is negative.
    TableError
        An exam of the table has no label.
    """
    if count < 0:
        raise OptionError(f"examples must be 0 or more. Got {count} instead.")
    exams = _candidates(table, match(table, labels))
    gap = {exam.exam_id: float(np.diff(np.sort(exam.scores))[-1]) for exam in exams}
    by_score = sorted(exams, key=lambda exam: (-exam.scores.max(), exam.exam_id))
    wrong = [exam for exam in by_score if exam.predicted != exam.reference]
    right = _one_of_each_first([exam for exam in by_score if exam.predicted == exam.reference])
    uncertain = sorted(exams, key=lambda exam: (gap[exam.exam_id], exam.exam_id))
    share = -(-count // len(KINDS))
    chosen: dict[str, Choice] = {}
    _take(chosen, wrong, "wrong", min(share, count))
    _take(chosen, uncertain, "uncertain", min(share, count - len(chosen)))
    _take(chosen, right, "correct", count - len(chosen))
    _take(chosen, uncertain, "uncertain", count - len(chosen))
    return sorted(chosen.values(), key=lambda exam: KINDS.index(exam.kind))


def absent_kinds(choices: Sequence[Choice], count: int) -> list[str]:
    """Kinds that ``choose_examples`` was to show, ``count`` examples in all, and found no exam for."""
    present = {choice.kind for choice in choices}
    return [kind for kind in ("wrong", "uncertain", "correct")[:count] if kind not in present]


def _candidates(table: ScoreTable, reference: NDArray[np.intp]) -> list[Choice]:
    """Every exam with subject scores, in the table's order, of no kind yet."""
    return [
        Choice(exam_id, "", table.scale[truth], table.scale[int(np.argmax(scores))], scores)
        for exam_id, truth, scores in zip(table.exam_ids, reference, table.scores["subject"], strict=True)
        if not np.isnan(scores).any()
    ]


def _one_of_each_first(exams: Sequence[Choice]) -> list[Choice]:
    seen: dict[Category, int] = {}
    turns = []
    for exam in exams:
        seen[exam.reference] = seen.get(exam.reference, 0) + 1
        turns.append(seen[exam.reference])
    return [exam for _, exam in sorted(zip(turns, exams, strict=True), key=lambda pair: pair[0])]


def _take(chosen: dict[str, Choice], exams: Sequence[Choice], kind: str, count: int) -> None:
    for exam in [exam for exam in exams if exam.exam_id not in chosen][: max(count, 0)]:
        chosen[exam.exam_id] = Choice(exam.exam_id, kind, exam.reference, exam.predicted, exam.scores)


def picture_examples(
    model: DensityModel, data: DataSet, choices: Sequence[Choice], progress: Progress | None = None
) -> list[Example]:
    """Explain the chosen exams and make small pictures of their views."""
    exams = data.exams()
    examples = []
    scores = RunScores(model)
    for done, choice in enumerate(choices, start=1):
        maps = explain_exam(model, load_exam(choice.exam_id, exams[choice.exam_id]))
        verdicts = scores.score(maps, dict.fromkeys(maps.maps, choice.exam_id)).verdicts
        views = tuple(
            _pictures(projection, maps, verdicts[projection]) for projection in HANGING_ORDER if projection in maps.maps
        )
        examples.append(Example(choice, views))
        if progress:
            progress(done, len(choices))
    return examples


def _pictures(projection: Projection, exam: ExamMaps, verdict: Verdict | None) -> ViewPictures:
    mirrored = hangs_flipped(projection, exam.maps[projection].mammogram)
    one = resized(exam.maps[projection], _LONGER_SIDE_PX)
    if mirrored:
        turned = replace(one.mammogram, pixels=one.mammogram.pixels[:, ::-1])
        one = replace(one, mammogram=turned, values=np.ascontiguousarray(one.values[:, ::-1]))
    lines = iso_contours(one.values, contour_level(exam.scale))
    rows, columns = one.mammogram.pixels.shape
    grey = grey_picture(one.mammogram)
    # A mask speaks by its outline, and what is below it must be seen; a map speaks by its colours.
    below = grey if exam.method == TISSUE else overlay(one.mammogram, one.values, exam.scale)
    return ViewPictures(
        projection=projection,
        category=one.category,
        score=float(one.scores[one.category.index]),
        plain=_jpeg_uri(grey),
        mapped=_jpeg_uri(draw_contours(below, lines)),
        caption="outline of the dense tissue found" if verdict is None else caption(verdict),
        trusted=verdict is None or verdict.trusted,
        width=columns,
        height=rows,
        mirrored=mirrored,
    )


def _jpeg_uri(picture: RgbImage | NDArray[np.uint8]) -> str:
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return data_uri(stream.getvalue(), "image/jpeg")
