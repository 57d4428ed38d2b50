"""Counterfactual density: amounts that are reached, what is left alone, flips and monotony by hand, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mammodensity.errors import ImageError, OptionError
from mammodensity.exam import Mammogram
from mammodensity.explanation.counterfactual import (
    DensityCurve,
    PhantomBreasts,
    paint,
    percent_density,
    phantom_curve,
    reduced_view,
)
from mammodensity.models.scoring import ViewScores
from mammodensity.phantom.exams import PhantomSpec, make_exam, write_phantoms
from mammodensity.scores import fuse_exam
from mammodensity.terms import Projection
from mammodensity.workflows.counterfactuals import density_plot

SPEC = PhantomSpec(rows=96, seed=6)


@pytest.fixture(scope="module")
def breasts():
    return PhantomBreasts.trace(SPEC, 1)


class Threshold:
    """A reader of mean grey: brighter is denser; its answer is known."""

    projections = (Projection.MLO_L,)
    warnings: tuple[str, ...] = ()
    fusion = "mean"

    def fuse(self, views, *, fusion, allow_missing, policy):
        return fuse_exam({view: one.scores for view, one in views.items()}, fusion, allow_missing, policy)

    def score_view(self, view):
        pixels = view.mammogram.pixels
        level = np.clip((pixels[pixels > 10].mean() - 60) / 60, 0, 3)
        distance = -np.abs(np.arange(4) - level)
        return ViewScores(np.exp(distance) / np.exp(distance).sum())


class Refusing(Threshold):
    def score_view(self, view):
        raise ImageError("not today")


@pytest.mark.parametrize("percent", [5.0, 30.0, 60.0])
def test_phantoms_reach_the_amount_and_keep_their_outline(breasts, percent):
    own, other = breasts.render(Projection.MLO_L), breasts.render(Projection.MLO_L, percent)
    assert other.percent_density == pytest.approx(percent, abs=4)
    assert np.array_equal(own.labels > 0, other.labels > 0)
    assert np.array_equal(own.labels == 3, other.labels == 3)
    assert np.array_equal(other.mammogram.pixels, breasts.render(Projection.MLO_L, percent).mammogram.pixels)


def test_right_breasts_face_the_other_way(breasts):
    own = make_exam(SPEC, 1).views
    for projection in (Projection.CC_R, Projection.CC_L):
        assert np.array_equal(breasts.render(projection).labels > 0, own[projection].labels > 0)


@pytest.fixture(scope="module")
def view():
    made = make_exam(SPEC, 1).views[Projection.MLO_L]
    return Mammogram(made.image, Projection.MLO_L), made.labels


def test_painting_reaches_the_amount_and_leaves_the_rest(view):
    mammogram, labels = view
    own = percent_density(labels)
    for percent in (own / 2, min(1.5 * own, 60)):
        step = paint(mammogram, labels, percent)
        assert step.percent_density == pytest.approx(percent, abs=1)
        outside = ~np.isin(labels, (1, 2))
        assert np.array_equal(step.mammogram.pixels[outside], mammogram.pixels[outside])
        assert np.array_equal(step.labels == 3, labels == 3)
        added = (step.labels == 2) & (labels == 1)
        removed = (step.labels == 1) & (labels == 2)
        change = step.mammogram.pixels.astype(int) - mammogram.pixels
        if percent > own:
            assert not removed.any()
            assert change[added].mean() > 0
            assert change.min() >= 0
        else:
            assert not added.any()
            assert change[removed].mean() < 0
            assert change.max() <= 0
    same = paint(mammogram, labels, own)
    assert np.array_equal(same.mammogram.pixels, mammogram.pixels)
    assert np.array_equal(same.labels, labels)


def test_dense_tissue_can_be_painted_into_a_fatty_breast(view):
    mammogram, labels = view
    fatty = np.where(labels == 2, 1, labels).astype(np.uint8)
    step = paint(mammogram, fatty, 20)
    assert step.percent_density == pytest.approx(20, abs=1)
    assert (step.mammogram.pixels.astype(int) - mammogram.pixels).max() > 0
    full = paint(mammogram, np.where(labels == 1, 2, labels).astype(np.uint8), 40)
    assert full.percent_density == pytest.approx(40, abs=1)


def test_large_images_are_reduced(view):
    mammogram, labels = view
    big = Mammogram(np.kron(mammogram.pixels, np.ones((10, 10), np.uint8)), Projection.MLO_L, 0.1)
    small, fewer = reduced_view(big, np.kron(labels, np.ones((10, 10), np.uint8)))
    assert max(small.pixels.shape) == 768
    assert fewer.shape == small.pixels.shape
    assert small.spacing_mm == pytest.approx(0.1 * 960 / 768)
    assert percent_density(fewer) == pytest.approx(percent_density(labels), abs=0.5)


def test_what_cannot_be_painted(view):
    mammogram, labels = view
    with pytest.raises(OptionError, match=r"percent density must be 0 to 100\. Got 120 instead"):
        paint(mammogram, labels, 120)
    with pytest.raises(OptionError, match="the labels hold no breast"):
        paint(mammogram, np.zeros_like(labels), 20)


def curve(*levels: float, own: int = 1) -> DensityCurve:
    """A made-up exam: the score of B rises as given, the rest is A."""
    b = np.array(levels)
    scores = np.stack([1 - b, b, 0 * b, 0 * b], axis=1)
    return DensityCurve("e", 10.0 * np.arange(1, len(b) + 1), scores, own)


def test_flips_by_hand():
    rising = curve(0.1, 0.4, 0.8, 0.9)  # at 10, 20, 30, 40 %; crosses one half a quarter of the way from 20 to 30
    assert rising.flip(1) == pytest.approx(22.5)
    assert rising.flip(-1) is None
    facts = rising.to_dict()
    assert facts["category"] == "A"
    assert facts["percent_density"] == 20
    assert facts["points_to_flip"] == pytest.approx(2.5)
    assert facts["monotone"]
    assert facts["reasons"] == {}
    below = curve(0.1, 0.4, 0.8, 0.9, own=3)
    assert below.flip(-1) == pytest.approx(22.5)
    assert below.to_dict()["points_to_flip"] == pytest.approx(17.5)
    never = curve(0.1, 0.2, 0.3).to_dict()
    assert never["points_to_flip"] is None
    assert never["reasons"]["points_to_flip"] == "the answer is the same at every step"


def test_monotone_by_hand():
    assert curve(0.1, 0.4, 0.38, 0.9).monotone, "within the tolerance"
    falling = curve(0.1, 0.4, 0.3, 0.9)
    assert not falling.monotone
    assert falling.largest_fall == pytest.approx(0.1)
    slowly = curve(0.5, 0.47, 0.44, 0.41)
    assert not slowly.monotone, "small falls add up"


def test_a_reader_of_brightness_follows_the_phantom(breasts):
    found = phantom_curve(Threshold(), breasts, steps=4)
    assert len(found.percents) == 5
    assert (np.diff(found.percents) >= 0).all()
    own = breasts.render(Projection.MLO_L).percent_density
    assert found.percents[found.own] == pytest.approx(own)
    assert found.scores.sum(axis=1) == pytest.approx(np.ones(5))
    with pytest.raises(OptionError, match=r"steps must be at least 2\. Got 1 instead"):
        phantom_curve(Threshold(), breasts, steps=1)
    with pytest.raises(ImageError, match="not today"):
        phantom_curve(Refusing(), breasts, steps=2)


def test_the_plot_differs_by_exam():
    plots = [density_plot(curve(0.1, 0.4, 0.8)), density_plot(curve(0.1, 0.4, 0.3))]
    assert all(plot.startswith(b"\x89PNG") for plot in plots)
    assert plots[0] != plots[1]


def test_the_command(run, tmp_path):
    data = tmp_path / "phantoms"
    write_phantoms(SPEC, 1, data)
    out = tmp_path / "density"
    code, output, _ = run(
        "counterfactual", data, "--phantoms", 1, "--steps", 2, "--output", out, "--json", tmp_path / "c.json"
    )
    assert code == 0
    assert "never lowers the expected category" in output
    assert "Not a medical device" in output
    found = json.loads((tmp_path / "c.json").read_text())
    assert len(found["exams"]) == 2
    assert len(list(out.glob("*_density.png"))) == 2
    assert found["monotone_share"] == sum(exam["monotone"] for exam in found["exams"]) / 2
    for exam in found["exams"]:
        assert 2 <= len(exam["steps"]) <= 3
        assert sum(step["own"] for step in exam["steps"]) == 1
        assert (exam["points_to_flip"] is None) == ("points_to_flip" in exam["reasons"])


def test_commands_that_make_no_sense(run, blobs, tmp_path):
    code, _, error = run("counterfactual", "--output", tmp_path / "o")
    assert code == 2
    assert "name a data set, or how many phantoms" in error
    code, _, error = run("counterfactual", blobs, "--first", 1, "--output", tmp_path / "o")
    assert code == 1, "no breast in them"
    assert not (tmp_path / "o").exists()
    code, _, error = run("counterfactual", blobs, "--output", blobs / "o")
    assert code == 1
    assert "lie one within the other" in error
    code, _, error = run("counterfactual", "--phantoms", 1, "--steps", 1, "--output", tmp_path / "o")
    assert code == 2
    assert "steps must be at least 2. Got 1 instead." in error
    code, _, error = run("counterfactual", "--phantoms", 1, "--output", tmp_path / "o", "--json", tmp_path)
    assert code == 1
    assert "it is a folder; name a file in it" in error
    assert not (tmp_path / "o").exists()
