"""What the default networks are trained on: phantoms traced once, and images of them disturbed anew for every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from mammodensity.outputs import staged_folder
from mammodensity.phantom import PhantomSpec
from mammodensity.phantom.disturbance import Disturbance, disturb
from mammodensity.phantom.exam import trace_breast
from mammodensity.phantom.implants import IMPLANT
from mammodensity.phantom.impostors import impostor
from mammodensity.phantom.projection import LABELS, Labels, Paths
from mammodensity.preprocess.segmenter import SIZE as OUTLINE_SIZE
from mammodensity.preprocess.segmenter import segmenter_input
from mammodensity.tissue.network import SIZE as TISSUE_SIZE
from mammodensity.tissue.network import tissue_input
from mammodensity.workers import in_workers, usable_cores

Sample = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Network input (channels, H, W) and classes (H, W)."""
_View = tuple[NDArray[np.float16], Labels, str]

_LENGTHS = tuple(
    field.name for field in fields(Paths) if field.name not in ("labels", "volumetric_fraction")
)  # the arrays of a view
_WHOLE = (272, 176)  # an image before it is cut to the breast: about as large as the phantom it is made from
_MLO_SHARE = {"outline": 0.78, "tissue": 0.6}  # muscles are the harder part of outlines
_LEAST_BOX, _LEAST_PX = (60, 40), 400
_IMPOSTORS = 0.1  # share of the images the segmenter sees


class PhantomPaths:
    """Traced views on disk, read piece by piece."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths = np.load(folder / "lengths.npy", mmap_mode="r")
        self._labels = np.load(folder / "labels.npy", mmap_mode="r")
        positions = np.load(folder / "positions.npy")
        self.groups = {name: np.flatnonzero(positions == name) for name in ("CC", "MLO")}

    def __reduce__(self) -> tuple[type[PhantomPaths], tuple[Path]]:
        return PhantomPaths, (self._folder,)  # another process opens the files itself

    def __getitem__(self, index: int) -> Paths:
        arrays = {name: self._lengths[index, place].astype(np.float32) for place, name in enumerate(_LENGTHS)}
        return Paths(**arrays, labels=np.array(self._labels[index]), volumetric_fraction=float("nan"))

    def draw(self, network: str, rng: np.random.Generator) -> Paths:
        """One view at random, in the mix of positions that suits a network."""
        group = self.groups["MLO" if rng.random() < _MLO_SHARE[network] else "CC"]
        return self[int(rng.choice(group))]


def phantom_paths(
    folder: Path, spec: PhantomSpec, breasts: int, progress: Callable[[int, int], None] | None = None
) -> PhantomPaths:
    """The views of ``breasts`` phantoms, traced and kept in ``folder`` unless they are there already."""
    if not folder.is_dir():
        traced: dict[int, list[_View]] = {}
        for index, views in in_workers(partial(_trace, spec), range(breasts), usable_cores()):
            traced[index] = views  # they come as they are done
            if progress:
                progress(len(traced), breasts)
        every = [view for index in sorted(traced) for view in traced[index]]
        with staged_folder(folder) as staging:
            np.save(staging / "lengths.npy", np.stack([lengths for lengths, _, _ in every]))
            np.save(staging / "labels.npy", np.stack([labels for _, labels, _ in every]))
            np.save(staging / "positions.npy", np.array([position for _, _, position in every]))
    return PhantomPaths(folder)


def _trace(spec: PhantomSpec, index: int) -> list[_View]:
    views = trace_breast(spec, index, "RL"[index % 2])
    return [
        (np.stack([getattr(paths, name) for name in _LENGTHS]).astype(np.float16), paths.labels, position)
        for position, paths in views.items()
    ]


def outline_sample(phantoms: PhantomPaths, rng: np.random.Generator, changes: Disturbance) -> Sample:
    """A whole image, and where background, breast (1) and muscle (2) are; nowhere in an image that is no mammogram."""
    grey, labels = disturb(phantoms.draw("outline", rng), OUTLINE_SIZE, rng, changes)
    if rng.random() < _IMPOSTORS:
        grey, labels = impostor(OUTLINE_SIZE, rng, grey), np.zeros_like(labels)
    classes = np.where(labels == LABELS["pectoral"], 2, labels > 0).astype(np.int64)
    return segmenter_input(grey), classes


def tissue_sample(phantoms: PhantomPaths, rng: np.random.Generator, changes: Disturbance) -> Sample:
    """The breast cut out of an image, about as the segmenter would, and its tissue."""
    while True:
        grey, labels = disturb(phantoms.draw("tissue", rng), _WHOLE, rng, changes)
        rows, columns = np.flatnonzero((labels > 0).any(axis=1)), np.flatnonzero((labels > 0).any(axis=0))
        if len(rows) >= _LEAST_BOX[0] and len(columns) >= _LEAST_BOX[1]:
            break
    grey, labels = _cut_out(grey, labels, rows, columns, rng)
    classes = np.where(labels == IMPLANT, LABELS["background"], labels)  # an implant is no breast tissue
    return tissue_input(grey, _about_the_breast(labels, rng)), classes.astype(np.int64)


def _cut_out(
    grey: NDArray[np.float32],
    labels: Labels,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], Labels]:
    """The box of the breast, a little off, at the size of the network."""

    def off(first: int, last: int, limit: int) -> slice:
        spread = 0.015 * (last + 1 - first)
        start, stop = first + round(rng.normal(0, spread)), last + 1 + round(rng.normal(0, spread))
        return slice(max(start, 0), min(stop, limit))

    box = off(int(rows[0]), int(rows[-1]), grey.shape[0]), off(int(columns[0]), int(columns[-1]), grey.shape[1])
    size = TISSUE_SIZE[::-1]
    picture = Image.fromarray(np.ascontiguousarray(grey[box])).resize(size, Image.Resampling.BILINEAR)
    classes = Image.fromarray(np.ascontiguousarray(labels[box])).resize(size, Image.Resampling.NEAREST)
    return np.asarray(picture), np.asarray(classes)


def _about_the_breast(labels: Labels, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The breast without muscle as the segmenter may find it: too wide, too narrow, at times with the muscle."""
    body = labels > 0
    by = int(rng.integers(-3, 4))
    known = body
    if by:
        change = binary_dilation if by > 0 else partial(binary_erosion, border_value=1)
        known = change(body, iterations=abs(by))
    if rng.random() < 0.85:
        muscle = labels == LABELS["pectoral"]
        known = known & ~(binary_dilation(muscle, iterations=int(rng.integers(1, 6))) if rng.random() < 0.5 else muscle)
    result: NDArray[np.bool_] = known if known.sum() >= _LEAST_PX else body
    return result
