"""Networks as files for other programs: the same scores, described, whole or not at all."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from mammodensity.anatomy.network_input import RAW_PREPROCESS
from mammodensity.anatomy.read_view import ReadView
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.exam import Mammogram
from mammodensity.models.batch import input_batch
from mammodensity.models.checkpoint import network_files
from mammodensity.models.export import FORMATS, export_network
from mammodensity.models.onnx import WholeImageNetwork, to_onnx
from mammodensity.models.trained import load_model
from mammodensity.terms import RESEARCH_USE_ONLY, Projection
from samples import bundle_answer, small_checkpoint, write_blobs


def facts_of(path: Path) -> dict[str, str]:
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return {entry.key: entry.value for entry in model.metadata_props}


def test_an_onnx_file_says_what_it_is(tmp_path):
    name, difference = export_network(small_checkpoint(), tmp_path, "onnx")
    facts = facts_of(tmp_path / name)
    assert (facts["projection"], facts["categories"]) == ("CC_L", "A B C D")
    assert json.loads(facts["preprocess"])["rows"] == 40
    assert facts["note"] == RESEARCH_USE_ONLY
    assert difference < 1e-5


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"interpolation": "nearest", "centring": "standardise"},
        {"aspect": "pad", "rows": 48, "intensity": "image-range"},
        {"rows": 200, "columns": 300, "centring": "none", "depth": "8-bit"},  # enlarged
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_of_whole_images_does_what_preprocessing_does(spec, channels):
    checkpoint = small_checkpoint(channels, **spec)
    rng = np.random.default_rng(5)
    image = Mammogram(rng.integers(3, 60000, (120, 90)).astype(np.uint16), Projection.CC_L)
    inputs = input_batch([image], checkpoint.preprocess, channels)
    with torch.inference_mode():
        expected = torch.softmax(checkpoint.network(inputs), 1).numpy()
        grey = torch.from_numpy((image.pixels / 65535).astype(np.float32))[None, None]
        scores = WholeImageNetwork(checkpoint, (120, 90))(grey).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_leaderboard_file_takes_one_image_of_1024_pixels(tmp_path):
    checkpoint = small_checkpoint()
    name, difference = export_network(checkpoint, tmp_path, "leaderboard")
    assert difference < 1e-5
    graph = onnx.load(tmp_path / name).graph
    shapes = [[size.dim_value for size in end.type.tensor_type.shape.dim] for end in (*graph.input, *graph.output)]
    assert shapes == [[1, 1, 1024, 1024], [1, 4]]
    assert facts_of(tmp_path / name)["note"] == RESEARCH_USE_ONLY


def test_what_needs_the_breast_found_cannot_be_a_leaderboard_file(tmp_path):
    checkpoint = small_checkpoint(crop=RAW_PREPROCESS.crop)
    with pytest.raises(OptionError, match=r"finds breast and muscle .*use --format onnx"):
        export_network(checkpoint, tmp_path, "leaderboard")


@pytest.mark.slow
def test_monai_runs_its_bundle_on_a_picture(run, tiny_model, tmp_path):
    code, output, error = run("export", tmp_path / "out", "--model", tiny_model, "--format", "monai")
    assert code == 0, error
    assert "mammodensity_MLO_R: scores differ from the network's by at most" in output
    picture = next(write_blobs(tmp_path / "data", 4).glob("MLO_R/C/*.png"))
    scores = bundle_answer(tmp_path / "out" / "mammodensity_MLO_R", "--image", picture)
    assert scores.pop("note") == RESEARCH_USE_ONLY
    image = Mammogram(np.asarray(Image.open(picture)), Projection.MLO_R)
    expected = load_model(tiny_model).score_view(ReadView(image, Projection.MLO_R)).scores
    np.testing.assert_allclose(list(scores.values()), expected, atol=1e-5)


def test_a_bundle_holds_no_code_beyond_one_line_an_entry(tmp_path):
    name, difference = export_network(small_checkpoint(3), tmp_path, "monai")
    assert difference < 1e-5
    configuration = json.loads((tmp_path / name / "configs" / "inference.json").read_text())
    for entry in configuration.values():
        if isinstance(entry, str) and entry.startswith("$"):
            ast.parse(entry[1:].replace("@", "_"))
    about = json.loads((tmp_path / name / "configs" / "metadata.json").read_text())
    assert about["intended_use"] == RESEARCH_USE_ONLY
    assert about["network_data_format"]["inputs"]["image"]["spatial_shape"] == [40, 32]
    assert RESEARCH_USE_ONLY in (tmp_path / name / "docs" / "README.md").read_text()


def test_export_writes_every_network_or_nothing(run, tiny_model, tmp_path):
    code, output, _ = run("export", tmp_path / "out", "--model", tiny_model)
    assert code == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {view.value for view in network_files(tiny_model)}
    assert RESEARCH_USE_ONLY in output
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "MLO_L" / "network.safetensors").write_bytes(b"no network")
    code, _, error = run("export", tmp_path / "none", "--model", broken)
    assert code != 0
    assert "damaged" in error
    assert not (tmp_path / "none").exists()
    assert run("export", tmp_path / "none", "--model", tmp_path)[0] != 0
    wrong = run("export", tmp_path / "none", "--model", tiny_model, "--format", "nnef")
    assert f"is not one of {', '.join(map(repr, FORMATS))}" in wrong[2]


def test_export_leaves_a_folder_in_use_as_it_is(run, tiny_model, tmp_path):
    used = tmp_path / "out"
    used.mkdir()
    (used / "CC_R.onnx").write_bytes(b"of another model")
    code, _, error = run("export", used, "--model", tiny_model, "--format", "leaderboard")
    assert code != 0
    assert "already holds files; name a new folder" in error
    assert [path.read_bytes() for path in used.iterdir()] == [b"of another model"]


def test_a_file_that_differs_is_refused(tmp_path, monkeypatch):
    other = small_checkpoint()
    with torch.no_grad():
        other.network.head.bias[0] += 1
    monkeypatch.setattr("mammodensity.models.export.to_onnx", lambda _: to_onnx(other))
    with pytest.raises(CheckpointError, match="differs from the network"):
        export_network(small_checkpoint(), tmp_path, "onnx")
