"""Images of which no reading should be trusted much: too small, too coarse in grey, saturated, or without contrast.

Nothing here refuses an image; what is found goes with the result as flags.
"""

from __future__ import annotations

import numpy as np

from mammodensity.exam import Flag, Mammogram

LOW_QUALITY = "low-quality"

_LEAST_PX = 96  # along the longer side; below, percent density strays, see docs/results.md
_MOST_ASPECT = 5  # tight crops of narrow breasts reach 3
_LEAST_LEVELS = 32  # of the brighter half of the image: 5 bits
_MOST_SATURATED = 0.02  # of the image; muscle and markers alone saturate less
_LEAST_CONTRAST = 0.04  # of full scale, between the 10th and 99th percentile of the brighter part
_SAMPLE = 512  # rows and columns looked at, at most


def quality_flags(mammogram: Mammogram) -> tuple[Flag, ...]:
    """What is wrong with the pixels of a mammogram; empty where nothing is."""
    rows, columns = mammogram.pixels.shape
    found = []
    if max(rows, columns) < _LEAST_PX or max(rows, columns) > _MOST_ASPECT * min(rows, columns):
        found.append(f"the image has only {rows} x {columns} pixels")
    step = max(1, rows // _SAMPLE, columns // _SAMPLE)
    sample = mammogram.pixels[::step, ::step]
    middle = (int(sample.min()) + int(np.percentile(sample, 99))) / 2
    bright = sample[sample > middle / 2]
    levels = len(np.unique(bright))
    if levels < _LEAST_LEVELS and sample.size > 4 * _LEAST_LEVELS:
        found.append(f"the breast has only {levels} grey levels")
    top = int(sample.max())
    saturated = float((sample == top).mean()) if top == mammogram.full_scale else 0.0
    if saturated > _MOST_SATURATED:
        found.append(f"{100 * saturated:.0f} % of the image is saturated")
    low, high = np.percentile(bright, (10, 99)) if bright.size else (0.0, 0.0)
    contrast = float(high - low) / max(top, 1)
    if contrast < _LEAST_CONTRAST:
        found.append(f"the breast spans only {100 * contrast:.1f} % of the grey range in use")
    return tuple(Flag(LOW_QUALITY, text) for text in found)
