"""Why a figure of merit is undefined, and what a mean over categories left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mammodensity.terms import SCALES


def undefined_reason(name: str, confusion: NDArray[np.int_]) -> str:
    """Say why the figure ``name`` is undefined for this confusion matrix, of shape (K, K) with rows true.

    ``name`` is one of those that `mammodensity.evaluation.agreement.sample_figures` returns.
    """
    exams, scale = confusion.sum(axis=1), SCALES[len(confusion)]
    if not exams.any():
        return "no exam has scores"
    absent = ", ".join(category for category in scale if not exams[category.index])
    same = "reference and prediction hold one and the same category only (0/0)"
    reasons = {
        "linear_kappa": same,
        "quadratic_kappa": same,
        "nll": "the score of an exam's reference category is exactly 0",
        "auc": f"no exam of category {absent} in the reference",
        "dense_auc": "the reference holds dense exams only, or none",
    }
    for category in scale:
        missing = f"no exam of category {category} in the reference"
        reasons[f"precision_{category}"] = f"category {category} is never predicted"
        reasons[f"recall_{category}"] = missing
        present = exams[category.index] > 0
        reasons[f"auc_{category}"] = f"the reference holds category {category} only" if present else missing
    return reasons[name]


def mean_notes(confusion: NDArray[np.int_]) -> dict[str, str]:
    """Say which categories the macro means of this confusion matrix (K, K) leave out, or count as 0."""
    exams, predicted, scale = confusion.sum(axis=1), confusion.sum(axis=0), SCALES[len(confusion)]
    if not exams.any():
        return {}
    absent = [c for c in scale if not exams[c.index]]
    nowhere = [c for c in absent if not predicted[c.index]]
    unpredicted = [c for c in scale if exams[c.index] and not predicted[c.index]]
    notes = {}
    if absent:
        notes["macro_recall"] = f"mean without {', '.join(absent)}: no such exam in the reference"
    parts = []
    if nowhere:
        parts.append(f"mean without {', '.join(nowhere)}: neither in the reference nor predicted")
    if unpredicted:
        parts.append(f"{', '.join(unpredicted)} counted as 0: never predicted")
    if parts:
        notes["macro_precision"] = "; ".join(parts)
    return notes
