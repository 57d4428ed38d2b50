"""How a measured program takes its turns: one step for each line on its standard input, one line of JSON in answer.

Standard library only: programs of peers' environments use it, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from processes import processor_seconds

Step = Callable[[], Mapping[str, Any] | None]
"""Does what is timed; may give further figures."""

given: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
"""The program's settings."""
cores: int = int(os.environ.get("BENCHMARK_CORES", "1"))
"""Which it may use; the harness has seen to that."""
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print must not be taken for an answer


def ready(**facts: Any) -> None:
    """Say that the first step can be asked for, and what is known by now: versions, say."""
    _answer(facts)


def serve(step: Step) -> None:
    """Take turns until the standard input ends."""
    while _asked():
        wall, processor = time.perf_counter(), processor_seconds()
        further = step()
        _answer_times(wall, processor, further or {})


def serve_loop(loop: Callable[[Callable[[], None]], object]) -> None:
    """Take turns with a loop that is not ours: it calls what it is given after each of its steps.

    The first step counts from the loop's start.
    """
    if not _asked():
        return
    begun = [time.perf_counter(), processor_seconds()]

    def after_step() -> None:
        _answer_times(*begun, {})
        if not _asked():
            raise SystemExit(0)
        begun[:] = time.perf_counter(), processor_seconds()

    loop(after_step)
    raise RuntimeError("more steps were asked for than the loop has")


def _asked() -> bool:
    return bool(sys.stdin.readline())


def _answer_times(wall: float, processor: float, further: Mapping[str, Any]) -> None:
    """Seconds since then, on the wall clock and of the processor on all cores."""
    _answer({"wall_s": time.perf_counter() - wall, "processor_s": processor_seconds() - processor, **further})


def _answer(values: Mapping[str, Any]) -> None:
    _answers.write(json.dumps(values) + "\n")
    _answers.flush()
