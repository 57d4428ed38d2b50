"""Figures of merit: how far scores agree with the reference density, with intervals and reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammodensity.errors import TableError
from mammodensity.evaluation.agreement import Floats, confusion_matrices, sample_figures
from mammodensity.evaluation.bootstrap import BootstrapSpec, Figure, canonical_order, measure, plain
from mammodensity.evaluation.labels import match, match_patients
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.scores import SUM_TOLERANCE, score_problem
from mammodensity.terms import DENSITY, LEVELS, SCALES, Category, Scale

SCALAR_FIGURES: tuple[str, ...] = (
    "accuracy",
    "macro_recall",
    "macro_precision",
    "linear_kappa",
    "quadratic_kappa",
    "dense_accuracy",
    "auc",
    "dense_auc",
    "nll",
)
"""The figures of all categories together."""


def _value_of(name: str, doc: str) -> property:
    return property(lambda figures: figures[name].value, doc=doc)


def _by_letter(kind: str, doc: str) -> property:
    return property(
        lambda figures: {letter: figures[f"{kind}_{letter}"].value for letter in figures.scale.letters}, doc=doc
    )


@dataclass(frozen=True)
class FiguresOfMerit(Mapping[str, Figure]):
    """Agreement of N exams with the reference: a mapping of name to `Figure`.

    Names are `SCALAR_FIGURES`, and ``recall_A``, ``precision_A``, ``auc_A`` and so on for each category. Values are
    also attributes (``figures.accuracy``), NaN where undefined.

    Attributes
    ----------
    n
        Number of exams.
    confusion
        Exams by reference (rows, the least dense first) and predicted category (columns).
    bootstrap, seed, confidence
        How the intervals were made: by percentile bootstrap over patients, or over exams where patients are not known.
    n_not_given
        Exams left out because this level has no scores for them.
    n_partial
        Exams counted although their scores were fused with a projection missing.
    patients
        Number of patients, who were resampled; None where they are not known and exams were resampled.
    """

    n: int
    confusion: tuple[tuple[int, ...], ...]
    figures: dict[str, Figure]
    bootstrap: int
    seed: int
    confidence: float
    n_not_given: int = 0
    n_partial: int = 0
    patients: int | None = None

    def __getitem__(self, name: str) -> Figure:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    accuracy = _value_of("accuracy", "Share of exams whose predicted category is the reference.")
    macro_recall = _value_of(
        "macro_recall", "Mean recall of the categories present in the reference (balanced accuracy)."
    )
    macro_precision = _value_of(
        "macro_precision",
        "Mean precision of the categories present in reference or prediction; one never predicted counts 0.",
    )
    linear_kappa = _value_of("linear_kappa", "Cohen's kappa, disagreement weighted by distance between categories.")
    quadratic_kappa = _value_of("quadratic_kappa", "Cohen's kappa, disagreement weighted by squared distance.")
    dense_accuracy = _value_of(
        "dense_accuracy", "Share of exams on the right side of dense (C, D; of F, G, D the D) against not dense."
    )
    auc = _value_of("auc", "Mean over categories of the area under the ROC curve of its score against all others.")
    dense_auc = _value_of("dense_auc", "Area under the ROC curve of the dense categories' summed scores.")
    nll = _value_of("nll", "Mean negative log likelihood (natural logarithm) of the reference category.")
    auc_per_category = _by_letter("auc", "Area under the ROC curve by letter.")
    recall_per_category = _by_letter("recall", "Recall by letter.")
    precision_per_category = _by_letter("precision", "Precision by letter.")

    @property
    def scale(self) -> Scale:
        """The categories of rows and columns of ``confusion``."""
        return Scale.of(len(self.confusion))

    @property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """The interval of each scalar figure; empty without a bootstrap or exams."""
        return {name: self[name].interval for name in SCALAR_FIGURES} if self.bootstrap and self.n else {}

    @property
    def undefined(self) -> dict[str, str]:
        """Reasons why figures are undefined."""
        return {name: figure.reason for name, figure in self.items() if figure.reason}

    @property
    def notes(self) -> dict[str, str]:
        """The categories that a macro mean leaves out, or counts as 0."""
        return mean_notes(np.array(self.confusion))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: lists, numbers, text, and null for NaN."""
        left_out = {name: self[name].undefined_resamples for name in SCALAR_FIGURES}
        values = {
            "n": self.n,
            "confusion": self.confusion,
            **{name: self[name].value for name in SCALAR_FIGURES},
            "auc_per_category": self.auc_per_category,
            "recall_per_category": self.recall_per_category,
            "precision_per_category": self.precision_per_category,
            "intervals": self.intervals,
            "undefined": self.undefined,
            "undefined_resamples": {name: count for name, count in left_out.items() if count},
            "notes": self.notes,
            "bootstrap": self.bootstrap,
            "seed": self.seed,
            "confidence": self.confidence,
            "n_not_given": self.n_not_given,
            "n_partial": self.n_partial,
            "patients": self.patients,
        }
        return {name: plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FiguresOfMerit:
        """Read what `to_dict` returned.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            The values are not of that form.
        """
        points = {name: values[name] for name in SCALAR_FIGURES}
        for kind in ("auc", "recall", "precision"):
            points |= {f"{kind}_{letter}": value for letter, value in values[f"{kind}_per_category"].items()}
        figures = {}
        for name, value in points.items():
            interval = values["intervals"].get(name) or (None, None)
            number, low, high = (nan if bound is None else _number(bound) for bound in (value, *interval))
            left_out = int(_number(values["undefined_resamples"].get(name, 0)))
            figures[name] = Figure(number, low, high, values["n"], values["undefined"].get(name), left_out)
        confusion = tuple(tuple(int(_number(count)) for count in row) for row in values["confusion"])
        how = {
            name: values[name] for name in ("bootstrap", "seed", "confidence", "n_not_given", "n_partial", "patients")
        }
        return cls(values["n"], confusion, figures, **how)


def _number(value: Any) -> float:
    """A number of a JSON file, which must be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return value


def figures_of_merit(
    reference: Sequence[str | int] | NDArray[Any],
    scores: ArrayLike,
    *,
    patients: Sequence[str] | None = None,
    bootstrap: int = 2000,
    seed: int = 1,
    confidence: float = 0.95,
) -> FiguresOfMerit:
    """Compare scores with the reference density of the same exams.

    The predicted category is the one with the highest score, the lower (less dense) one on an exact tie. The order of
    the exams has no influence, not even on the intervals.

    Parameters
    ----------
    reference
        N categories: `DensityCategory` or `TissueCategory`, letters, or positions from 0.
    scores
        Shape (N, 4), columns A to D, or (N, 3), columns F, G, D; each row from 0 to 1 with sum 1.
    patients
        The patient of each exam: all exams of one are drawn together. Without it exams are drawn one by one.
    bootstrap
        Number of resamples with replacement; 0 for no intervals.
    seed
        Seed of the resampling.
    confidence
        Coverage of the percentile intervals.

    Raises
    ------
    TableError
        ``reference``, ``scores`` or ``patients`` has a wrong shape, length or value.
    OptionError
        ``bootstrap`` or ``confidence`` is out of range.

    References
    ----------
    See `mammodensity.evaluation.bootstrap`.
    """
    values = check_scores(scores)
    positions = category_positions(reference, Scale.of(values.shape[1]))
    if len(positions) != len(values):
        raise TableError(
            f"reference and scores must have the same length. Got {len(positions)} and {len(values)} instead."
        )
    if not len(positions):
        raise TableError("reference must hold at least one exam. Got none instead.")
    return measure_exams(positions, values, patients, BootstrapSpec(bootstrap, seed, confidence))


def evaluate_table(
    table: ScoreTable,
    labels: Mapping[str, Category],
    *,
    patients: Mapping[str, str] | None = None,
    bootstrap: int = 2000,
    seed: int = 1,
    confidence: float = 0.95,
) -> dict[str, FiguresOfMerit]:
    """Compute the figures of merit of every level of ``table``, in the order of `LEVELS`.

    Exams without scores at a level are left out of that level and counted in ``n_not_given``; a level without any
    exam has ``n`` 0 and every figure undefined. ``patients`` maps exam to patient; the other parameters and the errors
    are those of `figures_of_merit`.

    Raises
    ------
    TableError
        An exam has no label or no patient, or scores are wrong.
    """
    reference = match(table, labels)
    spec = BootstrapSpec(bootstrap, seed, confidence)
    of_exam = None if patients is None else match_patients(table.exam_ids, patients)
    figures = {}
    for level in LEVELS:
        scored = np.flatnonzero(~np.isnan(table.scores[level]).all(axis=1))
        scores = check_scores(table.scores[level][scored])
        missing = table.missing.get(level)
        figures[level] = replace(
            measure_exams(
                reference[scored], scores, None if of_exam is None else [of_exam[exam] for exam in scored], spec
            ),
            n_not_given=len(reference) - len(scored),
            n_partial=sum(bool(missing[exam]) for exam in scored) if missing else 0,
        )
    return figures


def to_json(figures: Mapping[str, FiguresOfMerit]) -> dict[str, Any]:
    """Turn what `evaluate_table` returns into plain values: the keys are the levels, NaN is None."""
    return {level: values.to_dict() for level, values in figures.items()}


def measure_exams(
    reference: NDArray[np.intp], scores: Floats, patients: Sequence[str] | None, spec: BootstrapSpec
) -> FiguresOfMerit:
    """Do what `figures_of_merit` does, for positions (N,) and scores (N, K) that have been checked."""
    order, cluster = canonical_order(np.column_stack([reference, scores[:, ::-1]]), patients)
    reference, scores = reference[order], scores[order]
    everyone = np.ones((1, len(reference)))
    confusion = confusion_matrices(reference, scores.argmax(axis=1), everyone, scores.shape[1])[0].astype(int)
    return FiguresOfMerit(
        n=len(reference),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        figures=measure(
            lambda counts: sample_figures(reference, scores, counts),
            cluster,
            spec,
            lambda name: undefined_reason(name, confusion),
        ),
        bootstrap=spec.resamples,
        seed=spec.seed,
        confidence=spec.confidence,
        patients=None if patients is None else len(set(patients)),
    )


def undefined_reason(name: str, confusion: NDArray[np.int_]) -> str:
    """Say why the figure ``name`` is undefined for this confusion matrix, of shape (K, K) with rows true.

    ``name`` is one of those that `mammodensity.evaluation.agreement.sample_figures` returns.
    """
    exams, scale = confusion.sum(axis=1), Scale.of(len(confusion))
    if not exams.any():
        return "no exam has scores"
    absent = ", ".join(category for category in scale if not exams[category.index])
    same = "reference and prediction hold one and the same category only (0/0)"
    reasons = {
        "linear_kappa": same,
        "quadratic_kappa": same,
        "nll": "the score of an exam's reference category is exactly 0",
        "auc": f"no exam of category {absent} in the reference",
        "dense_auc": "the reference holds dense exams only, or none",
    }
    for category in scale:
        missing = f"no exam of category {category} in the reference"
        reasons[f"precision_{category}"] = f"category {category} is never predicted"
        reasons[f"recall_{category}"] = missing
        present = exams[category.index] > 0
        reasons[f"auc_{category}"] = f"the reference holds category {category} only" if present else missing
    return reasons[name]


def mean_notes(confusion: NDArray[np.int_]) -> dict[str, str]:
    """Say which categories the macro means of this confusion matrix (K, K) leave out, or count as 0."""
    exams, predicted, scale = confusion.sum(axis=1), confusion.sum(axis=0), Scale.of(len(confusion))
    if not exams.any():
        return {}
    absent = [c for c in scale if not exams[c.index]]
    nowhere = [c for c in absent if not predicted[c.index]]
    unpredicted = [c for c in scale if exams[c.index] and not predicted[c.index]]
    notes = {}
    if absent:
        notes["macro_recall"] = f"mean without {', '.join(absent)}: no such exam in the reference"
    parts = []
    if nowhere:
        parts.append(f"mean without {', '.join(nowhere)}: neither in the reference nor predicted")
    if unpredicted:
        parts.append(f"{', '.join(unpredicted)} counted as 0: never predicted")
    if parts:
        notes["macro_precision"] = "; ".join(parts)
    return notes


def category_positions(reference: Sequence[str | int] | NDArray[Any], scale: Scale = DENSITY) -> NDArray[np.intp]:
    """Positions on a scale, shape (N,), of categories that are letters or positions."""
    positions = []
    for place, value in enumerate(reference):
        if isinstance(value, str) and (category := scale.named(value)):
            positions.append(category.index)
        elif isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= value < len(scale):
            positions.append(int(value))
        else:
            raise TableError(
                f"reference must hold {scale} or 0 to {len(scale) - 1}. Got {value!r} at position {place} instead."
            )
    return np.array(positions, dtype=np.intp)


def check_scores(scores: ArrayLike) -> Floats:
    """Scores as (N, K) float64, K the categories of a `Scale`, each row from 0 to 1 with sum 1, or an error."""
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(
            f"scores must be numbers of shape (N, 4). Got {type(scores).__name__} ({error}) instead."
        ) from error
    if values.ndim != 2 or values.shape[1] not in map(len, SCALES):
        raise TableError(f"scores must have shape (N, 4), or (N, 3) of F, G, D. Got {values.shape} instead.")
    good = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= SUM_TOLERANCE)  # NaN compares False
    if not good.all():
        place = int(np.argmin(good))
        problem = score_problem(values[place].tolist())
        raise TableError(f"scores must be rows from 0 to 1 that sum to 1. Got row {place} instead: {problem}.")
    return values
