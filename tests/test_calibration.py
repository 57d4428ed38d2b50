"""Calibration maps, calibration error with its null band, prediction sets with their coverage."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from mammodensity.errors import CheckpointError, OptionError, TableError
from mammodensity.results.calibration import (
    CALIBRATION_FILE,
    COMBINATIONS,
    Calibration,
    fit_calibration,
    fuse_combinations,
    read_calibration,
    write_calibration,
)
from mammodensity.results.cross_validation import (
    cross_validate,
    expected_calibration_error,
    held_out_set_size,
    null_band,
    reliability,
)
from mammodensity.results.score_calibration import (
    MAPS,
    SET_KINDS,
    STANDARD_MAP,
    CalibrationMap,
    choose_map,
    fit_map,
    losses_of,
    nonconformity,
    prediction_sets,
    thresholds,
)
from mammodensity.scores import fuse
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.workflows.calibrate import _worth

CUTS = np.array([-1.28, 0.0, 1.28])


def readers(count: int, seed: int, *, view_noise: float = 0.6, reader_noise: float = 0.35):
    """Four views of each exam, each a perfectly calibrated reader of a hidden density, and what a human reader says.

    Returns scores (V, N, 4) and categories (N,).
    """
    rng = np.random.default_rng(seed)
    density = rng.normal(size=count)
    reference = np.searchsorted(CUTS, density + reader_noise * rng.normal(size=count))
    views = []
    for _ in range(4):
        seen = density + view_noise * rng.normal(size=count)
        mean, spread = seen / (1 + view_noise**2), math.hypot(view_noise / math.hypot(1, view_noise), reader_noise)
        below = norm.cdf((CUTS - mean[:, None]) / spread)
        views.append(np.diff(np.c_[np.zeros(count), below, np.ones(count)], axis=1))
    return np.stack(views), reference


def fused(count: int, seed: int):
    views, reference = readers(count, seed)
    return fuse(views.transpose(1, 0, 2)), reference


# Maps


@pytest.mark.parametrize("kind", MAPS)
def test_calibrated_scores_are_scores(kind):
    scores, reference = fused(200, 1)
    found = fit_map(kind, scores, reference)(scores)
    assert found.shape == scores.shape
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_temperature_is_found_again(factor):
    rng = np.random.default_rng(0)
    true = rng.dirichlet([1, 2, 2, 1], 20000)
    reference = (rng.random((len(true), 1)) > true.cumsum(axis=1)).sum(axis=1)
    distorted = softmax(factor * np.log(true), axis=1)
    assert fit_map("temperature", distorted, reference).coefficients[0] == pytest.approx(1 / factor, rel=0.05)


@pytest.mark.parametrize("kind", ["temperature", "vector", "ordinal"])
def test_no_other_coefficients_are_likelier(kind):
    """An independent optimiser, with the likelihood written out anew, finds the same."""
    scores, reference = fused(300, 2)
    found = fit_map(kind, scores, reference)

    def loss(coefficients):
        return losses_of(CalibrationMap(kind, tuple(coefficients))(scores), reference).mean()

    best = minimize(loss, found.coefficients, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-12})
    assert loss(found.coefficients) == pytest.approx(best.fun, abs=0.01)  # the prior, of the weight of one exam


def test_the_ordinal_map_is_a_multinomial_regression_with_ties_between_its_coefficients():
    scores, reference = fused(4000, 3)
    expected = (scores @ np.arange(4))[:, None]
    free = LogisticRegression(C=1e6, max_iter=2000).fit(expected, reference)
    ours = losses_of(fit_map("ordinal", scores, reference)(scores), reference).mean()
    theirs = losses_of(free.predict_proba(expected), reference).mean()  # 6 coefficients, ours has 3 of them
    assert theirs <= ours <= theirs + 0.01


def test_half_ordinal_is_half_way():
    scores, reference = fused(200, 4)
    ordinal, half = (fit_map(kind, scores, reference)(scores) for kind in ("ordinal", "half-ordinal"))
    np.testing.assert_allclose(half, (ordinal + scores) / 2)


def test_scores_of_zero_and_categories_never_seen_do_no_harm():
    scores = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0.5, 0.5, 0]] * 10)
    reference = np.array([0, 1, 1] * 10)
    for kind in MAPS:
        assert np.isfinite(fit_map(kind, scores, reference)(scores)).all()


def test_the_standard_map_stays_unless_another_is_better_beyond_doubt():
    rng = np.random.default_rng(0)
    losses = {kind: rng.normal(1, 0.5, 100) for kind in MAPS}
    losses[STANDARD_MAP] = losses["none"] + rng.normal(0.01, 0.5, 100)
    assert choose_map(losses) == STANDARD_MAP
    losses["temperature"] = losses[STANDARD_MAP] - 0.5
    assert choose_map(losses) == "temperature"


@pytest.mark.parametrize("wrong", [("cubic", ()), ("temperature", ()), ("none", (1.0,))])
def test_a_map_is_valid_once_made(wrong):
    with pytest.raises(OptionError, match="Got"):
        CalibrationMap(*wrong)


# Calibration error


def test_calibration_error_by_hand():
    scores = np.array([[0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0], [0.55, 0.45, 0, 0], [0.2, 0.6, 0.2, 0]])
    reference = np.array([0, 1, 0, 1])
    # bin 0.9: 2 exams, confidence 0.9, accuracy 0.5; bin 0.5: 0.55 against 1; bin 0.6: 0.6 against 1
    assert expected_calibration_error(scores, reference) == pytest.approx((2 * 0.4 + 0.45 + 0.4) / 4)
    found = reliability(scores, reference)
    assert found.count[9] == 2
    assert found.accuracy[9] == 0.5
    assert found.confidence[0] is None


def test_the_null_band_holds_nine_of_ten_perfect_readers():
    rng = np.random.default_rng(5)
    inside, trials = 0, 200
    scores = rng.dirichlet([1, 2, 2, 1], 128)
    low, mean, high = null_band(scores)
    assert 0.03 < low < mean < high < 0.15
    for _ in range(trials):
        reference = (rng.random((128, 1)) > scores.cumsum(axis=1)).sum(axis=1)
        inside += low <= expected_calibration_error(scores, reference) <= high
    assert 0.84 < inside / trials < 0.96


# Prediction sets


@pytest.mark.parametrize("kind", SET_KINDS)
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_holds_on_new_exams(kind, coverage):
    covered = []
    for seed in range(25):
        scores, reference = fused(1200, 100 + seed)
        limits = thresholds(scores[:200], reference[:200], kind, coverage)
        sets = prediction_sets(scores[200:], kind, limits)
        covered.append(sets[np.arange(1000), reference[200:]].mean())
    mean, doubt = np.mean(covered), np.std(covered) / len(covered) ** 0.5
    assert mean > coverage - 3 * doubt
    # with 200 exams of which the rarest category has about 25, a class-conditional threshold is rounded up
    assert mean < coverage + 3 * doubt + (0.03 if kind == "class-conditional" else 1 / 201)


def test_class_conditional_sets_cover_each_category():
    scores, reference = fused(20000, 6)
    own = np.arange(10000), reference[10000:]
    by_kind = {}
    for kind in ("marginal", "class-conditional"):
        sets = prediction_sets(scores[10000:], kind, thresholds(scores[:10000], reference[:10000], kind, 0.9))
        by_kind[kind] = [sets[own][own[1] == place].mean() for place in range(4)]
    assert min(by_kind["class-conditional"]) > 0.88
    assert min(by_kind["marginal"]) < min(by_kind["class-conditional"])


def test_ordinal_sets_have_no_gaps():
    scores = np.random.default_rng(7).dirichlet([0.3] * 4, 3000)
    for limit in (0.3, 0.6, 0.9, 0.99):
        sets = prediction_sets(scores, "ordinal", np.full(4, limit))
        steps = np.abs(np.diff(np.pad(sets.astype(int), ((0, 0), (1, 1))), axis=1)).sum(axis=1)
        assert set(steps) <= {0, 2}  # one run, or none
        assert (sets >= prediction_sets(scores, "marginal", np.full(4, limit))).all()


def test_ordinal_and_marginal_sets_are_one_where_scores_have_one_peak():
    random = np.random.default_rng(11)
    scores = random.dirichlet([0.6] * 4, 4000)
    rises = np.diff(scores, axis=1) > 0
    one_peak = ~(~rises[:, :-1] & rises[:, 1:]).any(axis=1)  # never a rise after a fall
    assert 0.2 < one_peak.mean() < 0.8
    assert np.array_equal(*(nonconformity(scores[one_peak], kind) for kind in ("ordinal", "marginal")))
    differ = (nonconformity(scores, "ordinal") != nonconformity(scores, "marginal")).any(axis=1)
    assert np.array_equal(differ, ~one_peak)


def test_a_larger_coverage_gives_larger_sets():
    scores, reference = fused(400, 8)
    sizes = [
        prediction_sets(scores, "ordinal", thresholds(scores, reference, "ordinal", c)).sum() for c in (0.5, 0.8, 0.95)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_too_few_exams_for_a_coverage_admit_everything():
    scores, reference = fused(20, 9)
    assert thresholds(scores, reference, "ordinal", 0.99).tolist() == [1.0] * 4
    assert prediction_sets(scores, "ordinal", np.ones(4)).all()


def test_the_threshold_is_the_stated_order_statistic():
    scores = np.eye(4)[[0] * 9] * 0.0 + np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])[:, None] * np.eye(4)[0]
    assert thresholds(scores, np.zeros(9, int), "marginal", 0.8)[0] == pytest.approx(1 - 0.2)  # the 8th of 9


def test_wrong_settings_are_named():
    scores, reference = fused(30, 10)
    with pytest.raises(OptionError, match="ordinal, marginal"):
        nonconformity(scores, "round")
    with pytest.raises(OptionError, match=r"Got 1\.0 instead"):
        thresholds(scores, reference, "ordinal", 1.0)


# Cross-validation


def test_many_simulated_exams_come_out_calibrated_and_covered():
    scores, reference = fused(3000, 11)
    found = cross_validate(scores, reference, repeats=1)
    assert found.ece_before > 0.1  # the mean of four calibrated views is under-confident
    assert found.ece_after < 0.03
    assert found.nll_after < found.nll_before
    for nominal, covered in found.coverage.items():
        assert covered == pytest.approx(float(nominal), abs=0.015)


def test_the_order_of_exams_changes_no_figure():
    scores, reference = fused(100, 12)
    order = np.random.default_rng(0).permutation(100)
    first, second = (cross_validate(scores[o], reference[o], repeats=2) for o in (np.arange(100), order))
    assert first == second
    assert held_out_set_size(scores, reference) == held_out_set_size(scores[order], reference[order])


def test_a_reversed_scale_reverses_the_figures_but_for_chance():
    scores, reference = fused(400, 16)
    first, second = (cross_validate(*one, repeats=2) for one in ((scores, reference), (scores[:, ::-1], 3 - reference)))
    assert first.nll_after == pytest.approx(second.nll_after, abs=0.01)
    by_category = [one.by_kind_of_set["ordinal"]["coverage_by_category"]["0.9"] for one in (first, second)]
    assert by_category[0] == pytest.approx(by_category[1][::-1], abs=0.05)


def test_shuffled_categories_give_sets_that_hold_most_categories():
    scores, reference = fused(150, 13)
    shuffled = np.random.default_rng(0).permutation(reference)
    assert cross_validate(scores, shuffled, repeats=2).mean_set_size > 2.2
    assert cross_validate(scores, reference, repeats=2).mean_set_size < 1.8


def test_too_few_exams_are_refused():
    with pytest.raises(TableError, match=r"at least 20 labelled exams\. Got 12"):
        cross_validate(*fused(12, 14))


def test_exams_of_one_category_are_refused():
    scores = fused(30, 17)[0]
    only = np.ones(30, dtype=np.intp)
    with pytest.raises(TableError, match=r"exams of several categories\. Got 30 exams of B only"):
        cross_validate(scores, only)
    with pytest.raises(TableError, match="Got 30 exams of B only"):
        fit_calibration({PROJECTIONS: scores}, only)


@pytest.mark.parametrize("kind", SET_KINDS)
def test_sets_of_a_useless_model_cover_as_stated(kind):
    rng = np.random.default_rng(18)
    alike = {(Projection.CC_R,): np.full((300, 4), 0.25)}
    covered = []
    for _ in range(20):
        reference = rng.choice(4, size=300, p=[0.1, 0.4, 0.4, 0.1])
        found = fit_calibration(alike, reference, set_kind=kind)
        scores = found.calibrated([Projection.CC_R], np.full(4, 0.25))
        inside = found.prediction_set([Projection.CC_R], scores)
        covered.append(sum({"A": 0.1, "B": 0.4, "C": 0.4, "D": 0.1}[one] for one in inside))
    assert np.mean(covered) > 0.88


# A model's calibration


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    views, reference = readers(60, 15)
    scores = dict(zip(PROJECTIONS, views, strict=True))
    scores[Projection.CC_R][:45] = np.nan
    return fit_calibration(fuse_combinations(scores), reference)


def test_every_combination_with_enough_exams_is_calibrated(calibration):
    without = [views for views in COMBINATIONS if Projection.CC_R not in views]
    assert list(calibration.views) == without
    assert calibration.figures == {}
    assert calibration.calibrated([Projection.CC_R], np.full(4, 0.25)) is None
    found = calibration.calibrated([Projection.MLO_L, Projection.CC_L], np.array([0.1, 0.6, 0.2, 0.1]))
    assert found is not None
    assert found.sum() == pytest.approx(1)
    assert "B" in calibration.prediction_set([Projection.CC_L, Projection.MLO_L], found)


def test_it_is_read_back_as_it_was(calibration, tmp_path):
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, calibration)
    again = read_calibration(tmp_path)
    assert again is not None
    scores = np.array([0.2, 0.5, 0.2, 0.1])
    for views in calibration.views:
        np.testing.assert_allclose(again.calibrated(views, scores), calibration.calibrated(views, scores))
        limits = [one.views[views].limits("ordinal", 0.9) for one in (calibration, again)]
        np.testing.assert_allclose(*limits, atol=1e-6)


def test_a_calibration_that_made_scores_worse_is_told():
    views, reference = readers(60, 15)
    found = fit_calibration(fuse_combinations(dict(zip(PROJECTIONS, views, strict=True))), reference)
    for change, told in ((-0.1, False), (0.1, True)):
        before = {"nll_before": 1.0, "accuracy_before": 0.7}
        after = {"nll_after": 1.0 + change, "accuracy_after": 0.7 - change}
        output = " ".join(_worth(replace(found, figures={**found.figures, **before, **after})))
        assert ("no better calibrated than before" in output) is told
        assert ("accuracy is 10.0 points lower than before" in output) is told


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("views"),
        lambda c: c.update(format=9),
        lambda c: c.update(coverage=3),
        lambda c: c["views"][0].update(reference="AB"),
        lambda c: c["views"][0]["map"].update(kind="cubic"),
        lambda c: c["views"][0].update(views=["CC"]),
        lambda c: c["views"][0]["map"].update(kind="temperature", coefficients=[float("nan")]),
        lambda c: c["views"][0]["held_out"][0].__setitem__(0, -3),
        lambda c: c.update(views=[]),
    ],
)
def test_a_damaged_file_is_named(calibration, tmp_path, damage):
    path = write_calibration(tmp_path, calibration)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=CALIBRATION_FILE):
        read_calibration(tmp_path)


def test_neither_order_nor_row_of_exams_changes_a_calibration():
    views, reference = readers(60, 19)
    order = np.random.default_rng(1).permutation(60)
    first, second = (
        fit_calibration({(Projection.CC_R,): views[0][o], (Projection.CC_L,): views[1][o]}, reference[o])
        for o in (np.arange(60), order)
    )
    for combination, one in first.views.items():
        other = second.views[combination]
        assert one.calibration_map == other.calibration_map
        for kind in SET_KINDS:
            np.testing.assert_array_equal(one.limits(kind, 0.9), other.limits(kind, 0.9))


def test_a_calibration_is_of_the_model_it_was_made_for(calibration, tmp_path):
    (tmp_path / "category_map.json").write_text("one")
    path = write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path) is not None
    (tmp_path / "category_map.json").write_text("another")
    with pytest.raises(
        CheckpointError, match=r"of another model: category_map\.json has changed since; calibrate again"
    ):
        read_calibration(tmp_path)
    content = json.loads(path.read_text())
    del content["model"]  # as files of before had none
    path.write_text(json.dumps(content))
    assert read_calibration(tmp_path) is not None


def test_settings_are_checked_before_any_work():
    with pytest.raises(OptionError, match="policy must be one of mean, denser"):
        fit_calibration({}, np.zeros(0, int), policy="worst")
    with pytest.raises(TableError, match=r"at least 20 labelled exams\. Got 0"):
        fit_calibration({}, np.zeros(0, int))
