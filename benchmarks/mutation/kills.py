"""Commands as processes that are killed while they write, and what they leave.

Processes are forked from one that has the modules loaded, so that a run takes as long as its work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection

_PATIENCE_S = 300.0
_SERVER = """
import os, signal, sys
sys.path[:0] = {paths!r}
import torch, scipy.ndimage, PIL.Image, matplotlib.pyplot, pydicom, jinja2, safetensors.torch
import mammodensity.workflows.train, mammodensity.workflows.predict, mammodensity.workflows.prepare
import mammodensity.workflows.explain, mammodensity.workflows.calibrate, mammodensity.models.export
import mammodensity.commands.command_line
from mammodensity.__main__ import main
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
for line in sys.stdin:
    *arguments, log = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.setsid()
        try:
            sys.argv[1:] = arguments
            main()
        except SystemExit as stop:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """The command ``mammodensity``, a process for each call."""

    def __init__(self) -> None:
        program = _SERVER.format(paths=[path for path in sys.path if path])
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments: Sequence[object], log: Path) -> int:
        """Start a command and return its process id."""
        assert self._server.stdin is not None
        self._server.stdin.write("\t".join(map(str, [*arguments, log])) + "\n")
        self._server.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """Wait for the end of the command; the exit code, or minus the signal."""
        return int(self._line())

    def run(self, arguments: Sequence[object], log: Path) -> int:
        """Run a command to its end."""
        self.start(arguments, log)
        return self.end()

    def must(self, arguments: Sequence[object], log: Path) -> None:
        """Run a command that makes inputs."""
        if self.run(arguments, log):
            raise RuntimeError(f"{arguments[0]} failed: {log.read_text()[-400:]}")

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.communicate()


@contextmanager
def commands() -> Iterator[Commands]:
    """A server of commands that ends with the block."""
    server = Commands()
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class Job:
    """A command that writes."""

    name: str
    arguments: tuple[object, ...]
    out: Path
    """The folder that holds all that it writes, and nothing else."""
    again: tuple[object, ...] = ()
    """Arguments added to go on after a kill."""
    begin: Path | None = None
    """A folder whose copy ``out`` is in the beginning; None: an absent folder."""
    in_steps: bool = False
    """True for a command that keeps its progress: the files of an interrupted run are not those of a finished one."""
    finished: str = ""
    """Message of the command when a kill came after its work was done."""


@dataclass(frozen=True)
class Kill:
    """Outcome of a job after a kill."""

    job: str
    signal: str
    after_s: float
    """Time from the first sign of an output to the kill."""
    faults: tuple[str, ...]
    """Empty when all is well."""
    hit: bool
    """False when the command had ended before."""


def make_jobs(work: Path, server: Commands, names: Sequence[str]) -> list[Job]:
    """Make the inputs of some of ``JOBS`` in a folder, and these jobs."""
    from samples import write_blobs

    inputs = work / "inputs"
    blobs, few = write_blobs(inputs / "blobs", 24), write_blobs(inputs / "few", 3)
    model, table, labels, recipe = (inputs / name for name in ("model", "scores.csv", "labels.csv", "recipe.json"))
    _write_model(model)
    _write_scores(table)
    labels.write_text("exam_id,density\n" + "".join(f"{100 + n}_1,{CATEGORIES[n % 4]}\n" for n in range(24)))
    _write_recipe(recipe)
    phantoms = inputs / "phantoms"
    if "prepare" in names:
        server.must(("phantom", phantoms, "--exams", 4, "--size", 64), work / "log")
    out = {name: work / name / "out" for name in JOBS}
    written = {"--csv": "a.csv", "--json": "b.json", "--results": "c.csv", "--html": "d.html", "--origin-txt": "infn"}
    files = [part for option, name in written.items() for part in (option, out["predict"] / name)]
    train = ("train", blobs, "--model", out["train"], "--recipe", recipe, "--projection", "CC_R", "MLO_L")
    maps = ("--output", out["explain"] / "maps", "--arrays", "--json", out["explain"] / "scores.json")
    prepare = ("prepare", phantoms, out["prepare"], "--salt", "s", "--keep-names")
    jobs = {
        "train": Job("train", train, out["train"], ("--resume",), in_steps=True),
        "prepare": Job("prepare", prepare, out["prepare"], ("--resume",), in_steps=True, finished="is finished"),
        "predict": Job("predict", ("predict", few, "--model", model, *files), out["predict"]),
        "explain": Job("explain", ("explain", few, "--model", model, *maps), out["explain"]),
        "calibrate": Job(
            "calibrate",
            ("calibrate", table, "--labels", labels, "--model", out["calibrate"]),
            out["calibrate"],
            begin=model,
        ),
        "export": Job(
            "export", ("export", out["export"] / "monai", "--model", model, "--format", "monai"), out["export"]
        ),
    }
    return [jobs[name] for name in names]


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
JOBS = ("train", "prepare", "predict", "explain", "calibrate", "export")


def _write_model(folder: Path) -> None:
    """A model folder with small networks of random weights, and a model card."""
    from dataclasses import replace

    from mammodensity.models.checkpoint import save_checkpoint
    from mammodensity.pages.model_card import write_model_card
    from samples import small_checkpoint

    for projection in PROJECTIONS:
        save_checkpoint(folder / projection, replace(small_checkpoint(), projection=projection))
    write_model_card(folder)


def _write_scores(path: Path) -> None:
    """Scores of one view, so that there is one combination of views to calibrate."""
    from mammodensity.evaluation.score_tables import write_score_table
    from mammodensity.scores import ExamScores, fuse_exam

    rng = np.random.default_rng(1)
    exams = []
    for number in range(24):
        views = {Projection.CC_R: rng.dirichlet(np.ones(4))}
        exams.append(ExamScores(f"{100 + number}_1", views, fuse_exam(views)))
    write_score_table(path, exams)


def _write_recipe(path: Path) -> None:
    from mammodensity.training.recipes import find_recipe

    facts = find_recipe("small").to_dict()
    facts["network"] |= {"stem": 4, "widths": [4, 4], "outputs": [8, 8], "depths": [1, 1]}
    facts["preprocess"] |= {"rows": 32, "columns": 32}
    path.write_text(json.dumps({**facts, "name": "tiny", "epochs": 6}))


def _begin(job: Job) -> None:
    shutil.rmtree(job.out.parent, ignore_errors=True)
    job.out.parent.mkdir(parents=True)
    if job.begin:
        shutil.copytree(job.begin, job.out)


@dataclass(frozen=True)
class Undisturbed:
    """An uninterrupted run."""

    files: dict[str, bytes]
    writing_s: float
    """From the first sign of an output to the end."""


def uninterrupted(job: Job, server: Commands) -> Undisturbed:
    """Run a job to its end, and again: what two runs do not have in common is no result."""
    runs, times = [], []
    for _ in range(2):
        _begin(job)
        before = _state(job.out.parent)
        child = server.start(job.arguments, _log(job))
        first = _wait_for_change(child, job.out.parent, before)
        if server.end():
            raise RuntimeError(f"{job.name} failed: {_log(job).read_text()[-400:]}")
        times.append(time.monotonic() - first)
        runs.append(contents(job.out))
    first_run, second_run = runs
    if first_run.keys() != second_run.keys() or any(first_run[name] != second_run[name] for name in first_run):
        names = [name for name in {*first_run, *second_run} if first_run.get(name) != second_run.get(name)]
        raise RuntimeError(f"{job.name} writes differently each time: {', '.join(sorted(names))}")
    return Undisturbed(first_run, min(times))


def killed(job: Job, expected: Undisturbed, number: signal.Signals, share: float, server: Commands) -> Kill:
    """Kill a job after a share of its writing time, look at what it left, run it again, and compare."""
    _begin(job)
    initial = contents(job.out) if job.begin else {}
    before = _state(job.out.parent)
    child = server.start(job.arguments, _log(job))
    _wait_for_change(child, job.out.parent, before)
    after = share * expected.writing_s
    time.sleep(after)
    with suppress(ProcessLookupError):
        os.kill(child, number)
    code = server.end()
    _wait_for_workers(child)
    hit = code != 0
    faults = list(_faults_after(job, expected.files, initial, _log(job).read_text(), number))
    if hit:
        code = server.run((*job.arguments, *job.again), _log(job))
        text = _log(job).read_text()
        if code and not (job.finished and job.finished in text):
            faults.append(f"the run after it ends with {code}: {text[-300:]}")
    faults += _differences(contents(job.out), expected.files, "run again")
    faults += [f"left behind: {path.name}" for path in job.out.parent.rglob("*.partial")]
    faults += [f"left behind: {path.name}" for path in job.out.rglob(".prepare")]
    return Kill(job.name, number.name, after, tuple(faults), hit)


def _wait_for_workers(child: int) -> None:
    """Worker processes notice that their parent has ended, and end, too."""
    deadline = time.monotonic() + 10
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(child, 0)
            time.sleep(0.01)


def _faults_after(
    job: Job, expected: dict[str, bytes], initial: dict[str, bytes], text: str, number: signal.Signals
) -> Iterator[str]:
    """Find faults right after the kill."""
    if "Traceback" in text:
        yield f"traceback: {text[-300:]}"
    if number != signal.SIGKILL and any(job.out.parent.rglob("*.partial")):
        yield f"{number.name} leaves working files"
    present = contents(job.out)
    for name, content in present.items():
        if not _is_whole(name, content):
            yield f"half-written: {name}"
    if job.in_steps:
        return
    new = {name for name in expected if expected[name] != initial.get(name)}
    done = {name for name in new if present.get(name) == expected[name]}
    if done and done != new:
        yield f"only {len(done)} of {len(new)} outputs: {', '.join(sorted(done)[:5])}"
    others = [name for name in present if name not in done and present[name] != initial.get(name)]
    if others:
        yield f"neither old nor new: {', '.join(sorted(others)[:5])}"


def _is_whole(name: str, content: bytes) -> bool:
    if name.endswith(".json"):
        try:
            json.loads(content)
        except ValueError:
            return False
    if name.endswith(".png"):
        return content.endswith(b"IEND\xaeB`\x82")
    if name.endswith((".csv", ".txt", ".html", ".md")):
        return content.endswith(b"\n") or (name.endswith(".html") and b"</html>" in content[-20:])
    if name.endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            load(content)
        except SafetensorError:
            return False
    return bool(content)


def _differences(files: dict[str, bytes], expected: dict[str, bytes], when: str) -> Iterator[str]:
    for name in sorted({*files, *expected}):
        if files.get(name) != expected.get(name):
            how = "is missing" if name not in files else "is not expected" if name not in expected else "differs"
            yield f"{when}: {name} {how}"


_TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?")


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a result by name, times blanked; without logs of TensorBoard, which consist of times."""
    return {
        path.relative_to(out).as_posix(): _TIME.sub(b"TIME", path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts and not _is_working(path.relative_to(out))
    }


def _is_working(path: Path) -> bool:
    return any(part.endswith(".partial") or part == ".prepare" for part in path.parts)


def _log(job: Job) -> Path:
    return job.out.parent.parent / f"{job.name}.log"


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Path, size and time of the last change of every file and folder."""
    entries = []
    for path in [folder, *folder.rglob("*")]:
        with suppress(OSError):  # gone by now
            state = path.stat()
            entries.append((str(path), state.st_size, state.st_mtime_ns))
    return entries


def _wait_for_change(child: int, folder: Path, before: list[tuple[str, int, int]]) -> float:
    """Wait for the first sign of an output; its time."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and _lives(child):
        if _state(folder) != before:
            return time.monotonic()
        time.sleep(0.0005)
    if _state(folder) == before:
        raise RuntimeError(f"nothing is written to {folder}")
    return time.monotonic()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def kill_often(
    jobs: Sequence[Job], server: Commands, times: int, seed: int, tell: Callable[[str], None]
) -> Iterator[Kill]:
    """Kill each job so many times by each signal, at random moments of its writing."""
    for job in jobs:
        expected = uninterrupted(job, server)
        tell(f"{job.name}: writes {len(expected.files)} files in {expected.writing_s:.2f} s")
        rng = np.random.default_rng([seed, JOBS.index(job.name)])
        for number in SIGNALS:
            for _ in range(times):
                yield killed(job, expected, number, float(rng.random()), server)
