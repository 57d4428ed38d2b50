"""The field that is looked at: margins, frames, and the box about a breast."""

from __future__ import annotations

import numpy as np
import pytest

from mammodensity.exam import Mammogram
from mammodensity.phantom import PhantomSpec, make_exam
from mammodensity.preprocess import find_regions
from mammodensity.preprocess.field import around, bounding_box, part, without_margins
from mammodensity.tissue import find_tissue


@pytest.fixture(scope="module")
def views():
    """Left and right views of two phantoms."""
    return [item for index in range(2) for item in make_exam(PhantomSpec(rows=160, seed=5), index).views.items()]


@pytest.fixture
def film():
    """Grey values that vary everywhere, as film does."""
    return np.random.default_rng(0).integers(20, 200, (60, 40)).astype(np.uint8)


def test_the_box_of_a_mask():
    mask = np.zeros((9, 7), bool)
    mask[2, 3] = mask[5, 1] = True
    assert bounding_box(mask) == (2, 1, 4, 3)
    assert part(mask, (2, 1, 4, 3)).sum() == 2


@pytest.mark.parametrize("value", [0, 20, 255])
def test_even_margins_are_no_part_of_the_field(film, value):
    padded = np.pad(film, ((12, 30), (7, 0)), constant_values=value)
    assert without_margins(padded) == (12, 7, 60, 40)
    assert without_margins(padded.astype(np.uint16) * 257) == (12, 7, 60, 40)


def test_a_frame_within_a_frame(film):
    black = np.pad(film, 5)
    white = np.pad(black, ((3, 4), (9, 1)), constant_values=255)
    assert without_margins(np.pad(white, 11)) == (11 + 3 + 5, 11 + 9 + 5, 60, 40)


def test_what_is_not_even_stays(film):
    assert without_margins(film) == (0, 0, 60, 40)
    noise = np.random.default_rng(1).integers(0, 12, (100, 100)).astype(np.uint8)
    noise[20:80, 30:70] = film
    assert without_margins(noise) == (0, 0, 100, 100)
    stripes = np.tile(np.arange(40, dtype=np.uint8) * 5, (60, 1))
    assert without_margins(stripes) == (0, 0, 60, 40)


def test_little_noise_is_even(film):
    padded = np.pad(film, 20)
    padded += np.random.default_rng(1).integers(0, 2, padded.shape).astype(np.uint8)
    assert without_margins(padded) == (20, 20, 60, 40)


def test_a_mark_on_an_even_image_is_no_field():
    image = np.zeros((300, 240), np.uint8)
    image[20:24, 200:210] = 255
    assert without_margins(image) == (0, 0, 300, 240)


def test_the_field_about_a_breast_has_background_but_at_the_chest_wall():
    breast = np.zeros((100, 100), bool)
    breast[20:70, 30:70] = True
    assert around(breast, (0, 0, 200, 100), 100) == (30, 29, 120, 53)
    assert around(breast, (100, 50, 200, 100), 200) == (130, 79, 120, 53), "of a field in the image"
    everywhere = np.ones((10, 10), bool)
    assert around(everywhere, (0, 0, 50, 40), 40) == (0, 0, 50, 40), "no more than there is"
    assert around(everywhere, (20, 20, 50, 40), 200) == (20, 20, 50, 52), "into a margin only before the breast"


FRAMES = {
    "square": ((0, 0), (0, 60), 0),
    "centred": ((0, 0), (50, 50), 0),
    "gap at the chest wall": ((0, 0), (90, 0), 0),
    "grey": ((20, 20), (20, 60), 35),
    "large": ((90, 90), (120, 120), 0),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_changes_little(views, name):
    """As where images of all sizes were brought to one, mini-MIAS for instance."""
    rows, columns, value = FRAMES[name]
    for projection, view in views:
        mirrored = projection.laterality == "R"
        sides = (rows, columns[::-1] if mirrored else columns)
        framed = np.pad(view.image, sides, constant_values=value)
        plain, found = find_tissue(Mammogram(view.image)), find_tissue(Mammogram(framed))
        assert found.chest_side == plain.chest_side == ("right" if mirrored else "left")
        assert abs(found.percent_density - plain.percent_density) < 4
        inside = found.labels[sides[0][0] :, sides[1][0] :][: view.image.shape[0], : view.image.shape[1]]
        assert (inside > 0).sum() == (found.labels > 0).sum()
        assert np.mean((inside > 0) != (plain.labels > 0)) < 0.01


def test_noise_beyond_the_chest_wall_does_not_turn_the_image(views):
    rng = np.random.default_rng(2)
    for projection, view in views:
        mirrored = projection.laterality == "R"
        frame = rng.integers(0, 8, (view.image.shape[0], 2 * view.image.shape[1])).astype(np.uint8)
        frame[:, view.image.shape[1] // 2 :][:, : view.image.shape[1]] = view.image
        assert find_regions(Mammogram(frame)).chest_side == ("right" if mirrored else "left")
