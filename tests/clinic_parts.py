"""Parts that the tests of the node share: certificates, a node's listener, and programs as its peers."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    Verification,
)

from dicom_samples import mammogram, phantom
from mammodensity.clinic.commitment import Commitment
from mammodensity.clinic.config import ClinicConfig, Sender
from mammodensity.clinic.database import Arrival, Database
from mammodensity.clinic.inbox import Inbox
from mammodensity.clinic.listener import Listener
from mammodensity.clinic.sources import MadeObject
from mammodensity.terms import Projection

MG = DigitalMammographyXRayImageStorageForPresentation


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Authority:
    """Signs certificates by the openssl command."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed (Debian: openssl)")
        self._folder, self._name = folder, name
        self.file = folder / f"{name}.pem"
        self._openssl("req", "-x509", "-subj", f"/CN={name}", "-days", 2, "-out", self.file, *self._key(name))

    def _key(self, name: str) -> list[Any]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.key_of(name)]

    def key_of(self, name: str) -> Path:
        return self._folder / f"{name}.key"

    @staticmethod
    def _openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def sign(self, name: str, host: str = "IP:127.0.0.1,DNS:localhost", days: int = 2) -> dict[str, str]:
        """The files of a new certificate."""
        request, file = self._folder / f"{name}.csr", self._folder / f"{name}.pem"
        names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={host}"]
        self._openssl("req", *names, "-out", request, *self._key(name))
        by = ["-CA", self.file, "-CAkey", self.key_of(self._name), "-copy_extensions", "copy"]
        self._openssl("x509", "-req", "-in", request, *by, "-days", days, "-out", file)
        return {"certificate": str(file), "key": str(self.key_of(name))}


@contextmanager
def listening(folder: Path, clock: Any = None, **settings: Any):
    """A node that only receives, from SCANNER; its port and its database, at which tests find ``commitment``."""
    defaults = {"dicom_port": 0, "least_free_gb": 0.0, "senders": (Sender("SCANNER"),)}
    config = ClinicConfig(**(defaults | settings))
    database = Database(f"sqlite:///{folder / 'node.sqlite'}")
    times = [clock] if clock else []
    commitment = Commitment(config, folder, database, *times)
    listener = Listener(config, Inbox(config, folder, database, *times), commitment)
    try:
        database.commitment = commitment
        yield listener.start(), database
    finally:
        listener.stop()
        database.close()


def associate(port: int, called: str = "MAMMODENSITY", calling: str = "SCANNER", **options: Any):
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.connection_timeout = entity.dimse_timeout = 30
    entity.add_requested_context(Verification)
    entity.add_requested_context(MG, ExplicitVRLittleEndian)
    entity.add_requested_context(Comprehensive3DSRStorage, ExplicitVRLittleEndian)
    return entity.associate("127.0.0.1", port, ae_title=called, **options)


def view(projection: Projection, rows: int = 96, **changes: Any) -> Dataset:
    return mammogram(projection, phantom(projection, rows), **changes)


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "images").rglob("*.dcm"))


def give_results(database: Database, clock: Clock, count: int = 2, destination: str = "pacs") -> list[str]:
    """Give an exam objects to send; their UIDs."""
    for projection in Projection:
        arrival = Arrival(f"1.2.{projection}", "1.2", str(projection), f"{projection}.dcm", projection.value, None, "S")
        database.add(arrival, 0.0, settle_s=1.0, settle_incomplete_s=1.0)
    claim = database.claim("w", clock.now, lease_s=10, most_tries=3)
    assert claim is not None
    made = []
    for _ in range(count):
        pixels = np.zeros((8, 8), np.uint16)
        dataset = mammogram(stored=pixels, SOPClassUID=SecondaryCaptureImageStorage, SOPInstanceUID=generate_uid())
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        made.append((MadeObject("card", str(dataset.SOPInstanceUID), encoded(dataset)), [destination]))
    assert database.complete(claim, "key", {}, made, clock.now)
    return [made_object.sop_uid for made_object, _ in made]


def encoded(dataset: Dataset) -> bytes:
    content = BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()
