"""Category fit: the category map that fits the percent densities of labelled exams of a site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammodensity.anatomy.density import DEFAULT_MAP, LEAST_EXAMS, CategoryMap, fit_category_map
from mammodensity.data.dataset import DataSet, reference_densities
from mammodensity.errors import ImageError, OutputError, TableError
from mammodensity.models.checkpoint import joint_file, network_files
from mammodensity.models.default import TissueModel, write_category_map
from mammodensity.models.scoring import predict
from mammodensity.outputs import receipt
from mammodensity.terms import DensityCategory
from mammodensity.workers import Progress

ENOUGH_EXAMS = 20
_FOLDS = 10


@dataclass(frozen=True)
class CategoryFit:
    """A category map fitted to the exams of a site, and its agreement with their reference categories."""

    category_map: CategoryMap
    exams: int
    agreement_default: float
    """Share of exams to which the default map gives their reference category."""
    agreement_refitted: float
    """The same for maps fitted to the other nine tenths of the exams."""
    refused: tuple[str, ...]
    """Why images could not be used, a line each."""

    @property
    def worse(self) -> bool:
        """True when the fitted map agrees with fewer exams than the default map."""
        return self.agreement_refitted < self.agreement_default


def fit_categories(
    data: DataSet, folder: Path, *, force: bool = False, progress: Progress | None = None
) -> CategoryFit:
    """Fit the category map of the default model to labelled exams, and write it into a model folder.

    Exams with fewer than four views are used with the views they have. A map that is worse than the default map is
    written only with ``force``.

    Raises
    ------
    OutputError
        The folder holds trained networks.
    TableError
        Fewer than 10 labelled exams can be used, or all are of one category.
    """
    if network_files(folder) or joint_file(folder):
        raise OutputError(f"{folder} holds trained networks, which have no category map; name another folder")
    reference = reference_densities(data)
    if len(reference) < LEAST_EXAMS:
        raise TableError(f"at least {LEAST_EXAMS} labelled exams are needed. Got {len(reference)} instead.")
    percents: dict[str, float] = {}
    refused: list[str] = []
    labelled = data.of_exams(reference)
    for done, exam in enumerate(predict(TissueModel(), labelled, allow_missing=True), start=1):
        refused += exam.refused.values()
        if "subject" in exam.percent_density:
            percents[exam.exam_id] = exam.percent_density["subject"]
        if progress:
            progress(done, len(reference))
    if not percents:
        raise ImageError(refused[0])
    categories = [reference[exam_id] for exam_id in percents]
    values = list(percents.values())
    counts = ", ".join(f"{categories.count(category)} {category}" for category in DensityCategory)
    fitted = fit_category_map(values, categories, f"fitted to {len(values)} exams of a site ({counts})")
    fit = CategoryFit(
        fitted,
        len(values),
        _agreement([DEFAULT_MAP.category(value) for value in values], categories),
        _agreement(_held_out(values, categories), categories),
        tuple(refused),
    )
    if force or not fit.worse:
        facts: dict[str, Any] = {
            "exams": fit.exams,
            "agreement_default_map": fit.agreement_default,
            "agreement_refitted_ten_fold": fit.agreement_refitted,
            "receipt": receipt("calibrate"),
        }
        write_category_map(folder, fitted, facts)
    return fit


def _held_out(percents: Sequence[float], categories: Sequence[DensityCategory]) -> list[DensityCategory]:
    """Category of each exam by a map that was fitted to other exams."""
    values, references = np.array(percents), np.array(categories, dtype=object)
    predicted = np.empty_like(references)
    for held in np.array_split(np.random.default_rng(0).permutation(len(values)), min(_FOLDS, len(values))):
        rest = np.setdiff1d(np.arange(len(values)), held)
        fitted = fit_category_map(values[rest].tolist(), references[rest].tolist(), "", least=2)
        predicted[held] = [fitted.category(value) for value in values[held]]
    return list(predicted)


def _agreement(predicted: Sequence[DensityCategory], categories: Sequence[DensityCategory]) -> float:
    pairs = zip(predicted, categories, strict=True)
    return sum(category == reference for category, reference in pairs) / len(categories)
