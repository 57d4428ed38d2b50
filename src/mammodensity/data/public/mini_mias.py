"""mini-MIAS: ``Info.txt``, a line an abnormality: ``mdb001 G CIRC B 535 425 197``.

Tissue is F, G or D. These are categories of their own, not A to D. All images are MLO and stored mirrored. Two numbers
in a row are one woman; the odd number is the left breast and the even one the right, although the data set's own note
says otherwise.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.errors import LayoutError, TableError
from mammodensity.terms import TISSUE, Category

TABLES = r"info.*\.txt"
_LINE = re.compile(r"mdb(?P<number>\d{3})\w*\s+(?P<tissue>\S+)\s+(?P<rest>[A-Z]{4}\b.*)", re.IGNORECASE)
_BEGINNING = re.compile(r"mdb\d{3}\w*\s+\S+", re.IGNORECASE)


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the pairs of images from the table, or from the archive's README, which holds the same lines."""
    named = tables.named(TABLES)
    table = next((path for path in [*named, *tables.named(r"readme.*")] if _lines(path)), None)
    if table is None and named:
        raise TableError(f"{named[0]} has no line such as mdb001 G CIRC B 535 425 197; copy it again")
    if table is None:
        raise LayoutError(f"{tables.root} holds no mini-MIAS table Info.txt; name its folder with --tables")
    rows = [_row(table, line, text) for line, text in _lines(table)]
    tally = Tally()
    return assemble("mini-mias", [table], _without_contradictions(rows, tally), tally)


def _without_contradictions(rows: list[ImageRow], tally: Tally) -> list[ImageRow]:
    """The rows, without tissue where those of one image differ in it."""
    tissues: dict[str, set[Category]] = defaultdict(set)
    for row in rows:
        tissues[row.image] |= row.categories
    differing = {image for image, categories in tissues.items() if len(categories) > 1}
    text = "the rows of the image differ in tissue, so it has none"
    tally.note("contradicting-tissue", text, len(differing), "images")
    return [replace(row, categories=frozenset()) if row.image in differing else row for row in rows]


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that begin with the name of an image and a word; a README has prose around them."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(number, text.strip()) for number, text in enumerate(lines, 1) if _BEGINNING.match(text.strip())]


def _row(path: Path, line: int, text: str) -> ImageRow:
    match = _LINE.match(text)
    if match is None:
        raise TableError(f"{path} line {line}: {text!r} is no line such as mdb001 G CIRC B 535 425 197")
    tissue = TISSUE.named(match["tissue"])
    if tissue is None:
        raise TableError(f"{path} line {line}: tissue is {match['tissue']!r}; expected F, G or D")
    number = int(match["number"])
    if not number:
        raise TableError(f"{path} line {line}: there is no image mdb000; images are numbered from 001")
    odd = number if number % 2 else number - 1
    return ImageRow(
        exam_id=f"mdb{odd:03d}-{odd + 1:03d}",
        patient_id=f"mdb{odd:03d}-{odd + 1:03d}",
        image=f"mdb{number:03d}",
        laterality="L" if number % 2 else "R",
        view="MLO",
        categories=frozenset([tissue]),
        mirrored=True,
    )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``mdb001.pgm``, or a converted picture of that name."""
    return next(iter(files.images_with_stem(entry.image)), None)
