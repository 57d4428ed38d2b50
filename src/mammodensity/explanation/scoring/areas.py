"""Where a map may lie: breast, dense tissue, muscle, and everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError
from mammodensity.preprocess.regions import Regions
from mammodensity.tissue import TissueMap
from mammodensity.tissue.maps import ADIPOSE, FIBROGLANDULAR, PECTORAL

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Areas:
    """Masks (H, W) of an image.

    Raises
    ------
    OptionError
        The masks differ in shape, or there is no breast.
    """

    breast: Mask
    """Without muscle."""
    dense: Mask | None
    """Dense tissue within the breast; None where it was not told apart."""
    muscle: Mask

    def __post_init__(self) -> None:
        shapes = {mask.shape for mask in (self.breast, self.dense, self.muscle) if mask is not None}
        if len(shapes) > 1 or self.breast.ndim != 2:
            raise OptionError(f"the masks of an image must have one shape (H, W). Got {sorted(shapes)} instead.")
        if not self.breast.any():
            raise OptionError("the regions hold no breast, so there is nothing to score a map against")

    @property
    def outside(self) -> Mask:
        """Background, markers and labels: neither breast nor muscle."""
        return ~(self.breast | self.muscle)


def areas_of(regions: Areas | Regions | TissueMap | NDArray[np.uint8]) -> Areas:
    """The areas of a label image (0 background, 1 adipose, 2 fibroglandular, 3 muscle), or of what was found in one.

    Raises
    ------
    OptionError
        It is no label image, or holds no breast.
    """
    if isinstance(regions, Areas):
        return regions
    labels = np.asarray(regions.labels if isinstance(regions, (Regions, TissueMap)) else regions)
    if labels.ndim != 2 or not np.isin(labels, (0, ADIPOSE, FIBROGLANDULAR, PECTORAL)).all():
        what = f"values up to {labels.max()}" if labels.ndim == 2 and labels.size else f"shape {labels.shape}"
        raise OptionError(
            "regions must be a label image (H, W) of 0 background, 1 adipose, 2 fibroglandular, 3 muscle. "
            f"Got {what} instead."
        )
    dense = None if isinstance(regions, Regions) else labels == FIBROGLANDULAR
    return Areas(np.isin(labels, (ADIPOSE, FIBROGLANDULAR)), dense, labels == PECTORAL)
