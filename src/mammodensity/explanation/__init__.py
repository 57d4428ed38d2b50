"""Explanations: activation maps, and pictures of them."""

from __future__ import annotations

from mammodensity.explanation.exam_maps import DEFAULT_METHOD, METHODS, TISSUE, ActivationMap, ExamMaps, explain_exam
from mammodensity.explanation.files import write_explanations
from mammodensity.explanation.grad_cam import grad_cam

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "TISSUE",
    "ActivationMap",
    "ExamMaps",
    "explain_exam",
    "grad_cam",
    "write_explanations",
]
