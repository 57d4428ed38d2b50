"""Figures of merit by vendor, age, thickness, site or any other column of a table.

What missing views cost: every combination of the four projections, fused and measured on the same exams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError, TableError
from mammodensity.evaluation.agreement import Floats, confusion_figures, confusion_matrices
from mammodensity.evaluation.bootstrap import STANDARD_BOOTSTRAP, BootstrapSpec, Figure, canonical_order, measure, plain
from mammodensity.evaluation.figures import FiguresOfMerit, measure_exams
from mammodensity.evaluation.labels import look_up
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.inputs import as_number
from mammodensity.results.cross_validation import held_out_set_size
from mammodensity.scores import fuse
from mammodensity.studies.readings import few_warnings
from mammodensity.terms import DENSITY, PROJECTIONS, Projection

NOT_GIVEN = "(not given)"

_MOST_NUMBERS = 12
_MOST_WORDS = 60


@dataclass(frozen=True)
class Group:
    """Figures of the exams with one value of a column; ``figures`` is None where none of them has scores."""

    value: str
    n: int
    figures: FiguresOfMerit | None
    warnings: tuple[str, ...]


def parse_bands(text: str) -> tuple[float, ...]:
    """Limits between bands, as ``40,50,60``: below 40, 40 to below 50, and so on.

    Raises
    ------
    OptionError
        They are not rising numbers.
    """
    limits = tuple(as_number(part) for part in text.split(","))
    numbers = tuple(limit for limit in limits if limit is not None)
    if len(numbers) != len(limits) or any(low >= high for low, high in pairwise(numbers)):
        raise OptionError(f"--bands must be rising numbers separated by commas, as 40,50,60. Got {text!r} instead.")
    return numbers


def group_values(
    exam_ids: Sequence[str], texts: Mapping[str, str], column: str, bands: Sequence[float] = ()
) -> tuple[list[str], list[str]]:
    """Put exams into groups: the group of each exam, and all groups in order.

    Numbers are ordered as numbers, words by letters; exams without a value come last, as a group of their own.

    Raises
    ------
    TableError
        An exam is not in the table; with bands, a value is no number; without, there are too many different ones.
    """
    advice = "add them, with a blank where it is not known"
    values = look_up(exam_ids, texts, f"are not in the table with column {column}", advice)
    if bands:
        groups = [_band(text, column, bands) or NOT_GIVEN for text in values]
        return groups, [*(_band_name(place, bands) for place in range(len(bands) + 1)), NOT_GIVEN]
    distinct = {text for text in values if text}
    numbers = {text: number for text in distinct if (number := as_number(text)) is not None}
    if len(numbers) == len(distinct) > _MOST_NUMBERS:
        raise TableError(
            f"column {column} has {len(distinct)} different numbers, expected at most {_MOST_NUMBERS} groups; give the "
            "limits of bands, for instance --bands 40,50,60"
        )
    if len(distinct) > _MOST_WORDS:
        raise TableError(
            f"column {column} has {len(distinct)} different values, expected at most {_MOST_WORDS} groups; name a "
            "column that puts exams into groups"
        )
    ordered = sorted(distinct, key=lambda text: (text not in numbers, numbers.get(text, 0.0), text))
    return [text or NOT_GIVEN for text in values], [*ordered, NOT_GIVEN]


def figures_by_group(
    reference: NDArray[np.intp],
    scores: Floats,
    groups: tuple[Sequence[str], Sequence[str]],
    *,
    patients: Sequence[str] | None = None,
    spec: BootstrapSpec = STANDARD_BOOTSTRAP,
) -> list[Group]:
    """Measure each group that has an exam, in order; exams without scores are counted in its ``n`` only.

    ``groups`` is what `group_values` returns. Each group is resampled by itself.
    """
    of_exam, names = np.array(groups[0], dtype=object), groups[1]
    scored = ~np.isnan(scores).any(axis=1)
    measured = []
    for name in names:
        inside = of_exam == name
        exams, chosen = int(inside.sum()), np.flatnonzero(inside & scored).tolist()
        if exams and not chosen:
            measured.append(Group(name, exams, None, ("no exam has scores",)))
        if not chosen:
            continue
        drawn = None if patients is None else [patients[exam] for exam in chosen]
        figures = measure_exams(reference[chosen], scores[chosen], drawn, spec)
        figures = replace(figures, n_not_given=exams - len(chosen))
        absent = [category.value for category in figures.scale if not sum(figures.confusion[category.index])]
        lacking = (f"no exam of category {', '.join(absent)}",) if absent else ()
        measured.append(Group(name, exams, figures, (*few_warnings(figures.n, figures.patients), *lacking)))
    return measured


def _band(text: str, column: str, bands: Sequence[float]) -> str:
    if not text:
        return ""
    number = as_number(text)
    if number is None:
        raise TableError(f"column {column} holds {text!r}, expected numbers, as --bands is given")
    return _band_name(sum(limit <= number for limit in bands), bands)


def _band_name(place: int, bands: Sequence[float]) -> str:
    if place == 0:
        return f"below {bands[0]:g}"
    if place == len(bands):
        return f"{bands[-1]:g} and above"
    return f"{bands[place - 1]:g} to below {bands[place]:g}"


SUBSET_FIGURES = ("accuracy", "linear_kappa", "quadratic_kappa", "dense_accuracy", "mean_confidence")
_Subset = tuple[int, ...] | int  # positions of views, or for a mean their number


@dataclass(frozen=True)
class SubsetFigures:
    """`SUBSET_FIGURES` of one combination of views, or their mean over the combinations of as many views.

    A kappa is undefined where reference and prediction hold one and the same category only.
    """

    views: tuple[Projection, ...]
    figures: dict[str, Figure]
    mean_set_size: float
    """Categories in the 90 % prediction set, by held-out calibration; NaN for fewer than 20 exams, or F, G and D."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, null for NaN."""
        return {
            "views": plain(self.views),
            **{name: plain(figure.value) for name, figure in self.figures.items()},
            "intervals": {name: plain(figure.interval) for name, figure in self.figures.items()},
            "mean_set_size": plain(self.mean_set_size),
        }


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
    spec: BootstrapSpec = STANDARD_BOOTSTRAP,
) -> ViewSubsets | None:
    """Fuse and measure all 15 combinations of 1 to 4 projections; None where no exam has all four.

    ``reference`` (N,) and ``patients`` are in the order of the table's exams.
    """
    views = np.stack([table.scores[projection] for projection in PROJECTIONS], axis=1)  # (N, V, K)
    whole = np.flatnonzero(~np.isnan(views).any(axis=(1, 2)))
    if not len(whole):
        return None
    views, reference = views[whole], reference[whole]
    owners = None if patients is None else [patients[exam] for exam in whole.tolist()]
    order, cluster = canonical_order(np.column_stack([reference, views.reshape(len(whole), -1)]), owners)
    views, reference = views[order], reference[order]
    subsets = [
        subset for size in range(1, len(PROJECTIONS) + 1) for subset in combinations(range(len(PROJECTIONS)), size)
    ]
    fused = [fuse(views[:, subset, :], fusion) for subset in subsets]
    figures = measure(lambda counts: _all_figures(reference, fused, subsets, counts), cluster, spec)
    of_density = table.scale == DENSITY  # calibration is for A to D
    sizes: dict[_Subset, float] = {
        subset: held_out_set_size(scores, reference) if of_density else nan
        for subset, scores in zip(subsets, fused, strict=True)
    }
    for size in range(1, len(PROJECTIONS) + 1):
        sizes[size] = float(np.mean([sizes[subset] for subset in subsets if len(subset) == size]))

    def measured(key: _Subset, views: tuple[Projection, ...]) -> SubsetFigures:
        return SubsetFigures(views, {name: figures[key, name] for name in SUBSET_FIGURES}, sizes[key])

    return ViewSubsets(
        n=len(whole),
        left_out=len(table.exam_ids) - len(whole),
        fusion=fusion,
        combinations=tuple(measured(subset, tuple(PROJECTIONS[view] for view in subset)) for subset in subsets),
        by_number={size: measured(size, ()) for size in range(1, len(PROJECTIONS) + 1)},
    )


def _all_figures(
    reference: NDArray[np.intp], fused: Sequence[Floats], subsets: Sequence[tuple[int, ...]], counts: Floats
) -> dict[tuple[_Subset, str], Floats]:
    """Figures by combination, and their means by number of views."""
    values: dict[tuple[_Subset, str], Floats] = {}
    exams = counts.sum(axis=1)
    for subset, scores in zip(subsets, fused, strict=True):
        figures = confusion_figures(confusion_matrices(reference, scores.argmax(axis=1), counts, scores.shape[1]))
        figures["mean_confidence"] = counts @ scores.max(axis=1) / exams
        values |= {(subset, name): figures[name] for name in SUBSET_FIGURES}
    for size in range(1, len(PROJECTIONS) + 1):
        alike = [subset for subset in subsets if len(subset) == size]
        values |= {(size, name): np.mean([values[subset, name] for subset in alike], axis=0) for name in SUBSET_FIGURES}
    return values
