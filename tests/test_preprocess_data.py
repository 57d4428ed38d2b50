"""From pixels to network input, and the random changes of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mammodensity.anatomy.network_input import INFN_PREPROCESS, PreprocessSpec, fitted_box, preprocess
from mammodensity.errors import ImageError, OptionError
from mammodensity.exam import Mammogram
from mammodensity.models.batch import AugmentSpec, augment, input_batch, with_channels

RNG = np.random.default_rng(0)
SMALL = PreprocessSpec(rows=32, columns=24)


def mammogram(shape=(60, 40), dtype=np.uint8) -> Mammogram:
    return Mammogram(RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype))


def test_the_origins_preprocessing_by_hand():
    one = mammogram((64, 48))
    result = preprocess(one, replace(INFN_PREPROCESS, rows=32, columns=24))
    picked = one.pixels[1::2, 1::2] / 255  # the nearest to the centre of each 2 x 2 block
    assert np.allclose(result, picked - picked.mean(), atol=1e-6)
    assert result.dtype == np.float32


def test_area_averages():
    one = mammogram((64, 48))
    blocks = one.pixels.reshape(32, 2, 24, 2).mean((1, 3)) / 255
    assert np.allclose(preprocess(one, replace(SMALL, centring="none")), blocks, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (100, 90)])
def test_sixteen_bit_is_the_same_image(size):
    one = mammogram()
    wide = Mammogram(one.pixels.astype(np.uint16) * 257)
    spec = replace(SMALL, rows=size[0], columns=size[1])
    assert np.allclose(preprocess(one, spec), preprocess(wide, spec), atol=1e-5)


def test_image_range_ignores_the_bit_depth_in_use():
    twelve_bit = Mammogram(RNG.integers(0, 4095, (60, 40)).astype(np.uint16))
    shifted = Mammogram((twelve_bit.pixels * 8 + 100).astype(np.uint16))
    spec = replace(SMALL, intensity="image-range")
    assert np.allclose(preprocess(twelve_bit, spec), preprocess(shifted, spec), atol=1e-4)


@given(st.integers(16, 80), st.integers(16, 80), st.sampled_from(["mean", "standardise"]))
@settings(max_examples=30, deadline=None)
def test_centring(rows, columns, centring):
    spec = PreprocessSpec(rows=rows, columns=columns, centring=centring)
    result = preprocess(mammogram(), spec)
    assert result.shape == (rows, columns)
    assert abs(result.mean(dtype=np.float64)) < 1e-5
    if centring == "standardise":
        assert abs(result.std() - 1) < 1e-3


def test_padding_keeps_the_aspect():
    spec = replace(SMALL, rows=32, columns=32, aspect="pad", centring="none")
    assert fitted_box((60, 30), spec) == (0, 8, 32, 16)
    result = preprocess(mammogram((60, 30)), spec)
    assert not result[:, :8].any()
    assert not result[:, 24:].any()
    assert result[:, 8:24].any()


@pytest.mark.parametrize("wrong", [{"rows": 8}, {"interpolation": "cubic"}, {"aspect": "crop"}, {"centring": "max"}])
def test_impossible_specs(wrong):
    with pytest.raises(OptionError, match=f"{next(iter(wrong))} must be"):
        replace(SMALL, **wrong)


def test_pixels_that_are_no_mammogram():
    for pixels in (np.zeros((30, 30), np.uint8), np.zeros((3, 30, 30), np.uint8), np.ones((30, 30), np.float32)):
        with pytest.raises(ImageError):
            Mammogram(pixels)


def test_batches_equal_singles_and_channels_repeat():
    images = [mammogram(), mammogram((50, 50))]
    batch = input_batch(images, SMALL, 3)
    assert batch.shape == (2, 3, 32, 24)
    for index, one in enumerate(images):
        assert torch.equal(batch[index : index + 1], input_batch([one], SMALL, 3))
    assert torch.equal(batch[:, 0], batch[:, 2])
    assert with_channels(batch[:, :1], 1).shape == (2, 1, 32, 24)


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def test_augmentation_depends_on_each_images_own_generator():
    images = torch.rand(4, 1, 32, 24)
    together = augment(images, AugmentSpec(), rngs(4))
    for index in range(4):
        alone = augment(images[index : index + 1], AugmentSpec(), rngs(4)[index : index + 1])
        assert torch.allclose(alone, together[index : index + 1], atol=1e-6)
    assert not torch.equal(together, augment(images, AugmentSpec(), rngs(4, seed=1)))


@pytest.mark.parametrize("name", ["zoom", "shift", "rotation_degrees"])
def test_each_change_does_something_and_none_does_nothing(name):
    nothing = AugmentSpec(zoom=0, shift=0, rotation_degrees=0)
    images = torch.rand(2, 1, 32, 24)
    assert torch.equal(augment(images, nothing, rngs(2)), images)
    changed = augment(images, replace(nothing, **{name: 0.5}), rngs(2))
    assert not torch.equal(changed, images)
    assert changed.min() >= images.min() - 1e-6
    assert changed.max() <= images.max() + 1e-6


def test_a_rotation_is_a_rotation_also_of_an_oblong_image():
    # A disc stays a disc when an image of another aspect is turned.
    rows, columns = np.mgrid[:96, :48]
    disc = (np.hypot(rows - 47.5, columns - 23.5) < 15).astype(np.float32)
    images = torch.from_numpy(disc)[None, None]
    turned = augment(images, AugmentSpec(zoom=0, shift=0, rotation_degrees=90), rngs(1, seed=3))
    assert (turned - images).abs().mean() < 0.01
