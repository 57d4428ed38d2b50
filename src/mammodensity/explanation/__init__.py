"""Explanations: activation maps, what they are worth, and pictures of them."""

from __future__ import annotations

from mammodensity.explanation.exam_maps import DEFAULT_METHOD, METHODS, ActivationMap, ExamMaps, explain_exam
from mammodensity.explanation.files import write_explanations
from mammodensity.explanation.grad_cam import grad_cam
from mammodensity.explanation.scoring import Probe, score_explanation

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "ActivationMap",
    "ExamMaps",
    "Probe",
    "explain_exam",
    "grad_cam",
    "score_explanation",
    "write_explanations",
]
