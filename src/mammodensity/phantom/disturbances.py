"""Images as archives hold them: phantoms with other crops, tones, markers and borders, and images without a breast.

They train and test the networks that find breast, muscle and dense tissue, which must ignore these changes. Every
change occurs in images of archives; the reason stands where the change is made.

Images that are not mammograms teach the segmenter to find no breast. Overlapping shapes of all sizes have the
statistics of photographs (dead leaves: Lee, Mumford and Huang, Int. J. Comput. Vis. 2001). The other kinds occur in
archives: chest films, quality test objects, pages of text, noise, empty exposures, images that are turned or show both
breasts.

All mammograms have the chest wall on the left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from mammodensity.phantom.appearance import Look, render
from mammodensity.phantom.breast import Floats
from mammodensity.phantom.compression import blur, resample
from mammodensity.phantom.projection import LABELS, Labels, Paths

Size = tuple[int, int]

_MUSCLE = LABELS["pectoral"]
_PADDED, _LOWER_FOLDS = 0.35, 0.25  # shares of the images
_BAD_MAMMOGRAMS = 0.35  # share of impostors that are mammograms turned, doubled or inverted


@dataclass(frozen=True)
class Disturbance:
    """The changes to make; each is drawn again for each image."""

    look: Look = field(default_factory=Look)
    """Tissue, muscle, beam and processing."""
    film: float = 0.55
    """Share of images that are scanned film."""
    geometry: bool = True
    """Other crops and aspects, slight rotations, bent outlines."""
    muscle: bool = True
    """Folds and nodes over the muscle; muscles filled with one grey level."""
    lower_folds: bool = False
    """Folds and a strip of chest wall below the breast, in some MLO views."""
    tone: bool = True
    """Tone curve, haze, fog, background level, blur, noise and scanner bands."""
    objects: bool = True
    """Markers, labels, patches, borders, film edges and padding."""


def disturb(
    paths: Paths, size: Size, rng: np.random.Generator, changes: Disturbance = Disturbance()
) -> tuple[Floats, Labels]:
    """Make one image of a view as an archive might hold it, with its labels, both of ``size`` (H, W).

    Returns
    -------
    (H, W) float32 in 0..1, and (H, W) labels: 0 background, 1 adipose, 2 fibroglandular, 3 pectoral muscle, 4 implant.
    """
    film = bool(rng.random() < changes.film)
    image, labels = render(paths, rng, film=film, look=changes.look)
    if changes.geometry:
        image, labels = _reframe(image, labels, size, rng)
    else:
        image, labels = _resized(image, labels, size)
    if changes.muscle and (labels == _MUSCLE).any():
        image = _folded_or_filled(image, labels, rng)
        if changes.lower_folds and rng.random() < _LOWER_FOLDS:
            image = image + _inframammary_fold(labels, rng)
    if changes.tone:
        image = _other_tone(image, labels, film, rng)
    if changes.objects:
        image, labels = _objects(image, labels, rng)
        if rng.random() < _PADDED:
            image, labels = _padded(image, labels, rng)
    return np.clip(image, 0, 1).astype(np.float32), labels


def _resized(image: Floats, labels: Labels, size: Size) -> tuple[Floats, Labels]:
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1) for n, m in zip(size, image.shape, strict=True)
    )
    return resample(image.astype(np.float32), size), labels[np.ix_(rows, cols)]


def _reframe(image: Floats, labels: Labels, size: Size, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Another field of view: from a tight crop to much background; chest wall cut or with a gap; rotated and bent."""
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


def _folded_or_filled(image: Floats, labels: Labels, rng: np.random.Generator) -> Floats:
    """Folds and nodes over the muscle, or a muscle filled with one grey level, as in INFN's exported images."""
    kind = rng.random()
    if kind < 0.12:
        tissue = np.isin(labels, (1, 2))
        return np.where(labels == _MUSCLE, np.median(image[tissue]) if tissue.any() else 0.5, image)
    return image + _folds_and_nodes(labels, rng) if kind < 0.42 else image


def _folds_and_nodes(labels: Labels, rng: np.random.Generator) -> Floats:
    """Bright folds of skin and lymph nodes across the axilla, to be added (H, W); no label changes."""
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
    return added * (labels > 0)


def _inframammary_fold(labels: Labels, rng: np.random.Generator) -> Floats:
    """Folds at the lower end of the breast and a strip of chest wall, to be added (H, W); no label changes."""
    y, x = np.indices(labels.shape, dtype=np.float32)
    rows, cols = labels.shape
    added = np.zeros(labels.shape, np.float32)
    bottom = float(np.flatnonzero((labels > 0).any(axis=1))[-1])
    for _ in range(rng.integers(1, 3)):
        row, reach, rise = bottom - rng.uniform(-0.02, 0.2) * rows, rng.uniform(0.06, 0.35) * cols, rng.normal(0, 0.6)
        line = y - (row + rise * x + rng.normal(0, 0.01) * x**2)
        added += rng.uniform(-0.1, 0.25) * np.exp(-np.abs(line) / rng.uniform(0.6, 3)) * np.exp(-((x / reach) ** 2))
    if rng.random() < 0.5:  # a strip of ribs and muscle caught by the paddle
        first = rng.uniform(0.4, 0.9) * bottom
        wide = rng.uniform(0.01, 0.06) * cols * np.clip((y - first) / max(0.1 * rows, 1), 0, 1)
        added += rng.uniform(0.05, 0.35) / (1 + np.exp(np.clip((x - wide) / rng.uniform(0.4, 2), -30, 30))) * (wide > 0)
    return added * (labels > 0)


def _other_tone(image: Floats, labels: Labels, film: bool, rng: np.random.Generator) -> Floats:
    """Changes by scanners, displays and exports: film has haze and fog, digital images end sharply on black."""
    body = labels > 0
    image = np.clip(image / max(float(image.max()), 1e-3), 0, 1) ** np.exp(rng.uniform(-0.35, 0.5))
    if rng.random() < 0.15:
        steep, centre = rng.uniform(3, 6), rng.uniform(0.35, 0.65)
        low, high = (1 / (1 + np.exp(-steep * (end - centre))) for end in (0, 1))
        image = (1 / (1 + np.exp(-steep * (image - centre))) - low) / (high - low)
    if rng.random() < 0.1:
        image = np.minimum(image * rng.uniform(1.02, 1.25), 1)  # saturated
    image = rng.uniform(0.55, 1) * np.where(body | film, image, 0)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape)
    if film:
        fog = rng.uniform(0, 0.14) + rng.normal(0, 0.015) * y[:, None] + rng.normal(0, 0.02) * x[None, :]
        fog = fog + resample(rng.normal(0, 0.008, (6, 5)).astype(np.float32), image.shape)
        haze = gaussian_filter(image, rng.uniform(1.5, 6)) * rng.uniform(0, 0.12)
        haze = haze + blur(image, rng.uniform(6, 20)) * rng.uniform(0, 0.22)
        image = image + np.maximum(fog, 0) + haze
        bands = gaussian_filter(rng.normal(0, 1, image.shape[1]), rng.uniform(0.3, 3)) * rng.uniform(0, 0.015)
        image = image + bands[None, :]
    elif rng.random() < 0.4:
        image = image + rng.uniform(0, 0.12)
    noise = rng.normal(0, 1, image.shape) * rng.uniform(0, 0.02)
    if rng.random() < 0.5:
        noise = 2 * gaussian_filter(noise, rng.uniform(0.4, 1.2))
    return gaussian_filter(image, rng.uniform(0, 1.1)) + noise


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
            # It is thin on the chest side, where the film is cut at the breast.
            thick = int(rng.integers(1, 3 if side == 0 else 7))
            band: Any = [np.s_[:, :thick], np.s_[:thick], np.s_[:, -thick:], np.s_[-thick:]][side]
            image[band] = rng.choice([0.0, rng.uniform(0.2, 0.7), 1.0]) + rng.normal(0, 0.01, image[band].shape)
            labels[band] = 0
    return image, labels


def _far_corner(free: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Background beyond a straight line, at some distance from the breast."""
    y, x = np.indices(free.shape, dtype=np.float32)
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    along = (x - 0.5 * free.shape[1]) * np.cos(angle) + (y - 0.5 * free.shape[0]) * np.sin(angle)
    away = distance_transform_edt(free) > rng.uniform(2, 12)
    return free & away & (along > rng.uniform(0.1, 0.6) * free.shape[0])


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


def _padded(image: Floats, labels: Labels, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Even margins on any side, as in collections with one image size: the breast ends abruptly at them."""
    height, width = image.shape
    top, bottom, left, right = rng.uniform(0, 0.25, 4) * (rng.random(4) < 0.55)
    first_row, last_row = round(top * height), height - round(bottom * height)
    first_col, last_col = round(left * width), width - round(right * width)
    small, classes = _resized(image, labels, (last_row - first_row, last_col - first_col))
    frame = np.full(image.shape, 0.0 if rng.random() < 0.85 else rng.uniform(0, 0.3), np.float32)
    frame[first_row:last_row, first_col:last_col] = small
    framed_labels = np.zeros_like(labels)
    framed_labels[first_row:last_row, first_col:last_col] = classes
    return frame, framed_labels


def impostor(size: Size, rng: np.random.Generator, mammogram: Floats) -> Floats:
    """Make one image (H, W), 0 to 1, that is not a usable mammogram, of a kind drawn at random.

    Parameters
    ----------
    mammogram
        (H, W) with the chest wall on the left, for kinds that are a mammogram turned, doubled or inverted.
    """
    if rng.random() < _BAD_MAMMOGRAMS:
        image = _turned_or_double(mammogram, size, rng)
    else:
        image = _KINDS[int(rng.integers(len(_KINDS)))](size, rng)
    image = image - image.min()
    image = image / max(float(image.max()), 1e-6) * rng.uniform(0.5, 1) + rng.normal(0, rng.uniform(0, 0.03), size)
    return np.clip(image, 0, 1).astype(np.float32)


def _leaves(size: Size, rng: np.random.Generator) -> Floats:
    """Dead leaves: discs and boxes of all sizes, some textured, one over the other."""
    y, x = np.indices(size, dtype=np.float32)
    image = np.full(size, rng.uniform(), np.float32)
    texture = _power_law(size, rng)
    for radius in np.sort(2 + 70 * rng.random(int(rng.integers(15, 90))) ** 3)[::-1]:
        row, col = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        if rng.random() < 0.6:
            inside = ((y - row) / rng.uniform(0.5, 1.5)) ** 2 + (x - col) ** 2 < radius**2
        else:
            inside = (np.abs(y - row) < radius * rng.uniform(0.3, 1.5)) & (np.abs(x - col) < radius)
        image = np.where(
            inside, rng.uniform() + rng.uniform(0, 0.15) * texture + rng.normal(0, 0.004) * (y - row), image
        )
    return gaussian_filter(image, rng.uniform(0, 1))


def _power_law(size: Size, rng: np.random.Generator) -> Floats:
    """Noise with a spectrum from 1/f to 1/f^4."""
    frequency = np.hypot(fft.fftfreq(size[0])[:, None], fft.rfftfreq(size[1])[None, :])
    frequency[0, 0] = 1
    spectrum = fft.rfft2(rng.normal(0, 1, size)) * frequency ** -rng.uniform(0.5, 2)
    image: Floats = fft.irfft2(spectrum, s=size)
    return image / max(float(image.std()), 1e-6)


def _chest(size: Size, rng: np.random.Generator) -> Floats:
    """A chest film: two dark lungs in a bright body, with ribs, spine and heart."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    y, x = np.meshgrid(y, x, indexing="ij")
    image = np.exp(-((np.abs(x) / rng.uniform(0.85, 1.1)) ** 8)) * 0.7
    for side in (-1, 1):
        lung = ((x - side * rng.uniform(0.38, 0.48)) / rng.uniform(0.28, 0.36)) ** 2 + ((y + 0.1) / 0.72) ** 2
        image = image - rng.uniform(0.35, 0.55) * np.clip(1.3 - lung, 0, 0.6) / 0.6
    ribs = np.sin(rng.uniform(14, 20) * (y + 0.35 * x * x)) > 0.6
    image = image + 0.1 * ribs * (np.abs(x) > 0.1) + 0.25 * np.exp(-((x / 0.1) ** 2))
    heart = ((x - 0.15) / 0.3) ** 2 + ((y - 0.35) / 0.3) ** 2
    image = image + 0.3 * (heart < 1)
    return gaussian_filter(image * rng.choice([-1.0, 1.0, 1.0]) + 0.03 * _power_law(size, rng), 1)


def _test_object(size: Size, rng: np.random.Generator) -> Floats:
    """A quality test object: an even block with discs, wedges and bars."""
    image = np.zeros(size, np.float32)
    top, left = (int(rng.uniform(0, 0.3) * n) for n in size)
    bottom, right = (int(rng.uniform(0.6, 1.0) * n) for n in size)
    image[top:bottom, (0 if rng.random() < 0.5 else left) : right] = rng.uniform(0.3, 0.8)
    y, x = np.indices(size, dtype=np.float32)
    for row in range(top + 10, bottom, int(rng.integers(12, 40))):
        for col in range(left + 10, right, int(rng.integers(12, 40))):
            inside = (y - row) ** 2 + (x - col) ** 2 < rng.uniform(2, 7) ** 2
            image = image + rng.uniform(-0.2, 0.3) * inside
    if rng.random() < 0.5:
        steps = np.linspace(0, 1, int(rng.integers(4, 12)))
        wedge = np.repeat(steps, int(np.ceil((bottom - top) / len(steps))))[: bottom - top]
        image[top:bottom, left : left + 12] = wedge[:, None]
    return image


def _page(size: Size, rng: np.random.Generator) -> Floats:
    """A page of text or a screen: rows of marks on an even ground."""
    marks = gaussian_filter(rng.normal(0, 1, size), (0.3, 1.0)) > 0
    lines = (np.arange(size[0]) // int(rng.integers(3, 8))) % 2 == 0
    image = np.where(marks & lines[:, None], rng.uniform(0, 0.4), rng.uniform(0.6, 1.0))
    return image if rng.random() < 0.5 else 1 - image


def _plain(size: Size, rng: np.random.Generator) -> Floats:
    """Ramps, half planes, checkerboards, discs, stripes."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    y, x = np.meshgrid(y, x, indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    waves = rng.uniform(2, 25)
    kinds: list[Floats] = [
        along,
        (along > rng.uniform(-0.5, 0.5)).astype(np.float32),
        np.sign(np.sin(waves * x) * np.sin(waves * y)),
        np.sin(waves * along),
        ((x - rng.uniform(-0.3, 0.3)) ** 2 + y**2 < rng.uniform(0.2, 0.7) ** 2).astype(np.float32),
    ]
    return gaussian_filter(kinds[int(rng.integers(len(kinds)))], rng.choice([0, rng.uniform(0, 6)]))


def _empty(size: Size, rng: np.random.Generator) -> Floats:
    """An exposure without a breast: noise on an even or sloping ground."""
    slope = np.linspace(0, rng.uniform(-0.3, 0.3), size[1], dtype=np.float32)[None, :]
    return gaussian_filter(rng.normal(0.5, 0.2, size), rng.uniform(0, 3)) + slope


def _turned_or_double(mammogram: Floats, size: Size, rng: np.random.Generator) -> Floats:
    """A mammogram with the chest wall above or below, both breasts in one image, or a bright background."""
    kind = rng.random()
    if kind < 0.4:
        return resample(np.ascontiguousarray(np.rot90(mammogram, int(rng.choice([1, 3])))), size)
    if kind < 0.7:
        half = resample(mammogram, (size[0], size[1] // 2))
        back_to_back = np.hstack([half[:, ::-1], half])
        return resample(back_to_back if rng.random() < 0.5 else np.hstack([half, half[:, ::-1]]), size)
    return 1 - mammogram


_KINDS: tuple[Callable[[Size, np.random.Generator], Floats], ...] = (
    _leaves,
    _leaves,
    _power_law,
    _chest,
    _test_object,
    _page,
    _plain,
    _empty,
)
