"""The vocabulary: projections, density categories, and their one order.

Standard library only, so that every other module can import it.

References
----------
Projection = image laterality (DICOM 0020,0062) and view position (0018,5101). Density categories: ACR BI-RADS Atlas,
5th edition (2013), "breast composition".
"""

from __future__ import annotations

from enum import StrEnum

RESEARCH_USE_ONLY = "Research use only. Not a medical device."
"""Shown wherever a result is shown."""


class Projection(StrEnum):
    """One of the four standard views of a screening exam, named as the origin names its folders.

    The order of the members is the order of projections everywhere in this package.

    >>> Projection("MLO_R").laterality, Projection("MLO_R").view_position
    ('R', 'MLO')
    """

    CC_R = "CC_R"
    CC_L = "CC_L"
    MLO_R = "MLO_R"
    MLO_L = "MLO_L"

    @property
    def view_position(self) -> str:
        """``"CC"`` (cranio-caudal) or ``"MLO"`` (medio-lateral oblique)."""
        return self.value[:-2]

    @property
    def laterality(self) -> str:
        """``"R"`` or ``"L"``: the breast."""
        return self.value[-1]


class DensityCategory(StrEnum):
    """BI-RADS breast composition: A almost entirely fatty, B scattered, C heterogeneously dense, D extremely dense.

    >>> [c.value for c in DensityCategory if c.dense]
    ['C', 'D']
    """

    A = "A"
    B = "B"
    C = "C"
    D = "D"

    @property
    def dense(self) -> bool:
        """True for C and D."""
        return self in (DensityCategory.C, DensityCategory.D)

    @property
    def index(self) -> int:  # type: ignore[override]  # a position among categories, not str.index
        """Position on the density axis (K) of every score array: A is 0."""
        return ord(self.value) - ord("A")

    @property
    def description(self) -> str:
        """The category in words."""
        return _DESCRIPTIONS[self.value]


_DESCRIPTIONS = {
    "A": "almost entirely fatty",
    "B": "scattered fibroglandular",
    "C": "heterogeneously dense",
    "D": "extremely dense",
}

PROJECTIONS: tuple[Projection, ...] = tuple(Projection)
CATEGORIES: tuple[DensityCategory, ...] = tuple(DensityCategory)

FUSED_LEVELS: dict[str, tuple[Projection, ...]] = {
    "right": (Projection.CC_R, Projection.MLO_R),
    "left": (Projection.CC_L, Projection.MLO_L),
    "subject": PROJECTIONS,
}
"""What is fused from which projections: each breast from its two views, the subject from all four."""

LEVELS: tuple[str, ...] = (*(p.value for p in PROJECTIONS), *FUSED_LEVELS)
"""Every row of a score table, in order: four projections, right, left, subject."""
