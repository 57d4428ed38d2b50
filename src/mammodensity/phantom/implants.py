"""Implants: what lies in front of the chest wall and is neither gland nor fat.

Saline attenuates as glandular tissue does, silicone two to three times as much, so that an implant is among the
brightest and smoothest parts of an image, with a convex border towards the nipple. It displaces the tissue in its path.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mammodensity.phantom.anatomy import Floats
from mammodensity.phantom.projection import Paths

IMPLANT = 4
"""In labels for training."""
_MU_SALINE, _MU_SILICONE = 0.08, 0.2
"""Per mm at 20 keV, from the elements' coefficients (NIST X-ray attenuation databases); of filled devices about."""
_LEAST_MM = 3.0  # of the path: thinner edges are not told from tissue


def with_implant(paths: Paths, rng: np.random.Generator) -> tuple[Paths, Floats]:
    """A breast with an implant, and what the implant adds to minus the logarithm of the signal (rows, cols)."""
    body = paths.thickness > 0
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    y, x = np.indices(body.shape, dtype=np.float32)
    height, depth = float(rows[-1] - rows[0] + 1), float(columns[-1] + 1)
    half, reach = rng.uniform(0.25, 0.42) * height, rng.uniform(0.3, 0.8) * depth
    behind = rng.uniform(0, 0.6) * reach  # what the chest wall cuts off
    middle = rows[0] + height * rng.normal(0.5, 0.06)
    across, along = (x + behind) / (reach + behind), (y - middle) / half
    angle, power = np.arctan2(along, across), rng.uniform(2.0, 2.8)
    ripple = 1 + sum(rng.normal(0, 0.02) * np.cos(n * angle + rng.uniform(0, 6)) for n in (2, 3, 5))
    radius = (np.abs(across) ** power + np.abs(along) ** power) ** (1 / power) / ripple
    slab = float(paths.thickness.max())
    chord = slab * rng.uniform(0.5, 0.95) * np.sqrt(np.clip(1 - radius ** rng.uniform(2, 8), 0, 1)) * body
    chord = np.minimum(chord, 0.9 * paths.tissue).astype(np.float32)
    left = paths.tissue - chord
    seen = (chord > _LEAST_MM) & np.isin(paths.labels, (1, 2))
    labels = np.where(seen, IMPLANT, paths.labels).astype(np.uint8)
    share = left / np.maximum(paths.tissue, 1e-3)  # what was in the path is spread and pushed aside
    displaced = replace(paths, tissue=left, fibrous=paths.fibrous * share, ducts=paths.ducts * share, labels=labels)
    return displaced, chord * np.float32(rng.uniform(_MU_SALINE, _MU_SILICONE))
