"""Decoding in processes of its own, because decoders written in C abort on some damaged streams.

An abort, a hang or a demand for too much memory costs the damaged file, not the run. The processes are kept for later
images, one for each thread that decodes at a time, and end with this one.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import DicomError

_PROGRAM = Path(__file__).with_name("decoder_process.py")
_PATIENCE_S = 120.0
_PIPE_BYTES = 1 << 20  # of a pipe, so that both sides wait for each other less often; images are ten times as large
_MOST_ANSWER_BYTES = 1_000_000_000


class _Worker:
    """One decoding process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; the process ends when its input does
        )
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError, AttributeError):  # more than this user may have, or a system without
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[arg-type]

    def ask(self, fields: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for the answer; ``EOFError`` when the process has ended, ``TimeoutError``."""
        assert self.process.stdin is not None
        text = json.dumps({**fields, "bytes": len(content)}).encode()
        try:
            self.process.stdin.write(struct.pack("<Q", len(text)) + text + content)
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise EOFError from error
        deadline = time.monotonic() + _PATIENCE_S
        length = struct.unpack("<Q", self._read(8, deadline))[0]
        answer = json.loads(self._read(length, deadline))
        return answer, self._read(answer["bytes"], deadline)

    def _read(self, count: int, deadline: float) -> bytes:
        assert self.process.stdout is not None
        if count > _MOST_ANSWER_BYTES:
            raise EOFError
        handle, parts, left = self.process.stdout.fileno(), [], count
        while left:
            if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            part = os.read(handle, min(left, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()


_lock = threading.Lock()
_idle: list[_Worker] = []
_slots = threading.BoundedSemaphore(os.cpu_count() or 1)  # more at a time would only take memory
_owner = os.getpid()


def _take() -> _Worker:
    global _owner  # noqa: PLW0603  (processes belong to the process that started them, not to a fork of it)
    with _lock:
        if _owner != os.getpid():
            _idle.clear()
            _owner = os.getpid()
        return _idle.pop() if _idle else _Worker()


@atexit.register
def close_decoders() -> None:
    """End all idle decoding processes; new ones start when needed."""
    with _lock:
        if _owner == os.getpid():
            for worker in _idle:
                worker.close()
        _idle.clear()


def decode_apart(name: Path, fields: dict[str, Any], codestream: bytes) -> NDArray[Any]:
    """Decode a codestream in another process.

    Raises
    ------
    DicomError
        The decoder refuses it, aborts, or takes longer than anybody waits.
    """
    with _slots:
        answer, content = _asked(name, fields, codestream)
    if "error" in answer:
        raise DicomError(f"{name} has damaged pixels ({_short(answer['error'])}); copy it again", "damaged")
    return np.frombuffer(content, answer["dtype"]).reshape(answer["shape"])


def _asked(name: Path, fields: dict[str, Any], codestream: bytes) -> tuple[dict[str, Any], bytes]:
    worker = _take()
    try:
        answer, content = worker.ask(fields, codestream)
    except (EOFError, TimeoutError, ValueError) as error:
        worker.close()
        what = "takes too long" if isinstance(error, TimeoutError) else "fails"
        raise DicomError(f"{name} has damaged pixels (the decoder {what}); copy it again", "damaged") from error
    except BaseException:
        worker.close()  # interrupted half-way: its answer would be taken for that of the next image
        raise
    with _lock:
        _idle.append(worker)
    return answer, content


def _short(text: str) -> str:
    """The decoder's words after those of pydicom around them."""
    if "NoneType" in text:  # GDCM gives nothing, and pydicom stumbles over it
        return "the decoder gives up"
    return text.rpartition("all available plugins: ")[2][:120]
