"""DDSM: one ``.ics`` text file a case, density 1 to 4 for the whole case.

The letter before a case (A, B, C, D) is the scanning site, not a density. The images are in a lossless JPEG of their
own (``.LJPEG``) that has to be converted by other tools first; converted pictures are found by their names.
"""

from __future__ import annotations

import re
from pathlib import Path

from mammodensity.errors import LayoutError, TableError
from mammodensity.ingest.names import projection_in_name
from mammodensity.ingest.public.assemble import assemble
from mammodensity.ingest.public.exams import ImageEntry, ImageRow, PublicData, PublicExam, Tally
from mammodensity.ingest.public.files import FileList
from mammodensity.ingest.public.tables import TableRow
from mammodensity.ingest.public.values import NUMBERS, density

TABLES = r".*\.ics"
_MEANING = {**NUMBERS, "0": None}  # a case that nobody rated
_CASE = re.compile(r"(?P<site>[A-D])[-_](?P<number>\d+)[-_](?P<part>\d+)", re.IGNORECASE)
_VIEW = re.compile(r"(?P<side>LEFT|RIGHT)_(?P<view>\w+)\s+LINES\b(?P<rest>.*)", re.IGNORECASE)


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the cases; ``data`` is not needed."""
    found = tables.named(TABLES)
    if not found:
        raise LayoutError(f"{tables.root} holds no DDSM case file (.ics); name its folder with --tables")
    cases: dict[str, Path] = {}
    rows = []
    for path in found:
        made = _case(path)
        first = cases.setdefault(made[0].exam_id, path)
        if first == path:
            rows += made
        elif first.read_bytes() != path.read_bytes():
            raise LayoutError(f"{first} and {path} describe one case and differ; keep one")
    return assemble("ddsm", list(cases.values()), rows, Tally(), per_breast=False)


def _case(path: Path) -> list[ImageRow]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    words: dict[str, tuple[int, str]] = {}
    views = []
    for line, text in enumerate(lines, start=1):
        if match := _VIEW.match(text.strip()):
            views.append(match)
        elif text.strip():
            word, *rest = text.split(maxsplit=1)
            words.setdefault(word.upper(), (line, rest[0].strip() if rest else ""))
    case = _CASE.search(words.get("FILENAME", (0, ""))[1]) or _CASE.search(path.stem)
    if case is None:
        raise TableError(f"{path}: no case is named; expected a line such as filename A-0018-1")
    if "DENSITY" not in words:
        raise TableError(f"{path} lacks the line DENSITY; expected a DDSM case file")
    if not views:
        raise TableError(f"{path} names no image; expected lines such as LEFT_CC LINES 4608 PIXELS_PER_LINE 3048")
    name = f"{case['site'].upper()}_{case['number']}_{case['part']}"
    found = density(TableRow(path, words["DENSITY"][0], {"DENSITY": words["DENSITY"][1]}), "DENSITY", _MEANING)
    facts = {
        "site": case["site"].upper(),
        "age": words.get("PATIENT_AGE", (0, ""))[1],
        "vendor": words.get("DIGITIZER", (0, ""))[1],
    }
    return [
        ImageRow(
            exam_id=name,
            patient_id=name.rsplit("_", maxsplit=1)[0],  # the last number counts film sets of one patient
            image=f"{name}.{match['side'].upper()}_{match['view'].upper()}",
            laterality=match["side"][0].upper(),
            view=match["view"],
            densities=found,
            facts={**facts, **_spacing(match["rest"])},
        )
        for match in views
    ]


def _spacing(rest: str) -> dict[str, str]:
    match = re.search(r"RESOLUTION\s+([\d.]+)", rest, re.IGNORECASE)
    return {"spacing_um": match[1]} if match else {}


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """A converted picture whose name has case and view: ``A_0018_1.LEFT_CC.png``, ``A-0018-1.LEFT_CC.LJPEG.1.jpg``."""
    for spelling in (exam.exam_id, exam.exam_id.replace("_", "-")):
        for path in files.images_with_prefix(spelling):
            if projection_in_name(path.stem) == entry.projection:
                return path
    return None
