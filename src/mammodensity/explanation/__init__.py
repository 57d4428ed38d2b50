"""Explanations: maps of what a network went by, what they are worth, and pictures of them."""

from __future__ import annotations

from mammodensity.explanation.class_activation import grad_cam
from mammodensity.explanation.exam_maps import TISSUE, ActivationMap, ExamMaps, explain_exam
from mammodensity.explanation.files import write_explanations
from mammodensity.explanation.methods import DEFAULT_METHOD, METHODS, explain
from mammodensity.explanation.scoring import Probe, score_explanation

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "TISSUE",
    "ActivationMap",
    "ExamMaps",
    "Probe",
    "explain",
    "explain_exam",
    "grad_cam",
    "score_explanation",
    "write_explanations",
]
