"""The benchmark's networks, its table and its masks; cascading randomisation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mammodensity.errors import LayoutError, OptionError
from mammodensity.explanation.measures import areas_of
from mammodensity.explanation.methods import explain_images
from mammodensity.explanation.probe import Probe, against_other, cascade
from mammodensity.models.checkpoint import load_checkpoint, save_checkpoint
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.research.benchmark_networks import (
    NETWORKS,
    BenchmarkSpec,
    marked,
    phantom_cases,
    train_benchmark_network,
    with_marker,
)
from mammodensity.research.explanation_benchmark import read_masked, score_default_model

TINY = BenchmarkSpec(exams=4, held_back=1, rows=64, epochs=1)


@pytest.fixture(scope="module")
def cases():
    return phantom_cases(TINY)


def test_cases_face_one_way_and_markers_are_background(cases):
    assert len(cases) == 10
    alone = phantom_cases(TINY, training=False)
    assert [case.name for case in alone] == [case.name for case in cases[-2:]]
    for case in cases:
        columns = np.flatnonzero((case.labels > 0).any(axis=0))
        assert columns[-1] == case.labels.shape[1] - 1, "the chest wall is on the right"
        two = with_marker(case, 2)
        assert (two.image != case.image).any()
        assert not two.labels[two.image != case.image].any()
        assert np.array_equal(with_marker(case, 0).image, case.image)


def test_markers_tell_the_category_in_the_planted_set_only(cases):
    def bars(case):
        return int((case.image[3] == 1.0).sum())

    planted = marked(cases, "shortcut", 1)
    by_category = {case.category: set() for case in planted}
    for case in planted:
        by_category[case.category].add(bars(case))
    assert all(len(found) == 1 for found in by_category.values())
    assert sorted(by_category, key=lambda category: min(by_category[category])) == sorted(by_category)
    drawn = marked(cases, "proper", 1)
    assert [bars(case) for case in drawn] != [bars(case) for case in planted]


def test_the_place_of_the_breast_tells_the_category_in_its_planted_set_only(cases):
    def gap(case):
        return int(np.flatnonzero((case.labels > 0).any(axis=0)[::-1])[0])

    for case, placed in zip(cases, marked(cases, "position", 1), strict=True):
        assert gap(placed) == case.category * round(0.04 * TINY.rows)
        assert (placed.labels > 0).sum() == (case.labels > 0).sum()
    assert {gap(case) for case in marked(cases, "shortcut", 1)} == {0}


def test_training_is_seeded_and_labels_matter(cases):
    before = torch.random.get_rng_state()
    first = train_benchmark_network(cases, "proper", TINY)
    again = train_benchmark_network(cases, "proper", TINY)
    shuffled = train_benchmark_network(cases, "shuffled", TINY)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, shuffled.head.weight)
    with pytest.raises(OptionError, match="network must be one of proper, shuffled, shortcut, position"):
        train_benchmark_network(cases, "other", TINY)


@pytest.mark.parametrize(("name", "value"), [("exams", 3), ("held_back", 0), ("rows", 32), ("epochs", 0), ("seed", -1)])
def test_specs_out_of_range(name, value):
    with pytest.raises(OptionError, match=f"{name} must be greater than or equal to"):
        BenchmarkSpec(**{name: value})


def write_masked(folder, cases):
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number, case in enumerate(cases):
        Image.fromarray(np.rint(case.image * 255).astype(np.uint8)).save(folder / "images" / f"{number}_MLO_R.png")
        values = np.array([64, 128, 192, 255], np.uint8)[case.labels]
        Image.fromarray(values).save(folder / "masks" / f"{number}_MLO_R.png")
    return folder


def test_the_command_prints_a_table_and_writes_every_score(run, cases, tmp_path):
    data = write_masked(tmp_path / "data", cases[:1])
    arguments = ("explain-benchmark", "--exams", 4, "--held-back", 1, "--epochs", 1, "--method", "grad-cam,hires-cam")
    code, output, _ = run(*arguments, "--data", data, "--json", tmp_path / "b.json")
    assert code == 0
    assert "shortcut network" in output
    assert "(bright)" in output
    assert "Not a medical device" in output
    result = json.loads((tmp_path / "b.json").read_text())
    assert set(result["networks"]) == {*NETWORKS, "default model"}
    networks, default = result["rows"][:-2], result["rows"][-2:]
    assert [(row["data"], row["network"], row["method"]) for row in networks] == [
        (where, network, method)
        for network in NETWORKS
        for where in ("phantoms", "masks")
        for method in ("grad-cam", "hires-cam")
    ]
    for row in networks:
        assert -1 <= row["scores"]["cascade"] <= 1
        assert -1 <= row["scores"]["other"] <= 1
        assert row["cascade"][0]["layer"] == "head"
        assert row["scores"]["cascade"] == pytest.approx(np.mean([one["similarity"] for one in row["cascade"]]))
    assert [(row["data"], row["network"], row["method"]) for row in default] == [
        ("phantoms", "default model", "tissue"),
        ("masks", "default model", "tissue"),
    ]
    for row in default:
        assert row["verdicts"] == {"measured": row["images"]}
        assert row["scores"]["inside_breast"] > 0.9
        assert row["scores"]["faithfulness"] is row["scores"]["cascade"] is row["scores"]["other"] is None
    for row in result["rows"]:
        assert row["images"] == (2 if row["data"] == "phantoms" else 1) == sum(row["verdicts"].values())
        assert (row["accuracy"] is None) == (row["data"] == "masks")
        assert set(row["baselines"]) == {"uniform", "random", "blob", "bright"}


def test_a_model_of_ones_own(run, tiny_model, tmp_path):
    arguments = ("explain-benchmark", "--model", tiny_model, "--held-back", 1, "--exams", 4, "--method", "grad-cam")
    code, output, _ = run(*arguments, "--json", tmp_path / "b.json", "--device", "cpu")
    assert code == 0
    assert "model network (as given) on 2 phantoms" in output
    code, _, error = run(*arguments[:2], tiny_model / "CC_R", "--json", tmp_path / "c.json")
    assert code == 1
    assert "the benchmark shows MLO_R views; the model has networks for CC_R" in error
    assert not (tmp_path / "c.json").exists()
    code, _, error = run("explain-benchmark", "--method", "magic", "--json", tmp_path / "c.json")
    assert code == 2
    assert "magic" in error


def test_another_model_to_compare_with(run, tiny_model, tmp_path):
    arguments = ("explain-benchmark", "--held-back", 1, "--exams", 4, "--method", "grad-cam", "--device", "cpu")
    code, _, _ = run(*arguments, "--model", tiny_model, "--other", tiny_model, "--json", tmp_path / "b.json")
    assert code == 0
    row = json.loads((tmp_path / "b.json").read_text())["rows"][0]
    assert row["scores"]["other"] == pytest.approx(1.0), "compared with itself"
    code, _, error = run(*arguments, "--other", tiny_model, "--json", tmp_path / "c.json")
    assert code == 2
    assert "another model is compared with a model; name that, too" in error
    checkpoint = load_checkpoint(tiny_model, "MLO_R")
    larger = replace(checkpoint, preprocess=replace(checkpoint.preprocess, rows=48))
    save_checkpoint(tmp_path / "larger" / "MLO_R", larger)
    pair = ("--model", tiny_model, "--other", tmp_path / "larger")
    code, _, error = run(*arguments, *pair, "--json", tmp_path / "c.json")
    assert code == 2
    assert "the two models take other images" in error
    code, _, error = run(*arguments, *pair[:3], tiny_model / "CC_R", "--json", tmp_path / "c.json")
    assert code == 1
    assert "the model has networks for CC_R" in error


def test_images_the_default_model_refuses_are_left_out(cases):
    even = replace(cases[0], image=np.zeros_like(cases[0].image))
    assert score_default_model("phantoms", [even], lambda *_: None) == []
    [row] = score_default_model("phantoms", [even, cases[1]], lambda *_: None)
    assert row.images == 1
    assert row.accuracy in (0, 1)
    [unknown] = score_default_model("masks", [replace(cases[1], category=-1)], lambda *_: None)
    assert unknown.accuracy is None


def test_masks_that_cannot_be_used(cases, tmp_path):
    with pytest.raises(LayoutError, match=r"holds no images/\*\.png"):
        read_masked(tmp_path)
    data = write_masked(tmp_path / "data", cases[:1])
    [read] = read_masked(data)
    assert np.array_equal(read.labels, cases[0].labels)
    mask = data / "masks" / "0_MLO_R.png"
    for wrong, message in (
        (np.full(cases[0].labels.shape, 9, np.uint8), "expected 64, 128, 192, 255 or 0 to 3"),
        (np.zeros(cases[0].labels.shape, np.uint8), "and some breast"),
        (np.zeros((5, 5), np.uint8), "is of shape"),
    ):
        Image.fromarray(wrong).save(mask)
        with pytest.raises(LayoutError, match=message):
            read_masked(data)
    for damaged in (mask.read_bytes()[:30], b"no picture"):
        mask.write_bytes(damaged)
        with pytest.raises(LayoutError, match=r"0_MLO_R\.png is no readable picture: .*; expected a mask"):
            read_masked(data)
    mask.unlink()
    with pytest.raises(LayoutError, match="is missing; expected a mask for each image"):
        read_masked(data)


def test_maps_change_as_weights_are_lost(cases):
    torch.manual_seed(2)
    network = ResidualNetwork(NetworkSpec(stem=4, widths=(4, 4), outputs=(6, 6), depths=(1, 1))).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images, areas = [case.image for case in cases[:2]], [areas_of(case.labels) for case in cases[:2]]
    probe = Probe(network, 2, explain_images)
    found = cascade(probe, images, areas)
    assert found[0].layer == ""
    assert found[0].similarity == pytest.approx(1.0)
    assert found[1].layer == "head"
    assert found[-1].layer == "conv"
    assert found[-1].similarity < 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert cascade(probe, images, areas) == found
    few = cascade(probe, images, areas, steps=3)
    assert [one.layer for one in few][:2] == ["", "head"]
    assert len(few) == 4
    assert few[-1] == found[-1]
    assert set(few) <= set(found)
    with pytest.raises(OptionError, match="steps must be at least 1"):
        cascade(probe, images, areas, steps=0)

    def image_itself(network, images, category):
        return images[:, 0]

    blind = cascade(Probe(network, 2, image_itself), images, areas)
    assert {round(one.similarity, 6) for one in blind} == {1.0}, "a map of the image alone is found out"


def test_another_network_has_other_maps(cases):
    torch.manual_seed(3)
    spec = NetworkSpec(stem=4, widths=(4,), outputs=(6,), depths=(1,))
    one, other = ResidualNetwork(spec).eval(), ResidualNetwork(spec).eval()
    images, areas = [case.image for case in cases[:2]], [areas_of(case.labels) for case in cases[:2]]
    assert against_other(Probe(one, 0, explain_images), one, images, areas) == pytest.approx(1.0)
    assert against_other(Probe(one, 0, explain_images), other, images, areas) < 0.99

    def even(network, images, category):
        return torch.ones(len(images), *images.shape[2:])

    assert against_other(Probe(one, 0, even), other, images, areas) is None
    with pytest.raises(OptionError, match="expected images and as many areas"):
        cascade(Probe(one, 0), [], [])
