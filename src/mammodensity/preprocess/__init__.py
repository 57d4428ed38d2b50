"""From a mammogram to the network's input: one code path for training, prediction and explanation.

``docs/preprocessing.md`` says what is done, why, and how well.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from mammodensity.exam import Mammogram
from mammodensity.preprocess.network_input import Placement, fitted_box, placement, preprocess, visible_part
from mammodensity.preprocess.orientation import stored_flipped
from mammodensity.preprocess.regions import Regions, find_regions
from mammodensity.preprocess.spec import ORIGIN_PREPROCESS, RAW_PREPROCESS, PreprocessSpec

__all__ = [
    "ORIGIN_PREPROCESS",
    "RAW_PREPROCESS",
    "Placement",
    "PreprocessSpec",
    "Regions",
    "find_regions",
    "fitted_box",
    "placement",
    "preprocess",
    "stored_flipped",
    "visible_part",
]


class _Package(ModuleType):
    """Python binds this package to ``mammodensity.preprocess``, where users look for the function: be both."""

    def __call__(self, mammogram: Mammogram, spec: PreprocessSpec) -> NDArray[np.float32]:
        return preprocess(mammogram, spec)


sys.modules[__name__].__class__ = _Package
