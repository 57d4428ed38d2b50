"""Images unlike those a network learned from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mammodensity.anatomy.network_input import PreprocessSpec, preprocess
from mammodensity.anatomy.quality import Familiarity, fit_familiarity
from mammodensity.exam import Mammogram
from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.terms import Projection

SPEC = PreprocessSpec(rows=48, columns=48)


def inputs(pixels) -> np.ndarray:
    return preprocess(Mammogram(np.ascontiguousarray(pixels)), SPEC)


@pytest.fixture(scope="module")
def pixels():
    return [make_exam(PhantomSpec(rows=48, seed=4), index).views[Projection.CC_L].image for index in range(40)]


@pytest.fixture(scope="module")
def usual(pixels) -> Familiarity:
    every = np.stack([inputs(one) for one in pixels])
    found = fit_familiarity(every[:26], every[26:32])
    assert found is not None
    return found


def test_images_of_the_same_kind_are_familiar(usual, pixels):
    assert max(usual.distance(inputs(one)) for one in pixels[32:]) < usual.limit


@pytest.mark.parametrize(
    "change",
    [
        lambda image: 255 - image,
        lambda image: image[:, ::-1],
        lambda image: np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8),
        lambda image: image[:24, :16],
    ],
    ids=["inverted", "mirrored", "noise", "cropped"],
)
def test_others_are_not(usual, pixels, change):
    strange = [usual.distance(inputs(change(one))) > usual.limit for one in pixels[32:]]
    assert np.mean(strange) > 0.8


def test_the_distance_is_mahalanobis(usual, pixels):
    """The mean square distance of the images that the covariance comes from is the number of measures."""
    found = [usual.distance(inputs(one)) ** 2 for one in pixels[:26]]
    assert np.mean(found) == pytest.approx(10, rel=0.35)  # the covariance is shrunk by a tenth


def test_it_is_read_back_from_json(usual, pixels):
    again = Familiarity.from_dict(json.loads(json.dumps(usual.to_dict())))
    assert again == usual
    assert again.distance(inputs(pixels[0])) == usual.distance(inputs(pixels[0]))


def test_with_few_images_nothing_is_said(pixels):
    every = np.stack([inputs(one) for one in pixels])
    assert fit_familiarity(every[:19], every[19:]) is None
    assert fit_familiarity(every, every[:0]) is None
