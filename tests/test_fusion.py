"""Fusion: three methods, each with its own answer, and projections that are missing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mammodensity.errors import OptionError, TableError
from mammodensity.scores import FUSION_METHODS, fuse, fuse_exam
from mammodensity.terms import FUSED_LEVELS, PROJECTIONS, Projection

CC_R, CC_L, MLO_R, MLO_L = PROJECTIONS


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


view_scores = arrays(np.float64, (3, 4, 4), elements=st.floats(-30, 30)).map(softmax)


@given(view_scores, st.sampled_from(FUSION_METHODS))
@settings(deadline=None)
def test_fused_scores_are_scores_and_a_batch_equals_singles(scores, method):
    fused = fuse(scores, method)
    assert fused.shape == (3, 4)
    assert np.allclose(fused.sum(axis=-1), 1)
    assert (fused >= 0).all()
    for exam, result in zip(scores, fused, strict=True):
        assert np.array_equal(fuse(exam, method), result)


@given(view_scores, st.sampled_from(FUSION_METHODS), st.permutations(range(4)))
@settings(deadline=None)
def test_the_order_of_views_does_not_matter(scores, method, order):
    assert np.allclose(fuse(scores[:, order], method), fuse(scores, method))


@given(view_scores)
@settings(deadline=None)
def test_one_view_is_its_own_mean_and_geometric_mean(scores):
    one = scores[:, :1]
    assert np.array_equal(fuse(one, "mean"), one[:, 0])
    assert np.allclose(fuse(one, "geometric-mean"), one[:, 0], rtol=1e-9, atol=1e-15)


@given(view_scores)
@settings(deadline=None)
def test_vote_winner_is_the_best_mean_among_the_most_voted(scores):
    for exam, fused in zip(scores, fuse(scores, "vote"), strict=True):
        votes = np.bincount(exam.argmax(axis=1), minlength=4)
        most = votes == votes.max()
        winner = fused.argmax()
        assert most[winner]
        assert exam.mean(axis=0)[winner] >= exam.mean(axis=0)[most].max() - 1e-8
        assert np.allclose(fused, votes / 4, atol=2e-6)


def test_methods_by_hand():
    scores = [[0.9, 0.1, 0, 0], [0.4, 0.6, 0, 0]]
    assert np.allclose(fuse(scores), [0.65, 0.35, 0, 0])
    assert np.allclose(fuse(scores, "geometric-mean"), np.array([0.6, 0.06**0.5, 0, 0]) / (0.6 + 0.06**0.5))
    vote = fuse(scores, "vote")
    assert np.allclose(vote, [0.5, 0.5, 0, 0], atol=1e-6)
    assert vote.argmax() == 0  # one vote each; the mean prefers A


def test_three_methods_can_give_three_answers():
    scores = np.array([[0.50, 0.49, 0.01, 0], [0.50, 0.49, 0.01, 0], [0.0, 0.1, 0.9, 0], [0.2, 0.38, 0.42, 0]])
    assert fuse(scores, "geometric-mean").argmax() == 1
    assert fuse(scores, "mean").argmax() == 1
    assert fuse(scores, "vote").argmax() == 2
    certain = np.array([[0.98, 0.02, 0, 0], [0.0001, 0.55, 0.4499, 0]])
    assert fuse(certain, "mean").argmax() == 0
    assert fuse(certain, "geometric-mean").argmax() == 1


def test_geometric_mean_of_contradicting_certain_views_is_even():
    assert np.allclose(fuse([[1, 0, 0, 0], [0, 1, 0, 0]], "geometric-mean"), [0.5, 0.5, 0, 0])


def test_nan_stays_with_its_exam():
    scores = np.full((2, 2, 4), 0.25)
    scores[0, 1] = np.nan
    for method in FUSION_METHODS:
        fused = fuse(scores, method)
        assert np.isnan(fused[0]).all()
        assert np.allclose(fused[1].sum(), 1)


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((1, 1, 1, 4)), np.zeros((0, 4)), np.zeros((2, 0, 4))])
def test_wrong_shapes_are_named(bad):
    with pytest.raises(TableError, match=r"view_scores must have shape \(V, K\) or \(N, V, K\).*Got \("):
        fuse(bad)


def test_logits_are_refused():
    with pytest.raises(TableError, match=r"after softmax, from 0 to 1\. Got -1\.5 instead"):
        fuse([[3.0, -1.5, 0, 0]])


@pytest.mark.parametrize("call", [lambda: fuse([[1, 0, 0, 0]], "median"), lambda: fuse_exam({}, "median")])
def test_unknown_method_names_the_choices(call):
    with pytest.raises(OptionError, match=r"one of mean, geometric-mean, vote\. Got 'median' instead"):
        call()


EXAM = {view: np.eye(4)[place] for place, view in enumerate(PROJECTIONS)}


@pytest.mark.parametrize("allow_missing", [False, True])
def test_whole_exam(allow_missing):
    fused = fuse_exam(EXAM, allow_missing=allow_missing)
    assert list(fused) == list(FUSED_LEVELS)
    assert fused["right"].scores.tolist() == [0.5, 0, 0.5, 0]
    assert fused["left"].scores.tolist() == [0, 0.5, 0, 0.5]
    assert fused["subject"].scores.tolist() == [0.25] * 4
    assert fused["right"].views == (CC_R, MLO_R)
    assert all(level.missing == () for level in fused.values())


def test_method_is_passed_on():
    exam = dict.fromkeys(PROJECTIONS, np.array([0.7, 0.3, 0, 0])) | {CC_R: np.array([0, 1, 0, 0])}
    for method in FUSION_METHODS:
        right = fuse_exam(exam, method)["right"].scores
        assert np.array_equal(right, fuse([exam[CC_R], exam[MLO_R]], method))


def test_missing_projection_is_not_given_unless_allowed():
    partial = {view: scores for view, scores in EXAM.items() if view != MLO_R}
    strict = fuse_exam(partial)
    assert strict["right"].scores is None
    assert strict["subject"].scores is None
    assert strict["left"].scores is not None
    lenient = fuse_exam(partial, allow_missing=True)
    assert lenient["right"].scores.tolist() == EXAM[CC_R].tolist()
    assert np.allclose(lenient["subject"].scores, [1 / 3, 1 / 3, 0, 1 / 3])
    for fused in (strict, lenient):
        assert fused["right"].views == (CC_R,)
        assert fused["right"].missing == (MLO_R,)
        assert fused["subject"].views == (CC_R, CC_L, MLO_L)
        assert fused["subject"].missing == (MLO_R,)
        assert fused["left"].missing == ()


def test_a_breast_without_any_view_never_gets_scores():
    left_only = {view: EXAM[view] for view in (CC_L, MLO_L)}
    fused = fuse_exam(left_only, allow_missing=True)
    assert fused["right"].scores is None
    assert fused["right"].missing == (CC_R, MLO_R)
    assert fused["subject"].scores is not None
    assert all(level.scores is None for level in fuse_exam({}, allow_missing=True).values())


def test_wrong_exam_scores_are_named():
    with pytest.raises(TableError, match=r"among CC_R, CC_L, MLO_R, MLO_L\. Got 'ML_R' instead"):
        fuse_exam({"ML_R": np.eye(4)[0]})
    with pytest.raises(TableError, match=r"scores of CC_R must have shape \(4,\), or \(3,\) all\. Got \(2,\) instead"):
        fuse_exam({Projection.CC_R: np.ones(2) / 2})
