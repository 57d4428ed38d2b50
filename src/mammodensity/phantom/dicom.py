"""Phantom views as DICOM mammograms, to try a PACS or the node without a patient."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from mammodensity.terms import Projection

VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}
_FIRST_DAY = date(2026, 1, 5)


def phantom_mammogram(
    image: NDArray[Any], projection: Projection, *, series: int, exam: int, spacing_mm: float
) -> Dataset:
    """Make a DICOM mammogram FOR PRESENTATION of a phantom view.

    The UIDs follow from series, exam and projection: the same phantom is the same image.

    Parameters
    ----------
    image
        (H, W) uint8 or uint16, bright where the breast attenuates much.
    series, exam
        Seed of the series and number of the exam, counted from 0.
    spacing_mm
        Distance of pixel centres.
    """
    study = _uid("study", series, exam)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = _uid("instance", series, exam, projection)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, _uid("series", series, exam, projection)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    day = (_FIRST_DAY + timedelta(days=exam)).strftime("%Y%m%d")
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101500"
    dataset.PatientName, dataset.PatientID = f"Phantom^{exam + 1:04d}", f"PHANTOM-{series}-{exam + 1:04d}"
    dataset.PatientBirthDate, dataset.PatientSex = "", "F"
    dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = f"P{exam + 1:04d}", "1", ""
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.Manufacturer, dataset.ManufacturerModelName = "mammodensity", "phantom"
    dataset.BodyPartExamined = "BREAST"
    dataset.InstanceNumber, dataset.SeriesNumber = 1, list(Projection).index(projection) + 1
    _add_view(dataset, projection)
    _add_pixels(dataset, image, spacing_mm)
    return dataset


def _add_view(dataset: Dataset, projection: Projection) -> None:
    dataset.ImageLaterality, dataset.ViewPosition = projection.laterality, projection.view_position
    towards = "FR" if projection.view_position == "MLO" else "R"
    if projection.laterality == "L":
        dataset.PatientOrientation = ["A", towards]
    else:
        dataset.PatientOrientation = ["P", towards.replace("R", "L")]
    view = Dataset()
    view.CodeValue, view.CodeMeaning = VIEW_CODES[projection.view_position]
    view.CodingSchemeDesignator = "SCT"
    view.ViewModifierCodeSequence = Sequence()
    dataset.ViewCodeSequence = Sequence([view])
    dataset.PartialView, dataset.BreastImplantPresent = "NO", "NO"


def _add_pixels(dataset: Dataset, image: NDArray[Any], spacing_mm: float) -> None:
    bits = 8 * image.dtype.itemsize
    dataset.Rows, dataset.Columns = image.shape
    dataset.ImagerPixelSpacing = [round(spacing_mm, 6)] * 2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.BurnedInAnnotation = "NO"
    content = np.ascontiguousarray(image, image.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"


def _uid(kind: str, *parts: object) -> str:
    digest = hashlib.sha256("|".join(["mammodensity phantom", kind, *map(str, parts)]).encode()).hexdigest()
    return f"2.25.{int(digest[:32], 16)}"
