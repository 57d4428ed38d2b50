"""Programs measured in turns, each in a process of its own and watched from outside; results are kept on disk."""

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

import psutil

from bench.plan import Pair, Program

PROGRAMS = Path(__file__).resolve().parent / "programs"
ROOT = Path(__file__).resolve().parents[2]
"""The repository, where programs run."""
Run = dict[str, Any]
"""One process: its facts when it was ready, its steps, its peak memory in MB."""
Entry = dict[str, Any]
"""A pair: its settings, the machine, and the runs by label."""


class BenchmarkError(Exception):
    """A line for the user: what went wrong, and what to do."""


def progress(text: str) -> None:
    """Print a line for the waiting user."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# One program


class Worker:
    """A running program that does a step when asked."""

    def __init__(self, program: Program, interpreters: Mapping[str, str]) -> None:
        self.program, self.interpreters = program, interpreters
        self.facts: dict[str, Any] = {}
        """Its answer when it was ready."""

    def __enter__(self) -> Worker:
        self._errors = tempfile.TemporaryFile("w+")
        interpreter = self.interpreters[self.program.environment]
        with _on_cores(self.program.cores):
            self._process = subprocess.Popen(
                [interpreter, str(PROGRAMS / self.program.script), json.dumps(self.program.settings)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment_of(self.program),
                text=True,
                process_group=0,  # this process alone receives Ctrl-C, and ends the others
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
        with suppress(BrokenPipeError):  # it has ended, and the missing answer tells
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self._answer()

    def finish(self) -> tuple[float, float]:
        """End it; its peak resident memory in MB, with the processes it started, and its processor seconds."""
        assert self._process.stdin is not None
        peak = _peak_mb(self._process.pid)
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
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self) -> BenchmarkError:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "it said nothing"
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
    """Let programs that are started meanwhile use so many cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def environment_of(program: Program) -> dict[str, str]:
    """Variables for a program: as many threads as cores, which sleep while they wait as those of the commands do."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BENCHMARK_CORES")
    variables = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3"}
    variables |= dict.fromkeys(names, str(program.cores))
    if program.environment != "own":
        variables.pop("PYTHONPATH", None)
    return variables


def _peak_mb(pid: int) -> float:
    """The peak resident memory of a running process, with those that it started; 0 where there is no /proc.

    The peak that wait4 gives also counts the process that started it, up to the moment it became a program.
    """
    total = 0.0
    for process in (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            total += next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
    return total


# Pairs of programs, in turns


def rounds_of(
    pair: Pair, interpreters: Mapping[str, str], done: dict[str, list[Run]], say: Callable[[str], None]
) -> Iterator[None]:
    """Measure the missing rounds of a pair, adding to ``done`` by label; yields after each round.

    Raises
    ------
    BenchmarkError
        A program failed.
    """
    for number in range(pair.rounds):
        missing = [program for program in pair.programs if len(done.setdefault(program.label, [])) <= number]
        for group in [missing] if pair.together else [[program] for program in missing]:
            for program, run in zip(group, _measured(pair, group, interpreters), strict=True):
                done[program.label].append(run)
                times = [step["wall_s"] for step in run["steps"]]
                figures = f"{sum(times) / len(times):.3f} s a step, {run['peak_mb']:.0f} MB"
                say(f"round {number + 1} of {pair.rounds}: {program.label}: {figures}")
        if missing:
            yield


def _measured(pair: Pair, programs: Sequence[Program], interpreters: Mapping[str, str]) -> list[Run]:
    """Run programs at the same time, a step of each in turn."""
    busy_before, begun, used = _busy_seconds(), time.perf_counter(), 0.0
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(program, interpreters)) for program in programs]
        runs: list[Run] = [{"facts": worker.facts, "first": [], "steps": []} for worker in workers]
        for turn in range(pair.warmup + pair.steps):
            for worker, run in zip(workers, runs, strict=True):
                run["first" if turn < pair.warmup else "steps"].append(worker.step())
        for worker, run in zip(workers, runs, strict=True):
            peak, seconds = worker.finish()
            run["peak_mb"], used = round(peak, 1), used + seconds
        others = (_busy_seconds() - busy_before - used) / (time.perf_counter() - begun)
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


# Results so far, in one JSON file that is kept after every round, so that a stopped command goes on


def completed(
    pair: Pair,
    entries: dict[str, Entry],
    facts: Mapping[str, Any],
    interpreters: Mapping[str, str],
    say: Callable[[str], None],
) -> Iterator[Entry]:
    """Measure the missing rounds of a pair, in ``entries``; yields its entry after every round, for it to be kept.

    An entry of other settings or another machine is begun anew. A complete one is left as it is.
    """
    fixed = json.loads(json.dumps({"settings": pair.settings(), "machine": facts["machine"]}))
    entry = entries.get(pair.name)
    if entry is None or any(entry[name] != value for name, value in fixed.items()):
        entry = entries[pair.name] = {**fixed, "runs": {}}
    if is_complete(pair, entry):
        say(f"kept from {entry['measured']}; --again measures it anew")
        return
    for _ in rounds_of(pair, interpreters, entry["runs"], say):
        entry["measured"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry["commit"] = facts["commit"]
        yield entry


def is_complete(pair: Pair, entry: Entry) -> bool:
    """Whether every round of every program is there."""
    return all(len(entry["runs"].get(program.label, ())) >= pair.rounds for program in pair.programs)


def read_entries(path: Path) -> dict[str, Entry]:
    """The pairs in a file by their names; none where there is no file.

    Raises
    ------
    BenchmarkError
        The file is damaged.
    """
    try:
        entries: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} holds no results ({error!r}); remove it to measure anew") from error
    return entries


def write_entries(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write them whole or not at all."""
    write_whole(path, json.dumps({"pairs": entries}, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text so that Ctrl-C leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
