"""Random anatomy of one synthetic exam: category, amount and place of gland, shape of breast and muscle.

Every number comes from a random stream named by (seed, exam, purpose). So no draw depends on how many exams are made,
in which order, at which size, or in which process.

References
----------
Fibroglandular fractions of the four categories: Badano et al., JAMA Network Open 2018 (VICTRE). Compressed thickness:
Yaffe et al., Med. Phys. 2009.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mammodensity.terms import CATEGORIES, DensityCategory

Floats = NDArray[np.floating[Any]]

FIELD_MM = 240.0
"""Height of the imaged field; a full detector of 2294 rows then has pixels of 0.105 mm."""

CATEGORY_FRACTION: dict[DensityCategory, tuple[float, float]] = {
    DensityCategory.A: (0.02, 0.09),
    DensityCategory.B: (0.09, 0.23),
    DensityCategory.C: (0.23, 0.46),
    DensityCategory.D: (0.46, 0.78),
}
"""Volumetric fibroglandular fraction of each category, lower and upper limit; the bands touch and do not overlap."""

_MEDIAN_FRACTION = (0.05, 0.15, 0.34, 0.60)  # VICTRE's four models
_LOG_SPREAD = 0.35
_BAND_MARGIN = 0.03  # relative; the measured fraction comes from samples of the volume and must stay in the band too
_POPULATION = (0.10, 0.40, 0.40, 0.10)
_MEAN_THICKNESS_MM = (66.0, 61.0, 54.0, 46.0)


def stream(seed: int, *purpose: int | str) -> np.random.Generator:
    """Random generator of one purpose; the same arguments give the same numbers on every machine."""
    keys = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in purpose]
    return np.random.default_rng([seed, *keys])


@dataclass(frozen=True)
class Muscle:
    """Pectoral muscle of an MLO view: a wedge, ``top_mm`` wide at the upper edge, ``end_mm`` long on the chest wall."""

    top_mm: float
    end_mm: float
    bow_mm: float
    sway_mm: float


@dataclass(frozen=True, kw_only=True)
class ViewShape:
    """Compressed breast in one view. Millimetres; x from the chest wall, y downwards from the image's upper edge."""

    thickness_mm: float
    angle: float = 0.0
    """Rotation of the view about the axis from chest wall to nipple, radians; 0 for CC."""
    depth_mm: float
    nipple_mm: float
    """Height y of the nipple."""
    up_mm: float
    down_mm: float
    up_floor_mm: float = 0.0
    """Depth that remains above the breast: the axillary tail."""
    down_floor_mm: float = 0.0
    """Depth that remains below the breast: the inframammary fold."""
    floor_slope: float = 0.0
    up_form: tuple[float, float]
    down_form: tuple[float, float]
    wobble: tuple[tuple[float, float, float], ...]
    """Waves added to the smooth outline: (amplitude mm, wavelength mm, phase)."""
    nipple_radius_mm: float
    nipple_height_mm: float
    muscle: Muscle | None = None


@dataclass(frozen=True)
class Gland:
    """Place and texture of the fibroglandular tissue of one breast, in units of the half ball's radius."""

    fraction: float
    centre: tuple[float, float, float]
    spread: tuple[float, float, float]
    patchiness: float
    """Weight of the power-law texture against the anatomical prior."""
    retroareolar: float
    """Added to the prior behind the nipple."""
    exponent: float
    stretch: float
    convergence: float
    softness: float
    subcutaneous: float
    compartments: float
    """Adipose compartments per box edge (cycles): sets the mesh of Cooper's ligaments."""
    lacing: float
    """How closely glandular tissue follows the walls of the compartments: 0 cloudy, 1.5 lacy."""
    ligaments: float
    vessels: int
    strands: int


@dataclass(frozen=True)
class Processing:
    """Acquisition and vendor-like processing of one exam."""

    photons_per_mm2: float
    """In the open beam. A few per cent reach the detector, about 0.1 mGy."""
    scatter: float
    equalisation: float
    sharpening: float
    fat_level: float
    gain: float
    gamma: float


@dataclass(frozen=True)
class Breast:
    """One breast: its gland and its shape in each view (keys ``"CC"`` and ``"MLO"``)."""

    gland: Gland
    shapes: dict[str, ViewShape]


@dataclass(frozen=True)
class Anatomy:
    """Everything drawn for one exam; breasts by laterality."""

    category: DensityCategory
    breasts: dict[str, Breast]
    processing: Processing


def draw_anatomy(seed: int, index: int, mix: str) -> Anatomy:
    """Draw exam ``index``; left and right vary about common values, as in most women."""
    category = draw_category(seed, index, mix)
    rng = stream(seed, index, "anatomy")
    fraction = draw_fraction(rng, category)
    difference = float(np.clip(rng.normal(0, 0.04), -0.1, 0.1))
    thickness = float(np.clip(rng.normal(_MEAN_THICKNESS_MM[category.index], 12.0), 26.0, 95.0))
    common = _draw_gland(rng, fraction)
    size = float(np.clip(rng.normal(103.0, 14.0) * (thickness / 59.0) ** 0.25, 72.0, 140.0))
    habit_cc, habit_mlo = rng.uniform(size=8), rng.uniform(size=12)
    breasts = {}
    for side, sign in (("R", 1.0), ("L", -1.0)):
        rng = stream(seed, index, "breast", side)
        gland = _vary_gland(rng, common, fraction * (1 + sign * difference))
        depth = size * float(rng.normal(1, 0.03))
        cc = _draw_cc(rng, habit_cc, depth, thickness)
        breasts[side] = Breast(gland, {"CC": cc, "MLO": _draw_mlo(rng, habit_mlo, depth, thickness)})
    return Anatomy(category, breasts, _draw_processing(stream(seed, index, "processing")))


def draw_category(seed: int, index: int, mix: str) -> DensityCategory:
    """Category of exam ``index``: one of each in any four exams from a multiple of four, or the population's mix."""
    if mix == "population":
        return CATEGORIES[int(stream(seed, index, "category").choice(4, p=_POPULATION))]
    return CATEGORIES[int(stream(seed, index // 4, "block").permutation(4)[index % 4])]


def draw_fraction(rng: np.random.Generator, category: DensityCategory) -> float:
    """Mean volumetric fraction of both breasts: log-normal about VICTRE's value, truncated to the category's band."""
    low, high = CATEGORY_FRACTION[category]
    middle = math.log(_MEDIAN_FRACTION[category.index])
    limits = [math.log(low * (1 + _BAND_MARGIN)), math.log(high * (1 - _BAND_MARGIN))]
    lower, upper = (float(ndtr((limit - middle) / _LOG_SPREAD)) for limit in limits)
    return math.exp(middle + _LOG_SPREAD * float(ndtri(rng.uniform(lower, upper))))


def _draw_gland(rng: np.random.Generator, fraction: float) -> Gland:
    # Dense breasts fill their envelope; in fatty ones islands remain behind the nipple and in the upper outer quadrant.
    return Gland(
        fraction=fraction,
        centre=(rng.uniform(0.42, 0.68), rng.uniform(0.0, 0.24), rng.uniform(0.0, 0.2)),
        spread=_triple(rng.uniform((0.3, 0.36, 0.36), (0.5, 0.58, 0.58)) * (0.78 + 0.4 * fraction)),
        patchiness=rng.uniform(0.9, 1.7) * (1.4 - 0.6 * fraction),
        retroareolar=rng.uniform(0.2, 1.2),
        exponent=rng.uniform(3.2, 3.8),
        stretch=rng.uniform(0.55, 0.95),
        convergence=rng.uniform(0.4, 0.8),
        softness=rng.uniform(0.06, 0.18),
        subcutaneous=rng.uniform(0.1, 0.18) * (1.25 - 0.6 * fraction),
        compartments=rng.uniform(7.0, 11.0),
        lacing=rng.uniform(0.3, 2.0),
        ligaments=rng.uniform(0.2, 0.55),
        vessels=int(rng.integers(3, 8)),
        strands=int(rng.integers(150, 420)),
    )


def _vary_gland(rng: np.random.Generator, common: Gland, fraction: float) -> Gland:
    centre = np.asarray(common.centre) + rng.normal(0, 0.04, 3)
    spread = np.asarray(common.spread) * rng.normal(1, 0.06, 3)
    return replace(common, fraction=fraction, centre=_triple(centre), spread=_triple(spread))


def _triple(values: Floats) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _draw_cc(rng: np.random.Generator, common: Floats, depth: float, thickness: float) -> ViewShape:
    h = _habit(rng, common)
    width = depth * _between(h[0], 0.82, 1.08)
    lateral, medial = width * _between(h[1], 0.96, 1.14), width * _between(h[2], 0.88, 1.04)
    flare = max(0.0, h[3] - 0.4) * 0.42  # lateral fat towards the axilla draws the outline out
    radius, height = _nipple(rng)
    return ViewShape(
        thickness_mm=thickness * float(rng.normal(1, 0.04)),
        depth_mm=depth,
        nipple_mm=FIELD_MM / 2 + rng.uniform(-12, 12),
        up_mm=lateral * (1 + flare),
        down_mm=medial,
        up_form=(_between(h[5], 1.95, 2.4), _between(h[4], 0.48, 0.58) + 0.9 * flare),
        down_form=(_between(h[6], 1.95, 2.4), _between(h[7], 0.48, 0.62)),
        wobble=_wobble(rng),
        nipple_radius_mm=radius,
        nipple_height_mm=height,
    )


def _draw_mlo(rng: np.random.Generator, common: Floats, depth: float, thickness: float) -> ViewShape:
    h = _habit(rng, common)
    depth = depth * _between(h[0], 0.98, 1.12)
    nipple = float(np.clip(_between(h[1], 0.55, 0.66) * FIELD_MM, 0, FIELD_MM - 0.62 * depth))
    tail = depth * _between(h[2], 0.42, 0.78)
    fold = _between(h[7], -14.0, 22.0)
    top = min(tail * _between(h[3], 0.6, 0.9), 90.0)
    radius, height = _nipple(rng)
    return ViewShape(
        thickness_mm=thickness * float(rng.normal(1.05, 0.04)),
        angle=math.radians(_between(h[4], 38, 58)),
        depth_mm=depth,
        nipple_mm=nipple,
        up_mm=nipple * _between(h[5], 0.85, 1.15),
        down_mm=depth * _between(h[6], 0.62, 0.82),
        up_floor_mm=tail,
        down_floor_mm=fold if fold > 7 else 0.0,
        floor_slope=_between(h[8], 0.3, 0.9),
        up_form=(_between(h[9], 1.7, 2.2), _between(h[10], 1.0, 1.45)),
        down_form=(_between(h[11], 1.9, 2.4), rng.uniform(0.5, 0.62)),
        wobble=_wobble(rng),
        nipple_radius_mm=radius,
        nipple_height_mm=height,
        muscle=Muscle(top, nipple * rng.uniform(0.75, 1.2), rng.uniform(-2.0, 9.0), rng.normal(0, 1.5)),
    )


def _habit(rng: np.random.Generator, common: Floats) -> Floats:
    """The woman's shares (0 to 1) of each range, varied for one breast."""
    return np.clip(common + rng.normal(0, 0.12, len(common)), 0, 1)


def _between(share: float, low: float, high: float) -> float:
    return low + float(share) * (high - low)


def _wobble(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(rng.normal(0, 0.012) * wave), wave, rng.uniform(0, 2 * np.pi)) for wave in (150.0, 90.0, 55.0))


def _nipple(rng: np.random.Generator) -> tuple[float, float]:
    """Radius and height in mm; in about a third of the views the nipple is not in profile and has height 0."""
    return rng.uniform(4.5, 6.5), rng.uniform(4.5, 7.5) if rng.random() < 0.67 else 0.0


def _draw_processing(rng: np.random.Generator) -> Processing:
    # From flat and bright (early GE) to dark fat and strong contrast (later vendors), as the public images show.
    return Processing(
        photons_per_mm2=float(np.exp(rng.normal(np.log(8e6), 0.35))),
        scatter=rng.uniform(0.08, 0.25),
        equalisation=rng.uniform(0.72, 0.93),
        sharpening=rng.uniform(0.2, 0.7),
        fat_level=rng.uniform(0.18, 0.48),
        gain=rng.uniform(0.48, 0.7),
        gamma=rng.uniform(0.85, 1.2),
    )
