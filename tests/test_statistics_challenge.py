"""The federated challenge's figures, as scikit-learn computes them on predictions merged by patient."""

import numpy as np
import pytest
from sklearn import metrics

from mammodensity.studies.further import CHALLENGE_FIGURES, challenge_figures


def undefined(found):
    return {name for name, figure in found.figures.items() if figure.reason}


@pytest.fixture(scope="module")
def cohort():
    """Three exams for each of 60 patients, of one category each."""
    random = np.random.default_rng(4)
    reference = np.repeat(random.integers(4, size=60), 3)
    scores = random.dirichlet([1.0] * 4, 180) + 0.6 * np.eye(4)[reference]
    return reference, scores / scores.sum(axis=1, keepdims=True), [f"p{number // 3}" for number in range(180)]


def test_figures_of_patients(cohort):
    reference, scores, patients = cohort
    true, mean = reference[::3], scores.reshape(60, 3, 4).mean(axis=1)
    predicted = mean.argmax(axis=1)
    found = challenge_figures(reference, scores, patients)
    assert found.n == 60
    assert found.figures["linear_kappa"].value == pytest.approx(
        metrics.cohen_kappa_score(true, predicted, weights="linear")
    )
    assert found.figures["quadratic_kappa"].value == pytest.approx(
        metrics.cohen_kappa_score(true, predicted, weights="quadratic")
    )
    assert found.figures["auc"].value == pytest.approx(metrics.roc_auc_score(true >= 2, mean[:, 2:].sum(axis=1)))
    assert found.figures["avg_lin_dist"].value == pytest.approx(-metrics.mean_absolute_error(true, predicted))
    assert found.figures["avg_quad_dist"].value == pytest.approx(-metrics.mean_squared_error(true, predicted))
    assert undefined(found) == set()


def test_order_of_exams_changes_nothing_and_merging_something(cohort):
    reference, scores, patients = cohort
    order = np.random.default_rng(1).permutation(180)
    first = challenge_figures(reference, scores, patients)
    shuffled = challenge_figures(reference[order], scores[order], [patients[exam] for exam in order])
    for name in CHALLENGE_FIGURES:
        assert shuffled.figures[name].value == pytest.approx(first.figures[name].value), name
    alone = challenge_figures(reference, scores)
    assert alone.n == 180
    assert alone.figures["linear_kappa"].value != pytest.approx(first.figures["linear_kappa"].value)


def test_undefined_figures_have_reasons(cohort):
    _, scores, _ = cohort
    several = challenge_figures(np.array([0, 1]), scores[:2], ["p", "p"])
    assert undefined(several) == set(CHALLENGE_FIGURES)
    assert "different reference categories" in several.figures["auc"].reason
    assert np.isnan(several.figures["linear_kappa"].value)
    same = challenge_figures(np.array([2, 2]), np.tile([0, 0, 1.0, 0], (2, 1)))
    assert undefined(same) == {"linear_kappa", "quadratic_kappa", "auc"}
    assert same.figures["avg_lin_dist"].value == 0
    nothing = challenge_figures(np.zeros(0, dtype=int), np.zeros((0, 4)))
    assert nothing.figures["avg_quad_dist"].reason == "no exam has scores"
