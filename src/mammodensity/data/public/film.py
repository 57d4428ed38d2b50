"""Data sets of digitised film: CBIS-DDSM, DDSM and mini-MIAS."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from mammodensity.data.picture_files import projection_in_name
from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import NUMBERS, TableRow, find_tables, read_table
from mammodensity.errors import LayoutError, TableError
from mammodensity.terms import TISSUE, Category

_DDSM_DENSITY = {**NUMBERS, "0": None}  # 0: not rated; two rows of CBIS-DDSM have it, too


# CBIS-DDSM

CBIS_TABLES = r"(mass|calc).*case[-_ ]description.*\.csv"
_CBIS_PATH = "image file path"
_CBIS_COLUMNS = ("patient_id", "breast density", "left or right breast", "image view", _CBIS_PATH)
_CBIS_TABLE = re.compile(r"(?P<kind>mass|calc).*(?P<split>train|test)", re.IGNORECASE)
_CBIS_FOLDER = re.compile(
    r"(?:Mass|Calc)-(?P<split>Training|Test)_(?P<patient>P_\d+)_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)"
)


def read_cbis_ddsm(tables: FileList, data: FileList) -> PublicData:
    """Read CBIS-DDSM: four tables, ``mass`` and ``calc``, of training and test cases; a row a finding.

    An image has a row for each of its findings. A film with a mass and a calcification is in both archives, once under
    each. A patient whose mass is in the training tables and whose calcification is in the test tables would be in both
    splits.
    """
    kinds: dict[str, Path] = {}
    for path in find_tables(
        tables, CBIS_TABLES, _CBIS_COLUMNS, "CBIS-DDSM table such as mass_case_description_train_set.csv"
    ):
        match = _CBIS_TABLE.search(path.name)
        kind = f"{match['kind']} {match['split']}".lower() if match else path.name
        if kind in kinds and kinds[kind].read_bytes() != path.read_bytes():
            raise LayoutError(f"{kinds[kind]} and {path} are both the {kind} table and differ; keep one")
        kinds.setdefault(kind, path)
    tally = Tally()
    for kind in ("mass train", "mass test", "calc train", "calc test"):
        tally.note("table-absent", f"the table of {kind} cases is not there", kind not in kinds, "tables")
    rows = [_cbis_row(row, tally) for path in kinds.values() for row in read_table(path, _CBIS_COLUMNS)]
    choice = "the one in the exam's split, then calcification before mass"
    return assemble("cbis-ddsm", kinds.values(), filter(None, rows), tally, choice=choice)


def _cbis_row(row: TableRow, tally: Tally) -> ImageRow | None:
    """A row, or None if the row and the folder of its image name different films."""
    patient, view = row.needed("patient_id").upper(), row["image view"]
    side = row.laterality("left or right breast")
    image = "".join(row.needed(_CBIS_PATH).split()).replace("\\", "/")  # some cells contain line breaks
    folder = _CBIS_FOLDER.match(image)
    if folder and (patient, side, view.upper()) != (folder["patient"], folder["side"][0], folder["view"]):
        tally.leave_out("contradicting-rows", "the image path names another patient, breast or view", 1, "rows")
        return None
    densities = row.density("breast density", _DDSM_DENSITY)
    tally.note("blank-density", f"the density is {row['breast density'] or 'blank'}", not densities)
    named = folder or _CBIS_TABLE.search(row.path.name)
    if named is None:
        raise row.error(
            _CBIS_PATH, "does not begin like Mass-Training_P_00001_LEFT_CC/, and the table's name has no split"
        )
    return ImageRow(
        exam_id=patient,
        patient_id=patient,
        image=image,
        laterality=side,
        view=view,
        categories=densities,
        split="test" if named["split"].lower() == "test" else "train",
    )


def locate_cbis_ddsm(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find an image by the folder of its film or series; every downloader names the files in them differently.

    ``Mass-Training_P_00001_LEFT_CC/<study>/<series>/000000.dcm`` of the table is, for instance,
    ``CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515/1-1.dcm``
    or ``jpeg/<series>/1-249.jpg`` on disk. Crops and masks lie in folders with a number at the end (``_LEFT_CC_1``).
    """
    folders = entry.image.split("/")[:-1]
    if not folders:
        return None
    film = files.images_in_folder(folders[0])
    full = [path for path in film if "full" in path.parent.name.lower()]
    series = files.images_in_folder(folders[-1]) if len(folders) > 1 else []
    images = series or full or film or files.images_with_stem(folders[0])
    return max(images, key=lambda path: path.stat().st_size, default=None)


# DDSM

DDSM_TABLES = r".*\.ics"
_DDSM_CASE = re.compile(r"(?P<site>[A-D])[-_](?P<number>\d+)[-_](?P<part>\d+)", re.IGNORECASE)
_DDSM_VIEW = re.compile(r"(?P<side>LEFT|RIGHT)_(?P<view>\w+)\s+LINES\b(?P<rest>.*)", re.IGNORECASE)
_DDSM_SPACING = re.compile(r"RESOLUTION\s+([\d.]+)", re.IGNORECASE)
_DDSM_VOLUME = re.compile(r"(?:benign|cancer|normal|benign_without_callback)s?_\d+", re.IGNORECASE)
"""Folder of a volume, as the archive names it: ``benign_10``."""


@dataclass(frozen=True)
class _DdsmCase:
    """A case file as read."""

    path: Path
    words: Mapping[str, tuple[int, str]]
    """Line and value of each word that begins a line."""
    views: tuple[re.Match[str], ...]
    """The lines of images."""
    content: str
    """The text without differences of line ends and spaces."""

    @property
    def name(self) -> str | None:
        """The name of the case; None where the file is not one of DDSM."""
        match = _DDSM_CASE.search(self.words["FILENAME"][1]) or _DDSM_CASE.search(self.path.stem)
        return f"{match['site'].upper()}_{match['number']}_{match['part']}" if match and self.views else None


def read_ddsm(tables: FileList, data: FileList) -> PublicData:
    """Read DDSM: one ``.ics`` text file a case, with a density of 1 to 4 for the whole case.

    The letter before a case (A, B, C, D) is the scanning site, not a density. The images are ``.LJPEG`` files, a
    lossless JPEG that other tools must convert first; converted pictures are found by their names.

    A few case names stand in two volumes for two women. So a case is its name and the place of its file: copies of a
    file count as one case, and no case has pictures of another volume. Files that differ are exams of their own, named
    with their volume (``A_1500_1-benign_10``), where each lies in another one; otherwise they are left out.
    """
    tally = Tally()
    cases: dict[str, list[_DdsmCase]] = defaultdict(list)
    for path in tables.named(DDSM_TABLES):
        file = _read_case(path)
        if file.name is None:
            tally.leave_out("not-a-case", "an .ics file without a DDSM case name and lines of images", 1, "files")
        else:
            cases[file.name].append(file)
    if not cases:
        raise LayoutError(f"{tables.root} holds no DDSM case file (.ics); name its folder with --tables")
    sources: list[Path] = []
    rows: list[ImageRow] = []
    repeated = {_ddsm_patient(name) for name, files in cases.items() if len({file.content for file in files}) > 1}
    for name, files in cases.items():
        distinct = list({file.content: file for file in reversed(files)}.values())[::-1]
        volumes = {volume for file in distinct if (volume := _ddsm_volume(file.path))}
        if 1 < len(distinct) != len(volumes):
            text = "other .ics files of this case name differ, and do not lie in volumes of their own"
            tally.leave_out("contradicting-case", text, len(files), "files")
            continue
        tally.leave_out("repeated-case", "a copy of another .ics file", len(files) - len(distinct), "files")
        text = "the case name stands in two volumes, for two women; they are named with their volume"
        tally.note("repeated-name", text, len(distinct) if len(distinct) > 1 else 0, "exams")
        for file in distinct:
            sources.append(file.path)
            place = PurePosixPath(file.path.relative_to(tables.root).as_posix()).parent
            volume = f"-{_ddsm_volume(file.path)}"
            rows += [
                replace(
                    row,
                    exam_id=f"{name}{volume if len(distinct) > 1 else ''}",
                    patient_id=f"{row.patient_id}{volume if row.patient_id in repeated else ''}",
                )
                for row in _ddsm_rows(name, file, place, tally)
            ]
    if not rows:
        raise LayoutError(
            f"{tables.root}: the .ics files of each case differ ({_first_names(cases)}), so nothing tells which woman "
            "its pictures are of; keep one file for each case name"
        )
    return assemble("ddsm", sources, rows, tally, per_breast=False)


def _first_names(names: Mapping[str, object]) -> str:
    """The first names, and how many more there are."""
    first = list(names)[:3]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def _read_case(path: Path) -> _DdsmCase:
    words: dict[str, tuple[int, str]] = defaultdict(lambda: (0, ""))
    views = []
    content = path.read_text(encoding="utf-8-sig", errors="replace")
    for line, text in enumerate(content.splitlines(), start=1):
        if view := _DDSM_VIEW.match(text.strip()):
            views.append(view)
        elif text.strip():
            word, *rest = text.split(maxsplit=1)
            words.setdefault(word.upper(), (line, rest[0].strip() if rest else ""))
    return _DdsmCase(path, words, tuple(views), " ".join(content.upper().split()))


def _ddsm_rows(case: str, file: _DdsmCase, place: PurePosixPath, tally: Tally) -> list[ImageRow]:
    """The rows of a case whose file lies in a folder ``place``, below the folder of the tables."""
    line, density = file.words["DENSITY"]
    categories = TableRow(file.path, line, {"DENSITY": density}).density("DENSITY", _DDSM_DENSITY)
    tally.note("blank-density", f"DENSITY is {density or 'absent'}", not categories, "exams")
    facts = {"site": case[0], "age": file.words["PATIENT_AGE"][1], "vendor": file.words["DIGITIZER"][1]}
    return [
        ImageRow(
            exam_id=case,
            patient_id=_ddsm_patient(case),
            image=str(place / f"{case}.{view['side'].upper()}_{view['view'].upper()}"),
            laterality=view["side"][0].upper(),
            view=view["view"],
            categories=categories,
            facts={**facts, "spacing_um": spacing[1] if (spacing := _DDSM_SPACING.search(view["rest"])) else ""},
        )
        for view in file.views
    ]


def _ddsm_patient(case: str) -> str:
    """The patient of a case: its last number counts her film sets."""
    return case.rsplit("_", maxsplit=1)[0]


def locate_ddsm(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find a converted picture named by case and view: ``A_0018_1.LEFT_CC.png``, ``A-0018-1.LEFT_CC.LJPEG.1.jpg``.

    Pictures in another volume than the case file are those of another woman. Where the case file lies in no volume, and
    pictures in several, nothing tells whose they are; nor where pictures of a name of two women lie in no volume.
    """
    wanted = PurePosixPath(entry.image)
    case = wanted.name.partition(".")[0]
    pictures = [
        path
        for spelling in (case, case.replace("_", "-"))
        for path in files.images_with_prefix(spelling)
        if projection_in_name(path.stem) == entry.projection
    ]
    volume = _ddsm_volume(wanted)
    volumes = {_ddsm_volume(path) for path in pictures} - {""}
    if not volume and len(volumes) > 1:
        return None
    allowed = {volume} if exam.exam_id != case else {"", volume} if volume else {"", *volumes}
    return files.closest((path for path in pictures if _ddsm_volume(path) in allowed), wanted)


def _ddsm_volume(path: PurePath) -> str:
    """The last folder of a path that is a volume; blank where there is none."""
    return next((folder.lower() for folder in reversed(path.parent.parts) if _DDSM_VOLUME.fullmatch(folder)), "")


# mini-MIAS

MIAS_TABLES = r"info.*\.txt"
_MIAS_LINE = re.compile(r"mdb(?P<number>\d{3})\w*\s+(?P<tissue>\S+)\s+(?P<rest>[A-Z]{4}\b.*)", re.IGNORECASE)
_MIAS_BEGINNING = re.compile(r"mdb\d{3}\w*\s+\S+", re.IGNORECASE)


def read_mini_mias(tables: FileList, data: FileList) -> PublicData:
    """Read mini-MIAS: ``Info.txt``, a line an abnormality: ``mdb001 G CIRC B 535 425 197``.

    The archive's README holds the same lines. Tissue is F, G or D. These are categories of their own, not A to D. All
    images are MLO and stored mirrored. Two numbers in a row are one woman; the odd number is the left breast and the
    even one the right, although the data set's own note says otherwise.
    """
    named = tables.named(MIAS_TABLES)
    table = next((path for path in [*named, *tables.named(r"readme.*")] if _mias_lines(path)), None)
    if table is None and named:
        raise TableError(f"{named[0]} has no line such as mdb001 G CIRC B 535 425 197; copy it again")
    if table is None:
        raise LayoutError(f"{tables.root} holds no mini-MIAS table Info.txt; name its folder with --tables")
    rows = [_mias_row(table, line, text) for line, text in _mias_lines(table)]
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


def _mias_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that begin with the name of an image and a word; a README has prose around them."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(number, text.strip()) for number, text in enumerate(lines, 1) if _MIAS_BEGINNING.match(text.strip())]


def _mias_row(path: Path, line: int, text: str) -> ImageRow:
    match = _MIAS_LINE.match(text)
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


def locate_mini_mias(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
    """Find ``mdb001.pgm``, or a converted picture of that name."""
    return next(iter(files.images_with_stem(entry.image)), None)
