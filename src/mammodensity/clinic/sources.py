"""The images that a result was made from, as DICOM objects refer to them, and the identity of what is made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from mammodensity import __version__
from mammodensity.data.dataset import ImageRecord
from mammodensity.data.dicom.header import quiet
from mammodensity.data.dicom.read import pixel_digest
from mammodensity.errors import DicomError
from mammodensity.terms import PROJECTIONS, Projection

_NAMESPACE = UUID("b3ee13fc-469d-543c-91ea-fbc1a69e0e30")
MANUFACTURER = "mammodensity (open source)"
_SERIES_NUMBERS = {"report": 9101, "card": 9102, "segmentation": 9103}
_REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def derived_uid(*parts: str) -> str:
    """A UID that is the same whenever the parts are: a name-based UUID in decimal digits under 2.25.

    References
    ----------
    DICOM PS3.5 B.2; RFC 9562 section 5.5.
    """
    return f"2.25.{uuid5(_NAMESPACE, '|'.join(parts)).int}"


@dataclass(frozen=True)
class Revision:
    """One result of one study: these images, read by this model with these rules.

    UIDs follow from it, so that objects made twice are the same objects.
    """

    study_uid: str
    key: str
    """Hash of the SOP Instance UIDs, the pixels, the model, rules, fusion and version."""
    number: int = 1
    """Counted within the study."""
    made: datetime = datetime(1970, 1, 1)
    """When the result was made."""

    def uid(self, kind: str) -> str:
        """The SOP Instance UID of an object of this kind, such as ``report``."""
        return derived_uid("instance", kind, self.key, str(self.number))

    def series_uid(self, kind: str) -> str:
        """The series of all objects of this kind in the study."""
        return derived_uid("series", kind, self.study_uid)

    def attributes(self, kind: str) -> dict[str, Any]:
        """Arguments of highdicom for the identity and the maker of an object of this kind."""
        return {
            "series_instance_uid": self.series_uid(kind),
            "series_number": _SERIES_NUMBERS[kind.partition(" ")[0]],
            "sop_instance_uid": self.uid(kind),
            "instance_number": self.number,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": "mammodensity",
            "software_versions": __version__,
        }

    def stamp(self, dataset: Dataset) -> None:
        """Give an object the date and time of the revision, so that the same revision has the same bytes."""
        for name in ("InstanceCreation", "Content", "Series"):
            if f"{name}Date" in dataset:
                setattr(dataset, f"{name}Date", self.made.strftime("%Y%m%d"))
                setattr(dataset, f"{name}Time", self.made.strftime("%H%M%S"))
        for equipment in dataset.get("ContributingEquipmentSequence", ()):
            equipment.ContributionDateTime = self.made.strftime("%Y%m%d%H%M%S")


@dataclass(frozen=True, eq=False)
class MadeObject:
    """One object to send or to write."""

    kind: str
    """``report comprehensive3d`` and the like, ``card``, ``segmentation CC_R``, or ``fhir``."""
    sop_uid: str
    """Blank for FHIR."""
    content: bytes

    @property
    def file_name(self) -> str:
        """The end of its file's name."""
        names = {"fhir": "report.json", "card": "card.dcm"}
        return names.get(self.kind) or f"{self.kind.replace(' ', '-')}.dcm"


def read_sources(records: Mapping[Projection, ImageRecord]) -> dict[Projection, Dataset]:
    """Read the whole header of each DICOM image of an exam, with what identifies patient and study.

    Raises
    ------
    DicomError
        An image is no DICOM file or its header lacks a UID, or the images are of several patients or studies.
    """
    headers = {view: _read(records[view].path) for view in PROJECTIONS if view in records}
    for keyword, name in (("StudyInstanceUID", "studies"), ("PatientID", "patients"), ("PatientName", "patients")):
        if len({str(header.get(keyword, "")) for header in headers.values()}) > 1:
            folder = next(iter(records.values())).path.parent
            raise DicomError(
                f"the images in {folder} are of several {name} ({keyword} differs); send each exam of its own",
                "several-patients",
            )
    return headers


def _read(path: Path) -> Dataset:
    try:
        with quiet():
            header = dcmread(path, stop_before_pixels=True)
            missing = [keyword for keyword in _REQUIRED if not header.get(keyword)]
    except Exception as error:  # pydicom raises whatever the bytes of a damaged header lead to
        raise DicomError(f"{path}: expected a DICOM image, to which a report can refer", "damaged") from error
    if missing:
        raise DicomError(f"{path}: {', '.join(missing)} is missing; a report cannot refer to this image", "damaged")
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header or not _is_sound(header, keyword):
            setattr(header, keyword, "")
    return header


def _is_sound(header: Dataset, keyword: str) -> bool:
    """True unless a date, time or sex is none of DICOM's: a copy of it would make our objects invalid."""
    value = str(header.get(keyword) or "")
    try:
        if keyword.endswith("Date"):
            DA(value)
        elif keyword.endswith("Time"):
            TM(value)
    except ValueError:
        return False
    return keyword != "PatientSex" or value in ("", "M", "F", "O")


def revision_of(
    records: Mapping[Projection, ImageRecord],
    headers: Mapping[Projection, Dataset],
    provenance: Mapping[str, Any],
    how: Mapping[str, Any],
    *,
    number: int = 1,
    made: datetime,
) -> Revision:
    """The revision of a result: the same images, model, rules, fusion and version give the same key.

    Parameters
    ----------
    provenance, how
        As `mammodensity.workflows.predict.Predictor` has them.
    """
    facts = {
        "images": sorted(_identities(records, headers)),
        "model": provenance["model"],
        "rules": provenance["rules"],
        "version": __version__,
        **how,
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    study = str(next(iter(headers.values())).StudyInstanceUID)
    return Revision(study, hashlib.sha256(text.encode()).hexdigest(), number, made)


def _identities(
    records: Mapping[Projection, ImageRecord], headers: Mapping[Projection, Dataset]
) -> Iterator[tuple[str, str]]:
    """SOP Instance UID and digest of the pixels of each image."""
    for projection, header in headers.items():
        check = records[projection].check
        if check is None or check.header is None:
            raise DicomError(f"{records[projection].path}: expected a DICOM image, which `check` accepts", "damaged")
        yield str(header.SOPInstanceUID), pixel_digest(check.header)
