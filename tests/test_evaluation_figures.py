"""Figures of merit against scikit-learn, and what happens where they are undefined."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from mammodensity.errors import OptionError, TableError
from mammodensity.evaluation.agreement import sample_figures
from mammodensity.evaluation.bootstrap import BootstrapSpec, resample
from mammodensity.evaluation.figures import SCALAR_FIGURES, evaluate_table, figures_of_merit, to_json
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.terms import LEVELS, DensityCategory, Projection

K = range(4)


@st.composite
def samples(draw, largest=40):
    """Reference and scores of some exams; few distinct scores, so that ties are common."""
    n = draw(st.integers(1, largest))
    reference = np.array(draw(st.lists(st.sampled_from(K), min_size=n, max_size=n)))
    parts = np.array(draw(st.lists(st.tuples(*[st.integers(1, 4)] * 4), min_size=n, max_size=n)), dtype=float)
    return reference, parts / parts.sum(axis=1, keepdims=True)


def oracle(reference, scores):
    """The same figures by scikit-learn; those it cannot define are absent."""
    predicted = scores.argmax(axis=1)
    dense, dense_score = reference >= 2, scores[:, 2] + scores[:, 3]
    figures = {
        "accuracy": metrics.accuracy_score(reference, predicted),
        "macro_recall": metrics.recall_score(reference, predicted, labels=np.unique(reference), average="macro"),
        "macro_precision": metrics.precision_score(reference, predicted, average="macro", zero_division=0),
        "dense_accuracy": metrics.accuracy_score(dense, predicted >= 2),
        "nll": metrics.log_loss(reference, scores, labels=list(K)),
    }
    if len({*reference, *predicted}) > 1:
        for name in ("linear", "quadratic"):
            figures[f"{name}_kappa"] = metrics.cohen_kappa_score(reference, predicted, labels=list(K), weights=name)
    if 0 < dense.sum() < len(dense):
        figures["dense_auc"] = metrics.roc_auc_score(dense, dense_score)
    present = set(reference.tolist())
    for category in K:
        if category in present and len(present) > 1:
            figures[f"auc_{'ABCD'[category]}"] = metrics.roc_auc_score(reference == category, scores[:, category])
    if len(present) == 4:
        figures["auc"] = np.mean([figures[f"auc_{letter}"] for letter in "ABCD"])
    return figures


@given(samples())
@settings(deadline=None)
def test_figures_equal_scikit_learns(sample):
    reference, scores = sample
    found = figures_of_merit(reference, scores, bootstrap=0)
    expected = oracle(reference, scores)
    values = {name: getattr(found, name) for name in SCALAR_FIGURES}
    values |= {f"auc_{letter}": area for letter, area in found.auc_per_category.items()}
    assert {name: value for name, value in values.items() if not math.isnan(value)} == pytest.approx(
        expected, abs=1e-12
    )
    undefined = set(values) - set(expected)
    assert {name for name in found.undefined if name.partition("_")[0] not in ("recall", "precision")} == undefined
    assert np.array_equal(found.confusion, metrics.confusion_matrix(reference, scores.argmax(axis=1), labels=list(K)))
    assert found.n == len(reference)


@given(samples())
@settings(deadline=None)
def test_recall_and_precision_per_category(sample):
    reference, scores = sample
    found = figures_of_merit(reference, scores, bootstrap=0)
    options = {"labels": list(K), "average": None, "zero_division": np.nan}
    recall = metrics.recall_score(reference, scores.argmax(axis=1), **options)
    precision = metrics.precision_score(reference, scores.argmax(axis=1), **options)
    assert list(found.recall_per_category.values()) == pytest.approx(recall, nan_ok=True)
    assert list(found.precision_per_category.values()) == pytest.approx(precision, nan_ok=True)


@given(samples(), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_row_of_counts_is_that_many_copies_of_each_exam(sample, seed):
    reference, scores = sample
    n = len(reference)
    drawn = np.random.default_rng(seed).integers(n, size=(5, n))
    counts = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(float)
    together = sample_figures(reference, scores, counts)
    for place, row in enumerate(drawn):
        expected = oracle(reference[row], scores[row])
        for name, value in expected.items():
            assert together[name][place] == pytest.approx(value, abs=1e-12), name
        for name in {*SCALAR_FIGURES} - set(expected):
            assert math.isnan(together[name][place]), name


@given(samples(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_permuting_exams_changes_nothing(sample, random):
    reference, scores = sample
    order = list(range(len(reference)))
    random.shuffle(order)
    first = figures_of_merit(reference, scores, bootstrap=50).to_dict()
    assert figures_of_merit(reference[order], scores[order], bootstrap=50).to_dict() == first


@given(samples())
@settings(max_examples=30, deadline=None)
def test_reference_may_be_categories_letters_or_positions(sample):
    reference, scores = sample
    expected = figures_of_merit(reference, scores, bootstrap=0).to_dict()
    for spelling in (list(DensityCategory), list("ABCD"), list("abcd"), [0, 1, 2, 3]):
        assert figures_of_merit([spelling[k] for k in reference], scores, bootstrap=0).to_dict() == expected


@pytest.fixture(scope="module")
def cohort():
    random = np.random.default_rng(7)
    scores = random.dirichlet([0.6, 1.5, 1.5, 0.6], 150)
    return np.array([random.choice(4, p=row) for row in scores]), scores


def test_interval_agrees_with_a_plain_bootstrap(cohort):
    reference, scores = cohort
    random = np.random.default_rng(99)
    plain = []
    for _ in range(250):
        drawn = random.integers(len(reference), size=len(reference))
        plain.append(oracle(reference[drawn], scores[drawn]))
    found = figures_of_merit(reference, scores)
    for name in SCALAR_FIGURES:
        expected = np.quantile([figures[name] for figures in plain], [0.025, 0.975])
        assert found.intervals[name] == pytest.approx(expected, abs=0.25 * (expected[1] - expected[0])), name
        assert found.intervals[name][0] < getattr(found, name) < found.intervals[name][1]


def test_options_change_the_intervals(cohort):
    base = figures_of_merit(*cohort)
    assert figures_of_merit(*cohort) == base
    assert figures_of_merit(*cohort, seed=2).intervals != base.intervals
    assert figures_of_merit(*cohort, bootstrap=500).intervals != base.intervals
    low, high = figures_of_merit(*cohort, confidence=0.5).intervals["auc"]
    assert base.intervals["auc"][0] < low < high < base.intervals["auc"][1]
    assert figures_of_merit(*cohort, bootstrap=0).intervals == {}


def test_chunked_resampling_has_the_asked_number_of_resamples(cohort, monkeypatch):
    monkeypatch.setattr("mammodensity.evaluation.bootstrap._CHUNK", 7 * 150)
    _, drawn = resample(lambda counts: sample_figures(*cohort, counts), np.arange(150), BootstrapSpec(20))
    assert {len(values) for values in drawn.values()} == {20}


def test_an_exact_tie_goes_to_the_lower_category():
    found = figures_of_merit("AD", [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], bootstrap=0)
    assert found.confusion == ((1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 1, 0))


def test_absent_category_is_undefined_with_a_reason():
    scores = np.array([[0.6, 0.2, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.1, 0.1, 0.6, 0.2], [0.5, 0.3, 0.1, 0.1]])
    found = figures_of_merit("ABCB", scores, bootstrap=200)
    assert math.isnan(found.auc)
    assert math.isnan(found.recall_per_category["D"])
    assert found.undefined == {
        "auc": "no exam of category D in the reference",
        "auc_D": "no exam of category D in the reference",
        "recall_D": "no exam of category D in the reference",
        "precision_D": "category D is never predicted",
    }
    assert found.intervals["auc"] is None
    assert found["auc"].undefined_resamples == 200
    assert 0 < found["dense_auc"].undefined_resamples < 200  # resamples without C have no dense exam
    assert found.intervals["dense_auc"] is not None
    assert found.macro_recall == pytest.approx((1 + 0.5 + 1) / 3)
    assert found.macro_precision == pytest.approx((0.5 + 1 + 1) / 3)
    assert found.notes == {
        "macro_recall": "mean without D: no such exam in the reference",
        "macro_precision": "mean without D: neither in the reference nor predicted",
    }


def test_never_predicted_category_counts_zero_with_a_note():
    found = figures_of_merit("ABD", np.tile([0.7, 0.1, 0.1, 0.1], (3, 1)), bootstrap=0)
    assert found.macro_precision == pytest.approx(1 / 9)
    assert found.notes["macro_precision"] == (
        "mean without C: neither in the reference nor predicted; B, D counted as 0: never predicted"
    )


def test_one_category_everywhere_leaves_kappa_and_auc_undefined():
    found = figures_of_merit("CC", [[0, 0.1, 0.9, 0], [0, 0, 1, 0]], bootstrap=10)
    assert found.accuracy == found.dense_accuracy == 1
    for name in ("linear_kappa", "quadratic_kappa"):
        assert math.isnan(getattr(found, name))
        assert found.undefined[name] == "reference and prediction hold one and the same category only (0/0)"
    assert found.undefined["auc"] == "no exam of category A, B, D in the reference"
    assert found.undefined["auc_C"] == "the reference holds category C only"
    assert found.undefined["dense_auc"] == "the reference holds dense exams only, or none"
    assert found.to_dict()["linear_kappa"] is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_certain_and_wrong_has_no_likelihood():
    found = figures_of_merit("AB", [[1, 0, 0, 0], [1, 0, 0, 0]], bootstrap=10)
    assert math.isnan(found.nll)
    assert found.undefined["nll"] == "the score of an exam's reference category is exactly 0"
    assert found.intervals["nll"] is None


ROW = [0.25] * 4


@pytest.mark.parametrize(
    ("reference", "scores", "message"),
    [
        ("AB", [ROW], r"same length\. Got 2 and 1 instead"),
        ("", np.zeros((0, 4)), r"at least one exam\. Got none instead"),
        ("A", ROW, r"scores must have shape \(N, 4\), or \(N, 3\) of F, G, D\. Got \(4,\) instead"),
        ("A", [[0.5, 0.5]], r"shape \(N, 4\), or \(N, 3\) of F, G, D\. Got \(1, 2\) instead"),
        ("A", [[0.5, 0.5, 0]], r"reference must hold F, G, D or 0 to 2\. Got 'A' at position 0 instead"),
        ("A", [ROW, [1]], r"scores must be numbers of shape \(N, 4\)\. Got list"),
        ("A", [["x"] * 4], r"scores must be numbers of shape \(N, 4\)\. Got list"),
        ("AB", [ROW, [math.nan, 0, 0, 1]], r"Got row 1 instead: found a score of nan"),
        ("A", [[-0.5, 0.5, 0.5, 0.5]], r"Got row 0 instead: found a negative score of -0\.5"),
        (
            "A",
            [[0.5, 0.1, 0.1, 0.1]],
            r"Got row 0 instead: found scores that sum to 0\.8, expected 1 \(within 0\.001\)",
        ),
        ("AE", [ROW, ROW], r"A, B, C, D or 0 to 3\. Got 'E' at position 1 instead"),
        ([4], [ROW], r"Got 4 at position 0"),
        ([-1], [ROW], r"Got -1 at position 0"),
        ([1.0], [ROW], r"Got 1\.0 at position 0"),
        ([True], [ROW], r"Got True at position 0"),
        ([None], [ROW], r"Got None at position 0"),
    ],
)
def test_wrong_input_is_named(reference, scores, message):
    with pytest.raises(TableError, match=message):
        figures_of_merit(reference, scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": -1}, r"resamples must be greater than or equal to 0\. Got -1 instead"),
        ({"confidence": 0}, r"confidence must be greater than 0\. Got 0 instead"),
        ({"confidence": 1}, r"confidence must be less than 1\. Got 1 instead"),
        ({"confidence": 95}, r"confidence must be less than 1\. Got 95 instead"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        figures_of_merit("A", [ROW], **options)


def make_table(cohort, drop=()):
    reference, scores = cohort
    ids = tuple(f"exam {place}" for place in range(len(reference)))
    levels = {level: scores.copy() for level in LEVELS}
    for level, rows in drop:
        levels[level][rows] = np.nan
    labels = {exam_id: DensityCategory("ABCD"[k]) for exam_id, k in zip(ids, reference, strict=True)}
    return ScoreTable(ids, levels), labels


def test_table_levels_are_evaluated_alone_and_gaps_are_counted(cohort):
    table, labels = make_table(cohort, drop=[("right", slice(0, 3)), ("left", slice(None))])
    missing = tuple((Projection.CC_R,) if place in (0, 10) else () for place in range(150))
    table = ScoreTable(table.exam_ids, table.scores, {"right": missing})
    found = evaluate_table(table, labels, bootstrap=20)
    assert tuple(found) == LEVELS
    assert (found["subject"].n, found["subject"].n_not_given, found["subject"].n_partial) == (150, 0, 0)
    assert (found["right"].n, found["right"].n_not_given, found["right"].n_partial) == (147, 3, 1)
    assert found["left"].n == 0
    assert found["left"].n_not_given == 150
    assert set(found["left"].undefined.values()) == {"no exam has scores"}
    assert set(SCALAR_FIGURES) <= set(found["left"].undefined)
    reference, scores = cohort
    alone = figures_of_merit(reference[3:], scores[3:], bootstrap=20)
    assert found["right"].intervals == alone.intervals
    assert found["right"].auc == alone.auc


def test_json_has_the_levels_and_no_nan(cohort):
    table, labels = make_table(cohort, drop=[("left", slice(None))])
    plain = to_json(evaluate_table(table, labels, bootstrap=20))
    assert tuple(plain) == LEVELS
    expected = {*SCALAR_FIGURES, "n", "confusion", "intervals", "undefined", "undefined_resamples", "n_not_given"}
    assert all(expected <= set(values) for values in plain.values())
    assert plain["left"]["accuracy"] is None
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_scores_of_a_table_are_checked(cohort):
    table, labels = make_table(cohort)
    table.scores["CC_R"][5] = 1
    with pytest.raises(TableError, match=r"Got row 5 instead: found scores that sum to 4"):
        evaluate_table(table, labels)


def test_import_needs_neither_torch_nor_scikit_learn():
    code = "import sys, mammodensity.scores, mammodensity.evaluation; print({'torch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
