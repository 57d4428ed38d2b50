r"""How an image lies: what Patient Orientation says, where the chest wall is, and whether both fit the breast.

Patient Orientation (PS3.3 C.7.6.1.1.1) has the direction of rows, then that of columns. Upright, a right breast is P\L
in a CC and P\FL in an MLO, a left one A\R and A\FR: rows run away from the chest wall or to it, columns from the
breast's own side (lateral, axilla) to the other. By habit a left breast has its chest wall on the left of the image. A
mirrored image changes the rows only, so the columns tell the breast, and rows and pixels tell whether it is mirrored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.headers import Header, say
from mammodensity.ingest.dicom.verdicts import WARNINGS, Reason
from mammodensity.terms import Projection

_DIRECTION = re.compile("[APRLHF]{1,3}")


def _directions(header: Header) -> tuple[str, str] | None:
    """Directions of rows and columns; None where Patient Orientation is absent or holds something else."""
    words = header.text("PatientOrientation").split("\\")
    if len(words) != 2 or not all(_DIRECTION.fullmatch(word) for word in words):
        return None
    return words[0], words[1]


def side_by_columns(header: Header) -> str | None:
    """``"R"`` or ``"L"``: the breast whose CC or MLO has columns as Patient Orientation says; None where that is open.

    Of an image that is upside down by its header (columns to H) the other, so that it tells the breast all the same.
    """
    columns = (_directions(header) or ("", ""))[1]
    if ("L" in columns) == ("R" in columns):
        return None
    return "R" if ("L" in columns) != ("H" in columns) else "L"


def turned_reasons(header: Header) -> Iterator[Reason]:
    """A CC or MLO that is stored upside down or turned by a quarter, by Patient Orientation.

    Rows of an upright one run to A or P; columns to F, R or L, never to A, P or H.
    """
    rows, columns = _directions(header) or ("A", "F")
    if columns[0] in "AP" or rows[0] in "HF":
        how = "turned by a quarter"
    elif "H" in columns:
        how = "upside down"
    else:
        return
    text = f"stored {how}: Patient Orientation {rows}\\{columns}, expected rows to A or P and columns to F, R or L"
    yield Reason("turned", say(header, f"{text}; export it upright"))


def chest_wall_side(pixels: NDArray[np.uint16]) -> str | None:
    """``"L"`` or ``"R"``: the side of the image with the chest wall; None where it is not plain to see.

    The chest wall's side is that along which tissue reaches the image edge; the other is air.
    """
    rows, columns = pixels.shape
    small = pixels[:: max(1, rows // 256), :: max(1, columns // 256)].astype(np.float64)
    inner = small[small.shape[0] // 20 : -max(1, small.shape[0] // 20)]
    air = np.percentile(inner, 2)
    tissue = inner > air + 0.08 * (np.percentile(inner, 98) - air)
    profile = tissue.mean(axis=0)
    strip = max(2, len(profile) // 12)
    skip = max(1, len(profile) // 100)  # thin white borders
    left, right = profile[skip : skip + strip].mean(), profile[-skip - strip : -skip].mean()
    if profile.sum() == 0:
        return None
    centre = (profile * np.arange(len(profile))).sum() / profile.sum() / (len(profile) - 1)
    if left > right + 0.35 and right < 0.2 and centre < 0.5:
        return "L"
    if right > left + 0.35 and left < 0.2 and centre > 0.5:
        return "R"
    return None


def orientation_warnings(header: Header, projection: Projection, pixels: NDArray[np.uint16]) -> Iterator[Reason]:
    """Check header against pixels.

    Raises
    ------
    DicomError
        They contradict each other on the breast (``contradictory-laterality``).
    """
    side = chest_wall_side(pixels)
    row_direction = header.text("PatientOrientation").split("\\")[0][:1]
    said = {"A": "L", "P": "R"}.get(row_direction)
    if side is None:
        return
    if side == projection.laterality:
        if said is not None and said != side:
            yield Reason("orientation-disagrees", WARNINGS["orientation-disagrees"])
        return
    # rows alone do not do: a swapped label of an upright image looks the same; the columns or the detector must agree
    mirrored = header.text("FieldOfViewHorizontalFlip") == "YES"
    confirmed = mirrored or (said == side and side_by_columns(header) == projection.laterality)
    if said not in (side, None) or not confirmed:
        where = {"L": "left", "R": "right"}[side]
        raise DicomError(
            f"{header.path}: {projection} by its header, but the chest wall is on the {where} and neither Patient "
            "Orientation nor Field of View Horizontal Flip confirms that it is stored flipped; correct the header",
            "contradictory-laterality",
        )
    yield Reason("stored-flipped", WARNINGS["stored-flipped"])
