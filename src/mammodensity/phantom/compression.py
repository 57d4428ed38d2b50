"""Geometry of one compressed view: outline, thickness, muscle, and the map between image and breast.

The breast is a half ball in material coordinates (u, v, w): depth from the chest wall, lateral, superior. A view turns
(v, w) by its angle into (q, r), with r along the rays, and stretches the half disc (u, q) over the outline of the view.
A point of tissue therefore has one definite place in each of the two views of a breast.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from mammodensity.phantom.breast import FIELD_MM, Floats, ViewShape

SKIN_MM = 1.45  # mean of breast CT: Huang et al., Med. Phys. 2008
_DISTANCE_ROWS = 256  # the distance map is smooth: larger ones are interpolated from this many rows
_CLIP_POWER = 6.0
_BEND = 0.4
_OVER_MUSCLE = 0.55  # glandular tissue also lies over the front of the muscle
_FAR_MM = 60.0  # beyond half the greatest thickness the distance has no effect


def pixel_centres(rows: int, cols: int) -> tuple[Floats, Floats]:
    """Millimetres (x from the chest wall, y from the top) of the pixel centres of a left breast; each (rows, cols)."""
    spacing = FIELD_MM / rows
    y, x = np.mgrid[0:rows, 0:cols].astype(np.float32)
    return (x + 0.5) * np.float32(spacing), (y + 0.5) * np.float32(spacing)


def resample(image: Floats, shape: tuple[int, int]) -> Floats:
    """Interpolate ``image`` (rows, cols) linearly at the pixel centres of an image of ``shape`` of the same field."""
    for axis, (size, old) in enumerate(zip(shape, image.shape, strict=True)):
        if size != old:
            at = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
            before = np.minimum(at.astype(np.int64), old - 2)
            share = (at - before).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
            image = np.take(image, before, axis) * (1 - share) + np.take(image, before + 1, axis) * share
    return image


def blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of ``image`` (rows, cols) by ``sigma`` pixels; wide blurs use block means, which is much faster."""
    block = int(sigma / 3)
    if block < 2:
        return gaussian_filter(image, sigma, mode="nearest")
    rows, cols = image.shape
    padded = np.pad(image, ((0, -rows % block), (0, -cols % block)), mode="edge")
    means = padded.reshape(padded.shape[0] // block, block, -1, block).mean(axis=(1, 3))
    return resample(gaussian_filter(means, sigma / block, mode="nearest"), padded.shape)[:rows, :cols]


# Outline and thickness


def extent(shape: ViewShape, y: Floats) -> Floats:
    """Depth of the skin line (mm) at heights ``y`` (mm)."""
    c = np.asarray(y, dtype=np.float64) - shape.nipple_mm
    up, down = np.clip(-c / shape.up_mm, 0, 1), np.clip(c / shape.down_mm, 0, 1)
    upper = (1 - up ** shape.up_form[0]) ** shape.up_form[1]
    lower = (1 - down ** shape.down_form[0]) ** shape.down_form[1]
    beyond = np.maximum(-c - shape.up_mm, 0) * (shape.up_floor_mm > 0) + np.maximum(c - shape.down_mm, 0) * (
        shape.down_floor_mm > 0
    )
    floor = np.where(c < 0, shape.up_floor_mm, shape.down_floor_mm)
    profile = np.where(c < 0, upper, lower)
    depth = floor + (shape.depth_mm - floor) * profile + shape.floor_slope * beyond**2 / (beyond + 20)
    for amplitude, wavelength, phase in shape.wobble:
        depth = depth + amplitude * np.sin(2 * np.pi * c / wavelength + phase) * np.minimum(depth / 30, 1)
    return depth


def skin_distance(shape: ViewShape, rows: int, cols: int) -> Floats:
    """Distance (mm) of each pixel from the skin line, positive inside; (rows, cols), float32."""
    coarse = min(rows, _DISTANCE_ROWS)
    x, y = pixel_centres(coarse, round(cols * coarse / rows))
    line_y = np.linspace(-60.0, FIELD_MM + 60.0, 6000)
    line_x = extent(shape, line_y)
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(line_x), np.diff(line_y)))])
    even = np.arange(0.0, arc[-1], 0.3)
    tree = cKDTree(np.column_stack([np.interp(even, arc, line_x), np.interp(even, arc, line_y)]))
    distance, _ = tree.query(np.column_stack([x.ravel(), y.ravel()]), distance_upper_bound=_FAR_MM)
    sign = np.where(x < extent(shape, y), 1.0, -1.0)
    signed = (np.minimum(distance, _FAR_MM).reshape(x.shape) * sign).astype(np.float32)
    return resample(signed, (rows, cols))


def chord(distance: Floats, thickness_mm: float) -> Floats:
    """Compressed thickness (mm) at a distance from the edge: a slab whose edge is half a circle."""
    inward = np.clip(distance / (thickness_mm / 2), 0, 1)
    return thickness_mm * np.sqrt(1 - (1 - inward) ** 2)


def nipple_chord(shape: ViewShape, x: Floats, y: Floats) -> Floats:
    """Path (mm) through the nipple: an ellipsoid on the skin line; 0 where the nipple is not in profile."""
    if shape.nipple_height_mm == 0:
        return np.zeros_like(x)
    skin = float(extent(shape, np.array([shape.nipple_mm]))[0])
    seat = skin - 2
    square = ((x - seat) / shape.nipple_height_mm) ** 2 + ((y - shape.nipple_mm) / shape.nipple_radius_mm) ** 2
    outside = np.clip((x - skin) / 1.5 + 0.6, 0, 1)
    return 2 * shape.nipple_radius_mm * np.sqrt(np.maximum(1 - square, 0)) * outside


# Muscle


def muscle_border(shape: ViewShape, y: Floats) -> Floats:
    """Depth (mm) of the muscle's border at heights ``y``; 0 below its end and in CC views."""
    if shape.muscle is None:
        return np.zeros_like(y)
    share = np.clip(y / shape.muscle.end_mm, -0.2, 1)
    border = shape.muscle.top_mm * (1 - share) + shape.muscle.bow_mm * np.sin(np.pi * share)
    return np.maximum(border + shape.muscle.sway_mm * np.sin(2 * np.pi * share), 0)


def muscle_distance(shape: ViewShape, x: Floats, y: Floats) -> Floats:
    """Distance (mm) of each point behind the muscle's border, negative in front of it."""
    if shape.muscle is None:
        return np.full_like(x, -1.0)
    slope = shape.muscle.end_mm / float(np.hypot(shape.muscle.end_mm, shape.muscle.top_mm))
    border = muscle_border(shape, y)
    return np.where(border > 0, (border - x) * slope, -1.0)


# Image to breast and back


def image_to_disc(shape: ViewShape, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """(u, q) of the half disc for image points in mm."""
    c = shape.nipple_mm - y
    # Solves the quadratic of disc_to_image.
    mean, half = (shape.up_mm + shape.down_mm) / 2, (shape.up_mm - shape.down_mm) / 2
    offset = c + _BEND * half
    product = shape.up_mm * shape.down_mm
    stretched = (mean * offset - half * np.sqrt(offset**2 + _BEND**2 * product)) / product
    q = stretched / (1 + np.abs(stretched) ** _CLIP_POWER) ** (1 / _CLIP_POWER)
    back = _OVER_MUSCLE * muscle_border(shape, y)
    u = np.sqrt(1 - q * q) * (x - back) / np.maximum(extent(shape, y) - back, 1.0)
    return u, q


def disc_to_image(shape: ViewShape, u: Floats, q: Floats) -> tuple[Floats, Floats]:
    """Image points (x, y) in mm of half disc points (u, q); the inverse of :func:`image_to_disc`."""
    q = np.clip(q, -0.995, 0.995)
    stretched = q / (1 - np.abs(q) ** _CLIP_POWER) ** (1 / _CLIP_POWER)
    # The scale changes smoothly from that of the upper half to that of the lower half.
    mean, half = (shape.up_mm + shape.down_mm) / 2, (shape.up_mm - shape.down_mm) / 2
    y = shape.nipple_mm - (mean * stretched + half * (np.sqrt(stretched**2 + _BEND**2) - _BEND))
    back = _OVER_MUSCLE * muscle_border(shape, y)
    x = back + u / np.sqrt(1 - q * q) * np.maximum(extent(shape, y) - back, 1.0)
    return x, y


def disc_to_ball(shape: ViewShape, u: Floats, q: Floats, along: Floats | float) -> tuple[Floats, Floats, Floats]:
    """Material coordinates (u, v, w) of half disc points at ``along`` (-1 to 1) of their rays."""
    r = along * np.sqrt(np.maximum(1 - u * u - q * q, 0))
    cos, sin = np.cos(shape.angle), np.sin(shape.angle)
    return u, q * cos - r * sin, q * sin + r * cos


def ball_to_disc(shape: ViewShape, v: Floats, w: Floats) -> Floats:
    """Coordinate q of the half disc for material coordinates (v, w)."""
    return v * np.cos(shape.angle) + w * np.sin(shape.angle)
