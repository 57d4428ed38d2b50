"""The report's section on certainty: calibration, prediction sets, abstention and missing views, on the test exams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.evaluation.labels import scored_exams
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.pages.pictures import data_uri
from mammodensity.pages.plots import reliability_diagram
from mammodensity.pages.wording import counted
from mammodensity.results.calibration import Calibration, scores_of_views
from mammodensity.results.cross_validation import expected_calibration_error, null_band
from mammodensity.results.score_calibration import prediction_sets
from mammodensity.studies.groups import view_subsets
from mammodensity.studies.study_plots import reject_plot
from mammodensity.studies.triage import reject_curve
from mammodensity.terms import PROJECTIONS

_LEAST_EXAMS = 10  # below, a curve would be noise
_POINTS = (0.0, 0.1, 0.2, 0.3)

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class CertaintyFigures:
    """Raw or calibrated scores of the test exams."""

    name: str
    picture: str
    """Reliability diagram, a data URI."""
    error: float
    band: tuple[float, float]
    """The error of perfectly calibrated scores of as many exams, in nine of ten cases."""


@dataclass(frozen=True)
class SetFigures:
    """Prediction sets of the test exams."""

    coverage: float
    exams: int
    covered: float
    mean_size: float


def certainty(
    table: ScoreTable, reference: Positions, calibration: Calibration | None, *, joint: bool = False
) -> dict[str, Any] | None:
    """Make the values of the section from the test exams with scores; None for fewer than ten.

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
        "calibrations": [_calibration_figures("raw", scores, categories)],
        "sets": None,
        "notes": _notes(calibration),
        "reject": data_uri(reject_plot(curve), "image/svg+xml"),
        "rejected": [(share, curve.at(share)) for share in _POINTS],
        "by_number": subsets.by_number if subsets else {},
    }
    if calibration is not None:
        calibrated = calibrated_exams(table, calibration)
        whole = ~np.isnan(calibrated).any(axis=1)
        if whole.any():
            calibrated, categories = calibrated[whole], reference[whole]
            values["calibrations"].append(_calibration_figures("calibrated", calibrated, categories))
            limits = calibration.views[PROJECTIONS].limits(calibration.set_kind, calibration.coverage)
            sets = prediction_sets(calibrated, calibration.set_kind, limits)
            covered = float(sets[np.arange(len(categories)), categories].mean())
            mean_size = float(sets.sum(axis=1).mean())
            values["sets"] = SetFigures(calibration.coverage, len(categories), covered, mean_size)
    return values


def calibrated_exams(table: ScoreTable, calibration: Calibration) -> Floats:
    """Calibrated scores (N, 4) of the exams with all four views, NaN for the others, as ``predict`` gives them."""
    scores = scores_of_views(table, calibration.fusion, calibration.policy)[PROJECTIONS]
    calibrated = np.full_like(scores, np.nan)
    if PROJECTIONS in calibration.views:
        whole = ~np.isnan(scores).any(axis=1)
        calibrated[whole] = calibration.views[PROJECTIONS].calibration_map(scores[whole])
    return calibrated


def _notes(calibration: Calibration | None) -> list[str]:
    """Why figures of calibrated scores may flatter, a sentence each."""
    if calibration is None:
        return []
    notes = [f"{text[0].upper()}{text[1:]}." for text in calibration.warnings]
    if calibration.overlap.test:
        notes.append(
            f"{counted(calibration.overlap.test, 'test exam')} made the calibration, which looks better on them than "
            "it is. Its cross-validated figures are in calibration.json."
        )
    return notes


def _calibration_figures(name: str, scores: Floats, reference: Positions) -> CertaintyFigures:
    low, _, high = null_band(scores)
    return CertaintyFigures(
        name, reliability_diagram(scores, reference), expected_calibration_error(scores, reference), (low, high)
    )
