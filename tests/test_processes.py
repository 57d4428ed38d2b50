"""Several processes train together, and stop together; each is a real process, and they meet by gloo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

import several
from mammodensity.data.find import find_images
from mammodensity.errors import DeviceError, LayoutError, OptionError
from mammodensity.models.checkpoint import RESUME_FILE
from mammodensity.terms import Projection
from mammodensity.training.processes import ALONE, Processes, device_of_process
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
def together(blobs, tmp_path_factory) -> Path:
    """Results of two processes that learned, and trained twice."""
    folder = tmp_path_factory.mktemp("several")
    for code, _, error in ends(start(2, several.__file__, str(blobs), str(folder))):
        assert code == 0, error
        assert error == ""
    return folder


def test_gradients_are_those_of_the_whole_batch(together):
    first, second = (load_file(together / f"learned_{rank}.safetensors") for rank in range(2))
    alone = several.learn(ALONE)
    assert first.keys() == second.keys() == alone.keys()
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name
        if not name.startswith("norm."):
            torch.testing.assert_close(tensor, alone[name], msg=name)
    # Batch statistics are each process's own, of three and of two rows: the running ones are their mean.
    inputs = torch.randn(several.ROWS, 3, generator=torch.Generator().manual_seed(2))
    means = (inputs[::2].mean(0) + inputs[1::2].mean(0)) / 2
    torch.testing.assert_close(first["norm.running_mean"], (1 - 0.9**3) * means)


@pytest.mark.parametrize("job", several.JOBS)
def test_two_processes_give_the_same_bits_twice(together, job):
    recipe, plan = several.JOBS[job]
    name = "joint" if plan else "CC_R"
    for file in ("network.safetensors", "history.csv", "loss_val.txt"):
        one, other = ((together / turn / job / name / file).read_bytes() for turn in ("first", "second"))
        assert one == other, file
    history = read_history(together / "first" / job / name)
    assert len(history) == recipe.epochs
    assert history[-1].train_loss < history[0].train_loss * 1.1


def torchrun(size: int, *command: object) -> subprocess.Popen[str]:
    given = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    given += ["-m", "mammodensity", *map(str, command)]
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_stopped_torchrun_goes_on_in_one_process(blobs, tiny_recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({**tiny_recipe.to_dict(), "epochs": 30}))
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
    assert len(read_history(tmp_path / "parts" / "CC_R")) == recipe.epochs
    assert not (tmp_path / "parts" / "CC_R" / RESUME_FILE).exists()


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


def test_every_item_is_in_one_share():
    for size in (1, 2, 3, 8):
        for count in (0, 1, 2, 5, 16):
            shares = [Processes(rank, size).share(range(count)) for rank in range(size)]
            assert sorted(item for share in shares for item in share) == list(range(count))
            assert np.ptp([len(share) for share in shares]) <= 1


def test_each_process_needs_an_image_of_every_batch(blobs, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "from_first", lambda _self, function: function())
    for wrong, size, error, message in (
        ({"batch": 3}, 4, OptionError, "a batch of 3 cannot be shared among 4 processes"),
        ({"batch": 10}, 10, LayoutError, "19 CC_R images in the train split; training needs at least 20"),
    ):
        with pytest.raises(error, match=message):
            train_model(
                find_images(blobs), tmp_path / "model", replace(tiny_recipe, **wrong), processes=Processes(0, size)
            )
    assert not (tmp_path / "model").exists()


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
    assert device_of_process("cpu", ALONE) == torch.device("cpu")


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(Processes, "from_first", lambda _self, function: function())
    assert device_of_process("auto", Processes(3, 4, on_machine=1)) == torch.device("cuda:1")
    assert device_of_process("cpu", Processes(3, 4, on_machine=1)) == torch.device("cpu")
    assert taken == [torch.device("cuda:1")]
    with pytest.raises(DeviceError, match="this machine has 2 GPUs"):
        device_of_process("cuda", Processes(2, 4, on_machine=2))
    with pytest.raises(DeviceError, match="cuda:1 is one GPU, and each process needs its own"):
        device_of_process("cuda:1", Processes(0, 2))
    with pytest.raises(SystemExit):
        device_of_process("cuda:1", Processes(1, 2))
