"""Reading what users name: regular files of bounded size, JSON without traps, plain decimal numbers.

Errors are ``OSError`` and ``ValueError``, which each caller turns into one of the tree with advice of its own.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from mammodensity.errors import MammodensityError

MOST_JSON_BYTES = 256_000_000
"""Far above the largest file of ours: the contours of some thousand explained exams."""
MOST_TABLE_BYTES = 2_000_000_000
"""A score table of two million exams."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LONGEST_INTEGER = 18  # digits; more neither fit 64 bits nor count anything here
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def open_file(path: Path, most_bytes: int) -> BufferedReader:
    """Open a regular file for reading.

    Raises
    ------
    OSError
        It cannot be opened, is too large, or is a pipe or device, which could keep the program waiting for ever.
    """
    stream = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  (Path.open takes no opener)
    state = os.fstat(stream.fileno())
    if stat.S_ISREG(state.st_mode) and state.st_size <= most_bytes:
        return stream
    stream.close()
    if stat.S_ISREG(state.st_mode):
        sizes = f"{state.st_size / 1e6:,.0f} MB, expected at most {most_bytes / 1e6:,.0f} MB"
        raise OSError(errno.EFBIG, f"the file is too large: {sizes}", str(path))
    raise OSError(errno.EINVAL, "it is no regular file, but perhaps a pipe or a device", str(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a regular file; raise ``OSError`` as `open_file` does."""
    with open_file(path, most_bytes) as stream:
        return stream.read(os.fstat(stream.fileno()).st_size)


def read_json(path: Path) -> Any:
    """Read a JSON file; raise ``OSError`` as `open_file` does, or ``ValueError`` as `parse_json` does."""
    return parse_json(read_file(path, MOST_JSON_BYTES))


def read_entries(path: Path, error: type[MammodensityError], advice: str) -> dict[str, Any]:
    """Read a JSON file of named entries; raise ``error`` with ``advice`` where it is damaged."""
    try:
        entries = read_json(path)
    except (OSError, ValueError) as cause:
        raise error(f"{path} is damaged: it is no readable JSON; {advice}") from cause
    if not isinstance(entries, dict):
        raise error(f"{path} is damaged: expected named entries; {advice}")
    return entries


def parse_json(content: bytes | str) -> Any:
    """Parse JSON strictly.

    Raises
    ------
    ValueError
        It is no JSON text in UTF-8, is nested too deeply, names an entry twice, or holds a number that is not finite or
        text that is not Unicode.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_entries,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if _HALF_CHARACTER.search(text.encode()):
        json.dumps(value, ensure_ascii=False).encode()  # raises ValueError for half of a character
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"found a whole number of {len(text)} digits, expected at most {_LONGEST_INTEGER}")
    return int(text)


def _entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in entries if names.count(name) > 1)
        raise ValueError(f"the entry {twice[:40]!r} is there twice")
    return entries


def as_number(text: str) -> float | None:
    """The finite number that a text says in plain decimal notation, or None.

    Python's ``float`` also takes underscores, digits of other scripts and words for what is not a number.

    >>> as_number("52.5"), as_number("-1e-3"), as_number("GE"), as_number("nan"), as_number("0.2_5"), as_number("1e999")
    (52.5, -0.001, None, None, None, None)
    """
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None
