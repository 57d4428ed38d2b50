"""A mammogram, and the exam it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import ImageError
from mammodensity.terms import PROJECTIONS, Projection


@dataclass(frozen=True, eq=False)
class Mammogram:
    """One image of one breast, bright where the breast attenuates much.

    Raises
    ------
    ImageError
        The pixels are not a two-dimensional uint8 or uint16 array, or all of one value.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """(H, W) grey values as stored, 8 or 16 bit."""
    projection: Projection | None = None
    """Breast and view; None where nothing states them."""
    spacing_mm: float | None = None
    """Distance of pixel centres in the image plane; None where nothing says."""
    path: Path | None = None
    """The file it was read from."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts of the acquisition in a DICOM header, as ``acquisition_facts`` names them; empty for pictures.

    Among them is the accession number, which identifies a patient: show it on explicit request only.
    """

    def __post_init__(self) -> None:
        name = self.path if self.path is not None else "the image"
        if self.pixels.ndim != 2 or self.pixels.dtype not in (np.uint8, np.uint16):
            raise ImageError(
                f"{name}: expected a grey image of 8 or 16 bit, found {self.pixels.dtype} of shape {self.pixels.shape}",
                "depth",
            )
        if self.pixels.size == 0 or self.pixels.min() == self.pixels.max():
            raise ImageError(
                f"{name}: all pixels have one value, so there is no breast in it; export the image again", "constant"
            )

    @property
    def full_scale(self) -> int:
        """The largest grey value its pixel type can hold: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


@dataclass(frozen=True)
class Flag:
    """A reason to look twice: at an image, or at an exam's result."""

    code: str
    """Stable name; ``docs/results.md`` explains each."""
    text: str
    """The finding, in one line."""


@dataclass(frozen=True, eq=False)
class Exam:
    """The mammograms of one screening exam (a DICOM study), at most one a projection."""

    exam_id: str
    mammograms: Mapping[Projection, Mammogram] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[Projection, ...]:
        """Projections the exam lacks, in the one order."""
        return tuple(projection for projection in PROJECTIONS if projection not in self.mammograms)
