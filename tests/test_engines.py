"""Engines give the scores of torch; kept files are used again, and made again when damaged."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mammodensity.data.find import find_images
from mammodensity.errors import CheckpointError, OptionError, OutputError
from mammodensity.models.checkpoint import load_checkpoint
from mammodensity.models.engines import TOLERANCE, make_engine, quantised, require_same, training_inputs
from mammodensity.models.onnx import require_packages, to_onnx
from mammodensity.models.trained import load_model
from mammodensity.terms import Projection
from mammodensity.workflows.train import train_model
from samples import small_checkpoint, write_blobs

CPU = torch.device("cpu")
OTHERS = ("onnx", "openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """Exported networks are kept in a folder of the tests' own."""
    home = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "mammodensity"


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_engine_gives_the_logits_of_torch(engine, channels):
    checkpoint = small_checkpoint(channels)
    images = np.random.default_rng(0).normal(0, 0.3, (5, channels, 40, 32)).astype(np.float32)
    expected, run = make_engine("torch", checkpoint, CPU)(images), make_engine(engine, checkpoint, CPU)
    for batch in (5, 1):
        np.testing.assert_allclose(run(images[:batch]), expected[:batch], atol=TOLERANCE)


@pytest.mark.parametrize("engine", OTHERS)
def test_trained_networks_predict_the_same(run, tiny_model, tmp_path, engine):
    data = write_blobs(tmp_path / "data", 4)
    scores = {}
    for name in ("torch", engine):
        code, _, error = run("predict", data, "--model", tiny_model, "--json", tmp_path / "r.json", "--engine", name)
        assert code == 0, error
        results = json.loads((tmp_path / "r.json").read_text())
        scores[name] = [list(result["exam"]["scores"].values()) for result in results]
    np.testing.assert_allclose(scores[engine], scores["torch"], atol=TOLERANCE)


DROPPED = """
import gc, os, signal, sys
import torch
from mammodensity.models.checkpoint import load_checkpoint
from mammodensity.models.engines import make_engine

checkpoint = load_checkpoint(sys.argv[1], "CC_R")
engines = [make_engine("openvino", checkpoint, torch.device("cpu")) for _ in range(2)]
while engines:
    del engines[0]
    gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def output_of(script: str, model: Path, **environment: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", script, model], capture_output=True, text=True, check=False, env=environment
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_signals_reach_a_process_that_dropped_its_openvino_networks(tiny_model):
    assert output_of(DROPPED, tiny_model, **os.environ) == "handled\n"


ALONE = """
import multiprocessing, sys
import numpy as np
import torch
from mammodensity.models.checkpoint import load_checkpoint
from mammodensity.models.engines import make_engine

started = []
multiprocessing.process.BaseProcess.start = started.append
checkpoint = load_checkpoint(sys.argv[1], "CC_R")
image = np.zeros((1, 1, checkpoint.preprocess.rows, checkpoint.preprocess.columns), np.float32)
for name in ("onnx", "openvino"):
    make_engine(name, checkpoint, torch.device("cpu"))(image)
print(len(started))
"""


def test_engines_tell_their_makers_nothing(tiny_model, tmp_path):
    """OpenVINO and ONNX Runtime would send what they are used for, and keep an id in the home."""
    places = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    kept = {"CI", "ORT_DISABLE_TELEMETRY", *places}
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    assert output_of(ALONE, tiny_model, **environment, **places) == "0\n"
    assert not (tmp_path / "home").exists()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mammodensity"]


@pytest.mark.slow
def test_eight_bits_stay_within_their_limits_on_a_trained_network(run, blobs, tiny_recipe, tmp_path, cache):
    model = tmp_path / "model"
    taught = replace(tiny_recipe, epochs=12, preprocess=replace(tiny_recipe.preprocess, centring="mean"))
    train_model(find_images(blobs), model, taught, projections=[Projection.CC_R])
    data = write_blobs(tmp_path / "data", 12)
    scores = {}
    for name in ("torch", "openvino-int8", "openvino-int8"):  # made, and then taken from the cache
        options = ("--model", model, "--csv", tmp_path / "s.csv", "--engine", name)
        code, _, error = run("predict", data, *options)
        assert code == 0, error
        with (tmp_path / "s.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["projection"] == "CC_R"]
        scores[name] = np.array([[float(row[category]) for category in "ABCD"] for row in rows])
    require_same(load_checkpoint(model, "CC_R"), scores["openvino-int8"], scores["torch"])
    assert len(scores["torch"]) == 12
    assert np.abs(scores["openvino-int8"] - scores["torch"]).max() > 1e-6  # it is another arithmetic
    assert len(list(cache.glob("*.int8-*.onnx"))) == 1


def test_eight_bits_are_signed_around_zero(tmp_path):
    """Any other zero point would be a layer of its own in OpenVINO."""
    import onnx

    path = tmp_path / "network.onnx"
    path.write_bytes(to_onnx(small_checkpoint(rows=48)))
    images = np.random.default_rng(0).normal(0, 0.3, (2, 1, 48, 32)).astype(np.float32)
    graph = onnx.load_from_string(quantised(path, images)).graph
    points = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name.endswith("_zero_point")]
    assert len(points) > 10
    assert {point.dtype for point in points} <= {np.dtype(np.int8), np.dtype(np.int32)}  # 32 bits for biases
    assert not any(point.any() for point in points)


def test_eight_bits_are_refused_where_they_cannot_be_made_or_cost_too_much(tiny_model, tmp_path):
    exact = np.eye(4)
    with pytest.raises(CheckpointError, match=r"in 8 bits 4 of 4 validation images of CC_L .* use --engine openvino "):
        require_same(small_checkpoint(), exact[::-1], exact)
    moved = tmp_path / "model"
    shutil.copytree(tiny_model, moved)
    table = (moved / "manifest.csv").read_text().replace(".png", "_gone.png")
    (moved / "manifest.csv").write_text(table)
    with pytest.raises(OptionError, match=r"measures a network once .* cannot read them: .*_gone\.png"):
        training_inputs(moved, load_checkpoint(moved, "CC_R"))
    with pytest.raises(OptionError, match="needs images of the training"):
        make_engine("openvino-int8", small_checkpoint(rows=56), CPU)


def test_an_exported_network_is_kept_until_its_weights_change(cache):
    checkpoint = small_checkpoint(rows=48)
    before = set(cache.glob("*.onnx"))
    make_engine("onnx", checkpoint, CPU)
    (made,) = set(cache.glob("*.onnx")) - before
    written = made.stat().st_mtime_ns
    make_engine("openvino", checkpoint, CPU)
    assert made.stat().st_mtime_ns == written
    with torch.no_grad():
        checkpoint.network.head.bias[0] += 1
    make_engine("onnx", checkpoint, CPU)
    assert len(set(cache.glob("*.onnx")) - before) == 2


@pytest.mark.parametrize("damage", [lambda whole: whole[:500], lambda _: b"", lambda whole: whole[:-9] + bytes(9)])
def test_a_damaged_kept_file_is_made_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint = small_checkpoint(rows=44)
    images = np.random.default_rng(0).normal(0, 0.3, (1, 1, 44, 32)).astype(np.float32)
    make_engine("onnx", checkpoint, CPU)
    (kept,) = (tmp_path / "mammodensity").glob("*.onnx")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    logits, expected = (make_engine(name, checkpoint, CPU)(images) for name in ("onnx", "torch"))
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
    assert kept.read_bytes() != damage(whole)


def test_a_cache_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    (tmp_path / "mammodensity").write_text("a file, where a folder is expected")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(OutputError, match="set XDG_CACHE_HOME to a folder that can be written"):
        make_engine("onnx", small_checkpoint(rows=44), CPU)


def test_engines_are_never_swapped_silently(tmp_path, tiny_model, monkeypatch):
    with pytest.raises(
        OptionError, match=r"engine must be one of torch, onnx, openvino, openvino-int8\. Got 'tensorrt'"
    ):
        load_model(tiny_model, engine="tensorrt")
    with pytest.raises(OptionError, match="the default model runs in torch"):
        load_model(engine="onnx")
    with pytest.raises(OptionError, match="engine onnx runs on the CPU"):
        make_engine("onnx", small_checkpoint(), torch.device("cuda"))
    with pytest.raises(OptionError, match=r"mammodensity\[engines\]"):
        require_packages("engines", "onnx", "no_such_package")
