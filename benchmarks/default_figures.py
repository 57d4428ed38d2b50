"""Measure the default model: outlines, dense tissue, percent density, categories; print the figures of the docs.

python benchmarks/default_figures.py --phantoms 60                     # breasts of another seed, disturbed
python benchmarks/default_figures.py --data ../shared/data             # every real source there
python benchmarks/default_figures.py --data ../shared/data --frames    # its films with margins of many kinds
python benchmarks/default_figures.py --data ../shared/data --sheet real.jpg   # best, median, worst; keep it to yourself
python benchmarks/default_figures.py --sheet docs/images/tissue_phantoms.jpg  # phantoms, with the truth
python benchmarks/default_figures.py --times

--tissue FILE... measures other tissue networks, as train-default wrote them.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion
from scipy.stats import spearmanr

from mammodensity.anatomy import networks as tissue_network
from mammodensity.anatomy.density import fit_category_map
from mammodensity.anatomy.tissue import TissueMap, find_tissue
from mammodensity.data.find import find_images
from mammodensity.data.images import read_image
from mammodensity.data.picture_files import read_picture
from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.phantom.disturbances import disturb, impostor
from mammodensity.phantom.exams import PhantomSpec, make_exam, trace_breast
from mammodensity.terms import CATEGORIES

Margins = tuple[tuple[int, int], tuple[int, int]]

SEED = 1234  # of no phantom the networks were trained on
SIZE = (288, 200)
CELL = 300
EXPERT = np.zeros(256, np.uint8)
EXPERT[[128, 192, 255]] = 1, 2, 3  # DDSM masks: 64 background, 128 adipose, 192 fibroglandular, 255 pectoral


@dataclass(frozen=True)
class Case:
    """One image, what was found in it, and what is known of it."""

    name: str
    mammogram: Mammogram
    found: TissueMap | None
    truth: NDArray[np.uint8] | None = None
    category: int | None = None

    @property
    def labels(self) -> NDArray[np.uint8]:
        """None at all where the image was refused."""
        return self.found.labels if self.found else np.zeros(self.mammogram.pixels.shape, np.uint8)

    @property
    def true_density(self) -> float:
        """Per cent."""
        assert self.truth is not None
        return 100 * float((self.truth == 2).sum()) / max(1, int(np.isin(self.truth, (1, 2)).sum()))


def case(name: str, mammogram: Mammogram, truth: NDArray[np.uint8] | None = None, category: int | None = None) -> Case:
    """Read one image; a refused one stays without a map."""
    try:
        return Case(name, mammogram, find_tissue(mammogram), truth, category)
    except ImageError as error:
        print(f"refused: {name}: {error}")
        return Case(name, mammogram, None, truth, category)


def dice(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Twice what both hold over the sum of what each holds."""
    return 2 * float((found & true).sum()) / max(1, int(found.sum()) + int(true.sum()))


def against_truth(title: str, cases: Sequence[Case]) -> None:
    """Dice of breast, muscle and dense tissue, and percent density."""
    print(f"{title}: {len(cases)} images")
    kinds = {"breast, muscle included": (1, 2, 3), "pectoral muscle": (3,), "fibroglandular tissue": (2,)}
    for name, values in kinds.items():
        scores = [
            dice(np.isin(one.labels, values), np.isin(one.truth, values))
            for one in cases
            if (np.isin(one.truth, values)).mean() > 0.01
        ]
        print(f"  Dice, {name}: mean {np.mean(scores):.3f}, worst {min(scores):.3f}, n {len(scores)}")
    true = np.array([one.true_density for one in cases if one.found])
    found = np.array([one.found.percent_density for one in cases if one.found])
    print(
        f"  percent density: Spearman {spearmanr(true, found)[0]:.3f}, mean absolute error "
        f"{np.abs(found - true).mean():.1f}, bias {(found - true).mean():+.1f} points"
    )


def phantoms(breasts: int) -> list[Case]:
    """Both views of breasts of a seed no network has seen, disturbed."""
    cases = []
    for index in range(breasts):
        for position, paths in trace_breast(
            PhantomSpec(rows=256, seed=SEED, ducts=True), index, "RL"[index % 2]
        ).items():
            grey, truth = disturb(paths, SIZE, np.random.default_rng([SEED, index, ord(position[0])]))
            mammogram = Mammogram(np.rint(grey * 255).astype(np.uint8))
            cases.append(case(f"{position} {index}", mammogram, truth))
    return cases


def impostors(count: int) -> None:
    """How many images that are no mammograms are refused."""
    rng, refused = np.random.default_rng(SEED), 0
    paths = trace_breast(PhantomSpec(rows=128, seed=SEED), 0, "L")["MLO"]
    for _ in range(count):
        image = impostor(SIZE, rng, disturb(paths, SIZE, rng)[0])
        try:
            find_tissue(Mammogram(np.rint(image * 255).astype(np.uint8)))
        except ImageError:
            refused += 1
    print(f"no mammograms: {refused} of {count} refused")


def films(data: Path) -> Iterator[tuple[str, Mammogram, NDArray[np.uint8]]]:
    """Name, image and experts' mask of the films."""
    for path in sorted((data / "ddsm_tissue" / "images").glob("*.png")):
        mask = np.asarray(Image.open(data / "ddsm_tissue" / "masks" / path.name).convert("L"))
        yield path.stem, read_picture(path), EXPERT[mask]


def square(pixels: NDArray[np.uint8]) -> Margins:
    """Margins to a square, half on either side, as in mini-MIAS."""
    missing = max(0, pixels.shape[0] - pixels.shape[1])
    return (0, 0), (missing // 2, missing - missing // 2)


FRAMES: dict[str, tuple[Callable[[NDArray[np.uint8]], Margins], int | None]] = {
    "as it is": (lambda pixels: ((0, 0), (0, 0)), 0),
    "a square, black": (square, 0),
    "a square, grey": (square, 20),
    "a square of more film": (square, None),
    "all to the left": (lambda pixels: ((0, 0), (pixels.shape[1], 0)), 0),
    "all to the right, white": (lambda pixels: ((0, 0), (0, pixels.shape[1])), 255),
    "all around, white": (lambda pixels: ((60, 60), (60, 60)), 255),
    "all around, more film": (lambda pixels: ((60, 60), (60, 60)), None),
}
"""Margins by name, and their grey value; None is dark film with grain and a slow wave."""


def framed(pixels: NDArray[np.uint8], margins: Margins, value: int | None) -> NDArray[np.uint8]:
    """An image (H, W) with margins around it."""
    image = np.pad(pixels, margins, constant_values=value or 0)
    if value is None:
        rng = np.random.default_rng(SEED)
        wave = 6 * np.sin(np.linspace(0, 6, image.shape[1]))
        film = np.percentile(pixels, 2) + rng.normal(0, 3, image.shape) + wave
        within = np.pad(np.ones(pixels.shape, bool), margins)
        image = np.where(within, image, np.clip(film, 0, 255)).astype(np.uint8)
    return image


def frames(data: Path) -> None:
    """The films again in other frames, which should change nothing."""
    for name, (margins_of, value) in FRAMES.items():
        cases = []
        for stem, mammogram, truth in films(data):
            margins = margins_of(mammogram.pixels)
            cases.append(case(stem, Mammogram(framed(mammogram.pixels, margins, value)), np.pad(truth, margins)))
        against_truth(f"films, {name}", cases)


def real(data: Path) -> list[Case]:
    """Every source in the folder of real mammograms."""
    masks = [case(*film) for film in films(data)]
    against_truth("film, experts' masks (DDSM)", masks)
    against_readers(data / "ddsm_tissue", masks)
    origin = [
        case(
            f"{record.category} {record.projection}",
            read_image(record.path, record.projection),
            category=CATEGORIES.index(record.category),
        )
        for record in find_images(data / "origin" / "test_images").records
        if record.category
    ]
    by_category(origin)
    others = []
    for folder in sorted((data / "exams").iterdir()):
        for record in find_images(folder).records:
            others.append(case(f"{folder.name} {record.projection}", read_image(record.path, record.projection)))
    for path in sorted((data / "dicom").glob("*.dcm")):
        try:
            others.append(case(path.stem, read_image(path)))
        except ImageError as error:
            print(f"refused: {path.name}: {error}")
    for one in others:
        print(f"  {one.name}: " + (f"{one.found.percent_density:.0f} % dense" if one.found else "refused"))
    return [*_best_median_worst(masks), *origin, *others]


def against_readers(folder: Path, cases: Sequence[Case]) -> None:
    """How percent density ranks the categories that other readers gave: ours, and that of the experts' masks."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        given = {Path(row["file"]).stem: row["ddsm_density"] for row in csv.DictReader(stream)}
    known = [one for one in cases if one.found and given.get(one.name)]
    categories = [int(given[one.name]) for one in known]
    ours, masks = (
        spearmanr(percents, categories)[0]
        for percents in ([one.found.percent_density for one in known if one.found], [one.true_density for one in known])
    )
    print(f"  Spearman with DDSM's own category, n {len(known)}: {ours:.3f}; of the experts' masks: {masks:.3f}")


def by_category(cases: Sequence[Case]) -> None:
    """Percent density against the origin's categories, and the categories of a map refitted to the other images."""
    known = [one for one in cases if one.found and one.category is not None]
    percents = [one.found.percent_density for one in known if one.found]
    truth = [one.category for one in known if one.category is not None]
    print(f"origin, 16 images: Spearman with A-D {spearmanr(percents, truth)[0]:.3f}")
    for index, category in enumerate(CATEGORIES):
        print(f"  {category}: " + ", ".join(f"{p:.0f}" for p, t in zip(percents, truth, strict=True) if t == index))
    refitted = []
    for left_out in range(len(known)):
        rest = [place for place in range(len(known)) if place != left_out]
        fitted = fit_category_map([percents[i] for i in rest], [CATEGORIES[truth[i]] for i in rest], "")
        refitted.append(CATEGORIES.index(fitted.category(percents[left_out])))
    wrong = np.abs(np.subtract(refitted, truth))
    print(f"  refitted, each judged by the others: {(wrong == 0).mean():.2f} right, largest error {wrong.max()}")


def _best_median_worst(cases: Sequence[Case], each: int = 5) -> list[Case]:
    order = sorted(cases, key=lambda one: -dice(one.labels == 2, np.equal(one.truth, 2)))
    middle = (len(order) - each) // 2
    return [*order[:each], *order[middle : middle + each], *order[-each:]]


def sheet(path: Path, cases: Sequence[Case], columns: int) -> None:
    """What was found in red (dense) and orange (muscle), and the truth, where it is known, in green."""
    cells = [_drawn(one) for one in cases]
    wide = max(cell.width for cell in cells) + 4
    page = Image.new("RGB", (wide * min(columns, len(cells)), (CELL + 4) * -(-len(cells) // columns)))
    for number, cell in enumerate(cells):
        page.paste(cell, (number % columns * wide, number // columns * (CELL + 4)))
    page.save(path, quality=85)
    print(f"{path}: {len(cells)} images")


def _drawn(one: Case) -> Image.Image:
    rows, columns = one.mammogram.pixels.shape
    size = (max(1, round(columns * CELL / rows)), CELL)
    values = one.mammogram.pixels / max(1, int(one.mammogram.pixels.max()))
    grey = Image.fromarray((values * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    picture = np.asarray(grey.convert("RGB")).copy()
    layers = [] if one.truth is None else [(one.truth == 2, (0, 210, 0))]
    layers += [(one.labels > 0, (0, 130, 255)), (one.labels == 3, (255, 150, 0)), (one.labels == 2, (255, 40, 40))]
    for mask, colour in layers:
        small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127
        picture[small & ~binary_erosion(small)] = colour
    image = Image.fromarray(picture)
    text = one.name if one.truth is None else f"truth {one.true_density:.0f} %"
    said = f"{one.found.percent_density:.0f} %" if one.found else "refused"
    ImageDraw.Draw(image).text((4, 2), f"{text}: {said}", fill=(255, 255, 0))
    return image


def times() -> None:
    """Seconds of one exam of a full detector: four views, on the threads that torch takes."""
    views = make_exam(PhantomSpec(rows=2294, seed=SEED), 1).views
    images = [Mammogram(one.image.astype(np.uint16) * np.uint16(257), name) for name, one in views.items()]
    find_tissue(images[0])
    start, busy = time.perf_counter(), time.process_time()
    for image in images:
        find_tissue(image)
    print(
        f"four views of {images[0].pixels.shape}: {time.perf_counter() - start:.2f} s, "
        f"{time.process_time() - busy:.2f} s of processor time, without reading files"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=int, metavar="BREASTS")
    parser.add_argument("--data", type=Path, help="folder of real mammograms")
    parser.add_argument("--frames", action="store_true", help="of --data, the films in frames of many kinds instead")
    parser.add_argument("--sheet", type=Path, help="picture to write, of the real images or of phantoms")
    parser.add_argument("--tissue", type=Path, nargs="+", metavar="FILE", help="other tissue networks")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--columns", type=int, default=10)
    options = parser.parse_args()
    if options.tissue:
        tissue_network.TISSUE_WEIGHTS = tuple(options.tissue)
    cases = []
    if options.phantoms or (options.sheet and not options.data):
        cases = phantoms(options.phantoms or 10)
        against_truth("disturbed phantoms", cases)
        impostors(200)
    if options.data and options.frames:
        frames(options.data)
    elif options.data:
        cases = real(options.data)
    if options.sheet:
        sheet(options.sheet, cases, options.columns)
    if options.times:
        times()


if __name__ == "__main__":
    main()
