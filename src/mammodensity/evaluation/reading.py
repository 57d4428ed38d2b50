"""Reading text and CSV files of users, and what makes four numbers a row of scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from math import isfinite
from pathlib import Path

from mammodensity.errors import TableError

SUM_TOLERANCE = 1e-3
"""How far from 1 the scores of one row may sum."""


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises
    ------
    TableError
        The file cannot be opened, or is not UTF-8 text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"cannot read {path}: it is not UTF-8 text; save the table as UTF-8 CSV") from error
    if "\0" in text:
        raise TableError(f"cannot read {path}: it is a binary file, expected a text table")
    return text


def read_rows(
    path: Path, required: Collection[str], alternative: Collection[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header as (line number, fields) pairs, spaces around fields removed, empty lines skipped.

    Raises
    ------
    TableError
        The file cannot be read, is empty, lacks a ``required`` column (and one of the ``alternative`` ones), names a
        column twice, or has a row with another number of fields than the header.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, required, alternative)
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(header):
                raise TableError(
                    f"{path}, line {reader.line_num}: found {len(fields)} fields, "
                    f"expected {len(header)} as in the header"
                )
            rows.append((reader.line_num, dict(zip(header, (field.strip() for field in fields), strict=True))))
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error
    if not rows:
        raise TableError(f"{path} holds a header and no rows, expected at least one row")
    return rows


def score_problem(scores: Sequence[float]) -> str | None:
    """Say what is wrong with one row of scores, or None: each must be finite and not negative, all must sum to 1."""
    for score in scores:
        if not isfinite(score):
            return f"found a score of {score}, expected a number from 0 to 1"
        if score < 0:
            return f"found a negative score of {score:.6g}, expected a number from 0 to 1"
    total = sum(scores)
    if abs(total - 1) > SUM_TOLERANCE:
        return f"found scores that sum to {total:.6g}, expected 1 (within {SUM_TOLERANCE:g})"
    return None


def _check_header(path: Path, header: list[str], required: Collection[str], alternative: Collection[str]) -> None:
    if not any(header):
        raise TableError(f"{path} is empty, expected a CSV table with the columns {', '.join(required)}")
    absent = [name for name in required if name not in header]
    if absent and not (alternative and set(alternative) <= set(header)):
        raise TableError(
            f"{path}, line 1: missing column {', '.join(absent)}; found {', '.join(header)}, "
            f"expected at least {', '.join(required)}, separated by commas"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}, line 1: column {', '.join(twice)} appears more than once, expected each once")
