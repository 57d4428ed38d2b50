"""Figures of merit of a trained model on its own test split, kept beside the networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import MANIFEST_NAME, SPLITS, read_manifest, reference_categories
from mammodensity.errors import ImageError, TableError, require_choice
from mammodensity.evaluation.figures import FiguresOfMerit, evaluate_table, to_json
from mammodensity.evaluation.score_tables import ScoreTable, read_score_table, score_table, write_score_table
from mammodensity.inputs import read_entries
from mammodensity.models.scoring import ViewScores, scored_exams
from mammodensity.models.trained import load_networks
from mammodensity.outputs import file_sha256, receipt, staged_folder, write_json
from mammodensity.scores import ExamScores
from mammodensity.terms import LEVELS, PROJECTIONS, RESEARCH_USE_ONLY, Projection
from mammodensity.training.records import network_hashes
from mammodensity.workers import Progress

PREDICTIONS_FILE = "predictions.csv"
FIGURES_FILE = "figures.json"
_RECEIPT_FILE = "receipt.json"
_AGAIN = "remove the folder to evaluate again"


@dataclass(frozen=True, eq=False)
class SplitEvaluation:
    """Scores and figures of merit of a split, as they are in the model folder."""

    table: ScoreTable
    figures: dict[str, FiguresOfMerit]
    """By level, in the order of `LEVELS`."""
    view_scores: Mapping[str, Mapping[Projection, ViewScores]] = field(default_factory=dict)
    """Scores of views by exam, if the views were scored just now, so that they need not be scored again."""


def evaluate_model(
    model_folder: Path, *, split: str = "test", device: str = "auto", progress: Progress | None = None
) -> SplitEvaluation | None:
    """Score the exams of one split of the model's own manifest and compare with their reference.

    Projections are fused by their mean, or by a joint network itself; an exam that lacks a projection has no scores for
    what is fused from it, and is counted as such. Projections that the whole manifest lacks, such as CC of a data
    set of MLO alone, are done without: exams are then fused from those they have. Writes ``<split>/predictions.csv``,
    ``<split>/figures.json`` and ``<split>/receipt.json`` in the model folder, together or not at all. Returns None if
    the model has no manifest, or the split no exam.

    Raises
    ------
    OptionError
        There is no such split.
    CheckpointError
        The folder holds no model, or a network is damaged.
    LayoutError, ImageError
        The manifest or an image cannot be used.
    """
    require_choice("split", split, SPLITS)
    folder = Path(model_folder)
    model = load_networks(folder, device)
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        return None
    data = read_manifest(manifest).in_split(split)
    if not data.records:
        return None
    partial = {record.projection for record in read_manifest(manifest).records} != set(PROJECTIONS)
    exams: list[ExamScores] = []
    view_scores = {}
    count = len(data.exams())
    for exam in scored_exams(model, data, allow_missing=partial):
        for text in exam.scores.refused.values():  # figures without it would be of other exams than the reader thinks
            raise ImageError(text)
        exams.append(exam.scores)
        view_scores[exam.scores.exam_id] = exam.view_scores
        if progress:
            progress(len(exams), count)
    facts = {"split": split, **_made_from(folder), "device": str(model.device), "fusion": model.fusion}
    with staged_folder(folder / split) as staging:
        write_score_table(staging / PREDICTIONS_FILE, exams)
        patients = {record.exam_id: record.patient_id for record in data.records}
        figures = evaluate_table(score_table(exams), reference_categories(data), patients=patients)
        write_json(staging / FIGURES_FILE, to_json(figures))
        write_json(staging / _RECEIPT_FILE, {"note": RESEARCH_USE_ONLY, **receipt("evaluate", **facts)})
    return replace(_read_evaluation(folder / split), view_scores=view_scores)


def stored_evaluation(model_folder: Path, split: str = "test") -> SplitEvaluation | None:
    """Read what ``evaluate_model`` wrote; None if there is nothing, or it is of other networks or another manifest.

    Raises
    ------
    TableError
        A file of it is damaged.
    """
    folder = Path(model_folder) / split
    if not (folder / FIGURES_FILE).is_file() or not (folder / PREDICTIONS_FILE).is_file():
        return None
    if (folder / _RECEIPT_FILE).is_file():
        noted = read_entries(folder / _RECEIPT_FILE, TableError, _AGAIN)
        if any(noted.get(name) != value for name, value in _made_from(Path(model_folder)).items()):
            return None
    return _read_evaluation(folder)


def _read_evaluation(folder: Path) -> SplitEvaluation:
    return SplitEvaluation(read_score_table(folder / PREDICTIONS_FILE), read_figures(folder / FIGURES_FILE))


def read_figures(path: Path) -> dict[str, FiguresOfMerit]:
    """Read figures of merit as ``to_json`` made them.

    Raises
    ------
    TableError
        The file is damaged.
    """
    values = read_entries(path, TableError, _AGAIN)
    try:
        return {level: FiguresOfMerit.from_dict(values[level]) for level in LEVELS}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        expected = "expected the figures of merit of seven levels"
        raise TableError(f"{path} is damaged: {expected}; {_AGAIN}") from error


def _made_from(folder: Path) -> dict[str, Any]:
    """Hashes of all that figures depend on: they are out of date once one of these hashes has changed."""
    manifest = folder / MANIFEST_NAME
    return {
        "networks": network_hashes(folder),
        "manifest_sha256": file_sha256(manifest) if manifest.is_file() else None,
    }
