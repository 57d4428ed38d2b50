"""Which side of the image the chest wall is on, and whether header and pixels agree on the breast.

By habit (and PS3.3 C.8.11.7.1.2 with the usual hanging) a left breast has its chest wall on the left of the image and a
right breast on the right; Patient Orientation says which way rows run: to A (anterior), chest wall left; to P, right.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.headers import Header
from mammodensity.ingest.dicom.verdicts import WARNINGS, Reason
from mammodensity.terms import Projection


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
    flipped = said == side or (said is None and header.text("FieldOfViewHorizontalFlip") == "YES")
    if not flipped:
        where = {"L": "left", "R": "right"}[side]
        raise DicomError(
            f"{header.path}: {projection} by its header, but the chest wall is on the {where} and no Patient "
            "Orientation says that it is stored flipped; correct the header",
            "contradictory-laterality",
        )
    yield Reason("stored-flipped", WARNINGS["stored-flipped"])
