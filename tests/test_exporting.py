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

from mammodensity.anatomy.network_input import RAW_PREPROCESS, PreprocessSpec, preprocess
from mammodensity.anatomy.read_view import ReadView
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.exam import Mammogram
from mammodensity.models.batch import input_batch
from mammodensity.models.checkpoint import JointCheckpoint, network_files
from mammodensity.models.export import FORMATS, export_network
from mammodensity.models.joint import JointNetwork, JointSpec
from mammodensity.models.monai_bundle import write_bundle
from mammodensity.models.network import NetworkSpec
from mammodensity.models.onnx import WholeImageNetwork, preprocess_steps, to_onnx
from mammodensity.models.trained import load_model
from mammodensity.terms import RESEARCH_USE_ONLY, Projection
from samples import bundle_answer, small_checkpoint, write_blobs

TENSOR = {
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in ("type", "format", "dtype")},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
TENSORS = {"type": "object", "additionalProperties": TENSOR}
WORDS = ("schema", "version", "monai_version", "pytorch_version", "numpy_version")
TEXTS = (*WORDS, "task", "description", "authors", "copyright", "intended_use", "data_type", "pred_classes")
SCHEMA = {
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in TEXTS},
        **{key: {"type": "object"} for key in ("changelog", "required_packages_version")},
        "network_data_format": {
            "type": "object",
            "properties": dict.fromkeys(("inputs", "outputs", "post_processed_outputs"), TENSORS),
            "required": ["inputs", "outputs"],
        },
    },
    "required": [*TEXTS[:9], "required_packages_version", "network_data_format"],
}
"""The rules of MONAI's schema of 2024-07-25 for the entries that a bundle has; the schema itself is on the network."""


JOINT = JointCheckpoint(
    JointNetwork(JointSpec(NetworkSpec(stem=4, widths=(4,), outputs=(8,), depths=(1,)))).eval(),
    PreprocessSpec(rows=40, columns=32),
)


def facts_of(path: Path) -> dict[str, str]:
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return {entry.key: entry.value for entry in model.metadata_props}


def test_an_onnx_file_says_what_it_is(tmp_path):
    name, difference = export_network(small_checkpoint(), tmp_path, "onnx")
    facts = facts_of(tmp_path / name)
    assert (facts["projection"], facts["categories"]) == ("CC_L", "A B C D")
    assert json.loads(facts["preprocess"])["rows"] == 40
    assert facts["preprocess_steps"] == preprocess_steps(small_checkpoint().preprocess)
    assert facts["note"] == RESEARCH_USE_ONLY
    assert difference < 1e-5


PILLOW = Image.Resampling
GREYS = np.random.default_rng(8).integers(3, 60000, (50, 64)).astype(np.uint16)


@pytest.mark.parametrize(
    ("spec", "words", "by_hand"),
    [
        ({}, "by the mean of the area under each pixel", lambda grey: grey.resize((32, 40), PILLOW.BOX)),
        ({"rows": 60}, "bilinear in both directions", lambda grey: grey.resize((32, 60), PILLOW.BILINEAR)),
        ({"columns": 100}, "bilinear in both directions", lambda grey: grey.resize((100, 40), PILLOW.BILINEAR)),
        ({"rows": 60, "interpolation": "nearest"}, "nearest", lambda grey: grey.resize((32, 60), PILLOW.NEAREST)),
    ],
)
def test_the_steps_by_hand_give_the_same_input(spec, words, by_hand):
    spec = PreprocessSpec(**{"rows": 40, "columns": 32, **spec})
    steps = preprocess_steps(spec).split("; ")
    assert [step.split()[0] for step in steps] == ["divide", "resize", "subtract"]
    assert words in steps[1]
    values = np.asarray(by_hand(Image.fromarray((GREYS / 65535).astype(np.float32))))
    made = preprocess(Mammogram(GREYS, Projection.CC_L), spec)
    np.testing.assert_allclose(values - values.mean(), made, atol=1e-6)
    average = np.asarray(Image.fromarray((GREYS / 65535).astype(np.float32)).resize(made.shape[::-1], PILLOW.BOX))
    assert np.allclose(average - average.mean(), made, atol=1e-6) == (spec.rows < 50 and spec.columns < 64)


@pytest.mark.parametrize("spec", [RAW_PREPROCESS, PreprocessSpec(pectoral="mask", background="mask", aspect="pad")])
def test_every_step_is_named(spec):
    steps = preprocess_steps(spec)
    assert ("crop to" in steps) == (spec.crop == "breast")
    assert ("round to" in steps) == (spec.depth == "8-bit")
    assert ("median grey" in steps) == (spec.pectoral == "fill")
    assert ("outside the breast to 0" in steps) == (spec.background == "mask")
    assert ("to fit into" in steps) == (spec.aspect == "pad")


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


@pytest.mark.filterwarnings("ignore:No hash value provided:UserWarning")  # for the schema, which is a file of ours
@pytest.mark.parametrize("checkpoint", [small_checkpoint(3), JOINT])
def test_monai_accepts_its_bundle(checkpoint, tmp_path):
    bundle = pytest.importorskip("monai.bundle")
    write_bundle(checkpoint, tmp_path / "bundle")
    meta, config = (str(tmp_path / "bundle" / "configs" / f"{name}.json") for name in ("metadata", "inference"))
    workflow = bundle.ConfigWorkflow(
        config, meta, logging_file=False, workflow_type="infer", bundle_root=str(tmp_path / "bundle")
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.device == torch.device("cpu")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    bundle.verify_metadata(meta_file=meta, filepath=str(tmp_path / "schema.json"))
    views = {"present": torch.ones(1, 4, dtype=torch.bool)} if checkpoint.name == "joint" else {}
    root = {"bundle_root": str(tmp_path / "bundle"), "extra_forward_args": views}
    bundle.verify_net_in_out("network", meta, config, device="cpu", **root)
    described = json.loads(Path(meta).read_text())
    assert described["schema"].endswith("meta_schema_20240725.json")
    tensors = described["network_data_format"]
    assert tensors["outputs"]["pred"]["type"] == "logits"
    assert tensors["post_processed_outputs"]["pred"]["type"] == "probabilities"
    del described["authors"]
    Path(meta).write_text(json.dumps(described))
    with pytest.raises(ValueError, match="authors"):
        bundle.verify_metadata(meta_file=meta, filepath=str(tmp_path / "schema.json"))


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
