"""Reports of a trained model: its test figures, its model card, and one page that shows the run."""

from __future__ import annotations

from mammodensity.report.examples import tissue_views
from mammodensity.report.model_card import write_model_card
from mammodensity.report.model_evaluation import evaluate_model
from mammodensity.report.page import write_report
from mammodensity.report.results_page import MadeBy, write_results_page

__all__ = ["MadeBy", "evaluate_model", "tissue_views", "write_model_card", "write_report", "write_results_page"]
