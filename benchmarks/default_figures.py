"""Measure the default model and its outlines, and draw them; prints figures of the docs.

python benchmarks/default_figures.py --phantoms 60                  # breasts of another seed, disturbed
python benchmarks/default_figures.py --data DATA                    # every real source there
python benchmarks/default_figures.py --data DATA --frames           # its films with margins of many kinds
python benchmarks/default_figures.py --data DATA --sheet real.jpg   # best, middle, worst of films, and the others
python benchmarks/default_figures.py --sheet docs/images/tissue_phantoms.jpg             # phantoms, with the truth
python benchmarks/default_figures.py --regions --sheet docs/images/regions_phantoms.jpg  # outlines alone
python benchmarks/default_figures.py --regions --data DATA --lines --sheet lines.png     # without a pixel of patients
python benchmarks/default_figures.py --phantoms 100 --signs         # the measures behind the rules on pixels
python benchmarks/default_figures.py --data DATA --views            # how many views of each kind show an MLO's muscle
python benchmarks/default_figures.py --refused FOLDER...            # how many pictures of any kind are refused
python benchmarks/default_figures.py --times

DATA has `ddsm_tissue` (images, and masks of 64 background, 128 adipose, 192 fibroglandular, 255 muscle), `exams` with
a folder for each exam, `origin/test_images`, `cesm` (images, and labels.csv with laterality and view) and `dicom`, or
some of them. --tissue FILE... measures other networks.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import dcmread
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.stats import spearmanr

from mammodensity.anatomy import networks
from mammodensity.anatomy.density import fit_category_map
from mammodensity.anatomy.outline import find_outline, find_regions, mammogram_signs
from mammodensity.anatomy.plausibility import Signs
from mammodensity.anatomy.tissue import find_tissue
from mammodensity.data.csv_rows import read_csv
from mammodensity.data.dicom.header_parsing import looks_like_dicom
from mammodensity.data.find import find_images
from mammodensity.data.images import read_image
from mammodensity.data.picture_files import PICTURE_SUFFIXES, projection_in_name
from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.phantom.disturbances import disturb, impostor
from mammodensity.phantom.exams import PhantomSpec, make_exam, trace_breast
from mammodensity.terms import CATEGORIES, Projection

Margins = tuple[tuple[int, int], tuple[int, int]]

SEED = 1234  # no network was trained on its phantoms
SIZE = (288, 200)
CELL, GAP = 300, 4
GREEN, BLUE, RED, ORANGE = (0, 200, 0), (0, 130, 255), (255, 40, 40), (255, 150, 0)
EXPERT = np.zeros(256, np.uint8)
EXPERT[[128, 192, 255]] = 1, 2, 3


@dataclass(frozen=True)
class Case:
    """An image, the labels found in it, and the truth where it is known.

    Labels (H, W) are 0 background, 1 adipose, 2 fibroglandular, 3 muscle; without tissue, 1 is all of the breast.
    """

    name: str
    mammogram: Mammogram
    labels: NDArray[np.uint8] | None
    """None where the image is refused."""
    percent_density: float | None = None
    truth: NDArray[np.uint8] | None = None
    category: int | None = None

    def dice(self, *values: int) -> float:
        """Dice coefficient of the pixels with these labels; 0 where the image is refused."""
        assert self.truth is not None
        if self.labels is None:
            return 0.0
        labelled, true = np.isin(self.labels, values), np.isin(self.truth, values)
        return 2 * float((labelled & true).sum()) / max(1, int(labelled.sum()) + int(true.sum()))

    @property
    def true_density(self) -> float:
        """Per cent."""
        assert self.truth is not None
        return 100 * float((self.truth == 2).sum()) / max(1, int(np.isin(self.truth, (1, 2)).sum()))


@dataclass(frozen=True)
class Reader:
    """Reads images by the default model, or only outlines breast and muscle."""

    regions: bool

    def case(
        self, name: str, mammogram: Mammogram, truth: NDArray[np.uint8] | None = None, category: int | None = None
    ) -> Case:
        """Read one image; a refused one has no labels."""
        if self.regions and truth is not None:
            truth = np.where(truth == 2, 1, truth).astype(np.uint8)
        try:
            if self.regions:
                return Case(name, mammogram, find_regions(mammogram).labels, None, truth, category)
            tissue = find_tissue(mammogram)
            return Case(name, mammogram, tissue.labels, tissue.percent_density, truth, category)
        except ImageError as error:
            print(f"refused: {name} [{error.code}]")
            return Case(name, mammogram, None, None, truth, category)

    def phantoms(self, breasts: int) -> list[Case]:
        """Both views of breasts of a seed that no network has seen, disturbed."""
        images = disturbed_phantoms(breasts, ducts=not self.regions)
        return [self.case(f"{position} {index}", mammogram, truth) for index, position, mammogram, truth in images]

    def sources(self, data: Path) -> Iterator[tuple[str, list[Case]]]:
        """Every source in the folder of real mammograms, with its name; films are sorted, the best first."""
        masked = [self.case(*film) for film in films(data)]
        if masked:
            yield "ddsm_tissue", sorted(masked, key=lambda case: -case.dice(*((1, 2, 3) if self.regions else (2,))))
        for folder in filter(Path.is_dir, [*sorted((data / "exams").glob("*/")), data / "origin" / "test_images"]):
            cases = []
            for record in sorted(find_images(folder).records, key=lambda record: (record.projection, record.path)):
                category = record.category.index if record.category else None
                name = f"{record.category or ''} {record.projection}".strip()
                cases.append(self.case(name, read_image(record.path, record.projection), category=category))
            yield "origin" if folder.name == "test_images" else folder.name, cases
        cases = []
        for path in sorted((data / "dicom").glob("*.dcm")):
            try:
                cases.append(self.case(path.stem, read_image(path)))
            except ImageError as error:
                print(f"refused: {path.stem} [{error.code}]")
        if cases:
            yield "dicom", cases

    def framed_films(self, data: Path) -> Iterator[tuple[str, list[Case]]]:
        """The films again in other frames, which should change nothing."""
        for name, (margins_of, value) in FRAMES.items():
            cases = []
            for stem, mammogram, truth in films(data):
                margins = margins_of(mammogram.pixels)
                image = Mammogram(framed(mammogram.pixels, margins, value))
                cases.append(self.case(stem, image, np.pad(truth, margins)))
            yield f"films, {name}", cases


def disturbed_phantoms(breasts: int, *, ducts: bool) -> Iterator[tuple[int, str, Mammogram, NDArray[np.uint8]]]:
    """Number, view position, image and truth of disturbed phantoms."""
    for index in range(breasts):
        for position, paths in trace_breast(
            PhantomSpec(rows=256, seed=SEED, ducts=ducts), index, "RL"[index % 2]
        ).items():
            grey, truth = disturb(paths, SIZE, np.random.default_rng([SEED, index, ord(position[0])]))
            yield index, position, Mammogram(np.rint(grey * 255).astype(np.uint8)), truth


def phantom_views(breasts: int) -> Iterator[tuple[str, str, Mammogram]]:
    """Source, view position and image of disturbed phantoms."""
    for _, position, mammogram, _ in disturbed_phantoms(breasts, ducts=False):
        yield "phantoms", position, mammogram


def stated_views(data: Path) -> Iterator[tuple[str, str, Mammogram]]:
    """Source, view position and image of pictures whose name or table states the view."""
    table = data / "cesm" / "labels.csv"
    listed = {row["file"]: f"{row['view']}_{row['laterality']}" for row in read_csv(table)} if table.is_file() else {}
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() in PICTURE_SUFFIXES and path.parent.name != "masks":
            projection = Projection(listed[path.name]) if path.name in listed else projection_in_name(path.stem)
            if projection is not None:
                yield path.relative_to(data).parts[0], projection.view_position, read_image(path, projection)


def films(data: Path) -> Iterator[tuple[str, Mammogram, NDArray[np.uint8]]]:
    """Name, image and experts' mask of the films."""
    for path in sorted((data / "ddsm_tissue" / "images").glob("*.png")):
        mask = np.asarray(Image.open(data / "ddsm_tissue" / "masks" / path.name).convert("L"))
        yield path.stem, read_image(path), EXPERT[mask]


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


# Figures


def show_source(name: str, cases: Sequence[Case]) -> None:
    """Print Dice coefficients and percent density against the truth, or what is known of a source without masks."""
    read = [case for case in cases if case.percent_density is not None]
    print(f"{name}: {len(cases)} images, {sum(case.labels is None for case in cases)} refused")
    masked = [case for case in cases if case.truth is not None]
    kinds = {"breast, muscle included": (1, 2, 3), "pectoral muscle": (3,), "fibroglandular tissue": (2,)}
    for kind, values in kinds.items():
        scores = [case.dice(*values) for case in masked if np.isin(case.truth, values).mean() > 0.01]
        if scores:
            print(f"  Dice, {kind}: mean {np.mean(scores):.3f}, worst {min(scores):.3f}, n {len(scores)}")
    if masked and read:
        true, percents = (np.array(p) for p in zip(*((c.true_density, c.percent_density) for c in read), strict=True))
        print(
            f"  percent density: Spearman {spearmanr(true, percents)[0]:.3f}, mean absolute error "
            f"{np.abs(percents - true).mean():.1f}, bias {(percents - true).mean():+.1f} points"
        )
    if any(case.category is not None for case in read):
        show_categories([case for case in read if case.category is not None])
    elif not masked:
        for case in read:
            print(f"  {case.name}: {case.percent_density:.0f} % dense")


def show_readers(folder: Path, cases: Sequence[Case]) -> None:
    """Print how percent density ranks the categories of DDSM's readers: the model's, and that of the experts' masks."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        readers = {Path(row["file"]).stem: row["ddsm_density"] for row in csv.DictReader(stream)}
    labelled = [case for case in cases if case.percent_density is not None and readers.get(case.name)]
    categories = [int(readers[case.name]) for case in labelled]
    model = spearmanr([case.percent_density for case in labelled], categories)[0]
    masks = spearmanr([case.true_density for case in labelled], categories)[0]
    print(f"  Spearman with DDSM's own category, n {len(labelled)}: {model:.3f}; of the experts' masks: {masks:.3f}")


def show_categories(cases: Sequence[Case]) -> None:
    """Print percent density by category, and the categories of a map refitted to the other images."""
    percents, truth = [case.percent_density or 0.0 for case in cases], [case.category or 0 for case in cases]
    print(f"  Spearman with A-D {spearmanr(percents, truth)[0]:.3f}")
    for index, category in enumerate(CATEGORIES):
        print(f"  {category}: " + ", ".join(f"{p:.0f}" for p, t in zip(percents, truth, strict=True) if t == index))
    refitted = []
    for left_out in range(len(cases)):
        rest = [place for place in range(len(cases)) if place != left_out]
        fitted = fit_category_map([percents[i] for i in rest], [CATEGORIES[truth[i]] for i in rest], "")
        refitted.append(CATEGORIES.index(fitted.category(percents[left_out])))
    wrong = np.abs(np.subtract(refitted, truth))
    print(f"  refitted, each judged by the others: {(wrong == 0).mean():.2f} right, largest error {wrong.max()}")


def show_signs(cases: Sequence[Case]) -> None:
    """Print the smallest and largest of each sign, of the images that are accepted."""
    signs = [mammogram_signs(case.mammogram) for case in cases if case.labels is not None]
    print(f"signs of {len(signs)} images")
    for field in fields(Signs):
        values = [value for sign in signs if (value := getattr(sign, field.name)) is not None]
        print(f"  {field.name}: {min(values):.2f} to {max(values):.2f}")


def show_views(images: Iterable[tuple[str, str, Mammogram]]) -> None:
    """Print in how many CC and MLO views of each source there is surely a wedge of muscle, and in how many perhaps."""
    wedges: dict[tuple[str, str], list[float]] = defaultdict(list)
    for source, position, mammogram in images:
        with suppress(ImageError):  # the view is left out, so that no image is refused for it
            wedges[source, position].append(find_outline(replace(mammogram, projection=None)).wedge)
    for (source, position), values in sorted(wedges.items()):
        sure, some = sum(wedge == 1 for wedge in values), sum(wedge > 0 for wedge in values)
        print(f"{source} {position}: {len(values)} views; a wedge surely in {sure}, perhaps in {some - sure}")


def show_impostors(count: int) -> None:
    """Print how many images that are no mammograms are refused."""
    rng, refused = np.random.default_rng(SEED), 0
    paths = trace_breast(PhantomSpec(rows=128, seed=SEED), 0, "L")["MLO"]
    for _ in range(count):
        image = impostor(SIZE, rng, disturb(paths, SIZE, rng)[0])
        try:
            find_regions(Mammogram(np.rint(image * 255).astype(np.uint8)))
        except ImageError:
            refused += 1
    print(f"no mammograms: {refused} of {count} refused")


def show_refused(folder: Path) -> None:
    """Print how many images under a folder are refused by their pixels, by code."""
    codes: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")):
        try:
            pixels = grey_pixels(path)
        except Exception:  # whatever a stranger's file makes the readers raise: it is none of the images counted
            continue
        if pixels is not None:
            try:
                find_regions(Mammogram(pixels))
                codes["accepted"] += 1
            except ImageError as error:
                codes[error.code] += 1
    counts = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
    print(f"{folder}: {codes.total() - codes['accepted']} of {codes.total()} refused ({counts})")


def grey_pixels(path: Path) -> NDArray[np.uint8] | None:
    """A picture, or a DICOM file of one grey frame whatever its modality, grey in 8 bit; None for other files."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))  # so that the colour does not decide
    if not looks_like_dicom(path):
        return None
    values = dcmread(path).pixel_array.astype(float)
    if values.ndim != 2:
        return None
    return np.rint((values - values.min()) / max(1.0, float(np.ptp(values))) * 255).astype(np.uint8)


def show_times() -> None:
    """Print the seconds of one exam of a full detector: four views, on the threads that torch takes."""
    views = make_exam(PhantomSpec(rows=2294, seed=SEED), 1).views
    images = [Mammogram(view.image.astype(np.uint16) * np.uint16(257), name) for name, view in views.items()]
    find_tissue(images[0])
    start, busy = time.perf_counter(), time.process_time()
    for image in images:
        find_tissue(image)
    print(
        f"four views of {images[0].pixels.shape}: {time.perf_counter() - start:.2f} s, "
        f"{time.process_time() - busy:.2f} s of processor time, without reading files"
    )


# Pictures


def best_middle_worst(cases: Sequence[Case], each: int = 5) -> list[Case]:
    """Some films of each place in the order; of other sources all."""
    if len(cases) <= 3 * each or cases[0].truth is None:
        return list(cases)
    middle = (len(cases) - each) // 2
    return [*cases[:each], *cases[middle : middle + each], *cases[-each:]]


def draw_sheet(path: Path, sources: Sequence[tuple[str, Sequence[Case]]], *, lines: bool, columns: int) -> None:
    """Write a picture of sources, each from a new line on, with its name before it where there are several."""
    rows = []
    for name, cases in sources:
        for start in range(0, len(cases), columns):
            cells = [drawn(case, lines=lines) for case in cases[start : start + columns]]
            rows.append(("" if start else name, cells))
    left = 0 if len(sources) == 1 else 100
    width = left + max(sum(cell.width + GAP for cell in cells) for _, cells in rows)
    page = Image.new("RGB", (width, (CELL + GAP) * len(rows)), (255, 255, 255))
    for number, (name, cells) in enumerate(rows):
        top, place = number * (CELL + GAP), left
        if left:
            ImageDraw.Draw(page).text((4, top + 4), name, fill=(0, 0, 0))
        for cell in cells:
            page.paste(cell, (place, top))
            place += cell.width + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=85)
    print(f"{path}: {sum(len(cells) for _, cells in rows)} images")


def drawn(case: Case, *, lines: bool) -> Image.Image:
    """One cell: truth in green, muscle in orange, dense tissue in red, breast in blue (in red without dense tissue).

    With ``lines`` only the labels found, on white.
    """
    rows, columns = case.mammogram.pixels.shape
    size = (max(1, round(columns * CELL / rows)), CELL)
    picture = np.full((*size[::-1], 3), 255, np.uint8)
    if not lines:
        values = case.mammogram.pixels / max(1, int(case.mammogram.pixels.max()))
        grey = Image.fromarray((values * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
        picture = np.asarray(grey.convert("RGB")).copy()
    tissue = case.percent_density is not None
    layers = []
    if case.truth is not None and not lines:
        layers = [(case.truth == 2, GREEN)] if tissue else [(case.truth > 0, GREEN), (case.truth == 3, GREEN)]
    if case.labels is not None:
        layers += [(case.labels > 0, BLUE if tissue else RED), (case.labels == 3, ORANGE), (case.labels == 2, RED)]
    for mask, colour in layers:
        small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127
        edge = small & ~binary_erosion(small)
        picture[binary_dilation(edge) if lines else edge] = colour
    image = Image.fromarray(picture)
    name = case.name if case.truth is None else f"truth {case.true_density:.0f} %" if tissue else ""
    result = f"{case.percent_density:.0f} %" if tissue else "refused" if case.labels is None else ""
    ImageDraw.Draw(image).text((4, 2), f"{name} {result}".strip(), fill=(0, 0, 0) if lines else (255, 255, 0))
    return image


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=int, metavar="BREASTS")
    parser.add_argument("--data", type=Path, help="folder of real mammograms")
    parser.add_argument("--frames", action="store_true", help="of --data, the films in frames of many kinds instead")
    parser.add_argument("--regions", action="store_true", help="outlines of breast and muscle alone")
    parser.add_argument("--sheet", type=Path, help="picture to write, of the real images or of phantoms")
    parser.add_argument("--lines", action="store_true", help="draw outlines without the images")
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--signs", action="store_true", help="the measures behind the rules on pixels")
    parser.add_argument("--views", action="store_true", help="wedges of muscle in CC and MLO views")
    parser.add_argument("--refused", type=Path, nargs="+", metavar="FOLDER", default=[])
    parser.add_argument("--tissue", type=Path, nargs="+", metavar="FILE", help="other tissue networks")
    parser.add_argument("--times", action="store_true")
    options = parser.parse_args()
    for folder in options.refused:
        show_refused(folder)
    if options.times:
        show_times()
    if options.tissue:
        networks.TISSUE_WEIGHTS = tuple(options.tissue)
    if options.views:
        show_views(stated_views(options.data) if options.data else phantom_views(options.phantoms or 10))
        return
    reader = Reader(options.regions)
    sources: list[tuple[str, list[Case]]] = []
    if options.data:
        sources = list((reader.framed_films if options.frames else reader.sources)(options.data))
    elif options.phantoms or options.sheet or options.signs:
        sources = [("disturbed phantoms", reader.phantoms(options.phantoms or 10))]
        show_impostors(200)
    for name, cases in sources:
        show_source(name, cases)
        if name == "ddsm_tissue" and not options.regions:
            show_readers(options.data / name, cases)
    if options.signs:
        show_signs([case for _, cases in sources for case in cases])
    if options.sheet:
        shown = [(name, best_middle_worst(cases)) for name, cases in sources]
        draw_sheet(options.sheet, shown, lines=options.lines, columns=options.columns)


if __name__ == "__main__":
    main()
