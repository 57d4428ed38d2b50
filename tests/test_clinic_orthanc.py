"""Storage commitment and STOW-RS with a real Orthanc."""

from __future__ import annotations

import json
import shutil
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("pynetdicom", reason="the extra clinic is not installed")
pytest.importorskip("sqlalchemy", reason="the extra clinic is not installed")

from bench.clinic import DICOMWEB_PLUGINS, Orthanc, free_port, wait_for
from clinic_parts import MG, Clock, encoded, give_results, listening, view
from mammodensity.clinic.config import ClinicConfig, Destination, Sender, StowDestination
from mammodensity.clinic.delivery import Delivery
from mammodensity.terms import Projection

pytestmark = pytest.mark.slow


@pytest.fixture
def loop(tmp_path):
    """An Orthanc with its DICOMweb plugin, if there is one, and a node that knows it."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed (Debian: orthanc)")
    node_port, clock = free_port(), Clock()
    pacs = Orthanc(tmp_path / "pacs", node_port, Plugins=DICOMWEB_PLUGINS)
    destination = Destination("pacs", "PACS", "127.0.0.1", pacs.dicom_port, commitment=True)
    senders = (Sender("PACS", report_port=pacs.dicom_port),)
    try:
        with listening(tmp_path, clock, dicom_port=node_port, senders=senders, destinations=(destination,)) as (
            _,
            database,
        ):
            yield pacs, database, clock, ClinicConfig(destinations=(destination,))
    finally:
        pacs.stop()


def until(done) -> None:
    wait_for(done, 30, "it did not happen in time")


def test_orthanc_is_told_what_the_node_holds(loop):
    pacs, database, _, _ = loop
    image = view(Projection.CC_R)
    stored = pacs.get("/instances", encoded(image))["ID"]
    pacs.send(stored)
    for objects, expected in (
        ([image.SOPInstanceUID], "Success"),
        ([image.SOPInstanceUID, "1.2.3.4"], "Failure"),
    ):
        wanted = {"DicomInstances": [{"SOPClassUID": MG, "SOPInstanceUID": uid} for uid in objects]}
        question = pacs.get("/modalities/node/storage-commitment", json.dumps(wanted).encode())["ID"]
        until(lambda: database.commitment.answer_once() == 1)
        answer = pacs.get(f"/storage-commitment/{question}")
        assert answer["Status"] == expected
        assert [item["SOPInstanceUID"] for item in answer["Success"]] == [image.SOPInstanceUID]
        assert [item["SOPInstanceUID"] for item in answer.get("Failures", ())] == objects[1:]


def test_orthanc_confirms_and_gets_again_what_it_lost(loop):
    pacs, database, clock, config = loop
    uids = give_results(database, clock)
    delivery = Delivery(config, database, clock)
    assert delivery.send_once() == 2
    (lost,) = pacs.get("/tools/lookup", uids[0].encode())
    urlopen(Request(f"http://127.0.0.1:{pacs._http_port}{lost['Path']}", method="DELETE"), timeout=10).close()
    assert database.commitment.ask_once() == 2
    until(lambda: [row["state"] for row in database.deliveries()] == ["waiting", "confirmed"])
    assert "0x0112" in database.deliveries()[0]["reason"]
    clock.now += 10
    assert delivery.send_once() == 1
    assert database.commitment.ask_once() == 1
    until(lambda: [row["state"] for row in database.deliveries()] == ["confirmed", "confirmed"])
    assert database.exams()[0]["state"] == "delivered"
    assert all(pacs.get("/tools/lookup", uid.encode()) for uid in uids)


def test_orthanc_takes_results_by_stow(loop):
    pacs, database, clock, _ = loop
    if not DICOMWEB_PLUGINS:
        pytest.skip("Orthanc's DICOMweb plugin is not installed (Debian: orthanc-dicomweb)")
    uids = give_results(database, clock)
    destination = StowDestination("pacs", f"http://127.0.0.1:{pacs._http_port}/dicom-web")
    assert Delivery(ClinicConfig(destinations=(destination,)), database, clock).send_once() == 2
    assert [row["state"] for row in database.deliveries()] == ["sent", "sent"]
    assert all(pacs.get("/tools/lookup", uid.encode()) for uid in uids)
