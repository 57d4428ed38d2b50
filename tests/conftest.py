"""Fixtures of several test files: real data where it is present, and a small data set and model made once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mammodensity.commands import command_line as cli
from samples import REPOSITORY, write_blobs

torch.set_num_threads(1)  # the networks here are tiny, and pytest-xdist already uses every core


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real mammograms and tables; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("MAMMODENSITY_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set MAMMODENSITY_TEST_DATA to test with it")
    return folder


@pytest.fixture
def ask_to_stop(monkeypatch) -> threading.Event:
    """Set it, and a training stops as at Ctrl-C; tests/test_cli.py sends real signals to processes of their own."""
    stop = threading.Event()

    @contextmanager
    def requests(*, once: bool = False) -> Iterator[threading.Event]:
        stop.clear()
        yield stop

    for module in ("training.loop", "research.default_networks"):
        monkeypatch.setattr(f"mammodensity.{module}.stop_requests", requests)
    return stop


@pytest.fixture(scope="session")
def blobs(tmp_path_factory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("blobs"), 24)


@pytest.fixture(scope="session")
def tiny_recipe():
    from mammodensity.training.recipes import find_recipe

    recipe = find_recipe("small")
    network = replace(recipe.network, stem=4, widths=(4, 4), outputs=(8, 8), depths=(1, 1))
    preprocess = replace(recipe.preprocess, rows=32, columns=32)
    return replace(recipe, name="tiny", epochs=2, network=network, preprocess=preprocess)


@pytest.fixture(scope="session")
def tiny_model(blobs, tiny_recipe, tmp_path_factory) -> Path:
    from mammodensity.data.find import find_images
    from mammodensity.workflows.train import train_model

    model = tmp_path_factory.mktemp("models") / "model"
    train_model(find_images(blobs), model, tiny_recipe)
    return model


@pytest.fixture
def run(capsys):
    """Run a command; returns its exit code, output and error text."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call
