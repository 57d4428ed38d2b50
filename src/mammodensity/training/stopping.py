"""Long runs stop between steps, when they are asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests(*, once: bool = False) -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C or SIGTERM, so that a run stops between steps; a second one stops at once.

    With ``once`` it does not: ``torchrun`` passes on what the terminal has told its processes already.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach only the main thread
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and not once:
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
