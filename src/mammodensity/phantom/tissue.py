"""Fibroglandular tissue and Cooper's ligaments as fields on the half ball.

Glandular tissue is power-law noise plus an anatomical prior, cut at the level that gives the wanted volume (binarised
power-law noise in a limited region: Lund, Med. Phys. 2012). Ligaments are thin sheets about the zero level of a
band-limited noise, the walls of adipose compartments (Bakic et al., Med. Phys. 2011; Pokrajac et al., Med. Phys. 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.ndimage import map_coordinates
from scipy.special import expit

from mammodensity.phantom.anatomy import Floats, Gland, stream

_LEVELS = (32, 64, 96, 128, 192)  # cube edges; each adds the shell of frequencies that the one before cannot hold
_SIDES_ALIKE = 0.45  # correlation of the texture of left and right breast
_WALL = 0.15  # half width of a ligament, in standard deviations of the noise whose zero level it follows
_BOX = 2.0  # edge of the noise cube in units of the half ball's radius


def cube_edge(rows: int) -> int:
    """Edge of the noise cube for images of ``rows``: about one voxel a pixel, at most 192."""
    return next((edge for edge in _LEVELS[1:] if edge >= 0.62 * rows), _LEVELS[-1])


def noise_cube(white: Callable[[int], Floats], edge: int, amplitude: Callable[[Floats], Floats]) -> Floats:
    """Gaussian noise on a periodic cube with a given amplitude spectrum.

    The spectrum is filled shell by shell, each from its own white noise, so that a finer cube only adds finer detail.

    Parameters
    ----------
    white
        Gives white noise of shape (n, n, n), float32, for a level n.
    edge
        Edge of the cube, one of the levels.
    amplitude
        Amplitude of frequencies given in cycles per box.

    Returns
    -------
    (edge, edge, edge), float32; the part below 16 cycles per box has unit variance.
    """
    spectrum = np.zeros((0, 0, 0), dtype=np.complex64)
    inner, scale = 0, 1.0
    for level in (n for n in _LEVELS if n <= edge):
        radius = _radius(level)
        shell = (radius >= inner / 2) & (radius < level / 2) & (radius > 0)
        weight = np.zeros_like(radius)
        weight[shell] = amplitude(radius[shell])
        if inner == 0:
            scale = float(np.sqrt(2 * np.sum(weight**2)))
        raised = fft.rfftn(white(level)) * (weight / np.float32(scale * level**1.5))
        if inner:
            near = np.r_[0 : inner // 2, level - inner // 2 : level]
            raised[np.ix_(near, near, np.arange(inner // 2 + 1))] += spectrum
        spectrum, inner = raised, level
    cube: Floats = fft.irfftn(spectrum, s=(edge,) * 3) * np.float32(edge**3)
    return cube


def _radius(edge: int) -> Floats:
    full = (fft.fftfreq(edge) * edge).astype(np.float32) ** 2
    half = np.arange(edge // 2 + 1, dtype=np.float32) ** 2
    radius: Floats = np.sqrt(full[:, None, None] + full[None, :, None] + half)
    return radius


class Tissue:
    """The tissue of one breast.

    Parameters
    ----------
    gland
        What was drawn for this breast.
    seed, index, side
        Name the random streams; the two sides share part of their texture.
    rows
        Image rows the tissue is to be projected to: sets the resolution.
    """

    def __init__(self, gland: Gland, seed: int, index: int, side: str, rows: int) -> None:
        def white(kind: str) -> Callable[[int], Floats]:
            def draw(level: int) -> Floats:
                common = _white(seed, index, kind, level)
                own = stream(seed, index, kind, side, level).standard_normal((level,) * 3, dtype=np.float32)
                mixed: Floats = common * np.float32(_SIDES_ALIKE**0.5) + own * np.float32((1 - _SIDES_ALIKE) ** 0.5)
                return mixed

            return draw

        def band(k: Floats) -> Floats:
            result: Floats = np.exp(-0.5 * (np.log(k / gland.compartments) / 0.45) ** 2) / k
            return result

        self.gland = gland
        self.threshold = 0.0
        edge = cube_edge(rows)
        self._texture = noise_cube(white("texture"), edge, lambda k: k ** (-gland.exponent / 2))
        self._sheets = noise_cube(white("sheets"), 64 if edge <= 96 else 128, band)  # its band is narrow

    def sample(self, u: Floats, v: Floats, w: Floats) -> tuple[Floats, Floats]:
        """Score and share of ligament at material points; glandular is what scores above the threshold."""
        gland = self.gland
        converge = (1.25 - np.clip(u, -0.5, 1)) ** -gland.convergence
        texture = _interpolate(self._texture, u * gland.stretch, v * converge, w * converge)
        level = (_interpolate(self._sheets, u * 0.85, v, w) / _WALL) ** 2
        score = gland.patchiness * texture + gland.lacing * np.exp(-0.1 * level) + self._prior(u, v, w)
        return score, gland.ligaments * np.exp(-level)

    def _prior(self, u: Floats, v: Floats, w: Floats) -> Floats:
        """Where glandular tissue is found: a cone towards the nipple, fuller in the upper outer quadrant."""
        gland = self.gland
        cone = np.clip((1.05 - u) / 0.6, 0.15, 1)
        du, dv, dw = ((c - m) / s for c, m, s in zip((u, v, w), gland.centre, gland.spread, strict=True))
        prior = -0.5 * (du * du + (dv * dv + dw * dw) / cone)
        # It reaches the skin at the nipple only, and leaves some fat before the muscle.
        behind_nipple = np.exp(-(v * v + w * w) / 0.03) * np.clip(u, 0, 1)
        cover = gland.subcutaneous * (1 - 0.85 * behind_nipple)
        depth = 1 - np.sqrt(u * u + v * v + w * w)
        prior = prior + gland.retroareolar * behind_nipple
        result: Floats = prior - 4 * np.maximum(1 - depth / cover, 0) - 1.2 * np.maximum(1 - u / 0.25, 0) ** 2
        return result

    def glandular(self, score: Floats) -> Floats:
        """Glandular share (0 to 1) of tissue with this score."""
        result: Floats = expit((score - self.threshold) / self.gland.softness)
        return result

    def streaks(self, along: Floats, across: Floats) -> Floats:
        """Unit-variance texture of long fibres at points in units of the half ball's radius, for the muscle."""
        return _interpolate(self._texture, along * 0.12, across, np.full_like(along, 0.37))

    def solve_threshold(self, score: Floats, weight: Floats) -> None:
        """Set the threshold so that the glandular share of ``score``, weighted by volume, is the wanted fraction."""
        low, high = float(score.min()) - 5, float(score.max()) + 5
        total = float(weight.sum())
        for _ in range(30):
            self.threshold = (low + high) / 2
            if float((self.glandular(score) * weight).sum()) / total > self.gland.fraction:
                low = self.threshold
            else:
                high = self.threshold


@lru_cache(maxsize=2 * len(_LEVELS))
def _white(seed: int, index: int, kind: str, level: int) -> Floats:
    """White noise that both breasts share; kept from the first for the second."""
    return stream(seed, index, kind, level).standard_normal((level,) * 3, dtype=np.float32)


def _interpolate(cube: Floats, u: Floats, v: Floats, w: Floats) -> Floats:
    edge = cube.shape[0]
    points = np.stack([u, v, w]) * np.float32(edge / _BOX)
    values: Floats = map_coordinates(cube, points, order=1, mode="grid-wrap")
    return values
