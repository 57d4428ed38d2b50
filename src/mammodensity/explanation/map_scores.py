"""Scores of one map and of its baselines, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.anatomy.outline import Regions
from mammodensity.anatomy.tissue import TissueMap, find_tissue
from mammodensity.errors import ImageError, OptionError
from mammodensity.exam import Mammogram
from mammodensity.explanation.changes import find_curves, outside_changes, randomised_similarity, replaced, stability
from mammodensity.explanation.measures import (
    BASELINES,
    Areas,
    Figures,
    Floats,
    Reasons,
    areas_of,
    baseline_maps,
    place_scores,
)
from mammodensity.explanation.probe import Probe
from mammodensity.explanation.verdicts import OUTSIDE, STANDARD_RULES, Verdict, VerdictRules, judge

NOT_ASKED = "the network was not asked"
NO_ORDER = "an even map puts no pixel before another"
ONE_VALUE = "the map has one value in the whole breast"

_RANDOM_SEEDS = (1, 2)
_CURVE_SCORES = ("deletion", "insertion", "faithfulness")
_CHANGES = tuple(f"{part}_{what}" for part in OUTSIDE for what in ("change", "logit"))
_STABILITY = ("stability_shift", "stability_noise", "stability_mirror")


@dataclass(frozen=True)
class ScoreSpec:
    """Settings of the scoring of a map."""

    rules: VerdictRules = STANDARD_RULES
    replacement: str = "median"
    """The replacement of deleted pixels; one of ``REPLACEMENTS``."""
    stability: bool = True
    """Explain changed images, too: four more maps."""
    seed: int = 0
    """Seed of noise and of the order of ties."""


STANDARD_SCORING = ScoreSpec()


@dataclass(frozen=True, eq=False)
class ExplanationScores:
    """Scores of a map."""

    scores: Mapping[str, float | None]
    """By name; None where undefined."""
    baselines: Mapping[str, Mapping[str, float | None]]
    """The same of each baseline."""
    reasons: Mapping[str, str]
    """Why a figure is undefined, by its name, for a baseline by ``baseline.name``."""
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """The scores as JSON values; undefined figures are null."""
        return {
            "scores": dict(self.scores),
            "baselines": {name: dict(figures) for name, figures in self.baselines.items()},
            "reasons": dict(self.reasons),
            "verdict": self.verdict.to_dict(),
        }


def score_explanation(
    values: Floats,
    image: NDArray[Any],
    regions: Areas | Regions | TissueMap | NDArray[np.uint8] | None = None,
    *,
    probe: Probe | None = None,
    spec: ScoreSpec = STANDARD_SCORING,
) -> ExplanationScores:
    """Score a map (H, W) of an image (H, W), beside a uniform, a random, a blob and a bright-pixel map.

    Parameters
    ----------
    values
        (H, W); only what is positive counts as the map's mass.
    image
        (H, W) grey values; with a ``probe``, as the network is given them before they are centred.
    regions
        A label image (0 background, 1 adipose, 2 fibroglandular, 3 muscle), or what was found in the image; None finds
        breast and dense tissue by the networks that come with the package.
    probe
        The network, for deletion and insertion, stability, sanity and what lies outside the breast; without one those
        figures are None.

    Raises
    ------
    OptionError
        Shapes differ, a value is not finite, or there is no breast.
    """
    values, image = np.asarray(values), np.asarray(image)
    areas = _areas(regions, image)
    _require_fitting(values, image, areas)
    plain = baseline_maps(values, image, areas, spec.seed)
    figures, reasons = place_scores(values, image, areas)
    baselines: dict[str, Figures] = {}
    for name, other in plain.items():
        baselines[name], lacking = place_scores(other, image, areas)
        reasons |= {f"{name}.{figure}": reason for figure, reason in lacking.items()}
    if probe is None:
        asked = (*_CURVE_SCORES, *_CHANGES, "randomised", *_STABILITY)
        figures |= dict.fromkeys(asked)
        reasons |= dict.fromkeys(asked, NOT_ASKED)
        category = better = None
    else:
        _ask(figures, baselines, reasons, (values, image, areas, plain), probe=probe, spec=spec)
        category, better = probe.category, probe.better_than_chance
    verdict = judge(figures, baselines, category=category, better_than_chance=better, rules=spec.rules)
    return ExplanationScores(figures, baselines, reasons, verdict)


def _areas(regions: Areas | Regions | TissueMap | NDArray[np.uint8] | None, image: NDArray[Any]) -> Areas:
    if regions is not None:
        return areas_of(regions)
    if image.ndim != 2 or not np.isfinite(image).all() or np.ptp(image) == 0:
        raise OptionError("the image must be finite grey values (H, W) that are not all alike")
    scaled = (image.astype(np.float64) - image.min()) / np.ptp(image)
    try:
        return areas_of(find_tissue(Mammogram(np.rint(scaled * 65535).astype(np.uint16), None)))
    except ImageError as error:
        raise OptionError(f"the map cannot be scored without regions: {error}") from error


def _require_fitting(values: Floats, image: NDArray[Any], areas: Areas) -> None:
    if not values.shape == image.shape == areas.breast.shape:
        shapes = f"{values.shape}, {image.shape} and {areas.breast.shape}"
        raise OptionError(f"map, image and regions must have one shape (H, W). Got {shapes} instead.")
    if not np.isfinite(values).all() or not np.isfinite(image).all():
        raise OptionError("map and image must be finite; one holds NaN or infinity")


def _ask(
    figures: Figures,
    baselines: dict[str, Figures],
    reasons: Reasons,
    about: tuple[Floats, Floats, Areas, dict[str, Floats]],
    *,
    probe: Probe,
    spec: ScoreSpec,
) -> None:
    """Add what only the network can tell."""
    values, image, areas, plain = about
    ordered = {"": values} | {name: other for name, other in plain.items() if name != "uniform"}
    ordered = {name: grades for name, grades in ordered.items() if np.ptp(grades) > 0}
    curves = find_curves(ordered, image, replaced(image, areas, spec.replacement), probe, seed=spec.seed)
    for name in ("", *BASELINES):
        into = figures if not name else baselines[name]
        if name in curves:
            deletion, insertion = curves[name].deletion_area, curves[name].insertion_area
            into |= {"deletion": deletion, "insertion": insertion, "faithfulness": insertion - deletion}
        else:
            into |= dict.fromkeys(_CURVE_SCORES)
            reasons |= {f"{name}.{figure}" if name else figure: NO_ORDER for figure in _CURVE_SCORES}
    changes, lacking = outside_changes(image, areas, probe)
    figures |= changes
    reasons |= lacking
    figures["randomised"] = randomised_similarity(values, image, areas, probe, _RANDOM_SEEDS)
    if figures["randomised"] is None:
        reasons["randomised"] = ONE_VALUE
    if spec.stability:
        steady, lacking = stability(values, image, areas, probe, spec.seed)
        figures |= steady
        reasons |= lacking
