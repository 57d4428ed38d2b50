"""Exams to be prepared: where their images are, what is known of them, and the files that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mammodensity.ingest.dicom import REASONS, looks_like_dicom
from mammodensity.ingest.records import Candidate, DataSet, Refusal, reference_categories
from mammodensity.terms import Category, Projection


@dataclass(frozen=True)
class ExamSource:
    """An exam to be prepared: where its images are, and what is known of it."""

    exam_id: str
    patient_id: str
    images: Mapping[Projection, Path]
    category: Category | None = None
    split: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts of the manifest to be written; what a DICOM header says goes before them."""
    synthetic: bool = False
    """Accept 2-D images computed from tomosynthesis."""
    alternatives: Mapping[Projection, tuple[Candidate, ...]] = field(default_factory=dict)
    """The next best files of a projection."""

    breast_categories: Mapping[Projection, Category] = field(default_factory=dict)
    """The category of the breast in an image, where it is known apart from the exam's."""

    def candidates(self, projection: Projection) -> tuple[Candidate, ...]:
        """The files of a projection, best first; the first is of no code."""
        return Candidate(self.images[projection], ""), *self.alternatives.get(projection, ())


def exam_sources(data: DataSet) -> list[ExamSource]:
    """The exams of a data set of pictures or DICOM files.

    Raises
    ------
    LayoutError
        Images of one exam contradict one another.
    """
    categories = reference_categories(data)
    sources = []
    for exam_id, records in data.exams().items():
        first = next(iter(records.values()))
        images = {projection: record.path for projection, record in records.items()}
        others = {projection: record.alternatives for projection, record in records.items() if record.alternatives}
        synthetic = any(record.synthetic for record in records.values()) or any(
            one.synthetic for several in others.values() for one in several
        )
        category = categories.get(exam_id)
        breasts = {name: one.breast_category for name, one in records.items() if one.breast_category}
        sources.append(
            ExamSource(exam_id, first.patient_id, images, category, first.split, {}, synthetic, others, breasts)
        )
    return sources


def refused_files(data: DataSet) -> list[Refusal]:
    """Every file that is none of an exam's images, with its code."""
    return [*data.refused, *(_no_image(path) for path in data.ignored)]


def _no_image(path: Path) -> Refusal:
    code = "dicomdir" if looks_like_dicom(path) else "not-dicom"
    return Refusal(path, code, f"{path}: {REASONS[code]}")


def found_images(data: DataSet) -> dict[str, Any]:
    """What a data set holds, as JSON values, in the form of a public data set's list."""
    exams = [
        {
            "exam_id": exam.exam_id,
            "patient_id": exam.patient_id,
            "projections": [projection.value for projection in exam.images],
            "density": exam.category.value if exam.category else None,
            "split": exam.split,
            "files": {projection.value: str(path) for projection, path in exam.images.items()},
        }
        for exam in exam_sources(data)
    ]
    refused = [{"path": str(one.path), "code": one.code, "text": one.text} for one in refused_files(data)]
    summary = {"exams": len(exams), "images": len(data.records), "refused": len(refused)}
    return {"dataset": data.layout, "tables": [], "exams": exams, "refused": refused, "summary": summary}
