"""Tables as data sets publish them, CSV or spreadsheet: lenient where files vary, strict where meaning is at stake.

Accepted: any order of columns, further columns, spaces, hyphens, underscores and capitals in their names, a byte order
mark, Windows line ends, line breaks inside cells, empty trailing columns, blank lines, a title above the header, and
comma, semicolon, tab or bar between cells. Refused: a needed column that is missing or repeated, a row with more filled
cells than the header, and unknown words for breast, density or split.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import split_word
from mammodensity.data.public.image_files import FileList
from mammodensity.errors import LayoutError, TableError
from mammodensity.inputs import MOST_TABLE_BYTES, open_file
from mammodensity.terms import CATEGORIES, DensityCategory

Meaning = Mapping[str, DensityCategory | None]
"""Category of each word for a density; None for words that mean not rated."""
LETTERS: Meaning = {category.value: category for category in CATEGORIES}
"""A to D."""
NUMBERS: Meaning = {str(category.index + 1): category for category in CATEGORIES}
"""1 to 4 for A to D, as ACR and DDSM number them."""

_BLANK = {"", "NAN", "NA", "N/A", "NONE", "NULL"}
_SIDES = {"R": "R", "RIGHT": "R", "L": "L", "LEFT": "L"}
_BOTH = {"B", "BOTH", "BILATERAL", "U", "UNKNOWN"}

_DELIMITERS = ",;\t|"
_HEADER_WITHIN = 10  # rows; spreadsheets and their exports may have a title above the header
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # first bytes of .xlsx and of the old .xls
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LARGEST_CELL = 1 << 20

Cells = tuple[int, list[str]]
"""A line number and the cells of the line."""


# One row


@dataclass(frozen=True)
class TableRow:
    """One row with the requested columns, under the names they were requested by; "" where a cell is blank.

    All methods raise ``TableError``, naming file, line and column, where a cell holds a word that is not expected.
    """

    path: Path
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def error(self, column: str, message: str) -> TableError:
        """An error that names the place; it is returned, not raised."""
        return TableError(f"{self.path} line {self.line}: {column} {message}")

    def needed(self, column: str) -> str:
        """The cell, which must not be blank."""
        if not self[column]:
            raise self.error(column, "is empty")
        return self[column]

    def identifier(self, column: str) -> str:
        """A name or number, which must not be blank."""
        return plain_number(self.needed(column))

    def text(self, column: str) -> str:
        """The cell, with words for nothing (NaN, NA, None) as nothing."""
        return "" if self[column].upper() in _BLANK else self[column]

    def number(self, column: str) -> str:
        """The text of a number; nothing where the cell says nothing."""
        return plain_number(self.text(column))

    def laterality(self, column: str) -> str | None:
        """``"R"`` or ``"L"``; None where the cell says nothing or both."""
        word = self[column].upper()
        if word in _BLANK | _BOTH:
            return None
        if word not in _SIDES:
            raise self.error(column, f"is {self[column]!r}; expected L or R, LEFT or RIGHT")
        return _SIDES[word]

    def density(self, column: str, meaning: Meaning = LETTERS) -> frozenset[DensityCategory]:
        """The category as a set of one; empty where the cell is blank or means not rated."""
        word = density_word(self[column])
        if word in _BLANK:
            return frozenset()
        if word not in meaning:
            raise self.error(column, f"is {self[column]!r}; expected {', '.join(meaning)} or nothing")
        category = meaning[word]
        return frozenset() if category is None else frozenset([category])

    def split(self, column: str) -> str | None:
        """``train``, ``validation`` or ``test``; None where the cell is blank."""
        word = self.text(column)
        split = split_word(word)
        if word and split is None:
            raise self.error(column, f"is {self[column]!r}; expected training, validation or test")
        return split


def plain_number(cell: str) -> str:
    """A whole number without the ``.0`` that spreadsheets and pandas add.

    >>> plain_number("20586908.0"), plain_number(" 3 "), plain_number("3.5")
    ('20586908', '3', '3.5')
    """
    return re.sub(r"(?<=\d)\.0+$", "", cell.strip())


def density_word(cell: str) -> str:
    """A density cell in its plainest spelling.

    >>> density_word("Density_b"), density_word("2.0")
    ('B', '2')
    """
    return plain_number(re.sub(r"^DENSITY[\s_:-]*", "", cell.strip().upper()))


def years(cell: str) -> str:
    """An age in years from DICOM's spelling (PS3.5 6.2, AS); other cells as they are.

    >>> years("053Y"), years("61"), years("")
    ('53', '61', '')
    """
    age = re.fullmatch(r"0*(\d{1,3})Y", cell.strip())
    return age[1] if age else plain_number(cell)


# Finding tables and reading them


def find_tables(files: FileList, pattern: str, required: Sequence[str], what: str) -> list[Path]:
    """Tables with a name of ``pattern``, or any tables if there are none; those with the ``required`` columns first.

    Raises
    ------
    LayoutError
        There is none; ``what`` names the table in words.
    """
    named = files.named(pattern)
    tables = named or files.named(r".*\.(csv|tsv|txt|xlsx?)")
    fitting = [path for path in tables if has_columns(path, required)]
    if not named and not fitting:
        raise LayoutError(f"{files.root} holds no {what}; name its folder with --tables")
    return fitting or named


def find_table(files: FileList, pattern: str, required: Sequence[str], what: str) -> Path:
    """The one table that ``find_tables`` finds; copies of the same content count once.

    Raises
    ------
    LayoutError
        There is none, or there are several that differ.
    """
    first, *others = find_tables(files, pattern, required, what)
    for other in others:
        if other.read_bytes() != first.read_bytes():
            raise LayoutError(f"{first} and {other} are both a {what} and differ; name the folder of one with --tables")
    return first


def has_columns(path: Path, required: Sequence[str]) -> bool:
    """True when ``path`` is a table with these columns; only its first rows are read."""
    try:
        _find_header(path, list(islice(_all_cells(path, required), _HEADER_WITHIN)), required)
    except TableError:
        return False
    return True


def read_table(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[TableRow]:
    """Rows of a CSV table or spreadsheet, one at a time, without blank ones.

    A column may have several names, ``"image laterality|laterality"``; rows hold it under the first.

    Raises
    ------
    TableError
        Not a readable table, a column missing or repeated, too many cells in a row, or no rows at all.
    """
    lines = _all_cells(path, required)
    top = list(islice(lines, _HEADER_WITHIN))
    start, header = _find_header(path, top, required)
    places = _places(path, header, required, optional)
    empty = True
    for line, cells in chain(top[start + 1 :], lines):
        if any(cell.strip() for cell in cells[len(header) :]):
            raise TableError(
                f"{path} line {line}: {len(cells)} cells under {len(header)} columns; the row is out of step"
            )
        if any(cell.strip() for cell in cells):
            empty = False
            filled = {name: cells[at].strip() if 0 <= at < len(cells) else "" for name, at in places.items()}
            yield TableRow(path, line, filled)
    if empty:
        raise TableError(f"{path} has no rows under its header")


def _find_header(path: Path, top: list[Cells], required: Sequence[str]) -> tuple[int, list[str]]:
    """Find the header among the first rows: its index and its plain names."""
    fewest: list[str] = list(required)
    for place, (_, cells) in enumerate(top):
        names = [plain_name(cell) for cell in cells]
        missing = [column for column in required if not _matches(names, column)]
        if not missing:
            while names and not names[-1]:
                names.pop()
            return place, names
        fewest = min(fewest, missing, key=len)
    expected = ", ".join(_first_name(column) for column in required)
    if not any(any(cells) for _, cells in top):
        raise TableError(f"{path} is empty; expected a table with the columns {expected}")
    raise TableError(f"{path} lacks the column {_first_name(fewest[0])}; expected {expected}")


def _places(path: Path, header: list[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Position of each column; -1 for an optional one that is absent."""
    places = {}
    for column in (*required, *optional):
        matches = _matches(header, column)
        if column in required and len(matches) > 1 and "|" not in column:
            raise TableError(f"{path} has the column {column} {len(matches)} times; keep one")
        places[_first_name(column)] = matches[0] if matches else -1
    return places


def _matches(header: list[str], column: str) -> list[int]:
    """Positions of a column, in the order of its names."""
    return [at for name in column.split("|") for at, other in enumerate(header) if other == plain_name(name)]


def _first_name(column: str) -> str:
    return column.split("|", maxsplit=1)[0]


def plain_name(name: str) -> str:
    """A column name in its plainest spelling.

    >>> plain_name(" Breast_density "), plain_name("left or  right breast")
    ('breast density', 'left or right breast')
    """
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


# Cells of text files and spreadsheets


def _all_cells(path: Path, required: Sequence[str]) -> Iterator[Cells]:
    try:
        with open_file(path, MOST_TABLE_BYTES) as stream:
            start = stream.read(4096)
        if start.startswith((_ZIP, _OLE)):
            yield from _sheet_cells(path, _new_sheet if start.startswith(_ZIP) else _old_sheet)
            return
        encoding = "utf-16" if start.startswith(_UTF16) else "utf-8-sig"
        if encoding != "utf-16" and b"\0" in start:
            raise TableError(f"{path} is not a readable table; expected CSV text")
        yield from _text_cells(path, encoding, _delimiter(path, encoding, required))
    except FileNotFoundError as error:
        raise TableError(f"{path} not found; expected a table") from error
    except (UnicodeError, csv.Error, OSError) as error:
        raise TableError(f"{path} is not a readable table ({error}); expected CSV text") from error


def _delimiter(path: Path, encoding: str, required: Sequence[str]) -> str:
    """The delimiter that gives a row with the most needed columns."""

    def columns(delimiter: str) -> int:
        top = islice(_text_cells(path, encoding, delimiter), _HEADER_WITHIN)
        rows = ([plain_name(cell) for cell in cells] for _, cells in top)
        return max((sum(bool(_matches(names, column)) for column in required) for names in rows), default=0)

    return max(_DELIMITERS, key=columns)


def _text_cells(path: Path, encoding: str, delimiter: str) -> Iterator[Cells]:
    # Bytes that are not UTF-8 occur in columns of notes at most; the needed columns are plain ASCII.
    with path.open(newline="", encoding=encoding, errors="replace") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        while (cells := _next_row(reader)) is not None:
            yield reader.line_num, cells


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row, None at the end. The limit of a cell belongs to the whole process and is put back."""
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _sheet_cells(path: Path, read: Callable[[Path], Iterable[Sequence[Any]]]) -> Iterator[Cells]:
    try:
        for line, cells in enumerate(read(path), start=1):
            yield line, [_sheet_text(cell) for cell in cells]
    except Exception as error:  # the libraries raise errors of any kind on a damaged file
        raise TableError(f"{path} is not a readable spreadsheet ({type(error).__name__}); save it as .csv") from error


def _new_sheet(path: Path) -> Iterable[Sequence[Any]]:
    """Rows of the first sheet of an .xlsx file."""
    import openpyxl

    with path.open("rb") as stream:  # a stream, because openpyxl refuses some suffixes
        yield from openpyxl.load_workbook(stream, read_only=True, data_only=True).worksheets[0].values


def _old_sheet(path: Path) -> Iterable[Sequence[Any]]:
    """Rows of the first sheet of an .xls file."""
    import xlrd

    with path.open("rb") as stream, io.StringIO() as log:  # without a log xlrd prints its warnings
        sheet = xlrd.open_workbook(file_contents=stream.read(), logfile=log).sheet_by_index(0)
    yield from (sheet.row_values(line) for line in range(sheet.nrows))


def _sheet_text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell)
