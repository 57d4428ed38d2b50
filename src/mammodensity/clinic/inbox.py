"""Keep DICOM objects that arrive: "success" is answered only when the bytes and their row are on disk.

What is no mammogram is kept and makes no exam.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread

from mammodensity.clinic.config import ClinicConfig
from mammodensity.clinic.database import Arrival, Database
from mammodensity.clinic.log import log
from mammodensity.data.dicom.decoding import read_stored_values
from mammodensity.data.dicom.gatekeeper import judge_file, read_header
from mammodensity.data.dicom.header import TAGS, quiet
from mammodensity.errors import OutputError

SUCCESS, NO_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
"""Statuses of a stored object (PS3.4 table B.2-1)."""
_UIDS = ("SOPInstanceUID", "StudyInstanceUID")
_OF_ENCODING = {"TransferSyntaxUID", "SpecificCharacterSet", "PlanarConfiguration", "LossyImageCompression"}
_IDENTITY = ({*TAGS, "PatientBirthDate"} - _OF_ENCODING) - {"AccessionNumber"}
"""Everything that is read of an image. A PACS may give it another accession number."""


class Inbox:
    """Keeps what arrives, and tells the database.

    Parameters
    ----------
    folder
        The data folder; images go to ``images``, and through ``incoming`` on the way.
    clock
        Seconds since 1970.
    """

    def __init__(
        self, config: ClinicConfig, folder: Path, database: Database, clock: Callable[[], float] = time.time
    ) -> None:
        self._config, self._folder, self._database, self._clock = config, folder, database, clock
        self._incoming, self._images = folder / "incoming", folder / "images"
        for place in (self._incoming, self._images):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for orphan in self._incoming.iterdir():
            orphan.unlink()
        self._keeping = threading.Lock()

    def keep(self, content: bytes, sender: str) -> int:
        """Keep one object, a DICOM file as bytes; returns the status of the answer, never raises."""
        try:
            return self._receive(content, sender)
        except (OSError, OutputError) as error:  # disk or database cannot be written
            log("not-kept", sender=sender, reason=str(getattr(error, "strerror", None) or error))
            return NO_RESOURCES

    def _receive(self, content: bytes, sender: str) -> int:
        if shutil.disk_usage(self._folder).free < self._config.least_free_gb * 1e9:
            log("disk-low", sender=sender)
            return NO_RESOURCES
        digest = hashlib.sha256(content).hexdigest()
        temporary = self._incoming / f"{os.getpid()}-{time.monotonic_ns()}-{digest[:16]}.partial"
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            arrival = self._arrival(temporary, digest, sender)
            if arrival is None:
                return CANNOT_UNDERSTAND
            kept = self._database.kept(arrival.sop_uid)
            if kept and kept[0] != digest and is_same_image(self._folder / kept[1], temporary):
                outcome = "same"
            else:
                with self._keeping:
                    outcome = self._keep(temporary, arrival)
        finally:
            temporary.unlink(missing_ok=True)
        log("received", sender=sender, study=name_of(arrival.study_uid), view=arrival.projection, outcome=outcome)
        return SUCCESS

    def _keep(self, temporary: Path, arrival: Arrival) -> str:
        target = self._folder / arrival.file
        target.parent.mkdir(exist_ok=True, mode=0o700)
        temporary.replace(target)
        _fsync_folder(target.parent)
        incomplete = self._config.settle_incomplete_s if self._config.incomplete == "read" else None
        return self._database.add(
            arrival, self._clock(), settle_s=self._config.settle_s, settle_incomplete_s=incomplete
        )

    def remove_old(self) -> int:
        """Remove the images whose time is over; returns how many.

        Raises
        ------
        OSError, OutputError
            Disk or database cannot be written; what was not removed is removed later.
        """
        now, days = self._clock(), self._config.keep_images_days
        if not days:
            return 0
        with self._keeping:  # an image that comes again now must not lose its file
            files = self._database.remove_older(now - days * 86400, now)
            for file in files:
                (self._folder / file).unlink(missing_ok=True)
        if files:
            log("removed", images=len(files))
        return len(files)

    def _arrival(self, file: Path, digest: str, sender: str) -> Arrival | None:
        check = judge_file(file, synthetic=self._config.synthetic)
        try:
            header = check.header or dcmread(file, stop_before_pixels=True, specific_tags=list(_UIDS))
            sop_uid, study_uid = (str(header.get(keyword) or "") for keyword in _UIDS)
        except Exception:  # pydicom raises whatever the bytes of a damaged object lead to
            return None
        if not (sop_uid and study_uid):
            return None
        name = hashlib.sha256(sop_uid.encode()).hexdigest()
        place = Path("images", name[:2], f"{name[:32]}-{digest[:8]}.dcm")
        code = None if check.accepted else check.reasons[0].code
        projection = check.projection.value if check.accepted and check.projection else None
        return Arrival(sop_uid, study_uid, digest, place.as_posix(), projection, code, sender)


def name_of(study_uid: str) -> str:
    """A study's name in logs, which says nothing of the patient: the one that `check` gives it."""
    return f"study-{hashlib.sha256(study_uid.encode()).hexdigest()[:12]}"


def is_same_image(first: Path, second: Path) -> bool:
    """True for an object in two encodings: equal in all that is read of it, and in its pixels once decoded.

    Objects without pixels must be equal in every element. False where that cannot be told.
    """
    try:
        with quiet():
            kept, came = dcmread(first), dcmread(second)
            if any(kept.get(keyword) != came.get(keyword) for keyword in _IDENTITY):
                return False
            if "PixelData" not in kept:
                return bool(kept == came)
            of_kept, of_came = (read_stored_values(read_header(file)) for file in (first, second))
    except Exception:  # a file is gone, or cannot be read
        return False
    return bool(np.array_equal(of_kept, of_came))


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
