"""Images as tensors: the training set in memory, its random changes, and the shape networks take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
import torch
from torch import Tensor

from mammodensity.anatomy.network_input import PreprocessSpec, preprocess
from mammodensity.data.dataset import ImageRecord
from mammodensity.data.images import read_record
from mammodensity.exam import Exam, Mammogram
from mammodensity.settings import Field, settings
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.workers import Progress

Item = TypeVar("Item")
_Share = Annotated[float, Field(ge=0, lt=1)]


@settings
class AugmentSpec:
    """Random changes of a training image. No flip, which would turn one projection into another."""

    zoom: _Share = 0.2
    """Height and width are scaled, each by its own factor, by up to this share."""
    shift: _Share = 0.2
    """Shift by up to this share of height and width."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Rotation by up to this angle, either way."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Preprocessed images of one projection and split, all in memory (1.7 MB each at 650 x 650)."""

    images: Tensor
    """(B, 1, H, W) float32."""
    categories: Tensor
    """(B,) int64, the least dense is 0."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class LabelledExams:
    """Preprocessed exams of one split, all in memory (6.8 MB each at 650 x 650)."""

    views: Tensor
    """(N, V, 1, H, W) float32, zeros where a view is absent; V as in ``PROJECTIONS``."""
    present: Tensor
    """(N, V) bool, at least one an exam."""
    categories: Tensor
    """(N,) int64, the least dense is 0."""
    breasts: Tensor
    """(N, 2) int64 categories of the right and the left breast where they have one of their own, else -1."""

    def __len__(self) -> int:
        return len(self.views)


def load_exams(
    exams: Sequence[Mapping[Projection, ImageRecord]], spec: PreprocessSpec, progress: Progress | None = None
) -> LabelledExams:
    """Read and preprocess labelled exams, with the views they have.

    Raises
    ------
    ImageError
        An image cannot be read.
    """
    views = torch.zeros(len(exams), len(PROJECTIONS), 1, spec.rows, spec.columns)
    present = torch.zeros(len(exams), len(PROJECTIONS), dtype=torch.bool)
    breasts = torch.full((len(exams), 2), -1)
    cells = [(exam, projection) for exam, records in enumerate(exams) for projection in records]

    def load(cell: tuple[int, Projection]) -> None:
        exam, projection = cell
        record, view = exams[exam][projection], PROJECTIONS.index(projection)
        views[exam, view, 0] = torch.from_numpy(preprocess(read_record(record), spec))
        present[exam, view] = True
        if record.breast_category is not None:
            breasts[exam, "RL".index(projection.laterality)] = record.breast_category.index

    _in_threads(load, cells, progress)
    first = [next(iter(records.values())).category for records in exams]
    categories = [category.index for category in first if category is not None]
    assert len(categories) == len(exams)
    return LabelledExams(views, present, torch.tensor(categories, dtype=torch.int64), breasts)


def load_images(
    records: Sequence[ImageRecord], spec: PreprocessSpec, progress: Progress | None = None
) -> LabelledImages:
    """Read and preprocess labelled records.

    Raises
    ------
    ImageError
        An image cannot be read.
    """
    images = torch.empty(len(records), 1, spec.rows, spec.columns)

    def load(index: int) -> None:
        images[index, 0] = torch.from_numpy(preprocess(read_record(records[index]), spec))

    _in_threads(load, range(len(records)), progress)
    categories = [record.category.index for record in records if record.category is not None]
    assert len(categories) == len(records)
    return LabelledImages(images, torch.tensor(categories, dtype=torch.int64))


def _in_threads(load: Callable[[Item], None], items: Sequence[Item], progress: Progress | None) -> None:
    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(load, items), start=1):
            if progress:
                progress(done, len(items))


def input_batch(mammograms: Sequence[Mammogram], spec: PreprocessSpec, channels: int) -> Tensor:
    """Preprocess mammograms into one batch (B, channels, H, W) float32."""
    images = np.stack([preprocess(mammogram, spec) for mammogram in mammograms])[:, np.newaxis]
    return with_channels(torch.from_numpy(images), channels)


def exam_batch(exam: Exam, spec: PreprocessSpec, channels: int) -> tuple[Tensor, Tensor]:
    """Preprocess an exam into a batch of one: views (1, V, channels, H, W) float32, and which are present (1, V)."""
    views = torch.zeros(1, len(PROJECTIONS), channels, spec.rows, spec.columns)
    present = torch.tensor([[projection in exam.mammograms for projection in PROJECTIONS]])
    for projection, mammogram in exam.mammograms.items():
        views[0, PROJECTIONS.index(projection)] = input_batch([mammogram], spec, channels)[0]
    return views, present


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Repeat grey images (B, 1, H, W) in as many channels as the network takes."""
    return images.expand(-1, channels, -1, -1)


def augment(images: Tensor, spec: AugmentSpec, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Change each image (B, 1, H, W) at random with its own generator, so that batches do not matter.

    Zoom, rotation and shift about the image centre, bilinear; what comes in from outside repeats the nearest edge.
    """
    if spec.zoom == spec.shift == spec.rotation_degrees == 0 or not rngs:
        return images
    rows, columns = images.shape[-2:]
    grids = torch.from_numpy(np.stack([_sampling_matrix(spec, rng, rows / columns) for rng in rngs]))
    grid = torch.nn.functional.affine_grid(grids.float(), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _sampling_matrix(spec: AugmentSpec, rng: np.random.Generator, aspect: float) -> np.ndarray[tuple[int, int]]:
    """The 2 x 3 matrix from output to input coordinates, both -1..1, for one random change."""
    angle = np.deg2rad(rng.uniform(-spec.rotation_degrees, spec.rotation_degrees))
    zoom_x, zoom_y = rng.uniform(1 - spec.zoom, 1 + spec.zoom, 2)
    shift_x, shift_y = rng.uniform(-2 * spec.shift, 2 * spec.shift, 2)  # -1..1 spans two
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array(
        [
            [cos * zoom_x, -sin * zoom_y * aspect, shift_x],
            [sin * zoom_x / aspect, cos * zoom_y, shift_y],
        ]
    )
