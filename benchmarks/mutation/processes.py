"""Bounded processes that judge cases: a crash, a hang or a demand for too much memory costs one case."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory

from mutation.cases import make_case
from mutation.judge import Judgement, judge
from mutation.sound import keep_phantoms

PATIENCE_S = 180.0
_FIRST_PATIENCE_S = 600.0  # the first case of a process waits for modules and phantoms
_MOST_MEMORY = 6 << 30
_FOLDERS = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parents[2] / "tests")]


@dataclass(frozen=True)
class Entry:
    """One judged case, as it is kept."""

    index: int
    kind: str
    change: str
    outcome: str
    text: str


def serve(phantoms: str) -> None:
    """Judge the cases whose numbers come on standard input, and answer a line each."""
    keep_phantoms(Path(phantoms))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        seed, index, real_sizes = (int(word) for word in line.split())
        answers.write(json.dumps(asdict(judged(seed, index, real_sizes=bool(real_sizes)))) + "\n")


def judged(seed: int, index: int, *, real_sizes: bool) -> Entry:
    """Make and judge a case in this process."""
    case = make_case(seed, index, real_sizes=real_sizes)
    with TemporaryDirectory(prefix="corpus-") as folder:
        try:
            found = judge(case, Path(folder))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            found = Judgement("crashed", f"{type(error).__name__} at {place}: {str(error)[:200]}")
    return Entry(index, case.kind, case.change[:300], found.outcome, found.text[:600].replace(folder, ""))


class _Process:
    """A process of its own that judges."""

    def __init__(self, phantoms: Path) -> None:
        program = (
            f"import sys; sys.path[:0] = {_FOLDERS!r}; from mutation.processes import serve; serve({str(phantoms)!r})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.patience = _FIRST_PATIENCE_S

    def judge(self, seed: int, index: int, real_sizes: bool) -> Entry | str:
        """The entry, or ``crashed`` or ``hung`` where the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{seed} {index} {int(real_sizes)}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return "crashed"
        ready, _, _ = select.select([self.process.stdout], [], [], self.patience)
        self.patience = PATIENCE_S
        line = self.process.stdout.readline() if ready else b""
        if line.endswith(b"\n"):
            return Entry(**json.loads(line))
        self.close()
        return "crashed" if ready else "hung"

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def judged_apart(
    seed: int, indices: Sequence[int], workers: int, phantoms: Path, *, real_sizes: bool = False
) -> Iterator[Entry]:
    """Judge cases in processes of their own, and yield them as they are done; phantoms are kept in a folder."""
    waiting: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[Entry | BaseException] = SimpleQueue()
    stop = threading.Event()
    for index in indices:
        waiting.put(index)

    def work() -> None:
        process = _Process(phantoms)
        try:
            while not stop.is_set():
                index = waiting.get_nowait()
                found = process.judge(seed, index, real_sizes)
                if isinstance(found, str):
                    case = make_case(seed, index, real_sizes=real_sizes)
                    code = process.process.returncode
                    text = f"no answer in {PATIENCE_S:.0f} s" if found == "hung" else f"process ended with {code}"
                    found = Entry(index, case.kind, case.change[:300], found, text)
                    process = _Process(phantoms)
                done.put(found)
        except Empty:
            pass
        except BaseException as error:
            done.put(error)
        finally:
            process.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(indices)))]
    try:
        for thread in threads:
            thread.start()
        for _ in indices:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
