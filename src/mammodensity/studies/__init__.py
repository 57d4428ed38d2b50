"""Comparisons of models and readers, groups, drift and sample size. Imports no torch."""
