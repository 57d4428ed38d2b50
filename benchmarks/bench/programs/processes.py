"""What the system tells of running processes, where it has /proc. Standard library only, as in worker.py."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


def processor_seconds() -> float:
    """Used so far by this process and those it has started and that are running."""
    return time.process_time() + sum(_used_by(process) for process in descendants(os.getpid()))


def peak_mb(process: int) -> float:
    """The peak resident memory of a running process, with those that it started; 0 where the system does not tell.

    What wait4 says of an ended process also counts the one that started it, up to the moment it became a program.
    """
    return sum(_own_peak_mb(one) for one in (process, *descendants(process)))


def descendants(process: int) -> list[int]:
    """The running processes that a process started, and those that they did; none where the system does not tell."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def _used_by(process: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _own_peak_mb(process: int) -> float:
    with suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
    return 0.0
