"""The tables of the report, as plain values that a template lays out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from mammodensity.data.dataset import SPLITS, DataSet
from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.pages.wording import DASH, listed, number, percent
from mammodensity.terms import DENSITY, PROJECTIONS, Category, Scale

_FIGURE_WORDS: Mapping[str, tuple[str, str]] = {
    "accuracy": ("Accuracy", "share of exams in the right category"),
    "dense_accuracy": ("Dense or not, accuracy", "share on the right side of {others} against {dense}"),
    "linear_kappa": ("Kappa, linear", "agreement beyond chance; disagreement weighted by distance"),
    "quadratic_kappa": ("Kappa, quadratic", "the same, weighted by squared distance"),
    "macro_recall": ("Macro recall", "mean recall of the categories; balanced accuracy"),
    "macro_precision": ("Macro precision", "mean precision of the categories"),
    "auc": ("AUC, mean of {categories}", "area under the ROC curve, each category against the others"),
    "dense_auc": ("AUC, dense or not", "of the score {dense_sum}"),
    "nll": (
        "Negative log likelihood",
        "of the reference category; lower is better, {count} equal scores give {chance}",
    ),
}
"""Scalar figures in the order shown: name and explanation, in which `figure_words` names the categories."""


def figure_words(scale: Scale = DENSITY) -> dict[str, tuple[str, str]]:
    """Name and explanation of each scalar figure, for scores of these categories."""
    dense = [category.value for category in scale if category.dense]
    values = {
        "others": ", ".join(category for category in scale if not category.dense),
        "dense": ", ".join(dense),
        "dense_sum": " + ".join(dense),
        "categories": "A to D" if scale == DENSITY else listed(scale.letters),
        "count": "four" if len(scale) == 4 else "three",
        "chance": f"{math.log(len(scale)):.2f}",
    }
    return {figure: (name.format(**values), text.format(**values)) for figure, (name, text) in _FIGURE_WORDS.items()}


LEVEL_WORDS: Mapping[str, str] = {
    **{projection.value: projection.value for projection in PROJECTIONS},
    "right": "right breast",
    "left": "left breast",
    "subject": "whole exam",
}

_TINT = (31, 95, 153)  # full strength of a confusion cell
_STRONGEST = 0.55  # share of the tint at most, so that dark text keeps a contrast above 4.5


@dataclass(frozen=True)
class FigureCell:
    """One figure at one level."""

    value: str
    interval: str
    marks: tuple[str, ...]
    """Letters of its notes."""


class Notes:
    """Notes below a table, each with a letter, as a number after a dash would look like a value."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """The letter of the note with this text, which is added unless it is there already."""
        if text not in self.texts:
            self.texts.append(text)
        return note_letter(self.texts.index(text))


def note_letter(index: int) -> str:
    """The letter of a note, as the browser counts ``<ol type="a">``.

    >>> note_letter(0), note_letter(27)
    ('a', 'ab')
    """
    return (note_letter(index // 26 - 1) if index >= 26 else "") + ascii_lowercase[index % 26]


@dataclass(frozen=True)
class FigureRow:
    """One figure of merit at every level."""

    name: str
    explanation: str
    cells: tuple[FigureCell, ...]


def figure_rows(figures: Mapping[str, FiguresOfMerit], notes: Notes) -> list[FigureRow]:
    """The table of figures of merit: a row a figure, a cell a level in the order of ``figures``."""
    return [
        FigureRow(words, explanation, tuple(_figure_cell(level, name, notes) for level in figures.values()))
        for name, (words, explanation) in figure_words(figures["subject"].scale).items()
    ]


def _figure_cell(level: FiguresOfMerit, name: str, notes: Notes) -> FigureCell:
    figure = level[name]
    marks = []
    if figure.reason:
        marks.append(notes.mark(f"Undefined: {figure.reason}."))
    if name in level.notes:
        marks.append(notes.mark(_sentence(level.notes[name])))
    if figure.interval and figure.undefined_resamples:
        marks.append(notes.mark("Undefined in some resamples of the bootstrap, which the interval leaves out."))
    interval = f"{number(figure.low)} to {number(figure.high)}" if figure.interval else ""
    return FigureCell(number(figure.value), interval, tuple(marks))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


@dataclass(frozen=True)
class CategoryRow:
    """Recall, precision and AUC of one category."""

    category: Category
    exams: int
    cells: tuple[FigureCell, ...]


def category_rows(figures: FiguresOfMerit, notes: Notes) -> list[CategoryRow]:
    """Figures of each category at one level."""
    rows = []
    for category in figures.scale:
        cells = []
        for name in ("recall", "precision", "auc"):
            figure = figures[f"{name}_{category}"]
            marks = (notes.mark(f"Undefined: {figure.reason}."),) if figure.reason else ()
            cells.append(FigureCell(number(figure.value), "", marks))
        rows.append(CategoryRow(category, sum(figures.confusion[category.index]), tuple(cells)))
    return rows


@dataclass(frozen=True)
class ConfusionCell:
    """Exams of one reference (row) and one predicted category (column)."""

    count: int
    share: str
    colour: str
    agrees: bool


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix as the page shows it."""

    level: str
    exams: int
    rows: tuple[tuple[ConfusionCell, ...], ...]
    totals: tuple[int, ...]


def confusion_tables(figures: Mapping[str, FiguresOfMerit]) -> dict[str, Confusion]:
    """Confusion matrices by level: counts, row shares, and a tint by row share."""
    return {
        level: Confusion(
            LEVEL_WORDS[level],
            values.n,
            tuple(tuple(_confusion_row(row, index)) for index, row in enumerate(values.confusion)),
            tuple(sum(row) for row in values.confusion),
        )
        for level, values in figures.items()
    }


def _confusion_row(row: Iterable[int], index: int) -> Iterator[ConfusionCell]:
    counts = list(row)
    total = sum(counts)
    for column, count in enumerate(counts):
        share = count / total if total else 0.0
        tint = [round(255 + (full - 255) * _STRONGEST * share) for full in _TINT]
        yield ConfusionCell(
            count, percent(share) if total else DASH, "#" + "".join(f"{part:02x}" for part in tint), column == index
        )


@dataclass(frozen=True)
class CountRow:
    """Images of one projection in one split."""

    projection: str
    counts: tuple[int, ...]
    total: int


@dataclass(frozen=True)
class SplitCounts:
    """The exams, patients and images of one split."""

    split: str
    exams: int
    patients: int
    rows: tuple[CountRow, ...]


def count_tables(data: DataSet) -> list[SplitCounts]:
    """Count images by split, projection and category, with rows of zeros where there are none."""
    tables = []
    for split in SPLITS:
        records = data.in_split(split).records
        rows = []
        for projection in PROJECTIONS:
            categories = [record.category for record in records if record.projection == projection]
            counts = tuple(categories.count(category) for category in data.scale)
            rows.append(CountRow(projection.value, counts, len(categories)))
        exams, patients = ({getattr(record, key) for record in records} for key in ("exam_id", "patient_id"))
        tables.append(SplitCounts(split, len(exams), len(patients), tuple(rows)))
    return tables


def flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested JSON values as (dotted name, text) pairs.

    >>> flattened({"network": {"depths": [3, 3]}, "seed": 1})
    [('network.depths', '3, 3'), ('seed', '1')]
    """
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            pairs.append((f"{prefix}{name}", ", ".join(map(str, value))))
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs
