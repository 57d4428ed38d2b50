"""Which model a result comes from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mammodensity.networks.checkpoint import NETWORK_FILE
from mammodensity.outputs import file_sha256
from mammodensity.prediction.tissue_model import MAP_FILE
from mammodensity.preprocess.segmenter import WEIGHTS as SEGMENTER
from mammodensity.tissue.network import WEIGHTS as TISSUES


def model_name(path: Path | None) -> str:
    """What a reader of results knows the model by: the folder's name, and the beginning of a hash of all its files."""
    facts = sorted(model_hashes(path).items())
    digest = hashlib.sha256("".join(f"{name} {value}\n" for name, value in facts).encode()).hexdigest()
    if path is None:
        called = "the default model"
    else:
        called = f"{path.resolve().name}{', the default model of a site' if (path / MAP_FILE).is_file() else ''}"
    return f"{called} (files {digest[:12]})"


def model_hashes(path: Path | None) -> dict[str, str]:
    """SHA-256 of the files that make a model, by name in its folder; of the packaged weights for the default model."""
    packaged = {file.name: file_sha256(file) for file in (SEGMENTER, *TISSUES)}
    if path is None:
        return packaged
    if path.is_file():
        return {path.name: file_sha256(path)}
    own = {
        file.relative_to(path).as_posix(): file_sha256(file)
        for pattern in (f"**/{NETWORK_FILE}", "category_map.json", "calibration.json")
        for file in sorted(path.glob(pattern))
    }
    return own if any(name.endswith(".safetensors") for name in own) else packaged | own
