"""The trials: each takes a site and returns what came of it in words, or raises AssertionError."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import sop_class

from bench.clinic import postgresql, wait_for
from clinic_trials.site import Site, SkippedError, exam_images, send, send_until_taken, study_uid
from dicom_samples import modified
from mammodensity import predict
from mammodensity.terms import PROJECTIONS

_OTHERS = (
    "GrayscaleSoftcopyPresentationStateStorage",
    "KeyObjectSelectionDocumentStorage",
    "SegmentationStorage",
    "BreastTomosynthesisImageStorage",
)


def loop_with_a_pacs(site: Site) -> str:
    """Orthanc sends four views; report and card return into the same study."""
    site.open()
    _put_into_pacs(site, exam_images(1))
    (study,) = site.pacs.get("/studies")
    site.pacs.send(study)
    wait_for(lambda: {"SR", "OT"} <= site.pacs.kinds(study).keys(), 90, "report or card did not come back")
    assert len(site.pacs.get("/studies")) == 1, "a second study was made"
    try:
        found = site.pacs.get(f"/dicom-web/studies/{study_uid(1)}/series")
    except OSError:
        return "4 MG, 1 SR, 1 OT in the study (QIDO not asked: no DICOMweb plugin)"
    modalities = sorted(series["00080060"]["Value"][0] for series in found)
    assert {"MG", "OT", "SR"} <= set(modalities), f"QIDO finds {modalities}"
    held = ", ".join(f"{count} {kind}" for kind, count in sorted(site.pacs.kinds(study).items()))
    return f"{held}; QIDO finds the series {', '.join(modalities)}"


def strangers(site: Site) -> str:
    """Wrong called title, unknown calling title, known title from another address: refused and logged."""
    site.open()
    for calling, called in (("SCANNER", "OTHER"), ("STRANGER", "MAMMODENSITY"), ("ELSEWHERE", "MAMMODENSITY")):
        assert site.send(exam_images(1), calling, called) == [], f"{calling} to {called} was accepted"
    assert not site.stored(), "a file was stored"
    assert not site.database.exams(), "a row was stored"
    refusals = Counter(line["event"] for line in site.node.log() if line["event"].startswith("refused"))
    assert sum(refusals.values()) >= 3, f"the log holds {dict(refusals)}"
    return "3 of 3 refused and logged; no file, no row"


def study_sent_back(site: Site) -> str:
    """The whole study with report, card, segmentation, presentation state, key objects sent in: no new job."""
    site.open()
    _put_into_pacs(site, exam_images(1))
    (study,) = site.pacs.get("/studies")
    site.pacs.send(study)
    site.wait_for_reports(1)
    site.wait_for_state(study_uid(1), "delivered")
    others = []
    for name in _OTHERS:
        other = exam_images(1, PROJECTIONS[:1], SOPClassUID=getattr(sop_class, name), SOPInstanceUID=generate_uid())
        others += other
    _put_into_pacs(site, others)
    site.pacs.send(study)
    time.sleep(8)
    assert site.exam(study_uid(1))["revision"] == 1, "a second result was made"
    assert len(site.reports()) == 1, "a second report was made"
    return f"{sum(site.pacs.kinds(study).values())} objects accepted; still one report"


def forward_on_stable(site: Site) -> str:
    """Orthanc forwards every study that is stable, our report included: one report."""
    script = site.folder / "forward.lua"
    script.write_text(
        "function OnStableStudy(study, tags, metadata) RestApiPost('/modalities/node/store', study) end\n"
    )
    site.open(pacs={"LuaScripts": [str(script)], "StableAge": 2})
    _put_into_pacs(site, exam_images(1))
    site.wait_for_reports(1)

    def outcomes() -> Counter[str | None]:
        return Counter(line.get("outcome") for line in site.node.log() if line["event"] == "received")

    wait_for(lambda: outcomes()["same"] >= 4, 120, "Orthanc did not send again what came back")
    time.sleep(5)
    sent = outcomes()
    assert len(site.reports()) == 1, "more than one report"
    return f"{sum(sent.values())} objects arrived, {sent['same']} of them again; 1 report"


def aborted_association(site: Site) -> str:
    """An association aborted after two images, the others later: one result of four views."""
    site.open()

    def abort(association: Any, number: int) -> bool:
        if number == 2:
            association.abort()
            return False
        return True

    assert send(site.port, exam_images(1), "SCANNER", before=abort) == [0, 0], "two images were not taken"
    assert site.send(exam_images(1, PROJECTIONS[2:])) == [0, 0], "the others were not taken"
    site.wait_for_reports(1)
    (result,) = site.database.results(study_uid(1))
    assert not result["missing"], f"missing: {result['missing']}"
    return "1 report, of four views"


def cut_connection(site: Site) -> str:
    """A connection cut in the middle of an image: no partial file, and the next exam enters."""
    site.open()

    def cut(association: Any, _number: int) -> bool:
        wire = association.dul.socket.socket
        wire.sendall(b"\x04\x00\x00\x00\xff\x00" + b"\x00" * 9000)
        wire.shutdown(socket.SHUT_RDWR)
        return False

    send(site.port, exam_images(1), "SCANNER", before=cut)
    wait_for(lambda: not site.unfinished(), 20, "a partial file is left")
    assert not site.stored(), "a file was stored"
    assert site.send(exam_images(2)) == [0] * 4, "the next exam was not taken"
    return "no file of it; the next exam was taken"


def late_view(site: Site) -> str:
    """Three views, the fourth after their result: one more report, which names its predecessor."""
    site.open(settle_incomplete_s=3.0)
    site.send(exam_images(1, PROJECTIONS[:3]))
    (first,) = site.wait_for_reports(1)
    site.send(exam_images(1, PROJECTIONS[3:]))
    reports = site.wait_for_reports(2)
    (second,) = [report for report in reports if report.SOPInstanceUID != first.SOPInstanceUID]
    assert str(first.SOPInstanceUID) in str(second.PredecessorDocumentsSequence), "the predecessor is not named"
    return "2 reports; the second names the first"


def same_image_at_once(site: Site) -> str:
    """The same image five times at once: one row."""
    site.open()
    with ThreadPoolExecutor(5) as pool:
        statuses = list(pool.map(lambda _: site.send(exam_images(1, PROJECTIONS[:1])), range(5)))
    assert statuses == [[0]] * 5, f"statuses: {statuses}"
    assert site.database.counts(0).images["mammogram"] == 1, "more than one row"
    assert len(site.stored()) == 1, "more than one file"
    return "5 answered with success; 1 row, 1 file"


def other_content(site: Site) -> str:
    """The same UID with other pixels: both kept, the exam held."""
    site.open()
    (image,) = exam_images(1, PROJECTIONS[:1])
    site.send([image])
    image.PixelData = bytes(len(image.PixelData) // 2) + image.PixelData[len(image.PixelData) // 2 :]
    assert site.send([image]) == [0], "it was not taken"
    assert site.exam(study_uid(1))["state"] == "held", f"the exam is {site.exam(study_uid(1))['state']}"
    assert len(site.stored()) == 2, "not both are kept"
    return f"held: {site.exam(study_uid(1))['reason']}"


def two_senders(site: Site) -> str:
    """Two senders whose images arrive by turns: the results of the command line."""
    site.open()
    first, second = exam_images(1), exam_images(2, Manufacturer="Other")
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda pair: site.send(*pair), [(first, "PACS"), (second, "SCANNER")]))
    assert done == [[0] * 4] * 2, f"statuses: {done}"
    site.wait_for_reports(2)
    for number, images in ((1, first), (2, second)):
        folder = site.folder / f"exam{number}"
        folder.mkdir()
        for place, image in enumerate(images):
            image.save_as(folder / f"{place}.dcm")
        (expected,) = predict(folder, allow_missing=True).to_list()
        (result,) = site.database.results(study_uid(number))
        for name in ("category", "exam", "breasts", "projections", "flags"):
            assert result[name] == _plain(expected[name]), f"{name} differs"
    return "2 results, equal to those of predict"


def two_patients(site: Site) -> str:
    """Images of two patients in one study: held."""
    site.open()
    site.send([*exam_images(1, PROJECTIONS[:2]), *exam_images(1, PROJECTIONS[2:], PatientID="OTHER")])
    site.wait_for_state(study_uid(1), "held", "scored", "delivered", "failed")
    exam = site.exam(study_uid(1))
    assert exam["state"] == "held", f"the exam is {exam['state']}"
    return f"held: {exam['reason']}"


def not_usable(site: Site) -> str:
    """Raw, tomosynthesis, spot and damaged images: kept, the reason shown, and the next exam is read."""
    site.open()
    one = PROJECTIONS[:1]
    raw = exam_images(1, one, PresentationIntentType="FOR PROCESSING")
    tomosynthesis = exam_images(2, one, SOPClassUID=sop_class.BreastTomosynthesisImageStorage)  # type: ignore[attr-defined]
    spot = exam_images(3, one, ViewCodeSequence=modified("CC", "399055006", "Spot compression"))
    damaged = exam_images(4, one)
    damaged[0].PixelData = damaged[0].PixelData[:1000]
    statuses = [site.send(images)[0] for images in (raw, tomosynthesis, spot, damaged)]
    assert statuses == [0] * 4, f"statuses: {statuses}"
    site.send(exam_images(5))
    site.wait_for_state(study_uid(5), "delivered")
    unused = {image["sop_uid"]: image["code"] for image in site.database.unused()}
    codes = [unused.get(str(image[0].SOPInstanceUID)) for image in (raw, tomosynthesis, spot, damaged)]
    assert all(codes[:3]), f"codes: {codes}"
    state = site.exam(study_uid(4))
    assert codes[3] or state["state"] == "failed" or state["revision"], "nothing is said of the damaged image"
    return f"codes: {', '.join(str(code) for code in codes)}; the next exam was read"


def full_disk(site: Site) -> str:
    """A full disk: 0xA700, no half file, and it recovers alone."""
    site.folder.joinpath("node").mkdir()
    place = site.folder / "node"
    mounted = shutil.which("mount") and os.geteuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place], check=False).returncode:
        raise SkippedError("no file system can be mounted here")
    try:
        site.open(least_free_gb=0.004)
        filler = place / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(place).free - 2_000_000))
        statuses = site.send(exam_images(1))
        assert statuses in ([0xA700] * 4, []), f"statuses: {statuses}"
        assert not site.stored(), "a file was stored"
        assert not site.unfinished(), "a half file is left"
        filler.unlink()
        assert site.send(exam_images(1)) == [0] * 4, "it does not recover"
        site.wait_for_reports(1)
        return f"{'0xA700' if statuses else 'refused'}; after room was made, 1 report"
    finally:
        site.node.stop()
        if site._database is not None:
            site._database.close()
        subprocess.run(["umount", "-l", place], check=False)


def kills(site: Site) -> str:
    """SIGKILL of node, worker and sender at random moments: one report an exam."""
    site.open(pacs={"OverwriteInstances": False}, lease_s=10.0, most_tries=100, settle_incomplete_s=86400.0)
    exams = max(4, site.scale.kills // 5)
    killed = _send_and_kill(site, exams, site.scale.kills, senders=2)
    return _one_report_each(site, exams) + f", {killed} kills"


def pacs_down(site: Site) -> str:
    """The PACS is down, and killed while objects are sent: exams are read, all objects are stored once."""
    site.open(pacs={"OverwriteInstances": False})
    site.pacs.stop()
    exams = 12
    for number in range(1, exams // 2 + 1):
        assert site.send(exam_images(number)) == [0] * 4, "an exam was not taken"
    for number in range(1, exams // 2 + 1):
        site.wait_for_state(study_uid(number), "scored")
    time.sleep(site.scale.down_s)
    site.pacs.start()
    for number in range(exams // 2 + 1, exams + 1):
        site.send(exam_images(number))
    drawn = random.Random(site.scale.seed)
    for _ in range(3):
        time.sleep(drawn.uniform(0.5, 4))
        site.pacs.kill()
        site.pacs.start()
    return _one_report_each(site, exams, max(120.0, 2.5 * site.scale.down_s)) + f" after {site.scale.down_s:.0f} s"


def corrected_exam(site: Site) -> str:
    """A corrected exam, with a PACS that overwrites and one that does not: two distinct reports."""
    site.open(pacs={"OverwriteInstances": True}, settle_incomplete_s=3.0)
    for study, overwrite in ((1, True), (2, False)):
        if not overwrite:
            site.pacs.stop()
            site.pacs.configure(OverwriteInstances=False)
            site.pacs.start()
        site.send(exam_images(study, PROJECTIONS[:3]))
        site.wait_for_reports(2 * study - 1)
        site.send(exam_images(study, PROJECTIONS[3:]))
        site.wait_for_reports(2 * study)
    uids = {str(report.SOPInstanceUID) for report in site.reports()}
    assert len(uids) == 4, f"{len(uids)} distinct reports"
    return "2 and 2 distinct reports"


def idle_connections(site: Site) -> str:
    """Fifty connections that say nothing: a real exam still enters within 30 s."""
    site.open()
    idle = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(50)]
    started = time.monotonic()
    statuses = site.send(exam_images(1))
    needed = time.monotonic() - started
    for connection in idle:
        connection.close()
    assert statuses == [0] * 4, f"statuses: {statuses}"
    assert needed < 30, f"it took {needed:.0f} s"
    return f"four images taken in {needed:.1f} s"


def soak_sqlite(site: Site) -> str:
    """Soak on SQLite: four senders, two workers, random kills."""
    return _soak(site, "")


def soak_postgresql(site: Site) -> str:
    """Soak on PostgreSQL: four senders, two workers, random kills."""
    with postgresql() as url:
        if url is None:
            raise SkippedError("no PostgreSQL that can be started here")
        try:
            return _soak(site, url)
        finally:
            if site.node is not None:
                site.node.stop()


def _soak(site: Site, database: str) -> str:
    values = {"workers": 2, "lease_s": 30.0, "most_tries": 100, "settle_incomplete_s": 86400.0, "database": database}
    site.open(pacs={"OverwriteInstances": False}, **values)
    exams = site.scale.soak
    killed = _send_and_kill(site, exams, max(4, exams // 25), senders=4)
    outcome = _one_report_each(site, exams, 120 + 8.0 * exams)
    failed = [exam for exam in site.database.exams() if exam["state"] == "failed"]
    assert not failed, f"{len(failed)} exams failed"
    kept = Path(f"/proc/{site.node.process.pid}")
    descriptors = len(list((kept / "fd").iterdir()))
    memory = int((kept / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
    return f"{outcome}, {killed} kills; the node holds {memory} MB and {descriptors} descriptors at the end"


def _send_and_kill(site: Site, exams: int, times: int, *, senders: int) -> int:
    """Send exams and kill node, workers and senders meanwhile; how many were killed."""
    drawn = random.Random(site.scale.seed)
    numbers = iter(range(1, exams + 1))
    lock, problems = threading.Lock(), []

    def sender() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                if number % 5 == 0:  # a sender that dies after two images; another sends the whole exam
                    send(site.port, exam_images(number), "SCANNER", before=lambda _, place: place < 2)
                send_until_taken(site.port, exam_images(number), "SCANNER", 1800)
            except AssertionError as error:
                problems.append(error)

    threads = [threading.Thread(target=sender, daemon=True) for _ in range(senders)]
    for thread in threads:
        thread.start()
    killed = 0
    while killed < times and (any(thread.is_alive() for thread in threads) or _waiting(site)):
        time.sleep(drawn.uniform(0.5, 6))
        if drawn.random() < 0.5:
            site.node.kill()
            site.node.start()
        else:
            site.node.kill_worker()
        killed += 1
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return killed


def _waiting(site: Site) -> bool:
    return any(exam["state"] not in ("delivered", "failed", "held") for exam in site.database.exams())


def _one_report_each(site: Site, exams: int, seconds: float = 600) -> str:
    """Wait until every exam has its report in the PACS, and see that none has two."""
    wait_for(lambda: len(site.reports_of_studies()) >= exams, seconds, f"not all of {exams} exams have a report")
    time.sleep(3)
    doubled = {study: count for study, count in site.reports_of_studies().items() if count != 1}
    assert not doubled, f"{len(doubled)} exams have several reports"
    assert not site.unfinished(), "a partial file is left"
    return f"{exams} exams, {exams} reports"


def _put_into_pacs(site: Site, images: list[Dataset]) -> None:
    folder = site.folder / "put"
    folder.mkdir(exist_ok=True)
    for image in images:
        file = folder / f"{image.SOPInstanceUID}.dcm"
        image.save_as(file, enforce_file_format=True)
        site.pacs.add([file])


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


TRIALS = (
    loop_with_a_pacs,
    strangers,
    study_sent_back,
    forward_on_stable,
    aborted_association,
    cut_connection,
    late_view,
    same_image_at_once,
    other_content,
    two_senders,
    two_patients,
    not_usable,
    full_disk,
    kills,
    pacs_down,
    corrected_exam,
    idle_connections,
    soak_sqlite,
    soak_postgresql,
)
