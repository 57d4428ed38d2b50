"""Measuring programs side by side: each in a process of its own, in turns, and watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.plan import Pair, Program
from bench.programs.processes import peak_mb

PROGRAMS = Path(__file__).resolve().parent / "programs"
ROOT = Path(__file__).resolve().parents[2]
"""The repository, where programs run."""
Run = dict[str, Any]
"""One process: what it said when it was ready, its steps, its peak memory in MB."""


class BenchmarkError(Exception):
    """A line for the user: what went wrong, and what to do."""


class Worker:
    """A running program that does a step when asked."""

    def __init__(self, program: Program, interpreters: Mapping[str, str]) -> None:
        self.program, self.interpreters = program, interpreters
        self.facts: dict[str, Any] = {}
        """What it said when it was ready."""

    def __enter__(self) -> Worker:
        self._errors = tempfile.TemporaryFile("w+")
        with _on_cores(self.program.cores):
            self._process = subprocess.Popen(
                command_of(self.program, self.interpreters),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment_of(self.program),
                text=True,
                process_group=0,  # Ctrl-C is this process' to hear, which ends the others
            )
        try:
            self.facts = self._answer()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._kill()

    def step(self) -> dict[str, Any]:
        """Have it do a step; the figures it answers."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: its answer, which is none, says so
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self._answer()

    def finish(self) -> tuple[float, float]:
        """End it; its processor seconds and, with the processes it started, its peak resident memory in MB."""
        assert self._process.stdin is not None
        peak = peak_mb(self._process.pid)
        self._process.stdin.close()
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            raise self._failed()
        return peak or usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise self._failed()
        found: dict[str, Any] = json.loads(line)
        return found

    def _failed(self) -> BenchmarkError:
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        last = said[-1].strip() if said else "it said nothing"
        return BenchmarkError(f"{self.program.label}: its program ended with {self._process.returncode}: {last}")

    def _kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """What is started meanwhile may use so many cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def command_of(program: Program, interpreters: Mapping[str, str]) -> list[str]:
    """The interpreter of its environment, the script, its settings."""
    return [interpreters[program.environment], str(PROGRAMS / program.script), json.dumps(program.settings)]


def environment_of(program: Program) -> dict[str, str]:
    """Variables for a program: as many threads as cores, which sleep while they wait as those of the commands do."""
    cores = str(program.cores)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BENCHMARK_CORES")
    found = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3", **dict.fromkeys(names, cores)}
    if program.environment != "own":
        found.pop("PYTHONPATH", None)
    return found


def rounds_of(
    pair: Pair, interpreters: Mapping[str, str], done: dict[str, list[Run]], say: Callable[[str], None]
) -> Iterator[None]:
    """Measure what a pair has not been measured yet, adding to ``done`` by label; yields after each round.

    Raises
    ------
    BenchmarkError
        A program failed.
    """
    for number in range(pair.rounds):
        missing = [one for one in pair.programs if len(done.setdefault(one.label, [])) <= number]
        for group in [missing] if pair.together else [[one] for one in missing]:
            for program, run in zip(group, _measured(pair, group, interpreters), strict=True):
                done[program.label].append(run)
                say(f"round {number + 1} of {pair.rounds}: {program.label}: {_told(run)}")
        if missing:
            yield


def _measured(pair: Pair, programs: Sequence[Program], interpreters: Mapping[str, str]) -> list[Run]:
    """Run programs at the same time, a step of each in turn."""
    before, begun, own = _busy_seconds(), time.perf_counter(), 0.0
    runs: list[Run] = []
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(one, interpreters)) for one in programs]
        for worker in workers:
            runs.append({"facts": worker.facts, "first": [], "steps": []})
        for turn in range(pair.warmup + pair.steps):
            for worker, run in zip(workers, runs, strict=True):
                run["first" if turn < pair.warmup else "steps"].append(worker.step())
        for worker, run in zip(workers, runs, strict=True):
            peak, used = worker.finish()
            run["peak_mb"], own = round(peak, 1), own + used
        others = (_busy_seconds() - before - own) / (time.perf_counter() - begun)
    for run in runs:
        run["others"] = max(round(others, 2), 0.0)  # cores that other work took meanwhile
    return runs


def _busy_seconds() -> float:
    """Processor seconds that all programs of this machine have used since it started."""
    try:
        user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    except OSError:
        return 0.0
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _told(run: Run) -> str:
    times = [step["wall_s"] for step in run["steps"]]
    return f"{sum(times) / len(times):.3f} s a step, {run['peak_mb']:.0f} MB"


def progress(text: str) -> None:
    """A line for who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
