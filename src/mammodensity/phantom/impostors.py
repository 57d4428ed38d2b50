"""Images that are no mammograms: what the segmenter learns to find no breast in.

Overlapping shapes of all sizes have the statistics of photographs (dead leaves: Lee, Mumford and Huang, Int. J. Comput.
Vis. 2001), so no photograph is needed. The others stand for what lies in archives beside mammograms: chest films,
phantoms of quality tests, pages of text, noise, empty exposures, images that are turned, or show both breasts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from mammodensity.phantom.anatomy import Floats
from mammodensity.phantom.geometry import resample

Size = tuple[int, int]

_OF_MAMMOGRAMS = 0.35  # share that shows a breast as it should not be


def impostor(size: Size, rng: np.random.Generator, mammogram: Floats) -> Floats:
    """One image (H, W), 0 to 1, of a kind drawn at random.

    Parameters
    ----------
    mammogram
        (H, W) with the chest wall on the left: for those kinds that show a breast as it should not be.
    """
    if rng.random() < _OF_MAMMOGRAMS:
        image = _turned_or_double(mammogram, size, rng)
    else:
        image = _KINDS[int(rng.integers(len(_KINDS)))](size, rng)
    image = image - image.min()
    image = image / max(float(image.max()), 1e-6) * rng.uniform(0.5, 1) + rng.normal(0, rng.uniform(0, 0.03), size)
    made: Floats = np.clip(image, 0, 1).astype(np.float32)
    return made


def _leaves(size: Size, rng: np.random.Generator) -> Floats:
    """Dead leaves: discs and boxes of all sizes, some with texture, one over the other."""
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
    made: Floats = gaussian_filter(image, rng.uniform(0, 1))
    return made


def _power_law(size: Size, rng: np.random.Generator) -> Floats:
    """Noise with a spectrum 1/f to 1/f^4, blurred noise among it."""
    frequency = np.hypot(fft.fftfreq(size[0])[:, None], fft.rfftfreq(size[1])[None, :])
    frequency[0, 0] = 1
    spectrum = fft.rfft2(rng.normal(0, 1, size)) * frequency ** -rng.uniform(0.5, 2)
    image: Floats = fft.irfft2(spectrum, s=size)
    made: Floats = image / max(float(image.std()), 1e-6)
    return made


def _chest(size: Size, rng: np.random.Generator) -> Floats:
    """A chest film: two dark lungs in a bright body, ribs across, spine and heart between."""
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
    made: Floats = gaussian_filter(image * rng.choice([-1.0, 1.0, 1.0]) + 0.03 * _power_law(size, rng), 1)
    return made


def _test_object(size: Size, rng: np.random.Generator) -> Floats:
    """A phantom of a quality test: an even block, discs, wedges and bars on it."""
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
    made: Floats = image if rng.random() < 0.5 else 1 - image
    return made


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
    made: Floats = gaussian_filter(kinds[int(rng.integers(len(kinds)))], rng.choice([0, rng.uniform(0, 6)]))
    return made


def _empty(size: Size, rng: np.random.Generator) -> Floats:
    """An exposure without a breast: noise on an even or sloping ground."""
    slope = np.linspace(0, rng.uniform(-0.3, 0.3), size[1], dtype=np.float32)[None, :]
    made: Floats = gaussian_filter(rng.normal(0.5, 0.2, size), rng.uniform(0, 3)) + slope
    return made


def _turned_or_double(mammogram: Floats, size: Size, rng: np.random.Generator) -> Floats:
    """The chest wall above or below, or both breasts in one image, or the background bright."""
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
