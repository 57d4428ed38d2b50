"""``mammodensity segment``: label images, overlays and a table of areas and percent density."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mammodensity.errors import ImageError, LayoutError, OptionError, OutputError
from mammodensity.exam import Mammogram
from mammodensity.ingest.dicom import looks_like_dicom
from mammodensity.ingest.images import read_image
from mammodensity.ingest.names import projection_in_name
from mammodensity.ingest.pictures import PICTURE_SUFFIXES
from mammodensity.outputs import staged_folder, write_csv
from mammodensity.preprocess.orientation import stored_flipped
from mammodensity.tissue.maps import ADIPOSE, FIBROGLANDULAR, PECTORAL, TissueMap, find_tissue

COLUMNS = (
    "file",
    "projection",
    "view_position",
    "view_from",
    "chest_side",
    "stored_flipped",
    "percent_density",
    "adipose_px",
    "fibroglandular_px",
    "pectoral_px",
    "adipose_mm2",
    "fibroglandular_mm2",
    "pectoral_mm2",
    "note",
)
"""Of ``segment.csv``."""
TABLE = "segment.csv"


def write_segmentations(
    images: Sequence[Path],
    output: Path,
    *,
    synthetic: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, list[str]]:
    """Write a label image for each image, ``<stem>.png`` of its size, and ``segment.csv``.

    Label images that an earlier run listed in the ``segment.csv`` of that folder are removed.

    An image without a breast, or inverted, gives an empty label image; one that cannot be read or that the gatekeeper
    refuses gives none. Either has a note in the table.

    Parameters
    ----------
    images
        Pictures, DICOM files, or folders of them.
    synthetic
        Accept 2-D DICOM images computed from tomosynthesis.

    Returns
    -------
    How many label images there are, and the notes, one line each.

    Raises
    ------
    ImageError
        No image can be read; then nothing is written.
    OptionError
        Two images would give files of one name.
    OutputError
        The folder is one that images come from, or cannot be written.
    """
    files = _image_files(images)
    if output.resolve() in {path.resolve().parent for path in files}:
        raise OutputError(f"{output} holds images to be segmented; name another folder for the label images")
    rows: list[dict[str, Any]] = []
    with staged_folder(output, _earlier(output / TABLE)) as folder:
        for done, path in enumerate(files, start=1):
            rows.append(_segment(path, folder, synthetic=synthetic))
            if progress:
                progress(done, len(files))
        count = sum(1 for _ in folder.iterdir())
        if not count:
            raise ImageError(rows[0]["note"])
        write_csv(folder / TABLE, COLUMNS, rows)
    return count, [row["note"] for row in rows if row["note"]]


def _earlier(table: Path) -> list[str]:
    """The label images of an earlier run, by its table; none where it is no table of ours."""
    try:
        rows = csv.DictReader(StringIO(table.read_text(encoding="utf-8")))
        if tuple(rows.fieldnames or ()) != COLUMNS:
            return []
        return [f"{Path(row['file']).stem}.png" for row in rows if row["file"]]
    except (OSError, ValueError, csv.Error):
        return []


def _segment(path: Path, folder: Path, *, synthetic: bool) -> dict[str, Any]:
    """Write the label image of one image, and give its row of the table."""
    try:
        mammogram = read_image(path, projection_in_name(path.stem), synthetic=synthetic)
    except ImageError as error:
        return {"file": path.name, "note": str(error)}
    try:
        found, note = find_tissue(mammogram), ""
        labels = found.labels
    except ImageError as error:
        found, note = None, str(error)
        labels = np.zeros(mammogram.pixels.shape, np.uint8)
    Image.fromarray(labels).save(folder / f"{path.stem}.png")
    return table_row(path, mammogram, found, note)


def _image_files(images: Sequence[Path]) -> list[Path]:
    """The images named, those of a folder in sorted order."""
    files: list[Path] = []
    for image in images:
        found = [image]
        if image.is_dir():
            found = sorted(path for path in image.iterdir() if path.is_file() and _is_image(path))
            if not found:
                raise LayoutError(f"{image} holds no image; expected DICOM files or {' '.join(PICTURE_SUFFIXES)}")
        files += found
    stems: dict[str, Path] = {}
    for path in files:
        if path.stem in stems:
            raise OptionError(
                f"{stems[path.stem]} and {path} would both give {path.stem}.png; segment them into two folders"
            )
        stems[path.stem] = path
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES or looks_like_dicom(path)


def table_row(path: Path, mammogram: Mammogram, found: TissueMap | None, note: str = "") -> dict[str, Any]:
    """One row of ``segment.csv``; areas are counted on the label image, percent density as ``TissueMap`` has it."""
    known = mammogram.projection
    row: dict[str, Any] = {"file": path.name, "projection": known or "", "note": note}
    if found is None:
        return row
    flipped = stored_flipped(known, found.chest_side)
    guessed = "MLO" if (found.labels == PECTORAL).any() else "CC"
    says = "header" if looks_like_dicom(path) else "name"
    row |= {
        "view_position": known.view_position if known else guessed,
        "view_from": says if known else "pixels",
        "chest_side": found.chest_side,
        "stored_flipped": "" if flipped is None else ("yes" if flipped else "no"),
        "percent_density": round(found.percent_density, 1),
    }
    for name, value in (("adipose", ADIPOSE), ("fibroglandular", FIBROGLANDULAR), ("pectoral", PECTORAL)):
        area = int(np.count_nonzero(found.labels == value))
        row[f"{name}_px"] = area
        if mammogram.spacing_mm is not None:
            row[f"{name}_mm2"] = round(area * mammogram.spacing_mm**2, 1)
    return row
