"""Figures of merit as array arithmetic, for B (re)samples at once.

A sample is a row of counts (B, N): how often each exam is in it; the exams themselves are a row of ones. Figures come
out with shape (B,), and are NaN where they are undefined, never 0.

scikit-learn computes the same figures one sample at a time. A bootstrap of seven levels needs about 14,000 samples, so
they are computed here for all samples together; scikit-learn is the oracle of the tests.

References
----------
Cohen, J. (1968). Weighted kappa. Psychological Bulletin 70(4), 213-220.
Hanley, J. A., McNeil, B. J. (1982). The meaning and use of the area under a receiver operating characteristic (ROC)
curve. Radiology 143(1), 29-36.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mammodensity.terms import CATEGORIES, Scale

Floats = NDArray[np.float64]


def sample_figures(reference: NDArray[np.intp], scores: Floats, counts: Floats) -> dict[str, Floats]:
    """Compute every scalar figure of merit.

    Parameters
    ----------
    reference
        Shape (N,), position of the true category.
    scores
        Shape (N, K), K the categories of a `Scale`.
    counts
        Shape (B, N), how often each exam is in each sample.

    Returns
    -------
    Arrays of shape (B,) by name; per category as ``auc_A``, ``recall_A``, ``precision_A`` and so on.
    """
    scale = Scale.of(scores.shape[1])
    confusion = confusion_matrices(reference, scores.argmax(axis=1), counts, len(scale))
    figures = confusion_figures(confusion)
    areas = [area_under_roc(reference == category.index, scores[:, category.index], counts) for category in scale]
    figures |= {f"auc_{category}": area for category, area in zip(scale, areas, strict=True)}
    figures["auc"] = np.mean(areas, axis=0)
    dense = np.array(scale.dense)
    figures["dense_auc"] = area_under_roc(dense[reference], scores[:, dense].sum(axis=1), counts)
    true = scores[np.arange(len(reference)), reference]  # (N,) the score of the true category
    losses = -np.log(true, out=np.full_like(true, np.nan), where=true > 0)
    figures["nll"] = ratio(counts @ losses, counts.sum(axis=1))
    return figures


def confusion_matrices(
    reference: NDArray[np.intp], predicted: NDArray[np.intp], counts: Floats, categories: int = len(CATEGORIES)
) -> Floats:
    """Count exams by true (rows) and predicted (columns) category: (N,), (N,), (B, N) -> (B, K, K)."""
    cells = np.eye(categories**2)[reference * categories + predicted]  # (N, K * K) one-hot
    return np.asarray(counts @ cells).reshape(-1, categories, categories)


def confusion_figures(confusion: Floats) -> dict[str, Floats]:
    """Compute the figures that need no more than confusion matrices, of shape (B, K, K)."""
    scale = Scale.of(confusion.shape[-1])
    dense = np.array(scale.dense)
    total = confusion.sum(axis=(-2, -1))
    hits = confusion.diagonal(axis1=-2, axis2=-1)  # (B, K)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)  # (B, K)
    recall, precision = ratio(hits, true), ratio(hits, predicted)
    same_side = dense[:, np.newaxis] == dense
    figures = {
        "accuracy": ratio(hits.sum(axis=-1), total),
        "macro_recall": _mean_where(recall, true > 0),
        "macro_precision": _mean_where(np.nan_to_num(precision), true + predicted > 0),
        "linear_kappa": weighted_kappa(confusion, power=1),
        "quadratic_kappa": weighted_kappa(confusion, power=2),
        "dense_accuracy": ratio((confusion * same_side).sum(axis=(-2, -1)), total),
    }
    for name, values in (("recall", recall), ("precision", precision)):
        figures |= {f"{name}_{category}": values[..., category.index] for category in scale}
    return figures


def weighted_kappa(confusion: Floats, power: int) -> Floats:
    """Cohen's weighted kappa, with disagreement weights ``|i - j| ** power``: (B, K, K) -> (B,).

    1 - sum(w * observed) / sum(w * expected by chance). It is 0/0 where reference and prediction hold one and the same
    category only.

    References
    ----------
    Cohen 1968, see above.
    """
    position = np.arange(confusion.shape[-1])
    weights = np.abs(position[:, np.newaxis] - position) ** power  # (K, K)
    total = confusion.sum(axis=(-2, -1))
    chance = confusion.sum(axis=-1)[..., :, np.newaxis] * confusion.sum(axis=-2)[..., np.newaxis, :]  # (B, K, K)
    observed = (weights * confusion).sum(axis=(-2, -1)) * total
    kappa: Floats = 1 - ratio(observed, (weights * chance).sum(axis=(-2, -1)))
    return kappa


def area_under_roc(positive: NDArray[np.bool_], score: Floats, counts: Floats) -> Floats:
    """Area under the ROC curve as the share of (positive, negative) pairs in the right order, a tie counting one half.

    Shapes (N,), (N,), (B, N) -> (B,); NaN where a sample has no positive or no negative.

    References
    ----------
    Hanley and McNeil 1982, see above: the area equals the Wilcoxon statistic.
    """
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-np.inf))  # (G,) first of each group of equal scores
    positives = counts[:, order] * positive[order]  # (B, N)
    negatives = counts[:, order] - positives
    if len(starts) < len(ordered):
        positives = np.add.reduceat(positives, starts, axis=1)  # (B, G)
        negatives = np.add.reduceat(negatives, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return ratio(np.einsum("bg,bg->b", positives, below), pairs)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, with NaN where the denominator is 0."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def _mean_where(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Mean over the last axis of the values that are counted, NaN where none is."""
    return ratio(np.where(counted, values, 0).sum(axis=-1), counted.sum(axis=-1).astype(np.float64))
