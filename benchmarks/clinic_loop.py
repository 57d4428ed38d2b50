"""Show the loop with a PACS: Orthanc sends phantom exams to the node; report and card come back into the same study.

    python benchmarks/clinic_loop.py [--exams 2]

Needs Orthanc (Debian: apt-get install orthanc). Everything listens on loopback and is stopped at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

_WAIT_S = 300


class Orthanc:
    """A PACS of its own on loopback, in a folder of its own."""

    def __init__(self, folder: Path, node_port: int, **settings: Any) -> None:
        folder.mkdir()
        self.dicom_port, self._http_port = free_port(), free_port()
        configuration = {
            "Name": "PACS",
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": self._http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "PACS",
            "DicomModalities": {"node": ["MAMMODENSITY", "127.0.0.1", node_port]},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [],
            **settings,
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log)
        self._wait()

    def _wait(self) -> None:
        for _ in range(200):
            with suppress(OSError):
                self.get("/system")
                return
            time.sleep(0.1)
        raise SystemExit("Orthanc did not start; its log says why")

    def get(self, path: str, content: bytes | None = None) -> Any:
        """Ask Orthanc's REST interface; ``content`` is posted."""
        with urlopen(Request(f"http://127.0.0.1:{self._http_port}{path}", data=content), timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def wait_for_node(self) -> None:
        """Wait until the node answers a C-ECHO."""
        for _ in range(120):
            with suppress(OSError):
                self.get("/modalities/node/echo", b"{}")
                return
            time.sleep(0.5)
        raise SystemExit("the node did not start; the lines above say why")

    def add(self, files: list[Path]) -> None:
        """Put DICOM files into the PACS."""
        for file in files:
            self.get("/instances", file.read_bytes())

    def send(self, study: str) -> None:
        """Let the PACS send a study to the node."""
        self.get("/modalities/node/store", json.dumps(study).encode())

    def kinds(self, study: str) -> Counter[str]:
        """How many objects of each modality a study holds."""
        instances = self.get(f"/studies/{study}/instances?short")
        return Counter(self.get(f"/instances/{one['ID']}/simplified-tags")["Modality"] for one in instances)

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()


def free_port() -> int:
    """A port on loopback that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(folder: Path, configuration: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node with this configuration, for as long as the block runs."""
    (folder / "node.toml").write_text(configuration)
    command = [sys.executable, "-m", "mammodensity", "serve", "--data", folder / "node"]
    node = subprocess.Popen([*command, "--config", folder / "node.toml"])
    try:
        yield node
    finally:
        node.terminate()
        node.wait()


def configuration(node_port: int, pacs_port: int) -> str:
    """A node that takes images from the PACS and sends results back to it."""
    return f"""
dicom_port = {node_port}
settle_s = 2.0
settle_incomplete_s = 10.0
[[senders]]
ae_title = "PACS"
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
"""


def main() -> None:
    """Run the loop and print what is where."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--exams", type=int, default=2)
    exams = options.parse_args().exams
    if shutil.which("Orthanc") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing Orthanc", flush=True)
        subprocess.run("apt-get update -qq && apt-get install -y -qq orthanc >/dev/null 2>&1", shell=True, check=False)
    if shutil.which("Orthanc") is None:
        raise SystemExit("Orthanc is not installed; on Debian and Ubuntu: apt-get install orthanc")
    with tempfile.TemporaryDirectory(prefix="mammodensity-clinic-") as name:
        folder, node_port = Path(name), free_port()
        phantom = ["phantom", "--exams", str(exams), "--size", "1024", "--bits", "16", "--dicom"]
        subprocess.run([sys.executable, "-m", "mammodensity", *phantom, folder / "phantoms"], check=True)
        pacs = Orthanc(folder / "pacs", node_port)
        try:
            with serving(folder, configuration(node_port, pacs.dicom_port)):
                pacs.wait_for_node()
                pacs.add(sorted((folder / "phantoms" / "dicom").rglob("*.dcm")))
                studies = pacs.get("/studies")
                for study in studies:
                    pacs.send(study)
                started = time.monotonic()
                while any({"SR", "OT"} - pacs.kinds(study).keys() for study in studies):
                    if time.monotonic() - started > _WAIT_S:
                        raise SystemExit("no report came back; the lines above say why")
                    time.sleep(1)
                print(f"reports and cards came back after {time.monotonic() - started:.0f} s")
                for study in studies:
                    held = ", ".join(f"{count} {kind}" for kind, count in sorted(pacs.kinds(study).items()))
                    print(f"study {study}: {held}")
                status = [sys.executable, "-m", "mammodensity", "serve", "--data", folder / "node", "--status"]
                subprocess.run(status, check=True)
        finally:
            pacs.stop()


if __name__ == "__main__":
    main()
