"""``mammodensity segment``: label images and a table of areas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mammodensity.errors import ImageError, LayoutError, OptionError
from mammodensity.exam import Mammogram
from mammodensity.ingest import read_picture
from mammodensity.ingest.names import projection_in_name
from mammodensity.ingest.pictures import PICTURE_SUFFIXES
from mammodensity.outputs import staged_folder, write_csv
from mammodensity.preprocess.orientation import stored_flipped
from mammodensity.preprocess.regions import BREAST, PECTORAL, Regions, find_regions

COLUMNS = (
    "file",
    "projection",
    "view_position",
    "view_from",
    "chest_side",
    "stored_flipped",
    "breast_px",
    "pectoral_px",
    "breast_mm2",
    "pectoral_mm2",
    "note",
)
"""Of ``segment.csv``; the breast's area is without the muscle."""


def write_segmentations(
    images: Sequence[Path], output: Path, *, progress: Callable[[int, int], None] | None = None
) -> tuple[int, list[str]]:
    """Write a label image for each picture, ``<stem>.png`` of its size, and ``segment.csv``.

    A picture without a breast, or inverted, gives an empty label image, and a note in the table.

    Returns
    -------
    How many pictures there were, and the notes, one line each.

    Raises
    ------
    ImageError
        A picture cannot be read; then nothing is written.
    OptionError
        Two pictures would give files of one name.
    """
    files = _pictures(images)
    rows, notes = [], []
    with staged_folder(output) as folder:
        for done, path in enumerate(files, start=1):
            mammogram = read_picture(path, projection_in_name(path.stem))
            try:
                regions, note = find_regions(mammogram), ""
                labels = regions.labels
            except ImageError as error:
                regions, note = None, str(error)
                labels = np.zeros(mammogram.pixels.shape, np.uint8)
                notes.append(note)
            Image.fromarray(labels).save(folder / f"{path.stem}.png")
            rows.append(table_row(path, mammogram, regions, note))
            if progress:
                progress(done, len(files))
        write_csv(folder / "segment.csv", COLUMNS, rows)
    return len(files), notes


def _pictures(images: Sequence[Path]) -> list[Path]:
    """The pictures named, those of a folder in sorted order."""
    files: list[Path] = []
    for image in images:
        found = [image]
        if image.is_dir():
            found = sorted(path for path in image.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
            if not found:
                raise LayoutError(f"{image} holds no picture; expected {' '.join(PICTURE_SUFFIXES)}")
        files += found
    stems: dict[str, Path] = {}
    for path in files:
        if path.stem in stems:
            raise OptionError(
                f"{stems[path.stem]} and {path} would both give {path.stem}.png; segment them into two folders"
            )
        stems[path.stem] = path
    return files


def table_row(path: Path, mammogram: Mammogram, regions: Regions | None, note: str = "") -> dict[str, Any]:
    """One row of ``segment.csv``."""
    known = mammogram.projection
    row: dict[str, Any] = {"file": path.name, "projection": known or "", "note": note}
    if regions is None:
        return {**row, "breast_px": 0, "pectoral_px": 0}
    flipped = stored_flipped(known, regions.chest_side)
    row |= {
        "view_position": known.view_position if known else regions.view_position,
        "view_from": "name" if known else "pixels",
        "chest_side": regions.chest_side,
        "stored_flipped": "" if flipped is None else ("yes" if flipped else "no"),
    }
    for name, value in (("breast", BREAST), ("pectoral", PECTORAL)):
        area = int(np.count_nonzero(regions.labels == value))
        row[f"{name}_px"] = area
        if mammogram.spacing_mm is not None:
            row[f"{name}_mm2"] = round(area * mammogram.spacing_mm**2, 1)
    return row
