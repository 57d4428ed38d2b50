"""The field that is looked at: margins, frames, and the box about a breast."""

from __future__ import annotations

import numpy as np
import pytest

from mammodensity.anatomy.field import around, bounding_box, part, with_dark_margins, without_margins
from mammodensity.anatomy.outline import find_regions
from mammodensity.anatomy.tissue import find_tissue
from mammodensity.exam import Mammogram
from mammodensity.phantom.exams import PhantomSpec, make_exam


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


@pytest.fixture
def ground():
    """A breast on ground that is not even."""
    image = np.random.default_rng(3).integers(0, 30, (200, 100)).astype(np.uint8)
    image[40:140, 30:70] += 180
    return image


BREAST = np.zeros((100, 100), bool)
BREAST[20:70, 30:70] = True


def test_the_field_about_a_breast_has_background_but_at_the_chest_wall(ground):
    assert around(BREAST, (0, 0, 200, 100), ground) == (30, 29, 120, 53)
    framed = np.pad(ground, ((100, 100), (50, 50)))
    assert around(BREAST, (100, 50, 200, 100), framed) == (130, 79, 120, 53), "of a field in the image"


@pytest.mark.parametrize(("value", "columns"), [(0, 52), (255, 40), (120, 40)])
def test_of_even_margins_only_a_dark_one_before_the_breast_belongs_to_the_field(ground, value, columns):
    breast = ground[40:140, 30:70].copy()
    breast[:10, -10:] -= 180  # air above the breast
    framed = np.pad(breast, 25, constant_values=value)
    everywhere = np.ones((10, 10), bool)
    assert around(everywhere, (25, 25, 100, 40), framed) == (25, 25, 100, columns)
    framed[1, 1] = 255 - value
    assert around(everywhere, (25, 25, 100, 40), framed) == (25, 25, 100, columns), "a mark far away changes nothing"


def test_margins_are_made_dark_where_the_whole_is_looked_at():
    inner = np.full((20, 10), 0.5, np.float32)
    inner[:, 5:] = 0.1
    whole = with_dark_margins(inner, (20, 30, 20, 30), (40, 60))
    assert whole.shape == (20, 10)
    assert whole[:10].max() == whole[10:, :5].max() == pytest.approx(0.1, abs=0.01)
    assert whole[10:, 5:7].min() > 0.45


FRAMES = {
    "square": ((0, 0), (0, 60), 0),
    "centred": ((0, 0), (50, 50), 0),
    "gap at the chest wall": ((0, 0), (90, 0), 0),
    "grey": ((20, 20), (20, 60), 35),
    "large": ((90, 90), (120, 120), 0),
    "white": ((30, 30), (40, 40), 255),
    "white and large": ((90, 90), (120, 120), 255),
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


def test_white_before_a_breast_that_fills_its_frame(views):
    for projection, view in views:
        left = view.image[:, :: -1 if projection.laterality == "R" else 1]
        top, first, height, width = bounding_box(left > 0)
        tight = left[top : top + height, first : first + width]
        plain = find_tissue(Mammogram(np.ascontiguousarray(tight), projection))
        for value in (255, 128):
            framed = np.pad(tight, ((0, 0), (0, 90)), constant_values=value)
            found = find_tissue(Mammogram(framed, projection))
            assert found.percent_density == pytest.approx(plain.percent_density, abs=0.5)


def test_one_bright_pixel_in_a_margin_changes_little(views):
    for _, view in views:
        framed = np.pad(view.image, 60)
        plain = find_tissue(Mammogram(framed)).percent_density
        for place in ((1, 1), (-1, 5), (8, -3)):
            dotted = framed.copy()
            dotted[place] = 255
            assert find_tissue(Mammogram(dotted)).percent_density == pytest.approx(plain, abs=3)
