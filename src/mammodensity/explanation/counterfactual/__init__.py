"""Counterfactual density: the same breast with more or less dense tissue; see ``docs/explanations.md``."""

from __future__ import annotations

from mammodensity.explanation.counterfactual.curve import DensityCurve, exam_curve, phantom_curve
from mammodensity.explanation.counterfactual.files import write_counterfactuals
from mammodensity.explanation.counterfactual.painting import PhantomBreasts, Step, paint

__all__ = [
    "DensityCurve",
    "PhantomBreasts",
    "Step",
    "exam_curve",
    "paint",
    "phantom_curve",
    "write_counterfactuals",
]
