"""Many appearances of one phantom breast: other tissue, muscle, masses and implants, other beams, film or digital.

These images train the networks that must read real mammograms without having been trained on one. The paths of a view
are physical lengths, so everything that differs between machines can be drawn again for each image: beam quality,
scatter, film with its characteristic curve, thickness equalisation, edge enhancement, windows and tone curves. The
ranges are wider than those of real images, so that real images lie inside them (domain randomisation: Tobin et al.,
IROS 2017; Billot et al., Med. Image Anal. 2023).

All images have the chest wall on the left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit

from mammodensity.phantom.breast import FIELD_MM, Floats
from mammodensity.phantom.compression import SKIN_MM, blur, resample
from mammodensity.phantom.projection import (
    LABELS,
    MU_FAT,
    MU_GLAND,
    DenseRule,
    Labels,
    Paths,
    close_ducts,
    shoulder,
    smoothed_share,
    transmitted,
)

Mask = NDArray[np.bool_]

IMPLANT = 4
"""Label of an implant, in images for training only."""
READERS_RULE = DenseRule(share=0.15, smooth_mm=2.5)
"""Readers outline regions, not lobules, and call tissue dense from a smaller glandular share than the phantoms' own
rule: 12 % of 50 mm changes the optical density of film by 0.3 and more."""

_LOWEST, _HIGHEST = (0.06, 0.14), (0.15, 0.25)  # ranges among readers of the least share called dense: faint, other
_VISIBLE = 0.13  # of full scale above base; readers cannot tell darker parts of a film from its background
_IMPLANTS, _MASSES, _INVOLUTED = 0.05, 0.15, 0.2  # shares of the images
_NARROWEST_MUSCLE = 0.02  # of the image's width; readers do not outline a thinner lower end
_REFERENCE_KEV = 20.0
_MU_SALINE, _MU_SILICONE = 0.08, 0.2  # per mm at 20 keV, about, from the elements' coefficients (NIST)
_LEAST_IMPLANT_MM = 3.0  # of the path; thinner edges look like tissue
_MASS_DIAMETER_MM = 8.0, 45.0
_MASS_NUMBERS = (0.6, 0.25, 0.15)  # shares of breasts with masses that have one, two, three


@dataclass(frozen=True)
class Look:
    """The changes to make; each is drawn again for each image. A change that is off takes a plain middle value.

    Changes that are off by default are used only for the second of the two tissue networks.
    """

    amount: bool = True
    """More or less glandular tissue than the phantom's, denser or more thinly spread."""
    involution: bool = False
    """In some images, glandular tissue that is thin everywhere, or gone."""
    readers: bool = False
    """A different reader for each image, who outlines fainter tissue or leaves more out; otherwise one rule for all."""
    muscle: bool = True
    """A wider or longer muscle of other brightness than the phantom's, with fibres."""
    masses: bool = False
    """Masses in some images."""
    implants: bool = True
    """An implant in some images, labelled ``IMPLANT``."""
    paddle: bool = True
    """A compression paddle that tilts and bends, so that thickness varies over the breast."""
    beam: bool = True
    """Energy, scatter, heel effect, thickness of skin."""
    vendors: bool = True
    """Equalisation, edge enhancement, local contrast, windows and tone curves of digital systems."""


def render(paths: Paths, rng: np.random.Generator, *, film: bool, look: Look = Look()) -> tuple[Floats, Labels]:
    """Make one image of a view, on film or digital.

    Returns
    -------
    The image (rows, cols), 0 to 1, and its labels: 0 background, 1 adipose, 2 fibroglandular, 3 pectoral muscle,
    4 implant. On film, tissue that fades into the background is labelled background: labels say what can be seen.
    """
    if look.amount:
        paths = _other_amount(paths, rng, involution=look.involution)
    if look.muscle and (paths.labels == LABELS["pectoral"]).any():
        paths = _other_muscle(paths, rng)
    rule = _drawn_rule(paths, rng) if look.readers else READERS_RULE
    if look.masses and rng.random() < _MASSES:
        paths = with_masses(paths, rng)
    implant: Floats | None = None
    if look.implants and rng.random() < _IMPLANTS:
        paths, implant = with_implant(paths, rng)
    labels = tissue_labels(paths, rule)
    lead = _log_attenuation(paths, rng, look, implant)
    if film:
        return _film(lead, paths, labels, rng)
    return _digital(lead, paths, rng, look), labels


# Amount of tissue, and what readers call dense


def _other_amount(paths: Paths, rng: np.random.Generator, *, involution: bool) -> Paths:
    """Move glandular shares so that the dense area becomes a random part of the breast."""
    if rng.random() < 0.2:  # soft tissue without small lobules
        paths = replace(paths, glandular=gaussian_filter(paths.glandular, rng.uniform(0.5, 2.5)))
    dense_share = rng.uniform(0, 0.85) if rng.random() < 0.75 else rng.uniform(0, 0.06)
    steep = rng.uniform(1.4, 2.8)  # from tissue that fades into fat to lobes with a clear edge
    moved = with_dense_share(paths, dense_share, READERS_RULE, steep)
    if involution and rng.random() < _INVOLUTED:
        moved = replace(moved, glandular=moved.glandular * np.float32(rng.uniform(0, 0.25)))
    fibrous = np.minimum(paths.fibrous * np.exp(rng.uniform(-3.0, 1.2)), 0.9 * paths.tissue)
    ducts = paths.ducts * (np.exp(rng.uniform(-1.5, 0.8)) if rng.random() < 0.5 else 0)
    return replace(moved, fibrous=fibrous, ducts=np.minimum(ducts, 0.9 * paths.tissue))


def with_dense_share(paths: Paths, dense_share: float, rule: DenseRule, steep: float = 1.0) -> Paths:
    """Move glandular shares on the logit scale until about ``dense_share`` (0 to 1) of the breast is dense.

    The move is bounded, so extreme shares may not be reached. Tissue stays where it is: the core of lobes remains
    nearly pure gland while their margin moves. A larger ``steep`` gives clearer edges.
    """
    share = np.clip(_glandular_share(paths, rule), 1e-3, 1 - 1e-3)
    limit = float(np.quantile(share[paths.breast], 1 - dense_share))
    border = logit(rule.share)
    over = steep * (logit(np.clip(paths.glandular, 1e-4, 1 - 1e-4)) - np.clip(logit(limit), border - 2, border + 3))
    glandular = np.where(paths.glandular > 0, expit(border + over), 0)
    return replace(paths, glandular=glandular.astype(np.float32))


def _drawn_rule(paths: Paths, rng: np.random.Generator) -> DenseRule:
    """One reader's limit in this breast: half of the share of its brightest gland, between two drawn bounds.

    Readers see contrast, not attenuation, and keep one limit for an image (Byng et al., Phys. Med. Biol. 1994). Beside
    a bright core they leave faint tissue out; where all tissue is faint, they outline it as far as it is visible.
    """
    share = _glandular_share(paths, READERS_RULE)[paths.breast]
    brightest = float(np.quantile(share, 0.98)) if share.size else 0.0
    limit = np.clip(brightest / 2, rng.uniform(*_LOWEST), rng.uniform(*_HIGHEST))
    return replace(READERS_RULE, share=float(limit))


def _glandular_share(paths: Paths, rule: DenseRule) -> Floats:
    return smoothed_share(paths.glandular, paths.tissue * (1 - paths.muscle), rule)


def tissue_labels(paths: Paths, rule: DenseRule) -> Labels:
    """Labels with the tissue that is dense by a rule; skin and nipple are not dense."""
    dense = ((_glandular_share(paths, rule) > rule.share) | close_ducts(paths.ducts)) & (paths.distance > SKIN_MM)
    labels = np.where(dense & (paths.labels > 0), LABELS["fibroglandular"], np.minimum(paths.labels, 1))
    kept = np.isin(paths.labels, (LABELS["pectoral"], IMPLANT))
    return np.where(kept, paths.labels, labels).astype(np.uint8)


# Muscle


def _other_muscle(paths: Paths, rng: np.random.Generator) -> Paths:
    """Another muscle, up to the skin at the top and the lower edge below, that fills little or most of the path."""
    if rng.random() < 0.3:
        return replace(paths, muscle=np.clip(paths.muscle * rng.uniform(0.6, 1.3), 0, 1))
    drawn, share = _draw_muscle(paths.body, rng)
    labels = np.where(paths.labels == LABELS["pectoral"], LABELS["adipose"], paths.labels)
    return replace(paths, muscle=share, labels=np.where(drawn, LABELS["pectoral"], labels).astype(np.uint8))


def _draw_muscle(body: Mask, rng: np.random.Generator) -> tuple[Mask, Floats]:
    """Draw a wedge in the upper corner, ending near the height of the nipple, as positioning aims for.

    Its border is straight, convex or concave, sharp or soft; fibres and folds run along it inside.

    Returns
    -------
    Where the muscle is visible, and the share of the path it fills, both (rows, cols).
    """
    y, x = np.indices(body.shape, dtype=np.float32)
    rows, cols = body.shape
    unit = rows / 192  # the lengths below are for an image of 192 rows
    widest = max(float(body[: rows // 12 + 1].any(axis=0).sum()), 0.15 * cols)
    top = widest * rng.uniform(0.3, 1.05)
    end = rows * (rng.uniform(0.4, 1.0) if rng.random() < 0.75 else rng.uniform(0.2, 0.6))
    down = np.clip(y / end, 0, 1)
    bow, sway = rng.normal(0.045, 0.05), rng.normal(0, 0.012)
    border = top * (1 - down) + cols * (bow * np.sin(np.pi * down) + sway * np.sin(2 * np.pi * down))
    border = border + gaussian_filter(rng.normal(0, 1, rows), 6 * unit)[:, None] * rng.uniform(0, 3) * unit
    over = (border - x) * end / np.hypot(end, top) / unit
    soft = np.clip(0.5 + over / rng.uniform(1, 7), 0, 1) * (y < end)
    fibres = gaussian_filter(rng.normal(0, 1, 400), rng.uniform(1, 6))
    fibres = np.interp(over + 4 * np.sin(3 * down + rng.uniform(0, 6)), np.arange(-200, 200), fibres)
    streaks = gaussian_filter(rng.normal(0, 1, body.shape), (6 * unit, 1.5 * unit))
    rise = 1 - rng.uniform(0, 0.5) * np.exp(-np.maximum(over, 0) / rng.uniform(5, 25))
    rise = rise - rng.uniform(-0.1, 0.2) * down  # thinner towards its lower end
    share = rng.uniform(0.25, 1.0) * rise + rng.uniform(0, 0.25) * fibres * (over > 3) + rng.uniform(0, 0.3) * streaks
    visible = body & (soft >= 0.5) & (border > _NARROWEST_MUSCLE * cols)
    return visible, np.clip(share * soft * body, 0, 1).astype(np.float32)


# Masses and implants


def with_masses(paths: Paths, rng: np.random.Generator) -> Paths:
    """A breast with one to three masses (tumours, cysts, nodes), as diagnostic archives hold many.

    A mass attenuates like gland (Johns and Yaffe, Phys. Med. Biol. 1987). A large one fills more of a ray than gland:
    it may be the brightest part of an image, and readers count it as dense. A small one, like a lobule, stays below
    what they outline.
    """
    places = np.argwhere(paths.breast & (paths.distance > 6))
    glandular = paths.glandular
    for _ in range(1 + int(rng.choice(len(_MASS_NUMBERS), p=_MASS_NUMBERS)) if len(places) else 0):
        filled = _mass(paths, places[rng.integers(len(places))], rng)
        glandular = 1 - (1 - glandular) * (1 - filled)  # the rest of the path stays as it was
    return replace(paths, glandular=glandular.astype(np.float32))


def _mass(paths: Paths, centre: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    """Share of each ray (rows, cols) that a mass fills: an ellipsoid, smooth, lobed or with an indistinct margin."""
    y, x = np.indices(paths.labels.shape, dtype=np.float32)
    pixel_mm = FIELD_MM / paths.labels.shape[0]
    down, along = (y - centre[0]) * pixel_mm, (x - centre[1]) * pixel_mm
    turn = rng.uniform(0, np.pi)
    across = along * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - along * np.sin(turn)
    low, high = np.log(_MASS_DIAMETER_MM)
    radius = np.exp(rng.uniform(low, high)) / 2
    angle = np.arctan2(across[1], across[0])
    uneven = rng.uniform(0, 0.12)
    lobes = 1 + sum(rng.normal(0, uneven) * np.cos(n * angle + rng.uniform(0, 6)) for n in (2, 3, 5, 8))
    reach = np.hypot(across[0], across[1] * rng.uniform(1, 1.6)) / np.maximum(lobes, 0.4) / radius
    chord = 2 * radius * rng.uniform(0.6, 1.0) * np.sqrt(np.clip(1 - reach**2, 0, 1))  # flattened by compression
    chord = gaussian_filter(chord, rng.uniform(0.2, 2.5) / pixel_mm)
    free = paths.tissue * (1 - paths.muscle)
    return np.clip(chord / np.maximum(free, 1.0), 0, 0.98) * (paths.tissue > 0)


def with_implant(paths: Paths, rng: np.random.Generator) -> tuple[Paths, Floats]:
    """A breast with an implant, and the implant's attenuation, minus the logarithm of its transmission (rows, cols).

    Saline attenuates like glandular tissue, silicone two to three times as much. An implant is therefore among the
    brightest and smoothest parts of an image, with a convex border towards the nipple. It displaces the tissue.
    """
    body = paths.body
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    y, x = np.indices(body.shape, dtype=np.float32)
    height, depth = float(rows[-1] - rows[0] + 1), float(columns[-1] + 1)
    half, reach = rng.uniform(0.25, 0.42) * height, rng.uniform(0.3, 0.8) * depth
    behind = rng.uniform(0, 0.6) * reach  # the part cut off by the chest wall
    middle = rows[0] + height * rng.normal(0.5, 0.06)
    across, along = (x + behind) / (reach + behind), (y - middle) / half
    angle, power = np.arctan2(along, across), rng.uniform(2.0, 2.8)
    ripple = 1 + sum(rng.normal(0, 0.02) * np.cos(n * angle + rng.uniform(0, 6)) for n in (2, 3, 5))
    radius = (np.abs(across) ** power + np.abs(along) ** power) ** (1 / power) / ripple
    slab = float(paths.thickness.max())
    chord = slab * rng.uniform(0.5, 0.95) * np.sqrt(np.clip(1 - radius ** rng.uniform(2, 8), 0, 1)) * body
    chord = np.minimum(chord, 0.9 * paths.tissue).astype(np.float32)
    left = paths.tissue - chord
    visible = (chord > _LEAST_IMPLANT_MM) & paths.breast
    labels = np.where(visible, IMPLANT, paths.labels).astype(np.uint8)
    share = left / np.maximum(paths.tissue, 1e-3)  # tissue in the path is spread and pushed aside
    displaced = replace(paths, tissue=left, fibrous=paths.fibrous * share, ducts=paths.ducts * share, labels=labels)
    return displaced, chord * np.float32(rng.uniform(_MU_SALINE, _MU_SILICONE))


# Beam


def _log_attenuation(paths: Paths, rng: np.random.Generator, look: Look, implant: Floats | None) -> Floats:
    """Minus the logarithm of the signal, with scatter; attenuation falls with energy (Johns and Yaffe 1987)."""
    energy = rng.uniform(16, 25) if look.beam else _REFERENCE_KEV
    mu_fat = MU_FAT * (_REFERENCE_KEV / energy) ** 1.9
    mu_gland = MU_GLAND * (_REFERENCE_KEV / energy) ** 2.3
    skin = rng.uniform(0.6, 1.7) if look.beam else 1.0
    scatter = rng.uniform(0.02, 0.45) if look.beam else 0.15
    tissue = paths.tissue * _paddle(paths.tissue.shape, rng) if look.paddle else paths.tissue
    primary = transmitted(paths, tissue, mu_fat, mu_gland, skin)
    if implant is not None:
        primary = primary * np.exp(-implant)
    veil = blur(primary * paths.body.astype(np.float32), rng.uniform(10, 25) / FIELD_MM * len(primary))
    lead: Floats = -np.log(primary + scatter * veil)
    if look.beam:  # heel effect: up to a fifth less exposure towards the anode
        lead = lead + rng.uniform(-0.1, 0.22) * np.linspace(0, 1, lead.shape[1], dtype=np.float32)
    return lead


def _paddle(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Compressed thickness (rows, cols) as a share of the slab's.

    Paddles tilt and bend by 1 to 2 cm, mostly down towards the nipple: Mawdsley et al., Med. Phys. 2009.
    """
    y, x = (np.linspace(-0.5, 0.5, size, dtype=np.float32) for size in shape)
    tilt = rng.normal(-0.12, 0.12) * x[None, :] + rng.normal(0, 0.1) * y[:, None]
    bend = resample(rng.normal(0, 0.035, (4, 4)).astype(np.float32), (shape[0], shape[1]))
    return np.clip(1 + tilt + bend, 0.6, 1.4).astype(np.float32)


# Film and digital processing


def _film(lead: Floats, paths: Paths, labels: Labels, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Optical density after the sigmoid characteristic curve, exposed for the middle of the breast, then scanned.

    References
    ----------
    Average gradients of mammographic film are 3 to 4, maximum densities 3.5 to 4.5 (Haus and Yaffe, Radiol. Clin. North
    Am. 2000); automatic exposure control aims at a density of 1.2 to 1.8 in the middle of the breast.
    """
    exposure = -lead / np.log(10)
    inside = paths.distance > 12
    aim = float(np.median(exposure[inside])) if inside.any() else float(np.median(exposure))
    most, gradient = rng.uniform(3.0, 4.5), rng.uniform(2.2, 4.5)
    steep = 4 * gradient / most
    target = rng.uniform(0.8, 2.4) / most
    speed = aim + np.log((1 - target) / target) / steep
    density = 1 / (1 + np.exp(-steep * (exposure - speed)))
    grey = 1 - density
    if rng.random() < 0.4:  # a scanner that writes transmittance, not density, as one of DDSM's did, or partly so
        grey = 10 ** (-most * density * rng.uniform(0.2, 1.05))
    body = paths.body
    grey = np.where(body, grey, float(grey[~body].mean()) if not body.all() else 0)
    base = float(np.quantile(grey, 0.01))
    grey = (grey - base) / max(float(grey.max()) - base, 1e-3)
    visible = gaussian_filter(grey, 0.7) > _VISIBLE
    return grey, np.where(visible | (paths.distance > 20), labels, 0).astype(np.uint8)


def _digital(lead: Floats, paths: Paths, rng: np.random.Generator, look: Look) -> Floats:
    """Processing for presentation: logarithm, peripheral equalisation, edge enhancement, window, tone curve."""
    spacing = FIELD_MM / len(lead)
    wild = look.vendors
    slab = float(paths.thickness.max())
    body = paths.body
    # Vendors estimate the missing thickness at the edge, more or less well, and fill it in part or in full.
    estimate = blur(paths.thickness, rng.uniform(0, 4) / spacing) if wild else paths.thickness
    lowest = rng.uniform(0.05, 0.6) if wild else 0.35
    missing = slab - np.maximum(estimate, lowest * slab)
    fat = float(np.median((lead / np.maximum(paths.thickness, 1))[body & (paths.distance > 5)]))
    image: Floats = lead + (rng.uniform(0, 1.05) if wild else 0.85) * fat * missing * rng.uniform(0.8, 1)
    if wild:
        if rng.random() < 0.35:
            image = _flatten(image, body, rng.uniform(15, 60) / spacing, rng.uniform(0.2, 0.9))
        for sigma_mm in (1.2, 4.0, 12.0):
            image = image + rng.choice([0, rng.uniform(0, 1.5)]) * (image - blur(image, sigma_mm / spacing))
        if rng.random() < 0.3:  # as in synthetic 2-D images
            image = _level_contrast(image, body, rng.uniform(8, 30) / spacing, rng.uniform(0.3, 1))
    interior = (paths.distance > 8) & (paths.muscle == 0)
    values = image[interior] if interior.any() else image[body]
    low, high = (float(p) for p in np.percentile(values, (rng.uniform(1, 20), rng.uniform(96, 99.8))))
    span = max(high - low, (rng.uniform(0.15, 0.5) if wild else 0.2) * (MU_GLAND - MU_FAT) * slab)
    bottom = rng.uniform(0.02, 0.65)
    grey = bottom + rng.uniform(0.25, 1.0) * (1 - bottom) * (image - low) / span
    grey = np.maximum(grey, 0)
    if rng.random() < 0.6:
        grey = shoulder(grey, rng.uniform(0.4, 0.9))
    grey = np.clip(grey, 0, 1) ** np.exp(rng.normal(0, 0.3) if wild else 0)
    return grey * np.clip(0.5 + paths.distance / spacing, body, 1)


def _flatten(image: Floats, body: Mask, sigma: float, share: float) -> Floats:
    """Remove a share of the slow changes of brightness, as at the periphery."""
    weight = body.astype(np.float32)
    slow = blur(image * weight, sigma) / np.maximum(blur(weight, sigma), 1e-2)
    return image - share * (slow - float(slow[body].mean()))


def _level_contrast(image: Floats, body: Mask, sigma: float, share: float) -> Floats:
    """Bring local contrast towards one level: detail divided by its local size."""
    weight = body.astype(np.float32)
    cover = np.maximum(blur(weight, sigma), 1e-2)
    slow = blur(image * weight, sigma) / cover
    detail = (image - slow) * weight
    size = np.sqrt(blur(detail**2, sigma) / cover)
    typical = float(size[body].mean())
    return slow + detail * (typical / np.maximum(size, 0.3 * typical)) ** share
