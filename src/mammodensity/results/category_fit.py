"""A site's own category map: percent densities of labelled exams, and the map that fits them."""

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
    """A category map fitted to a site, and what it is worth there."""

    category_map: CategoryMap
    exams: int
    agreement_default: float
    """Share of the exams whose category the default map gives."""
    agreement_refitted: float
    """The same for maps fitted to the other nine tenths of the exams."""
    refused: tuple[str, ...]
    """Images that were not used, and why."""

    @property
    def worse(self) -> bool:
        """The fitted map agrees with fewer exams than the default map."""
        return self.agreement_refitted < self.agreement_default


def fit_categories(
    data: DataSet, folder: Path, *, force: bool = False, progress: Progress | None = None
) -> CategoryFit:
    """Fit the category map of the default model to labelled exams, and write it as a model folder.

    Exams with fewer than four views count with those they have. A map that is worse than the default map is not
    written, unless ``force`` asks for it.

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
    counts = ", ".join(f"{categories.count(one)} {one}" for one in DensityCategory)
    fitted = fit_category_map(values, categories, f"fitted to {len(values)} exams of a site ({counts})")
    found = CategoryFit(
        fitted,
        len(values),
        _agreement([DEFAULT_MAP.category(value) for value in values], categories),
        _agreement(_held_out(values, categories), categories),
        tuple(refused),
    )
    facts: dict[str, Any] = {
        "exams": found.exams,
        "agreement_default_map": found.agreement_default,
        "agreement_refitted_ten_fold": found.agreement_refitted,
    }
    if force or not found.worse:
        write_category_map(folder, fitted, {**facts, "receipt": receipt("calibrate")})
    return found


def _held_out(values: Sequence[float], categories: Sequence[DensityCategory]) -> list[DensityCategory]:
    """The category of each exam by a map that has not seen it."""
    order = np.random.default_rng(0).permutation(len(values))
    found: dict[int, DensityCategory] = {}
    for fold in np.array_split(order, min(_FOLDS, len(values))):
        held = set(fold.tolist())
        rest = [index for index in range(len(values)) if index not in held]
        seen = [categories[index] for index in rest]
        fitted = fit_category_map([values[index] for index in rest], seen, "", least=2)
        found |= {index: fitted.category(values[index]) for index in held}
    return [found[index] for index in range(len(values))]


def _agreement(found: Sequence[DensityCategory], categories: Sequence[DensityCategory]) -> float:
    return sum(one == other for one, other in zip(found, categories, strict=True)) / len(categories)
