"""Calibration: scores that mean what they say, prediction sets with stated coverage, and how both are proven."""

from __future__ import annotations

from mammodensity.calibration.conformal import SET_KINDS, nonconformity, prediction_sets, require_coverage, thresholds
from mammodensity.calibration.cross_validation import (
    LEAST_EXAMS,
    CalibrationFigures,
    cross_validate,
    held_out_set_size,
    require_enough,
)
from mammodensity.calibration.error import Reliability, expected_calibration_error, null_band, reliability
from mammodensity.calibration.maps import MAPS, CalibrationMap, fit_map
from mammodensity.calibration.model_calibration import (
    CALIBRATION_FILE,
    COMBINATIONS,
    Calibration,
    ViewsCalibration,
    fit_calibration,
    read_calibration,
    scores_of_views,
    write_calibration,
)
from mammodensity.calibration.overlap import Overlap, find_overlap

__all__ = [
    "CALIBRATION_FILE",
    "COMBINATIONS",
    "LEAST_EXAMS",
    "MAPS",
    "SET_KINDS",
    "Calibration",
    "CalibrationFigures",
    "CalibrationMap",
    "Overlap",
    "Reliability",
    "ViewsCalibration",
    "cross_validate",
    "expected_calibration_error",
    "find_overlap",
    "fit_calibration",
    "fit_map",
    "held_out_set_size",
    "nonconformity",
    "null_band",
    "prediction_sets",
    "read_calibration",
    "reliability",
    "require_coverage",
    "require_enough",
    "scores_of_views",
    "thresholds",
    "write_calibration",
]
