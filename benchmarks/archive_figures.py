"""Time and memory of reading an archive, on phantoms written as DICOM: an exam, `prepare`, and headers alone.

Usage: python benchmarks/archive_figures.py [--rows 2294] [--runs 5] [--exams 20 100] [--files 2000]

Prints a Markdown table. Needs dcmcjpeg (dcmtk) for JPEG Lossless and psutil for the memory of processes. Files
of --files are links to four, so that many cost little space.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from mammodensity.anatomy.network_input import RAW_PREPROCESS, preprocess
from mammodensity.data.dicom.gatekeeper import judge_file
from mammodensity.data.dicom.read import read_with_warnings
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
    """A FOR PRESENTATION mammogram, uncompressed."""
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


def write_exam(folder: Path, rows: int, number: int, *, air: bool = True) -> list[Path]:
    """Four views of one study."""
    study = generate_uid()
    views = stored_values(rows, number, air=air)
    return [write_dicom(folder / f"{one}.dcm", one, views[one], study) for one in PROJECTIONS]


def compressed(path: Path, syntax: str) -> Path:
    """The same image in JPEG Lossless SV1, by dcmtk, or in JPEG 2000 lossless, by pylibjpeg-openjpeg."""
    out = path.with_suffix(f".{syntax}")
    if syntax == "jpeg":
        subprocess.run(["dcmcjpeg", "+e1", str(path), str(out)], check=True)
        return out
    from openjpeg.utils import encode_pixel_data
    from pydicom import dcmread
    from pydicom.encaps import encapsulate

    ds = dcmread(path)
    options = {"rows": ds.Rows, "columns": ds.Columns, "samples_per_pixel": 1, "bits_stored": ds.BitsStored}
    options |= {"photometric_interpretation": 2, "lossless": True, "pixel_representation": 0}
    ds.PixelData = encapsulate([bytes(encode_pixel_data(ds.PixelData, **options))])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.save_as(out, enforce_file_format=True)
    return out


def read_one(path: Path) -> tuple[int, ...]:
    """Check, decode and preprocess one image; returns the shape of the network's input."""
    judge_file(path).require_accepted()
    mammogram, _ = read_with_warnings(path)
    return preprocess(mammogram, RAW_PREPROCESS).shape


def exam_seconds(files: list[Path], runs: int) -> tuple[list[float], float]:
    """Wall-clock times of a whole exam on two worker processes, and the processor time of one, as a mean.

    A first run is not counted. Processor time says what the exam takes where others use the cores, too.
    """
    seconds: list[float] = []
    used = 0.0
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(read_one, files * 2))  # both workers and their decoders are up then
        for _ in range(runs):
            before, begun = processor_seconds(), time.perf_counter()
            list(pool.map(read_one, files))
            seconds.append(time.perf_counter() - begun)
            used += processor_seconds() - before
    return seconds, used / runs


def processor_seconds() -> float:
    """Of this process and all below it."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def write_archive(folder: Path, exams: int, rows: int) -> None:
    """So many exams: the pixels of a few, each in a study of its own."""
    views = [stored_values(rows, number) for number in range(min(exams, _DISTINCT_EXAMS))]
    for number in range(exams):
        study = generate_uid()
        for projection in PROJECTIONS:
            stored = views[number % len(views)][projection]
            write_dicom(folder / f"{number:05d}" / f"{projection}.dcm", projection, stored, study)


def prepare_peak(archive: Path, out: Path) -> tuple[float, float]:
    """Seconds, and the largest sum of resident memory of the command and its children in MB, sampled as it runs."""
    command = [sys.executable, "-m", "mammodensity", "prepare", str(archive), str(out)]
    begun = time.perf_counter()
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, resident_bytes(parent))
            time.sleep(_SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"prepare {archive} ended with {process.returncode}")
    return time.perf_counter() - begun, peak / 1e6


def resident_bytes(parent: psutil.Process) -> int:
    """Of a process and all its children; those that have just ended count nothing."""
    total = 0
    try:
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def headers_per_second(folder: Path, files: int, rows: int) -> float:
    """`check --no-pixels` on so many files, links to those of one exam."""
    exam = write_exam(folder / "exam", rows, 1)
    for number in range(files - len(exam)):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(exist_ok=True)
        os.link(exam[number % len(exam)], place / f"{number:06d}")
    begun = time.perf_counter()
    found = check_path(folder, read_pixels=False)
    taken = time.perf_counter() - begun
    if len(found.files) != files:
        raise SystemExit(f"{files} files were written and {len(found.files)} found")
    return files / taken


def measured(arguments: argparse.Namespace, work: Path) -> Iterator[tuple[str, str]]:
    """What was measured, and the figure with its unit, as soon as it is known."""
    rate = headers_per_second(work / "headers", arguments.files, 256)
    yield f"`check --no-pixels` of {arguments.files} files", f"{rate:.0f} files a second"
    plain = write_exam(work / "exam", arguments.rows, 1)
    size = f"{arguments.rows} x {round(arguments.rows * _COLUMNS_PER_ROW)}"
    for syntax, name in (("jpeg", "JPEG Lossless SV1"), ("j2k", "JPEG 2000 lossless")):
        what = f"check, decode and preprocess an exam of four views of {size} in {name}, two workers"
        if syntax == "jpeg" and shutil.which("dcmcjpeg") is None:
            yield what, "dcmcjpeg is not installed"
            continue
        seconds, used = exam_seconds([compressed(path, syntax) for path in plain], arguments.runs)
        spread = f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
        yield what, f"{spread}; processor time {used:.2f} s"
    for exams in arguments.exams:
        write_archive(work / f"archive{exams}", exams, arguments.small_rows)
        taken, peak = prepare_peak(work / f"archive{exams}", work / f"out{exams}")
        what = f"`prepare` {exams} exams of {arguments.small_rows} rows: peak memory, parent and children"
        yield what, f"{peak:.0f} MB (in {taken:.0f} s)"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2294, help="rows of the exam that is timed")
    parser.add_argument("--runs", type=int, default=5, help="times the exam is read, after the first")
    parser.add_argument("--exams", type=int, nargs="+", default=[20, 100], help="sizes of the archives for prepare")
    parser.add_argument("--small-rows", type=int, default=256, help="rows of the images of those archives")
    parser.add_argument("--files", type=int, default=2000, help="files for check --no-pixels")
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # as the workers of prepare have it; read by the processes started from here
    with tempfile.TemporaryDirectory() as work:
        print("| what | measured |\n| --- | --- |", flush=True)
        for what, figure in measured(arguments, Path(work)):
            print(f"| {what} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
