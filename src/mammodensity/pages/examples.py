"""Example exams for a report: chosen by rule, and shown as on their own page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.dataset import DataSet
from mammodensity.errors import OptionError
from mammodensity.evaluation.labels import match
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.explanation.exam_scores import score_exam_maps
from mammodensity.explanation.map_scores import ScoreSpec
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.scoring import score_records
from mammodensity.models.trained import DensityModel
from mammodensity.pages.exam import LIST_PX, exam_section, map_block
from mammodensity.results.calibration import Calibration
from mammodensity.results.result import exam_result
from mammodensity.terms import Category
from mammodensity.workers import Progress

KINDS = ("correct", "wrong", "uncertain")


@dataclass(frozen=True, eq=False)
class Choice:
    """An exam chosen as an example."""

    exam_id: str
    kind: str
    """One of `KINDS`: why it was chosen."""
    reference: Category
    predicted: Category
    """The category with the highest score."""
    scores: NDArray[np.float64]
    """(K,) of the exam."""


@dataclass(frozen=True)
class Example:
    """An example exam as the page shows it."""

    choice: Choice
    exam: Mapping[str, Any]
    """The values of its section; see `mammodensity.pages.exam.exam_section`."""


def choose_examples(table: ScoreTable, labels: Mapping[str, Category], count: int) -> list[Choice]:
    """Choose examples by their exam scores: correct, wrong and most uncertain ones, each exam once.

    A third each, as far as there are such exams; free places go to correct ones, then to uncertain ones. Wrong are
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
    exams = [
        Choice(exam_id, "", table.scale[truth], table.scale[int(np.argmax(scores))], scores)
        for exam_id, truth, scores in zip(table.exam_ids, match(table, labels), table.scores["subject"], strict=True)
        if not np.isnan(scores).any()
    ]
    by_score = sorted(exams, key=lambda exam: (-exam.scores.max(), exam.exam_id))
    wrong = [exam for exam in by_score if exam.predicted != exam.reference]
    right = _each_category_first([exam for exam in by_score if exam.predicted == exam.reference])
    uncertain = sorted(exams, key=lambda exam: (float(np.diff(np.sort(exam.scores))[-1]), exam.exam_id))
    third = -(-count // len(KINDS))
    chosen: dict[str, Choice] = {}

    def take(candidates: Sequence[Choice], kind: str, most: int) -> None:
        free = [exam for exam in candidates if exam.exam_id not in chosen]
        chosen.update({exam.exam_id: replace(exam, kind=kind) for exam in free[: max(most, 0)]})

    take(wrong, "wrong", min(third, count))
    take(uncertain, "uncertain", min(third, count - len(chosen)))
    take(right, "correct", count - len(chosen))
    take(uncertain, "uncertain", count - len(chosen))
    return sorted(chosen.values(), key=lambda exam: KINDS.index(exam.kind))


def absent_kinds(choices: Sequence[Choice], count: int) -> list[str]:
    """Kinds that ``choose_examples`` found no exam for, with ``count`` examples asked for."""
    present = {choice.kind for choice in choices}
    return [kind for kind in ("wrong", "uncertain", "correct")[:count] if kind not in present]


def _each_category_first(exams: Sequence[Choice]) -> list[Choice]:
    """The first exam of each category, then the second of each, and so on."""
    taken: dict[Category, int] = {}
    turns = []
    for exam in exams:
        taken[exam.reference] = taken.get(exam.reference, 0) + 1
        turns.append(taken[exam.reference])
    return [exam for _, exam in sorted(zip(turns, exams, strict=True), key=lambda pair: pair[0])]


def explain_examples(
    model: DensityModel,
    calibration: Calibration | None,
    data: DataSet,
    choices: Sequence[Choice],
    progress: Progress | None = None,
) -> list[Example]:
    """Score and explain the chosen exams as ``predict`` and ``explain`` do, with small pictures."""
    exams = data.exams()
    fusion, policy = (calibration.fusion, calibration.policy) if calibration else (model.fusion, "mean")
    examples = []
    for done, choice in enumerate(choices, start=1):
        scored = score_records(model, choice.exam_id, exams[choice.exam_id], fusion=fusion, policy=policy)
        result = exam_result(scored.scores, calibration)
        maps = explain_exam(model, scored, result=result)
        verdicts = score_exam_maps(model, maps, spec=ScoreSpec(stability=False)).verdicts
        block = map_block(maps, verdicts=verdicts, longest_px=LIST_PX)
        examples.append(Example(choice, exam_section(result, [block], reference=choice.reference)))
        if progress:
            progress(done, len(choices))
    return examples
