"""Ctrl-C and SIGTERM: they stop a command, end a training between two steps, or wait while files are put in place.

They stop a command by ``KeyboardInterrupt``, but never in the middle of an import: an exception that is raised while a
module loads leaves the module half-made, and libraries that load parts of themselves on demand turn it into errors of
their own.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_IMPORTS = "<frozen importlib._bootstrap>"
_AGAIN_S = 0.05
_STOPS = (signal.SIGINT, signal.SIGTERM)


def stop_on_signals() -> None:
    """Let both signals stop the main thread, as soon as it loads no module."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell lets its background jobs ignore it
        signal.signal(signal.SIGINT, _stop)


def ignore_signals() -> None:
    """Let a process that is done end with its own exit code, whoever tells it to end again."""
    if _in_main_thread():
        for number in (*_STOPS, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_requests(*, once: bool = False) -> Iterator[threading.Event]:
    """Set an event at the first signal, so that a run stops between steps; a second one stops at once.

    With ``once``, further signals do nothing: ``torchrun`` repeats what the terminal has sent its processes already.
    """
    stop = threading.Event()
    if not _in_main_thread():
        yield stop
        return

    def request(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and not once:
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, request) for number in _STOPS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stops_wait() -> Iterator[None]:
    """Let both signals wait until the end of the block."""
    came: list[int] = []
    before: dict[int, Any] = {}
    if _in_main_thread():
        for number in _STOPS:
            before[number] = signal.signal(number, lambda number, _: came.append(number)) or signal.SIG_DFL
    try:
        yield
    finally:
        for heard, handler in before.items():
            signal.signal(heard, handler)
    for heard in came:
        signal.raise_signal(heard)


def _in_main_thread() -> bool:
    """Signals reach only the main thread, and only it may handle them."""
    return threading.current_thread() is threading.main_thread()


def _stop(_number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
            return
        frame = frame.f_back
    raise KeyboardInterrupt
