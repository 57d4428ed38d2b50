"""Pictures of a result as DICOM objects: the card as Secondary Capture, the tissue of a view as Segmentation."""

from __future__ import annotations

from copy import copy

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from mammodensity import __version__
from mammodensity.anatomy.tissue import ADIPOSE, FIBROGLANDULAR, PECTORAL
from mammodensity.clinic import sr_codes as ours
from mammodensity.clinic.sources import Revision, derived_uid
from mammodensity.terms import RESEARCH_USE_ONLY

_SEGMENTS = {"dense": FIBROGLANDULAR, "fat": ADIPOSE, "muscle": PECTORAL}


def card_object(card: NDArray[np.uint8], header: Dataset, revision: Revision) -> Dataset:
    """Make a Secondary Capture of an exam's card.

    Parameters
    ----------
    card
        (H, W, 3).
    header
        The header of any image of the exam, for patient and study.
    """
    dataset = highdicom.sc.SCImage.from_ref_dataset(
        ref_dataset=header,
        pixel_array=card,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        **revision.attributes("card"),
        patient_orientation=("L", "F"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_description="Breast density card",
    )
    dataset.Laterality = ""  # both breasts
    dataset.ImageComments = RESEARCH_USE_ONLY
    dataset.BurnedInAnnotation = "NO"  # no text that identifies the patient
    revision.stamp(dataset)
    return dataset


def segmentation(labels: NDArray[np.uint8], header: Dataset, view: str, revision: Revision) -> Dataset:
    """Make a binary Segmentation of one view: fibroglandular tissue, fat and pectoral muscle, where there is any.

    A mammogram has no place in the patient's coordinates. Plane orientation and position are nominal: row and column
    directions along x and y, origin at the first pixel.

    Parameters
    ----------
    labels
        (H, W) as `mammodensity.anatomy.tissue` defines them.
    """
    present = {name: labels == value for name, value in _SEGMENTS.items() if (labels == value).any()}
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="mammodensity", family=ours.ARTIFICIAL_INTELLIGENCE, version=__version__
    )
    placed = copy(header)
    placed.FrameOfReferenceUID = derived_uid("frame", str(header.SOPInstanceUID))
    placed.ImagePositionPatient = [0.0, 0.0, 0.0]
    placed.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    placed.PixelSpacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or [1.0, 1.0]
    placed.SliceThickness = 1.0
    dataset = highdicom.seg.Segmentation(
        source_images=[placed],
        pixel_array=np.stack(list(present.values()), axis=-1)[np.newaxis].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=ours.SEGMENT_TYPES[name].meaning,
                segmented_property_category=ours.TISSUE_CATEGORY,
                segmented_property_type=ours.SEGMENT_TYPES[name],
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                anatomic_regions=[ours.BREAST],
            )
            for number, name in enumerate(present, start=1)
        ],
        **revision.attributes(f"segmentation {view}"),
        device_serial_number=revision.key[:16],
        content_label="TISSUE",
        series_description=f"Tissue of {view}",
    )
    revision.stamp(dataset)
    return dataset
