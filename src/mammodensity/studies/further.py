"""Further figures of `mammodensity evaluate`: those of the federated challenge, and what abstaining would gain.

The challenge's figures have its names, so that results can be set beside its own. The reject curve shows the errors
that remain if the exams of lowest confidence go to a reader. Confidence is the highest score of an exam; exams of equal
confidence are kept or left together.

References
----------
Schmidt, K. et al. (2024). Fair evaluation of federated learning algorithms for automated breast density classification:
the results of the 2022 ACR-NCI-NVIDIA federated learning challenge. Medical Image Analysis, 103206. It reports
submissions by linear kappa. Names and definitions: the challenge's evaluation script, ``challenge_evaluate.py`` in the
repository Project-MONAI/tutorials, folder federated_learning/breast_density_challenge.
El-Yaniv, R., Wiener, Y. (2010). On the foundations of noise-free selective classification. Journal of Machine Learning
Research 11, 1605-1641. Geifman, Y., Uziel, G., El-Yaniv, R. (2019). Bias-reduced uncertainty estimation for deep neural
classifiers. ICLR: the area under the risk-coverage curve, here of accuracy, so 1 less theirs.
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
from mammodensity.evaluation.bootstrap import STANDARD_BOOTSTRAP, BootstrapSpec, Figure, canonical_order, measure, plain
from mammodensity.evaluation.figures import undefined_reason
from mammodensity.evaluation.labels import ExamColumns, column_of, match, match_patients, patients_of
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.studies.groups import Group, ViewSubsets, figures_by_group, group_values, parse_bands, view_subsets
from mammodensity.terms import CATEGORIES, DENSITY, Category, Scale

CHALLENGE_FIGURES = ("linear_kappa", "quadratic_kappa", "auc", "avg_lin_dist", "avg_quad_dist")
_MOST_POINTS = 101
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
        names = {"auc": "dense_auc", "avg_lin_dist": "accuracy", "avg_quad_dist": "accuracy"}
        return undefined_reason(names.get(name, name), confusion[0].astype(int))

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
class RejectPoint:
    """Errors among the ``kept`` exams, if exams below ``threshold`` are abstained on.

    ``linear_kappa`` is NaN where the kept exams are of one category, in reference and prediction.
    """

    threshold: float
    kept: int
    abstained: float
    accuracy: float
    linear_kappa: float
    wrong: int
    two_or_more: int
    dense_flips: int


@dataclass(frozen=True)
class RejectCurve:
    """Accuracy against the share of exams abstained on.

    Attributes
    ----------
    n
        Exams with scores.
    points
        From all exams kept to the surest only; at most 101, evenly chosen where there are more.
    area
        Mean accuracy of the surest 1, 2, ... N exams: the area under the curve. Exams of equal confidence count as in
        random order.
    area_random
        The area if confidence told nothing: the accuracy.
    area_best
        The area if every error had less confidence than every hit.
    """

    n: int
    points: tuple[RejectPoint, ...]
    area: Figure
    area_random: float
    area_best: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "n": self.n,
            "points": plain(self.points),
            "area": self.area.value,
            "area_interval": plain(self.area.interval),
            "area_random": self.area_random,
            "area_best": self.area_best,
        }

    def at(self, abstained: float) -> RejectPoint:
        """The first point that abstains on this share of the exams or more; the last where none does."""
        return next((point for point in self.points if point.abstained >= abstained), self.points[-1])


def reject_curve(
    reference: NDArray[np.intp],
    scores: Floats,
    *,
    patients: Sequence[str] | None = None,
    spec: BootstrapSpec = STANDARD_BOOTSTRAP,
) -> RejectCurve | None:
    """Compute the curve of one level: positions of categories (N,), scores (N, K); None without any exam."""
    if not len(reference):
        return None
    order, cluster = canonical_order(np.column_stack([reference, scores[:, ::-1]]), patients)
    reference, scores = reference[order], scores[order]
    confidence, predicted = scores.max(axis=1), scores.argmax(axis=1)
    wrong = (predicted != reference).astype(np.float64)
    everyone = np.ones((1, len(reference)))
    area = measure(lambda counts: {"area": _areas(confidence, wrong, counts)}, cluster, spec)["area"]
    return RejectCurve(
        n=len(reference),
        points=tuple(_points(confidence, reference, predicted, Scale.of(scores.shape[1]))),
        area=area,
        area_random=float(1 - wrong.mean()),
        area_best=float(_areas(-wrong, wrong, everyone)[0]),
    )


def _areas(confidence: Floats, wrong: Floats, counts: Floats) -> Floats:
    """Mean over k of the accuracy of the k surest exams, for samples: (N,), (N,), (B, N) -> (B,).

    Within exams of equal confidence the expected accuracy in random order is taken. With K exams and E errors before a
    group of m exams with error rate r, the expected risk of its j-th is (E + j r) / (K + j) = r + (E - K r) / (K + j),
    so that sums of 1 / (K + j) are all that is needed.
    """
    order = np.argsort(-confidence, kind="stable")
    starts = np.flatnonzero(np.diff(-confidence[order], prepend=-np.inf))
    weights = counts[:, order]
    group = np.add.reduceat(weights, starts, axis=1)  # (B, G) exams by confidence, surest first
    errors = np.add.reduceat(weights * wrong[order], starts, axis=1)
    kept = np.cumsum(group, axis=1)
    before, errors_before = kept - group, np.cumsum(errors, axis=1) - errors
    rate = np.divide(errors, group, out=np.zeros_like(errors), where=group > 0)
    total = kept[:, -1]
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(total.max(initial=0)) + 1))])
    spans = harmonic[kept.astype(np.intp)] - harmonic[before.astype(np.intp)]
    risk = (rate * group + (errors_before - before * rate) * spans).sum(axis=1)
    return np.asarray(1 - risk / total)


def _points(
    confidence: Floats, reference: NDArray[np.intp], predicted: NDArray[np.intp], scale: Scale
) -> list[RejectPoint]:
    thresholds = np.unique(confidence)
    if len(thresholds) > _MOST_POINTS:
        chosen = np.linspace(0, len(confidence) - 1, _MOST_POINTS).round().astype(np.intp)
        thresholds = np.unique(np.sort(confidence)[chosen])
    distance = np.abs(reference - predicted)
    dense = np.array(scale.dense)
    flips = dense[reference] != dense[predicted]
    points = []
    for threshold in thresholds:
        kept = confidence >= threshold
        count = int(kept.sum())
        wrong = int((distance[kept] > 0).sum())
        confusion = confusion_matrices(reference[kept], predicted[kept], np.ones((1, count)), len(scale))
        points.append(
            RejectPoint(
                threshold=float(threshold),
                kept=count,
                abstained=(len(confidence) - count) / len(confidence),
                accuracy=1 - wrong / count,
                linear_kappa=float(weighted_kappa(confusion, power=1)[0]),
                wrong=wrong,
                two_or_more=int((distance[kept] > 1).sum()),
                dense_flips=int(flips[kept].sum()),
            )
        )
    return points


@dataclass(frozen=True)
class FurtherSpec:
    """Further figures to compute: groups by a column, in bands (``40,50,60``) of numbers; subsets of views."""

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
        values: dict[str, Any] = {
            "breast_density_fl": plain(self.challenge),
            "reject_curve": plain(self.reject),
        }
        if self.groups is not None:
            values["by"] = {"column": self.spec.by, "bands": self.spec.bands, "groups": plain(self.groups)}
        if self.spec.subsets:
            values["view_subsets"] = plain(self.subsets)
        return values


def further_figures(
    table: ScoreTable,
    labels: Mapping[str, Category],
    columns: Sequence[ExamColumns] = (),
    *,
    asked: FurtherSpec | None = None,
    spec: BootstrapSpec = STANDARD_BOOTSTRAP,
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
    of_exam = patients_of(columns)
    patients = None if of_exam is None else match_patients(table.exam_ids, of_exam)
    scored = np.flatnonzero(~np.isnan(scores).any(axis=1)).tolist()
    owners = None if patients is None else [patients[exam] for exam in scored]
    groups = None
    of_challenge = table.scale == DENSITY  # it is of A to D
    challenge = {"overall": challenge_figures(reference[scored], scores[scored], owners)} if of_challenge else {}
    if asked.by is not None:
        bands = parse_bands(asked.bands) if asked.bands else ()
        group_of, names = group_values(table.exam_ids, column_of(columns, asked.by), asked.by, bands)
        groups = figures_by_group(reference, scores, (group_of, names), patients=patients, spec=spec)
        for group in groups:
            inside = [exam for exam in scored if group_of[exam] == group.value]
            drawn = None if patients is None else [patients[exam] for exam in inside]
            name = group.value if group.value != "overall" else f"{asked.by}: overall"
            if of_challenge:
                challenge[name] = challenge_figures(reference[inside], scores[inside], drawn)
    return FurtherFigures(
        challenge=challenge,
        reject=reject_curve(reference[scored], scores[scored], patients=owners, spec=spec),
        groups=groups,
        subsets=view_subsets(table, reference, fusion=asked.fusion, patients=patients, spec=spec)
        if asked.subsets
        else None,
        spec=asked,
    )
