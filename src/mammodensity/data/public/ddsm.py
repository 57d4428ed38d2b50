"""DDSM: one ``.ics`` text file a case, density 1 to 4 for the whole case.

The letter before a case (A, B, C, D) is the scanning site, not a density. The images are in a lossless JPEG of their
own (``.LJPEG``) that has to be converted by other tools first; converted pictures are found by their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mammodensity.data.picture_files import projection_in_name
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import NUMBERS, TableRow, density
from mammodensity.errors import LayoutError

TABLES = r".*\.ics"
_MEANING = {**NUMBERS, "0": None}  # a case that nobody rated
_CASE = re.compile(r"(?P<site>[A-D])[-_](?P<number>\d+)[-_](?P<part>\d+)", re.IGNORECASE)
_VIEW = re.compile(r"(?P<side>LEFT|RIGHT)_(?P<view>\w+)\s+LINES\b(?P<rest>.*)", re.IGNORECASE)


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the cases; ``data`` is not needed."""
    found = tables.named(TABLES)
    left_out, notes = Tally(), Tally()
    cases: dict[str, Path] = {}
    rows: list[ImageRow] = []
    for path in found:
        case = _read_case(path)
        if case is None:
            left_out.add("not-a-case", "an .ics file without a DDSM case name and lines of images", 1, "files")
        elif case.name in cases:
            left_out.add("repeated-case", "another .ics file has this case", 1, "files")
        else:
            cases[case.name] = path
            rows += _rows(case)
            notes.add("blank-density", f"DENSITY is {case.density[1] or 'absent'}", not rows[-1].densities, "exams")
    if not rows:
        raise LayoutError(f"{tables.root} holds no DDSM case file (.ics); name its folder with --tables")
    return assemble("ddsm", list(cases.values()), rows, left_out, notes, per_breast=False)


@dataclass(frozen=True)
class _Case:
    """What one case file says."""

    path: Path
    name: str
    density: tuple[int, str]
    """Line and word; line 0 and nothing where it is absent."""
    facts: dict[str, str]
    views: list[re.Match[str]]


def _read_case(path: Path) -> _Case | None:
    words: dict[str, tuple[int, str]] = {}
    views = []
    for line, text in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if match := _VIEW.match(text.strip()):
            views.append(match)
        elif text.strip():
            word, *rest = text.split(maxsplit=1)
            words.setdefault(word.upper(), (line, rest[0].strip() if rest else ""))
    nothing = (0, "")
    match = _CASE.search(words.get("FILENAME", nothing)[1]) or _CASE.search(path.stem)
    if match is None or not views:
        return None
    site = match["site"].upper()
    facts = {
        "site": site,
        "age": words.get("PATIENT_AGE", nothing)[1],
        "vendor": words.get("DIGITIZER", nothing)[1],
    }
    return _Case(path, f"{site}_{match['number']}_{match['part']}", words.get("DENSITY", nothing), facts, views)


def _rows(case: _Case) -> list[ImageRow]:
    line, word = case.density
    return [
        ImageRow(
            exam_id=case.name,
            patient_id=case.name.rsplit("_", maxsplit=1)[0],  # the last number counts film sets of one patient
            image=f"{case.name}.{view['side'].upper()}_{view['view'].upper()}",
            laterality=view["side"][0].upper(),
            view=view["view"],
            densities=density(TableRow(case.path, line, {"DENSITY": word}), "DENSITY", _MEANING),
            facts={**case.facts, **_spacing(view["rest"])},
        )
        for view in case.views
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
