"""DICOM mammograms written from phantoms: what several test files make."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mammodensity.phantom.exams import PhantomExam, PhantomSpec, make_exam
from mammodensity.terms import Projection

MG = "1.2.840.10008.5.1.4.1.1.1.2"
MG_RAW = "1.2.840.10008.5.1.4.1.1.1.2.1"
TOMO = "1.2.840.10008.5.1.4.1.1.13.1.3"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

VIEW_CODES = {"CC": "R-10242", "MLO": "R-10226", "ML": "R-10224"}


def phantom(projection: Projection = Projection.CC_R, rows: int = 96) -> np.ndarray:
    """Stored values (H, W) of 12 bit, bright where dense, chest wall at the side that habit has for the breast."""
    return (_phantom_exam(rows).views[projection].image >> 4).astype(np.uint16)


@cache
def _phantom_exam(rows: int) -> PhantomExam:
    return make_exam(PhantomSpec(rows=rows, bits=16), 2)


def code(value: str, meaning: str = "", scheme: str = "SRT") -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    if meaning:
        item.CodeMeaning = meaning
    return item


def mammogram(projection: Projection = Projection.CC_R, stored: np.ndarray | None = None, **changes: Any) -> Dataset:
    """A whole FOR PRESENTATION mammogram; ``changes`` set elements by keyword, None removes them."""
    stored = phantom(projection) if stored is None else stored
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MG
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.preamble = b"\0" * 128
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.SOPClassUID = MG
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.Modality = "MG"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.PatientName = "Phantom^Made"
    ds.PatientID = "PHANTOM-1"
    ds.BodyPartExamined = "BREAST"
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    ds.SeriesInstanceUID = generate_uid()
    ds.InstanceNumber = 1
    ds.ImageLaterality = projection.laterality
    ds.PatientOrientation = ["A", "R"] if projection.laterality == "L" else ["P", "L"]
    ds.ViewPosition = projection.view_position
    item = code(VIEW_CODES[projection.view_position])
    item.ViewModifierCodeSequence = Sequence()
    ds.ViewCodeSequence = Sequence([item])
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.ImagerPixelSpacing = [round(240 / stored.shape[0], 6)] * 2
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 16
    ds.BitsStored = 12
    ds.HighBit = 11
    ds.PixelRepresentation = 0
    ds.BurnedInAnnotation = "NO"
    ds.WindowCenter = 2048
    ds.WindowWidth = 4096
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in changes.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    if "SOPClassUID" in changes:
        if changes["SOPClassUID"] is None:
            del meta.MediaStorageSOPClassUID
        else:
            meta.MediaStorageSOPClassUID = changes["SOPClassUID"]
    return ds


def modified(view: str, modifier: str, meaning: str = "") -> Sequence:
    """A View Code Sequence with one modifier."""
    item = code(VIEW_CODES[view])
    item.ViewModifierCodeSequence = Sequence([code(modifier, meaning)])
    return Sequence([item])


def lut(first: int, data: list[int], bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data), first, bits])
    item.add_new("LUTData", "US", data)
    return Sequence([item])


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format="MediaStorageSOPClassUID" in ds.file_meta)
    return path


def save_exam(folder: Path, study: str = "1.2.3", patient: str = "P1", rows: int = 96, **changes: Any) -> list[Path]:
    """Four projections of one study under names that tell nothing."""
    paths = []
    for number, projection in enumerate(Projection):
        ds = mammogram(projection, phantom(projection, rows), StudyInstanceUID=study, PatientID=patient, **changes)
        paths.append(save(ds, folder / f"IM{number:04d}"))
    return paths


def dcmtk(program: str, *arguments: object) -> None:
    """Run a program of dcmtk; skips the test where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (apt-get install dcmtk)")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)


def deflated(content: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeeze.compress(content) + squeeze.flush()
