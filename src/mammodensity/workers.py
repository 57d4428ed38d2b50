"""Work shared among processes: each job once, Ctrl-C ends all of it, the cores divided among them.

Where tensors are computed. A device asked for by name and absent is an error; only ``auto`` chooses.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from mammodensity.errors import DeviceError, OutputError, shortage

if TYPE_CHECKING:
    import torch

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Progress = Callable[[int, int], None]
"""Called with how many steps are done and how many there are."""

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Place:
    """The place of this process among those that ``torchrun``, or another starter of its kind, started together."""

    rank: int
    size: int
    on_machine: int
    """Its number among the processes on its machine."""


def launched() -> Place | None:
    """Find the place of this process among those started together; None where it is alone."""
    settings = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")]
    if not (settings[3] and all(number.isdecimal() for number in settings[:3])):
        return None
    place = Place(*(int(number) for number in settings[:3]))
    return place if place.size > 1 else None


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_told() -> int:
    """Number of threads that ``OMP_NUM_THREADS`` allows a library; 0 where it says nothing."""
    setting = os.environ.get(_THREADS[0], "").partition(",")[0].strip()
    return int(setting) if setting.isdecimal() else 0


def in_workers(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, *, threads: int = 1
) -> Generator[tuple[Job, Result], None, None]:
    """Yield each job with its result, in the order they are done; few jobs wait at a time, however many there are.

    Libraries may take so many ``threads`` in each worker.

    Close the generator to end the workers: what they were doing is dropped.

    Raises
    ------
    OutputError
        A worker died, or none can be started.
    """
    strangers = set(multiprocessing.active_children())
    pool = _new_pool(workers)
    running: dict[Future[Result], Job] = {}
    waiting = iter(jobs)
    try:
        with quiet_start(threads):
            for job in waiting:
                running[pool.submit(function, job)] = job
                if len(running) == workers:
                    break
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                finished = running.pop(done), done.result()
                for job in waiting:
                    running[pool.submit(function, job)] = job
                    break
                yield finished
    except BrokenProcessPool as error:
        raise OutputError(
            "a worker process died, perhaps for lack of memory; use fewer workers or a smaller size"
        ) from error
    finally:
        if running:  # stopped early: a large image takes too long to wait for
            for worker in set(multiprocessing.active_children()) - strangers:
                worker.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _new_pool(workers: int) -> ProcessPoolExecutor:
    try:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker)
    except OSError as error:
        if error.errno != errno.ENOSPC and shortage(error):
            raise
        raise OutputError(
            f"cannot start several processes: {error.strerror or error}; they share a few bytes in /dev/shm, free some "
            "space there or work in one process"
        ) from error


@contextmanager
def quiet_start(threads: int = 1) -> Iterator[None]:
    """Start worker processes with so many threads for each library, and deaf to Ctrl-C from their first moment."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))  # read by the workers when they load numpy
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def start_worker(_number: int = 0) -> None:
    """Prepare a worker process: leave Ctrl-C to its parent, and end when that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed can tell nobody: wait for its end, and end at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def find_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is the first GPU if there is one, else the CPU.

    Raises
    ------
    DeviceError
        This machine does not have it.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cpu" and device.index:
        raise DeviceError(f"device {name} was asked for, but there is one cpu; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise DeviceError(f"device {name} was asked for, but this machine has {gpus} GPUs; use --device cpu or auto")
    return device
