"""Masses: tumours, cysts and nodes, of which diagnostic archives hold many.

A mass attenuates as gland does (Johns and Yaffe, Phys. Med. Biol. 1987). A large one fills more of a ray than gland, so
that it may be the brightest part of an image and all other dense tissue faint beside it; readers count it as dense. A
small one stays below what they would outline, as a lobule does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from mammodensity.phantom.anatomy import FIELD_MM, Floats
from mammodensity.phantom.projection import LABELS, Paths

_DIAMETER_MM = 8.0, 45.0
_NUMBERS = (0.6, 0.25, 0.15)  # shares of breasts with masses that have one, two, three


def with_masses(paths: Paths, rng: np.random.Generator) -> Paths:
    """A breast with one to three masses: its glandular share is higher where they lie."""
    places = np.argwhere(np.isin(paths.labels, (LABELS["adipose"], LABELS["fibroglandular"])) & (paths.distance > 6))
    glandular = paths.glandular
    for _ in range(1 + int(rng.choice(len(_NUMBERS), p=_NUMBERS)) if len(places) else 0):
        filled = _filled(paths, places[rng.integers(len(places))], rng)
        glandular = 1 - (1 - glandular) * (1 - filled)  # what it does not fill stays as it was
    return replace(paths, glandular=glandular.astype(np.float32))


def _filled(paths: Paths, centre: np.ndarray[tuple[int], np.dtype[np.intp]], rng: np.random.Generator) -> Floats:
    """Share of each ray (rows, cols) that a mass fills: an ellipsoid, smooth, lobed or with an indistinct margin."""
    y, x = np.indices(paths.labels.shape, dtype=np.float32)
    pixel_mm = FIELD_MM / paths.labels.shape[0]
    down, along = (y - centre[0]) * pixel_mm, (x - centre[1]) * pixel_mm
    turn = rng.uniform(0, np.pi)
    across = along * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - along * np.sin(turn)
    low, high = np.log(_DIAMETER_MM)
    radius = np.exp(rng.uniform(low, high)) / 2
    angle = np.arctan2(across[1], across[0])
    uneven = rng.uniform(0, 0.12)
    lobes = 1 + sum(rng.normal(0, uneven) * np.cos(n * angle + rng.uniform(0, 6)) for n in (2, 3, 5, 8))
    reach = np.hypot(across[0], across[1] * rng.uniform(1, 1.6)) / np.maximum(lobes, 0.4) / radius
    chord = 2 * radius * rng.uniform(0.6, 1.0) * np.sqrt(np.clip(1 - reach**2, 0, 1))  # flattened by compression
    chord = gaussian_filter(chord, rng.uniform(0.2, 2.5) / pixel_mm)
    free = paths.tissue * (1 - paths.muscle)
    result: Floats = np.clip(chord / np.maximum(free, 1.0), 0, 0.98) * (paths.tissue > 0)
    return result
