"""Rays through the breast: how much skin, gland, fat and muscle each pixel of a view sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from mammodensity.phantom.anatomy import FIELD_MM, Floats, ViewShape, stream
from mammodensity.phantom.curves import Curves, lay_down
from mammodensity.phantom.geometry import (
    SKIN_MM,
    chord,
    disc_to_ball,
    image_to_disc,
    muscle_distance,
    nipple_chord,
    pixel_centres,
    resample,
    skin_distance,
)
from mammodensity.phantom.tissue import Tissue


@dataclass(frozen=True)
class DenseRule:
    """A pixel is dense where the glandular share of its path, smoothed, exceeds a limit."""

    share: float
    smooth_mm: float


PHANTOM_RULE = DenseRule(share=0.18, smooth_mm=2.0)
"""Of the labels and percent densities of phantoms."""
_DUCTS_MM, _NEAR_MM = 0.5, 4.0
# Ducts with their sheaths are dense where they lie close: more than the first of them on average over the second.
_VOLUME_ROWS = 384  # rays are cast on at most this many rows; finer detail continues the power law
_SOLVE_COLUMNS = 900

Labels = NDArray[np.uint8]

LABELS = {"background": 0, "adipose": 1, "fibroglandular": 2, "pectoral": 3}


@dataclass(frozen=True)
class RayGrid:
    """Rays of one view at the resolution of the volume."""

    shape: ViewShape
    distance: Floats
    """From the skin line, mm, (rows, cols)."""
    inside: NDArray[np.bool_]
    """Pixels that have a ray, (rows, cols)."""
    disc: Floats
    """(u, q) of each ray, (2, rays)."""
    tissue_mm: Floats
    """Path within the skin, (rays,)."""
    muscle: Floats
    """Share of muscle, (rays,)."""
    steps: Floats
    """Places along every ray, -1 to 1."""


@dataclass(frozen=True)
class Paths:
    """What the rays of one view cross; arrays of (rows, cols)."""

    distance: Floats
    """From the skin line, mm, positive inside."""
    thickness: Floats
    """All of the breast, mm."""
    skin: Floats
    """Skin and nipple, mm."""
    tissue: Floats
    """Within the skin, mm."""
    glandular: Floats
    """Share of glandular tissue in what is neither skin nor muscle."""
    fibrous: Floats
    """Ligaments, strands and vessels, mm."""
    ducts: Floats
    """Ducts with their fibrous sheaths, mm."""
    muscle: Floats
    """Share of muscle in ``tissue``."""
    labels: Labels
    volumetric_fraction: float


def cast_rays(shape: ViewShape, rows: int, cols: int) -> RayGrid:
    """Lay the rays of a view, for an image of (rows, cols) or the finest that the volume supports."""
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
    """Set the tissue's threshold for its volumetric fraction, seen through all views of the breast together."""
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


def project(rays: RayGrid, tissue: Tissue, curves: Mapping[str, Curves], size: tuple[int, int], detail: int) -> Paths:
    """Sum the tissue along the rays of a view of ``size`` (rows, cols); ``detail`` seeds what is finer than the volume.

    ``curves`` are laid over the volume: ``"vessels"``, ``"strands"`` and ``"ducts"``, or none.
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
    """Share of the path in muscle: it rises at the border and on towards the chest wall."""
    distance = muscle_distance(shape, x, y)
    rise = 0.42 + 0.4 * (1 - np.exp(-np.maximum(distance, 0) / 22))
    share: Floats = (np.clip(distance / 2.5, 0, 1) * rise).astype(np.float32)
    return share


def _muscle_texture(shape: ViewShape, tissue: Tissue, x: Floats, y: Floats, muscle: Floats) -> Floats:
    texture = np.zeros_like(muscle)
    chosen = muscle > 0
    if shape.muscle is not None and chosen.any():
        tilt = np.arctan2(shape.muscle.top_mm, shape.muscle.end_mm)
        across = (x * np.cos(tilt) + y * np.sin(tilt))[chosen] / 80
        along = (-x * np.sin(tilt) + y * np.cos(tilt))[chosen] / 80
        texture[chosen] = 0.035 * tissue.streaks(along.astype(np.float32), across.astype(np.float32)) * muscle[chosen]
    return texture


def close_ducts(ducts: Floats) -> NDArray[np.bool_]:
    """Where ducts (mm, of the whole field) lie so close that a reader sees dense tissue, not single lines."""
    result: NDArray[np.bool_] = gaussian_filter(ducts, _NEAR_MM / FIELD_MM * len(ducts)) > _DUCTS_MM
    return result


def _label(
    share: Floats, ducts: Floats, rays: RayGrid, distance: Floats, at: tuple[Floats, Floats]
) -> tuple[Labels, float]:
    """Label image, and the volumetric fraction of the view's rays."""
    weight = rays.tissue_mm * (1 - rays.muscle)
    fraction = float((share[rays.inside] * weight).sum() / weight.sum())
    tissue = _on_grid(weight, rays)
    sigma = PHANTOM_RULE.smooth_mm / FIELD_MM * share.shape[0]
    smooth = gaussian_filter(share * tissue, sigma) / np.maximum(gaussian_filter(tissue, sigma), 1e-3)
    dense = (resample(smooth, distance.shape) > PHANTOM_RULE.share) | close_ducts(ducts)
    labels = np.zeros(distance.shape, dtype=np.uint8)
    breast = (distance > 0) | (nipple_chord(rays.shape, *at) > 0)
    labels[breast] = LABELS["adipose"]
    labels[breast & dense & (distance > SKIN_MM)] = LABELS["fibroglandular"]
    labels[breast & (muscle_distance(rays.shape, *at) > 0)] = LABELS["pectoral"]
    return labels, fraction


def _fine_detail(share: Floats, rays: RayGrid, size: tuple[int, int], seed: int) -> Floats:
    """Texture finer than the volume, continuing the power law from the finest octave that the volume holds.

    With a spectrum 1/f^3 on the plane all frequencies above f carry as much variance as the octave below f.
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
    result: Floats = detail / detail.std() * resample(local, size)
    return result
