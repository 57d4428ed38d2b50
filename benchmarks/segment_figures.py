"""Measure how well breast and pectoral muscle are found; print the figures of docs/preprocessing.md.

python benchmarks/segment_figures.py --masks ../shared/data/ddsm_tissue
python benchmarks/segment_figures.py --phantoms 40
python benchmarks/segment_figures.py --times
python benchmarks/segment_figures.py --sheet docs/images/regions.jpg [--images FOLDER ...]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from mammodensity.errors import ImageError
from mammodensity.exam import Mammogram
from mammodensity.ingest import read_picture
from mammodensity.phantom import PhantomSpec, make_exam
from mammodensity.phantom.disturbance import disturb
from mammodensity.preprocess import RAW_PREPROCESS, find_regions, preprocess

Mask = NDArray[np.bool_]
SEED = 1234  # of no phantom the segmenter was trained on
CELL = 240


def dice(found: Mask, true: Mask) -> float:
    """Twice what both hold over the sum of what each holds."""
    return 2 * float((found & true).sum()) / max(1, int(found.sum()) + int(true.sum()))


def show(name: str, values: list[float]) -> None:
    """One line: mean, worst, percentile."""
    print(f"{name}: mean {np.mean(values):.3f}, worst {min(values):.3f}, 10th percentile "
          f"{np.percentile(values, 10):.3f}, n {len(values)}")  # fmt: skip


def labels_of(mammogram: Mammogram) -> NDArray[np.uint8]:
    """Labels, or none where the image is refused."""
    try:
        return find_regions(mammogram).labels
    except ImageError:
        return np.zeros(mammogram.pixels.shape, np.uint8)


def masks(folder: Path, shades: int) -> None:
    """Against experts' masks: 64 background, 128 adipose, 192 fibroglandular, 255 pectoral; also in changed tones."""
    pairs = [(read_picture(path), np.asarray(Image.open(folder / "masks" / path.name).convert("L")))
             for path in sorted((folder / "images").glob("*.png"))]  # fmt: skip
    rng = np.random.default_rng(SEED)
    for name in ["as they are"] + ["in other tones"] * (shades > 0):
        breast, muscle = [], []
        for mammogram, true in pairs:
            pixels = mammogram.pixels
            if name != "as they are":
                pixels = np.rint(255 * (pixels / 255.0) ** rng.uniform(0.6, 1.6)).astype(np.uint8)
            found = labels_of(Mammogram(pixels))
            breast.append(dice(found > 0, true > 96))
            muscle.append(dice(found == 3, true == 255))
        show(f"masks {name}, breast Dice", breast)
        show(f"masks {name}, pectoral Dice", muscle)


def phantoms(exams: int) -> None:
    """Against the truth of disturbed phantoms; a muscle counts where it covers 1 % of the image."""
    breast, muscle, view = [], [], []
    for index in range(exams):
        for projection, made in make_exam(PhantomSpec(rows=192, seed=SEED), index).views.items():
            flip = slice(None, None, -1 if projection.laterality == "R" else 1)
            rng = np.random.default_rng([SEED, index, len(breast)])
            grey, true = disturb(made.image[:, flip] / 255.0, made.labels[:, flip], (288, 220), rng)
            found = labels_of(Mammogram(np.rint(grey * 255).astype(np.uint8)))
            breast.append(dice(found > 0, true > 0))
            if (true == 3).mean() > 0.01:
                muscle.append(dice(found == 3, true == 3))
            view.append((found == 3).any() == (projection.view_position == "MLO"))
    show("disturbed phantoms, breast Dice", breast)
    show("disturbed phantoms, pectoral Dice", muscle)
    print(f"view told from pixels: {np.mean(view):.3f}")


def times() -> None:
    """Seconds of one image of a full detector, one thread."""
    import torch

    torch.set_num_threads(1)
    view = make_exam(PhantomSpec(rows=2294, seed=SEED), 0).views
    for name, scale, kind in (("8 bit", 1, np.uint8), ("16 bit", 257, np.uint16)):
        images = [Mammogram(one.image.astype(kind) * kind(scale), projection) for projection, one in view.items()]
        find_regions(images[0])
        for what, call in (("regions", find_regions), ("preprocess", lambda one: preprocess(one, RAW_PREPROCESS))):
            start = time.process_time()
            for one in images:
                call(one)
            print(
                f"{what}, {name}, {images[0].pixels.shape}: {(time.process_time() - start) / 4:.3f} s of processor time"
            )


def outlined(path: Path, folder: Path | None) -> Image.Image:
    """A small picture with what was found in red and orange; an expert's outlines, where there are, in green."""
    mammogram = read_picture(path)
    labels = labels_of(mammogram)
    layers: list[tuple[Any, tuple[int, int, int]]] = []
    if folder is not None and (folder / path.name).is_file():
        true = np.asarray(Image.open(folder / path.name).convert("L"))
        layers = [(true > 96, (0, 190, 0)), (true == 255, (0, 190, 0))]
    layers += [(labels > 0, (255, 40, 40)), (labels == 3, (255, 150, 0))]
    scale = CELL / mammogram.pixels.shape[0]
    size = (max(1, round(mammogram.pixels.shape[1] * scale)), CELL)
    grey = Image.fromarray((mammogram.pixels / mammogram.full_scale * 255).astype(np.uint8)).resize(
        size, Image.Resampling.BOX
    )
    picture = np.asarray(grey.convert("RGB")).copy()
    for mask, colour in layers:
        small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127
        picture[small & ~binary_erosion(small)] = colour
    return Image.fromarray(picture)


def sheet(path: Path, folders: list[Path], columns: int) -> None:
    """Outlines on every image of folders."""
    files = [
        one
        for folder in folders
        for one in sorted(folder.rglob("*"))
        if one.suffix in (".png", ".jpg") and "masks" not in one.parts
    ]
    cells = [outlined(one, one.parent.parent / "masks") for one in files]
    wide = max(cell.width for cell in cells) + 4
    page = Image.new("RGB", (wide * min(columns, len(cells)), (CELL + 4) * -(-len(cells) // columns)))
    for number, cell in enumerate(cells):
        page.paste(cell, (number % columns * wide, number // columns * (CELL + 4)))
    page.save(path, quality=85)
    print(f"{path}: {len(cells)} images")


def write_disturbed(folder: Path, count: int) -> None:
    """Disturbed phantoms as pictures with masks, so that they can be drawn as real images are."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(-(-count // 4)):
        for projection, made in make_exam(PhantomSpec(rows=256, seed=SEED), index).views.items():
            flip = slice(None, None, -1 if projection.laterality == "R" else 1)
            rng = np.random.default_rng([SEED, index, ord(projection[0]), ord(projection[-1])])
            grey, true = disturb(made.image[:, flip] / 255.0, made.labels[:, flip], (288, 200), rng)
            values = np.array([64, 128, 128, 255], np.uint8)[true]
            for kind, pixels in (("images", np.rint(grey * 255).astype(np.uint8)), ("masks", values)):
                Image.fromarray(np.ascontiguousarray(pixels[:, flip])).save(folder / kind / f"{index}_{projection}.png")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, metavar="FOLDER", help="images/ and masks/ of the same names")
    parser.add_argument("--tones", type=int, default=0, help="with --masks: also in random tones")
    parser.add_argument("--phantoms", type=int, metavar="EXAMS")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--sheet", type=Path, help="picture to write")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="folders for the sheet; phantoms without")
    parser.add_argument("--columns", type=int, default=8)
    options = parser.parse_args()
    if options.masks:
        masks(options.masks, options.tones)
    if options.phantoms:
        phantoms(options.phantoms)
    if options.times:
        times()
    if options.sheet and options.images:
        sheet(options.sheet, options.images, options.columns)
    elif options.sheet:
        import tempfile

        with tempfile.TemporaryDirectory() as name:
            write_disturbed(Path(name) / "set", 16)
            sheet(options.sheet, [Path(name) / "set"], options.columns)


if __name__ == "__main__":
    main()
