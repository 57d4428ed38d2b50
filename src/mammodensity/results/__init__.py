"""Calibrated scores, prediction sets, rules for flags, and the result of an exam."""
