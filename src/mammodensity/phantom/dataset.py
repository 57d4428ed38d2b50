"""Writing synthetic exams as a folder of images, masks and a manifest, arranged as the origin's."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from PIL import Image

from mammodensity import outputs
from mammodensity.errors import OptionError
from mammodensity.phantom.exam import PhantomSpec, make_exam
from mammodensity.workers import in_workers, usable_cores

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
