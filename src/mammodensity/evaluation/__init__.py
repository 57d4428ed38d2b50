"""Score tables, reference labels and figures of merit. Imports no torch."""
