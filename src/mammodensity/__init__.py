"""Breast density from screening mammograms, with the evidence for it. Research use only, not a medical device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammodensity.evaluation import figures_of_merit
    from mammodensity.explanation import explain, grad_cam, score_explanation
    from mammodensity.ingest import read_exam
    from mammodensity.networks import load_network
    from mammodensity.prediction import load_model
    from mammodensity.preprocess import preprocess

__version__ = "0.1.0"

__all__ = [
    "explain",
    "figures_of_merit",
    "grad_cam",
    "load_model",
    "load_network",
    "preprocess",
    "read_exam",
    "score_explanation",
]

_HOMES = {
    "explain": "mammodensity.explanation",
    "figures_of_merit": "mammodensity.evaluation",
    "grad_cam": "mammodensity.explanation",
    "load_model": "mammodensity.prediction",
    "load_network": "mammodensity.networks",
    "preprocess": "mammodensity.preprocess",
    "read_exam": "mammodensity.ingest",
    "score_explanation": "mammodensity.explanation",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used, so that importing the package does not import torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
