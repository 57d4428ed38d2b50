"""What missing views cost: every combination of the four projections, fused and measured on the same exams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mammodensity.calibration import held_out_set_size
from mammodensity.evaluation.agreement import Floats, confusion_figures, confusion_matrices
from mammodensity.evaluation.resampling import BootstrapSpec, canonical_order, percentile_interval, resamples
from mammodensity.evaluation.tables import ScoreTable
from mammodensity.fusion import fuse
from mammodensity.terms import PROJECTIONS, Projection

SUBSET_FIGURES = ("accuracy", "linear_kappa", "quadratic_kappa", "dense_accuracy", "mean_confidence")
_Figures = dict[str, Floats]


@dataclass(frozen=True)
class SubsetFigures:
    """Figures of one combination of views, or their mean over the combinations of as many views.

    NaN (null in JSON) where undefined: a kappa when reference and prediction hold one and the same category only.
    """

    views: tuple[Projection, ...]
    accuracy: float
    linear_kappa: float
    quadratic_kappa: float
    dense_accuracy: float
    mean_confidence: float
    intervals: dict[str, tuple[float, float] | None]
    mean_set_size: float
    """Categories in the 90 % prediction set, by held-out calibration; NaN for fewer than 20 exams."""


@dataclass(frozen=True)
class ViewSubsets:
    """Every combination of views on the ``n`` exams that have all of them; ``left_out`` exams lack a view.

    ``by_number`` maps 1 to 4 views to the mean of the combinations of so many, with the interval of that mean.
    """

    n: int
    left_out: int
    fusion: str
    combinations: tuple[SubsetFigures, ...]
    by_number: dict[int, SubsetFigures]


def view_subsets(
    table: ScoreTable,
    reference: NDArray[np.intp],
    *,
    fusion: str = "mean",
    patients: Sequence[str] | None = None,
    spec: BootstrapSpec | None = None,
) -> ViewSubsets | None:
    """Fuse and measure all 15 combinations of 1 to 4 projections; None where no exam has all four.

    ``reference`` (N,) and ``patients`` are in the order of the table's exams.
    """
    views = np.stack([table.scores[projection] for projection in PROJECTIONS], axis=1)  # (N, V, K)
    whole = np.flatnonzero(~np.isnan(views).any(axis=(1, 2)))
    if not len(whole):
        return None
    spec = spec or BootstrapSpec()
    views, reference = views[whole], reference[whole]
    owners = None if patients is None else [patients[exam] for exam in whole.tolist()]
    order, cluster = canonical_order(np.column_stack([reference, views.reshape(len(whole), -1)]), owners)
    views, reference = views[order], reference[order]
    subsets = [
        subset for size in range(1, len(PROJECTIONS) + 1) for subset in combinations(range(len(PROJECTIONS)), size)
    ]
    fused = [fuse(views[:, subset, :], fusion) for subset in subsets]
    point = _all_figures(reference, fused, subsets, np.ones((1, len(whole))))
    chunks = [_all_figures(reference, fused, subsets, counts) for counts in resamples(cluster, spec)]
    sizes: dict[tuple[int, ...] | int, float] = {
        subset: held_out_set_size(scores, reference) for subset, scores in zip(subsets, fused, strict=True)
    }
    for size in range(1, len(PROJECTIONS) + 1):
        sizes[size] = float(np.mean([sizes[subset] for subset in subsets if len(subset) == size]))

    def measured(key: tuple[int, ...] | int, named: tuple[Projection, ...]) -> SubsetFigures:
        values = {name: float(point[key][name][0]) for name in SUBSET_FIGURES}
        intervals = {
            name: percentile_interval(value, np.concatenate([chunk[key][name] for chunk in chunks]), spec.confidence)
            for name, value in (values.items() if chunks else ())
        }
        return SubsetFigures(named, **values, intervals=intervals, mean_set_size=sizes[key])

    return ViewSubsets(
        n=len(whole),
        left_out=len(table.exam_ids) - len(whole),
        fusion=fusion,
        combinations=tuple(measured(subset, tuple(PROJECTIONS[view] for view in subset)) for subset in subsets),
        by_number={size: measured(size, ()) for size in range(1, len(PROJECTIONS) + 1)},
    )


def _all_figures(
    reference: NDArray[np.intp], fused: Sequence[Floats], subsets: Sequence[tuple[int, ...]], counts: Floats
) -> dict[tuple[int, ...] | int, _Figures]:
    """Figures by combination, and their means by number of views."""
    found: dict[tuple[int, ...] | int, _Figures] = {}
    exams = counts.sum(axis=1)
    for subset, scores in zip(subsets, fused, strict=True):
        figures = confusion_figures(confusion_matrices(reference, scores.argmax(axis=1), counts, scores.shape[1]))
        figures["mean_confidence"] = counts @ scores.max(axis=1) / exams
        found[subset] = {name: figures[name] for name in SUBSET_FIGURES}
    for size in range(1, len(PROJECTIONS) + 1):
        alike = [found[subset] for subset in subsets if len(subset) == size]
        found[size] = {name: np.mean([one[name] for one in alike], axis=0) for name in SUBSET_FIGURES}
    return found
