"""What lies between a phantom and the images of archives: film, scanners, markers, borders, other crops and tones.

Made to train and test the segmenter of ``mammodensity.preprocess``, which must not mind any of it. Every change has its
reason in images of archives, named where it is made; ranges are wide on purpose, wider than what is seen, so that real
images lie inside them (domain randomisation: Tobin et al., IROS 2017; Billot et al., Med. Image Anal. 2023).

Everything here looks at images whose chest wall is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, map_coordinates

from mammodensity.phantom.anatomy import Floats
from mammodensity.phantom.geometry import resample

MUSCLE = 3
_VISIBLE = 0.04  # of the brightest: what is darker on a film cannot be told from its background
_TIP = 0.02  # of the image's width: a muscle thinner than this at its lower end is not drawn by readers
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Disturbance:
    """Which changes are made; each is drawn anew for each image."""

    geometry: bool = True
    """Other crops, aspects and slight turns; outlines bent."""
    muscle: bool = True
    """A wider or longer muscle of other brightness than the phantom's, with folds and nodes."""
    tone: bool = True
    """Film-like fading edge, tone curve, haze, background level, blur, noise and scanner bands."""
    objects: bool = True
    """Markers, labels, patches, borders and film edges."""


def disturb(
    image: Floats,
    labels: Labels,
    size: tuple[int, int],
    rng: np.random.Generator,
    changes: Disturbance = Disturbance(),
) -> tuple[Floats, Labels]:
    """Change one image (0..1) with its labels at random, and bring both to ``size`` (H, W).

    Returns
    -------
    (H, W) float32 in 0..1, and (H, W) labels: 0 background, 1 breast, 3 pectoral muscle.
    """
    labels = np.where(labels == MUSCLE, MUSCLE, labels > 0).astype(np.uint8)
    if changes.geometry:
        image, labels = _reframe(image, labels, size, rng)
    else:
        image, labels = _resized(image, labels, size)
    if changes.muscle and (labels == MUSCLE).any():
        image, labels = _other_muscle(image, labels, rng)
    if changes.tone:
        image, labels = _other_tone(image, labels, rng)
    if changes.objects:
        image, labels = _objects(image, labels, rng)
    return np.clip(image, 0, 1).astype(np.float32), labels


def _resized(image: Floats, labels: Labels, size: tuple[int, int]) -> tuple[Floats, Labels]:
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1) for n, m in zip(size, image.shape, strict=True)
    )
    return resample(image.astype(np.float32), size), labels[np.ix_(rows, cols)]


def _reframe(image: Floats, labels: Labels, size: tuple[int, int], rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Another field of view: from a tight crop to much background, chest wall cut or with a gap, turned, bent."""
    rows, cols = np.flatnonzero((labels > 0).any(1)), np.flatnonzero((labels > 0).any(0))
    height, width = rows[-1] + 1.0, cols[-1] + 1.0
    tight = rng.random() < 0.25
    first_row = rng.uniform(-0.04, 0.3) * height
    last_row = height + (0 if tight else rng.uniform(-0.1, 0.15)) * height
    first_col = rng.uniform(-0.02, 0.18) * width if rng.random() < 0.85 else -rng.uniform(0, 0.06) * width
    last_col = width * (1 + (0 if tight else rng.uniform(-0.03, 0.7)))
    y, x = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]), indexing="ij")
    bend = [resample(rng.normal(0, 0.018, (6, 5)).astype(np.float32), size) for _ in range(2)]
    angle, middle = np.deg2rad(rng.normal(0, 4)), rng.uniform(0.3, 0.7)
    y, x = y + np.sin(angle) * x * 0.6 + bend[0], x + np.sin(angle) * (middle - y) + bend[1] * (x > -1)
    at = np.stack([first_row + y * (last_row - first_row), first_col + x * (last_col - first_col)])
    moved = map_coordinates(image.astype(np.float32), at, order=1, mode="nearest")
    classes = map_coordinates(labels, at, order=0, mode="nearest")
    if first_col < 0:  # a strip without breast between the film's edge and the chest wall
        gap = at[1] < -0.5
        moved[gap], classes[gap] = 0, 0
    return moved, classes


def _other_muscle(image: Floats, labels: Labels, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Films show muscles up to the skin at the top and down to the lower edge, bright or hardly brighter than fat."""
    if rng.random() < 0.7:
        image, labels = _drawn_muscle(*_without_muscle(image, labels), rng)
    else:
        softened = gaussian_filter((labels == MUSCLE).astype(np.float32), rng.uniform(0.3, 2.5))
        image = image + softened * rng.uniform(-0.12, 0.3)
    kind = rng.random()
    if kind < 0.1:  # already filled with one grey level, as the origin's exports
        tissue = labels == 1
        image = np.where(labels == MUSCLE, np.median(image[tissue]) if tissue.any() else 0.5, image)
    elif kind < 0.4:
        image = image + _folds_and_nodes(labels, rng)
    return image, labels


def _without_muscle(image: Floats, labels: Labels) -> tuple[Floats, Labels]:
    """The breast beside the muscle, mirrored at the muscle's border, in its place."""
    rows, cols = np.indices(labels.shape)
    border = np.max(np.where(labels == MUSCLE, cols + 1, 0), axis=1, keepdims=True)
    last = np.max(np.where(labels > 0, cols, 0), axis=1, keepdims=True)
    source = np.where(labels == MUSCLE, np.clip(2 * border - cols, 0, np.maximum(last - 3, 0)), cols)
    return image[rows, source], np.minimum(labels, 1)


def _drawn_muscle(image: Floats, labels: Labels, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """A wedge in the upper corner, down to the height of the nipple or near it as positioning asks for.

    Its border is straight, convex or concave, sharp or soft; inside run fibres and folds along it.
    """
    body = labels > 0
    y, x = np.indices(labels.shape, dtype=np.float32)
    rows, cols = labels.shape
    widest = max(float(body[: rows // 12 + 1].any(axis=0).sum()), 0.15 * cols)
    top = widest * rng.uniform(0.3, 1.05)
    end = rows * (rng.uniform(0.4, 1.0) if rng.random() < 0.75 else rng.uniform(0.2, 0.6))
    share = np.clip(y / end, 0, 1)
    bow, sway = rng.normal(0.045, 0.05), rng.normal(0, 0.012)
    border = top * (1 - share) + cols * (bow * np.sin(np.pi * share) + sway * np.sin(2 * np.pi * share))
    border = border + gaussian_filter(rng.normal(0, 1, rows), 6)[:, None] * rng.uniform(0, 3)
    over = (border - x) * end / np.hypot(end, top)
    soft = np.clip(0.5 + over / rng.uniform(1, 7), 0, 1) * (y < end)
    fibres = gaussian_filter(rng.normal(0, 1, 400), rng.uniform(1, 6))
    fibres = np.interp(over + 4 * np.sin(3 * share + rng.uniform(0, 6)), np.arange(-200, 200), fibres)
    streaks = gaussian_filter(rng.normal(0, 1, labels.shape), (6, 1.5))
    rise = 1 - rng.uniform(0, 0.5) * np.exp(-np.maximum(over, 0) / rng.uniform(5, 25))
    rise = rise - rng.uniform(-0.1, 0.15) * share  # thinner towards its lower end
    beside = body & (over < -1) & (over > -12) & (y < 0.8 * end)
    level = float(np.median(image[beside])) if beside.any() else 0.5
    grey = (level + rng.uniform(0.12, 0.5)) * rise
    grey = grey + rng.uniform(0, 0.3) * fibres * (over > 3) + rng.uniform(0, 0.12) * streaks
    weight = soft * rng.uniform(0.6, 1.0) * body
    drawn = body & (soft >= 0.5) & (border > _TIP * cols)
    return image * (1 - weight) + weight * grey, np.where(drawn, np.uint8(MUSCLE), labels)


def _folds_and_nodes(labels: Labels, rng: np.random.Generator) -> Floats:
    """Bright folds of skin across the axilla, lymph nodes."""
    y, x = np.indices(labels.shape, dtype=np.float32)
    rows, cols = labels.shape
    added = np.zeros(labels.shape, np.float32)
    for _ in range(rng.integers(1, 4)):
        row, col, size = rng.uniform(0, 0.4) * rows, rng.uniform(0, 0.5) * cols, rng.uniform(2, 7)
        if rng.random() < 0.5:
            angle = rng.uniform(0, np.pi)
            line = (x - col) * np.sin(angle) - (y - row) * np.cos(angle) + rng.normal(0, 0.004) * (y - row) ** 2
            added += rng.uniform(-0.15, 0.25) * np.exp(-np.abs(line) / rng.uniform(0.5, 2.5))
        else:
            square = ((x - col) / size) ** 2 + ((y - row) / (size * rng.uniform(1, 2.2))) ** 2
            added += rng.uniform(0.05, 0.25) * np.exp(-(square**2))
    result: Floats = added * (labels > 0)
    return result


def _other_tone(image: Floats, labels: Labels, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Film fades towards the skin and has haze and fog; digital images end sharply on black.

    What fades into the dark is no longer labelled: a label says what can be seen.
    """
    body = labels > 0
    film = rng.random() < 0.65
    if film:
        depth = distance_transform_edt(np.pad(body, ((9, 9), (9, 0)), mode="edge"))[9:-9, 9:]
        image = image * (1 - rng.uniform(0.4, 0.95) * np.exp(-depth / rng.uniform(1.0, 10.0)))
    image = np.clip(image / max(float(image.max()), 1e-3), 0, 1)
    image = image ** np.exp(rng.uniform(-0.6, 0.9))
    if rng.random() < 0.4:
        steep, centre = rng.uniform(3, 8), rng.uniform(0.3, 0.7)
        low, high = (1 / (1 + np.exp(-steep * (end - centre))) for end in (0, 1))
        image = (1 / (1 + np.exp(-steep * (image - centre))) - low) / (high - low)
    if rng.random() < 0.3:
        image = np.minimum(image * rng.uniform(1.05, 1.6), 1)  # saturated
    image = np.where(body, image, 0)
    if film:
        seen = (gaussian_filter(image, 0.7) > _VISIBLE) | (depth > 12)
        labels = np.where(binary_fill_holes(seen & body), labels, 0).astype(np.uint8)
    image = rng.uniform(0.55, 1) * image
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape)
    if film:
        fog = rng.uniform(0, 0.14) + rng.normal(0, 0.015) * y[:, None] + rng.normal(0, 0.02) * x[None, :]
        fog = fog + resample(rng.normal(0, 0.008, (6, 5)).astype(np.float32), image.shape)
        haze = gaussian_filter(image, rng.uniform(1.5, 6)) * rng.uniform(0, 0.12)
        haze = haze + gaussian_filter(image, rng.uniform(6, 20)) * rng.uniform(0, 0.22)
        image = image + np.maximum(fog, 0) + haze
        bands = gaussian_filter(rng.normal(0, 1, image.shape[1]), rng.uniform(0.3, 3)) * rng.uniform(0, 0.015)
        image = image + bands[None, :]
    elif rng.random() < 0.4:
        image = image + rng.uniform(0, 0.12)
    noise = rng.normal(0, 1, image.shape) * rng.uniform(0, 0.02)
    if rng.random() < 0.5:
        noise = 2 * gaussian_filter(noise, rng.uniform(0.4, 1.2))
    return gaussian_filter(image, rng.uniform(0, 1.1)) + noise, labels


def _objects(image: Floats, labels: Labels, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Lead letters, paper labels, blacked-out names and corners, borders of the film, frames of the scanner."""
    image, labels = image.copy(), labels.copy()
    free = labels == 0
    for _ in range(rng.choice([0, 1, 2], p=[0.7, 0.15, 0.15])):
        image[_far_corner(free, rng)] = 0 if rng.random() < 0.7 else rng.uniform(0, 0.5)
    if free.any():
        places = np.argwhere(free)
        for _ in range(rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.2, 0.1])):
            row, col = places[rng.integers(len(places))]
            _stamp(image, free, (float(row), float(col)), rng)
    if rng.random() < 0.25:  # a calcification or a skin marker
        row, col = rng.integers(0, image.shape[0]), rng.integers(0, image.shape[1])
        image[row : row + 2, col : col + 2] = rng.uniform(0.7, 1)
    if rng.random() < 0.3:
        for side in rng.choice(4, rng.integers(1, 3), replace=False):
            # On the chest side it is thin: there the film is cut at the breast.
            thick = int(rng.integers(1, 3 if side == 0 else 7))
            band: Any = [np.s_[:, :thick], np.s_[:thick], np.s_[:, -thick:], np.s_[-thick:]][side]
            image[band] = rng.choice([0.0, rng.uniform(0.2, 0.7), 1.0]) + rng.normal(0, 0.01, image[band].shape)
            labels[band] = 0
    return image, labels


def _far_corner(free: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Background beyond a straight cut, at some distance from the breast."""
    y, x = np.indices(free.shape, dtype=np.float32)
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    along = (x - 0.5 * free.shape[1]) * np.cos(angle) + (y - 0.5 * free.shape[0]) * np.sin(angle)
    away = distance_transform_edt(free) > rng.uniform(2, 12)
    result: NDArray[np.bool_] = free & away & (along > rng.uniform(0.1, 0.6) * free.shape[0])
    return result


def _stamp(image: Floats, free: NDArray[np.bool_], centre: tuple[float, float], rng: np.random.Generator) -> None:
    """Draw one object on the background, behind the breast: letters, a label with print, or an even patch."""
    y, x = np.indices(image.shape, dtype=np.float32)
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    along = (x - centre[1]) * np.cos(angle) + (y - centre[0]) * np.sin(angle)
    across = (y - centre[0]) * np.cos(angle) - (x - centre[1]) * np.sin(angle)
    half = rng.uniform(4, 16), rng.uniform(2, 7)
    box = (np.abs(along) < half[0]) & (np.abs(across) < half[1])
    kind = rng.random()
    print_ = gaussian_filter(rng.normal(0, 1, image.shape), rng.uniform(0.5, 1.2)) > 0
    grey = rng.uniform(0.25, 1)
    if kind < 0.6:
        image[free & box & print_] = grey
    elif kind < 0.8:
        image[free & box] = np.where(print_, grey, grey * rng.uniform(0, 0.6))[free & box]
    else:
        image[free & box] = rng.choice([0.0, grey])
