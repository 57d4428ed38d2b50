"""Every combination of views, against fusion and scikit-learn by hand."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score

from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.evaluation.figures import figures_of_merit
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.studies.groups import view_subsets
from mammodensity.terms import LEVELS, PROJECTIONS

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
        assert one.accuracy == pytest.approx(accuracy_score(reference, mean.argmax(axis=1)))
        kappa = cohen_kappa_score(reference, mean.argmax(axis=1), weights="linear")
        assert one.linear_kappa == pytest.approx(kappa)
        assert one.mean_confidence == pytest.approx(mean.max(axis=1).mean())
        assert one.intervals["accuracy"][0] <= one.accuracy <= one.intervals["accuracy"][1]
    by_number = [found.by_number[size].mean_set_size for size in (1, 2, 3, 4)]
    assert 0 < by_number[3] < by_number[0] < 4  # more views, smaller sets
    for size in (1, 2, 3, 4):
        alike = [one.accuracy for one in found.combinations if len(one.views) == size]
        assert found.by_number[size].accuracy == pytest.approx(np.mean(alike))
    assert found.by_number[4].intervals == found.combinations[-1].intervals
    assert np.ptp(found.by_number[1].intervals["accuracy"]) < np.ptp(found.combinations[0].intervals["accuracy"])


def test_the_method_of_fusion_counts(cohort):
    reference, views = cohort
    mean, vote = (view_subsets(table_of(views), reference, fusion=name, spec=FEW) for name in ("mean", "vote"))
    assert vote.fusion == "vote"
    assert vote.combinations[0].accuracy == mean.combinations[0].accuracy
    assert vote.combinations[-1].mean_confidence != mean.combinations[-1].mean_confidence


def test_exams_that_lack_a_view_are_left_out_and_counted(cohort):
    reference, views = cohort
    gaps = views.copy()
    gaps[:5, 2] = np.nan
    found = view_subsets(table_of(gaps), reference, spec=FEW)
    assert (found.n, found.left_out) == (45, 5)
    expected = figures_of_merit(reference[5:], views[5:, 0], bootstrap=0)
    assert found.combinations[0].accuracy == pytest.approx(expected.accuracy)
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
    assert exams.combinations[0].intervals != first.combinations[0].intervals
