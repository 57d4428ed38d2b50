"""Statistics on top of the figures of merit: comparisons, readers, groups, drift, abstention, sample size.

Imports no torch. Every interval is a bootstrap over patients where they are known
(`mammodensity.evaluation.resampling`), unless its function says otherwise.
"""

from __future__ import annotations

from mammodensity.statistics.challenge import ChallengeFigures, challenge_figures
from mammodensity.statistics.comparison import Comparison, compare
from mammodensity.statistics.drift import Drift, drift
from mammodensity.statistics.readers import ReadersAgreement, readers_agreement
from mammodensity.statistics.readings import Reading, read_reading
from mammodensity.statistics.rejection import RejectCurve, reject_curve
from mammodensity.statistics.sample_size import SampleSize, SampleSizeSpec, sample_size
from mammodensity.statistics.subgroups import Group, figures_by_group
from mammodensity.statistics.view_subsets import ViewSubsets, view_subsets

__all__ = [
    "ChallengeFigures",
    "Comparison",
    "Drift",
    "Group",
    "ReadersAgreement",
    "Reading",
    "RejectCurve",
    "SampleSize",
    "SampleSizeSpec",
    "ViewSubsets",
    "challenge_figures",
    "compare",
    "drift",
    "figures_by_group",
    "read_reading",
    "readers_agreement",
    "reject_curve",
    "sample_size",
    "view_subsets",
]
