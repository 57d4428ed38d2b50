"""The view that the pixels show: a wedge of pectoral muscle in the upper corner at the chest wall is that of an MLO.

A CC may show muscle, too: a band along the chest wall, thin at the top. A mass in that corner, or an arm, is no wedge.
An MLO without visible muscle still reaches up into the armpit, whereas a CC is a dome: narrow at both ends, and nowhere
hollow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening

from mammodensity.anatomy.field import largest_part
from mammodensity.errors import ImageError
from mammodensity.exam import Flag
from mammodensity.terms import Projection

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

DOUBTFUL_VIEW = "doubtful-view"

_LIMITS = {
    "area": (0.04, 0.08),  # of the breast with its muscle
    "score": (0.90, 0.96),  # of muscle, on average
    "straightness": (0.85, 0.95),  # correlation of height and width; a mass is widest in its middle
    "width": (0.165, 0.20),  # at the top, of the width of the breast; bands along the chest wall are thinner
    "length": (0.25, 0.35),  # of the height of the breast
}
"""Below the first number of any line there is no wedge; above the second of all, there surely is one. Of 24 real CC
views none has a wedge; of 59 real MLO views, 55 have, and 43 surely (docs/measurements.md)."""


def wedge_sureness(muscle: Mask, scores: Floats, breast: Mask) -> float:
    """Rate how surely a muscle is the wedge of an oblique view: 0 not at all, 1 surely.

    Parameters
    ----------
    muscle, breast
        (h, w), chest wall on the left; the breast with its muscle.
    scores
        (h, w) scores of muscle.
    """
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    top, height = int(rows[0]), int(rows[-1] - rows[0]) + 1
    widths = muscle.sum(axis=1)
    filled = np.flatnonzero(widths)
    if len(filled) < 4 or np.ptp(widths[filled]) == 0:
        return 0.0
    measures = {
        "area": muscle.sum() / breast.sum(),
        "score": scores[muscle].mean(),
        "straightness": -np.corrcoef(filled, widths[filled])[0, 1],
        "width": widths[top : top + max(1, height // 10)].max() / (columns[-1] + 1),
        "length": (filled[-1] - top + 1) / height,
    }
    steps = ((measures[name] - least) / (sure - least) for name, (least, sure) in _LIMITS.items())
    return float(np.clip(min(steps), 0, 1))


_LEAST_FULL = 0.98  # of 24 real CC views, 21 are as full; of 58 MLO views without an arm, those with a wide top only
_WIDEST_TOP = 0.37  # of the largest width; narrower in 23 of these CC views, and in 3 of the MLO views
_ABOVE_AIR = 0.08  # of the step from air to breast


def is_dome(grey: Floats, breast: Mask) -> bool:
    """True when the skin line is that of a CC: narrow at the top, and nowhere hollow.

    Parameters
    ----------
    grey
        (h, w) the whole image, chest wall on the left.
    breast
        (h, w) the breast, from which the network may have cut what leads to the armpit.
    """
    air = float(np.median(grey[~breast])) if not breast.all() else 0.0
    bright = grey > air + _ABOVE_AIR * (float(np.median(grey[breast])) - air)
    region = largest_part(binary_opening(bright | breast, np.ones((3, 3))))
    rows = np.flatnonzero(region.any(axis=1))
    if len(rows) < 4:
        return False
    shape = region[rows[0] : rows[-1] + 1]
    widths = shape.shape[1] - np.argmax(shape[:, ::-1], axis=1).astype(float)  # to the skin, whatever lies before it
    widths[~shape.any(axis=1)] = 0
    top = float(widths[: max(2, len(widths) // 12)].mean() / widths.max())
    return top < _WIDEST_TOP and float(widths.sum() / _hull(widths).sum()) > _LEAST_FULL


def _hull(widths: Floats) -> Floats:
    """The smallest widths without a hollow that are nowhere less than these."""
    corners: list[int] = []
    for place, width in enumerate(widths):
        while len(corners) > 1:
            first, last = corners[-2:]
            if (widths[last] - widths[first]) * (place - first) > (width - widths[first]) * (last - first):
                break
            corners.pop()
        corners.append(place)
    return np.interp(np.arange(len(widths)), corners, widths[corners])


def require_stated_view(projection: Projection | None, sureness: float, name: object) -> None:
    """Refuse a CC that surely shows the wedge of an oblique view.

    Raises
    ------
    ImageError
        It does (``contradictory-view``).
    """
    if _is_cc(projection) and sureness >= 1:
        raise ImageError(
            f"{name}: {projection} by its label, but the pectoral muscle of an oblique view (MLO) is in plain view; "
            "correct the view in header, name or table",
            "contradictory-view",
        )


def view_flags(projection: Projection | None, sureness: float, dome: bool) -> tuple[Flag, ...]:
    """A flag where a CC may show the wedge of an oblique view, or an MLO has the shape of a CC and no wedge."""
    if _is_cc(projection) and sureness > 0:
        text = f"called CC, but shows what may be the pectoral muscle of an MLO (sureness {sureness:.2f})"
    elif projection is not None and not _is_cc(projection) and sureness == 0 and dome:
        text = "called MLO, but has the outline of a CC, and no pectoral muscle was found"
    else:
        return ()
    return (Flag(DOUBTFUL_VIEW, text),)


def _is_cc(projection: Projection | None) -> bool:
    return projection is not None and projection.view_position == "CC"
