"""Fusion: the one place where scores of several projections become one set of scores.

The mean is INFN's method. The geometric mean (the mean of log scores) and the vote are other methods with other
answers, not other names for the same. Standard library and numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammodensity.errors import TableError, require_choice
from mammodensity.exam import Flag
from mammodensity.terms import DENSITY, FUSED_LEVELS, PROJECTIONS, SCALES, Category, Projection, Scale

FusionMethod = Literal["mean", "geometric-mean", "vote"]
FUSION_METHODS: tuple[FusionMethod, ...] = get_args(FusionMethod)
"""Methods that fuse the scores of single views; see `fuse`. ``mean`` is the default, and the INFN reference's."""

BY_THE_NETWORK = "joint"
"""The fusion of a joint network, which takes several views at once."""

Policy = Literal["mean", "denser"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
"""Which views decide the exam: ``mean``, all alike (as in the INFN reference), or ``denser``, those of the breast with
the higher expected category, as in BI-RADS reports (5th edition, 2013)."""

_TIE_WEIGHT = 1e-6  # of the mean within a vote: far below one vote, far above the spacing of float64 near 1
_SMALLEST_SCORE = float(np.finfo(np.float64).tiny)


SUM_TOLERANCE = 1e-3
"""How far from 1 the scores of one exam and level may sum."""


def score_problem(scores: Sequence[float]) -> str | None:
    """Say what is wrong with one row of scores, or None: each must be finite and not negative, all must sum to 1."""
    for score in scores:
        if not isfinite(score):
            return f"found a score of {score}, expected a number from 0 to 1"
        if score < 0:
            return f"found a negative score of {score:.6g}, expected a number from 0 to 1"
    total = sum(scores)
    if abs(total - 1) > SUM_TOLERANCE:
        return f"found scores that sum to {total:.6g}, expected 1 (within {SUM_TOLERANCE:g})"
    return None


@dataclass(frozen=True, eq=False)
class FusedScores:
    """Scores of a breast or the subject, and the projections that they were fused from.

    ``scores`` has shape (K,), K the categories of a `Scale`, or is None where it is not given; ``views`` are the
    projections present and ``missing`` those that were wanted and absent, both in the order of `PROJECTIONS`.

    Raises
    ------
    TableError
        The scores are not numbers from 0 to 1 that sum to 1.
    """

    scores: NDArray[np.float64] | None
    views: tuple[Projection, ...]
    missing: tuple[Projection, ...]

    def __post_init__(self) -> None:
        problem = None if self.scores is None else score_problem(self.scores.tolist())
        if problem:
            raise TableError(f"the scores fused from {', '.join(self.views)} cannot be used: {problem}")


@dataclass(frozen=True, eq=False)
class ExamScores:
    """Scores of one exam by a model: (K,) for each projection present, and those fused by `fuse_exam`."""

    exam_id: str
    projections: Mapping[Projection, NDArray[np.floating]]
    fused: Mapping[str, FusedScores]
    percent_density: Mapping[str, float] = field(default_factory=dict)
    """Per cent, by level, where the model measures it."""
    refused: Mapping[Projection, str] = field(default_factory=dict)
    """Images that were there and could not be used, and why."""
    view_flags: Mapping[Projection, tuple[Flag, ...]] = field(default_factory=dict)
    """Flags of the images that were used."""
    fusion: str = "mean"
    policy: str = "mean"

    @property
    def scale(self) -> Scale:
        """The categories of its scores; A to D where it has none."""
        return next((Scale.of(len(scores)) for scores in self.projections.values()), DENSITY)

    @property
    def category(self) -> Category | None:
        """The subject's category with the highest score (the lower one on a tie); None where no scores are given."""
        scores = self.fused["subject"].scores
        return None if scores is None else self.scale[int(np.argmax(scores))]


def fuse(view_scores: ArrayLike, method: str = "mean") -> NDArray[np.float64]:
    """Fuse the scores of V projections into one set of scores.

    Parameters
    ----------
    view_scores
        Shape (V, K) for one exam or (N, V, K) for several; each row sums to 1. An exam with a NaN among its scores
        gets NaN.
    method
        ``mean``: the mean of the scores. ``geometric-mean``: the geometric mean, divided by its sum. ``vote``: the
        share of projections whose highest score is that category; a tie goes to the tied category with the higher
        mean score. To that end the mean enters with a weight of one millionth, so that the highest of the returned
        scores is the winner and they still sum to 1.

    Returns
    -------
    Shape (K,) or (N, K).

    Raises
    ------
    OptionError
        ``method`` is not one of `FUSION_METHODS`.
    TableError
        ``view_scores`` has another shape, holds no projection, or holds a negative number (logits, not scores).
    """
    require_choice("fusion method", method, FUSION_METHODS)
    scores = np.asarray(view_scores, dtype=np.float64)
    if scores.ndim not in (2, 3) or 0 in scores.shape[-2:]:
        raise TableError(
            f"view_scores must have shape (V, K) or (N, V, K) with at least one projection. Got {scores.shape} instead."
        )
    if (scores < 0).any():
        raise TableError(f"view_scores must be scores after softmax, from 0 to 1. Got {np.nanmin(scores):.6g} instead.")
    if method == "geometric-mean":
        return _geometric_mean(scores)
    mean: NDArray[np.float64] = scores.mean(axis=-2)
    if method == "mean":
        return mean
    return (1 - _TIE_WEIGHT) * _vote_shares(scores) + _TIE_WEIGHT * mean


def fuse_exam(
    projection_scores: Mapping[Projection, NDArray[np.floating]],
    method: str = "mean",
    allow_missing: bool = False,
    policy: str = "mean",
) -> dict[str, FusedScores]:
    """Fuse one exam's projections into right breast, left breast and subject.

    Parameters
    ----------
    projection_scores
        Scores of shape (K,) per projection, K the categories of a `Scale`; an absent projection is an absent key.
    method
        One of `FUSION_METHODS`.
    allow_missing
        What to do where a projection is missing: False gives no scores, True fuses those present. A level with no
        projection at all never gets scores. ``missing`` names the absent ones either way.
    policy
        One of `POLICIES`: how the subject's scores come from the views.

    Raises
    ------
    OptionError
        ``method`` is not one of `FUSION_METHODS`, or ``policy`` none of `POLICIES`.
    TableError
        A key is not a projection, or its scores do not have the shape of the others.
    """
    require_choice("fusion method", method, FUSION_METHODS)
    arrays = projection_scores.values()
    for name, scores in projection_scores.items():
        if name not in PROJECTIONS:
            raise TableError(f"projections must be among {', '.join(PROJECTIONS)}. Got {name!r} instead.")
        if (
            np.ndim(scores) != 1
            or len(scores) not in map(len, SCALES)
            or len({np.shape(array) for array in arrays}) > 1
        ):
            raise TableError(f"scores of {name} must have shape (4,), or (3,) all. Got {np.shape(scores)} instead.")
    return fused_levels(
        projection_scores,
        allow_missing,
        lambda views: fuse_views({view: projection_scores[view] for view in views}, method, policy),
    )


def fused_levels(
    present: Collection[Projection],
    allow_missing: bool,
    scores_of: Callable[[tuple[Projection, ...]], NDArray[np.float64]],
) -> dict[str, FusedScores]:
    """Right breast, left breast and subject from the projections present; ``scores_of`` some of them, at least one."""
    fused = {}
    for level, wanted in FUSED_LEVELS.items():
        views = tuple(view for view in wanted if view in present)
        missing = tuple(view for view in wanted if view not in present)
        fusible = bool(views) and (allow_missing or not missing)
        fused[level] = FusedScores(scores_of(views) if fusible else None, views, missing)
    return fused


def fuse_views(
    view_scores: Mapping[Projection, NDArray[np.floating]], method: str = "mean", policy: str = "mean"
) -> NDArray[np.float64]:
    """Fuse the views present, of one exam (K,) each or of several (N, K), by method and policy; at least one view.

    Raises
    ------
    OptionError
        Unknown method or policy.
    """
    require_choice("policy", policy, POLICIES)
    sides = [
        fuse(
            np.stack([view_scores[view] for view in PROJECTIONS if view in view_scores and view in wanted], -2), method
        )
        for wanted in (FUSED_LEVELS["right"], FUSED_LEVELS["left"])
        if any(view in view_scores for view in wanted)
    ]
    if policy == "mean" or len(sides) == 1:
        return fuse(np.stack([view_scores[view] for view in PROJECTIONS if view in view_scores], -2), method)
    return denser(sides[0], sides[1])


def denser(right: NDArray[np.float64], left: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of the breast with the higher expected category: (K,) or (N, K) each."""
    positions = np.arange(right.shape[-1])
    result: NDArray[np.float64] = np.where((right @ positions >= left @ positions)[..., np.newaxis], right, left)
    return result


def _geometric_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    # A score of 0 counts as the smallest float: two views sure of different categories then share the result evenly
    # instead of giving 0/0.
    logs = np.log(np.maximum(scores, _SMALLEST_SCORE)).mean(axis=-2)  # (..., K)
    product = np.exp(logs - logs.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = product / product.sum(axis=-1, keepdims=True)
    return result


def _vote_shares(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    winners = scores.argmax(axis=-1)  # (..., V)
    votes = winners[..., np.newaxis] == np.arange(scores.shape[-1])  # (..., V, K)
    shares: NDArray[np.float64] = votes.mean(axis=-2)
    return shares
