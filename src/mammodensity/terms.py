"""The vocabulary: projections, density categories and tissue categories, and their one order.

Standard library only, so that every other module can import it.

References
----------
Projection = image laterality (DICOM 0020,0062) and view position (0018,5101). Density categories: ACR BI-RADS Atlas,
5th edition (2013), "breast composition". Tissue categories: Suckling et al., The mini-MIAS database of mammograms
(1994), "character of background tissue".
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


class TissueCategory(StrEnum):
    """Background tissue of the MIAS data sets: three categories, which are not A to D and become none of them."""

    F = "F"
    G = "G"
    D = "D"

    @property
    def dense(self) -> bool:
        """True for D, which its data set calls dense."""
        return self is TissueCategory.D

    @property
    def index(self) -> int:  # type: ignore[override]  # a position among categories, not str.index
        """Position on the density axis (K) of a score array of three: F is 0."""
        return "FGD".index(self.value)

    @property
    def description(self) -> str:
        """The category in words."""
        return {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}[self.value]


Category = DensityCategory | TissueCategory
"""What an exam may be: of a density, or of what a data set with categories of its own calls it."""
Scale = tuple[Category, ...]
"""Categories from the least to the most dense."""

PROJECTIONS: tuple[Projection, ...] = tuple(Projection)
CATEGORIES: tuple[DensityCategory, ...] = tuple(DensityCategory)
TISSUE_CATEGORIES: tuple[TissueCategory, ...] = tuple(TissueCategory)
SCALES: dict[int, Scale] = {len(scale): scale for scale in (CATEGORIES, TISSUE_CATEGORIES)}
"""By the length of the density axis: an array of four scores is of A to D, one of three of F, G and D."""


FUSED_LEVELS: dict[str, tuple[Projection, ...]] = {
    "right": (Projection.CC_R, Projection.MLO_R),
    "left": (Projection.CC_L, Projection.MLO_L),
    "subject": PROJECTIONS,
}
"""What is fused from which projections: each breast from its two views, the subject from all four."""

LEVELS: tuple[str, ...] = (*(p.value for p in PROJECTIONS), *FUSED_LEVELS)
"""Every row of a score table, in order: four projections, right, left, subject."""
