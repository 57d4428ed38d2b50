"""Exam results: category or abstention, calibrated scores, prediction set, flags, with a published JSON schema."""

from __future__ import annotations

from mammodensity.result.exam_result import (
    SCHEMA_VERSION,
    ExamResult,
    PredictionSet,
    Reading,
    exam_result,
    require_same_fusion,
)
from mammodensity.result.notification import NOTIFICATION
from mammodensity.result.rules import FLAGS, STANDARD_RULES, Rules, read_rules, shared_flags
from mammodensity.result.schema import result_schema
from mammodensity.result.tables import result_columns, scale_of, write_result_table

__all__ = [
    "FLAGS",
    "NOTIFICATION",
    "SCHEMA_VERSION",
    "STANDARD_RULES",
    "ExamResult",
    "PredictionSet",
    "Reading",
    "Rules",
    "exam_result",
    "read_rules",
    "require_same_fusion",
    "result_columns",
    "result_schema",
    "scale_of",
    "shared_flags",
    "write_result_table",
]
