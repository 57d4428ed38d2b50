"""The machine that is measured on, and the environments of peers, each made once from a file of pinned versions."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.harness import BenchmarkError, progress

PEERS: Mapping[str, Path] = {"keras": Path(__file__).resolve().parent / "pins" / "keras.txt"}
"""The pinned versions of each peer."""
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")


def machine() -> dict[str, Any]:
    """Processor, its instructions that matter to networks, cores, memory, system; JSON values only."""
    fields = _first_processor()
    flags = fields.get("flags", "").split()
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "model": " ".join(fields.get(name, "?") for name in ("cpu family", "model", "stepping")),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def commit(repository: Path) -> str | None:
    """The commit of the sources, with a ``+`` where they were changed since; None without git."""
    command = ["git", "-C", str(repository), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def _first_processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def interpreter_of(peer: str, work: Path) -> str:
    """The interpreter of a peer's environment, which is made unless it is up to date.

    The variable MAMMODENSITY_BENCHMARK_KERAS and the like name another interpreter.

    Raises
    ------
    BenchmarkError
        It cannot be made.
    """
    variable = f"MAMMODENSITY_BENCHMARK_{peer.upper()}"
    if named := os.environ.get(variable):
        if shutil.which(named) is None:
            raise BenchmarkError(f"{variable} is {named}, which is no interpreter")
        return named
    pins, folder = PEERS[peer], work / peer
    python, made = folder / "bin" / "python", folder / "made-from"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if not (made.is_file() and made.read_text() == digest):
        progress(f"making the environment of {peer} in {folder} (some 1.5 GB)")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", str(pins)]
        done = subprocess.run(install, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
            raise BenchmarkError(f"{peer} cannot be installed from {pins}: {errors[-1]}")
        made.write_text(digest)
    return str(python)
