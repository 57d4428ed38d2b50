"""Evaluate scores: figures of merit against reference categories, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import reference_categories
from mammodensity.errors import OptionError, TableError
from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.evaluation.figures import FiguresOfMerit, evaluate_table, to_json
from mammodensity.evaluation.infn_tables import read_infn_tables
from mammodensity.evaluation.labels import (
    match,
    patients_of,
    read_exam_columns,
    read_labels,
    scored_exams,
    unused_labels,
)
from mammodensity.evaluation.score_tables import ScoreTable, read_score_table, score_table
from mammodensity.results.cross_validation import cross_validate, require_enough
from mammodensity.studies.further import FurtherFigures, FurtherSpec, further_figures
from mammodensity.terms import DENSITY, Category
from mammodensity.workers import Progress
from mammodensity.workflows.predict import Predictions

Scores = ScoreTable | Predictions | Path | str
"""Scores of exams: a table, predictions, or a path: a file of `predict --csv`, or a folder with INFN's text files."""
Labels = Mapping[str, Category] | Path | str
"""The reference category of each exam by name, or a path: a table, a manifest, or a data set with category folders."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Agreement of scores with the reference."""

    figures: Mapping[str, FiguresOfMerit]
    """Figures of merit by level: projections, breasts and subject."""
    further: FurtherFigures
    """Further figures that were asked for: groups, subsets of views; and the reject curve."""
    calibration: Mapping[str, Any] | None
    """The benefit of a calibration, by cross-validation; None if it was not asked for."""
    unused_labels: tuple[str, ...]
    """Exams that have a label and no scores."""

    @property
    def patients(self) -> int | None:
        """Number of patients resampled for the intervals; None if exams were, as no patients are known."""
        return self.figures["subject"].patients

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the figures of each level, then the others by name."""
        judged = {} if self.calibration is None else {"calibration": self.calibration}
        return to_json(self.figures) | self.further.to_dict() | judged


def evaluate(
    scores: Scores,
    labels: Labels | None = None,
    *,
    manifest: Path | str | None = None,
    fusion: str | None = None,
    by: str | None = None,
    bands: str | None = None,
    subsets: bool = False,
    bootstrap: int = 2000,
    calibration: bool = False,
    progress: Progress | None = None,
) -> Evaluated:
    """Compare scores with the reference category of each exam.

    Parameters
    ----------
    scores
        Scores of exams.
    labels
        The reference categories; None only for predictions of a data set that has them.
    manifest
        Table with patients and other columns by exam, if not that of the labels.
    fusion
        Fuse the views anew by this method: one of `FUSION_METHODS`.
    by
        Also figures by the values of this column of the labels or the manifest.
    bands
        Limits of bands, such as ``"40,50,60"``, if that column holds numbers.
    subsets
        Also figures of every combination of one to four views.
    bootstrap
        Resamples for the intervals.
    calibration
        Also judge by cross-validation what a calibration would be worth.
    progress
        Called while the cross-validation runs.

    Raises
    ------
    TableError, LayoutError
        A table cannot be read, an exam has no label, or too few exams are labelled for cross-validation.
    OptionError
        An option makes no sense.
    """
    asked = FurtherSpec(by, bands, subsets, fusion or "mean")
    table = read_scores(scores, fusion)
    reference = read_reference(labels, scores)
    paths = [path for path in (manifest, labels) if isinstance(path, (str, Path))]
    columns = [read_exam_columns(Path(path)) for path in paths]
    if calibration:
        require_densities(table)
        require_enough(scored_exams(table, match(table, reference))[1])
    further = further_figures(table, reference, columns, asked=asked, spec=BootstrapSpec(bootstrap))
    figures = evaluate_table(table, reference, patients=patients_of(columns), bootstrap=bootstrap)
    judged = None
    if calibration:
        judged = cross_validate(*scored_exams(table, match(table, reference)), progress=progress).to_dict()
    return Evaluated(figures, further, judged, unused_labels(table, reference))


def read_scores(scores: Scores, fusion: str | None = None) -> ScoreTable:
    """Read scores wherever they are; with a method, breasts and subject are fused anew from the views.

    Raises
    ------
    TableError
        They cannot be read.
    """
    if isinstance(scores, ScoreTable):
        return scores
    if isinstance(scores, Predictions):
        return score_table(scores.scores, fusion)
    path = Path(scores)
    return read_infn_tables(path, fusion or "mean") if path.is_dir() else read_score_table(path, fusion)


def read_reference(labels: Labels | None, scores: Scores | None = None) -> Mapping[str, Category]:
    """Read the reference category of each exam; without labels, from the data set of predictions.

    Raises
    ------
    OptionError
        There are no labels.
    TableError, LayoutError
        They cannot be read.
    """
    if isinstance(labels, (str, Path)):
        return read_labels(Path(labels))
    if labels is None and isinstance(scores, Predictions) and scores.data is not None:
        labels = reference_categories(scores.data)
    if not labels:
        raise OptionError("labels are needed: the reference category of each exam")
    return labels


def require_densities(table: ScoreTable) -> None:
    """Raise ``TableError`` unless scores are of A to D, for which calibration is made."""
    if table.scale != DENSITY:
        raise TableError(f"the scores are of {', '.join(table.scale)}; only scores of A to D can be calibrated")
