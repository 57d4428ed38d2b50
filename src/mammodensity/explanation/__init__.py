"""Explanation maps, their scores and their verdicts."""
