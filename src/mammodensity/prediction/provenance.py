"""Which model a result comes from."""

from __future__ import annotations

from pathlib import Path

from mammodensity.networks.checkpoint import NETWORK_FILE
from mammodensity.outputs import file_sha256
from mammodensity.preprocess.segmenter import WEIGHTS as SEGMENTER
from mammodensity.tissue.network import WEIGHTS as TISSUE


def model_hashes(path: Path | None) -> dict[str, str]:
    """SHA-256 of the files that make a model, by name in its folder; of the packaged weights for the default model."""
    packaged = {file.name: file_sha256(file) for file in (SEGMENTER, TISSUE)}
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
