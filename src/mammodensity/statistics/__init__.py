"""Statistics on top of the figures of merit: comparisons, readers, groups, drift, abstention, sample size.

Imports no torch. Every interval is a bootstrap over patients where they are known
(`mammodensity.evaluation.resampling`), unless its function says otherwise.
"""

from __future__ import annotations

from mammodensity.statistics.comparison import Comparison, compare
from mammodensity.statistics.readers import ReadersAgreement, readers_agreement
from mammodensity.statistics.readings import Reading, read_reading

__all__ = [
    "Comparison",
    "ReadersAgreement",
    "Reading",
    "compare",
    "read_reading",
    "readers_agreement",
]
