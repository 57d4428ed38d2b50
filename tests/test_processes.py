"""Several processes train what one does, and stop together; each is a real process, and they meet by gloo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import several
from mammodensity.data.find import find_images
from mammodensity.errors import DeviceError
from mammodensity.models.checkpoint import RESUME_FILE
from mammodensity.terms import Projection
from mammodensity.training import processes as whole_batch
from mammodensity.training.processes import ALONE, Processes, own_device
from mammodensity.training.recipes import find_recipe
from mammodensity.training.records import read_history
from mammodensity.workers import launched
from mammodensity.workflows.train import train_model

ONE = [Projection.CC_R]


def start(size: int, *command: str) -> list[subprocess.Popen[str]]:
    """Processes as ``torchrun`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and error text of each."""
    texts = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


@pytest.fixture(scope="module")
def trained(blobs, tmp_path_factory) -> tuple[Path, Path]:
    """Folders of all jobs, by one process and by two."""
    folder = tmp_path_factory.mktemp("several")
    started = start(2, several.__file__, str(blobs), str(folder / "two"))
    several.train_all(blobs, folder / "one")
    for code, _, error in ends(started):
        assert code == 0, error
    return folder / "one", folder / "two"


@pytest.mark.parametrize("job", several.JOBS)
def test_two_processes_train_what_one_does(trained, job):
    (network,) = (trained[0] / job).glob("*/network.safetensors")
    other = trained[1] / network.relative_to(trained[0])
    expected, found = load_file(network), load_file(other)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    pairs = list(zip(read_history(network.parent), read_history(other.parent), strict=True))
    assert len(pairs) == several.JOBS[job][0].epochs
    for one, two in pairs:
        assert (two.learning_rate, two.train_accuracy) == (one.learning_rate, one.train_accuracy)
        assert two.validation_accuracy == one.validation_accuracy
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-5)
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-5)


def torchrun(size: int, *command: object) -> subprocess.Popen[str]:
    given = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    given += ["-m", "mammodensity", *map(str, command)]
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_stopped_torchrun_goes_on_in_one_process(blobs, tiny_recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({**tiny_recipe.to_dict(), "epochs": 40, "optimiser": "sgd"}))
    recipe = find_recipe(str(tmp_path / "recipe.json"))
    run = torchrun(
        2, "train", blobs, "--model", tmp_path / "parts", "--recipe", tmp_path / "recipe.json", "--projection", "CC_R"
    )
    while not (tmp_path / "parts/CC_R/history.csv").exists() and run.poll() is None:
        time.sleep(0.05)
    second = next(
        child
        for child in psutil.Process(run.pid).children(recursive=True)
        if child.environ().get("RANK") == "1" and "mammodensity" in child.cmdline()
    )
    second.send_signal(signal.SIGTERM)
    ((code, output, error),) = ends([run])
    assert code != 0
    assert "training on cpu in 2 processes" in output
    told = [line for line in error.splitlines() if line.startswith("mammodensity:")]
    assert len(told) == 1, error
    assert "CC_R was interrupted in epoch" in told[0]
    assert (tmp_path / "parts" / "CC_R" / RESUME_FILE).exists()
    assert len(read_history(tmp_path / "parts" / "CC_R")) < recipe.epochs
    train_model(find_images(blobs), tmp_path / "parts", recipe, projections=ONE, resume=True)
    train_model(find_images(blobs), tmp_path / "whole", recipe, projections=ONE)
    parts, whole = (load_file(tmp_path / name / "CC_R" / "network.safetensors") for name in ("parts", "whole"))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_a_mistake_is_told_once(tmp_path):
    for command, message in (
        (["train", str(tmp_path / "absent"), "--model", str(tmp_path / "model")], "absent"),
        (["train", str(tmp_path)], "--model"),
        (["predict", str(tmp_path)], "predict runs in one process"),
    ):
        found = ends(start(2, "-m", "mammodensity", *command))
        assert found[0][0] == found[1][0] != 0
        assert found[1][2] == ""
        assert len(found[0][2].splitlines()) == 1
        assert message in found[0][2]


@pytest.mark.parametrize("mishap", ["death", "silence"])
def test_a_process_that_is_lost_does_not_keep_the_others(mishap):
    first, second = start(2, several.__file__, mishap)
    output, _ = first.communicate(timeout=120)
    second.kill()
    second.communicate()
    assert first.returncode == 1
    assert output.startswith("lost the other processes of this training: one of them ended, or did not answer in time")


def test_every_thing_is_some_process_s():
    for size in (1, 2, 3, 8):
        processes = [Processes(rank, size) for rank in range(size)]
        for count in (0, 1, 2, 5, 16):
            items = list(range(count))
            assert [item for one in processes for item in items[one.part(count)]] == items
            assert sorted(item for one in processes for item in one.share(items)) == items
            assert np.ptp([len(items[one.part(count)]) for one in processes]) <= 1


def test_where_a_process_stands(monkeypatch):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    for values, expected in (
        (("1", "4", "1", "host"), (1, 4, 1)),
        (("0", "1", "0", "host"), None),
        (("1", "4", "1", ""), None),
        (("", "", "", ""), None),
        (("a", "4", "1", "host"), None),
    ):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(name, value)
        found = launched()
        assert expected == (found and (found.rank, found.size, found.on_machine))
    assert own_device("cpu", ALONE) == torch.device("cpu")


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(Processes, "from_first", lambda _self, function: function())
    assert own_device("auto", Processes(3, 4, on_machine=1)) == torch.device("cuda:1")
    assert own_device("cpu", Processes(3, 4, on_machine=1)) == torch.device("cpu")
    assert taken == [torch.device("cuda:1")]
    with pytest.raises(DeviceError, match="this machine has 2 GPUs"):
        own_device("cuda", Processes(2, 4, on_machine=2))
    with pytest.raises(DeviceError, match="cuda:1 is one GPU, and each process needs its own"):
        own_device("cuda:1", Processes(0, 2))
    with pytest.raises(SystemExit):
        own_device("cuda:1", Processes(1, 2))


# The layers that look at a whole batch


@pytest.fixture
def alone(monkeypatch):
    """One process whose part is the whole."""
    monkeypatch.setattr(whole_batch, "add_over_processes", lambda _tensor: None)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_batch_normalisation_is_torch_s(alone, precision):
    torch.manual_seed(1)
    expected = nn.BatchNorm2d(5, eps=1e-3, momentum=0.3)
    nn.init.normal_(expected.weight)
    nn.init.normal_(expected.bias)
    found = nn.Sequential(nn.BatchNorm2d(5, eps=1e-3, momentum=0.3))
    found[0].load_state_dict(expected.state_dict())
    whole_batch.spread(found, Processes(0, 2))
    assert isinstance(found[0], whole_batch.WholeBatchNorm2d)
    whole_batch.place(found, slice(None), 3)
    images = (torch.randn(3, 5, 6, 4) * 3 + 2).to(precision).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(3, 5, 6, 4)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    results = []
    for norm in (expected, found):
        given = images.clone().requires_grad_()
        normalised = norm(given)
        assert normalised.dtype == precision
        (normalised * weights).sum().backward()
        results.append([normalised, given.grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, **tolerance)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[0].state_dict()[name], tensor, msg=name)
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(found[0].get_parameter(name).grad, parameter.grad, **tolerance, msg=name)
    found.eval()
    torch.testing.assert_close(found(images), expected.eval()(images), **tolerance)


def test_a_process_without_an_image_takes_part(alone):
    norm = nn.Sequential(nn.BatchNorm2d(5), nn.Dropout(0.5))
    whole_batch.spread(norm, Processes(0, 2))
    whole_batch.place(norm, slice(0, 0), 3)
    nothing = torch.empty(0, 5, 6, 4, requires_grad=True)
    norm(nothing).sum().backward()
    assert norm[0].weight.grad.tolist() == [0] * 5
    assert nothing.grad.shape == nothing.shape


def test_dropout_masks_are_parts_of_the_whole_one(alone):
    layer = nn.Sequential(nn.Dropout(0.4))
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(6, 5, 4, 3).contiguous(memory_format=layout)
        torch.manual_seed(7)
        expected = nn.functional.dropout(images, 0.4)
        parts = nn.Sequential(nn.Dropout(0.4))
        whole_batch.spread(parts, Processes(0, 2))
        for rows in (slice(0, 2), slice(2, 6), torch.tensor([5, 1])):
            whole_batch.place(parts, rows, 6)
            torch.manual_seed(7)
            assert torch.equal(parts(images[rows]), expected[rows])
    assert torch.equal(parts.eval()(images[:2]), images[:2])
    whole_batch.spread(layer, ALONE)
    assert type(layer[0]) is nn.Dropout
