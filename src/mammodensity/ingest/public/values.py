"""Words of tables: laterality, view, density and split, in the spellings that data sets use."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mammodensity.ingest.manifest import split_word
from mammodensity.ingest.public.tables import TableRow
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
