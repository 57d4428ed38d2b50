"""Segment images: a label image of each, and a table of areas and percent density."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from mammodensity.anatomy.field import stored_flipped
from mammodensity.anatomy.tissue import ADIPOSE, FIBROGLANDULAR, PECTORAL, TissueMap, find_tissue
from mammodensity.anatomy.wedge import view_flags
from mammodensity.data.archive import files_under
from mammodensity.data.csv_rows import read_csv
from mammodensity.data.dataset import MANIFEST_NAME, read_manifest
from mammodensity.data.dicom.header_parsing import looks_like_dicom
from mammodensity.data.images import read_image
from mammodensity.data.picture_files import PICTURE_SUFFIXES, projection_in_name
from mammodensity.errors import ImageError, LayoutError, OptionError, OutputError, TableError
from mammodensity.exam import Mammogram
from mammodensity.outputs import staged_folder, write_csv
from mammodensity.workers import Progress

COLUMNS = (
    "file",
    "labels",
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
"""Columns of ``segment.csv``."""
TABLE = "segment.csv"


@dataclass(frozen=True)
class Segmented:
    """Files and rows that `segment` wrote into a folder."""

    folder: Path
    rows: list[dict[str, Any]]
    """The rows of ``segment.csv``, one an image, with `COLUMNS`; an absent column is blank."""

    @property
    def labels(self) -> list[Path]:
        """The label images."""
        return [self.folder / row["labels"] for row in self.rows if row.get("labels")]

    @property
    def refused(self) -> list[str]:
        """Reasons why images have no tissue map, a line each."""
        return [_with_name(row) for row in self.rows if "percent_density" not in row]

    @property
    def doubts(self) -> list[str]:
        """Reasons why tissue maps are doubtful, a line each."""
        return [_with_name(row) for row in self.rows if "percent_density" in row and row["note"]]


def _with_name(row: Mapping[str, Any]) -> str:
    """The note of a row after the name of its image, which most notes on refused images have themselves."""
    return row["note"] if row["note"].startswith(row["file"]) else f"{row['file']}: {row['note']}"


def segment(
    images: Path | str | Sequence[Path | str],
    output: Path | str,
    *,
    synthetic: bool = False,
    progress: Progress | None = None,
) -> Segmented:
    """Write a label image for each image, ``<stem>.png`` of its size, and ``segment.csv``.

    Where images of several folders have one name, those of the folders come before it. Label images that an earlier
    run listed in the ``segment.csv`` of that folder are removed.

    An image without a breast, or inverted, gives an empty label image; one that cannot be read or that the gatekeeper
    refuses gives none. Either has a note in the table.

    Parameters
    ----------
    images
        Pictures, DICOM files, or folders of them, of any depth; of a folder with a manifest, what that lists. An image
        given twice is segmented once.
    synthetic
        Accept 2-D DICOM images computed from tomosynthesis.
    progress
        Called with how many images are done and how many there are.

    Raises
    ------
    ImageError
        No image can be read; then nothing is written.
    OptionError
        Two images would give files of one name.
    OutputError
        The folder is one that images come from, or cannot be written.
    """
    output = Path(output)
    places = [Path(image) for image in ([images] if isinstance(images, (str, Path)) else images)]
    earlier = _earlier(output / TABLE)
    files = find_image_files(places, {output.resolve() / name for name in earlier})
    _require_apart(output, places, files.values())
    labels = _label_names(files)
    rows: list[dict[str, Any]] = []
    with staged_folder(output, earlier) as folder:
        for done, (name, path) in enumerate(files.items(), start=1):
            rows.append(_segment(path, name, folder / labels[name], synthetic=synthetic))
            if progress:
                progress(done, len(files))
        if not any(row.get("labels") for row in rows):
            raise ImageError(rows[0]["note"])
        write_csv(folder / TABLE, COLUMNS, rows)
    return Segmented(output, rows)


def _earlier(table: Path) -> list[str]:
    """The label images of an earlier run, by its table; none where it is no table of ours."""
    try:
        rows = read_csv(table)
    except TableError:
        return []
    return [row["labels"] for row in rows if row["labels"]] if rows.columns == COLUMNS else []


def _segment(path: Path, name: str, target: Path, *, synthetic: bool) -> dict[str, Any]:
    """Write the label image of one image, and give its row of the table; no more of a path is told than its name."""
    try:
        mammogram = read_image(path, projection_in_name(path.stem), synthetic=synthetic)
    except ImageError as error:
        return {"file": name, "note": str(error).replace(str(path), name)}
    try:
        tissue, note = find_tissue(mammogram), ""
        labels = tissue.labels
    except ImageError as error:
        tissue, note = None, str(error).replace(str(path), name)
        labels = np.zeros(mammogram.pixels.shape, np.uint8)
    Image.fromarray(labels).save(target)
    return {**table_row(path, mammogram, tissue, note), "file": name, "labels": target.name}


def find_image_files(images: Sequence[Path], without: Collection[Path] = ()) -> dict[str, Path]:
    """The images named and those of folders, each once, by the names a table may hold.

    A name is the file's, or its place below the folder that was given; where several paths were given, the folder's
    name comes first. Paths above that are not for tables, as they may name patients.

    Parameters
    ----------
    without
        Resolved files that are no images, though they look it.

    Raises
    ------
    LayoutError
        A folder holds no image.
    OptionError
        Two images have one name.
    """
    files: dict[str, Path] = {}
    resolved: set[Path] = set()
    for image in images:
        for path in _images_in(image):
            if path.resolve() in resolved or path.resolve() in without:
                continue
            resolved.add(path.resolve())
            name = _name_below(path, image)
            if len(images) > 1 and image.is_dir():
                name = f"{image.resolve().name}/{name}"
            elif name in files:
                name = f"{path.resolve().parent.name}/{name}"
            if name in files:
                raise OptionError(f"{files[name]} and {path} have one name, {name}; segment them into two folders")
            files[name] = path
    return files


def _name_below(path: Path, image: Path) -> str:
    """The place of a file below a folder; the bare name of one that was given itself, or that lies elsewhere."""
    inside = image.is_dir() and path.is_relative_to(image) and ".." not in path.relative_to(image).parts
    return path.relative_to(image).as_posix() if inside else path.name


def _require_apart(output: Path, images: Sequence[Path], files: Iterable[Path]) -> None:
    """Raise ``OutputError`` where label images would come to lie among images."""
    target = output.resolve()
    searched = any(image.is_dir() and image.resolve() in (target, *target.parents) for image in images)
    for path in files:
        holders = path.resolve().parents
        if target in (holders if searched else holders[:1]):
            raise OutputError(f"{output} holds images to be segmented; name another folder for the label images")


def _images_in(image: Path) -> list[Path]:
    if not image.is_dir():
        return [image]
    if (image / MANIFEST_NAME).is_file():
        return [record.path for record in read_manifest(image / MANIFEST_NAME).records]
    files = [path for path in files_under(image, _refuse_closed) if _is_image(path)]
    if not files:
        raise LayoutError(f"{image} holds no image; expected DICOM files or {' '.join(PICTURE_SUFFIXES)}")
    return files


def _refuse_closed(error: OSError) -> NoReturn:
    raise LayoutError(f"{error.filename} cannot be listed ({error.strerror}); ask for permission to read it") from error


def _label_names(files: Mapping[str, Path]) -> dict[str, str]:
    """The label image of each: by its stem, by folders and stem where stems repeat, with its ending if need be."""
    choices = {}
    for name, path in files.items():
        flat = name.replace("/", "_")
        choices[name] = (path.stem, flat.removesuffix(path.suffix), flat)
    times = Counter(choice for several in choices.values() for choice in set(several))
    names = {
        name: f"{next((candidate for candidate in several if times[candidate] == 1), several[-1])}.png"
        for name, several in choices.items()
    }
    taken: dict[str, str] = {}
    for name, label in names.items():
        if label in taken:
            raise OptionError(f"{taken[label]} and {name} would both give {label}; segment them into two folders")
        taken[label] = name
    return names


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES or looks_like_dicom(path)


def table_row(path: Path, mammogram: Mammogram, tissue: TissueMap | None, note: str = "") -> dict[str, Any]:
    """One row of ``segment.csv``; areas are counted on the label image, percent density as ``TissueMap`` has it."""
    projection = mammogram.projection
    row: dict[str, Any] = {"file": path.name, "projection": projection or "", "note": note}
    if tissue is None:
        return row
    doubts = tissue.doubts + view_flags(projection, tissue.outline.wedge, tissue.outline.dome)
    row["note"] = "; ".join(filter(None, (note, *(flag.text for flag in doubts))))
    flipped = stored_flipped(projection, tissue.chest_side)
    guessed = "MLO" if (tissue.labels == PECTORAL).any() else "CC"
    says = "header" if looks_like_dicom(path) else "name"
    row |= {
        "view_position": projection.view_position if projection else guessed,
        "view_from": says if projection else "pixels",
        "chest_side": tissue.chest_side,
        "stored_flipped": "" if flipped is None else ("yes" if flipped else "no"),
        "percent_density": round(tissue.percent_density, 1),
    }
    for name, value in (("adipose", ADIPOSE), ("fibroglandular", FIBROGLANDULAR), ("pectoral", PECTORAL)):
        area = int(np.count_nonzero(tissue.labels == value))
        row[f"{name}_px"] = area
        if mammogram.spacing_mm is not None:
            row[f"{name}_mm2"] = round(area * mammogram.spacing_mm**2, 1)
    return row
