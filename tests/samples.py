"""Small files that several test files make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection

if TYPE_CHECKING:
    from mammodensity.models.checkpoint import Checkpoint
    from mammodensity.models.scoring import ScoredExam
    from mammodensity.scores import ExamScores

REPOSITORY = Path(__file__).resolve().parent.parent


def gradient(dtype=np.uint8, top=200) -> np.ndarray:
    return np.linspace(0, top, 24 * 20).reshape(24, 20).astype(dtype)


def write_blobs(folder: Path, exams: int, size: int = 40, split_level: bool = False) -> Path:
    """A data set in the origin's layout whose category is the brightness of a disc: learned in seconds."""
    for number in range(exams):
        category = CATEGORIES[number % 4]
        for place, projection in enumerate(PROJECTIONS):
            rng = np.random.default_rng([number, place])
            rows, columns = np.mgrid[:size, :size]
            disc = np.hypot(rows - size / 2, columns - size / 2) < size / 3
            grey = 20 + disc * (40 + 55 * category.index) + rng.integers(0, 10, (size, size))
            where = folder / projection / ("train" if split_level else "") / category
            where.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(grey.astype(np.uint8))
            picture.save(where / f"{100 + number}_1_{category}_{projection}.png")
    return folder


def small_checkpoint(channels: int = 1, **preprocess: Any) -> Checkpoint:
    """A small network of random weights, of CC_L and 40 x 32 pixels unless told otherwise."""
    import torch

    from mammodensity.anatomy.network_input import PreprocessSpec
    from mammodensity.models.checkpoint import Checkpoint
    from mammodensity.models.network import NetworkSpec, ResidualNetwork

    torch.manual_seed(3)
    spec = NetworkSpec(channels=channels, stem=8, widths=(4, 4, 8, 8), outputs=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    made = ResidualNetwork(spec)
    for module in made.modules():  # statistics as after training, so that batch normalisation has something to do
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return Checkpoint(made.eval(), Projection.CC_L, PreprocessSpec(**{"rows": 40, "columns": 32, **preprocess}))


def scores_of(_model: Any, exam: ScoredExam) -> ExamScores:
    """Keep the scores of an exam; here, as a worker process can import it from here."""
    return exam.scores


def bundle_answer(bundle: Path, option: str, given: Path) -> dict[str, Any]:
    """Run a MONAI bundle by MONAI itself, in its folder and a process of its own, and return what it prints."""
    command = ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json", option, given]
    ended = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *command],
        cwd=bundle,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def broken_pictures(folder) -> dict[str, str]:
    """Bad files by name, with a part of the message each must give."""
    Image.fromarray(gradient()).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    Image.fromarray(np.full((30, 30), 7, np.uint8)).save(folder / "constant.png")
    Image.fromarray(gradient()[:8, :8]).save(folder / "tiny.png")
    colour = np.repeat(gradient()[..., None], 3, axis=2)
    colour[..., 0] //= 2
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(gradient().astype(np.float32)).save(folder / "float.tif")
    frames = [Image.fromarray(gradient()), Image.fromarray(gradient()[::-1].copy())]
    frames[0].save(folder / "two.tif", save_all=True, append_images=frames[1:])
    return {
        "truncated.png": "damaged or truncated",
        "empty.png": "not a readable",
        "text.png": "not a readable",
        "constant.png": "all pixels have one value",
        "tiny.png": "expected at least 16 a side",
        "colour.png": "is a colour picture",
        "float.tif": "pixels of type float32",
        "two.tif": "several pictures",
        "absent.png": "not found",
    }
