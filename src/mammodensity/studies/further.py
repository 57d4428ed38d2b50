"""The figures of the federated breast density challenge, under its names, so that results can be set beside its own.

References
----------
Schmidt, K. et al. (2024). Fair evaluation of federated learning algorithms for automated breast density classification:
the results of the 2022 ACR-NCI-NVIDIA federated learning challenge. Medical Image Analysis, 103206. It reports
submissions by linear kappa. Names and definitions: the challenge's evaluation script, ``challenge_evaluate.py`` in the
repository Project-MONAI/tutorials, folder federated_learning/breast_density_challenge.

What `mammodensity evaluate` adds to the figures of merit, as one set of values for its JSON file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError
from mammodensity.evaluation.agreement import Floats, area_under_roc, confusion_matrices, weighted_kappa
from mammodensity.evaluation.bootstrap import BootstrapSpec, Figure, plain
from mammodensity.evaluation.figures import undefined_reason
from mammodensity.evaluation.labels import ExamColumns, column_of, match, match_patients, patients_of
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.studies.groups import Group, ViewSubsets, figures_by_group, group_values, parse_bands, view_subsets
from mammodensity.studies.triage import RejectCurve, reject_curve
from mammodensity.terms import CATEGORIES, DENSITY, Category

CHALLENGE_FIGURES = ("linear_kappa", "quadratic_kappa", "auc", "avg_lin_dist", "avg_quad_dist")
_SEVERAL = "a patient has exams of different reference categories, which the challenge does not allow"


@dataclass(frozen=True)
class ChallengeFigures:
    """The challenge's figures, one prediction a patient: the mean of the scores of her exams.

    ``linear_kappa`` and ``quadratic_kappa`` are Cohen's; ``auc`` is that of the score C + D for dense (our
    ``dense_auc``, not our ``auc``); ``avg_lin_dist`` and ``avg_quad_dist`` are the mean distance and squared distance
    in categories, with a minus sign, so that higher is better. NaN where undefined, with the reason.
    """

    n: int
    figures: dict[str, Figure]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, null for NaN."""
        values = {name: plain(figure.value) for name, figure in self.figures.items()}
        undefined = {name: figure.reason for name, figure in self.figures.items() if figure.reason}
        return {"n": self.n, **values, "undefined": undefined}


def challenge_figures(
    reference: NDArray[np.intp], scores: Floats, patients: Sequence[str] | None = None
) -> ChallengeFigures:
    """Compute the challenge's figures: positions of categories (N,), scores (N, 4), and the patient of each exam.

    Without ``patients`` each exam counts as one. The predicted category is that of the highest mean score.
    """
    names = [str(exam) for exam in range(len(reference))] if patients is None else patients
    merged = _merge(reference, scores, names)
    if merged is None:
        undefined = Figure(nan, n=len(set(names)), reason=_SEVERAL)
        return ChallengeFigures(undefined.n, dict.fromkeys(CHALLENGE_FIGURES, undefined))
    true, mean = merged
    everyone = np.ones((1, len(true)))
    dense = np.array(DENSITY.dense)
    predicted = mean.argmax(axis=1)
    confusion = confusion_matrices(true, predicted, everyone)
    distance = np.abs(true - predicted)
    values = {
        "linear_kappa": float(weighted_kappa(confusion, power=1)[0]),
        "quadratic_kappa": float(weighted_kappa(confusion, power=2)[0]),
        "auc": float(area_under_roc(dense[true], mean[:, dense].sum(axis=1), everyone)[0]),
        "avg_lin_dist": float(-distance.mean()) if len(true) else nan,
        "avg_quad_dist": float(-(distance**2).mean()) if len(true) else nan,
    }

    def reason(name: str) -> str | None:
        if not np.isnan(values[name]):
            return None
        known = {"auc": "dense_auc", "avg_lin_dist": "accuracy", "avg_quad_dist": "accuracy"}
        return undefined_reason(known.get(name, name), confusion[0].astype(int))

    n = len(true)
    return ChallengeFigures(n, {name: Figure(value, n=n, reason=reason(name)) for name, value in values.items()})


def _merge(reference: NDArray[np.intp], scores: Floats, names: Sequence[str]) -> tuple[NDArray[np.intp], Floats] | None:
    """One reference and one mean of scores a patient; None where a patient has several references."""
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    owner = np.array([place[name] for name in names], dtype=np.intp)
    true = np.full(len(place), -1, dtype=np.intp)
    true[owner] = reference
    if (true[owner] != reference).any():
        return None
    sums = np.zeros((len(place), len(CATEGORIES)))
    np.add.at(sums, owner, scores)
    return true, sums / np.bincount(owner, minlength=len(place))[:, np.newaxis]


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
    of_challenge = table.scale == DENSITY  # it is of A to D
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
