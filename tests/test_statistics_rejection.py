"""The reject curve against plain loops: area with ties, errors left at each threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, cohen_kappa_score

from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.studies.further import reject_curve

NONE = BootstrapSpec(0)


def cohort(count, seed, coarse=False):
    random = np.random.default_rng(seed)
    reference = random.integers(4, size=count)
    scores = random.dirichlet([0.8] * 4, count) + 0.5 * np.eye(4)[reference]
    if coarse:
        scores = np.round(scores * 3) + 1
    return reference, scores / scores.sum(axis=1, keepdims=True)


def mean_accuracy_of_the_surest(confidence, right):
    """The area by its definition; the exams of equal confidence in 300 random orders."""
    random = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        order = np.lexsort((random.random(len(right)), -confidence))
        areas.append(np.mean(np.cumsum(right[order]) / np.arange(1, len(right) + 1)))
    return np.mean(areas)


@given(st.integers(1, 40), st.integers(0, 10_000), st.booleans())
@settings(max_examples=30, deadline=None)
def test_area_by_its_definition(count, seed, coarse):
    reference, scores = cohort(count, seed, coarse)
    found = reject_curve(reference, scores, spec=NONE)
    right = scores.argmax(axis=1) == reference
    expected = mean_accuracy_of_the_surest(scores.max(axis=1), right)
    assert found.area.value == pytest.approx(expected, abs=0.06 if coarse else 1e-9)
    assert found.area_random == pytest.approx(right.mean())
    assert found.area_random <= found.area_best + 1e-12
    assert found.area.value <= found.area_best + 1e-12
    assert found.area_best == pytest.approx(np.mean(np.cumsum(np.sort(right)[::-1]) / np.arange(1, count + 1)))
    assert found.area.interval is None


def test_area_with_ties_by_hand():
    # the two of 0.7 are one hit and one miss: accuracy of the surest is 1/2 on average, of both 1/2, of three 2/3
    reference = np.array([0, 1, 2])
    scores = np.array([[0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.2]])
    assert reject_curve(reference, scores, spec=NONE).area.value == pytest.approx((1 / 2 + 1 / 2 + 2 / 3) / 3)


def test_points_count_what_is_kept():
    reference, scores = cohort(80, 3)
    confidence, predicted = scores.max(axis=1), scores.argmax(axis=1)
    found = reject_curve(reference, scores, spec=NONE)
    assert len(found.points) == 80
    assert found.points[0].abstained == 0
    for point in found.points[:60:7]:
        kept = confidence >= point.threshold
        true, said = reference[kept], predicted[kept]
        assert (point.kept, point.abstained) == (kept.sum(), pytest.approx(1 - kept.mean()))
        assert point.accuracy == pytest.approx((true == said).mean())
        assert point.linear_kappa == pytest.approx(cohen_kappa_score(true, said, labels=range(4), weights="linear"))
        assert (point.wrong, point.two_or_more) == ((true != said).sum(), (abs(true - said) > 1).sum())
        assert point.dense_flips == ((true > 1) != (said > 1)).sum()
    shares = [point.abstained for point in found.points]
    trapezoids = auc([*shares, 1.0], [*(point.accuracy for point in found.points), found.points[-1].accuracy])
    assert found.area.value == pytest.approx(trapezoids, abs=0.01)
    assert found.at(0.2).kept == 64
    assert found.at(2.0) == found.points[-1]


def test_many_exams_are_shown_by_at_most_101_points():
    reference, scores = cohort(3000, 5)
    found = reject_curve(reference, scores, spec=NONE)
    assert 95 <= len(found.points) <= 101
    assert found.points[0].kept == 3000
    assert np.diff([point.abstained for point in found.points]).max() < 0.011


def test_order_changes_nothing_and_intervals_are_over_patients():
    reference, scores = cohort(60, 7, coarse=True)
    patients = [f"p{number // 3}" for number in range(60)]
    order = np.random.default_rng(2).permutation(60)
    first = reject_curve(reference, scores, patients=patients, spec=BootstrapSpec(200))
    again = reject_curve(
        reference[order], scores[order], patients=[patients[exam] for exam in order], spec=BootstrapSpec(200)
    )
    assert again.to_dict() == first.to_dict()
    assert first.area.low < first.area.value < first.area.high
    assert reject_curve(reference, scores, spec=BootstrapSpec(200)).area.interval != first.area.interval


def test_interval_of_the_area_is_that_of_a_plain_bootstrap():
    reference, scores = cohort(70, 9)
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == reference
    random = np.random.default_rng(1)
    drawn_areas = []
    for _ in range(400):
        drawn = random.integers(70, size=70)
        order = drawn[np.argsort(-confidence[drawn], kind="stable")]
        drawn_areas.append(np.mean(np.cumsum(right[order]) / np.arange(1, 71)))
    found = reject_curve(reference, scores).area.interval
    assert found == pytest.approx(np.quantile(drawn_areas, [0.025, 0.975]), abs=0.02)


def test_without_exams_there_is_no_curve():
    assert reject_curve(np.zeros(0, dtype=int), np.zeros((0, 4))) is None
