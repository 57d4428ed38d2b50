"""Tissue of one breast: gland and Cooper's ligaments as fields on the half ball; vessels, strands and ducts as curves.

Glandular tissue is power-law noise plus an anatomical prior, cut at the level that gives the wanted volume (binarised
power-law noise in a limited region: Lund, Med. Phys. 2012). Ligaments are thin sheets about the zero level of a
band-limited noise; these are the walls of adipose compartments (Bakic et al., Med. Phys. 2011; Pokrajac et al., Med.
Phys. 2012).

A curve adds its cross-section times its length to the image plane. This keeps its volume at every pixel size, and stays
sharp on a full detector, which the sampled volume cannot resolve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import expit

from mammodensity.phantom.breast import FIELD_MM, Floats, Gland, ViewShape, stream
from mammodensity.phantom.compression import ball_to_disc, disc_to_image

_LEVELS = (32, 64, 96, 128, 192)  # cube edges; each adds the shell of frequencies that the smaller ones cannot hold
_SIDES_ALIKE = 0.45  # correlation of the texture of left and right breast
_WALL = 0.15  # half width of a ligament, in standard deviations of the noise whose zero level it follows
_BOX = 2.0  # edge of the noise cube in units of the half ball's radius
_RADIUS_MM = 95.0  # approximate radius of the half ball; sets only the step length of curves


class Tissue:
    """Gland and ligaments of one breast.

    Parameters
    ----------
    gland
        The values drawn for this breast.
    seed, index, side
        Names of the random streams; the two sides share part of their texture.
    rows
        Image rows the tissue is to be projected to: sets the resolution.
    """

    def __init__(self, gland: Gland, seed: int, index: int, side: str, rows: int) -> None:
        def white(kind: str) -> Callable[[int], Floats]:
            def draw(level: int) -> Floats:
                common = _white(seed, index, kind, level)
                single = stream(seed, index, kind, side, level).standard_normal((level,) * 3, dtype=np.float32)
                return common * np.float32(_SIDES_ALIKE**0.5) + single * np.float32((1 - _SIDES_ALIKE) ** 0.5)

            return draw

        def band(k: Floats) -> Floats:
            return np.exp(-0.5 * (np.log(k / gland.compartments) / 0.45) ** 2) / k

        self.gland = gland
        self.threshold = 0.0
        edge = cube_edge(rows)
        self._texture = noise_cube(white("texture"), edge, lambda k: k ** (-gland.exponent / 2))
        self._sheets = noise_cube(white("sheets"), 64 if edge <= 96 else 128, band)  # its band is narrow

    def sample(self, u: Floats, v: Floats, w: Floats) -> tuple[Floats, Floats]:
        """Score and share of ligament at material points; scores above the threshold are glandular."""
        gland = self.gland
        converge = (1.25 - np.clip(u, -0.5, 1)) ** -gland.convergence
        texture = _interpolate(self._texture, u * gland.stretch, v * converge, w * converge)
        level = (_interpolate(self._sheets, u * 0.85, v, w) / _WALL) ** 2
        score = gland.patchiness * texture + gland.lacing * np.exp(-0.1 * level) + self._prior(u, v, w)
        return score, gland.ligaments * np.exp(-level)

    def _prior(self, u: Floats, v: Floats, w: Floats) -> Floats:
        """Usual place of glandular tissue: a cone towards the nipple, fuller in the upper outer quadrant."""
        gland = self.gland
        cone = np.clip((1.05 - u) / 0.6, 0.15, 1)
        du, dv, dw = ((c - m) / s for c, m, s in zip((u, v, w), gland.centre, gland.spread, strict=True))
        prior = -0.5 * (du * du + (dv * dv + dw * dw) / cone)
        # It reaches the skin only at the nipple, and leaves some fat before the muscle.
        behind_nipple = np.exp(-(v * v + w * w) / 0.03) * np.clip(u, 0, 1)
        cover = gland.subcutaneous * (1 - 0.85 * behind_nipple)
        depth = 1 - np.sqrt(u * u + v * v + w * w)
        prior = prior + gland.retroareolar * behind_nipple
        return prior - 4 * np.maximum(1 - depth / cover, 0) - 1.2 * np.maximum(1 - u / 0.25, 0) ** 2

    def glandular(self, score: Floats) -> Floats:
        """Glandular share (0 to 1) of tissue with this score."""
        return expit((score - self.threshold) / self.gland.softness)

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
    """White noise that both breasts share, kept from the first breast for the second."""
    return stream(seed, index, kind, level).standard_normal((level,) * 3, dtype=np.float32)


def _interpolate(cube: Floats, u: Floats, v: Floats, w: Floats) -> Floats:
    points = np.stack([u, v, w]) * np.float32(cube.shape[0] / _BOX)
    return map_coordinates(cube, points, order=1, mode="grid-wrap")


def cube_edge(rows: int) -> int:
    """Edge of the noise cube for images of ``rows``: about one voxel a pixel, at most 192."""
    return next((edge for edge in _LEVELS[1:] if edge >= 0.62 * rows), _LEVELS[-1])


def noise_cube(white: Callable[[int], Floats], edge: int, amplitude: Callable[[Floats], Floats]) -> Floats:
    """Gaussian noise on a periodic cube with the given amplitude spectrum.

    The spectrum is filled shell by shell, each from white noise of its own, so that a finer cube only adds detail.

    Parameters
    ----------
    white
        Gives white noise of shape (n, n, n), float32, for a level n.
    edge
        Edge of the cube, one of the levels.
    amplitude
        Amplitude at frequencies in cycles per box.

    Returns
    -------
    (edge, edge, edge), float32; the part below 16 cycles per box has unit variance.
    """
    spectrum = np.zeros((0, 0, 0), dtype=np.complex64)
    inner, scale = 0, 1.0
    for level in (n for n in _LEVELS if n <= edge):
        radius = _frequency_radius(level)
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
    return fft.irfftn(spectrum, s=(edge,) * 3) * np.float32(edge**3)


def _frequency_radius(edge: int) -> Floats:
    full = (fft.fftfreq(edge) * edge).astype(np.float32) ** 2
    half = np.arange(edge // 2 + 1, dtype=np.float32) ** 2
    return np.sqrt(full[:, None, None] + full[None, :, None] + half)


@dataclass(frozen=True)
class Strands:
    """Curves of one kind: ``points`` (3, curves, steps) in material coordinates, ``diameter_mm`` (curves, steps)."""

    points: Floats
    diameter_mm: Floats


def draw_vessels(rng: np.random.Generator, gland: Gland, spacing_mm: float) -> Strands:
    """Vessels with one branch each: they enter at the chest wall and run forward below the skin, tapering."""
    count = gland.vessels
    shell = np.repeat(rng.uniform(0.6, 0.9, count), 2)
    start = np.repeat(rng.normal(0.8, 1.3, count), 2)  # mostly upper outer
    reach = rng.uniform(0.5, 1.25, 2 * count)
    turn = rng.normal(0, 0.35, 2 * count)
    fork = np.repeat(rng.uniform(0.15, 0.6, count), 2)
    apart = np.where(np.arange(2 * count) % 2 == 1, rng.choice([-1.0, 1.0], 2 * count) * 0.7, 0.0)
    waves = rng.normal(0, 1, (3, 2, 2 * count))
    width = np.repeat(rng.uniform(1.6, 3.2, count), 2)
    t = np.linspace(0, 1, int(1.6 * 1.25 * _RADIUS_MM / spacing_mm) + 16)[None, :]

    def wave(k: int) -> Floats:
        total = np.zeros_like(t)
        for i in range(3):
            phase = (i + 1) * 4.1 * t + 7 * waves[i, 1 - k][:, None]
            total = total + waves[i, k][:, None] / (i + 1.5) ** 1.6 * np.sin(phase)
        return total

    past = np.maximum(t - fork[:, None], 0)
    elevation = reach[:, None] * t + 0.05 * wave(0)
    azimuth = start[:, None] + turn[:, None] * t + 0.16 * wave(1) + apart[:, None] * past
    points = shell[:, None] * np.stack(
        [np.sin(elevation), np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)]
    )
    diameter = width[:, None] * (1 - 0.65 * t) * np.where(past > 0, 0.75, 1.0)
    shared = (apart != 0)[:, None] & (past == 0)  # a branch shares its first part with its vessel
    return Strands(points, np.where(shared, 0.0, diameter))


def draw_strands(rng: np.random.Generator, gland: Gland, spacing_mm: float) -> Strands:
    """Fibrous strands: short bent fibres, most along the ducts or from the gland to the skin."""
    count = gland.strands
    direction = rng.normal(0, 1, (3, count))
    direction[0] = np.abs(direction[0])
    direction /= np.linalg.norm(direction, axis=0)
    middle = direction * rng.uniform(0.2, 0.93, count) ** 0.7
    from_nipple = middle - np.array([[1.0], [0.0], [0.0]])
    from_nipple /= np.linalg.norm(from_nipple, axis=0)
    course = from_nipple + 0.75 * rng.normal(0, 1, (3, count)) / np.sqrt(3)
    course /= np.linalg.norm(course, axis=0)
    bend = rng.normal(0, 1, (2, 3, count))
    length = np.clip(rng.lognormal(np.log(0.22), 0.5, count), 0.08, 0.6)
    width = np.clip(rng.lognormal(np.log(0.75), 0.35, count), 0.3, 1.6)
    t = np.linspace(-1, 1, int(1.6 * 0.6 * _RADIUS_MM / spacing_mm) + 8)
    s = t[None, None, :]
    half = (length / 2)[None, :, None]
    points = middle[:, :, None] + half * (
        course[:, :, None] * s + 0.28 * bend[0][:, :, None] * (s * s - 0.4) + 0.1 * bend[1][:, :, None] * np.sin(4 * s)
    )
    inside = np.linalg.norm(points, axis=0) < 0.985
    return Strands(points, np.where(inside, width[:, None] * np.sqrt(1 - 0.9 * t * t)[None, :], 0.0))


def draw_ducts(rng: np.random.Generator, gland: Gland, spacing_mm: float) -> Strands:
    """Lactiferous ducts with their fibrous sheaths: from the nipple into the gland, each with a few branches.

    References
    ----------
    A breast has about 5 to 15 ducts that open at the nipple, 2 mm wide on average, branching close behind it: Ramsay et
    al., J. Anat. 2005; Going and Moffat, J. Pathol. 2004.
    """
    ducts, branches = int(rng.integers(7, 18)), 6
    count = ducts * branches
    nipple = np.array([0.96, 0.0, 0.0])[:, None]
    lobe = np.array(gland.centre)[:, None] + np.array(gland.spread)[:, None] * rng.normal(0, 1.1, (3, ducts))
    parent = np.repeat(nipple + (lobe - nipple) * rng.uniform(0.3, 1.1, ducts), branches, axis=1)
    ends = parent + rng.normal(0, 0.18, (3, count))
    ends[0] = np.clip(ends[0], 0.1, 0.85)
    ends *= np.minimum(1, 0.88 / np.linalg.norm(ends, axis=0))
    first = np.arange(count) % branches == 0
    parent = np.repeat(ends[:, first], branches, axis=1)
    fork = np.repeat(rng.uniform(0.06, 0.5, ducts), branches)[:, None]
    width = np.repeat(np.clip(rng.lognormal(np.log(1.5), 0.4, ducts), 0.6, 3.5), branches)
    t = np.linspace(0, 1, int(1.6 * _RADIUS_MM / spacing_mm) + 16)[None, :]
    past = np.maximum(t - fork, 0) / (1 - fork)
    course = nipple[:, :, None] + (parent - nipple)[:, :, None] * t + (ends - parent)[:, :, None] * past
    for waves, size in ((2.5, 0.07), (6.0, 0.03), (14.0, 0.012)):
        duct_phase, branch_phase = (rng.uniform(0, 2 * np.pi, (3, n, 1)) for n in (ducts, count))
        course = course + size * t * np.sin(waves * t + np.repeat(duct_phase, branches, axis=1))
        course = course + size * past * np.sin(waves * past + branch_phase)
    beads = 1 + 0.4 * np.sin(rng.uniform(8, 25, (count, 1)) * t + rng.uniform(0, 2 * np.pi, (count, 1)))
    shared = ~first[:, None] & (past == 0)  # a branch shares its first part with its duct
    inside = np.linalg.norm(course, axis=0) < 0.97
    diameter = width[:, None] * (1 - 0.7 * t) * np.where(past > 0, 0.8, 1.0) * beads
    return Strands(course, np.where(inside & ~shared, diameter, 0.0))


def lay_down(curves: Strands, shape: ViewShape, rows: int, cols: int) -> Floats:
    """Projected thickness (mm) of ``curves`` in a view of a left breast; (rows, cols), float32."""
    spacing = FIELD_MM / rows
    u, v, w = curves.points
    x, y = disc_to_image(shape, u, ball_to_disc(shape, v, w))
    step = np.hypot(np.diff(x, axis=1, append=x[:, -1:]), np.diff(y, axis=1, append=y[:, -1:]))
    # Long steps lie in the stretched rim of the mapping, where no curve belongs.
    volume = np.where(step < 4.0, np.pi / 4 * curves.diameter_mm**2 * step, 0.0)
    widest = curves.diameter_mm.max(axis=1)
    total = np.zeros((rows, cols), dtype=np.float32)
    for low, high in ((0.0, 0.45), (0.45, 0.7), (0.7, 1.1), (1.1, 1.8), (1.8, 9.0)):
        chosen = (widest >= low) & (widest < high)
        if chosen.any():
            laid = _splat(x[chosen] / spacing - 0.5, y[chosen] / spacing - 0.5, volume[chosen], rows, cols)
            sigma = float(curves.diameter_mm[chosen].max(axis=1).mean()) / 4 / spacing  # of a cylinder's chord
            total += gaussian_filter(laid, sigma) if sigma > 0.3 else laid
    return total / np.float32(spacing**2)


def _splat(x: Floats, y: Floats, amount: Floats, rows: int, cols: int) -> Floats:
    """Distribute amounts at pixel positions over their four neighbours."""
    keep = (amount > 0) & (x > 0) & (y > 0) & (x < cols - 1) & (y < rows - 1)
    x, y, amount = x[keep], y[keep], amount[keep]
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, low_share = x - left, y - top
    image = np.zeros(rows * cols)
    for offset, share in (
        (0, (1 - right_share) * (1 - low_share)),
        (1, right_share * (1 - low_share)),
        (cols, (1 - right_share) * low_share),
        (cols + 1, right_share * low_share),
    ):
        image += np.bincount(top * cols + left + offset, weights=amount * share, minlength=rows * cols)
    return image.reshape(rows, cols).astype(np.float32)
