"""CBIS-DDSM: four tables, ``mass`` and ``calc`` ``_case_description_train_set`` and ``_test_set.csv``; a row a finding.

An image has a row for each of its findings. A film with a mass and a calcification is in both archives, once under
each. A patient whose mass is in the training tables and whose calcification is in the test tables would be in both
splits.
"""

from __future__ import annotations

import re
from pathlib import Path

from mammodensity.data.public.assemble import ImageEntry, ImageRow, PublicData, PublicExam, Tally, assemble
from mammodensity.data.public.image_files import FileList
from mammodensity.data.public.spreadsheets import NUMBERS, TableRow, find_tables, read_table
from mammodensity.errors import LayoutError

TABLES = r"(mass|calc).*case[-_ ]description.*\.csv"
_PATH = "image file path"
_COLUMNS = ("patient_id", "breast density", "left or right breast", "image view", _PATH)
_MEANING = {**NUMBERS, "0": None}  # two rows have 0: not rated
_TABLE_NAME = re.compile(r"(?P<kind>mass|calc).*(?P<split>train|test)", re.IGNORECASE)
_FOLDER = re.compile(r"(?:Mass|Calc)-(?P<split>Training|Test)_(?P<patient>P_\d+)_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)")


def read(tables: FileList, data: FileList) -> PublicData:
    """Read the exams from those of the four tables that are there."""
    kinds: dict[str, Path] = {}
    for path in find_tables(tables, TABLES, _COLUMNS, "CBIS-DDSM table such as mass_case_description_train_set.csv"):
        match = _TABLE_NAME.search(path.name)
        kind = f"{match['kind']} {match['split']}".lower() if match else path.name
        if kind in kinds and kinds[kind].read_bytes() != path.read_bytes():
            raise LayoutError(f"{kinds[kind]} and {path} are both the {kind} table and differ; keep one")
        kinds.setdefault(kind, path)
    tally = Tally()
    for kind in ("mass train", "mass test", "calc train", "calc test"):
        tally.note("table-absent", f"the table of {kind} cases is not there", kind not in kinds, "tables")
    rows = [_row(row, tally) for path in kinds.values() for row in read_table(path, _COLUMNS)]
    choice = "the one in the exam's split, then calcification before mass"
    return assemble("cbis-ddsm", kinds.values(), filter(None, rows), tally, choice=choice)


def _row(row: TableRow, tally: Tally) -> ImageRow | None:
    """A row, or None if the row and the folder of its image name different films."""
    patient, view = row.needed("patient_id").upper(), row["image view"]
    side = row.laterality("left or right breast")
    image = "".join(row.needed(_PATH).split()).replace("\\", "/")  # some cells contain line breaks
    folder = _FOLDER.match(image)
    if folder and (patient, side, view.upper()) != (folder["patient"], folder["side"][0], folder["view"]):
        tally.leave_out("contradicting-rows", "the image path names another patient, breast or view", 1, "rows")
        return None
    densities = row.density("breast density", _MEANING)
    tally.note("blank-density", f"the density is {row['breast density'] or 'blank'}", not densities)
    named = folder or _TABLE_NAME.search(row.path.name)
    if named is None:
        raise row.error(_PATH, "does not begin like Mass-Training_P_00001_LEFT_CC/, and the table's name has no split")
    return ImageRow(
        exam_id=patient,
        patient_id=patient,
        image=image,
        laterality=side,
        view=view,
        categories=densities,
        split="test" if named["split"].lower() == "test" else "train",
    )


def locate(files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
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
