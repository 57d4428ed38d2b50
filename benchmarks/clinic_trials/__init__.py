"""Trials of the node with real processes."""
