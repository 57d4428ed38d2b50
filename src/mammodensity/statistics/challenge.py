"""The figures of the federated breast density challenge, under its names, so that results can be set beside its own.

References
----------
Schmidt, K. et al. (2024). Fair evaluation of federated learning algorithms for automated breast density classification:
the results of the 2022 ACR-NCI-NVIDIA federated learning challenge. Medical Image Analysis, 103206. It reports
submissions by linear kappa. Names and definitions: the challenge's evaluation script, ``challenge_evaluate.py`` in the
repository Project-MONAI/tutorials, folder federated_learning/breast_density_challenge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from mammodensity.evaluation.agreement import Floats, area_under_roc, confusion_matrices, weighted_kappa
from mammodensity.evaluation.undefined import undefined_reason
from mammodensity.terms import CATEGORIES

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
    linear_kappa: float
    quadratic_kappa: float
    auc: float
    avg_lin_dist: float
    avg_quad_dist: float
    undefined: dict[str, str]


def challenge_figures(
    reference: NDArray[np.intp], scores: Floats, patients: Sequence[str] | None = None
) -> ChallengeFigures:
    """Compute the challenge's figures: positions of categories (N,), scores (N, 4), and the patient of each exam.

    Without ``patients`` each exam counts as one. The predicted category is that of the highest mean score.
    """
    names = [str(exam) for exam in range(len(reference))] if patients is None else patients
    merged = _merge(reference, scores, names)
    if merged is None:
        return ChallengeFigures(len(set(names)), nan, nan, nan, nan, nan, dict.fromkeys(CHALLENGE_FIGURES, _SEVERAL))
    true, mean = merged
    everyone = np.ones((1, len(true)))
    dense = np.array([category.dense for category in CATEGORIES])
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
    undefined = {
        name: undefined_reason("dense_auc" if name == "auc" else name, confusion[0].astype(int))
        for name in ("linear_kappa", "quadratic_kappa", "auc")
        if np.isnan(values[name])
    }
    if not len(true):
        undefined = dict.fromkeys(CHALLENGE_FIGURES, "no exam has scores")
    return ChallengeFigures(len(true), **values, undefined=undefined)


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
