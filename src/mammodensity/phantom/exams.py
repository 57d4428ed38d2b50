"""Synthetic exams with their ground truth, and how they are written in the folders of the INFN reference."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity import outputs
from mammodensity.errors import OptionError
from mammodensity.phantom.breast import FIELD_MM, Breast, Processing, draw_anatomy, stream
from mammodensity.phantom.dicom import phantom_mammogram
from mammodensity.phantom.gland import Tissue, draw_ducts, draw_strands, draw_vessels
from mammodensity.phantom.projection import LABELS, Paths, cast_rays, expose, present, project, solve_volume
from mammodensity.settings import Field, settings
from mammodensity.terms import PROJECTIONS, DensityCategory, Projection
from mammodensity.workers import in_workers, usable_cores

MANIFEST_COLUMNS = (
    *("exam_id", "patient_id", "projection", "path", "density", "split"),
    *("mask", "percent_density", "volumetric_density", "spacing_mm"),
)
_ASPECT = 0.8  # columns per row of common detectors (1914 x 2294, 2560 x 3328)
_SMALL_JOB = 4  # exams; starting workers takes longer than making these

Row = dict[str, str]


@settings
class PhantomSpec:
    """The series of exams to make.

    Raises
    ------
    OptionError
        A value is out of range.
    """

    rows: Annotated[int, Field(ge=32, le=4096)] = 256
    """Image rows; the number of columns follows from the aspect of detectors."""
    seed: Annotated[int, Field(ge=0)] = 0
    mix: Literal["balanced", "population"] = "balanced"
    """``"balanced"``: one of each category in every four exams; ``"population"``: 10, 40, 40, 10 per cent."""
    bits: Literal[8, 16] = 8
    """Bits of a grey value."""
    ducts: bool = False
    """Add ducts that meet at the nipple, as for the default networks. Exams of categories A-D are made without, because
    their categories are defined by glandular tissue alone."""

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
    views: dict[Projection, PhantomView]

    @property
    def volumetric_density(self) -> dict[str, float]:
        """Per cent of each breast, by laterality: the mean over its two views."""
        by_view = {projection: view.volumetric_density for projection, view in self.views.items()}
        return {side: float(np.mean([v for p, v in by_view.items() if p.laterality == side])) for side in "RL"}


def make_exam(spec: PhantomSpec, index: int) -> PhantomExam:
    """Make exam ``index`` (from 0) of the series ``spec``. The other exams of the series do not influence it.

    Examples
    --------
    >>> exam = make_exam(PhantomSpec(rows=32), 0)
    >>> sorted(view.value for view in exam.views), exam.views[Projection.CC_R].image.shape
    (['CC_L', 'CC_R', 'MLO_L', 'MLO_R'], (32, 26))
    """
    if index < 0:
        raise OptionError(f"phantom exam index must not be negative. Got {index} instead.")
    anatomy = draw_anatomy(spec.seed, index, spec.mix)
    views: dict[Projection, PhantomView] = {}
    for side, breast in anatomy.breasts.items():
        for position, (paths, rng) in _trace_breast(spec, index, side, breast).items():
            views[Projection(f"{position}_{side}")] = _make_view(spec, side, paths, anatomy.processing, rng)
    return PhantomExam(anatomy.category, {projection: views[projection] for projection in PROJECTIONS})


def trace_breast(spec: PhantomSpec, index: int, side: str) -> dict[str, Paths]:
    """Ray paths of one breast of exam ``index``, by view position; the chest wall is on the left for both sides."""
    breast = draw_anatomy(spec.seed, index, spec.mix).breasts[side]
    return {position: paths for position, (paths, _) in _trace_breast(spec, index, side, breast).items()}


def _trace_breast(
    spec: PhantomSpec, index: int, side: str, breast: Breast
) -> dict[str, tuple[Paths, np.random.Generator]]:
    """Paths of each view, with the random stream of its detector."""
    tissue = Tissue(breast.gland, spec.seed, index, side, spec.rows)
    grids = {position: cast_rays(shape, spec.rows, spec.cols) for position, shape in breast.shapes.items()}
    solve_volume(tissue, grids.values())
    kinds = {"vessels": draw_vessels, "strands": draw_strands, **({"ducts": draw_ducts} if spec.ducts else {})}
    curves = {
        kind: draw(stream(spec.seed, index, kind, side), breast.gland, spec.spacing_mm) for kind, draw in kinds.items()
    }
    views = {}
    for position, rays in grids.items():
        rng = stream(spec.seed, index, "detector", side, position)
        detail = int(rng.integers(2**31))
        views[position] = project(rays, tissue, curves, (spec.rows, spec.cols), detail), rng
    return views


def _make_view(
    spec: PhantomSpec, side: str, paths: Paths, processing: Processing, rng: np.random.Generator
) -> PhantomView:
    image = present(expose(paths, processing, rng), paths, processing, spec.bits)
    dense, breast = (int(np.count_nonzero(area)) for area in (paths.labels == LABELS["fibroglandular"], paths.breast))
    turn = slice(None, None, -1) if side == "R" else slice(None)
    return PhantomView(
        image=np.ascontiguousarray(image[:, turn]),
        labels=np.ascontiguousarray(paths.labels[:, turn]),
        percent_density=100.0 * dense / breast,
        volumetric_density=100.0 * paths.volumetric_fraction,
        spacing_mm=spec.spacing_mm,
    )


def write_phantoms(
    spec: PhantomSpec,
    exams: int,
    out: Path,
    *,
    workers: int | None = None,
    dicom: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the first ``exams`` exams of the series ``spec`` into ``out``, which appears whole or not at all.

    Parameters
    ----------
    spec
        The series.
    exams
        Number of exams; each is one subject.
    out
        A new or empty folder.
    workers
        Processes that share the work; by default one per core. Up to four exams are made in this process.
    dicom
        Also write each view as a DICOM file, in the folder ``dicom``.
    progress
        Called with (exams done, all exams) after each exam.

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
    count = min(workers or usable_cores(), exams)
    with outputs.atomic_folder(Path(out)) as folder:
        rows: dict[int, list[Row]] = {}
        # Closed before the folder is removed, so that no worker still writes into it.
        with closing(_write_exams(spec, exams, folder, count, dicom=dicom)) as written:
            for index, exam_rows in written:
                rows[index] = exam_rows
                if progress is not None:
                    progress(len(rows), exams)
        outputs.write_csv(
            folder / "manifest.csv", MANIFEST_COLUMNS, (row for index in sorted(rows) for row in rows[index])
        )
        facts = {"spec": {**asdict(spec), "cols": spec.cols}, "exams": exams}
        outputs.write_json(folder / "receipt.json", outputs.receipt("phantom", **facts))
    return Path(out) / "manifest.csv"


def _write_exams(
    spec: PhantomSpec, exams: int, folder: Path, workers: int, *, dicom: bool
) -> Generator[tuple[int, list[Row]], None, None]:
    write = partial(write_exam, spec=spec, folder=folder, dicom=dicom)
    if exams > _SMALL_JOB and workers > 1:
        yield from in_workers(write, range(exams), workers)
    else:
        for index in range(exams):
            yield index, write(index)


def write_exam(index: int, spec: PhantomSpec, folder: Path, *, dicom: bool = False) -> list[Row]:
    """Make and write one exam; return its rows of the manifest."""
    exam = make_exam(spec, index)
    patient = f"{index + 1:04d}"
    rows = []
    for projection, view in exam.views.items():
        path = Path(projection.value, exam.category.value, f"{patient}_1_{exam.category.value}_{projection.value}.png")
        for file, pixels in ((folder / path, view.image), (folder / "masks" / path, view.labels)):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
        if dicom:
            file = folder / "dicom" / patient / f"{projection.value}.dcm"
            file.parent.mkdir(parents=True, exist_ok=True)
            mammogram = phantom_mammogram(
                view.image, projection, series=spec.seed, exam=index, spacing_mm=view.spacing_mm
            )
            mammogram.save_as(file, enforce_file_format=True)
        rows.append(
            {
                "exam_id": f"{patient}_1",
                "patient_id": patient,
                "projection": projection.value,
                "path": path.as_posix(),
                "density": exam.category.value,
                "split": "",
                "mask": Path("masks", path).as_posix(),
                "percent_density": f"{view.percent_density:.2f}",
                "volumetric_density": f"{view.volumetric_density:.2f}",
                "spacing_mm": f"{view.spacing_mm:.5f}",
            }
        )
    return rows
