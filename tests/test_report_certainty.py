"""The report's section on certainty."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pytest

from mammodensity.evaluation.score_tables import ScoreTable, fuse_levels
from mammodensity.pages.plots import reliability_diagram
from mammodensity.pages.report_page import certainty
from mammodensity.results.calibration import Calibration, Overlap, fit_calibration, scores_of_views
from mammodensity.results.cross_validation import expected_calibration_error
from mammodensity.terms import PROJECTIONS


@pytest.fixture(scope="module")
def cohort():
    random = np.random.default_rng(3)
    reference = random.integers(4, size=60)
    views = random.dirichlet([1.0] * 4, (60, 4)) + 1.2 * np.eye(4)[reference][:, np.newaxis]
    views /= views.sum(axis=2, keepdims=True)
    scores = {view.value: views[:, place] for place, view in enumerate(PROJECTIONS)}
    return ScoreTable(tuple(map(str, range(60))), scores | fuse_levels(scores, "mean")), reference


def test_without_calibration_scores_are_judged_as_they_are(cohort):
    table, reference = cohort
    found = certainty(table, reference, None)
    assert found["sets"] is None
    (figures,) = found["calibrations"]
    assert figures["error"] == pytest.approx(expected_calibration_error(table.scores["subject"], reference))
    assert figures["band"][0] < figures["band"][1]
    assert [share for share, _ in found["rejected"]] == [0.0, 0.1, 0.2, 0.3]
    assert found["rejected"][0][1].kept == 60
    accuracy = {count: subset.figures["accuracy"].value for count, subset in found["by_number"].items()}
    assert accuracy[4] >= accuracy[1]
    assert certainty(table, reference, None, joint=True)["by_number"] == {}


def test_with_calibration_sets_are_counted(cohort):
    table, reference = cohort
    calibration = fit_calibration(scores_of_views(table), reference)
    found = certainty(table, reference, calibration)
    assert found["sets"]["coverage"] == 0.9
    assert found["sets"]["covered"] >= 0.85  # of the exams it was fitted to
    assert len(found["calibrations"]) == 2
    assert found["calibrations"][1]["error"] < found["calibrations"][0]["error"]


def test_it_is_said_where_figures_of_a_calibration_flatter(cohort):
    table, reference = cohort
    assert certainty(table, reference, None)["notes"] == []
    assert certainty(table, reference, Calibration({}))["notes"] == []
    (trained,) = certainty(table, reference, Calibration({}, overlap=Overlap(validation=5)))["notes"]
    assert "promise too much" in trained
    (tested,) = certainty(table, reference, Calibration({}, overlap=Overlap(test=9)))["notes"]
    assert tested.replace("\N{NO-BREAK SPACE}", " ").startswith("9 test exams made the calibration")


def test_of_few_exams_nothing_is_said(cohort):
    table, reference = cohort
    few = ScoreTable(table.exam_ids[:9], {level: scores[:9] for level, scores in table.scores.items()})
    assert certainty(few, reference[:9], None) is None


def test_the_diagram_is_a_picture_with_a_bar_for_each_bin(cohort):
    table, reference = cohort
    content = base64.b64decode(reliability_diagram(table.scores["subject"], reference).split(",")[1])
    root = ElementTree.fromstring(content)
    assert root.tag.endswith("svg")
    assert content == base64.b64decode(reliability_diagram(table.scores["subject"], reference).split(",")[1])
