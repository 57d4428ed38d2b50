"""Reading an archive of phantoms written as DICOM: headers a second of `check`, and memory of `prepare`.

python benchmarks/archive_figures.py [--exams 20 100] [--rows 256] [--files 2000]

Prints a Markdown table. Files of --files are links to four, so that many cost little space.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.workflows.check import check_path

_MG = UID("1.2.840.10008.5.1.4.1.1.1.2")
_COLUMNS_PER_ROW = 1914 / 2294
_DISTINCT_EXAMS = 5
_MOST_PHANTOM_ROWS = 600  # larger images are enlarged: anatomy is smooth, and the noise comes after it
_SAMPLE_S = 0.1


def stored_values(rows: int, number: int, *, air: bool = True) -> dict[Projection, NDArray[np.uint16]]:
    """Stored values (H, W) of 14 bit by projection, with the noise of a detector, which is what compresses badly.

    Without ``air`` it is cut off: one value beside the breast, as many vendors have it.
    """
    columns = round(rows * _COLUMNS_PER_ROW)
    views = make_exam(PhantomSpec(rows=min(rows, _MOST_PHANTOM_ROWS), bits=16), number).views
    noise = np.random.default_rng(number)
    stored = {}
    for projection, view in views.items():
        picture = Image.fromarray((view.image >> 2).astype(np.float32)).resize((columns, rows))
        clean = np.asarray(picture)
        values = clean + noise.normal(0, 40, (rows, columns)) * (1 if air else clean > 0)
        stored[projection] = np.clip(values, 0, 16383).astype(np.uint16)
    return stored


def write_dicom(path: Path, projection: Projection, stored: NDArray[np.uint16], study: str) -> Path:
    """Write a FOR PRESENTATION mammogram, uncompressed."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = _MG, generate_uid()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = _MG, ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.PatientID = study, study
    ds.Modality, ds.PresentationIntentType = "MG", "FOR PRESENTATION"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.ImageLaterality, ds.ViewPosition = projection.laterality, projection.view_position
    ds.Rows, ds.Columns = stored.shape
    ds.ImagerPixelSpacing = [240 / stored.shape[0]] * 2
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 14, 13
    ds.PixelData = stored.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_exam(folder: Path, stored: dict[Projection, NDArray[np.uint16]]) -> list[Path]:
    """Write four views of one study."""
    study = generate_uid()
    return [write_dicom(folder / f"{view}.dcm", view, stored[view], study) for view in PROJECTIONS]


def headers_per_second(folder: Path, files: int, rows: int) -> float:
    """Speed of `check --no-pixels` on so many files, links to those of one exam."""
    exam = write_exam(folder / "exam", stored_values(rows, 1))
    for number in range(files - len(exam)):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(exist_ok=True)
        os.link(exam[number % len(exam)], place / f"{number:06d}")
    begun = time.perf_counter()
    report = check_path(folder, read_pixels=False)
    taken = time.perf_counter() - begun
    if len(report.files) != files:
        raise SystemExit(f"{files} files were written and {len(report.files)} found")
    return files / taken


def prepare_peak(archive: Path, out: Path) -> tuple[float, float]:
    """Seconds, and the largest sum of resident memory of the command and its children in MB, sampled as it runs."""
    command = [sys.executable, "-m", "mammodensity", "prepare", str(archive), str(out)]
    begun, peak = time.perf_counter(), 0
    with psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            resident = 0
            with suppress(psutil.NoSuchProcess):  # one that has just ended
                for member in (process, *process.children(recursive=True)):
                    resident += member.memory_info().rss
            peak = max(peak, resident)
            time.sleep(_SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"prepare {archive} ended with {process.returncode}")
    return time.perf_counter() - begun, peak / 1e6


def measured(options: argparse.Namespace, work: Path) -> Iterator[tuple[str, str]]:
    """Yield a name and a figure with its unit, as soon as each is known."""
    rate = headers_per_second(work / "headers", options.files, options.rows)
    yield f"`check --no-pixels` of {options.files} files", f"{rate:.0f} files a second"
    distinct = [stored_values(options.rows, number) for number in range(min(max(options.exams), _DISTINCT_EXAMS))]
    for exams in options.exams:
        archive = work / f"archive{exams}"
        for number in range(exams):
            write_exam(archive / f"{number:05d}", distinct[number % len(distinct)])
        taken, peak = prepare_peak(archive, work / f"out{exams}")
        name = f"`prepare` {exams} exams of {options.rows} rows: peak memory, parent and children"
        yield name, f"{peak:.0f} MB (in {taken:.0f} s)"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, nargs="+", default=[20, 100], help="sizes of the archives for prepare")
    parser.add_argument("--rows", type=int, default=256, help="rows of the images")
    parser.add_argument("--files", type=int, default=2000, help="files for check --no-pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        print("| what | measured |\n| --- | --- |", flush=True)
        for name, figure in measured(options, Path(work)):
            print(f"| {name} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
