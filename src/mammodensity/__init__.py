"""Breast density from screening mammograms, with the evidence for it. Research use only, not a medical device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammodensity.anatomy.network_input import preprocess
    from mammodensity.clinic.objects import dicom_objects
    from mammodensity.data.images import read_exam
    from mammodensity.evaluation.figures import figures_of_merit
    from mammodensity.explanation.class_activation import grad_cam
    from mammodensity.explanation.map_scores import score_explanation
    from mammodensity.explanation.methods import explain_images
    from mammodensity.models.checkpoint import load_network
    from mammodensity.models.trained import load_model
    from mammodensity.workflows.calibrate import calibrate
    from mammodensity.workflows.check import check
    from mammodensity.workflows.evaluate import evaluate
    from mammodensity.workflows.explain import explain
    from mammodensity.workflows.predict import predict
    from mammodensity.workflows.prepare import prepare
    from mammodensity.workflows.report import report
    from mammodensity.workflows.segment import segment
    from mammodensity.workflows.train import train

__version__ = "0.1.0"

__all__ = [
    "calibrate",
    "check",
    "dicom_objects",
    "evaluate",
    "explain",
    "explain_images",
    "figures_of_merit",
    "grad_cam",
    "load_model",
    "load_network",
    "predict",
    "prepare",
    "preprocess",
    "read_exam",
    "report",
    "score_explanation",
    "segment",
    "train",
]

_HOMES = {
    "calibrate": "mammodensity.workflows.calibrate",
    "check": "mammodensity.workflows.check",
    "dicom_objects": "mammodensity.clinic.objects",
    "evaluate": "mammodensity.workflows.evaluate",
    "explain": "mammodensity.workflows.explain",
    "explain_images": "mammodensity.explanation.methods",
    "figures_of_merit": "mammodensity.evaluation.figures",
    "grad_cam": "mammodensity.explanation.class_activation",
    "load_model": "mammodensity.models.trained",
    "load_network": "mammodensity.models.checkpoint",
    "predict": "mammodensity.workflows.predict",
    "prepare": "mammodensity.workflows.prepare",
    "preprocess": "mammodensity.anatomy.network_input",
    "read_exam": "mammodensity.data.images",
    "report": "mammodensity.workflows.report",
    "score_explanation": "mammodensity.explanation.map_scores",
    "segment": "mammodensity.workflows.segment",
    "train": "mammodensity.workflows.train",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used, so that importing the package does not import torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
