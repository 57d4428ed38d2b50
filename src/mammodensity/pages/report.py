"""One HTML page of a training run, complete in itself: no network, no other file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mammodensity import __version__
from mammodensity.data.dataset import reference_categories
from mammodensity.errors import OptionError
from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.evaluation.labels import match
from mammodensity.evaluation.test_split import StoredEvaluation, evaluate_model, stored_evaluation
from mammodensity.outputs import write_text
from mammodensity.pages.certainty import calibrated_exams, certainty
from mammodensity.pages.exam import render_page
from mammodensity.pages.examples import Example, absent_kinds, choose_examples, explain_examples
from mammodensity.pages.figure_tables import (
    LEVEL_WORDS,
    Notes,
    category_rows,
    confusion_tables,
    count_tables,
    figure_rows,
    flattened,
    note_letter,
)
from mammodensity.pages.plots import training_curves
from mammodensity.pages.wording import (
    OTHER_CATEGORIES,
    cautions,
    number,
    percent,
    result_in_words,
    training_in_words,
)
from mammodensity.results.calibration import Calibration, read_calibration
from mammodensity.terms import DENSITY, PROJECTIONS
from mammodensity.training.model_folder import RunRecord, read_run
from mammodensity.workers import Progress

_TILES = (
    ("accuracy", "Right category", percent),
    ("linear_kappa", "Kappa, linear", number),
    ("quadratic_kappa", "Kappa, quadratic", number),
    ("dense_accuracy", "Right on dense or not", percent),
)


_NO_SUCH_EXAM = {
    "wrong": "no test exam is wrong",
    "uncertain": "no exam is left for uncertain",
    "correct": "no exam is left for correct",
}
_MACHINE_FACTS = ("command", "device", "python", "machine", "versions")


@dataclass(frozen=True)
class Tile:
    """One figure of the headline."""

    name: str
    value: str
    note: str
    """The interval, or why the figure is undefined."""


def write_report(model_folder: Path, output: Path, *, examples: int = 6, progress: Progress | None = None) -> Path:
    """Write one self-contained HTML page of a model: data, training, test figures, example exams, receipt.

    Test figures are those of ``evaluate_model``, which is called where they are absent or of other networks.

    Parameters
    ----------
    model_folder
        As written by ``train_model`` or ``import-keras``.
    output
        The page; replaced whole or left as it was.
    examples
        How many example exams to show at most.
    progress
        Called with (done, total) while exams are scored, and again while the examples are explained.

    Returns
    -------
    ``output``.

    Raises
    ------
    OptionError
        ``examples`` is negative.
    CheckpointError, TableError
        The folder holds no model, or a file of it is damaged.
    LayoutError, ImageError
        An image of the manifest is gone or cannot be read.
    OutputError
        The page cannot be written.
    """
    if examples < 0:
        raise OptionError(f"examples must be 0 or more. Got {examples} instead.")
    run = read_run(model_folder, device="auto")
    evaluation = stored_evaluation(run.folder)
    if evaluation is None and evaluate_model(run.folder, progress=progress) is not None:
        evaluation = stored_evaluation(run.folder)
    calibration = read_calibration(run.folder)
    shown = _examples(run, evaluation, calibration, examples, progress)
    values = _page_values(run, evaluation, calibration, shown, examples)
    write_text(Path(output), render_page("report.html.jinja", values))
    return Path(output)


def _examples(
    run: RunRecord,
    evaluation: StoredEvaluation | None,
    calibration: Calibration | None,
    count: int,
    progress: Progress | None,
) -> list[Example]:
    """Explain example exams; a calibrated model's are chosen by their calibrated scores."""
    if evaluation is None or run.data is None:
        return []
    test, table = run.data.in_split("test"), evaluation.table
    if calibration is not None:
        calibrated = calibrated_exams(table, calibration)
        raw = np.isnan(calibrated).any(axis=1, keepdims=True)
        subject = np.where(raw, table.scores["subject"], calibrated)
        table = replace(table, scores={**table.scores, "subject": subject})
    choices = choose_examples(table, reference_categories(test), count)
    return explain_examples(run.model, calibration, test, choices, progress)


def _page_values(
    run: RunRecord,
    evaluation: StoredEvaluation | None,
    calibration: Calibration | None,
    examples: list[Example],
    asked: int,
) -> dict[str, Any]:
    """The values that the template shows."""
    figures = evaluation.figures if evaluation else None
    subject = figures["subject"] if figures else None
    return {
        "title": run.folder.resolve().name,
        "version": __version__,
        "calibrated": calibration is not None,
        "categories": run.scale,
        "note_letter": note_letter,
        "of_density": run.scale == DENSITY,
        "other_categories": OTHER_CATEGORIES,
        "projections": PROJECTIONS,
        "trained": training_in_words(run),
        "cautions": cautions(run, subject),
        "found": result_in_words(subject) if subject else None,
        "tiles": _tiles(subject) if subject and subject.n else [],
        "data": run.data,
        "data_facts": run.data_facts,
        "phantoms": run.phantoms,
        "counts": count_tables(run.data) if run.data else [],
        "imported": run.imported,
        "networks": list(run.kept),
        "curves": training_curves(run.histories, run.kept, len(run.scale)),
        "kept": run.kept,
        "examples": examples,
        "example_gaps": [_NO_SUCH_EXAM[kind] for kind in absent_kinds([example.choice for example in examples], asked)],
        "receipt": _receipt_tables(run),
        "certainty": _certainty(run, evaluation, calibration),
        **_figure_values(figures),
    }


def _certainty(
    run: RunRecord, evaluation: StoredEvaluation | None, calibration: Calibration | None
) -> dict[str, Any] | None:
    if evaluation is None or run.data is None:
        return None
    reference = match(evaluation.table, reference_categories(run.data.in_split("test")))
    return certainty(evaluation.table, reference, calibration, joint=run.joint is not None)


def _tiles(subject: FiguresOfMerit) -> list[Tile]:
    tiles = []
    for name, words, show in _TILES:
        figure = subject[name]
        interval = f"{show(figure.low)} to {show(figure.high)}" if figure.interval else "no interval"
        tiles.append(Tile(words, show(figure.value), figure.reason or interval))
    return tiles


def _figure_values(figures: Mapping[str, FiguresOfMerit] | None) -> dict[str, Any]:
    if figures is None:
        return {"figures": None}
    notes, category_notes = Notes(), Notes()
    return {
        "figures": figures,
        "resampled": "exams" if figures["subject"].patients is None else "patients",
        "level_words": LEVEL_WORDS,
        "confusion": confusion_tables(figures),
        "figure_rows": figure_rows(figures, notes),
        "notes": notes.texts,
        "category_rows": category_rows(figures["subject"], category_notes),
        "category_notes": category_notes.texts,
    }


def _receipt_tables(run: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headed lists of (name, value) for the receipt; lists that would be empty are left out."""
    receipt = dict(run.receipt or {})
    hashes = list(run.network_hashes.items())
    machine = {key: value for key, value in receipt.items() if key in _MACHINE_FACTS}
    recipe = run.recipe or receipt.get("recipe")
    networks = flattened({p.value: run.training(p) for p in run.imported})
    tables = [
        ("Machine and versions", flattened(machine)),
        ("Recipe", flattened(recipe) if isinstance(recipe, Mapping) else []),
        ("Data", flattened(run.data_facts)),
        ("Network files, SHA-256", hashes),
        ("Keras files", networks),
    ]
    return [(heading, pairs) for heading, pairs in tables if pairs]
