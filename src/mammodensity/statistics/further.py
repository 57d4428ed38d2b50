"""What `mammodensity evaluate` adds to the figures of merit, as one set of values for its JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mammodensity.errors import OptionError
from mammodensity.evaluation import ExamColumns, ScoreTable, match
from mammodensity.evaluation.exam_columns import column_of, match_patients, patients_of
from mammodensity.evaluation.figures import plain
from mammodensity.evaluation.resampling import BootstrapSpec
from mammodensity.statistics.challenge import ChallengeFigures, challenge_figures
from mammodensity.statistics.rejection import RejectCurve, reject_curve
from mammodensity.statistics.subgroups import Group, figures_by_group, group_values, parse_bands
from mammodensity.statistics.view_subsets import ViewSubsets, view_subsets
from mammodensity.terms import CATEGORIES, Category


@dataclass(frozen=True)
class FurtherSpec:
    """What is asked for: groups by a column, in bands (``40,50,60``) if it holds numbers; subsets of views."""

    by: str | None = None
    bands: str | None = None
    subsets: bool = False
    fusion: str = "mean"

    def __post_init__(self) -> None:
        if self.bands and not self.by:
            raise OptionError("--bands needs --by COLUMN: the column of numbers to be put into bands")


@dataclass(frozen=True)
class FurtherFigures:
    """Figures at the level of the subject; None where no exam has scores, or it was not asked for."""

    challenge: dict[str, ChallengeFigures]
    reject: RejectCurve | None
    groups: list[Group] | None
    subsets: ViewSubsets | None
    spec: FurtherSpec

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON knows, to stand beside the levels; what was not asked for is absent."""
        found: dict[str, Any] = {
            "breast_density_fl": plain(self.challenge),
            "reject_curve": None if self.reject is None else plain(self.reject),
        }
        if self.groups is not None:
            groups = [
                plain(vars(group)) | {"figures": None if group.figures is None else group.figures.to_dict()}
                for group in self.groups
            ]
            found["by"] = {"column": self.spec.by, "bands": self.spec.bands, "groups": groups}
        if self.spec.subsets:
            found["view_subsets"] = None if self.subsets is None else plain(self.subsets)
        return found


def further_figures(
    table: ScoreTable,
    labels: Mapping[str, Category],
    columns: Sequence[ExamColumns] = (),
    *,
    asked: FurtherSpec | None = None,
    spec: BootstrapSpec | None = None,
) -> FurtherFigures:
    """Compute what is asked for; patients and groups are looked for in ``columns``, the first that has them.

    Raises
    ------
    OptionError
        Bands are no rising numbers.
    TableError
        An exam has no label, patient or group, or there is no such column.
    """
    asked = asked or FurtherSpec()
    reference, scores = match(table, labels), table.scores["subject"]
    known = patients_of(columns)
    patients = None if known is None else match_patients(table.exam_ids, known)
    given = np.flatnonzero(~np.isnan(scores).any(axis=1)).tolist()
    owners = None if patients is None else [patients[exam] for exam in given]
    groups = None
    of_challenge = table.scale == CATEGORIES  # it is of A to D
    challenge = {"overall": challenge_figures(reference[given], scores[given], owners)} if of_challenge else {}
    if asked.by is not None:
        bands = parse_bands(asked.bands) if asked.bands else ()
        of_exam, names = group_values(table.exam_ids, column_of(columns, asked.by), asked.by, bands)
        groups = figures_by_group(reference, scores, (of_exam, names), patients=patients, spec=spec)
        for group in groups:
            inside = [exam for exam in given if of_exam[exam] == group.value]
            drawn = None if patients is None else [patients[exam] for exam in inside]
            name = group.value if group.value != "overall" else f"{asked.by}: overall"
            if of_challenge:
                challenge[name] = challenge_figures(reference[inside], scores[inside], drawn)
    return FurtherFigures(
        challenge=challenge,
        reject=reject_curve(reference[given], scores[given], patients=owners, spec=spec),
        groups=groups,
        subsets=view_subsets(table, reference, fusion=asked.fusion, patients=patients, spec=spec)
        if asked.subsets
        else None,
        spec=asked,
    )
