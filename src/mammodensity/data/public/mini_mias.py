"""mini-MIAS: ``Info.txt``, a line an abnormality: ``mdb001 G CIRC B 535 425 197``.

Tissue is F, G or D: three categories, none of A to D, and they stay what they are. All images are MLO. Two
numbers in a row are one woman; the odd number is the left breast and the even one the right, although the data set's
own note says otherwise, and every image is stored as in a mirror.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.errors import LayoutError, TableError
from mammodensity.terms import TISSUE_CATEGORIES, TissueCategory

TABLES = r"info.*\.txt"
_LINE = re.compile(r"mdb(?P<number>\d{3})\w*\s+(?P<tissue>\S+)\s+(?P<rest>[A-Z]{4}\b.*)", re.IGNORECASE)
_BEGINNING = re.compile(r"mdb\d{3}\w*\s+\S+", re.IGNORECASE)


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the pairs of images; ``data`` is not needed."""
    # The archive's own README holds the same lines as Info.txt.
    found = [path for path in [*tables.named(TABLES), *tables.named(r"readme.*")] if _lines(path)]
    if not found:
        if there := tables.named(TABLES):
            raise TableError(f"{there[0]} has no line such as mdb001 G CIRC B 535 425 197; copy it again")
        raise LayoutError(f"{tables.root} holds no mini-MIAS table Info.txt; name its folder with --tables")
    rows = [_row(found[0], line, text) for line, text in _lines(found[0])]
    notes = Tally()
    return assemble("mini-mias", [found[0]], _without_contradictions(rows, notes), Tally(), notes)


def _without_contradictions(rows: list[ImageRow], notes: Tally) -> list[ImageRow]:
    """Rows without tissue where those of one image differ in it; how many images that are is noted."""
    said: dict[str, set[TissueCategory | None]] = defaultdict(set)
    for row in rows:
        said[row.image].add(row.tissue)
    torn = {image for image, tissues in said.items() if len(tissues) > 1}
    notes.add("contradicting-tissue", "the rows of the image differ in tissue, so it has none", len(torn))
    return [replace(row, tissue=None) if row.image in torn else row for row in rows]


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that begin with an image's name and go on; a README has prose around them."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(number, text.strip()) for number, text in enumerate(lines, 1) if _BEGINNING.match(text.strip())]


def _row(path: Path, line: int, text: str) -> ImageRow:
    match = _LINE.match(text)
    if match is None:
        raise TableError(f"{path} line {line}: {text!r} is no line such as mdb001 G CIRC B 535 425 197")
    tissue = match["tissue"].upper()
    if tissue not in TISSUE_CATEGORIES:
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
        tissue=TissueCategory(tissue),
        mirrored=True,
    )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """``mdb001.pgm``, or a converted picture of that name."""
    return next(iter(files.images_with_stem(entry.image)), None)
