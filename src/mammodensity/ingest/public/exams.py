"""What the tables of a public data set say: a row of an image, an exam, a reason why something is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mammodensity.terms import DensityCategory, Projection, TissueCategory

NO_DENSITY = "no-density"
CONTRADICTING_DENSITY = "contradicting-density"


@dataclass(frozen=True)
class ImageRow:
    """What one row of a table says of one image."""

    exam_id: str
    patient_id: str
    image: str
    """The data set's own name of the image: an identifier, or a path in its archive."""
    laterality: str | None
    """``"R"``, ``"L"``; None where nothing says."""
    view: str
    """As the table has it."""
    densities: frozenset[DensityCategory] = frozenset()
    """The category; empty where nobody rated it, more than one where the table contradicts itself."""
    tissue: TissueCategory | None = None
    split: str | None = None
    preference: tuple[Any, ...] = ()
    """Of several images of a projection the one with the smallest is taken."""
    mirrored: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    """What a manifest keeps: age, vendor, model, site."""


@dataclass(frozen=True)
class ImageEntry:
    """The image chosen for one projection of an exam."""

    projection: Projection
    image: str
    density: DensityCategory | None = None
    """What the rows of this image say; None where they say nothing, or where categories are given by exam."""
    tissue: TissueCategory | None = None
    mirrored: bool = False
    """True where the data set stores the image as in a mirror: left and right of the picture are exchanged."""


@dataclass(frozen=True)
class PublicExam:
    """One exam of a public data set, as its tables describe it; no image has been looked for."""

    exam_id: str
    patient_id: str
    images: Mapping[Projection, ImageEntry]
    density: DensityCategory | None = None
    density_of_breast: Mapping[str, DensityCategory] = field(default_factory=dict)
    """By ``"R"`` and ``"L"``; empty where the data set rates whole exams."""
    tissue: TissueCategory | None = None
    """The same of a data set whose categories are F, G and D."""
    tissue_of_breast: Mapping[str, TissueCategory] = field(default_factory=dict)
    split: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    unlabelled: str | None = None
    """``no-density`` or ``contradicting-density`` where there is no category."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        values: dict[str, Any] = {
            "exam_id": self.exam_id,
            "patient_id": self.patient_id,
            "projections": [projection.value for projection in self.images],
            "density": self.density,
            "density_right": self.density_of_breast.get("R"),
            "density_left": self.density_of_breast.get("L"),
            "split": self.split,
            "images": {projection.value: entry.image for projection, entry in self.images.items()},
            "facts": dict(self.facts),
        }
        if self.tissue_of_breast:
            values["tissue"] = self.tissue
            values["tissue_right"] = self.tissue_of_breast.get("R")
            values["tissue_left"] = self.tissue_of_breast.get("L")
            values["mirrored"] = any(entry.mirrored for entry in self.images.values())
        return values


@dataclass(frozen=True)
class Reason:
    """Why so many images, rows or exams are left out, or what a rule was used for."""

    code: str
    """Stable name; ``docs/public-data.md`` explains each."""
    text: str
    count: int
    unit: str
    """``images``, ``rows`` or ``exams``."""


class Tally:
    """Counts reasons while a table is read."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, code: str, text: str, count: int = 1, unit: str = "images") -> None:
        """Count so many more for this reason; 0 counts nothing."""
        if count:
            self._counts[code, text, unit] = self._counts.get((code, text, unit), 0) + count

    def reasons(self) -> tuple[Reason, ...]:
        """What was counted, in order of code and text."""
        return tuple(Reason(code, text, n, unit) for (code, text, unit), n in sorted(self._counts.items()))


@dataclass(frozen=True)
class PublicData:
    """The exams of a public data set, and what its tables have that is no part of them."""

    dataset: str
    tables: tuple[Path, ...]
    exams: tuple[PublicExam, ...]
    left_out: tuple[Reason, ...]
    notes: tuple[Reason, ...]
    """How often a rule decided something; nothing is left out by these."""
