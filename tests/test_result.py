"""Exam results: calibrated scores, sets, flags, abstention, schema and table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammodensity.errors import CheckpointError, OptionError
from mammodensity.exam import Flag
from mammodensity.results.calibration import Calibration, Overlap, ViewsCalibration
from mammodensity.results.result import (
    NOTIFICATION,
    ExamResult,
    exam_result,
    result_columns,
    result_schema,
    write_result_table,
)
from mammodensity.results.rules import FLAGS, STANDARD_RULES, Rules, read_rules
from mammodensity.results.score_calibration import CalibrationMap
from mammodensity.scores import ExamScores, fuse_exam
from mammodensity.terms import CATEGORIES, PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory, Projection

VALIDATOR = jsonschema.Draft202012Validator(result_schema())
SURE_B = np.array([0.02, 0.9, 0.07, 0.01])
FOUR = tuple(PROJECTIONS)


def exam(scores=SURE_B, *, allow_missing=False, policy="mean", **others) -> ExamScores:
    """Four views of one set of scores, but for those given by name; None leaves a view out."""
    views = {view: others.get(view.value, scores) for view in PROJECTIONS}
    present = {view: np.asarray(one, float) for view, one in views.items() if one is not None}
    return ExamScores("e1", present, fuse_exam(present, "mean", allow_missing, policy), policy=policy)


def calibration(held_out=None, *, coverage=0.9, kind="none", coefficients=(), **settings) -> Calibration:
    """Calibrations of all four views and of CC_R alone, with 99 labelled exams whose scores are given or half sure."""
    scores = np.tile([0.1, 0.6, 0.2, 0.1], (99, 1)) if held_out is None else held_out
    one = ViewsCalibration(CalibrationMap(kind, coefficients), scores, np.ones(len(scores), dtype=np.intp))
    return Calibration({FOUR: one, (Projection.CC_R,): one}, coverage=coverage, **settings)


def codes(result: ExamResult) -> list[str]:
    return [flag.code for flag in result.flags]


def valid(result: ExamResult) -> dict:
    content = result.to_dict(notification=True)
    VALIDATOR.validate([json.loads(json.dumps(content, allow_nan=False))])
    return content


# What a result holds


def test_without_calibration_the_scores_stay_and_there_is_no_set():
    result = exam_result(exam())
    assert result.category == "B"
    assert result.exam is not None
    assert list(result.exam.scores.values()) == pytest.approx(SURE_B)
    assert result.exam.dense_probability == pytest.approx(0.08)
    assert not result.exam.dense
    assert not result.exam.calibrated
    assert result.prediction_set is None
    assert "calibrate" in result.calibration
    assert result.flags == ()
    valid(result)


def test_with_calibration_scores_are_mapped_and_the_set_is_stated():
    sharper = calibration(kind="temperature", coefficients=(2.0,))
    result = exam_result(exam(), sharper)
    assert result.exam is not None
    assert result.exam.calibrated
    wanted = SURE_B**2 / (SURE_B**2).sum()
    assert list(result.exam.scores.values()) == pytest.approx(wanted)
    assert result.prediction_set is not None
    assert result.prediction_set.text == "B (90 %)"
    assert result.breasts["right"].calibrated is False  # these two views were not calibrated
    assert result.projections[Projection.CC_R].calibrated
    valid(result)


def test_coverage_can_be_asked_for():
    spread = np.c_[np.zeros(99), np.linspace(0.01, 0.99, 99), np.linspace(0.99, 0.01, 99), np.zeros(99)]
    sizes = []
    for coverage in (0.5, 0.9, 0.99):
        result = exam_result(exam([0.1, 0.5, 0.35, 0.05]), calibration(spread), coverage=coverage)
        assert result.prediction_set is not None
        assert result.prediction_set.coverage == coverage
        sizes.append(len(result.prediction_set.categories))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_the_denser_breast_speaks_by_that_policy():
    dense = np.array([0.0, 0.1, 0.8, 0.1])
    views = {"CC_L": dense, "MLO_L": dense}
    assert exam_result(exam(policy="denser", **views)).category == "C"
    mean = exam_result(exam(**views))
    assert mean.category == "B"
    assert mean.exam is not None
    assert mean.exam.scores[DensityCategory.C] == pytest.approx((0.07 + 0.8) / 2)


@pytest.mark.parametrize(("name", "made"), [("policy", {"policy": "denser"}), ("fusion", {"fusion": "vote"})])
def test_a_calibration_of_other_scores_is_refused(name, made):
    with pytest.raises(CheckpointError, match=f"calibrated with {name}"):
        exam_result(exam(), calibration(**made))


# Flags, each alone


def test_missing_views():
    result = exam_result(exam(MLO_L=None))
    assert codes(result) == ["missing-view", "not-scored"]
    assert "without MLO_L" in result.flags[1].text
    assert "--allow-missing" in result.flags[1].text
    assert result.category is None
    assert result.abstained
    valid(result)
    done_without = exam_result(exam(MLO_L=None, allow_missing=True))
    assert codes(done_without) == ["missing-view"]
    assert done_without.category == "B"
    assert done_without.exam is not None
    assert done_without.exam.views == FOUR[:3]


def test_an_exam_without_any_usable_image_is_not_told_to_allow_missing_views():
    none = exam(CC_R=None, CC_L=None, MLO_R=None, MLO_L=None)
    assert exam_result(none).flags[-1] == Flag("not-scored", "no image of the exam could be used")


def test_refused_views_are_told_from_absent_ones():
    scored = replace(exam(MLO_L=None, allow_missing=True), refused={Projection.MLO_L: "left.png: no breast"})
    content = valid(exam_result(scored))
    assert content["flags"][0]["text"] == "MLO_L was refused"
    assert content["refused"] == {"MLO_L": "left.png: no breast"}


def test_views_that_disagree_make_it_abstain():
    result = exam_result(exam(CC_L=[0, 0.1, 0.2, 0.7]))
    assert "views-disagree" in codes(result)
    assert "CC_L is D" in result.flags[0].text
    assert result.abstained
    assert result.exam is not None
    assert result.exam.category == "B"
    assert codes(exam_result(exam(CC_L=[0, 0.4, 0.6, 0]))) == []


def test_views_disagree_by_the_categories_that_are_shown():
    to_b = CalibrationMap("vector", (1.0, 1.0, 1.0, 1.0, 9.0, 0.0, 0.0))  # CC_R as calibrated is B, whatever it was
    alone = ViewsCalibration(to_b, np.tile([0.1, 0.6, 0.2, 0.1], (99, 1)), np.ones(99, dtype=np.intp))
    scored = exam([0.0, 0.1, 0.8, 0.1], CC_R=[0.6, 0.3, 0.1, 0.0])
    assert "views-disagree" in codes(exam_result(scored))
    result = exam_result(scored, Calibration({(Projection.CC_R,): alone}))
    assert result.projections[Projection.CC_R].category == "B"
    assert "views-disagree" not in codes(result)


def test_a_sum_of_rounded_scores_is_no_more_than_one():
    scores = np.array([0.0, 0.0, 0.7000000000000002, 0.3])
    assert scores.sum() > 1
    assert valid(exam_result(exam(scores)))["exam"]["dense_probability"] == 1


def test_breasts_that_differ():
    dense = np.array([0.0, 0.1, 0.8, 0.1])
    result = exam_result(exam(CC_L=dense, MLO_L=dense))
    assert "left-right-difference" in codes(result)
    assert "left breast is clearly denser" in result.flags[0].text
    by_area = replace(exam(), percent_density={"right": 40.0, "left": 22.0, "subject": 31.0})
    assert "(40 % right, 22 % left)" in exam_result(by_area).flags[0].text
    assert codes(exam_result(replace(exam(), percent_density={"right": 40.0, "left": 30.0}))) == []


def test_near_a_border():
    assert codes(exam_result(exam([0.0, 0.5, 0.45, 0.05]))) == ["near-border"]
    assert codes(exam_result(exam([0.5, 0.0, 0.5, 0.0]))) == []  # not neighbours
    assert codes(exam_result(exam([0.0, 0.56, 0.44, 0.0]))) == []
    flag = exam_result(exam([0.25, 0.25, 0.25, 0.25])).flags[0]
    assert flag.text == "A and B have almost the same score"  # the category is A, the lower one on a tie


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([0.0, 0.45, 0.3, 0.25], "B is the most likely category, but together C and D are more likely (55 %)"),
        ([0.28, 0.3, 0.42, 0.0], "C is the most likely category, but together A and B are more likely (58 %)"),
    ],
)
def test_dense_against_the_category_is_told(scores, text):
    result = exam_result(exam(scores))
    assert result.category is not None
    assert result.exam is not None
    assert result.exam.dense != result.category.dense
    assert [flag.text for flag in result.flags if flag.code == "dense-disagrees"] == [text]
    valid(result)


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_dense_against_the_category_is_told_exactly_where_it_is(weights):
    result = exam_result(exam(np.array(weights) / sum(weights), allow_missing=True, CC_L=None, MLO_R=None, MLO_L=None))
    assert result.exam is not None
    assert ("dense-disagrees" in codes(result)) == (result.exam.dense != result.exam.category.dense)


def test_sets_that_are_empty_or_large():
    empty = exam_result(exam([0.3, 0.3, 0.2, 0.2]), calibration(np.tile([0.0, 0.99, 0.01, 0.0], (99, 1))))
    assert empty.prediction_set is not None
    assert empty.prediction_set.text == "none (90 %)"
    assert [flag.code for flag in empty.abstained_for] == ["set-empty"]
    valid(empty)
    large = exam_result(exam([0.3, 0.3, 0.2, 0.2]), calibration(np.tile([0.9, 0.1, 0.0, 0.0], (99, 1))))
    assert [flag.code for flag in large.abstained_for] == ["set-large"]
    valid(large)


def test_flags_of_images_come_along():
    flags = {Projection.CC_L: (Flag("low-quality", "the image has only 64 x 52 pixels"),)}
    result = exam_result(replace(exam(), view_flags=flags))
    assert result.flags[0].text == "CC_L: the image has only 64 x 52 pixels"
    assert not result.abstained


def test_flags_that_several_images_share_are_told_once():
    small, coarse = Flag("low-quality", "small"), Flag("low-quality", "coarse")
    flags = {Projection.CC_R: (small,), Projection.MLO_L: (small, coarse)}
    result = exam_result(replace(exam(), view_flags=flags))
    assert [flag.text for flag in result.flags] == ["CC_R, MLO_L: small", "MLO_L: coarse"]


# Rules


def test_every_rule_changes_the_result():
    differing = exam(CC_L=[0, 0.4, 0.6, 0], MLO_L=[0, 0.4, 0.6, 0])
    assert "left-right-difference" in codes(exam_result(differing, rules=Rules(sides_apart=0.3)))
    assert "views-disagree" in codes(exam_result(differing, rules=Rules(views_apart=1)))
    area = replace(exam(), percent_density={"right": 40.0, "left": 30.0})
    assert "left-right-difference" in codes(exam_result(area, rules=Rules(sides_apart_percent=5.0)))
    assert "near-border" in codes(exam_result(exam(), rules=Rules(near_border=0.9)))
    pair = calibration(np.tile([0.3, 0.4, 0.3, 0.0], (99, 1)))
    close = exam([0.0, 0.5, 0.45, 0.05])
    assert "set-large" in codes(exam_result(close, pair, rules=Rules(largest_set=1)))
    assert not exam_result(close, pair).abstained
    assert exam_result(close, rules=Rules(abstain_on=("near-border",))).abstained


def test_rules_are_read_from_a_file(tmp_path):
    path = tmp_path / "rules.json"
    path.write_text('{"largest_set": 3, "abstain_on": ["near-border"]}')
    assert read_rules(path) == Rules(largest_set=3, abstain_on=("near-border",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "rules.json cannot be used as rules: Expecting"),
        ("[]", "expected a JSON object"),
        ('{"largest": 2}', "there is no setting largest"),
        ('{"largest_set": 9}', r"largest_set must be less than or equal to 4\. Got 9"),
        ('{"largest_set": true}', "largest_set must be a valid integer"),
        ('{"near_border": "0.1"}', "near_border must be a valid number"),
        ('{"near_border": NaN}', "NaN is not a number in JSON"),
        ('{"abstain_on": ["tired"]}', "abstain_on may hold missing-view"),
        ('{"abstain_on": 3}', "abstain_on must be a valid tuple"),
    ],
)
def test_wrong_rules_are_named(tmp_path, text, message):
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        read_rules(path)


# Schema and table


SCORES = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(lambda v: np.array(v) / sum(v))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(PROJECTIONS), SCORES),
    st.booleans(),
    st.booleans(),
    st.sampled_from(("mean", "denser")),
)
def test_every_result_follows_the_schema(views, allow_missing, calibrated, policy):
    scored = ExamScores("é/1", views, fuse_exam(views, "mean", allow_missing, policy), policy=policy)
    result = exam_result(scored, calibration(policy=policy) if calibrated else None)
    content = valid(result)
    assert content["abstained"] == (content["category"] is None)
    assert set(codes(result)) <= set(FLAGS)


def test_the_schema_refuses_what_is_no_result():
    content = valid(exam_result(exam()))
    for change in (
        {"category": "E"},
        {"category": None},
        {"abstained": True},
        {"extra": 1},
        {"flags": [{"code": "odd"}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate([content | change])
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(content)


def test_the_schema_knows_every_flag_and_is_itself_a_schema():
    jsonschema.Draft202012Validator.check_schema(result_schema())
    assert result_schema()["$defs"]["flag"]["properties"]["code"]["enum"] == list(FLAGS)


def test_notification_only_where_asked_and_only_with_a_category():
    assert "notification" not in exam_result(exam()).to_dict()
    assert exam_result(exam()).to_dict(notification=True)["notification"] == NOTIFICATION[DensityCategory.B]
    assert exam_result(exam(MLO_L=None)).to_dict(notification=True)["notification"] is None
    assert list(NOTIFICATION) == list(CATEGORIES)


def test_the_table_has_a_row_an_exam(tmp_path):
    results = [
        exam_result(exam(), calibration()),
        exam_result(exam(CC_L=[0, 0.1, 0.2, 0.7])),
        exam_result(exam(CC_L=None)),
    ]
    write_result_table(tmp_path / "r.csv", results)
    with (tmp_path / "r.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == result_columns()
    assert [row["category"] for row in rows] == ["B", "", ""]
    assert [row["most_likely"] for row in rows] == ["B", "B", ""]
    assert rows[0]["prediction_set"] == "B"
    assert rows[1]["abstained_for"] == "views-disagree"
    assert rows[2]["missing"] == "CC_L"
    assert {row["note"] for row in rows} == {RESEARCH_USE_ONLY}


def test_a_calibration_on_exams_of_the_training_is_told_in_every_result():
    trained = replace(calibration(), overlap=Overlap(validation=99))
    result = exam_result(exam(), trained)
    assert "some of its training: it promises too much" in result.calibration
    assert "promises" not in exam_result(exam(), calibration()).calibration
    valid(result)


def test_standard_rules_are_the_documented_ones():
    assert STANDARD_RULES.to_dict()["abstain_on"] == [
        "set-empty",
        "set-large",
        "views-disagree",
        "unlike-training",
        "doubtful-tissue",
        "not-scored",
    ]
