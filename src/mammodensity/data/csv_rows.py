"""Read the package's own CSV tables: score tables, labels, manifests, results and training histories.

These tables are read strictly, with one set of messages. Tables as public data sets publish them vary and are read by
`mammodensity.data.public.spreadsheets`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammodensity.errors import TableError
from mammodensity.inputs import MOST_TABLE_BYTES, read_file
from mammodensity.outputs import unguarded


@dataclass(frozen=True)
class CsvRow:
    """One row of a table: ``row[column]`` is the text of a cell, blank where the table lacks the column."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    def needed(self, column: str, meaning: str) -> str:
        """Return a cell that must not be blank; ``meaning`` says in words what belongs there.

        Raises
        ------
        TableError
            It is blank.
        """
        if not self[column]:
            raise self.error(f"found a blank {column}, expected {meaning}")
        return self[column]

    def error(self, text: str) -> TableError:
        """Make an error that names file and line."""
        return TableError(f"{self.path}, line {self.line}: {text}")


@dataclass(frozen=True)
class CsvTable:
    """A table with a header and at least one row. It iterates over its rows."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]

    def __iter__(self) -> Iterator[CsvRow]:
        return iter(self.rows)


def read_csv(path: Path, required: Collection[str] = (), alternative: Collection[str] = ()) -> CsvTable:
    """Read a CSV file with a header. Spaces around cells are removed and empty lines skipped.

    Raises
    ------
    TableError
        The file cannot be read, is empty, lacks a ``required`` column (and one of the ``alternative`` columns), names a
        column twice, has a row with another number of cells than the header, or has no row.
    """
    path = Path(path)
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, required, alternative)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                texts = (unguarded(cell.strip()) for cell in cells)
                row = CsvRow(path, reader.line_num, dict(zip(header, texts, strict=False)))
                if len(cells) != len(header):
                    raise row.error(f"found {len(cells)} fields, expected {len(header)} as in the header")
                rows.append(row)
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error
    if not rows:
        raise TableError(f"{path} holds a header and no rows, expected at least one row")
    return CsvTable(path, tuple(header), tuple(rows))


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises
    ------
    TableError
        It is no ordinary file, cannot be opened, or is not UTF-8 text.
    """
    if path.exists() and not path.is_file():  # a pipe may have no writer, and a device no end
        raise TableError(f"cannot read {path}: it is no ordinary file, expected a text table")
    try:
        text = read_file(path, MOST_TABLE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"cannot read {path}: it is not UTF-8 text; save the table as UTF-8 CSV") from error
    if "\0" in text:
        raise TableError(f"cannot read {path}: it is a binary file, expected a text table")
    return text


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
