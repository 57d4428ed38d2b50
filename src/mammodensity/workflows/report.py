"""Report on a trained model: one HTML page of its data, training, test figures and example exams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.dataset import reference_categories
from mammodensity.errors import OptionError
from mammodensity.evaluation.labels import match
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.evaluation.test_split import SplitEvaluation, evaluate_model, stored_evaluation
from mammodensity.explanation.exam_scores import score_exam_maps
from mammodensity.explanation.map_scores import ScoreSpec
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.scoring import score_records
from mammodensity.outputs import require_not_input, write_text
from mammodensity.pages.exam_page import LIST_PX, exam_section, map_block
from mammodensity.pages.report_page import calibrated_exams, report_page
from mammodensity.results.calibration import Calibration, read_calibration
from mammodensity.results.result import exam_result
from mammodensity.terms import Category
from mammodensity.training.records import RunRecord, read_run
from mammodensity.workers import Progress

REPORT_FILE = "report.html"
KINDS = ("correct", "wrong", "uncertain")
_NO_SUCH_EXAM = {
    "wrong": "no test exam is wrong",
    "uncertain": "no exam is left for uncertain",
    "correct": "no exam is left for correct",
}


def report(
    model: Path | str, output: Path | str | None = None, *, examples: int = 6, progress: Progress | None = None
) -> Path:
    """Write one self-contained HTML page of a training run and its test exams.

    Test figures are taken from the model folder; they are made if they are absent or of other networks. Each view is
    scored at most once.

    Parameters
    ----------
    model
        A model folder, as written by `mammodensity.train`.
    output
        The page; by default ``report.html`` in the model folder.
    examples
        Show at most so many example exams.
    progress
        Called with how many exams are scored or explained, and how many there are.

    Returns
    -------
    The page.

    Raises
    ------
    CheckpointError, TableError
        The folder holds no model, or a file of it is damaged.
    LayoutError, ImageError
        An image of the manifest is gone or cannot be read.
    OptionError
        ``examples`` is negative.
    OutputError
        The page would replace a file of the model, or cannot be written.
    """
    folder = Path(model)
    page = Path(output) if output else folder / REPORT_FILE
    patterns = ("*.safetensors", "*.json", "*.csv")
    require_not_input(page, (path for pattern in patterns for path in folder.rglob(pattern)))
    if examples < 0:
        raise OptionError(f"examples must be 0 or more. Got {examples} instead.")
    run = read_run(folder, device="auto")
    evaluation = stored_evaluation(folder) or evaluate_model(folder, progress=progress)
    calibration = read_calibration(folder)
    choices: list[Choice] = []
    if evaluation is not None and run.data is not None:
        table = _calibrated(evaluation.table, calibration) if calibration else evaluation.table
        choices = choose_examples(table, reference_categories(run.data.in_split("test")), examples)
    text = report_page(
        run,
        evaluation.table if evaluation else None,
        evaluation.figures if evaluation else None,
        calibration,
        examples=_explained(run, evaluation, calibration, choices, progress),
        example_gaps=[_NO_SUCH_EXAM[kind] for kind in absent_kinds(choices, examples)],
    )
    write_text(page, text)
    return page


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


def choose_examples(table: ScoreTable, labels: Mapping[str, Category], count: int) -> list[Choice]:
    """Choose examples by their exam scores: correct, wrong and most uncertain ones, each exam once.

    A third each, as far as there are such exams; free places go to correct ones, then to uncertain ones. Wrong are
    those with the highest score for a wrong category; uncertain those whose two highest scores are closest, right or
    wrong; correct those with the highest score, one of each category before a second of any. The exam's name decides
    ties.

    Raises
    ------
    TableError
        An exam of the table has no label.
    """
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
    """Name the kinds that `choose_examples` chose no exam for, with ``count`` examples asked for."""
    present = {choice.kind for choice in choices}
    return [kind for kind in ("wrong", "uncertain", "correct")[:count] if kind not in present]


def _each_category_first(exams: Sequence[Choice]) -> list[Choice]:
    """Sort by turns: the first exam of each category, then the second of each, and so on."""
    taken: dict[Category, int] = {}
    turns = []
    for exam in exams:
        taken[exam.reference] = taken.get(exam.reference, 0) + 1
        turns.append(taken[exam.reference])
    return [exam for _, exam in sorted(zip(turns, exams, strict=True), key=lambda pair: pair[0])]


def _calibrated(table: ScoreTable, calibration: Calibration) -> ScoreTable:
    """Calibrate the exam scores of a table, so that examples are chosen by the scores that the page shows."""
    calibrated = calibrated_exams(table, calibration)
    raw = np.isnan(calibrated).any(axis=1, keepdims=True)
    return replace(table, scores={**table.scores, "subject": np.where(raw, table.scores["subject"], calibrated)})


def _explained(
    run: RunRecord,
    evaluation: SplitEvaluation | None,
    calibration: Calibration | None,
    choices: Sequence[Choice],
    progress: Progress | None,
) -> list[Mapping[str, Any]]:
    """Explain the chosen exams as ``predict`` and ``explain`` do, with small pictures."""
    exams = run.data.in_split("test").exams() if run.data else {}
    fusion, policy = (calibration.fusion, calibration.policy) if calibration else (run.model.fusion, "mean")
    examples: list[Mapping[str, Any]] = []
    for choice in choices:
        scored_views = evaluation.view_scores.get(choice.exam_id) if evaluation else None
        records = exams[choice.exam_id]
        scored = score_records(run.model, choice.exam_id, records, fusion=fusion, policy=policy, scored=scored_views)
        result = exam_result(scored.scores, calibration)
        maps = explain_exam(run.model, scored, result=result)
        verdicts = score_exam_maps(run.model, maps, spec=ScoreSpec(stability=False)).verdicts
        block = map_block(maps, verdicts=verdicts, longest_px=LIST_PX)
        examples.append({"kind": choice.kind, **exam_section(result, [block], reference=choice.reference)})
        if progress:
            progress(len(examples), len(choices))
    return examples
