"""The report of a training run as one HTML page: data, training, test figures, certainty, examples, receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity import __version__
from mammodensity.data.dataset import reference_categories
from mammodensity.evaluation.bootstrap import Figure
from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.evaluation.labels import match, scored_exams
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.pages.plots import reject_plot, reliability_diagram, training_curves
from mammodensity.pages.templates import render_page
from mammodensity.pages.wording import (
    DASH,
    OTHER_CATEGORIES,
    cautions,
    count_tables,
    counted,
    figure_words,
    flattened,
    number,
    percent,
    result_in_words,
    sentence,
    training_in_words,
)
from mammodensity.results.calibration import Calibration, scores_of_views
from mammodensity.results.cross_validation import expected_calibration_error, null_band
from mammodensity.results.score_calibration import prediction_sets
from mammodensity.studies.further import reject_curve
from mammodensity.studies.groups import view_subsets
from mammodensity.terms import DENSITY, LEVEL_WORDS, PROJECTIONS
from mammodensity.training.records import RunRecord

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]

_TILES = (
    ("accuracy", "Right category", percent),
    ("linear_kappa", "Kappa, linear", number),
    ("quadratic_kappa", "Kappa, quadratic", number),
    ("dense_accuracy", "Right on dense or not", percent),
)
_MACHINE_FACTS = ("command", "device", "python", "machine", "versions")
_LEAST_EXAMS = 10  # below, a curve of certainty would be noise
_ABSTAINED = (0.0, 0.1, 0.2, 0.3)
_TINT = (31, 95, 153)  # full strength of a confusion cell
_STRONGEST = 0.55  # share of the tint at most, so that dark text keeps a contrast above 4.5


def report_page(
    run: RunRecord,
    table: ScoreTable | None,
    figures: Mapping[str, FiguresOfMerit] | None,
    calibration: Calibration | None,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    example_gaps: Sequence[str] = (),
) -> str:
    """Write the page of a training run as HTML text that needs no other file.

    Parameters
    ----------
    table, figures
        Scores and figures of merit of the test exams; None without any.
    examples
        The values of each example exam, as `mammodensity.pages.exam_page.exam_section` makes them, and its ``kind``.
    example_gaps
        Why examples of a kind are absent.
    """
    subject = figures["subject"] if figures else None
    reference = None
    if table is not None and run.data is not None:
        reference = match(table, reference_categories(run.data.in_split("test")))
    values = {
        "title": run.folder.resolve().name,
        "version": __version__,
        "calibrated": calibration is not None,
        "categories": run.scale,
        "of_density": run.scale == DENSITY,
        "other_categories": OTHER_CATEGORIES,
        "trained": training_in_words(run),
        "cautions": cautions(run, subject),
        "summary": result_in_words(subject) if subject else None,
        "tiles": _tiles(subject) if subject and subject.n else [],
        "data": run.data,
        "phantoms": run.phantoms,
        "counts": count_tables(run.data) if run.data else [],
        "imported": run.imported,
        "networks": list(run.kept),
        "curves": training_curves(run.histories, run.kept, len(run.scale)),
        "kept": run.kept,
        "figures": figures,
        "figure_words": figure_words(run.scale),
        "level_words": LEVEL_WORDS,
        "resampled": "patients" if subject and subject.patients is not None else "exams",
        "figure_notes": Notes(),
        "category_notes": Notes(),
        "tint": tint,
        "dash": DASH,
        "certainty": None
        if table is None or reference is None
        else certainty(table, reference, calibration, joint=run.joint is not None),
        "examples": examples,
        "example_gaps": example_gaps,
        "receipt": _receipt_tables(run),
    }
    return render_page("report.html.jinja", values)


def _tiles(subject: FiguresOfMerit) -> list[tuple[str, str, str]]:
    """Name, value and note of each figure of the headline."""
    tiles = []
    for name, words, show in _TILES:
        figure = subject[name]
        interval = f"{show(figure.low)} to {show(figure.high)}" if figure.interval else "no interval"
        tiles.append((words, show(figure.value), figure.reason or interval))
    return tiles


class Notes:
    """Notes below a table. Each has a letter, as a number after a dash would look like a value."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        """Letter of each text."""

    def marks(self, figure: Figure, note: str | None = None) -> list[str]:
        """Give the letters of the notes on a figure; texts that are new are added."""
        texts = [f"Undefined: {figure.reason}."] if figure.reason else []
        texts += [sentence(note)] if note else []
        if figure.interval and figure.undefined_resamples:
            texts.append("Undefined in some resamples of the bootstrap, which the interval leaves out.")
        return [self.texts.setdefault(text, note_letter(len(self.texts))) for text in texts]


def note_letter(index: int) -> str:
    """Give the letter of a note, as the browser counts ``<ol type="a">``.

    >>> note_letter(0), note_letter(27)
    ('a', 'ab')
    """
    return (note_letter(index // 26 - 1) if index >= 26 else "") + ascii_lowercase[index % 26]


def tint(share: float) -> str:
    """Colour a cell of a confusion matrix by its share of the row."""
    parts = (round(255 + (full - 255) * _STRONGEST * share) for full in _TINT)
    return "#" + "".join(f"{part:02x}" for part in parts)


def certainty(
    table: ScoreTable, reference: Positions, calibration: Calibration | None, *, joint: bool = False
) -> dict[str, Any] | None:
    """Make the values of the section on certainty from the test exams with scores; None for fewer than ten.

    Parameters
    ----------
    reference
        (N,) in the order of the table's exams.
    joint
        The model is a joint network: the table does not hold what it would answer without a view, so that the part on
        missing views is left out.
    """
    scores, categories = scored_exams(table, reference)
    if len(categories) < _LEAST_EXAMS:
        return None
    curve = reject_curve(categories, scores)
    subsets = None if joint else view_subsets(table, reference)
    assert curve is not None
    values: dict[str, Any] = {
        "exams": len(categories),
        "calibrations": [_calibration_error("raw", scores, categories)],
        "sets": None,
        "notes": _calibration_notes(calibration),
        "reject": reject_plot(curve),
        "rejected": [(share, curve.at(share)) for share in _ABSTAINED],
        "by_number": subsets.by_number if subsets else {},
    }
    if calibration is not None:
        calibrated = calibrated_exams(table, calibration)
        whole = ~np.isnan(calibrated).any(axis=1)
        if whole.any():
            calibrated, categories = calibrated[whole], reference[whole]
            values["calibrations"].append(_calibration_error("calibrated", calibrated, categories))
            limits = calibration.views[PROJECTIONS].limits(calibration.set_kind, calibration.coverage)
            sets = prediction_sets(calibrated, calibration.set_kind, limits)
            values["sets"] = {
                "coverage": calibration.coverage,
                "exams": len(categories),
                "covered": float(sets[np.arange(len(categories)), categories].mean()),
                "mean_size": float(sets.sum(axis=1).mean()),
            }
    return values


def calibrated_exams(table: ScoreTable, calibration: Calibration) -> Floats:
    """Calibrate the scores (N, 4) of the exams with all four views, NaN for the others, as ``predict`` does."""
    scores = scores_of_views(table, calibration.fusion, calibration.policy)[PROJECTIONS]
    calibrated = np.full_like(scores, np.nan)
    if PROJECTIONS in calibration.views:
        whole = ~np.isnan(scores).any(axis=1)
        calibrated[whole] = calibration.views[PROJECTIONS].calibration_map(scores[whole])
    return calibrated


def _calibration_error(name: str, scores: Floats, reference: Positions) -> dict[str, Any]:
    """Measure the calibration error; perfectly calibrated scores of as many exams are in the band in 9 of 10 cases."""
    low, _, high = null_band(scores)
    error = expected_calibration_error(scores, reference)
    return {"name": name, "picture": reliability_diagram(scores, reference), "error": error, "band": (low, high)}


def _calibration_notes(calibration: Calibration | None) -> list[str]:
    """Say why figures of calibrated scores may flatter, a sentence each."""
    if calibration is None:
        return []
    notes = [sentence(text) for text in calibration.warnings]
    if calibration.overlap.test:
        notes.append(
            f"{counted(calibration.overlap.test, 'test exam')} made the calibration, which looks better on them than "
            "it is. Its cross-validated figures are in calibration.json."
        )
    return notes


def _receipt_tables(run: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """Make headed lists of (name, value) for the receipt; lists that would be empty are left out."""
    receipt = dict(run.receipt or {})
    machine = {key: value for key, value in receipt.items() if key in _MACHINE_FACTS}
    recipe = run.recipe or receipt.get("recipe")
    tables = [
        ("Machine and versions", flattened(machine)),
        ("Recipe", flattened(recipe) if isinstance(recipe, Mapping) else []),
        ("Data", flattened(run.data_facts)),
        ("Network files, SHA-256", list(run.network_hashes.items())),
        ("Keras files", flattened({p.value: run.training(p) for p in run.imported})),
    ]
    return [(heading, pairs) for heading, pairs in tables if pairs]
