"""Scores of maps: hand-made maps with known scores, networks whose answer is known, the four views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import mammodensity
from mammodensity.anatomy.outline import Regions
from mammodensity.errors import OptionError
from mammodensity.explanation.changes import (
    NO_ROOM,
    NO_WAY,
    background_changes,
    find_curves,
    marker_changes,
    outside_changes,
    position_changes,
    replaced,
    stability,
)
from mammodensity.explanation.exam_scores import view_agreement
from mammodensity.explanation.map_scores import ScoreSpec, score_explanation
from mammodensity.explanation.measures import Areas, areas_of, baseline_maps, place_scores, rank_correlation, smoothness
from mammodensity.explanation.probe import Probe, randomised
from mammodensity.explanation.verdicts import OUTSIDE
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.terms import Projection

LABELS = np.zeros((40, 32), np.uint8)
LABELS[4:36, :20] = 1
LABELS[10:20, 4:14] = 2
LABELS[4:12, :4] = 3
IMAGE = np.select([LABELS == 1, LABELS == 2, LABELS == 3], [0.3, 0.8, 0.6], 0.0)
IMAGE[LABELS > 0] += np.random.default_rng(0).normal(0, 0.02, int((LABELS > 0).sum()))
IMAGE[2:6, 26:30] = 1.0  # a marker


class Sum(nn.Module):
    """Logits 0 and the mean over a mask times a factor: what it looks at is known."""

    def __init__(self, mask: np.ndarray, factor: float = 40.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(mask.astype(np.float32))[None] * factor / mask.sum())

    def forward(self, images):
        seen = (images * self.weight).sum((1, 2, 3)) - 10
        return torch.stack([torch.zeros_like(seen), seen], dim=1)


def weights_as_map(network, images, category):
    """Input times weight, the exact evidence of such a network."""
    return images[:, 0] * network.weight[0]


def probe(mask: np.ndarray, **changes) -> Probe:
    return Probe(Sum(mask), 1, weights_as_map, **changes)


def places(values: np.ndarray, labels: np.ndarray = LABELS):
    return place_scores(values, IMAGE, areas_of(labels))


def test_shares_by_hand():
    values = np.zeros(LABELS.shape)
    values[12, 6] = 3.0  # dense
    values[30, 10] = 1.0  # adipose
    values[5, 1] = 2.0  # muscle
    values[3, 28] = 2.0  # marker
    values[0, 0] = -50.0  # what speaks against is no mass
    figures, reasons = places(values)
    assert reasons == {}
    assert figures["inside_breast"] == 0.5
    assert figures["inside_dense"] == 0.375
    assert figures["on_muscle"] == 0.25
    assert figures["outside"] == 0.25
    assert figures["dense_lift"] == pytest.approx(0.75 / (100 / (32 * 20 - 32)))
    assert figures["pointing_game"] == 1.0
    values[30, 10] = 3.0
    assert places(values)[0]["pointing_game"] == 0.5, "two maxima, one of them in dense tissue"
    values[30, 10] = 4.0
    assert places(values)[0]["pointing_game"] == 0.0


def test_spearman_is_scipys_inside_the_breast():
    values = np.random.default_rng(1).random(LABELS.shape) + IMAGE
    breast = np.isin(LABELS, (1, 2))
    assert places(values)[0]["spearman"] == pytest.approx(spearmanr(values[breast], IMAGE[breast]).statistic)
    assert places(np.where(breast, IMAGE**3, 9))[0]["spearman"] == pytest.approx(1.0)
    assert rank_correlation(values, -values, breast) == pytest.approx(-1)
    assert rank_correlation(values, values, np.zeros_like(breast)) is None


def test_what_is_undefined_has_a_reason():
    figures, reasons = places(np.zeros(LABELS.shape))
    assert figures["inside_breast"] is None
    assert reasons["inside_breast"] == reasons["inside_dense"] == reasons["pointing_game"] == "the map is empty"
    assert reasons["spearman"] == "the map has one value in the whole breast"
    fatty = np.where(LABELS == 2, 1, LABELS).astype(np.uint8)
    assert places(IMAGE, fatty)[1]["inside_dense"] == "there is no dense tissue"
    without = np.where(LABELS == 3, 0, LABELS).astype(np.uint8)
    assert places(IMAGE, without)[1]["on_muscle"] == "there is no muscle in the image"
    unknown = Regions(fatty, "left")
    figures, reasons = place_scores(IMAGE, IMAGE, areas_of(unknown))
    assert reasons["dense_lift"] == reasons["pointing_game"] == "dense tissue was not told apart"
    for name, value in figures.items():
        assert (value is None) == (name in reasons)
    outside = np.zeros(LABELS.shape)
    outside[0, 0] = 1
    assert places(outside)[1]["dense_lift"] == "the map is empty inside the breast"


def test_baselines():
    areas = areas_of(LABELS)
    values = np.random.default_rng(2).random(LABELS.shape)
    plain = baseline_maps(values, IMAGE, areas, seed=3)
    assert list(plain) == ["uniform", "random", "blob", "bright"]
    assert np.ptp(plain["uniform"]) == 0
    assert place_scores(plain["uniform"], IMAGE, areas)[0]["dense_lift"] == pytest.approx(1.0)
    assert np.array_equal(plain["bright"], IMAGE - IMAGE.min())
    assert np.array_equal(plain["random"], baseline_maps(values, IMAGE, areas, seed=3)["random"])
    assert not np.array_equal(plain["random"], baseline_maps(values, IMAGE, areas, seed=4)["random"])
    row, column = np.unravel_index(plain["blob"].argmax(), LABELS.shape)
    middle = np.argwhere(areas.breast).mean(axis=0)
    assert np.abs([row, column] - middle).max() <= 0.5
    assert min(one.min() for one in plain.values()) >= 0


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_the_random_map_is_as_smooth_as_the_map(sigma):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(5).standard_normal((200, 200)), sigma)
    assert smoothness(noise) == pytest.approx(sigma, rel=0.1)
    assert smoothness(np.ones((9, 9))) == 1.0


def test_deletion_and_insertion_by_hand():
    dense = LABELS == 2
    asked = probe(dense)
    without = replaced(IMAGE, areas_of(LABELS))
    assert without[15, 8] == without[30, 10]  # the median of the breast is that of fat
    assert without[5, 1] == pytest.approx(np.median(IMAGE[LABELS == 3]))
    assert without[3, 28] == 0.0
    found = find_curves({"dense": dense * 1.0, "none": 1.0 - dense}, IMAGE, without, asked, steps=4)
    score = 1 / (1 + np.exp(10 - 40 * IMAGE[dense].mean()))
    low = 1 / (1 + np.exp(10 - 40 * without[dense].mean()))
    # 100 of 1280 pixels are dense: a quarter of the image holds them all, or none of them.
    np.testing.assert_allclose(found["dense"].deletion, [score, low, low, low, low], rtol=1e-4)
    np.testing.assert_allclose(found["dense"].insertion, [low, score, score, score, score], rtol=1e-4)
    np.testing.assert_allclose(found["none"].deletion, [score, score, score, score, low], rtol=1e-4)
    assert found["dense"].deletion_area == pytest.approx(0.125 * score + 0.875 * low, rel=1e-4)
    assert found["dense"].insertion_area == pytest.approx(0.875 * score + 0.125 * low, rel=1e-4)


def test_what_replaces_pixels():
    areas = areas_of(LABELS)
    blurred = replaced(IMAGE, areas, "blur")
    assert blurred.std() < IMAGE.std()
    assert not np.array_equal(blurred, replaced(IMAGE, areas, "median"))
    with pytest.raises(OptionError, match=r"replacement must be one of median, blur\. Got 'noise' instead"):
        replaced(IMAGE, areas, "noise")


def test_what_lies_outside_the_breast_is_told():
    areas = areas_of(LABELS)
    marker = np.zeros(LABELS.shape, bool)
    marker[2:6, 26:30] = True
    figures, reasons = background_changes(IMAGE, areas, probe(marker))
    assert reasons == {}
    assert figures["background_change"] > 0.99
    assert figures["background_logit"] == pytest.approx(20, rel=1e-3)  # 40 for one of two logits, centred
    assert figures["muscle_change"] == 0
    figures, _ = background_changes(IMAGE, areas, probe(LABELS == 2))
    assert figures["background_change"] == 0
    on_muscle = IMAGE.copy()
    on_muscle[5:7, 1:3] = 1.0
    spot = np.zeros(LABELS.shape, bool)
    spot[5:7, 1:3] = True
    figures, _ = background_changes(on_muscle, areas, probe(spot))
    assert figures["background_change"] == 0
    assert figures["muscle_logit"] > 5
    _, reasons = background_changes(IMAGE, areas_of(np.where(LABELS == 3, 1, LABELS)), probe(spot))
    assert set(reasons) == {"muscle_change", "muscle_logit"}


def test_a_muscle_that_fades_is_no_marker_and_a_marker_on_it_is_smoothed_away():
    labels = np.ones((60, 50), np.uint8)
    labels[:30, :30] = 3
    areas = areas_of(labels)
    down, right = np.indices(labels.shape) / 60
    faded = np.where(labels == 3, 0.9 - 0.5 * down - 0.3 * right - 0.2 * down * right, 0.2)
    upper = np.zeros(labels.shape, bool)
    upper[:5, :30] = True
    asked = Probe(Sum(upper), 1, weights_as_map)
    figures, _ = background_changes(faded, areas, asked)
    assert figures["muscle_logit"] == pytest.approx(0, abs=0.01), "its own greys stay where they are"
    marked = faded.copy()
    marked[1:4, 4:28] = 1.0
    figures, _ = background_changes(marked, areas, asked)
    added = 40 * (marked - faded)[upper].mean() / 2  # of one of two logits, centred
    assert added > 1.5
    assert figures["muscle_logit"] == pytest.approx(added, rel=0.05), "what the marker added is gone"


def test_markers_are_planted_where_the_image_is_free():
    labels = np.zeros((100, 80), np.uint8)
    labels[20:80, 40:] = 1
    labels[:20, 40:] = 3
    image = np.where(labels > 0, 0.5, 0.1)
    image[50, 60] = 1.0
    areas = areas_of(labels)
    corner = np.zeros(labels.shape, bool)
    corner[3:11, 3:11] = True
    figures, reasons = marker_changes(image, areas, Probe(Sum(corner), 1))
    assert reasons == {}
    # The block fills what this network sees: from 0.1 to 1, times 40, of one of two logits, centred.
    assert figures["marker_logit"] == pytest.approx(40 * 0.9 / 2, rel=1e-4)
    assert figures["marker_change"] > 0.99
    letters = np.zeros(labels.shape, bool)
    letters[3:11, 11:19] = True  # where the block does not reach
    assert marker_changes(image, areas, Probe(Sum(letters), 1))[0]["marker_logit"] > 1
    for name in ("breast", "muscle"):
        seen = marker_changes(image, areas, Probe(Sum(getattr(areas, name)), 1))[0]
        assert seen == {"marker_change": 0, "marker_logit": 0}, name
    whole = areas_of(np.ones_like(labels))
    assert marker_changes(image, whole, Probe(Sum(corner), 1)) == (
        {"marker_change": None, "marker_logit": None},
        {"marker_change": NO_ROOM, "marker_logit": NO_ROOM},
    )
    both, _ = outside_changes(image, areas, Probe(Sum(corner), 1))
    assert set(both) == {f"{part}_{what}" for part in OUTSIDE for what in ("change", "logit")}


class Place(nn.Module):
    """Logits 0 and how far down, or how far to the right, the bright pixels of an image lie, times a factor."""

    def __init__(self, axis: int, factor: float = 40.0) -> None:
        super().__init__()
        self.axis, self.factor = axis, nn.Parameter(torch.tensor(factor))

    def forward(self, images):
        lit = (images[:, 0] > 0.2).sum(2 - self.axis).float()
        where = (lit * torch.arange(lit.shape[1])).sum(1) / lit.sum(1) / lit.shape[1]
        return torch.stack([torch.zeros_like(where), self.factor * (where - 0.5)], dim=1)


def breast_in(rows: slice, columns: slice) -> tuple[np.ndarray, Areas]:
    labels = np.zeros((100, 80), np.uint8)
    labels[rows, columns] = 1
    return labels * 0.5, areas_of(labels)


@pytest.mark.parametrize(
    ("rows", "columns", "down", "across"),
    [
        (slice(30, 60), slice(50, 80), True, False),  # at the chest wall on the right
        (slice(30, 60), slice(0, 30), True, False),
        (slice(30, 60), slice(30, 60), True, True),
        (slice(0, 60), slice(50, 80), True, False),  # an oblique view begins at the upper edge
        (slice(0, 100), slice(50, 80), False, False),
        (slice(0, 100), slice(30, 60), False, True),
        (slice(1, 99), slice(1, 79), False, False),  # a pixel of room is none
    ],
)
def test_the_breast_is_moved_where_it_has_room(rows, columns, down, across):
    image, areas = breast_in(rows, columns)
    for axis, moves in ((0, down), (1, across)):
        figures, reasons = position_changes(image, areas, Probe(Place(axis), 1))
        if down or across:
            assert reasons == {}
            # It moves by 12 % of the rows at most, or to the nearer edge; the second logit follows, centred.
            assert (figures["position_logit"] > 1) == moves
        else:
            assert figures == {"position_change": None, "position_logit": None}
            assert set(reasons.values()) == {NO_WAY}
    unmoved, _ = position_changes(image, areas, Probe(Sum(np.ones((100, 80), bool)), 1))
    if down and rows.start:
        assert unmoved["position_logit"] == pytest.approx(0, abs=1e-4), "it is moved whole"


def test_a_breast_moves_within_its_field_only():
    image, areas = breast_in(slice(30, 60), slice(20, 50))
    asked = Probe(Place(1), 1)
    assert position_changes(image, areas, asked)[0]["position_logit"] > 1
    beside = replace(asked, field=(0, 20, 100, 40))  # the columns left of it are no part of the image
    assert position_changes(image, areas, beside)[0]["position_logit"] == pytest.approx(0, abs=1e-4)
    cropped = replace(asked, field=(30, 20, 30, 30))
    assert position_changes(image, areas, cropped)[1]["position_logit"] == NO_WAY


def test_a_map_that_moves_with_the_image_is_stable():
    def whole(network, images, category):
        return images[:, 0]

    asked = Probe(Sum(LABELS == 2), 1, whole)
    figures, _ = stability(IMAGE, IMAGE, areas_of(LABELS), asked)
    assert figures["stability_mirror"] == pytest.approx(1.0)
    assert figures["stability_shift"] > 0.7
    assert 0.3 < figures["stability_noise"] < 1

    def fixed(network, images, category):  # a map of the place alone: mirrored, it is another
        return torch.arange(32.0).expand(len(images), 40, 32)

    values = np.tile(np.arange(32.0), (40, 1))
    figures, _ = stability(values, IMAGE, areas_of(LABELS), Probe(Sum(LABELS == 2), 1, fixed))
    assert figures["stability_noise"] == pytest.approx(1.0)
    assert figures["stability_mirror"] == pytest.approx(-1.0)

    def even(network, images, category):
        return torch.ones(len(images), 40, 32)

    figures, reasons = stability(values, IMAGE, areas_of(LABELS), Probe(Sum(LABELS == 2), 1, even))
    assert set(figures) == set(reasons)
    assert set(figures.values()) == {None}


def test_random_copies_leave_the_network_as_found():
    torch.manual_seed(0)
    network = ResidualNetwork(NetworkSpec(stem=4, widths=(4,), outputs=(6,), depths=(1,)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copy, again, other = randomised(network, 1), randomised(network, 1), randomised(network, 2)
    images = torch.rand(2, 1, 40, 32)
    assert torch.equal(copy.eval()(images), again.eval()(images))
    assert not torch.equal(copy(images), other.eval()(images))
    assert not torch.equal(copy.conv.weight, network.conv.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    network.train()
    asked = Probe(network, 0)
    asked.logits(IMAGE[None])
    assert all(module.training for module in network.modules())


def test_a_mirrored_image_has_the_same_scores():
    dense = LABELS == 2
    values = np.random.default_rng(6).random(LABELS.shape) + dense
    spec = ScoreSpec(stability=False)
    plain = score_explanation(values, IMAGE, LABELS, probe=probe(dense), spec=spec)
    flipped = score_explanation(
        values[:, ::-1], IMAGE[:, ::-1], LABELS[:, ::-1], probe=probe(dense[:, ::-1].copy()), spec=spec
    )
    for name in ("inside_breast", "inside_dense", "on_muscle", "outside", "spearman", "background_change"):
        assert plain.scores[name] == pytest.approx(flipped.scores[name])
    assert plain.scores["faithfulness"] == pytest.approx(flipped.scores["faithfulness"], abs=0.02)


def test_all_scores_of_a_map():
    dense = LABELS == 2
    found = mammodensity.score_explanation(dense * 1.0, IMAGE, LABELS, probe=probe(dense))
    assert set(found.scores) >= {"deletion", "insertion", "stability_mirror", "randomised", "background_change"}
    assert set(found.baselines) == {"uniform", "random", "blob", "bright"}
    assert found.reasons["uniform.deletion"] == "an even map puts no pixel before another"
    for name, value in found.scores.items():
        assert (value is None) == (name in found.reasons)
    for baseline, figures in found.baselines.items():
        for name, value in figures.items():
            assert (value is None) == (f"{baseline}.{name}" in found.reasons)
    plain = mammodensity.score_explanation(dense * 1.0, IMAGE, LABELS)
    assert plain.scores["deletion"] is None
    assert plain.reasons["deletion"] == "the network was not asked"
    short = score_explanation(dense * 1.0, IMAGE, LABELS, probe=probe(dense), spec=ScoreSpec(stability=False))
    assert "stability_mirror" not in short.scores


def test_regions_are_found_where_none_are_given():
    from mammodensity.phantom.exams import PhantomSpec, make_exam

    view = make_exam(PhantomSpec(rows=128, seed=3), 2).views[Projection.MLO_R]
    found = score_explanation(view.image.astype(float), view.image)
    known = score_explanation(view.image.astype(float), view.image, view.labels)
    assert found.scores["inside_breast"] == pytest.approx(known.scores["inside_breast"], abs=0.1)
    assert found.scores["inside_dense"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE[:5], IMAGE, LABELS), r"must have one shape \(H, W\)"),
        ((IMAGE, IMAGE[:, :5], LABELS), r"must have one shape \(H, W\)"),
        ((np.full(IMAGE.shape, np.nan), IMAGE, LABELS), "must be finite"),
        ((IMAGE, IMAGE, LABELS + 7), "regions must be a label image .* Got values up to 10"),
        ((IMAGE, IMAGE, LABELS[0]), r"Got shape \(32,\)"),
        ((IMAGE, IMAGE, np.zeros_like(LABELS)), "the regions hold no breast"),
        ((IMAGE, np.ones_like(IMAGE), None), "must be finite grey values"),
        ((IMAGE, np.arange(40 * 32.0).reshape(40, 32), None), "cannot be scored without regions"),
    ],
)
def test_what_cannot_be_scored(arguments, message):
    with pytest.raises(OptionError, match=message):
        score_explanation(*arguments)


def test_masks_must_fit():
    with pytest.raises(OptionError, match="must have one shape"):
        Areas(LABELS == 1, None, LABELS[:5] == 3)


def views(flip_left: bool = True) -> dict:
    """One breast seen in all four views; right ones have the chest wall on the right."""
    values = np.random.default_rng(7).random(LABELS.shape)
    values += np.arange(LABELS.shape[1])[::-1] / 8
    areas = areas_of(LABELS)
    mirrored = areas_of(LABELS[:, ::-1])
    made = {}
    for projection in Projection:
        right = projection.laterality == "R" and flip_left
        made[projection] = (values[:, ::-1], mirrored) if right else (values, areas)
    return made


@pytest.mark.parametrize("stored_alike", [False, True])
def test_four_views_of_one_breast_agree(stored_alike):
    figures, reasons = view_agreement(views(not stored_alike))
    assert reasons == {}
    assert all(value == pytest.approx(1.0) for value in figures.values())


def test_views_that_differ_and_views_that_are_missing():
    made = views()
    values, areas = made[Projection.CC_L]
    made[Projection.CC_L] = (-values, areas)
    figures, _ = view_agreement(made)
    assert figures["left_right_cc"] == pytest.approx(-1.0)
    assert figures["left_right_mlo"] == pytest.approx(1.0)
    assert figures["depth_left"] == pytest.approx(-1.0)
    del made[Projection.MLO_R]
    made[Projection.MLO_L] = (np.zeros_like(values), areas)
    figures, reasons = view_agreement(made)
    assert reasons["left_right_mlo"] == reasons["depth_right"] == "MLO_R has no scored map"
    assert reasons["depth_left"] == "one of the maps is even, or the breasts do not overlap"
    assert figures["mean"] == figures["left_right_cc"]
    assert view_agreement({})[1]["mean"] == "no two views can be compared"
