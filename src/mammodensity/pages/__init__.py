"""Pictures, exam pages, reports and model cards."""
