"""Verdicts: each code by a figure that calls for it, a planted shortcut, and verdicts wherever maps are shown."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from mammodensity.errors import OptionError
from mammodensity.explanation.map_scores import ScoreSpec, score_explanation
from mammodensity.explanation.probe import Probe
from mammodensity.explanation.verdicts import (
    STANDARD_RULES,
    VERDICTS,
    Dependence,
    Verdict,
    VerdictRules,
    better_than_chance,
    judge,
    learned,
    worst,
)
from mammodensity.phantom.exams import PhantomSpec, make_exam, write_phantoms
from mammodensity.terms import RESEARCH_USE_ONLY, Projection

GOOD = {
    "inside_breast": 0.9,
    "outside": 0.05,
    "background_change": 0.0,
    "background_logit": 0.0,
    "muscle_change": 0.0,
    "muscle_logit": 0.0,
    "marker_change": 0.0,
    "marker_logit": 0.0,
    "position_change": 0.0,
    "position_logit": 0.0,
    "randomised": 0.1,
    "faithfulness": 0.6,
    "dense_lift": 1.5,
}
PLAIN = {"bright": {"faithfulness": 0.4}, "blob": {"faithfulness": 0.2}, "random": {"faithfulness": 0.1}}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({}, "supported", "better than each simple map"),
        ({"background_change": 0.3}, "shortcut", "everything outside the breast was made black"),
        ({"background_logit": 3.0}, "shortcut", "everything outside the breast was made black"),
        ({"muscle_change": 0.35}, "shortcut", "when the pectoral muscle was smoothed"),
        ({"muscle_logit": 3.0}, "shortcut", "when the pectoral muscle was smoothed"),
        ({"marker_change": 0.6}, "shortcut", "when a marker was added in an image corner"),
        ({"marker_logit": 3.5}, "shortcut", "when a marker was added in an image corner"),
        ({"position_change": 0.4}, "shortcut", "when the breast was moved in its field"),
        ({"position_logit": 2.6}, "shortcut", "when the breast was moved in its field"),
        ({"position_change": None, "position_logit": None}, "supported", "better than each simple map"),
        ({"marker_change": None, "marker_logit": None}, "supported", "better than each simple map"),
        ({"inside_breast": None, "outside": None}, "empty", "explains nothing"),
        ({"faithfulness": None}, "empty", "one value everywhere"),
        ({"inside_breast": 0.4, "outside": 0.55}, "outside", "60% of the map lies outside the breast"),
        ({"inside_breast": 0.3, "outside": 0.1}, "outside", "70% of the map lies outside the breast"),
        ({"randomised": 0.9}, "insensitive", "random weights gives almost the same map .correlation 0.90"),
        ({"faithfulness": 0.41}, "weak", "no better than a map of the bright pixels"),
        ({"dense_lift": 0.9}, "weak", "no more on dense tissue than an even map"),
    ],
)
def test_each_code(changes, code, words):
    verdict = judge(GOOD | changes, PLAIN, category=3)
    assert verdict.code == code
    assert re.search(words, verdict.text)
    assert verdict.trusted == (code == "supported")


def test_the_gravest_reason_is_told():
    everything = GOOD | {"background_change": 0.9, "outside": 0.9, "inside_breast": 0.1, "randomised": 1.0}
    assert judge(everything, PLAIN).code == "shortcut"
    assert judge(everything | {"background_change": 0.0}, PLAIN).code == "outside"


def test_dense_tissue_is_asked_of_dense_categories_only():
    fat = GOOD | {"dense_lift": 0.5}
    assert judge(fat, PLAIN, category=0).code == "supported"
    assert judge(fat, PLAIN, category=2).code == "weak"


def test_what_hardly_matters_is_weak():
    low = {name: {"faithfulness": -0.5} for name in PLAIN}
    assert "barely changes" in judge(GOOD | {"faithfulness": 0.1}, low).text


def test_without_the_network_dense_tissue_decides():
    placed = {"inside_breast": 1.0, "outside": 0.0, "inside_dense": 0.8}
    assert judge(placed, {"bright": {"inside_dense": 0.5}}).code == "supported"
    assert judge(placed, {"bright": {"inside_dense": 0.9}}).text == "Weak: no better than a map of the bright pixels"
    assert judge(placed | {"inside_dense": None}, {}).code == "not-scored"


def test_what_a_run_tells_of_the_model():
    assert Dependence(3, 7).statement() is None, "too few images"
    assert "in 1 of 12 images" in Dependence(1, 12).statement()
    unknown = "not known whether the network predicts better than chance"
    assert unknown in Dependence(1, 12).statement()
    assert unknown not in Dependence(1, 12, better_than_chance=True).statement()
    assert Dependence(0, 0, better_than_chance=False).statement().endswith("its maps explain nothing.")
    assert "Do not trust" not in Dependence(1, 12).statement()
    assert "Do not trust" in Dependence(2, 12).statement()
    assert "Do not trust" not in Dependence(2, 12).statement(VerdictRules(shortcut_share=0.5))


@pytest.mark.parametrize("figures", [GOOD, GOOD | {"background_change": 0.9}, GOOD | {"outside": 0.9}])
def test_maps_of_a_network_that_learned_nothing(figures):
    assert judge(figures, PLAIN, better_than_chance=False).code == "chance"
    known, unknown = judge(figures, PLAIN, better_than_chance=True), judge(figures, PLAIN)
    assert known.code == unknown.code
    says_so = "it is not known whether the network predicts better than chance" in unknown.text
    assert says_so == (known.code == "shortcut")


@pytest.mark.parametrize("count", [30, 200])
def test_chance_is_that_of_permutations(count):
    rng = np.random.default_rng(count)
    reference, predicted = rng.integers(0, 4, (2, count))
    answers = []
    for share in np.linspace(0, 0.5, 11):
        mixed = np.where(np.arange(count) < share * count, reference, predicted)
        drawn = np.array([np.corrcoef(rng.permutation(reference), mixed)[0, 1] for _ in range(2000)])
        p_value = np.mean(drawn >= np.corrcoef(reference, mixed)[0, 1])
        answers.append(better_than_chance(confusion_of(reference, mixed)))
        if not 0.03 < p_value < 0.08:
            assert answers[-1] == (p_value < 0.05)
    assert (answers[0], answers[-1]) == (False, True)


def test_chance_holds_its_error_rate_and_tries_make_it_stricter():
    rng = np.random.default_rng(0)
    drawn = [better_than_chance(confusion_of(*rng.integers(0, 4, (2, 40)))) for _ in range(1000)]
    assert 0.03 < np.mean(drawn) < 0.08
    weak = np.array([[6, 4, 0, 0], [4, 6, 4, 0], [0, 6, 4, 4], [4, 0, 6, 2]])
    assert better_than_chance(weak) is True
    assert better_than_chance(weak, tries=10**6) is None
    assert better_than_chance(np.diag([3, 3, 3, 2])) is None, "too few"
    assert better_than_chance(np.diag([50, 0, 0, 0])) is None, "one category only"
    assert better_than_chance(np.tile([9, 0, 0, 0], (4, 1))) is False, "one answer for all"


def confusion_of(reference, predicted):
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (reference, predicted), 1)
    return confusion


def test_the_record_of_the_training_tells_what_was_learned():
    record = {"epoch": {"epoch": 3}, "validation_confusion": np.diag([5, 5, 5, 5]).tolist()}
    assert learned(record) is True
    assert learned(record | {"validation_confusion": np.full((4, 4), 2).tolist()}) is False
    assert learned({"epoch": {"epoch": 3}}) is learned({}) is None


def test_every_rule_changes_a_verdict():
    cases = {
        "background_change": GOOD | {"background_change": 0.2},
        "muscle_change": GOOD | {"muscle_change": 0.2},
        "muscle_logit": GOOD | {"muscle_logit": 2.2},
        "background_logit": GOOD | {"background_logit": 1.5},
        "marker_change": GOOD | {"marker_change": 0.4},
        "marker_logit": GOOD | {"marker_logit": 2.5},
        "position_change": GOOD | {"position_change": 0.2},
        "position_logit": GOOD | {"position_logit": 2.2},
        "outside": GOOD | {"outside": 0.3},
        "outside_or_muscle": GOOD | {"inside_breast": 0.6},
        "randomised": GOOD | {"randomised": 0.5},
        "faithfulness": GOOD,
        "margin": GOOD,
        "dense_lift": GOOD,
    }
    stricter = {
        "background_change": 0.1,
        "background_logit": 1.0,
        "muscle_change": 0.1,
        "muscle_logit": 2.0,
        "marker_change": 0.3,
        "marker_logit": 2.0,
        "position_change": 0.1,
        "position_logit": 2.0,
        "outside": 0.2,
        "outside_or_muscle": 0.3,
        "randomised": 0.3,
        "faithfulness": 0.7,
        "margin": 0.3,
        "dense_lift": 2.0,
    }
    assert {*cases, "shortcut_share"} == {field.name for field in fields(VerdictRules)} == set(STANDARD_RULES.to_dict())
    for name, figures in cases.items():
        assert judge(figures, PLAIN, category=3).code == "supported"
        assert judge(figures, PLAIN, category=3, rules=VerdictRules(**{name: stricter[name]})).code != "supported"


@pytest.mark.parametrize(
    ("name", "value"), [("outside", 1.5), ("margin", -2), ("randomised", True), ("dense_lift", "1")]
)
def test_rules_out_of_range(name, value):
    with pytest.raises(OptionError, match=f"{name} must be .* Got {value!r} instead"):
        VerdictRules(**{name: value})


def test_the_worst_of_several():
    good, weak, bad = Verdict("supported", "s"), Verdict("weak", "weak: w"), Verdict("outside", "o")
    assert worst({"CC_R": good, "CC_L": weak, "MLO_R": bad}).to_dict() == {"code": "outside", "text": "MLO_R: o"}
    assert worst({"CC_R": weak, "CC_L": weak}).text == VERDICTS["weak"]
    assert worst({"CC_R": weak, "CC_L": weak, "MLO_R": good}).text == f"CC_R, CC_L: {VERDICTS['weak']}"
    assert worst({}).code == "not-scored"


class Corner(nn.Module):
    """The planted shortcut, by hand: D where the upper corner is bright, whatever the breast; its map is the breast."""

    def forward(self, images):
        bright = images[:, 0, 2:8, 2:8].mean((1, 2))
        logits = torch.zeros(len(images), 4)
        logits[:, 0], logits[:, 3] = 2.0, 8 * bright
        return logits


def breast_map(network, images, category):
    return images[:, 0].clip(0)


def test_a_planted_shortcut_is_caught_though_its_map_looks_right():
    view = make_exam(PhantomSpec(rows=96, seed=4), 3).views[Projection.CC_R]
    image = view.image / 255
    image[2:8, 2:8] = 1.0
    values = np.where(view.dense, 1.0, 0.0)
    assert score_explanation(values, image, view.labels).verdict.code == "supported"  # by its place alone
    found = score_explanation(values, image, view.labels, probe=Probe(Corner(), 3, breast_map))
    assert found.verdict.code == "shortcut"
    assert found.scores["background_change"] > 0.8
    clean = view.image / 255  # without the marker: one is planted
    alone = score_explanation(values, clean, view.labels, probe=Probe(Corner(), 0, breast_map))
    assert alone.scores["background_change"] < 0.01
    assert "when a marker was added in an image corner" in alone.verdict.text
    blind = ScoreSpec(rules=VerdictRules(marker_change=1, marker_logit=1000), stability=False)
    asked = Probe(Corner(), 0, breast_map)
    assert score_explanation(values, clean, view.labels, probe=asked, spec=blind).verdict.code != "shortcut"


def test_maps_without_a_say():
    view = make_exam(PhantomSpec(rows=96, seed=4), 3).views[Projection.CC_R]
    for values, code in ((np.zeros(view.image.shape), "empty"), ((view.labels == 0) * 1.0, "outside")):
        assert score_explanation(values, view.image, view.labels).verdict.code == code
    assert score_explanation(view.image * 1.0, view.image, view.labels).verdict.text.startswith(
        "Weak: no better than a map of the bright pixels"
    )


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "phantoms"
    write_phantoms(PhantomSpec(rows=96, seed=8), 2, folder)
    return folder


def test_every_map_of_the_command_has_its_verdict(run, phantoms, tiny_model, tmp_path):
    scores = tmp_path / "scores.json"
    code, output, _ = run(
        "explain", phantoms, "--model", tiny_model, "--output", tmp_path / "maps", "--json", scores, "--device", "cpu"
    )
    assert code == 0
    assert f"scores and verdicts in {scores}" in output
    found = json.loads(scores.read_text())
    assert found["note"] == RESEARCH_USE_ONLY
    assert found["rules"] == STANDARD_RULES.to_dict()
    assert len(found["images"]) == 8
    assert len(found["exams"]) == 2
    summary = json.loads((tmp_path / "maps" / "explanations.json").read_text())
    for image, short in zip(found["images"], summary["images"], strict=True):
        assert image["verdict"] == short["verdict"]
        assert set(image["verdict"]) == {"code", "text"}
        assert image["verdict"]["code"] in VERDICTS
        assert set(image["baselines"]) == {"uniform", "random", "blob", "bright"}
        assert {"inside_dense", "spearman", "faithfulness", "randomised", "stability_shift"} <= set(image["scores"])
        assert all(value is not None or name in image["reasons"] for name, value in image["scores"].items())
    for exam in found["exams"]:
        assert {"left_right_cc", "left_right_mlo", "depth_right", "depth_left", "mean"} == set(exam["agreement"])
        assert set(exam["baselines"]) == {"bright"}
        assert exam["verdict"]["code"] in VERDICTS


def test_the_default_models_map_is_what_was_measured(run, phantoms, tmp_path):
    scores = tmp_path / "scores.json"
    assert run("explain", phantoms, "--output", tmp_path / "maps", "--json", scores, "--first", 1)[0] == 0
    images = json.loads(scores.read_text())["images"]
    assert {image["verdict"]["code"] for image in images} <= {"measured", "empty"}
    assert any(image["verdict"]["code"] == "measured" for image in images)


def test_an_image_without_a_breast_is_not_scored(run, blobs, tiny_model, tmp_path):
    scores = tmp_path / "scores.json"
    arguments = ("explain", blobs, "--model", tiny_model, "--output", tmp_path / "maps", "--first", 1)
    assert run(*arguments, "--json", scores)[0] == 0
    for image in json.loads(scores.read_text())["images"]:
        assert image["verdict"]["code"] == "not-scored"
        assert str(blobs) not in image["verdict"]["text"]


def test_scores_never_replace_what_is_read(run, phantoms, tiny_model, tmp_path):
    code, _, error = run(
        "explain", phantoms, "--model", tiny_model, "--output", tmp_path / "m", "--json", phantoms / "manifest.csv"
    )
    assert code == 1
    assert "is read by this command" in error


def test_a_verdict_does_not_depend_on_the_other_exams(run, phantoms, tiny_model, tmp_path):
    read = []
    for name, count in (("one", 1), ("both", 2)):
        scores = tmp_path / f"{name}.json"
        arguments = ("--model", tiny_model, "--output", tmp_path / name, "--first", count, "--json", scores)
        assert run("explain", phantoms, *arguments)[0] == 0
        read.append(json.loads(scores.read_text()))
    assert read[0]["images"] == read[1]["images"][:4]
    assert read[0]["model_statement"] is None
    assert "of 8 images" in read[1]["model_statement"]
