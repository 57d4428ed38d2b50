"""Report on a trained model: one HTML page of its data, training, test figures and example exams."""

from __future__ import annotations

from pathlib import Path

from mammodensity.outputs import require_not_input
from mammodensity.pages.report import write_report
from mammodensity.workers import Progress

REPORT_FILE = "report.html"


def report(
    model: Path | str, output: Path | str | None = None, *, examples: int = 6, progress: Progress | None = None
) -> Path:
    """Write one self-contained HTML page of a training run and its test exams.

    Test figures are taken from the model folder; they are made if they are absent or of other networks.

    Parameters
    ----------
    model
        A model folder, as written by `mammodensity.train`.
    output
        The page; by default ``report.html`` in the model folder.
    examples
        Show at most so many example exams.
    progress
        Called with how many exams are scored or explained, and how many there are.

    Returns
    -------
    The page.

    Raises
    ------
    CheckpointError, TableError
        The folder holds no model, or a file of it is damaged.
    LayoutError, ImageError
        An image of the manifest is gone or cannot be read.
    OptionError
        ``examples`` is negative.
    OutputError
        The page would replace a file of the model, or cannot be written.
    """
    folder = Path(model)
    page = Path(output) if output else folder / REPORT_FILE
    patterns = ("*.safetensors", "*.json", "*.csv")
    require_not_input(page, (path for pattern in patterns for path in folder.rglob(pattern)))
    return write_report(folder, page, examples=examples, progress=progress)
