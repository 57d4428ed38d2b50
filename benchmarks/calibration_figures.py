"""Calibration and coverage on simulated exams, whose readers are known: the table of docs/measurements.md.

Four views see a hidden density with noise and give its exact posterior; a human reader sees it with other noise. The
mean of the views is then under-confident, as that of the INFN reference.

    python benchmarks/calibration_figures.py [--exams 5000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy.stats import norm

from mammodensity.results.cross_validation import cross_validate
from mammodensity.scores import fuse

CUTS = np.array([-1.28, 0.0, 1.28])  # 10, 40, 40 and 10 per cent of women
VIEW_NOISE, READER_NOISE = 0.6, 0.35


def simulate(exams: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores (N, 4) of four views, and the reader's categories (N,)."""
    rng = np.random.default_rng(seed)
    density = rng.normal(size=exams)
    reference = np.searchsorted(CUTS, density + READER_NOISE * rng.normal(size=exams))
    views = []
    for _ in range(4):
        noisy = density + VIEW_NOISE * rng.normal(size=exams)
        mean = noisy / (1 + VIEW_NOISE**2)
        spread = math.hypot(VIEW_NOISE / math.hypot(1, VIEW_NOISE), READER_NOISE)
        below = norm.cdf((CUTS - mean[:, None]) / spread)
        views.append(np.diff(np.c_[np.zeros(exams), below, np.ones(exams)], axis=1))
    return fuse(np.stack(views, axis=1)), reference


def main() -> None:
    """Print one row a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print("| seed | error before | after | null band | coverage 80 | 90 | 95 | mean set size at 90 |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        figures = cross_validate(*simulate(arguments.exams, seed), repeats=arguments.repeats)
        band = f"{figures.ece_null_low:.3f}-{figures.ece_null_high:.3f}"
        covered = " | ".join(f"{100 * figures.coverage[key]:.1f} %" for key in ("0.8", "0.9", "0.95"))
        errors = f"{figures.ece_before:.3f} | {figures.ece_after:.3f}"
        print(f"| {seed} | {errors} | {band} | {covered} | {figures.mean_set_size:.2f} |", flush=True)


if __name__ == "__main__":
    main()
