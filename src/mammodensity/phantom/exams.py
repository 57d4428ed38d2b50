"""Synthetic exams: the specification, the views with their ground truth, and their making.

Writing synthetic exams as a folder of images, masks and a manifest, arranged as the origin's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity import outputs
from mammodensity.errors import OptionError
from mammodensity.phantom.breast import FIELD_MM, Breast, Processing, draw_anatomy, stream
from mammodensity.phantom.gland import Tissue, draw_ducts, draw_strands, draw_vessels
from mammodensity.phantom.projection import LABELS, Paths, cast_rays, expose, present, project, solve_volume
from mammodensity.terms import PROJECTIONS, DensityCategory, Projection
from mammodensity.workers import in_workers, usable_cores

MIXES = ("balanced", "population")
_ASPECT = 0.8  # columns per row of common detectors (1914 x 2294, 2560 x 3328)


@dataclass(frozen=True)
class PhantomSpec:
    """What to make.

    Raises
    ------
    OptionError
        A value is out of range.
    """

    rows: int = 256
    """Image rows, 32 to 4096; columns follow a detector's aspect."""
    seed: int = 0
    mix: str = "balanced"
    """``"balanced"``: one of each category in every four exams; ``"population"``: 10, 40, 40, 10 per cent."""
    bits: int = 8
    """Grey levels of the images: 8 or 16 bit."""
    ducts: bool = False
    """Ducts run together at the nipple. The default networks learn with them; exams of categories A-D are made without,
    as their categories are by glandular tissue alone."""

    def __post_init__(self) -> None:
        if not 32 <= self.rows <= 4096:
            raise OptionError(f"phantom size must be 32 to 4096 image rows. Got {self.rows} instead.")
        if self.seed < 0:
            raise OptionError(f"phantom seed must not be negative. Got {self.seed} instead.")
        if self.mix not in MIXES:
            raise OptionError(f"phantom mix must be {' or '.join(MIXES)}. Got {self.mix!r} instead.")
        if self.bits not in (8, 16):
            raise OptionError(f"phantom bits must be 8 or 16. Got {self.bits} instead.")

    @property
    def cols(self) -> int:
        """Image columns."""
        return round(_ASPECT * self.rows)

    @property
    def spacing_mm(self) -> float:
        """Pixel spacing; the field is 240 mm high."""
        return FIELD_MM / self.rows


@dataclass(frozen=True, eq=False)
class PhantomView:
    """One projection of a synthetic breast with its ground truth."""

    image: NDArray[np.unsignedinteger[Any]]
    """(rows, cols), uint8 or uint16, processed for presentation; background 0."""
    labels: NDArray[np.uint8]
    """(rows, cols): 0 background, 1 adipose, 2 fibroglandular, 3 pectoral muscle."""
    percent_density: float
    """Dense area per breast area without muscle, per cent."""
    volumetric_density: float
    """Glandular volume per volume without skin and muscle along this view's rays, per cent."""
    spacing_mm: float

    @property
    def breast(self) -> NDArray[np.bool_]:
        """Breast without muscle, (rows, cols)."""
        return np.isin(self.labels, (LABELS["adipose"], LABELS["fibroglandular"]))

    @property
    def dense(self) -> NDArray[np.bool_]:
        """Dense tissue, (rows, cols)."""
        return np.equal(self.labels, LABELS["fibroglandular"])

    @property
    def pectoral(self) -> NDArray[np.bool_]:
        """Pectoral muscle, (rows, cols)."""
        return np.equal(self.labels, LABELS["pectoral"])


@dataclass(frozen=True, eq=False)
class PhantomExam:
    """Four projections of two synthetic breasts."""

    category: DensityCategory
    volumetric_density: dict[str, float]
    """Per cent of each breast, by laterality: the mean over its two views."""
    views: dict[Projection, PhantomView]


def make_exam(spec: PhantomSpec, index: int) -> PhantomExam:
    """Make exam ``index`` (from 0) of the series that ``spec`` names; other exams of the series have no bearing on it.

    Examples
    --------
    >>> exam = make_exam(PhantomSpec(rows=32), 0)
    >>> sorted(view.value for view in exam.views), exam.views[Projection.CC_R].image.shape
    (['CC_L', 'CC_R', 'MLO_L', 'MLO_R'], (32, 26))
    """
    if index < 0:
        raise OptionError(f"phantom exam index must not be negative. Got {index} instead.")
    anatomy = draw_anatomy(spec.seed, index, spec.mix)
    made: dict[Projection, PhantomView] = {}
    for side, breast in anatomy.breasts.items():
        for position, view in _image_breast(spec, index, side, breast, anatomy.processing).items():
            made[Projection(f"{position}_{side}")] = view
    volumetric = {
        side: float(np.mean([v.volumetric_density for p, v in made.items() if p.laterality == side]))
        for side in anatomy.breasts
    }
    return PhantomExam(anatomy.category, volumetric, {p: made[p] for p in PROJECTIONS})


def trace_breast(spec: PhantomSpec, index: int, side: str) -> dict[str, Paths]:
    """What the rays of one breast of exam ``index`` cross, by view position; chest wall on the left for either side."""
    breast = draw_anatomy(spec.seed, index, spec.mix).breasts[side]
    return {name: paths for name, (paths, _) in _trace_breast(spec, index, side, breast).items()}


def _trace_breast(
    spec: PhantomSpec, index: int, side: str, breast: Breast
) -> dict[str, tuple[Paths, np.random.Generator]]:
    """Paths of either view, with the random stream of its detector."""
    tissue = Tissue(breast.gland, spec.seed, index, side, spec.rows)
    grids = {name: cast_rays(shape, spec.rows, spec.cols) for name, shape in breast.shapes.items()}
    solve_volume(tissue, grids.values())
    drawn = {"vessels": draw_vessels, "strands": draw_strands, **({"ducts": draw_ducts} if spec.ducts else {})}
    curves = {
        name: draw(stream(spec.seed, index, name, side), breast.gland, spec.spacing_mm) for name, draw in drawn.items()
    }
    views = {}
    for name, rays in grids.items():
        rng = stream(spec.seed, index, "detector", side, name)
        detail = int(rng.integers(2**31))
        views[name] = project(rays, tissue, curves, (spec.rows, spec.cols), detail), rng
    return views


def _image_breast(
    spec: PhantomSpec, index: int, side: str, breast: Breast, processing: Processing
) -> dict[str, PhantomView]:
    views = {}
    for name, (paths, rng) in _trace_breast(spec, index, side, breast).items():
        image = present(expose(paths, processing, rng), paths, processing, spec.bits)
        dense = int(np.count_nonzero(paths.labels == LABELS["fibroglandular"]))
        fat = int(np.count_nonzero(paths.labels == LABELS["adipose"]))
        flip = slice(None, None, -1) if side == "R" else slice(None)
        views[name] = PhantomView(
            image=np.ascontiguousarray(image[:, flip]),
            labels=np.ascontiguousarray(paths.labels[:, flip]),
            percent_density=100.0 * dense / (dense + fat),
            volumetric_density=100.0 * paths.volumetric_fraction,
            spacing_mm=spec.spacing_mm,
        )
    return views


MANIFEST_COLUMNS = (
    "exam_id",
    "patient_id",
    "projection",
    "path",
    "density",
    "split",
    "mask",
    "percent_density",
    "volumetric_density",
    "spacing_mm",
)

_SMALL_JOB = 4  # exams; starting workers takes longer than making these

Row = dict[str, str]


def write_phantoms(
    spec: PhantomSpec,
    exams: int,
    out: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the first ``exams`` exams of the series ``spec`` under ``out``, which appears whole or not at all.

    Parameters
    ----------
    spec
        What to make.
    exams
        How many; each is one subject.
    out
        A new or empty folder.
    workers
        Processes to share the work; by default one per core. Up to four exams are made in this process.
    progress
        Called with (exams done, exams in all) after each exam.

    Returns
    -------
    Path of ``manifest.csv``.

    Raises
    ------
    OptionError
        ``exams`` or ``workers`` is below 1.
    OutputError
        ``out`` is in use or cannot be written, or a worker process died.
    """
    if exams < 1:
        raise OptionError(f"number of phantom exams must be at least 1. Got {exams} instead.")
    if workers is not None and workers < 1:
        raise OptionError(f"number of workers must be at least 1. Got {workers} instead.")
    out = Path(out)
    count = min(workers or usable_cores(), exams)
    with outputs.atomic_folder(out) as folder:
        rows: dict[int, list[Row]] = {}
        # Closed before the folder is removed, so that no worker writes into it any more.
        with closing(_make(spec, exams, folder, count)) as made:
            for index, views in made:
                rows[index] = views
                if progress is not None:
                    progress(len(rows), exams)
        outputs.write_csv(
            folder / "manifest.csv", MANIFEST_COLUMNS, (row for index in sorted(rows) for row in rows[index])
        )
        outputs.write_json(
            folder / "receipt.json", outputs.receipt("phantom", spec={**asdict(spec), "cols": spec.cols}, exams=exams)
        )
    return out / "manifest.csv"


def write_exam(index: int, spec: PhantomSpec, folder: Path) -> list[Row]:
    """Make and write one exam; its rows of the manifest."""
    exam = make_exam(spec, index)
    patient = f"{index + 1:04d}"
    rows = []
    for projection, view in exam.views.items():
        place = Path(projection.value, exam.category.value, f"{patient}_1_{exam.category.value}_{projection.value}.png")
        for path, pixels in ((folder / place, view.image), (folder / "masks" / place, view.labels)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        rows.append(
            {
                "exam_id": f"{patient}_1",
                "patient_id": patient,
                "projection": projection.value,
                "path": place.as_posix(),
                "density": exam.category.value,
                "split": "",
                "mask": Path("masks", place).as_posix(),
                "percent_density": f"{view.percent_density:.2f}",
                "volumetric_density": f"{view.volumetric_density:.2f}",
                "spacing_mm": f"{view.spacing_mm:.5f}",
            }
        )
    return rows


def _make(spec: PhantomSpec, exams: int, folder: Path, count: int) -> Generator[tuple[int, list[Row]], None, None]:
    write = partial(write_exam, spec=spec, folder=folder)
    if exams > _SMALL_JOB and count > 1:
        yield from in_workers(write, range(exams), count)
    else:
        for index in range(exams):
            yield index, write(index)
