"""Words of tables: laterality, view, density and split, in the spellings that data sets use.

Tables as data sets publish them: read leniently where files vary, strictly where meaning is at stake.

Accepted: any order of columns, further columns, spaces, hyphens or underscores and small or capital letters in their
names, a byte order mark, Windows line ends, line breaks inside cells, empty trailing columns, blank lines, a title
above the header, and comma, semicolon, tab or bar between cells. Refused: a missing or repeated column that is needed,
and a row with more filled cells than the header has.
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
from mammodensity.terms import CATEGORIES, DensityCategory

LETTERS: Mapping[str, DensityCategory | None] = {category.value: category for category in CATEGORIES}
"""A to D."""

NUMBERS: Mapping[str, DensityCategory | None] = {str(category.index + 1): category for category in CATEGORIES}
"""1 to 4 for A to D, as ACR and DDSM number them."""

_BLANK = {"", "NAN", "NA", "N/A", "NONE", "NULL"}
_SIDES = {"R": "R", "RIGHT": "R", "L": "L", "LEFT": "L"}
_BOTH = {"B", "BOTH", "BILATERAL", "U", "UNKNOWN"}


def plain_number(cell: str) -> str:
    """A whole number without the ``.0`` that spreadsheets and pandas add.

    >>> plain_number("20586908.0"), plain_number(" 3 "), plain_number("3.5")
    ('20586908', '3', '3.5')
    """
    return re.sub(r"(?<=\d)\.0+$", "", cell.strip())


def years(cell: str) -> str:
    """An age as DICOM writes it (PS3.5 6.2, AS) in years; other cells as they are.

    >>> years("053Y"), years("61"), years("")
    ('53', '61', '')
    """
    age = re.fullmatch(r"0*(\d{1,3})Y", cell.strip())
    return age[1] if age else plain_number(cell)


def text_or_blank(cell: str) -> str:
    """A cell, with the words for nothing (NaN, NA, None) as nothing."""
    return "" if cell.strip().upper() in _BLANK else cell.strip()


def density_word(cell: str) -> str:
    """A density cell without what its spelling varies in.

    >>> density_word("Density_b"), density_word("2.0")
    ('B', '2')
    """
    return plain_number(re.sub(r"^DENSITY[\s_:-]*", "", cell.strip().upper()))


def laterality(row: TableRow, column: str) -> str | None:
    """``"R"`` or ``"L"``; None where the table says nothing, or both.

    Raises
    ------
    TableError
        Another word.
    """
    word = row[column].upper()
    if word in _BLANK | _BOTH:
        return None
    if word not in _SIDES:
        raise row.error(column, f"is {row[column]!r}; expected L or R, LEFT or RIGHT")
    return _SIDES[word]


def density(
    row: TableRow, column: str, meaning: Mapping[str, DensityCategory | None] = LETTERS
) -> frozenset[DensityCategory]:
    """The category of a cell as a set of one; empty where the cell is blank or means that nobody rated it.

    Raises
    ------
    TableError
        A word that ``meaning`` does not have.
    """
    word = density_word(row[column])
    if word in _BLANK:
        return frozenset()
    if word not in meaning:
        raise row.error(column, f"is {row[column]!r}; expected {', '.join(meaning)} or nothing")
    category = meaning[word]
    return frozenset() if category is None else frozenset([category])


def split(row: TableRow, column: str) -> str | None:
    """``train``, ``validation`` or ``test``; None where the cell is blank.

    Raises
    ------
    TableError
        Another word.
    """
    word = text_or_blank(row[column])
    found = split_word(word)
    if word and found is None:
        raise row.error(column, f"is {row[column]!r}; expected training, validation or test")
    return found


_DELIMITERS = ",;\t|"
_HEADER_WITHIN = 10  # rows; spreadsheets and their exports may have a title above the header
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # how .xlsx and the old .xls begin
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LARGEST_CELL = 1 << 20

Cells = tuple[int, list[str]]
"""A line number and its cells."""


@dataclass(frozen=True)
class TableRow:
    """One row, with the columns that were asked for under the names they were asked by; "" where a cell is blank."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def needed(self, column: str) -> str:
        """The cell, which must not be blank.

        Raises
        ------
        TableError
            It is blank.
        """
        if not self.cells[column]:
            raise self.error(column, "is empty")
        return self.cells[column]

    def error(self, column: str, message: str) -> TableError:
        """An error that names the place; it is returned, not raised."""
        return TableError(f"{self.path} line {self.line}: {column} {message}")


def plain_name(name: str) -> str:
    """A column name without what true tables vary in.

    >>> plain_name(" Breast_density "), plain_name("left or  right breast")
    ('breast density', 'left or right breast')
    """
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


def read_table(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[TableRow]:
    """The rows of a CSV table or spreadsheet, one at a time; rows with nothing in them are passed over.

    A column may be asked for under several names, ``"image laterality|laterality"``; rows have it under the first.

    Raises
    ------
    TableError
        Not a readable table, a column missing or repeated, too many cells in a row, or no rows at all.
    """
    empty = True
    for row in _rows(path, required, optional):
        empty = False
        yield row
    if empty:
        raise TableError(f"{path} has no rows under its header")


def has_columns(path: Path, required: Sequence[str]) -> bool:
    """Whether ``path`` is a table with these columns; its rows are not read."""
    try:
        _find_header(path, list(islice(_all_cells(path, required), _HEADER_WITHIN)), required)
    except TableError:
        return False
    return True


def find_tables(files: FileList, pattern: str, required: Sequence[str], what: str) -> list[Path]:
    """Tables with a known name, or, where none has it, any tables; of several those with the columns that are needed.

    Raises
    ------
    LayoutError
        There is none; ``what`` says in words what was looked for.
    """
    named = files.named(pattern)
    if not named:
        tables = files.named(r".*\.(csv|tsv|txt|xlsx?)")
        named = [path for path in tables if has_columns(path, required)]
    if not named:
        raise LayoutError(f"{files.root} holds no {what}; name its folder with --tables")
    return [path for path in named if has_columns(path, required)] or named


def find_table(files: FileList, pattern: str, required: Sequence[str], what: str) -> Path:
    """The one table that ``find_tables`` finds; copies of the same content count once.

    Raises
    ------
    LayoutError
        There is none, or several that differ.
    """
    first, *others = find_tables(files, pattern, required, what)
    for other in others:
        if other.read_bytes() != first.read_bytes():
            raise LayoutError(f"{first} and {other} are both a {what} and differ; name the folder of one with --tables")
    return first


def _rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[TableRow]:
    lines = _all_cells(path, required)
    top = list(islice(lines, _HEADER_WITHIN))
    start, header = _find_header(path, top, required)
    places = _places(path, header, required, optional)
    for line, cells in chain(top[start + 1 :], lines):
        if (row := _row(path, line, cells, header, places)) is not None:
            yield row


def _row(path: Path, line: int, cells: list[str], header: list[str], places: Mapping[str, int]) -> TableRow | None:
    if not any(cell.strip() for cell in cells):
        return None
    if any(cell.strip() for cell in cells[len(header) :]):
        raise TableError(f"{path} line {line}: {len(cells)} cells under {len(header)} columns; the row is out of step")
    found = {name: cells[place].strip() if 0 <= place < len(cells) else "" for name, place in places.items()}
    return TableRow(path, line, found)


def _find_header(path: Path, top: list[Cells], required: Sequence[str]) -> tuple[int, list[str]]:
    """Which of the first rows is the header, and its plain names."""
    best: tuple[int, str] = (-1, "")
    for place, (_, cells) in enumerate(top):
        names = [plain_name(cell) for cell in cells]
        missing = [column for column in required if not _matches(names, column)]
        if not missing:
            while names and not names[-1]:
                names.pop()
            return place, names
        if len(required) - len(missing) > best[0]:
            best = (len(required) - len(missing), missing[0])
    if not any(any(cells) for _, cells in top):
        raise TableError(f"{path} is empty; expected a table with the columns {_listed(required)}")
    raise TableError(f"{path} lacks the column {best[1].split('|')[0]}; expected {_listed(required)}")


def _places(path: Path, header: list[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Where each column stands; -1 for an optional one that is absent."""
    places = {}
    for column in (*required, *optional):
        found = _matches(header, column)
        if column in required and len(found) > 1 and "|" not in column:
            raise TableError(f"{path} has the column {column} {len(found)} times; keep one")
        places[column.split("|")[0]] = found[0] if found else -1
    return places


def _matches(header: list[str], column: str) -> list[int]:
    wanted = [plain_name(name) for name in column.split("|")]
    return [place for name in wanted for place, found in enumerate(header) if found == name]


def _listed(required: Sequence[str]) -> str:
    return ", ".join(column.split("|")[0] for column in required)


def _all_cells(path: Path, required: Sequence[str]) -> Iterator[Cells]:
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
        if start.startswith(_ZIP):
            yield from _sheet_cells(path, _new_sheet)
            return
        if start.startswith(_OLE):
            yield from _sheet_cells(path, _old_sheet)
            return
        encoding = "utf-16" if start.startswith(_UTF16) else "utf-8-sig"
        if encoding != "utf-16" and b"\0" in start:
            raise TableError(f"{path} is not a readable table; expected CSV text")
        delimiter = _delimiter(path, encoding, required)
        yield from _text_cells(path, encoding, delimiter)
    except FileNotFoundError as error:
        raise TableError(f"{path} not found; expected a table") from error
    except (UnicodeError, csv.Error, OSError) as error:
        raise TableError(f"{path} is not a readable table ({error}); expected CSV text") from error


def _delimiter(path: Path, encoding: str, required: Sequence[str]) -> str:
    """The delimiter under which the most needed columns are seen."""

    def seen(delimiter: str) -> int:
        top = islice(_text_cells(path, encoding, delimiter), _HEADER_WITHIN)
        rows = ([plain_name(cell) for cell in cells] for _, cells in top)
        return max((sum(bool(_matches(names, column)) for column in required) for names in rows), default=0)

    return max(_DELIMITERS, key=seen)


def _text_cells(path: Path, encoding: str, delimiter: str) -> Iterator[Cells]:
    # Other bytes than UTF-8 stand in columns of notes at most; what is needed here is plain ASCII.
    with path.open(newline="", encoding=encoding, errors="replace") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        while (cells := _next_row(reader)) is not None:
            yield reader.line_num, cells


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row, None at the end; the limit of a cell is the whole process's, and is left as it was."""
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _sheet_cells(path: Path, read: Callable[[Path], Iterable[Sequence[Any]]]) -> Iterator[Cells]:
    try:
        for line, cells in enumerate(read(path), start=1):
            yield line, [_sheet_text(cell) for cell in cells]
    except Exception as error:  # the readers raise whatever a damaged file makes them meet
        raise TableError(f"{path} is not a readable spreadsheet ({type(error).__name__}); save it as .csv") from error


def _new_sheet(path: Path) -> Iterable[Sequence[Any]]:
    """The rows of the first sheet of an .xlsx file."""
    import openpyxl

    with path.open("rb") as stream:  # a stream, as openpyxl refuses some suffixes
        yield from (
            openpyxl.load_workbook(stream, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True)
        )


def _old_sheet(path: Path) -> Iterable[Sequence[Any]]:
    """The rows of the first sheet of an .xls file."""
    import xlrd

    with path.open("rb") as stream, io.StringIO() as log:  # without a log xlrd prints its warnings
        sheet = xlrd.open_workbook(file_contents=stream.read(), logfile=log).sheet_by_index(0)
    yield from (sheet.row_values(line) for line in range(sheet.nrows))


def _sheet_text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell)
