"""Evaluation: score tables, reference labels, figures of merit.

Imports neither torch nor scikit-learn. scikit-learn computes one sample at a time, and the bootstrap needs thousands:
the figures are vectorised here (`mammodensity.evaluation.agreement`), and scikit-learn is what the tests hold them to.
"""

from __future__ import annotations

from mammodensity.evaluation.exam_columns import ExamColumns, read_exam_columns
from mammodensity.evaluation.figures import (
    SCALAR_FIGURES,
    FiguresOfMerit,
    evaluate_table,
    figures_of_merit,
    to_json,
)
from mammodensity.evaluation.labels import match, read_densities, read_labels, scored_exams, unused_labels
from mammodensity.evaluation.origin_tables import ORIGIN_FILES, read_origin_tables, write_origin_tables
from mammodensity.evaluation.tables import ScoreTable, read_score_table, write_score_table

__all__ = [
    "ORIGIN_FILES",
    "SCALAR_FIGURES",
    "ExamColumns",
    "FiguresOfMerit",
    "ScoreTable",
    "evaluate_table",
    "figures_of_merit",
    "match",
    "read_densities",
    "read_exam_columns",
    "read_labels",
    "read_origin_tables",
    "read_score_table",
    "scored_exams",
    "to_json",
    "unused_labels",
    "write_origin_tables",
    "write_score_table",
]
