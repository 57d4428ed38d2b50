"""Environments of the peers: each in a folder of its own, made once from a file of pinned versions."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Mapping
from pathlib import Path

from bench.harness import BenchmarkError, progress

PEERS: Mapping[str, Path] = {"keras": Path(__file__).resolve().parent / "pins" / "keras.txt"}
"""The pinned versions of each peer."""


def interpreter_of(peer: str, work: Path) -> str:
    """The interpreter of a peer's environment, which is made unless it is there as its file asks.

    Another one can be named by the variable MAMMODENSITY_BENCHMARK_KERAS and the like.

    Raises
    ------
    BenchmarkError
        It cannot be made.
    """
    named = os.environ.get(f"MAMMODENSITY_BENCHMARK_{peer.upper()}")
    if named:
        if shutil.which(named) is None:
            raise BenchmarkError(f"MAMMODENSITY_BENCHMARK_{peer.upper()} is {named}, which is no interpreter")
        return named
    pins = PEERS[peer]
    folder = work / peer
    python, made = folder / "bin" / "python", folder / "made-from"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if not (made.is_file() and made.read_text() == digest):
        progress(f"making the environment of {peer} in {folder} (some 1.5 GB)")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", str(pins)]
        done = subprocess.run(install, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
            raise BenchmarkError(f"{peer} cannot be installed from {pins}: {said[-1]}")
        made.write_text(digest)
    return str(python)
