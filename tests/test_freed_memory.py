"""Memory of freed tensors, seen from the process itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
import numpy as np
from mammodensity.training import loop

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

assert getattr(loop, sys.argv[1])()
before = resident_mb()
for _ in range(2):
    block = np.ones(12_500_000)  # 100 MB
    del block
print(resident_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists() or os.sysconf("SC_PAGE_SIZE") != 4096, reason="needs Linux")
@pytest.mark.parametrize(("how", "low", "high"), [("keep_memory", 90, 110), ("return_large_blocks", -10, 10)])
def test_freed_memory_is_kept_or_returned(how, low, high):
    found = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
    assert low < float(found.stdout) < high


LARGE = """
from pathlib import Path
from mammodensity.training.loop import ask_for_large_pages
ask_for_large_pages()
import torch
tensor = torch.ones(50_000_000)
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(next(line for line in lines if line.startswith("AnonHugePages")).split()[1])
"""
WHEN = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not WHEN.exists() or "[madvise]" not in WHEN.read_text(), reason="needs large pages when asked for")
def test_tensors_lie_in_large_pages():
    found = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 100_000  # kB, of 200 MB


@pytest.mark.parametrize(("options", "asked"), [(["--checkpointing", "views"], True), ([], False)])
def test_train_asks_for_large_pages_where_memory_is_given_back(run, tmp_path, monkeypatch, options, asked):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "")
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    code, _, error = run("train", tmp_path / "nothing", "--model", tmp_path / "model", "--joint", *options)
    assert code != 0
    assert "nothing not found" in error
    assert ("THP_MEM_ALLOC_ENABLE" in os.environ) is asked
