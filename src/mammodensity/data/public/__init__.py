"""Public data sets by name: one module for each, which reads its own tables."""
