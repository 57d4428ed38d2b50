"""Every combination of views, against fusion and scikit-learn by hand."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score

from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.evaluation.figures import figures_of_merit
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.studies.groups import view_subsets
from mammodensity.terms import LEVELS, PROJECTIONS, TISSUE

FEW = BootstrapSpec(50)


@pytest.fixture(scope="module")
def cohort():
    random = np.random.default_rng(5)
    reference = random.integers(4, size=50)
    views = random.dirichlet([1.0] * 4, (50, 4)) + 0.5 * np.eye(4)[reference][:, np.newaxis]
    return reference, views / views.sum(axis=2, keepdims=True)


def table_of(views):
    scores = {level: np.full((len(views), 4), np.nan) for level in LEVELS}
    scores |= {view.value: views[:, place].copy() for place, view in enumerate(PROJECTIONS)}
    return ScoreTable(tuple(f"e{number}" for number in range(len(views))), scores)


def test_every_combination_is_fused_and_measured(cohort):
    reference, views = cohort
    found = view_subsets(table_of(views), reference, spec=FEW)
    subsets = [one for size in (1, 2, 3, 4) for one in combinations(range(4), size)]
    assert len(found.combinations) == len(subsets) == 15
    for subset, one in zip(subsets, found.combinations, strict=True):
        mean = views[:, subset].mean(axis=1)
        assert one.views == tuple(PROJECTIONS[view] for view in subset)
        assert one.figures["accuracy"].value == pytest.approx(accuracy_score(reference, mean.argmax(axis=1)))
        kappa = cohen_kappa_score(reference, mean.argmax(axis=1), weights="linear")
        assert one.figures["linear_kappa"].value == pytest.approx(kappa)
        assert one.figures["mean_confidence"].value == pytest.approx(mean.max(axis=1).mean())
        assert one.figures["accuracy"].low <= one.figures["accuracy"].value <= one.figures["accuracy"].high
    by_number = [found.by_number[size].mean_set_size for size in (1, 2, 3, 4)]
    assert 0 < by_number[3] < by_number[0] < 4  # more views, smaller sets
    for size in (1, 2, 3, 4):
        alike = [one.figures["accuracy"].value for one in found.combinations if len(one.views) == size]
        assert found.by_number[size].figures["accuracy"].value == pytest.approx(np.mean(alike))
    assert found.by_number[4].figures == found.combinations[-1].figures
    assert np.ptp(found.by_number[1].figures["accuracy"].interval) < np.ptp(
        found.combinations[0].figures["accuracy"].interval
    )


def test_the_method_of_fusion_counts(cohort):
    reference, views = cohort
    mean, vote = (view_subsets(table_of(views), reference, fusion=name, spec=FEW) for name in ("mean", "vote"))
    assert vote.fusion == "vote"
    assert vote.combinations[0].figures["accuracy"].value == mean.combinations[0].figures["accuracy"].value
    assert (
        vote.combinations[-1].figures["mean_confidence"].value != mean.combinations[-1].figures["mean_confidence"].value
    )


def test_exams_that_lack_a_view_are_left_out_and_counted(cohort):
    reference, views = cohort
    gaps = views.copy()
    gaps[:5, 2] = np.nan
    found = view_subsets(table_of(gaps), reference, spec=FEW)
    assert (found.n, found.left_out) == (45, 5)
    expected = figures_of_merit(reference[5:], views[5:, 0], bootstrap=0)
    assert found.combinations[0].figures["accuracy"].value == pytest.approx(expected.accuracy)
    gaps[:, 1] = np.nan
    assert view_subsets(table_of(gaps), reference) is None


def test_order_changes_nothing_and_patients_are_drawn_whole(cohort):
    reference, views = cohort
    patients = [f"p{number // 2}" for number in range(50)]
    order = np.random.default_rng(2).permutation(50)
    first = view_subsets(table_of(views), reference, patients=patients, spec=FEW)
    again = view_subsets(table_of(views[order]), reference[order], patients=[patients[e] for e in order], spec=FEW)
    assert again.combinations == first.combinations
    exams = view_subsets(table_of(views), reference, spec=FEW)
    assert exams.combinations[0].figures != first.combinations[0].figures


def test_sets_are_of_a_to_d_only():
    random = np.random.default_rng(1)
    views = random.dirichlet([1.0] * 3, 30)
    table = ScoreTable(tuple(map(str, range(30))), dict.fromkeys(LEVELS, views), scale=TISSUE)
    found = view_subsets(table, random.integers(3, size=30), spec=FEW)
    assert np.isnan(found.combinations[0].mean_set_size)
    assert found.combinations[0].to_dict()["mean_set_size"] is None
