"""Training: reproducible, resumable, and it learns what is there and not what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mammodensity.data.dataset import read_manifest
from mammodensity.data.find import find_images
from mammodensity.errors import CheckpointError, DeviceError, Interrupted, LayoutError, OptionError, OutputError
from mammodensity.models.checkpoint import RESUME_FILE, load_checkpoint, network_files
from mammodensity.phantom.exams import PhantomSpec, write_phantoms
from mammodensity.terms import CATEGORIES, Projection
from mammodensity.training.joint_network import JointPlan
from mammodensity.training.recipes import RECIPES, adapted, find_recipe, recipe_from_dict
from mammodensity.training.records import read_history
from mammodensity.workers import find_device
from mammodensity.workflows.train import train, train_model
from samples import write_blobs

ONE = [Projection.CC_R]
KEPT = ("network.safetensors", "history.csv", "acc_train.txt", "acc_val.txt", "loss_train.txt", "loss_val.txt")


class StopAt:
    """Asks to stop after a number of steps."""

    def __init__(self, steps: int, stop: threading.Event) -> None:
        self.left, self.stop = steps, stop

    def __call__(self, _projection, _step) -> None:
        self.left -= 1
        if self.left == 0:
            self.stop.set()


def test_the_model_folder(tiny_model, tiny_recipe):
    data = read_manifest(tiny_model / "manifest.csv")
    assert {record.split for record in data.records} == {"train", "validation", "test"}
    assert json.loads((tiny_model / "recipe.json").read_text()) == tiny_recipe.to_dict()
    assert json.loads((tiny_model / "receipt.json").read_text())["versions"]["torch"] == torch.__version__
    for projection in ("CC_R", "CC_L", "MLO_R", "MLO_L"):
        folder = tiny_model / projection
        assert all((folder / name).is_file() for name in KEPT)
        assert list((folder / "tensorboard").glob("events*"))
        assert not (folder / RESUME_FILE).exists()
        history = read_history(folder)
        assert [figures.epoch for figures in history] == [1, 2]
        losses = [float(line) for line in (folder / "loss_val.txt").read_text().splitlines()]
        assert losses == [figures.validation_loss for figures in history]
        checkpoint = load_checkpoint(folder)
        assert checkpoint.training["epoch"]["validation_loss"] == min(losses)
        confusion = np.array(checkpoint.training["validation_confusion"])
        assert confusion.sum() == checkpoint.training["images"]["validation"]
        assert confusion.trace() / confusion.sum() == checkpoint.training["epoch"]["validation_accuracy"]


def test_train_also_tests_and_describes_the_model_and_names_resume(blobs, tiny_recipe, tmp_path, ask_to_stop):
    options = {"model": tmp_path / "model", "recipe": tiny_recipe, "epochs": 1, "projections": ONE, "device": "cpu"}
    with pytest.raises(Interrupted):
        train(blobs, **options, report=StopAt(1, ask_to_stop))
    with pytest.raises(OutputError, match="did not end; add --resume to the same command"):
        train(blobs, **options)
    notes, tested = [], []
    trained = train(blobs, **options, resume=True, note=notes.append, testing=lambda *step: tested.append(step))
    assert notes == ["training on cpu with recipe tiny: 1 epochs"]
    assert trained.figures["CC_R"].n == tested[-1][1] == 2
    assert trained.card == trained.folder / "README.md"
    with pytest.raises(OutputError, match="already holds files; name a new folder"):
        train(blobs, **options)


def test_options_are_checked_before_the_data_set(tmp_path):
    for wrong, message in (
        ({"precision": "fp16"}, "precision must be one of fp32, bf16"),
        ({"recipe": "large"}, "unknown recipe"),
        ({"joint": JointPlan(), "projections": ONE}, "leave --projection out"),
    ):
        with pytest.raises(OptionError, match=message):
            train(tmp_path / "absent", model=tmp_path / "model", **wrong)
    (tmp_path / "full").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        train(tmp_path / "absent", model=tmp_path / "full")


def test_same_seed_same_bits_and_another_seed_others(blobs, tiny_model, tiny_recipe, tmp_path):
    train_model(find_images(blobs), tmp_path / "again", tiny_recipe, projections=ONE)
    for name in KEPT:
        assert (tmp_path / "again" / "CC_R" / name).read_bytes() == (tiny_model / "CC_R" / name).read_bytes()
    train_model(find_images(blobs), tmp_path / "other", replace(tiny_recipe, seed=2), projections=ONE)
    assert read_history(tmp_path / "other" / "CC_R") != read_history(tiny_model / "CC_R")


@pytest.mark.parametrize("recipe_name", ["tiny", "plateau"])
@pytest.mark.parametrize("stops", [(1,), (2, 1, 2)])
def test_an_interrupted_run_ends_with_the_same_bits(blobs, tiny_recipe, tmp_path, *, recipe_name, stops, ask_to_stop):
    recipe = tiny_recipe
    if recipe_name == "plateau":
        recipe = replace(tiny_recipe, optimiser="sgd", schedule="plateau", select="accuracy", learning_rate=0.01)
    train_model(find_images(blobs), tmp_path / "whole", recipe, projections=ONE)
    for number, steps in enumerate(stops):
        with pytest.raises(Interrupted, match="--resume"):
            train_model(
                find_images(blobs),
                tmp_path / "parts",
                recipe,
                projections=ONE,
                resume=number > 0,
                report=StopAt(steps, ask_to_stop),
            )
        assert (tmp_path / "parts" / "CC_R" / RESUME_FILE).exists()
    train_model(find_images(blobs), tmp_path / "parts", recipe, projections=ONE, resume=True)
    for name in KEPT:
        whole, parts = (tmp_path / run / "CC_R" / name for run in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), name


def test_a_killed_run_goes_on(blobs, tiny_recipe, tmp_path):
    recipe = replace(tiny_recipe, epochs=12)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    command = [sys.executable, "-m", "mammodensity", "train", str(blobs), "--model", str(tmp_path / "killed")]
    command += ["--recipe", str(tmp_path / "recipe.json"), "--projection", "CC_R"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums of other threads round otherwise
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    resume = tmp_path / "killed" / "CC_R" / RESUME_FILE
    while not resume.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    train_model(find_images(blobs), tmp_path / "killed", recipe, projections=ONE, resume=True)
    train_model(find_images(blobs), tmp_path / "whole", recipe, projections=ONE)
    assert (tmp_path / "killed/CC_R/network.safetensors").read_bytes() == (
        tmp_path / "whole/CC_R/network.safetensors"
    ).read_bytes()


def test_a_network_without_its_last_epochs_is_not_taken_as_finished(blobs, tiny_recipe, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OutputError("cannot write: No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OutputError):
        patch.setattr("mammodensity.training.loop.write_history", full)  # just after the first network is kept
        train_model(find_images(blobs), tmp_path / "parts", tiny_recipe, projections=ONE)
    assert (tmp_path / "parts" / "CC_R" / "network.safetensors").exists()
    train_model(find_images(blobs), tmp_path / "parts", tiny_recipe, projections=ONE, resume=True)
    assert len(read_history(tmp_path / "parts" / "CC_R")) == tiny_recipe.epochs


def test_resuming_something_else_is_refused(blobs, tiny_recipe, tiny_model, tmp_path):
    with pytest.raises(OutputError, match="already holds files"):
        train_model(find_images(blobs), tiny_model, tiny_recipe)
    with pytest.raises(CheckpointError, match="another recipe: epochs is 2 there and 3 here"):
        train_model(find_images(blobs), tiny_model, replace(tiny_recipe, epochs=3), resume=True)
    other = write_blobs(tmp_path / "other", 28)
    with pytest.raises(CheckpointError, match="other images or splits"):
        train_model(find_images(other), tiny_model, tiny_recipe, resume=True)


def test_data_that_cannot_train_leaves_nothing(blobs, tiny_recipe, tmp_path):
    small = write_blobs(tmp_path / "small", 2)
    with pytest.raises(LayoutError, match="no CC_R image in the validation split"):
        train_model(find_images(small), tmp_path / "model", tiny_recipe)
    broken = write_blobs(tmp_path / "broken", 24)
    image = sorted((broken / "MLO_L" / "D").iterdir())[0]
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(LayoutError, match="damaged or truncated"):
        train_model(find_images(broken), tmp_path / "model", tiny_recipe)
    data = find_images(blobs)
    unlabelled = replace(data, records=(replace(data.records[0], category=None), *data.records[1:]))
    with pytest.raises(LayoutError, match="1 of 96 images have no category"):
        train_model(unlabelled, tmp_path / "model", tiny_recipe)
    assert not (tmp_path / "model").exists()


def test_it_learns_labels_and_not_shuffled_ones(tmp_path, tiny_recipe):
    data = find_images(write_blobs(tmp_path / "blobs", 80))
    preprocess = replace(tiny_recipe.preprocess, centring="none")
    recipe = replace(tiny_recipe, epochs=30, preprocess=preprocess, learning_rate=0.01)
    exams = sorted({record.exam_id for record in data.records})
    shuffled = dict(
        zip(exams, np.random.default_rng(1).permutation([CATEGORIES[i % 4] for i in range(80)]), strict=True)
    )
    records = tuple(
        replace(record, category=CATEGORIES["ABCD".index(shuffled[record.exam_id])]) for record in data.records
    )
    train_model(data, tmp_path / "true", recipe, projections=ONE)
    train_model(replace(data, records=records), tmp_path / "shuffled", recipe, projections=ONE)
    best = [max(f.validation_accuracy for f in read_history(tmp_path / run / "CC_R")) for run in ("true", "shuffled")]
    assert best[0] >= 0.9
    assert best[1] <= 0.75


def test_the_origins_recipe_is_the_origins():
    origin = RECIPES["origin"]
    assert (origin.epochs, origin.batch, origin.optimiser, origin.learning_rate) == (100, 4, "sgd", 0.01)
    assert (origin.augment.zoom, origin.augment.shift, origin.augment.rotation_degrees) == (0.2, 0.2, 10)
    assert origin.network.channels == 3
    assert origin.preprocess.interpolation == "nearest"


def test_recipes_by_name_file_and_change(tmp_path):
    for recipe in RECIPES.values():
        assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    (tmp_path / "mine.json").write_text(json.dumps({**RECIPES["small"].to_dict(), "batch": 3}))
    assert find_recipe(str(tmp_path / "mine.json")).batch == 3
    changed = adapted(RECIPES["small"], epochs=7, size=48, seed=5)
    assert (changed.epochs, changed.preprocess.rows, changed.preprocess.columns, changed.seed) == (7, 48, 48, 5)
    (tmp_path / "bad.json").write_text('{"name": "x"}')
    (tmp_path / "worse.json").write_text("{")
    for name, message in (
        ("large", "unknown recipe"),
        (str(tmp_path / "absent.json"), "not found"),
        (str(tmp_path / "bad.json"), "not a training recipe"),
        (str(tmp_path / "worse.json"), "not readable JSON"),
    ):
        with pytest.raises(OptionError, match=message):
            find_recipe(name)
    for entry, value in (
        ("seed", "a"),
        ("seed", True),
        ("seed", -1),
        ("batch", 2.5),
        ("epochs", 0),
        ("weight_decay", float("inf")),
        ("optimiser", "adam"),
        ("schedule", "none"),
        ("select", "kappa"),
        ("learning_rate", 0),
        ("augment", {"zoom": 1}),
        ("network", {"widths": [4.5]}),
        ("network", {"widths": "4"}),
    ):
        with pytest.raises(OptionError, match=next(iter(value)) if isinstance(value, dict) else f"{entry} must be"):
            recipe_from_dict({**RECIPES["small"].to_dict(), entry: value})


def test_schedules(blobs, tiny_recipe, tmp_path):
    train_model(find_images(blobs), tmp_path / "cycle", replace(tiny_recipe, epochs=6), projections=ONE)
    rates = [figures.learning_rate for figures in read_history(tmp_path / "cycle" / "CC_R")]
    assert rates.index(max(rates)) == 1
    assert all(later < earlier for earlier, later in pairwise(rates[1:]))
    # A rate far too high to improve stalls at once: after 15 epochs it is divided by ten.
    stalled = replace(tiny_recipe, epochs=18, optimiser="sgd", schedule="plateau", learning_rate=1e-9, weight_decay=0.0)
    train_model(find_images(blobs), tmp_path / "plateau", replace(stalled, learning_rate=0.5), projections=ONE)
    rates = [figures.learning_rate for figures in read_history(tmp_path / "plateau" / "CC_R")]
    assert set(rates) <= {0.5, 0.05}


def test_devices():
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    absent = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for name, message in ((f"cuda:{absent}", "was asked for"), ("mps", "not supported"), ("gpu", "unknown device")):
        with pytest.raises(DeviceError, match=message):
            find_device(name)


def test_a_last_batch_of_one_image_joins_the_one_before(tmp_path, tiny_recipe):
    data = write_blobs(tmp_path / "blobs", 24)
    recipe = replace(tiny_recipe, epochs=1, preprocess=replace(tiny_recipe.preprocess, rows=16, columns=16))
    steps = []
    for batch in (3, 18):  # 19 training images: six batches and one image; one batch and one image
        train_model(
            find_images(data),
            tmp_path / f"model{batch}",
            replace(recipe, batch=batch),
            projections=ONE,
            report=lambda _, step: steps.append((step.step, step.steps)),
        )
    assert steps == [(n, 6) for n in range(1, 7)] + [(6, 6)] + [(1, 1)] * 2  # the last of each once more, validated


def test_training_on_phantoms_is_recorded(tmp_path, tiny_recipe):
    write_phantoms(PhantomSpec(rows=32), 12, tmp_path / "phantoms", workers=1)
    train_model(find_images(tmp_path / "phantoms"), tmp_path / "model", replace(tiny_recipe, epochs=1), projections=ONE)
    assert load_checkpoint(tmp_path / "model").training["data"]["phantoms"] is True


def test_training_begins_where_another_model_ended(blobs, tiny_model, tiny_recipe, tmp_path):
    barely = replace(tiny_recipe, learning_rate=1e-7, epochs=1)
    train_model(find_images(blobs), tmp_path / "on", barely, projections=ONE, start=tiny_model)
    before, after = (load_checkpoint(folder / "CC_R") for folder in (tiny_model, tmp_path / "on"))
    assert after.training["start"].keys() == {"CC_R", "CC_L", "MLO_R", "MLO_L"}
    assert "start" not in before.training
    for name, parameter in before.network.named_parameters():
        assert torch.allclose(parameter, after.network.get_parameter(name), atol=1e-4)
    other = replace(tiny_recipe, network=replace(tiny_recipe.network, stem=tiny_recipe.network.stem + 1))
    with pytest.raises(CheckpointError, match="another architecture"):
        train_model(find_images(blobs), tmp_path / "wide", other, projections=ONE, start=tiny_model)
    with pytest.raises(CheckpointError, match="no network for CC_R"):
        train_model(find_images(blobs), tmp_path / "none", tiny_recipe, projections=ONE, start=tmp_path)
    assert not (tmp_path / "wide").exists()


def test_bf16_trains_nearly_as_float32_and_is_written_down(blobs, tiny_recipe, tmp_path):
    data, recipe = find_images(blobs), replace(tiny_recipe, epochs=2)
    losses = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        train_model(data, folder, recipe, projections=[Projection.CC_R], precision=precision)
        losses[precision] = [epoch.train_loss for epoch in read_history(folder / "CC_R")]
        checkpoint = load_checkpoint(network_files(folder)[Projection.CC_R], Projection.CC_R)
        assert checkpoint.training["precision"] == precision
        assert all(weight.dtype == torch.float32 for weight in checkpoint.network.parameters())
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    with pytest.raises(OptionError, match=r"precision must be one of fp32, bf16\. Got 'fp16' instead"):
        train_model(data, tmp_path / "no", recipe, precision="fp16")
    assert not (tmp_path / "no").exists()
