"""A site for one trial: a PACS, a node, and senders of phantom exams."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from bench.clinic import DICOMWEB_PLUGINS, NodeProcess, Orthanc, configuration, free_port, wait_for
from dicom_samples import mammogram, phantom
from mammodensity.clinic.database import Database, database_url
from mammodensity.terms import PROJECTIONS, Projection

_ROWS = 256


class SkippedError(Exception):
    """A trial cannot be run here; the reason."""


@dataclass(frozen=True)
class Scale:
    """How long the long trials are."""

    kills: int
    soak: int
    down_s: float
    seed: int


class Site:
    """A PACS and a node, which `open` starts; both are stopped when the trial ends."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder, self.scale = folder, scale
        self.port = free_port()
        self.pacs: Any = None
        self.node: Any = None
        self._database: Database | None = None

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._database is not None:
            self._database.close()
        if self.node is not None:
            self.node.stop()
        if self.pacs is not None:
            self.pacs.stop()

    def open(self, *, pacs: dict[str, Any] | None = None, **settings: Any) -> None:
        """Start PACS and node; ``settings`` are the node's."""
        if which("Orthanc") is None:
            raise SkippedError("Orthanc is not installed")
        self.pacs = Orthanc(self.folder / "pacs", self.port, **{"Plugins": DICOMWEB_PLUGINS} | (pacs or {}))
        self.node = NodeProcess(self.folder, configuration(self.port, self.pacs.dicom_port, **settings))
        self._url = str(settings.get("database", ""))
        self.pacs.wait_for_node()

    @property
    def database(self) -> Database:
        """The node's database."""
        if self._database is None:
            self._database = Database(database_url(self._url, self.node.data))
        return self._database

    def exam(self, study: str) -> dict[str, Any]:
        """What the node says of an exam; empty before it knows it."""
        return next((exam for exam in self.database.exams() if exam["study_uid"] == study), {})

    def wait_for_state(self, study: str, *states: str, seconds: float = 90) -> None:
        """Wait until an exam is in one of these states."""
        wait_for(lambda: self.exam(study).get("state") in states, seconds, f"the exam is not {' or '.join(states)}")

    def wait_for_reports(self, count: int, seconds: float = 120) -> list[Dataset]:
        """Wait until the PACS holds so many reports of ours; all of them then."""
        wait_for(lambda: len(self.reports()) >= count, seconds, f"the PACS does not hold {count} reports")
        return self.reports()

    def reports(self) -> list[Dataset]:
        """The structured reports that the PACS holds."""
        return [dataset for dataset in self.pacs.objects() if dataset.Modality == "SR"]

    def reports_of_studies(self) -> Counter[str]:
        """How many structured reports of each study the PACS holds, asked for cheaply."""
        series = self.pacs.get("/series?expand")
        found: Counter[str] = Counter()
        for one in series:
            if one["MainDicomTags"].get("Modality") == "SR":
                found[one["ParentStudy"]] += len(one["Instances"])
        return found

    def stored(self) -> list[Path]:
        """The files of images that the node holds."""
        return sorted((self.node.data / "images").rglob("*.dcm"))

    def unfinished(self) -> list[Path]:
        """Files that the node has not taken in whole."""
        return sorted((self.node.data / "incoming").iterdir())

    def send(self, images: Iterable[Dataset], calling: str = "SCANNER", called: str = "MAMMODENSITY") -> list[int]:
        """Send images on one association; the statuses, fewer than images where it broke, none where it was refused."""
        return send(self.port, images, calling, called)

    def last_log(self) -> Sequence[dict[str, str]]:
        """The end of the node's log."""
        return self.node.log()[-15:] if self.node is not None else []


@cache
def _pixels(view: Projection) -> Any:
    return phantom(view, _ROWS)


def exam_images(number: int, views: Iterable[Projection] = PROJECTIONS, **changes: Any) -> list[Dataset]:
    """The images of a phantom exam; the same number and changes give the same images."""
    images = []
    for view in views:
        uid = f"1.2.826.0.1.3680043.8.498.7.{number}.{PROJECTIONS.index(view) + 1}"
        values = {"SOPInstanceUID": uid, "StudyInstanceUID": study_uid(number), "PatientID": f"P{number}"} | changes
        image = mammogram(view, _pixels(view), SeriesInstanceUID=f"{study_uid(number)}.9", **values)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        images.append(image)
    return images


def study_uid(number: int) -> str:
    """The Study Instance UID of a phantom exam."""
    return f"1.2.826.0.1.3680043.8.498.7.{number}"


def send(
    port: int,
    images: Iterable[Dataset],
    calling: str,
    called: str = "MAMMODENSITY",
    *,
    before: Callable[[Any, int], bool] | None = None,
) -> list[int]:
    """Send images on one association.

    Parameters
    ----------
    before
        Called with the association and the number of each image before it is sent; False ends the sending.
    """
    images, entity = list(images), AE(ae_title=calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    for sop_class in {image.SOPClassUID for image in images}:
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    statuses: list[int] = []
    if not association.is_established:
        return statuses
    for number, image in enumerate(images):
        if before is not None and not before(association, number):
            break
        try:
            answer = association.send_c_store(image)
        except (RuntimeError, ValueError):  # the association is gone
            break
        if "Status" not in answer:
            break
        statuses.append(int(answer.Status))
    if association.is_established:
        association.release()
    return statuses


def send_until_taken(port: int, images: list[Dataset], calling: str, seconds: float = 600) -> None:
    """Send as a modality does, again and again, until every image was answered with success."""
    end = time.monotonic() + seconds
    while images:
        statuses = send(port, images, calling)
        taken = {number for number, status in enumerate(statuses) if status == 0}
        images = [image for number, image in enumerate(images) if number not in taken]
        assert time.monotonic() < end, "the node did not take the images in time"
        if images:
            time.sleep(0.3)
