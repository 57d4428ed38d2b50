"""The turns of a measured program: one step for each line on its standard input, one line of JSON in answer.

Standard library only, as programs of peers' environments use it, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Step = Callable[[], Mapping[str, Any] | None]
"""Does the work that is timed; may return further figures."""

settings: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
"""The program's settings."""
cores: int = int(os.environ.get("BENCHMARK_CORES", "1"))
"""The cores it may use; the harness has seen to that."""
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print must not be taken for an answer


def ready(**facts: Any) -> None:
    """Say that the first step can be asked for, with facts such as versions."""
    _answer(facts)


def serve(step: Step) -> None:
    """Take turns until the standard input ends."""
    while _asked():
        wall, processor = time.perf_counter(), _processor_seconds()
        further = step()
        _answer_times(wall, processor, further or {})


def serve_loop(loop: Callable[[Callable[[], None]], object]) -> None:
    """Take turns with a loop of the package, which calls its argument after each of its steps.

    The first step counts from the loop's start.
    """
    if not _asked():
        return
    begun = [time.perf_counter(), _processor_seconds()]

    def after_step() -> None:
        _answer_times(*begun, {})
        if not _asked():
            raise SystemExit(0)
        begun[:] = time.perf_counter(), _processor_seconds()

    loop(after_step)
    raise RuntimeError("more steps were asked for than the loop has")


def _asked() -> bool:
    return bool(sys.stdin.readline())


def _answer_times(wall: float, processor: float, further: Mapping[str, Any]) -> None:
    """Answer the seconds since then, on the wall clock and of the processor on all cores."""
    _answer({"wall_s": time.perf_counter() - wall, "processor_s": _processor_seconds() - processor, **further})


def _answer(values: Mapping[str, Any]) -> None:
    _answers.write(json.dumps(values) + "\n")
    _answers.flush()


def _processor_seconds() -> float:
    """Seconds used so far by this process and the running processes that it has started."""
    return time.process_time() + sum(_used_by(process) for process in _descendants(os.getpid()))


def _descendants(process: int) -> list[int]:
    """The running processes that a process started, and those that they did; none where there is no /proc."""
    processes = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                processes += [child, *_descendants(child)]
    return processes


def _used_by(process: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
