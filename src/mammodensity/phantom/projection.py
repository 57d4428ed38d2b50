"""The way from tissue to image: the rays of a view, the detector signal, and processing for presentation.

The rays give the path length of each pixel in skin, gland, fat and muscle, and the true labels. The signal follows from
attenuation, scatter and quantum noise.

References
----------
Linear attenuation coefficients: Johns and Yaffe, Phys. Med. Biol. 1987, fat and fibrous tissue at 20 keV.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from mammodensity.phantom.breast import FIELD_MM, Floats, Processing, ViewShape, stream
from mammodensity.phantom.compression import (
    SKIN_MM,
    blur,
    chord,
    disc_to_ball,
    image_to_disc,
    muscle_distance,
    nipple_chord,
    pixel_centres,
    resample,
    skin_distance,
)
from mammodensity.phantom.gland import Strands, Tissue, lay_down

Labels = NDArray[np.uint8]

LABELS = {"background": 0, "adipose": 1, "fibroglandular": 2, "pectoral": 3}

MU_FAT = 0.0456
MU_GLAND = 0.0802
"""Attenuation per mm at 20 keV; muscle, skin, vessels, ducts and ligaments are taken as fibroglandular."""

_VOLUME_ROWS = 384  # rays are cast on at most this many rows; finer detail continues the power law
_SOLVE_COLUMNS = 900
_DUCTS_MM, _NEAR_MM = 0.5, 4.0  # ducts are dense where their mean thickness over the second exceeds the first
_SCATTER_MM = 18.0
_DETECTOR_BLUR_MM = 0.09
_EQUALISED_FROM = 0.35  # share of the full thickness; the thinner rim fades into the background


@dataclass(frozen=True)
class DenseRule:
    """A pixel is dense where the smoothed glandular share of its path exceeds a limit."""

    share: float
    smooth_mm: float


PHANTOM_RULE = DenseRule(share=0.18, smooth_mm=2.0)
"""The rule for the labels and percent densities of phantoms."""


@dataclass(frozen=True)
class RayGrid:
    """Rays of one view at the resolution of the volume."""

    shape: ViewShape
    distance: Floats
    """Distance from the skin line, mm, (rows, cols)."""
    inside: NDArray[np.bool_]
    """Pixels that have a ray, (rows, cols)."""
    disc: Floats
    """(u, q) of each ray, (2, rays)."""
    tissue_mm: Floats
    """Path within the skin, (rays,)."""
    muscle: Floats
    """Share of muscle, (rays,)."""
    steps: Floats
    """Positions along every ray, -1 to 1."""


@dataclass(frozen=True)
class Paths:
    """Path lengths and labels of the rays of one view; arrays of (rows, cols)."""

    distance: Floats
    """Distance from the skin line, mm, positive inside."""
    thickness: Floats
    """The whole breast, mm."""
    skin: Floats
    """Skin and nipple, mm."""
    tissue: Floats
    """Everything within the skin, mm."""
    glandular: Floats
    """Share of glandular tissue in the path without skin and muscle."""
    fibrous: Floats
    """Ligaments, strands and vessels, mm."""
    ducts: Floats
    """Ducts with their fibrous sheaths, mm."""
    muscle: Floats
    """Share of muscle in ``tissue``."""
    labels: Labels
    volumetric_fraction: float

    @property
    def body(self) -> NDArray[np.bool_]:
        """Pixels of the breast or muscle."""
        return self.thickness > 0

    @property
    def breast(self) -> NDArray[np.bool_]:
        """Pixels labelled adipose or fibroglandular."""
        return np.isin(self.labels, (LABELS["adipose"], LABELS["fibroglandular"]))


# Rays


def cast_rays(shape: ViewShape, rows: int, cols: int) -> RayGrid:
    """Cast the rays of a view for an image of (rows, cols), or for the finest grid that the volume supports."""
    base = min(rows, _VOLUME_ROWS)
    base_cols = round(cols * base / rows)
    x, y = pixel_centres(base, base_cols)
    distance = skin_distance(shape, base, base_cols)
    inside = distance > 0
    inner = chord(distance - SKIN_MM, shape.thickness_mm - 2 * SKIN_MM)
    u, q = image_to_disc(shape, x[inside], y[inside])
    count = int(np.clip(base / 6, 20, 64))
    steps = ((np.arange(count) + 0.5) / count * 2 - 1).astype(np.float32)
    disc = np.stack([u, q]).astype(np.float32)
    return RayGrid(shape, distance, inside, disc, inner[inside], _muscle_share(shape, x, y)[inside], steps)


def solve_volume(tissue: Tissue, views: Iterable[RayGrid]) -> None:
    """Set the tissue's threshold for its volumetric fraction, averaged over all views of the breast."""
    scores, weights = [], []
    for rays in views:
        stride = max(1, rays.disc.shape[1] // _SOLVE_COLUMNS)
        u, q = (c[::stride, None] for c in rays.disc)
        points = disc_to_ball(rays.shape, u, q, rays.steps[None, :])
        score, _ = tissue.sample(*(np.ascontiguousarray(p) for p in np.broadcast_arrays(*points)))
        weight = (rays.tissue_mm * (1 - rays.muscle))[::stride]
        scores.append(score.ravel())
        weights.append(np.repeat(weight / weight.sum(), len(rays.steps)))
    tissue.solve_threshold(np.concatenate(scores), np.concatenate(weights))


def project(rays: RayGrid, tissue: Tissue, curves: Mapping[str, Strands], size: tuple[int, int], detail: int) -> Paths:
    """Sum the tissue along the rays of a view of ``size`` (rows, cols); ``detail`` seeds detail finer than the volume.

    ``curves`` are added to the volume: ``"vessels"``, ``"strands"`` and ``"ducts"``, or none of them.
    """
    shape = rays.shape
    rows, cols = size
    glandular, ligament = _march(rays, tissue)
    share = _on_grid(glandular, rays)
    x, y = pixel_centres(rows, cols)
    distance = rays.distance if rows == len(rays.distance) else skin_distance(shape, rows, cols)
    thickness = chord(distance, shape.thickness_mm)
    inner = chord(distance - SKIN_MM, shape.thickness_mm - 2 * SKIN_MM)
    muscle = _muscle_share(shape, x, y)
    within = (1 - muscle) * (inner > 1)
    laid = {name: lay_down(c, shape, rows, cols) * within for name, c in curves.items()}
    ducts = np.minimum(laid.pop("ducts", np.zeros_like(inner)), 0.9 * inner)
    labels, fraction = _label(share, ducts, rays, distance, (x, y))
    fine = np.clip(resample(share, size) + _fine_detail(share, rays, size, detail), 0, 1)
    fibrous = np.minimum(resample(_on_grid(ligament, rays), size) * inner + sum(laid.values()), 0.9 * inner)
    streak = _muscle_texture(shape, tissue, x, y, muscle)
    nipple = nipple_chord(shape, x, y)
    return Paths(
        distance=distance,
        thickness=thickness + nipple,
        skin=thickness - inner + nipple,
        tissue=inner,
        glandular=fine,
        fibrous=fibrous,
        ducts=ducts.astype(np.float32),
        muscle=np.clip(muscle + streak, 0, 1),
        labels=labels,
        volumetric_fraction=fraction,
    )


def _march(rays: RayGrid, tissue: Tissue) -> tuple[Floats, Floats]:
    u, q = rays.disc
    glandular, ligament = np.zeros_like(u), np.zeros_like(u)
    for step in rays.steps:
        points = disc_to_ball(rays.shape, u, q, step)
        score, wall = tissue.sample(*points)
        share = tissue.glandular(score)
        glandular += share
        ligament += wall * (1 - share)
    return glandular / len(rays.steps), ligament / len(rays.steps)


def _on_grid(values: Floats, rays: RayGrid) -> Floats:
    grid = np.zeros(rays.inside.shape, dtype=np.float32)
    grid[rays.inside] = values
    return grid


def _muscle_share(shape: ViewShape, x: Floats, y: Floats) -> Floats:
    """Share of the path in muscle: it rises at the border, then slowly towards the chest wall."""
    distance = muscle_distance(shape, x, y)
    rise = 0.42 + 0.4 * (1 - np.exp(-np.maximum(distance, 0) / 22))
    return (np.clip(distance / 2.5, 0, 1) * rise).astype(np.float32)


def _muscle_texture(shape: ViewShape, tissue: Tissue, x: Floats, y: Floats, muscle: Floats) -> Floats:
    texture = np.zeros_like(muscle)
    chosen = muscle > 0
    if shape.muscle is not None and chosen.any():
        tilt = np.arctan2(shape.muscle.top_mm, shape.muscle.end_mm)
        across = (x * np.cos(tilt) + y * np.sin(tilt))[chosen] / 80
        along = (-x * np.sin(tilt) + y * np.cos(tilt))[chosen] / 80
        texture[chosen] = 0.035 * tissue.streaks(along.astype(np.float32), across.astype(np.float32)) * muscle[chosen]
    return texture


def smoothed_share(glandular: Floats, tissue: Floats, rule: DenseRule) -> Floats:
    """Glandular share of the path, weighted by its ``tissue`` without muscle and smoothed as the rule says."""
    sigma = rule.smooth_mm / FIELD_MM * len(tissue)
    return gaussian_filter(glandular * tissue, sigma) / np.maximum(gaussian_filter(tissue, sigma), 1e-3)


def close_ducts(ducts: Floats) -> NDArray[np.bool_]:
    """Pixels where ducts (mm, the whole field) lie so close that a reader sees dense tissue, not single lines."""
    return gaussian_filter(ducts, _NEAR_MM / FIELD_MM * len(ducts)) > _DUCTS_MM


def _label(
    share: Floats, ducts: Floats, rays: RayGrid, distance: Floats, at: tuple[Floats, Floats]
) -> tuple[Labels, float]:
    """Label image, and the volumetric fraction of the view's rays."""
    weight = rays.tissue_mm * (1 - rays.muscle)
    fraction = float((share[rays.inside] * weight).sum() / weight.sum())
    tissue = _on_grid(weight, rays)
    smooth = smoothed_share(share, tissue, PHANTOM_RULE)
    dense = (resample(smooth, distance.shape) > PHANTOM_RULE.share) | close_ducts(ducts)
    labels = np.zeros(distance.shape, dtype=np.uint8)
    breast = (distance > 0) | (nipple_chord(rays.shape, *at) > 0)
    labels[breast] = LABELS["adipose"]
    labels[breast & dense & (distance > SKIN_MM)] = LABELS["fibroglandular"]
    labels[breast & (muscle_distance(rays.shape, *at) > 0)] = LABELS["pectoral"]
    return labels, fraction


def _fine_detail(share: Floats, rays: RayGrid, size: tuple[int, int], seed: int) -> Floats:
    """Texture finer than the volume: it continues the power law from the finest octave that the volume holds.

    With a spectrum 1/f^3 in the plane, all frequencies above f together have as much variance as the octave below f.
    """
    rows, cols = size
    base = share.shape[0]
    if rows <= base:
        return np.zeros(size, dtype=np.float32)
    octave = gaussian_filter(share, 0.8) - gaussian_filter(share, 1.6)
    local = np.sqrt(gaussian_filter(octave**2, 4.0)) * (gaussian_filter(rays.inside.astype(np.float32), 3.0) > 0.999)
    white = stream(seed, "detail").standard_normal(size, dtype=np.float32)
    spectrum = fft.rfft2(white)
    frequency = np.hypot(fft.fftfreq(rows)[:, None], fft.rfftfreq(cols)[None, :]).astype(np.float32) * rows
    start = 0.35 * base
    gain = np.where(frequency > 0, (np.maximum(frequency, start) / start) ** -1.5, 0)
    gain = gain * np.clip((frequency / start - 0.7) / 0.6, 0, 1)
    detail = fft.irfft2(spectrum * gain.astype(np.float32), s=size)
    return detail / detail.std() * resample(local, size)


# Image


def expose(paths: Paths, processing: Processing, rng: np.random.Generator) -> Floats:
    """Detector signal as a share of the open beam: Beer-Lambert, scatter behind the grid, blur, Poisson noise."""
    rows, cols = paths.thickness.shape
    spacing = FIELD_MM / rows
    primary = transmitted(paths, paths.tissue)
    coarse = resample(primary, (64, round(64 * cols / rows)))
    veil = gaussian_filter(coarse, _SCATTER_MM / FIELD_MM * 64, mode="nearest")
    # The open beam beside the breast does not scatter: only the signal below tissue counts.
    body = resample(paths.body.astype(np.float32), coarse.shape)
    below = gaussian_filter(coarse * body, _SCATTER_MM / FIELD_MM * 64)
    signal = primary + processing.scatter * resample(np.minimum(veil, below).astype(np.float32), (rows, cols))
    if spacing < 4 * _DETECTOR_BLUR_MM:
        signal = gaussian_filter(signal, _DETECTOR_BLUR_MM / spacing)
    photons = signal * np.float32(processing.photons_per_mm2 * spacing**2)
    noisy = photons + np.sqrt(photons) * rng.standard_normal((rows, cols), dtype=np.float32)
    return np.maximum(noisy, 1) / np.float32(processing.photons_per_mm2 * spacing**2)


def transmitted(
    paths: Paths, tissue: Floats, mu_fat: float = MU_FAT, mu_gland: float = MU_GLAND, skin: float = 1.0
) -> Floats:
    """Share of the beam that passes the breast (Beer-Lambert), with ``tissue`` mm within the skin and ``skin`` times
    the skin's thickness.
    """
    free = tissue * (1 - paths.muscle)
    dense = tissue * paths.muscle + np.minimum(paths.glandular * free + paths.fibrous + paths.ducts, free)
    return np.exp(-(mu_fat * (tissue - dense) + mu_gland * (dense + skin * paths.skin)))


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
    # Half way between a fixed window and one fitted to the image, so that part of the difference between breasts shows.
    span = full * min(max((dense - fat) / full, 0.2), 1.2) ** 0.45
    level = processing.fat_level + processing.gain * (filled - fat) / span
    cover = np.clip(0.5 + paths.distance / spacing, 0, 1)
    cover = np.maximum(cover, paths.body.astype(np.float32))
    grey = shoulder(np.maximum(level, 0), 0.6) ** processing.gamma * cover
    return np.rint(np.clip(grey, 0, 1) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def shoulder(level: Floats, knee: float) -> Floats:
    """Tone curve: straight up to the knee, then bending towards 1."""
    over = np.maximum(level - knee, 0)
    return np.minimum(level, knee) + (1 - knee) * (1 - np.exp(-over / (1 - knee)))
