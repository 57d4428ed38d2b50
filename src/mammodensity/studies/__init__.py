"""Comparisons of models and readers, groups, drift, triage and sample size. Imports no torch."""
