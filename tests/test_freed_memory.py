"""What happens to the memory of freed tensors, seen from the process itself."""

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
from mammodensity.training import freed_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

assert getattr(freed_memory, sys.argv[1])()
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
