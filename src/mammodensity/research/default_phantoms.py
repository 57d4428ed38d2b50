"""Training images of the default networks: phantoms traced once, and disturbed anew for every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from mammodensity.anatomy.field import Box, around, bounding_box, part, without_margins
from mammodensity.anatomy.networks import TISSUE_SIZE, segmenter_input, tissue_input
from mammodensity.anatomy.outline import REDUCED, reduced_grey
from mammodensity.outputs import staged_folder
from mammodensity.phantom.appearance import IMPLANT
from mammodensity.phantom.disturbances import Disturbance, disturb, impostor
from mammodensity.phantom.exams import PhantomSpec, trace_breast
from mammodensity.phantom.projection import LABELS, Labels, Paths
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
_IMPOSTORS = 0.05  # share of the images the segmenter sees
_IN_FRAMES = 0.3  # of the others
_SECOND_LOOKS = 0.5


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
        """Draw a view at random, in the mix of positions that suits a network."""
        group = self.groups["MLO" if rng.random() < _MLO_SHARE[network] else "CC"]
        return self[int(rng.choice(group))]


def phantom_paths(
    folder: Path, spec: PhantomSpec, breasts: int, progress: Callable[[int, int], None] | None = None
) -> PhantomPaths:
    """Trace the views of ``breasts`` phantoms and keep them in ``folder``, unless they are there already."""
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
    """Draw an image as the segmenter gets it, and its classes: background, breast (1) and muscle (2).

    The segmenter looks twice: at the whole image without even margins, and at the field about the breast. An image that
    is no mammogram is all background.
    """
    grey, labels = disturb(phantoms.draw("outline", rng), _WHOLE, rng, changes)
    if rng.random() < _IMPOSTORS:
        grey, labels = impostor(_WHOLE, rng, grey), np.zeros_like(labels)
    elif rng.random() < _IN_FRAMES:
        grey, labels = _in_a_frame(grey, labels, rng)
    field = without_margins(grey)
    breast = part(labels > 0, field)
    if rng.random() < _SECOND_LOOKS and breast.sum() >= _LEAST_PX:
        field = _about(around(breast, field, grey), grey.shape, 0.04, rng)
    labels = _at_size(part(labels, field), REDUCED)
    classes = np.where(labels == LABELS["pectoral"], 2, labels > 0).astype(np.int64)
    return segmenter_input(reduced_grey(part(grey, field), 1)), classes


def _in_a_frame(
    grey: NDArray[np.float32], labels: Labels, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Labels]:
    """Add dark, uneven margins on any side, as of film on more film or on the glass of a scanner."""
    rows, columns = grey.shape
    above, below, behind, before = (
        int(share * length)
        for share, length in zip(
            rng.uniform(0, (0.3, 0.3, 0.6, 0.8)) * (rng.random(4) < 0.5), (rows, rows, columns, columns), strict=True
        )
    )
    ground = float(np.percentile(grey, 2)) if rng.random() < 0.7 else rng.uniform(0, 0.15)
    size = rows + above + below, columns + behind + before
    uneven = rng.normal(0, rng.uniform(0.002, 0.02), size) + rng.normal(0, 0.01) * np.linspace(-1, 1, size[1])
    frame: NDArray[np.float32] = np.clip(ground + uneven, 0, 1).astype(np.float32)
    framed = np.zeros(size, labels.dtype)
    place = above, behind, rows, columns
    part(frame, place)[:], part(framed, place)[:] = grey, labels
    return frame, framed


def _about(box: Box, shape: tuple[int, ...], spread: float, rng: np.random.Generator) -> Box:
    """Move each side of a box by a random share of its size, with the standard deviation ``spread``."""
    spans = []
    for first, length, limit in ((box[0], box[2], shape[0]), (box[1], box[3], shape[1])):
        start = max(0, first + round(rng.normal(0, spread * length)))
        stop = min(limit, first + length + round(rng.normal(0, spread * length)))
        spans.append((start, stop - start))
    (top, height), (left, width) = spans
    return top, left, height, width


def _at_size(labels: Labels, size: tuple[int, int]) -> Labels:
    picture = Image.fromarray(np.ascontiguousarray(labels)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture)


def tissue_sample(phantoms: PhantomPaths, rng: np.random.Generator, changes: Disturbance) -> Sample:
    """Draw the breast cut out of an image, about as the segmenter would, and its tissue."""
    while True:
        grey, labels = disturb(phantoms.draw("tissue", rng), _WHOLE, rng, changes)
        if (labels > 0).any():
            box = bounding_box(labels > 0)
            if box[2] >= _LEAST_BOX[0] and box[3] >= _LEAST_BOX[1]:
                break
    box = _about(box, grey.shape, 0.015, rng)
    size = TISSUE_SIZE[::-1]
    cut = np.asarray(Image.fromarray(np.ascontiguousarray(part(grey, box))).resize(size, Image.Resampling.BILINEAR))
    labels = _at_size(part(labels, box), TISSUE_SIZE)
    classes = np.where(labels == IMPLANT, LABELS["background"], labels)  # an implant is no breast tissue
    return tissue_input(cut, _about_the_breast(labels, rng)), classes.astype(np.int64)


def _about_the_breast(labels: Labels, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the breast without muscle as the segmenter may give it: too wide, too narrow, at times with muscle."""
    body = labels > 0
    by = int(rng.integers(-3, 4))
    area = body
    if by:
        change = binary_dilation if by > 0 else partial(binary_erosion, border_value=1)
        area = change(body, iterations=abs(by))
    if rng.random() < 0.85:
        muscle = labels == LABELS["pectoral"]
        area = area & ~(binary_dilation(muscle, iterations=int(rng.integers(1, 6))) if rng.random() < 0.5 else muscle)
    result: NDArray[np.bool_] = area if area.sum() >= _LEAST_PX else body
    return result
