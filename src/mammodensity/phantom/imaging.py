"""From paths to grey levels: attenuation, scatter, quantum noise, and a vendor's processing for presentation.

References
----------
Linear attenuation coefficients: Johns and Yaffe, Phys. Med. Biol. 1987, fat and fibrous tissue at 20 keV.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mammodensity.phantom.anatomy import FIELD_MM, Floats, Processing
from mammodensity.phantom.geometry import blur, resample
from mammodensity.phantom.projection import Paths

MU_FAT = 0.0456
MU_GLAND = 0.0802
"""Attenuation per mm at 20 keV; muscle, skin, vessels, ducts and ligaments are taken as fibroglandular."""

_SCATTER_MM = 18.0
_DETECTOR_BLUR_MM = 0.09
_EQUALISED_FROM = 0.35  # share of the full thickness; the thinner rim fades into the background


def expose(paths: Paths, processing: Processing, rng: np.random.Generator) -> Floats:
    """Detector signal as a share of the open beam: Beer-Lambert, scatter left by the grid, blur, Poisson noise."""
    rows, cols = paths.thickness.shape
    spacing = FIELD_MM / rows
    free = paths.tissue * (1 - paths.muscle)
    dense = paths.tissue * paths.muscle + np.minimum(paths.glandular * free + paths.fibrous + paths.ducts, free)
    primary = np.exp(-(MU_FAT * (paths.tissue - dense) + MU_GLAND * (dense + paths.skin)))
    coarse = resample(primary, (64, round(64 * cols / rows)))
    veil = gaussian_filter(coarse, _SCATTER_MM / FIELD_MM * 64, mode="nearest")
    # The open beam beside the breast scatters nothing: only what is below tissue counts.
    body = resample((paths.thickness > 0).astype(np.float32), coarse.shape)
    below = gaussian_filter(coarse * body, _SCATTER_MM / FIELD_MM * 64)
    signal = primary + processing.scatter * resample(np.minimum(veil, below).astype(np.float32), (rows, cols))
    if spacing < 4 * _DETECTOR_BLUR_MM:
        signal = gaussian_filter(signal, _DETECTOR_BLUR_MM / spacing)
    photons = signal * np.float32(processing.photons_per_mm2 * spacing**2)
    noisy = photons + np.sqrt(photons) * rng.standard_normal((rows, cols), dtype=np.float32)
    result: Floats = np.maximum(noisy, 1) / np.float32(processing.photons_per_mm2 * spacing**2)
    return result


def present(signal: Floats, paths: Paths, processing: Processing, bits: int) -> NDArray[np.unsignedinteger[Any]]:
    """Processing for presentation: logarithm, peripheral equalisation, unsharp mask, window, tone curve."""
    spacing = FIELD_MM / signal.shape[0]
    slab = float(paths.thickness.max())
    lead = -np.log(signal)
    # Vendors estimate the missing thickness at the edge and fill most of it with fat.
    missing = slab - np.maximum(paths.thickness, _EQUALISED_FROM * slab)
    filled = lead + processing.equalisation * MU_FAT * missing
    for sigma_mm, share in ((0.6, 0.6), (4.0, 1.0), (12.0, 0.5)):
        if sigma_mm > 0.4 * spacing:
            filled = filled + processing.sharpening * share * (filled - blur(filled, sigma_mm / spacing))
    interior = (paths.distance > 8) & (paths.muscle == 0)
    fat, dense = (float(p) for p in np.percentile(filled[interior], (3, 99.3)))
    full = (MU_GLAND - MU_FAT) * slab
    # Between a fixed window and one fitted to the image: the display hides part of the difference between breasts.
    span = full * min(max((dense - fat) / full, 0.2), 1.2) ** 0.45
    level = processing.fat_level + processing.gain * (filled - fat) / span
    cover = np.clip(0.5 + paths.distance / spacing, 0, 1)
    cover = np.maximum(cover, (paths.thickness > 0).astype(np.float32))
    grey = _shoulder(np.maximum(level, 0)) ** processing.gamma * cover
    top = 2**bits - 1
    kind = np.uint8 if bits == 8 else np.uint16
    pixels: NDArray[np.unsignedinteger[Any]] = np.rint(np.clip(grey, 0, 1) * top).astype(kind)
    return pixels


def _shoulder(level: Floats) -> Floats:
    """Tone curve: straight up to 0.6, then bending towards 1."""
    over = np.maximum(level - 0.6, 0)
    result: Floats = np.minimum(level, 0.6) + 0.4 * (1 - np.exp(-over / 0.4))
    return result
