"""Flags of images of which no reading should be trusted much."""

from __future__ import annotations

import numpy as np
import pytest

from mammodensity.anatomy.quality import LOW_QUALITY, quality_flags
from mammodensity.exam import Mammogram
from mammodensity.phantom.exams import PhantomSpec, make_exam


@pytest.fixture(scope="module")
def pixels():
    return next(iter(make_exam(PhantomSpec(rows=256, seed=2), 1).views.values())).image


def texts(pixels) -> list[str]:
    flags = quality_flags(Mammogram(pixels))
    assert {flag.code for flag in flags} <= {LOW_QUALITY}
    return [flag.text for flag in flags]


def test_good_images_have_no_flag(pixels):
    assert texts(pixels) == []
    assert texts(pixels[:, ::-1]) == []
    assert texts(pixels.astype(np.uint16) * 257) == []
    assert texts(np.kron(pixels, np.ones((4, 4), np.uint8))) == []


def test_thumbnails(pixels):
    (text,) = texts(np.ascontiguousarray(pixels[::4, ::4]))
    assert text == "the image has only 64 x 52 pixels, so density may be read wrongly"
    assert texts(np.ascontiguousarray(pixels[::2, ::2])) == [], "128 x 103, as the phantoms of `make demo`"


def test_few_grey_levels(pixels):
    (text,) = texts(pixels // 16 * 16)
    assert "grey levels" in text


def test_saturation(pixels):
    bright = np.where(pixels > np.percentile(pixels, 90), 255, pixels).astype(np.uint8)
    (text,) = texts(bright)
    assert text == "10 % of the image is saturated, so density may be read wrongly"


def test_almost_no_contrast(pixels):
    flat = np.where(pixels > 20, 30000 + pixels.astype(np.uint16), 0).astype(np.uint16)
    (text,) = texts(flat)
    assert "spans only 0." in text
