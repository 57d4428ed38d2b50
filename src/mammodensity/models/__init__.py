"""Networks, their files, and models that score exams."""
