"""The pectoral muscle of MLO views: one region in the upper corner on the chest side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label

from mammodensity.preprocess.breast import within

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_LEAST_SHARE = 0.02  # of the breast region: less is a sliver of chest wall, as CC views show too


def muscle_scores(scores: Floats, breast: Mask) -> NDArray[np.float32] | None:
    """The score of muscle (H, W), 0 in all parts but the one in the upper corner on the left.

    None where there is none: nothing touches that corner, or too little.
    """
    parts, count = label((scores[2] > 0.5) & breast)
    if not count:
        return None
    rows = np.flatnonzero(breast.any(axis=1))
    columns = np.flatnonzero(breast.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    corner = parts[rows[0] : rows[0] + height // 4, columns[0] : columns[0] + max(2, width // 4)]
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    touching = np.unique(corner[corner > 0])
    if not len(touching):
        return None
    chosen = touching[int(np.argmax(sizes[touching]))]
    region = binary_fill_holes(parts == chosen) & breast
    if region.sum() < _LEAST_SHARE * breast.sum() or not _tapers(region, int(rows[0]), int(height)):
        return None
    return within(scores[2], region)


def _tapers(region: Mask, top: int, height: int) -> bool:
    """Whether it is wider at the top of the breast than at half height; a strip of chest wall in CC views is not."""
    widths = region.sum(axis=1)
    middle = top + height // 2
    return bool(widths[top : top + height // 8].mean() > widths[middle : middle + height // 8].mean())
