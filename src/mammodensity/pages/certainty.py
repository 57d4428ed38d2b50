"""The report's section on how sure the model is: calibration, sets, abstention and missing views, on the test exams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.evaluation.labels import scored_exams
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.pages.pictures import data_uri
from mammodensity.pages.wording import counted
from mammodensity.results.calibration import Calibration, scores_of_views
from mammodensity.results.cross_validation import expected_calibration_error, null_band, reliability
from mammodensity.results.score_calibration import prediction_sets
from mammodensity.studies.groups import view_subsets
from mammodensity.studies.study_plots import reject_plot
from mammodensity.studies.triage import reject_curve
from mammodensity.terms import PROJECTIONS

_INK, _FAINT, _BAR = "#1d2733", "#8a949e", "#79a7cd"
_LEAST_EXAMS = 10  # below, a curve would be noise
_POINTS = (0.0, 0.1, 0.2, 0.3)

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class CertaintyFigures:
    """Scores of the test exams, as they are or calibrated."""

    name: str
    picture: str
    """Reliability diagram, a data URI."""
    error: float
    band: tuple[float, float]
    """Of a perfectly calibrated reader with as many exams, nine times of ten."""


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
    """What the template shows of the test exams with scores; None for fewer than ten.

    ``reference`` (N,) is in the order of the table's exams. Of a ``joint`` network nothing is said of missing views:
    the table does not hold what it would answer without them.
    """
    scores, known = scored_exams(table, reference)
    if len(known) < _LEAST_EXAMS:
        return None
    curve = reject_curve(known, scores)
    subsets = None if joint else view_subsets(table, reference)
    assert curve is not None
    found: dict[str, Any] = {
        "exams": len(known),
        "calibrations": [_calibration_figures("as they are", scores, known)],
        "sets": None,
        "notes": _notes(calibration),
        "reject": data_uri(reject_plot(curve), "image/svg+xml"),
        "rejected": [(share, curve.at(share)) for share in _POINTS],
        "by_number": subsets.by_number if subsets else {},
    }
    fused, of_whole = _whole_exams(table, reference, calibration)
    if calibration is not None and len(of_whole):
        fitted = calibration.views[PROJECTIONS]
        calibrated = fitted.calibration_map(fused)
        found["calibrations"].append(_calibration_figures("calibrated", calibrated, of_whole))
        limits = fitted.limits(calibration.set_kind, calibration.coverage)
        sets = prediction_sets(calibrated, calibration.set_kind, limits)
        covered = float(sets[np.arange(len(of_whole)), of_whole].mean())
        found["sets"] = SetFigures(calibration.coverage, len(of_whole), covered, float(sets.sum(axis=1).mean()))
    return found


def _notes(calibration: Calibration | None) -> list[str]:
    """Why figures of calibrated scores may flatter, a sentence each."""
    if calibration is None:
        return []
    found = [f"{text[0].upper()}{text[1:]}." for text in calibration.warnings]
    if calibration.overlap.test:
        found.append(
            f"{counted(calibration.overlap.test, 'test exam')} made the calibration, which looks better on them than "
            "it is; its figures by cross-validation are in calibration.json, and are what calibrate printed."
        )
    return found


def _whole_exams(table: ScoreTable, reference: Positions, calibration: Calibration | None) -> tuple[Floats, Positions]:
    """Scores of the exams with all views, fused as the calibration was."""
    if calibration is None or PROJECTIONS not in calibration.views:
        return np.empty((0, 4)), np.empty(0, np.intp)
    scores = scores_of_views(table, calibration.fusion, calibration.policy)[PROJECTIONS]
    whole = ~np.isnan(scores).any(axis=1)
    return scores[whole], reference[whole]


def _calibration_figures(name: str, scores: Floats, reference: Positions) -> CertaintyFigures:
    low, _, high = null_band(scores)
    return CertaintyFigures(
        name, reliability_diagram(scores, reference), expected_calibration_error(scores, reference), (low, high)
    )


def reliability_diagram(scores: Floats, reference: Positions) -> str:
    """Share of right categories against the score given to them, with the number of exams, as SVG in a data URI."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    found = reliability(scores, reference)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mammodensity", "font.size": 10}):
        figure = Figure(figsize=(3.6, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        edges = np.linspace(0, 1, len(found.count) + 1)
        heights = [0.0 if one is None else one for one in found.accuracy]
        above.bar(edges[:-1], heights, 0.1, align="edge", color=_BAR, edgecolor=_INK, linewidth=0.5)
        above.plot([0, 1], [0, 1], color=_INK, linewidth=1.0, linestyle="--")
        shown = _given(found.confidence, found.accuracy)
        above.plot([one for one, _ in shown], [two for _, two in shown], "o", color=_INK, markersize=4)
        above.set_ylabel("share of right categories")
        above.set_ylim(0, 1.02)
        below.bar(edges[:-1], found.count, 0.1, align="edge", color=_FAINT)
        below.set_ylabel("exams")
        below.set_xlabel("highest score of the exam")
        below.set_xlim(0, 1)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(_FAINT)
            axes.tick_params(colors=_INK, width=0.8)
        stream = BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    return data_uri(stream.getvalue(), "image/svg+xml")


def _given(first: Sequence[float | None], second: Sequence[float | None]) -> list[tuple[float, float]]:
    pairs = zip(first, second, strict=True)
    return [(one, two) for one, two in pairs if one is not None and two is not None]
