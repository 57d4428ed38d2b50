"""Make the contact sheet of docs/phantoms.md and print its figures.

python benchmarks/phantom_sheet.py --sheet docs/images/phantoms.jpg
python benchmarks/phantom_sheet.py --figures 80
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mammodensity.phantom.exams import PhantomExam, PhantomSpec, make_exam
from mammodensity.terms import CATEGORIES, PROJECTIONS

SHEET_EXAMS = 8
VIEW_SIZE = (500, 400)  # rows, columns of one view on the sheet


def sheet(path: Path, seed: int) -> None:
    """Write one exam of each category, A at the top."""
    with ProcessPoolExecutor(2) as pool:
        exams = list(pool.map(partial(make_exam, PhantomSpec(rows=VIEW_SIZE[0] * 2, seed=seed)), range(4)))
    exams.sort(key=lambda exam: exam.category.value)
    rows = [np.hstack([exam.views[p].image for p in PROJECTIONS]) for exam in exams]
    picture = Image.fromarray(np.vstack(rows))
    picture.resize((4 * VIEW_SIZE[1], 4 * VIEW_SIZE[0]), Image.Resampling.LANCZOS).save(path, quality=86)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB; exams 0 to 3 of seed {seed}")


def measure(exam: PhantomExam) -> dict[str, list[float]]:
    """Densities and mean grey of an exam, by projection."""
    return {
        "area": [exam.views[p].percent_density for p in PROJECTIONS],
        "volume": [exam.views[p].volumetric_density for p in PROJECTIONS],
        "grey": [float(exam.views[p].image[exam.views[p].breast].mean()) for p in PROJECTIONS],
    }


def made_and_measured(spec: PhantomSpec, index: int) -> tuple[str, dict[str, list[float]]]:
    """Category and figures of one exam."""
    exam = make_exam(spec, index)
    return exam.category.value, measure(exam)


def figures(exams: int) -> None:
    """Print density by category, agreement of the projections, and the exponent of the texture's spectrum."""
    with ProcessPoolExecutor(2) as pool:
        table = list(pool.map(partial(made_and_measured, PhantomSpec(rows=128, seed=9)), range(exams)))
        exponents = list(pool.map(partial(exam_exponent, PhantomSpec(rows=512, seed=2)), range(SHEET_EXAMS)))
    for category in CATEGORIES:
        chosen = [values for name, values in table if name == category.value]
        area, volume, grey = (np.array([c[key] for c in chosen]) for key in ("area", "volume", "grey"))
        low, high = np.percentile(area, (10, 90))
        print(
            f"{category.value}: {len(chosen)} exams; volume {volume.mean():.1f} % (SD {volume.std():.1f}); "
            f"area {area.mean():.1f} % (SD {area.std():.1f}, 10th to 90th percentile {low:.0f} to {high:.0f}); "
            f"mean grey {grey.mean():.0f} (SD {grey.mean(axis=1).std():.0f} over exams)"
        )
    for key in ("area", "volume"):
        values = np.array([row[key] for _, row in table])
        print(f"least correlation between projections, {key}: {np.corrcoef(values, rowvar=False).min():.3f}")
    volumes = np.array([row["volume"] for _, row in table])
    sides = np.stack([volumes[:, [0, 2]].mean(axis=1), volumes[:, [1, 3]].mean(axis=1)])
    print(f"correlation of left and right by volume: {np.corrcoef(sides)[0, 1]:.3f}")
    difference = 100 * np.median(np.abs(sides[0] / sides[1] - 1))
    print(f"median relative difference of left and right by volume: {difference:.1f} %")
    print(f"spectrum exponent: mean {np.mean(exponents):.2f}, of {len(exponents)} exams {np.round(exponents, 2)}")


def exam_exponent(spec: PhantomSpec, index: int, window: int = 64) -> float:
    """Mean exponent of the power spectrum, 0.12 to 0.7 cycles per mm, in squares inside the breast."""
    slopes = []
    taper = np.outer(np.hanning(window), np.hanning(window))
    for view in make_exam(spec, index).views.values():
        frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(window, view.spacing_mm)] * 2))
        band = (frequency > 0.12) & (frequency < 0.7)
        for top in range(0, spec.rows - window, window // 2):
            for left in range(0, spec.cols - window, window // 2):
                place = np.s_[top : top + window, left : left + window]
                if view.breast[place].all():
                    patch = view.image[place].astype(float)
                    power = np.abs(np.fft.fft2((patch - patch.mean()) * taper)) ** 2
                    slopes.append(-np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0])
    return float(np.mean(slopes))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="write the contact sheet here")
    parser.add_argument("--seed", type=int, default=3, help="seed of the sheet")
    parser.add_argument("--figures", type=int, metavar="EXAMS", help="measure this many exams")
    options = parser.parse_args()
    if options.sheet:
        sheet(options.sheet, options.seed)
    if options.figures:
        figures(options.figures)


if __name__ == "__main__":
    main()
