"""Each step of reading an image runs once, in every command."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mammodensity.anatomy import networks, outline, read_view, tissue
from mammodensity.anatomy.network_input import RAW_PREPROCESS
from mammodensity.anatomy.read_view import ReadView
from mammodensity.data import images
from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.models import scoring
from mammodensity.models.network import ResidualNetwork
from mammodensity.phantom.exams import PhantomSpec, make_exam, write_phantoms
from mammodensity.terms import Projection


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often each step was run."""
    counted: Counter[str] = Counter()

    def count(home, name, label=None):
        function = getattr(home, name)

        def counting(*arguments, **options):
            counted[label or name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(home, name, counting)

    count(scoring, "read_record")
    count(read_view, "find_outline")
    count(tissue, "find_outline", "outline again")
    count(outline, "find_outline", "regions again")
    count(read_view, "find_tissue")
    count(networks, "tissue_scores")
    count(networks, "class_scores")
    count(images, "read_image")
    count(ResidualNetwork, "forward", "network")
    return counted


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("once") / "phantoms"
    write_phantoms(PhantomSpec(rows=128, seed=3), 1, folder)
    return folder


def test_each_thing_is_found_once():
    view = make_exam(PhantomSpec(rows=128, seed=3), 0).views[Projection.MLO_L]
    read = ReadView(Mammogram(view.image), Projection.MLO_L)
    assert read.mammogram.projection == Projection.MLO_L
    assert read.outline is read.outline is read.tissue.outline
    assert read.tissue is read.tissue
    spec = replace(RAW_PREPROCESS, rows=64, columns=64)
    assert read.network_input(spec) is read.network_input(replace(spec))
    assert read.network_input(replace(spec, crop="none")) is not read.network_input(spec)
    assert read.flags is read.flags


def test_a_refused_image_is_not_looked_at_again(calls):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
    read = ReadView(Mammogram(noise), Projection.CC_L)
    for _ in range(2):
        with pytest.raises(ImageError):
            _ = read.tissue
    assert calls["find_outline"] == 1


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_the_default_model_finds_tissue_once_a_view(run, phantoms, calls, tmp_path, command):
    options = {"predict": (), "explain": ("--output", tmp_path / "out", "--json", tmp_path / "scores.json")}[command]
    assert run(command, phantoms, *options)[0] == 0
    assert calls["read_record"] == calls["find_outline"] == calls["find_tissue"] == calls["tissue_scores"] == 4
    assert calls["outline again"] == calls["regions again"] == 0
    assert 8 <= calls["class_scores"] <= 12, "two passes a view, a third where no muscle was found"


def test_a_trained_model_scores_a_view_once(run, phantoms, tiny_model, calls, tmp_path):
    assert run("predict", phantoms, "--model", tiny_model)[0] == 0
    assert calls["network"] == 4
    assert calls["find_outline"] == 4, "the recipe needs no outline; the check of the view does"
    calls.clear()
    assert run("explain", phantoms, "--model", tiny_model, "--output", tmp_path / "out")[0] == 0
    assert calls["read_record"] == calls["find_outline"] == calls["find_tissue"] == 4
