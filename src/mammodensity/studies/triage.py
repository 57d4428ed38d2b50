"""What is gained by leaving the exams of lowest confidence to a reader: the reject curve, and what errors remain.

Confidence is the highest score of an exam. Exams of equal confidence are kept or left together.

References
----------
El-Yaniv, R., Wiener, Y. (2010). On the foundations of noise-free selective classification. Journal of Machine Learning
Research 11, 1605-1641. Geifman, Y., Uziel, G., El-Yaniv, R. (2019). Bias-reduced uncertainty estimation for deep neural
classifiers. ICLR: the area under the risk-coverage curve, here of accuracy, so 1 less theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.evaluation.agreement import Floats, confusion_matrices, weighted_kappa
from mammodensity.evaluation.bootstrap import BootstrapSpec, Figure, canonical_order, measure, plain
from mammodensity.terms import Scale

_MOST_POINTS = 101


@dataclass(frozen=True)
class RejectPoint:
    """What is left when exams below ``threshold`` are abstained on: errors among the ``kept`` exams.

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
    spec: BootstrapSpec | None = None,
) -> RejectCurve | None:
    """Compute the curve of one level: positions of categories (N,), scores (N, K); None without any exam."""
    if not len(reference):
        return None
    spec = spec or BootstrapSpec()
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
