"""Ctrl-C and SIGTERM, which both stop a command by ``KeyboardInterrupt``, but never in the middle of an import.

An exception that is raised while a module loads leaves the module half-made, and libraries that load parts of
themselves on demand turn it into errors of their own.
"""

from __future__ import annotations

import signal
from types import FrameType

_IMPORTS = "<frozen importlib._bootstrap>"
_AGAIN_S = 0.05


def stop_on_signals() -> None:
    """Let both signals stop the main thread, as soon as it loads no module."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell lets its background jobs ignore it
        signal.signal(signal.SIGINT, _stop)


def ignore_signals() -> None:
    """Let a command that is done end with its own exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _stop(_number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
            return
        frame = frame.f_back
    raise KeyboardInterrupt
