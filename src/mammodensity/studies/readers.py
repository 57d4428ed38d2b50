"""Several readers of the same exams: how far they agree with each other, with their consensus and with a reference.

Figures are array arithmetic for B (re)samples at once. Votes are counts of shape (N, 4): how many readers gave an exam
each category. Samples are counts of shape (B, N): how often each exam is in each. Results have shape (B,), NaN where
undefined.

References
----------
Fleiss, J. L. (1971). Measuring nominal scale agreement among many raters. Psychological Bulletin 76(5), 378-382.
Krippendorff, K. (2011). Computing Krippendorff's alpha-reliability. University of Pennsylvania, Annenberg School.
Light, R. J. (1971). Measures of response agreement for qualitative data. Psychological Bulletin 76(5), 365-377, and
Conger, A. J. (1980). Integration and generalization of kappas for multiple raters. Psychological Bulletin 88(2),
322-328: the mean of the kappas of all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import OptionError
from mammodensity.evaluation.agreement import Floats, confusion_figures, confusion_matrices, ratio
from mammodensity.evaluation.bootstrap import STANDARD_BOOTSTRAP, BootstrapSpec, Figure, canonical_order, measure, plain
from mammodensity.evaluation.figures import undefined_reason
from mammodensity.evaluation.labels import match_exams, match_patients
from mammodensity.studies.compare import Errors, errors
from mammodensity.studies.readings import Reading, few_warnings
from mammodensity.terms import CATEGORIES, DENSITY, RESEARCH_USE_ONLY, DensityCategory

_K = len(CATEGORIES)
_EXACT = 1e-12  # chance agreement this near 1 is 1: all ratings are of one category


def fleiss_kappa(votes: NDArray[np.int_], counts: Floats) -> Floats:
    """Fleiss' kappa of exams that all have the same number of ratings, at least two.

    NaN where all ratings of a sample are of one category (0/0), or there is no exam.

    References
    ----------
    Fleiss 1971, see above.
    """
    each = int(votes[0].sum()) if len(votes) else 0
    agreeing = (votes * (votes - 1)).sum(axis=1) / (each * (each - 1)) if each > 1 else np.full(len(votes), np.nan)
    exams = counts.sum(axis=1)
    observed = ratio(counts @ agreeing, exams)
    shares = ratio(counts @ votes, (each * exams)[:, np.newaxis])  # (B, K)
    chance = (shares**2).sum(axis=1)
    return ratio(observed - chance, np.where(1 - chance > _EXACT, 1 - chance, 0))


def ordinal_alpha(votes: NDArray[np.int_], counts: Floats) -> Floats:
    """Krippendorff's alpha for ordered categories; exams may have different numbers of ratings.

    Exams with fewer than two ratings say nothing and are left out. NaN where all ratings are of one category.

    References
    ----------
    Krippendorff 2011, see above: coincidences of pairs within exams, ordinal metric.
    """
    each = votes.sum(axis=1)
    votes, counts, each = votes[each > 1], counts[:, each > 1], each[each > 1]
    pairs = votes[:, :, np.newaxis] * votes[:, np.newaxis, :] - votes[:, :, np.newaxis] * np.eye(_K)  # (N, K, K)
    coincidences = (counts @ (pairs / (each - 1)[:, np.newaxis, np.newaxis]).reshape(-1, _K * _K)).reshape(-1, _K, _K)
    margins = coincidences.sum(axis=2)  # (B, K)
    distance = _ordinal_distance(margins)
    total = margins.sum(axis=1)
    observed = (coincidences * distance).sum(axis=(1, 2)) * (total - 1)
    expected = (margins[:, :, np.newaxis] * margins[:, np.newaxis, :] * distance).sum(axis=(1, 2))
    alpha: Floats = 1 - ratio(observed, expected)
    return alpha


def _ordinal_distance(margins: Floats) -> Floats:
    """Squared number of ratings between two categories, half of each end counted: (B, K) -> (B, K, K)."""
    middle = np.cumsum(margins, axis=1) - margins / 2  # ratings up to the middle of each category
    distance: Floats = (middle[:, :, np.newaxis] - middle[:, np.newaxis, :]) ** 2
    return distance


def consensus(votes: NDArray[np.int_]) -> NDArray[np.intp]:
    """The category most readers gave: (N, 4) -> (N,), -1 where none gave any.

    A tie goes to the tied category nearest to the mean of all ratings (A is 0, D is 3), and if two are as near, to the
    less dense of them.
    """
    position = np.arange(_K)
    each = votes.sum(axis=1, keepdims=True)
    away = np.abs(position * each - (votes * position).sum(axis=1, keepdims=True))  # whole numbers: ties stay exact
    best = (votes * (_K * each + 1) - away).argmax(axis=1)
    return np.where(each[:, 0] > 0, best, -1)


PAIR_FIGURES = ("accuracy", "linear_kappa", "quadratic_kappa", "dense_accuracy")
"""Figures of two readings of the same exams; ``accuracy`` is the share on which they agree."""

MAJORITY = "majority"
CONSENSUS_RULE = (
    "the category most readers gave; a tie goes to the tied category nearest to the mean of the ratings, then to the "
    "less dense"
)


@dataclass(frozen=True)
class Pair:
    """Two readings on the exams that both gave: figures by `PAIR_FIGURES`, and how heavy the disagreements are."""

    a: str
    b: str
    n: int
    figures: dict[str, Figure]
    differ: Errors


@dataclass(frozen=True)
class ReadersAgreement:
    """Agreement of two readers or more.

    Attributes
    ----------
    n, n_complete
        Exams that any reader read, and exams that all did.
    patients
        None where exams were resampled.
    unanimous, within_one, same_side
        Share of the complete exams on which all agree; differ by one category at most; agree on dense or not.
    fleiss_kappa
        Of the complete exams.
    mean_linear_kappa, mean_quadratic_kappa
        Mean over all pairs of readers; a pair whose kappa is undefined makes the mean so.
    ordinal_alpha
        Krippendorff's, over all exams with two ratings or more.
    pairs
        Each pair of readers.
    with_consensus
        Each reader against the consensus of the others; exams that no other reader read are left out.
    with_reference
        Each reader, and the majority of all, against the reference; empty without one.
    """

    readers: tuple[str, ...]
    n: int
    n_complete: int
    patients: int | None
    unanimous: Figure
    within_one: Figure
    same_side: Figure
    fleiss_kappa: Figure
    mean_linear_kappa: Figure
    mean_quadratic_kappa: Figure
    ordinal_alpha: Figure
    pairs: tuple[Pair, ...]
    with_consensus: tuple[Pair, ...]
    with_reference: tuple[Pair, ...]
    bootstrap: int
    seed: int
    confidence: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons why the figures may mean little, a line each."""
        if self.n_complete < self.n:
            all_read = few_warnings(self.n_complete, None)
            return (*few_warnings(self.n, self.patients), *(f"read by all: {text}" for text in all_read))
        return few_warnings(self.n, self.patients)

    @property
    def summary(self) -> str:
        """The result in plain words."""
        text = f"{len(self.readers)} readers, {self.n_complete} exams read by all. "
        if self.n_complete:
            text += f"All agree on {self.unanimous.value:.1%}, and on dense or not on {self.same_side.value:.1%}. "
        kappa = self.mean_linear_kappa
        if not isnan(kappa.value):
            interval = f" ({kappa.interval[0]:.2f} to {kappa.interval[1]:.2f})" if kappa.interval else ""
            text += f"Mean linear kappa of two readers {kappa.value:.2f}{interval}. "
        kappas = {pair.a: pair.figures["linear_kappa"].value for pair in self.with_consensus}
        ranked = sorted((value, name) for name, value in kappas.items() if not isnan(value))
        if len(ranked) > 1 and ranked[0][0] < ranked[1][0]:  # of two readers each is as far from the other
            value, name = ranked[0]
            text += f"Farthest from the others: {name} (linear kappa {value:.2f} with their consensus)."
        return text.strip()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON knows, with the summary and null for NaN."""
        return {
            "summary": self.summary,
            "warnings": list(self.warnings),
            "consensus_rule": CONSENSUS_RULE,
            **plain(vars(self)),
            "note": RESEARCH_USE_ONLY,
        }


def readers_agreement(
    readers: Sequence[Reading],
    reference: Mapping[str, DensityCategory] | None = None,
    *,
    patients: Mapping[str, str] | None = None,
    spec: BootstrapSpec = STANDARD_BOOTSTRAP,
) -> ReadersAgreement:
    """Measure the agreement of two readers or more.

    Raises
    ------
    OptionError
        Fewer than two readers.
    TableError
        An exam has no reference, or no patient.
    """
    if len(readers) < 2:
        raise OptionError(f"agreement needs at least two readers. Got {len(readers)} instead.")
    exam_ids = list(dict.fromkeys(exam_id for reader in readers for exam_id in reader.exam_ids))
    ratings = np.stack([_ratings(reader, exam_ids) for reader in readers], axis=1)  # (N, R), -1 where not read
    true = None if reference is None else match_exams(exam_ids, reference)
    of_exam = None if patients is None else match_patients(exam_ids, patients)
    rows = ratings if true is None else np.column_stack([true, ratings])
    order, cluster = canonical_order(rows.astype(np.float64), of_exam)
    names = tuple(reader.name for reader in readers)
    ratings = ratings[order]
    couples = _couples(names, ratings, None if true is None else true[order])
    figures = measure(lambda counts: _figures(ratings, couples, counts), cluster, spec)
    complete = int((ratings >= 0).all(axis=1).sum())
    whole: dict[str, Any] = {name: _with_reason(name, figures[None, name], complete) for name in _WHOLE}
    pairs: dict[str, Any] = {kind: tuple(_pair(couple, figures) for couple in couples[kind]) for kind in couples}
    return ReadersAgreement(
        readers=names,
        n=len(exam_ids),
        n_complete=complete,
        patients=None if of_exam is None else len(set(of_exam)),
        **whole,
        **pairs,
        bootstrap=spec.resamples,
        seed=spec.seed,
        confidence=spec.confidence,
    )


_WHOLE = (
    "unanimous",
    "within_one",
    "same_side",
    "fleiss_kappa",
    "mean_linear_kappa",
    "mean_quadratic_kappa",
    "ordinal_alpha",
)


@dataclass(frozen=True, eq=False)
class _Couple:
    """Two columns of categories (N,), -1 where not given; the second is the one held as true."""

    a: str
    b: str
    first: NDArray[np.intp]
    second: NDArray[np.intp]

    @property
    def both(self) -> NDArray[np.bool_]:
        return (self.first >= 0) & (self.second >= 0)


_Key = tuple[_Couple | None, str]
"""A figure of a couple, or of all readers, by its name."""


def _couples(
    names: Sequence[str], ratings: NDArray[np.intp], reference: NDArray[np.intp] | None
) -> dict[str, list[_Couple]]:
    """Pair the readers with each other, with the consensus of the others, and with the reference."""
    readers, votes = list(zip(names, ratings.T, strict=True)), _votes(ratings)
    couples = {
        "pairs": [_Couple(a, b, first, second) for (a, first), (b, second) in combinations(readers, 2)],
        "with_consensus": [
            _Couple(name, "consensus of the others", column, consensus(votes - _votes(column[:, np.newaxis])))
            for name, column in readers
        ],
        "with_reference": [],
    }
    if reference is not None:
        columns = [*readers, (MAJORITY, consensus(votes))]
        couples["with_reference"] = [_Couple(name, "reference", column, reference) for name, column in columns]
    return couples


def _votes(ratings: NDArray[np.intp]) -> NDArray[np.int_]:
    """Count how many readers gave an exam each category: (N, R) -> (N, K)."""
    votes: NDArray[np.int_] = (ratings[:, :, np.newaxis] == np.arange(_K)).sum(axis=1)
    return votes


def _ratings(reader: Reading, exam_ids: Sequence[str]) -> NDArray[np.intp]:
    categories = dict(zip(reader.exam_ids, reader.predicted.tolist(), strict=True))
    return np.array([categories.get(exam_id, -1) for exam_id in exam_ids], dtype=np.intp)


def _figures(ratings: NDArray[np.intp], couples: Mapping[str, list[_Couple]], counts: Floats) -> dict[_Key, Floats]:
    figures: dict[_Key, Floats] = {}
    for couple in (couple for members in couples.values() for couple in members):
        both = couple.both
        confusion = confusion_matrices(couple.second[both], couple.first[both], counts[:, both])
        values = confusion_figures(confusion)
        figures |= {(couple, name): values[name] for name in PAIR_FIGURES}
    for name in ("linear_kappa", "quadratic_kappa"):
        figures[None, f"mean_{name}"] = np.mean([figures[couple, name] for couple in couples["pairs"]], axis=0)
    complete = (ratings >= 0).all(axis=1)
    votes, inside = _votes(ratings), counts[:, complete]
    dense = np.array(DENSITY.dense)[ratings[complete]]
    spread = np.ptp(ratings[complete], axis=1) if complete.any() else np.zeros(0)
    exams = inside.sum(axis=1)
    for name, holds in (
        ("unanimous", spread == 0),
        ("within_one", spread <= 1),
        ("same_side", dense.all(axis=1) | ~dense.any(axis=1)),
    ):
        figures[None, name] = ratio(inside @ holds.astype(np.float64), exams)
    figures[None, "fleiss_kappa"] = fleiss_kappa(votes[complete], inside)
    figures[None, "ordinal_alpha"] = ordinal_alpha(votes, counts)
    return figures


def _with_reason(name: str, figure: Figure, complete: int) -> Figure:
    """Say why a figure of all readers is undefined, and how many exams it is of."""
    if name.startswith("mean_"):
        reason = "the kappa of a pair of readers is undefined"
    elif name == "ordinal_alpha":
        reason = "all ratings are of one category (0/0), or no exam has two ratings"
    else:
        reason = "all ratings are of one category (0/0)" if complete else "no exam was read by all readers"
        figure = replace(figure, n=complete)
    return replace(figure, reason=reason) if isnan(figure.value) else figure


def _pair(couple: _Couple, figures: Mapping[_Key, Figure]) -> Pair:
    both = couple.both
    first, second = couple.first[both], couple.second[both]
    confusion = confusion_matrices(second, first, np.ones((1, len(first))))[0].astype(int)
    of_pair = {}
    for name in PAIR_FIGURES:
        figure = replace(figures[couple, name], n=len(first))
        if isnan(figure.value):
            reason = undefined_reason(name, confusion) if len(first) else "no exam in common"
            figure = replace(figure, reason=reason)
        of_pair[name] = figure
    return Pair(couple.a, couple.b, len(first), of_pair, errors(second, first))
