"""DDSM: one ``.ics`` text file a case, with a density of 1 to 4 for the whole case.

The letter before a case (A, B, C, D) is the scanning site, not a density. The images are ``.LJPEG`` files, a lossless
JPEG that other tools must convert first; converted pictures are found by their names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mammodensity.data.picture_files import projection_in_name
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import NUMBERS, TableRow
from mammodensity.errors import LayoutError

TABLES = r".*\.ics"
_MEANING = {**NUMBERS, "0": None}  # 0: not rated
_CASE = re.compile(r"(?P<site>[A-D])[-_](?P<number>\d+)[-_](?P<part>\d+)", re.IGNORECASE)
_VIEW = re.compile(r"(?P<side>LEFT|RIGHT)_(?P<view>\w+)\s+LINES\b(?P<rest>.*)", re.IGNORECASE)
_SPACING = re.compile(r"RESOLUTION\s+([\d.]+)", re.IGNORECASE)

_Words = Mapping[str, tuple[int, str]]
"""Line and value of each word that begins a line of a case file."""


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the cases from their files."""
    tally = Tally()
    cases: dict[str, Path] = {}
    rows: list[ImageRow] = []
    for path in tables.named(TABLES):
        words, views = _read_case(path)
        match = _CASE.search(words["FILENAME"][1]) or _CASE.search(path.stem)
        case = f"{match['site'].upper()}_{match['number']}_{match['part']}" if match and views else None
        if case is None:
            tally.leave_out("not-a-case", "an .ics file without a DDSM case name and lines of images", 1, "files")
        elif case in cases:
            tally.leave_out("repeated-case", "another .ics file has this case", 1, "files")
        else:
            cases[case] = path
            rows += _rows(case, path, words, views, tally)
    if not rows:
        raise LayoutError(f"{tables.root} holds no DDSM case file (.ics); name its folder with --tables")
    return assemble("ddsm", cases.values(), rows, tally, per_breast=False)


def _read_case(path: Path) -> tuple[_Words, list[re.Match[str]]]:
    """The words of a case file and its lines of images."""
    words: dict[str, tuple[int, str]] = defaultdict(lambda: (0, ""))
    views = []
    for line, text in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if view := _VIEW.match(text.strip()):
            views.append(view)
        elif text.strip():
            word, *rest = text.split(maxsplit=1)
            words.setdefault(word.upper(), (line, rest[0].strip() if rest else ""))
    return words, views


def _rows(case: str, path: Path, words: _Words, views: list[re.Match[str]], tally: Tally) -> list[ImageRow]:
    line, density = words["DENSITY"]
    categories = TableRow(path, line, {"DENSITY": density}).density("DENSITY", _MEANING)
    tally.note("blank-density", f"DENSITY is {density or 'absent'}", not categories, "exams")
    facts = {"site": case[0], "age": words["PATIENT_AGE"][1], "vendor": words["DIGITIZER"][1]}
    return [
        ImageRow(
            exam_id=case,
            patient_id=case.rsplit("_", maxsplit=1)[0],  # the last number counts film sets of one patient
            image=f"{case}.{view['side'].upper()}_{view['view'].upper()}",
            laterality=view["side"][0].upper(),
            view=view["view"],
            categories=categories,
            facts={**facts, "spacing_um": spacing[1] if (spacing := _SPACING.search(view["rest"])) else ""},
        )
        for view in views
    ]


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find a converted picture named by case and view: ``A_0018_1.LEFT_CC.png``, ``A-0018-1.LEFT_CC.LJPEG.1.jpg``."""
    for spelling in (exam.exam_id, exam.exam_id.replace("_", "-")):
        for path in files.images_with_prefix(spelling):
            if projection_in_name(path.stem) == entry.projection:
                return path
    return None
