"""The vocabulary: projections, density categories and tissue categories, and their one order.

Every other module can import it: it needs the standard library only.

References
----------
Projection = image laterality (DICOM 0020,0062) and view position (0018,5101). Density categories: ACR BI-RADS Atlas,
5th edition (2013), "breast composition". Tissue categories: Suckling et al., The mini-MIAS database of mammograms
(1994), "character of background tissue".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from mammodensity.errors import TableError

RESEARCH_USE_ONLY = "Research use only. Not a medical device."
"""Shown wherever a result is shown."""


class Projection(StrEnum):
    """One of the four standard views of a screening exam, named as the INFN reference names its folders.

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

    @property
    def scale(self) -> Scale:
        """`DENSITY`, the scale of this category."""
        return DENSITY


_DESCRIPTIONS = {
    "A": "almost entirely fatty",
    "B": "scattered fibroglandular",
    "C": "heterogeneously dense",
    "D": "extremely dense",
}


class TissueCategory(StrEnum):
    """Background tissue of the MIAS data sets: three categories, which cannot be converted to A to D."""

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

    @property
    def scale(self) -> Scale:
        """`TISSUE`, the scale of this category."""
        return TISSUE


Category = DensityCategory | TissueCategory
"""The category of an exam: its density, or the background tissue where the data set has that instead."""


@dataclass(frozen=True)
class Scale:
    """Categories from the least to the most dense: `DENSITY` (A to D) or `TISSUE` (F, G, D).

    A scale iterates over its categories, and ``scale[index]`` is the category at that position of a score array.

    >>> print(TISSUE, TISSUE.dense, TISSUE.named("g"), TISSUE.named("A"))
    F, G, D (False, False, True) G None
    """

    name: str
    """``density`` or ``tissue``: also the column that holds the category in a table of labels or a manifest."""
    categories: tuple[Category, ...]

    @staticmethod
    def of(count: int) -> Scale:
        """The scale with ``count`` categories, for score arrays that come from outside without their scale.

        Raises
        ------
        TableError
            No scale has so many.
        """
        scale = next((scale for scale in SCALES if len(scale) == count), None)
        if scale is None:
            raise TableError(f"scores must be 4 (A, B, C, D) or 3 (F, G, D) an exam. Got {count} instead.")
        return scale

    def __iter__(self) -> Iterator[Category]:
        return iter(self.categories)

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, index: int) -> Category:
        return self.categories[index]

    def __str__(self) -> str:
        return ", ".join(self.categories)

    @property
    def letters(self) -> tuple[str, ...]:
        """The categories as plain text."""
        return tuple(category.value for category in self.categories)

    @property
    def dense(self) -> tuple[bool, ...]:
        """Mask of the dense categories, in order, for the last axis of a score array."""
        return tuple(category.dense for category in self.categories)

    def named(self, letter: str) -> Category | None:
        """The category with this letter, capital or small; None where there is none."""
        return next((category for category in self.categories if category.value == letter.upper()), None)


PROJECTIONS: tuple[Projection, ...] = tuple(Projection)
CATEGORIES: tuple[DensityCategory, ...] = tuple(DensityCategory)
TISSUE_CATEGORIES: tuple[TissueCategory, ...] = tuple(TissueCategory)
DENSITY = Scale("density", CATEGORIES)
TISSUE = Scale("tissue", TISSUE_CATEGORIES)
SCALES: tuple[Scale, ...] = (DENSITY, TISSUE)


FUSED_LEVELS: dict[str, tuple[Projection, ...]] = {
    "right": (Projection.CC_R, Projection.MLO_R),
    "left": (Projection.CC_L, Projection.MLO_L),
    "subject": PROJECTIONS,
}
"""The projections that each fused level is made of: a breast of its two views, the subject of all four."""

LEVELS: tuple[str, ...] = (*(p.value for p in PROJECTIONS), *FUSED_LEVELS)
"""Every row of a score table, in order: four projections, right, left, subject."""

LEVEL_WORDS: Mapping[str, str] = {
    **{projection.value: projection.value for projection in PROJECTIONS},
    "right": "right breast",
    "left": "left breast",
    "subject": "whole exam",
}
"""Each level in words."""
