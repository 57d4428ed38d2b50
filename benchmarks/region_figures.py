"""Look at breast and muscle as `prepare` finds them, source by source; print the figures of docs/preprocessing.md.

python benchmarks/region_figures.py --data ../shared/data                  # Dice on experts' masks, what is refused
python benchmarks/region_figures.py --data ../shared/data --sheets DIR     # a picture a source; keep those of patients
python benchmarks/region_figures.py --data ../shared/data --outlines FILE  # the same as lines, without a pixel of them
python benchmarks/region_figures.py --sheets docs/images                   # disturbed phantoms, with the truth
python benchmarks/region_figures.py --phantoms 100 --signs                 # what the rules on pixels look at
python benchmarks/region_figures.py --data ../shared/data --views  # how many views of each kind show an MLO's muscle
python benchmarks/region_figures.py --refused FOLDER...                    # of any pictures, how many are refused

The folder of --data: `ddsm_tissue` (images, and masks of 96 and more for breast, 255 for muscle), a folder an exam in
`exams`, `origin/test_images`, `cesm` (images, and labels.csv with laterality and view), `dicom`; those of them that
are there.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import dcmread
from scipy.ndimage import binary_dilation, binary_erosion

from mammodensity.anatomy.outline import find_outline, find_regions, mammogram_signs
from mammodensity.anatomy.plausibility import Signs
from mammodensity.data.csv_rows import read_csv
from mammodensity.data.dicom.header import looks_like_dicom
from mammodensity.data.find import find_images
from mammodensity.data.images import read_image
from mammodensity.data.picture_files import PICTURE_SUFFIXES, projection_in_name
from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.phantom.disturbances import disturb
from mammodensity.phantom.exams import PhantomSpec, trace_breast
from mammodensity.terms import Projection

SEED = 1234  # of no phantom that a segmenter was trained on
SIZE = (288, 200)
CELL = 220
GREEN, RED, ORANGE = (0, 190, 0), (230, 30, 30), (240, 140, 0)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One image, what was found in it, and what is known of it."""

    name: str
    mammogram: Mammogram | None
    """None where the gatekeeper or the reader refuses the file."""
    labels: NDArray[np.uint8] | None
    """None where the image is refused."""
    refused: str = ""
    """The code."""
    truth: NDArray[np.uint8] | None = None
    """0 background, 1 breast, 3 muscle."""

    @property
    def dice(self) -> tuple[float, float | None]:
        """Of breast with muscle, and of muscle where there is one."""
        assert self.truth is not None
        found = np.zeros_like(self.truth) if self.labels is None else self.labels
        muscle = dice(found == 3, self.truth == 3) if (self.truth == 3).any() else None
        return dice(found > 0, self.truth > 0), muscle


def dice(found: Mask, true: Mask) -> float:
    """Twice what both hold over the sum of what each holds."""
    return 2 * float((found & true).sum()) / max(1, int(found.sum()) + int(true.sum()))


def case(name: str, path: Path | None, mammogram: Mammogram | None = None, truth: Mask | None = None) -> Case:
    """Find the regions of one image; a refused one stays without."""
    try:
        mammogram = mammogram or read_image(Path(path or ""))
        return Case(name, mammogram, find_regions(mammogram).labels, truth=truth)
    except ImageError as error:
        print(f"refused: {name} [{error.code}]")
        return Case(name, mammogram, None, error.code, truth)


def sources(data: Path) -> Iterator[tuple[str, list[Case]]]:
    """Every source in the folder of real mammograms, with its name."""
    masks = []
    for path in sorted((data / "ddsm_tissue" / "images").glob("*.png")):
        expert = np.asarray(Image.open(data / "ddsm_tissue" / "masks" / path.name).convert("L"))
        masks.append(case(path.stem, path, truth=np.where(expert == 255, 3, expert > 96).astype(np.uint8)))
    if masks:
        yield "ddsm_tissue", sorted(masks, key=lambda one: -one.dice[0])
    folders = [*sorted((data / "exams").glob("*/")), data / "origin" / "test_images"]
    for folder in filter(Path.is_dir, folders):
        records = sorted(find_images(folder).records, key=lambda one: (one.projection, one.path))
        name = "origin" if folder.name == "test_images" else folder.name
        yield name, [case(one.projection, None, read_image(one.path, one.projection)) for one in records]
    if files := sorted((data / "dicom").glob("*.dcm")):
        yield "dicom", [case(path.stem, path) for path in files]


def phantoms(breasts: int) -> list[Case]:
    """Both views of breasts of a seed no network has seen, disturbed."""
    cases = []
    for index in range(breasts):
        for position, paths in trace_breast(PhantomSpec(rows=256, seed=SEED), index, "RL"[index % 2]).items():
            grey, labels = disturb(paths, SIZE, np.random.default_rng([SEED, index, ord(position[0])]))
            truth = np.where(labels == 2, 1, labels).astype(np.uint8)
            image = Mammogram(np.rint(grey * 255).astype(np.uint8))
            cases.append(case(f"{position} {index}", None, image, truth))
    return cases


def show_dice(name: str, cases: Sequence[Case]) -> None:
    """Mean and worst Dice of a source with masks; how many are refused of one without."""
    known = [one for one in cases if one.truth is not None]
    if not known:
        print(f"{name}: {len(cases)} images, {sum(one.labels is None for one in cases)} refused")
        return
    body = [one.dice[0] for one in known]
    muscle = [value for one in known if (value := one.dice[1]) is not None]
    print(
        f"{name}: {len(known)} images; breast, muscle included: mean {np.mean(body):.3f}, worst {min(body):.3f}; "
        f"muscle: mean {np.mean(muscle):.3f}, worst {min(muscle):.3f} of {len(muscle)}"
    )


def drawn(one: Case, *, pixels: bool) -> Image.Image:
    """One cell: truth in green, breast in red, muscle in orange; without ``pixels`` what was found alone, on white."""
    rows, columns = one.mammogram.pixels.shape if one.mammogram is not None else (CELL, CELL * 3 // 4)
    size = (max(1, round(columns * CELL / rows)), CELL)
    picture = np.full((*size[::-1], 3), 255, np.uint8)
    if pixels and one.mammogram is not None:
        values = one.mammogram.pixels / max(1, int(one.mammogram.pixels.max()))
        grey = Image.fromarray((values * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
        picture = np.asarray(grey.convert("RGB")).copy()
    layers = [(one.truth, 1, GREEN), (one.truth, 3, GREEN)] if pixels else []
    for labels, least, colour in [*layers, (one.labels, 1, RED), (one.labels, 3, ORANGE)]:
        if labels is None:
            continue
        mask = Image.fromarray((labels >= least).astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        inside = np.asarray(mask) > 127
        line = inside & ~binary_erosion(inside)
        picture[line if pixels else binary_dilation(line)] = colour
    picture[[0, -1]] = picture[:, [0, -1]] = 128
    image = Image.fromarray(picture)
    said = (
        f"refused: {one.refused}" if one.labels is None else f"Dice {one.dice[0]:.2f}" if one.truth is not None else ""
    )
    name = "" if one.truth is not None else one.name
    ImageDraw.Draw(image).text((4, 2), f"{name}\n{said}".strip(), fill=(200, 160, 0) if pixels else (0, 0, 0))
    return image


def sheet(path: Path, rows: Sequence[tuple[str, Sequence[Case]]], *, pixels: bool, columns: int = 10) -> None:
    """A picture of sources, each from a new line on, with its name before it."""
    lines = []
    for name, cases in rows:
        for start in range(0, len(cases), columns):
            lines.append(
                (name if not start else "", [drawn(one, pixels=pixels) for one in cases[start : start + columns]])
            )
    left = 0 if len(rows) == 1 else 100
    wide = left + max(sum(cell.width + 4 for cell in cells) for _, cells in lines)
    page = Image.new("RGB", (wide, (CELL + 4) * len(lines)), (255, 255, 255))
    for number, (name, cells) in enumerate(lines):
        place = left
        if left:
            ImageDraw.Draw(page).text((4, number * (CELL + 4) + 4), name, fill=(0, 0, 0))
        for cell in cells:
            page.paste(cell, (place, number * (CELL + 4)))
            place += cell.width + 4
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=85)
    print(f"{path}: {sum(len(cells) for _, cells in lines)} images")


def best_middle_worst(cases: Sequence[Case], each: int = 3) -> list[Case]:
    """Of many images with masks three at each place of the order; of others all, or every other one."""
    if len(cases) <= 3 * each:
        return list(cases)
    if cases[0].truth is None:
        return list(cases[::2])
    middle = (len(cases) - each) // 2
    return [*cases[:each], *cases[middle : middle + each], *cases[-each:]]


def show_signs(name: str, cases: Sequence[Case]) -> None:
    """Smallest and largest of each sign, of the images in which an outline was found."""
    found: list[Signs] = []
    for one in cases:
        if one.labels is not None and one.mammogram is not None:
            found.append(mammogram_signs(one.mammogram))
    print(f"signs of {len(found)} images, {name}")
    for field in fields(Signs):
        values = [value for signs in found if (value := getattr(signs, field.name)) is not None]
        print(f"  {field.name}: {min(values):.2f} to {max(values):.2f}")


def stated_views(data: Path) -> Iterator[tuple[str, Projection, Mammogram]]:
    """Pictures whose name or table states the view, with their source."""
    table = data / "cesm" / "labels.csv"
    listed = {row["file"]: f"{row['view']}_{row['laterality']}" for row in read_csv(table)} if table.is_file() else {}
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() in PICTURE_SUFFIXES and path.parent.name != "masks":
            projection = Projection(listed[path.name]) if path.name in listed else projection_in_name(path.stem)
            if projection is not None:
                yield path.relative_to(data).parts[0], projection, read_image(path, projection)


def phantom_views(breasts: int) -> Iterator[tuple[str, Projection, Mammogram]]:
    """Disturbed phantoms of both views, with their source."""
    for index in range(breasts):
        for position, paths in trace_breast(PhantomSpec(rows=256, seed=SEED), index, "RL"[index % 2]).items():
            grey, _ = disturb(paths, SIZE, np.random.default_rng([SEED, index, ord(position[0])]))
            yield "phantoms", Projection(f"{position}_L"), Mammogram(np.rint(grey * 255).astype(np.uint8))


def show_views(images: Iterable[tuple[str, Projection, Mammogram]]) -> None:
    """In how many CC and MLO views of each source there is no wedge of muscle, perhaps one, surely one."""
    wedges: dict[tuple[str, str], list[float]] = defaultdict(list)
    for source, projection, mammogram in images:
        with suppress(ImageError):  # the view is left out, so that no image is refused for it
            outline = find_outline(replace(mammogram, projection=None))
            wedges[source, projection.view_position].append(outline.wedge)
    for (source, view), found in sorted(wedges.items()):
        sure, some = sum(wedge == 1 for wedge in found), sum(wedge > 0 for wedge in found)
        print(f"{source} {view}: {len(found)} views; a wedge surely in {sure}, perhaps in {some - sure}")


def show_refused(folder: Path) -> None:
    """How many images under a folder are refused by their pixels, by code; in grey, so that not the colour decides."""
    codes: list[str] = []
    for path in sorted(folder.rglob("*")):
        try:
            pixels = grey_pixels(path)
        except Exception:  # whatever a stranger's file makes the readers raise: it is none of the images counted
            continue
        if pixels is not None:
            try:
                find_regions(Mammogram(pixels))
                codes.append("accepted")
            except ImageError as error:
                codes.append(error.code)
    counts = ", ".join(f"{code} {codes.count(code)}" for code in sorted(set(codes)))
    print(f"{folder}: {len(codes) - codes.count('accepted')} of {len(codes)} refused ({counts})")


def grey_pixels(path: Path) -> NDArray[np.uint8] | None:
    """A picture, or a DICOM file of one grey frame whatever its modality, in 8 bit; None for other files."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    if not looks_like_dicom(path):
        return None
    values = dcmread(path).pixel_array.astype(float)
    if values.ndim != 2:
        return None
    return np.rint((values - values.min()) / max(1.0, float(np.ptp(values))) * 255).astype(np.uint8)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real mammograms; without it disturbed phantoms")
    parser.add_argument("--phantoms", type=int, default=10, metavar="BREASTS")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="a picture a source")
    parser.add_argument("--outlines", type=Path, metavar="FILE", help="one picture of lines, no pixels")
    parser.add_argument("--signs", action="store_true")
    parser.add_argument("--views", action="store_true")
    parser.add_argument("--refused", type=Path, nargs="+", metavar="FOLDER")
    options = parser.parse_args()
    for folder in options.refused or ():
        show_refused(folder)
    if options.views:
        show_views(stated_views(options.data) if options.data else phantom_views(options.phantoms))
    if options.refused or options.views:
        return
    found = list(sources(options.data)) if options.data else [("phantoms", phantoms(options.phantoms))]
    for name, cases in found:
        show_dice(name, cases)
        if options.sheets:
            sheet(options.sheets / f"regions_{name}.jpg", [(name, cases)], pixels=True)
    if options.signs:
        show_signs("all", [one for _, cases in found for one in cases])
    if options.outlines:
        sheet(options.outlines, [(name, best_middle_worst(cases)) for name, cases in found], pixels=False)


if __name__ == "__main__":
    main()
