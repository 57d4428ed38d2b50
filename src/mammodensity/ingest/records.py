"""The images of a data set, before any pixel is read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mammodensity.errors import LayoutError
from mammodensity.terms import (
    CATEGORIES,
    PROJECTIONS,
    TISSUE_CATEGORIES,
    Category,
    DensityCategory,
    Projection,
    Scale,
    TissueCategory,
)

_LEVELS_UP = 4  # from an image to the folder of the data set: class, split, projection
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Candidate:
    """Another file of the projection of an exam, usable as far as its header says."""

    path: Path
    code: str
    """``duplicate`` or ``other-image-chosen``: why another file is taken before it."""
    synthetic: bool = False


@dataclass(frozen=True)
class ImageRecord:
    """One image of a data set."""

    exam_id: str
    patient_id: str
    projection: Projection
    path: Path
    category: Category | None = None
    """Reference category of the exam; None where the data set gives none."""
    split: str | None = None
    """``train``, ``validation`` or ``test``; None before the data set is split."""
    synthetic: bool = False
    """True for a 2-D image computed from tomosynthesis, which was asked for."""
    alternatives: tuple[Candidate, ...] = ()
    """The next best files: only its pixels tell whether the first can be used."""
    breast_category: Category | None = None
    """Reference category of this breast alone, where it is known."""


@dataclass(frozen=True)
class Refusal:
    """A file that is refused."""

    path: Path
    code: str
    text: str
    exam_id: str | None = None
    projection: Projection | None = None


@dataclass(frozen=True)
class DataSet:
    """The images found under one folder or manifest."""

    root: Path
    layout: str
    """How it is arranged, in words for the user."""
    records: tuple[ImageRecord, ...]
    ignored: tuple[Path, ...] = ()
    """Files seen that are no images."""
    refused: tuple[Refusal, ...] = ()
    """DICOM files and pictures that the gatekeeper refused."""

    @property
    def scale(self) -> Scale:
        """The categories that its images are of; A to D where none has one."""
        own = any(isinstance(record.category, TissueCategory) for record in self.records)
        return TISSUE_CATEGORIES if own else CATEGORIES

    def exams(self) -> dict[str, dict[Projection, ImageRecord]]:
        """Records by exam and projection, exams in sorted order.

        Raises
        ------
        LayoutError
            Two images claim the same projection of one exam.
        """
        exams: dict[str, dict[Projection, ImageRecord]] = defaultdict(dict)
        for record in self.records:
            other = exams[record.exam_id].setdefault(record.projection, record)
            if other is not record:
                raise LayoutError(
                    f"exam {record.exam_id} has two {record.projection} images, "
                    f"{other.path} and {record.path}; keep one"
                )
        return {exam_id: exams[exam_id] for exam_id in sorted(exams)}

    def in_split(self, split: str | None) -> DataSet:
        """The part in one split, or all of it for None."""
        if split is None:
            return self
        records = tuple(record for record in self.records if record.split == split)
        return DataSet(self.root, self.layout, records, self.ignored, self.refused)

    def first_exams(self, count: int | None) -> DataSet:
        """The first ``count`` exams in sorted order, or all for None."""
        return self if count is None else self.of_exams(list(self.exams())[:count])

    def of_exams(self, exam_ids: Iterable[str]) -> DataSet:
        """Only these exams."""
        chosen = set(exam_ids)
        records = tuple(record for record in self.records if record.exam_id in chosen)
        return DataSet(self.root, self.layout, records, self.ignored, self.refused)


def holds_phantoms(data: DataSet) -> bool:
    """True when the images are synthetic: the receipt that ``mammodensity phantom`` left lies above one of them."""
    folders = {record.path.parent for record in data.records}
    roots = {above for folder in folders for above in [folder, *folder.parents][:_LEVELS_UP]}
    return any(_is_phantom_receipt(root / "receipt.json") for root in roots)


def _is_phantom_receipt(path: Path) -> bool:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # a stranger's file of that name says nothing about phantoms
    return isinstance(facts, dict) and facts.get("command") == "phantom"


def require_complete(data: DataSet) -> None:
    """Raise ``LayoutError`` unless every exam has all four projections."""
    for exam_id, records in data.exams().items():
        missing = [projection.value for projection in PROJECTIONS if projection not in records]
        if missing:
            raise LayoutError(
                f"exam {exam_id} lacks {', '.join(missing)}; the origin's text files need four views of every exam, "
                "leave the exam out or write the CSV table alone"
            )


def reference_categories(data: DataSet) -> dict[str, Category]:
    """The reference category of every exam that has one.

    Raises
    ------
    LayoutError
        The images of one exam disagree.
    """
    found: dict[str, Category] = {}
    for record in data.records:
        if record.category is None:
            continue
        other = found.setdefault(record.exam_id, record.category)
        if other != record.category:
            raise LayoutError(
                f"exam {record.exam_id} is {other} in one image and {record.category} in {record.path}; "
                "an exam has one category, correct the data set"
            )
    return found


def reference_densities(data: DataSet) -> dict[str, DensityCategory]:
    """Do what `reference_categories` does, for what is made for the categories A to D only.

    Raises
    ------
    LayoutError
        As of `reference_categories`; or the categories are F, G and D.
    """
    found = reference_categories(data)
    densities = {exam: category for exam, category in found.items() if isinstance(category, DensityCategory)}
    if len(densities) < len(found):
        raise LayoutError(
            f"{data.root} has the categories {', '.join(data.scale)}; expected the density categories A to D"
        )
    return densities
