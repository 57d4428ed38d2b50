"""Images that are no mammograms: each rule, what must pass, and the commands that say so."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mammodensity.anatomy.outline import find_regions
from mammodensity.anatomy.plausibility import Signs, require_mammogram, signs_of
from mammodensity.data.picture_files import read_picture
from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.phantom.disturbances import disturb, impostor
from mammodensity.phantom.exams import PhantomSpec, make_exam, trace_breast
from mammodensity.terms import Projection
from mammodensity.workflows.check import check_path

GOOD = Signs(
    grey_levels=190, detail=0.1, edges=0.05, mirror=-0.3, upside_down=0.5, corners=2, order=1.0, lost=0.0, outline=1.0,
    step=0.1,
)  # fmt: skip
"""About the medians of real mammograms."""
BROKEN = {
    "grey levels": {"grey_levels": 4},
    "sharp edges": {"detail": 0.7},
    "all sharp edges": {"edges": 0.3},
    "left and right are alike": {"mirror": 0.99},
    "turn it": {"upside_down": -0.6},
    "four corners": {"corners": 4},
    "no dark background": {"order": 0.6},
    "no dark background beside": {"lost": 0.6},
    "no edge between": {"outline": 0.3},
    "larger than its own": {"step": 3.0},
}


@pytest.fixture(scope="module")
def views():
    return make_exam(PhantomSpec(rows=192, seed=5), 0).views


def refusal(pixels) -> str:
    with pytest.raises(ImageError) as caught:
        find_regions(Mammogram(np.ascontiguousarray(pixels)))
    assert caught.value.code == "no-mammogram"
    return str(caught.value)


@pytest.mark.parametrize("text", BROKEN)
def test_each_rule_alone(text):
    require_mammogram(GOOD, "a.png")
    require_mammogram(replace(GOOD, order=None, lost=None, outline=None, step=None), "a.png")
    with pytest.raises(ImageError, match=f"a.png: no mammogram: .*{text}") as caught:
        require_mammogram(replace(GOOD, **BROKEN[text]), "a.png")
    assert caught.value.code == "no-mammogram"
    assert "\n" not in str(caught.value)


def test_signs_of_a_half_disc():
    """A bright half disc at the left: known shares."""
    y, x = np.mgrid[:192, :128]
    region = np.hypot((y - 96) / 1.5, x) < 50
    bright, dark = np.where(region, 0.8, 0.1), np.where(region, 0.1, 0.8)
    signs = signs_of(np.arange(77, dtype=np.uint16)[None], bright, bright, region)
    assert (signs.grey_levels, signs.corners, signs.order, signs.lost, signs.outline) == (77, 0, 1.0, 0.0, 1.0)
    assert signs.upside_down > 0.95
    assert signs.mirror < 0.2
    assert signs.step is not None
    assert signs.step < 0.2
    turned = signs_of(np.zeros((1, 1), np.uint8), dark, dark, region)
    assert (turned.order, turned.lost) == (None, None), "all background is brighter, as a label would be"
    assert turned.outline == 0
    everywhere = signs_of(np.zeros((1, 1), np.uint8), bright, bright, np.ones_like(region))
    assert (everywhere.corners, everywhere.order, everywhere.outline) == (4, None, None)


def test_phantoms_pass_and_what_is_made_of_them_does_not(views):
    for projection, view in views.items():
        find_regions(Mammogram(view.image, projection))
        assert "grey levels" in refusal(view.labels * 80)
        left = view.image[:, :: -1 if projection.laterality == "R" else 1]
        assert "alike" in refusal(np.hstack([left[:, ::-1], left]))


@pytest.mark.parametrize("width", [50, 80])
def test_an_arm_beside_the_breast_is_no_background(width):
    """A narrow breast with a thick muscle and an arm that hangs in from above; a bright ground is still refused."""
    y, x = np.mgrid[:192, :128]
    breast, muscle = (x / 40) ** 2 + ((y - 110) / 70) ** 2 < 1, x < 38 * (1 - y / 130)
    region = breast | muscle
    grey = (0.05 + 0.3 * breast + 0.4 * muscle).astype(np.float32)
    arm = (x > 128 - width * (1 - y / 120)) & (y < 120)

    def signs(image):
        return signs_of((image * 255).astype(np.uint8), image, image, region)

    with_arm = signs(np.where(arm & ~region, np.float32(0.6), grey))
    assert with_arm.order == pytest.approx(signs(grey).order, abs=0.01)
    require_mammogram(replace(GOOD, order=with_arm.order, lost=with_arm.lost), "a.png")
    ground = signs(np.where((x > 45) & ~region, np.float32(0.6), grey))
    assert ground.order is not None
    assert ground.order < 0.9


def test_a_turned_breast_is_refused(views):
    image = views[Projection.MLO_L].image
    assert "turn it" in refusal(np.rot90(image, 3)[:110])


def test_an_oblique_view_upside_down_is_refused(views):
    for projection in (Projection.MLO_L, Projection.MLO_R):
        image = views[projection].image
        for turned in (image[::-1], image[::-1, ::-1]):
            with pytest.raises(ImageError, match="upside down, or lacks its upper part; turn it") as caught:
                find_regions(Mammogram(np.ascontiguousarray(turned), projection))
            assert caught.value.code == "turned"
        filled = np.where(views[projection].labels == 3, 90, image).astype(image.dtype)  # a muscle of one grey
        find_regions(Mammogram(filled, projection))
    for projection in (Projection.CC_L, Projection.CC_R):  # about the same either way up
        for known in (None, projection):
            find_regions(Mammogram(np.ascontiguousarray(views[projection].image[::-1]), known))


def test_white_borders_labels_and_padding_pass(views):
    image = views[Projection.MLO_L].image
    white = np.pad(image, 4, constant_values=255)
    label = image.copy()
    label[6:30, -36:-6] = 255
    for pixels in (white, label, np.pad(image, ((0, 0), (0, 90))), np.pad(image, ((60, 60), (0, 0)))):
        find_regions(Mammogram(pixels))


def test_most_impostors_are_refused_and_nearly_all_disturbed_phantoms_pass():
    rng = np.random.default_rng(3)
    paths = trace_breast(PhantomSpec(rows=128, seed=3), 0, "L")["MLO"]
    refused = {True: 0, False: 0}
    for number in range(80):
        image = disturb(paths, (192, 128), rng)[0]
        grey = impostor((192, 128), rng, image) if number % 2 else image
        try:
            find_regions(Mammogram(np.rint(grey * 255).astype(np.uint8)))
        except ImageError:
            refused[bool(number % 2)] += 1
    assert refused[True] >= 36, "of 40"
    assert refused[False] <= 6, "of 40 of one breast; of many breasts 23 of 300, docs/preprocessing.md"


def test_check_and_segment_say_it(views, tmp_path, run):
    folder = tmp_path / "exam"
    folder.mkdir()
    for projection, view in views.items():
        Image.fromarray(view.image).save(folder / f"e_{projection}.png")
    Image.fromarray(views[Projection.CC_L].labels * np.uint8(80)).save(folder / "e_CC_L.png")
    severe = [one for one in check_path(folder).problems if one.severe]
    assert [one.code for one in severe] == ["no-mammogram-image"]
    code, out, _ = run("segment", folder, "--output", tmp_path / "out")
    assert code == 0
    assert "refused: " in out
    assert "no mammogram: it has only a handful" in out
    assert not np.asarray(Image.open(tmp_path / "out" / "e_CC_L.png")).any()
    code, _, err = run("check", folder / "e_CC_L.png", "--json", tmp_path / "check.json")
    assert code == 1
    assert "Traceback" not in err
    entries = json.loads((tmp_path / "check.json").read_text())
    assert [one["code"] for one in entries[0]["reasons"]] == ["no-mammogram-image"]


def test_real_mammograms_pass_and_their_masks_do_not(shared_data):
    files = [*(shared_data / "ddsm_tissue" / "images").glob("*.png"), *(shared_data / "origin").rglob("*.png")]
    files += [*(shared_data / "exams").rglob("*.png"), *(shared_data / "exams").rglob("*.jpg")]
    assert len(files) > 50
    for path in files:
        find_regions(read_picture(path))
    for path in (shared_data / "ddsm_tissue" / "masks").glob("*.png"):
        assert "grey levels" in refusal(np.asarray(Image.open(path).convert("L")))


def test_real_oblique_views_upside_down_are_refused(shared_data):
    films = sorted((shared_data / "ddsm_tissue" / "images").glob("*.png"))[::4]
    refused = 0
    for path in films:
        pixels = read_picture(path).pixels
        find_regions(Mammogram(pixels, Projection.MLO_R))
        try:
            find_regions(Mammogram(np.ascontiguousarray(pixels[::-1, ::-1]), Projection.MLO_R))
        except ImageError as error:
            refused += error.code == "turned"
    assert refused >= 0.9 * len(films)
