"""Images the benchmark does not make itself: real ones with masks, and any of them as a model's network takes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.errors import LayoutError
from mammodensity.explanation.scoring.benchmark_networks import Case, resized
from mammodensity.explanation.scoring.probe import Probe
from mammodensity.ingest.images import read_image
from mammodensity.ingest.names import projection_in_name
from mammodensity.networks import Checkpoint
from mammodensity.preprocess.network_input import fitted_box

_MASK_VALUES = {64: 0, 128: 1, 192: 2, 255: 3}  # masks as published for scans of film, to labels


def probe_of(checkpoint: Checkpoint) -> Probe:
    """Ready to be asked about images as `prepared` gives them."""
    network = checkpoint.network
    return Probe(network, 0, centring=checkpoint.preprocess.centring, channels=network.spec.channels)


def prepared(cases: Sequence[Case], checkpoint: Checkpoint) -> list[Case]:
    """Cases at the size that a network takes; where it wants the muscle or the background changed, they are left."""
    spec = checkpoint.preprocess
    ready = []
    for case in cases:
        top, left, rows, columns = fitted_box(case.image.shape, spec)
        small = resized(case, (rows, columns))
        image = np.zeros((spec.rows, spec.columns), np.float32)
        labels = np.zeros((spec.rows, spec.columns), np.uint8)
        image[top : top + rows, left : left + columns] = small.image
        labels[top : top + rows, left : left + columns] = small.labels
        ready.append(Case(case.name, image, labels, case.category))
    return ready


def read_masked(folder: Path) -> list[Case]:
    """Images of ``folder/images`` with the masks of the same names in ``folder/masks``; their categories are unknown.

    Masks hold 0 or 64 background, 1 or 128 adipose, 2 or 192 fibroglandular, 3 or 255 muscle.

    Raises
    ------
    LayoutError
        There are none, a mask is missing, damaged or of another size, or holds other values or no breast.
    """
    files = sorted((folder / "images").glob("*.png"))
    if not files:
        raise LayoutError(f"{folder} holds no images/*.png; expected images and masks of the same names")
    cases = []
    for file in files:
        mask = folder / "masks" / file.name
        if not mask.is_file():
            raise LayoutError(f"{mask} is missing; expected a mask for each image")
        mammogram = read_image(file, projection_in_name(file.stem))
        values = _read_mask(mask)
        if values.shape != mammogram.pixels.shape:
            raise LayoutError(f"{mask} is of shape {values.shape}, its image of {mammogram.pixels.shape}")
        labels = np.zeros(values.shape, np.uint8)
        for value, label in _MASK_VALUES.items():
            labels[(values == value) | (values == label)] = label
        if not np.isin(values, (*_MASK_VALUES, 0, 1, 2, 3)).all() or not np.isin(labels, (1, 2)).any():
            raise LayoutError(f"{mask}: expected 64, 128, 192, 255 or 0 to 3, and some breast")
        image = mammogram.pixels.astype(np.float32) / np.float32(mammogram.full_scale)
        cases.append(Case(file.stem, image, labels, -1))
    return cases


def _read_mask(file: Path) -> NDArray[Any]:
    try:
        with Image.open(file) as picture:
            return np.asarray(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise LayoutError(f"{file} is no readable picture: {error}; expected a mask as a PNG file") from error
