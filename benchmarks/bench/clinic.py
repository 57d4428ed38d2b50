"""Processes on loopback: a PACS (Orthanc), a node (`mammodensity serve`), and a database (PostgreSQL)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from pydicom import dcmread
from pydicom.dataset import Dataset

_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DICOMWEB_PLUGINS = [str(_DICOMWEB)] if _DICOMWEB.exists() else []
"""For ``Plugins``: that of DICOMweb where it is installed."""


class Orthanc:
    """A PACS in a folder of its own.

    Parameters
    ----------
    settings
        Of Orthanc, besides ours.
    """

    def __init__(self, folder: Path, node_port: int, **settings: Any) -> None:
        folder.mkdir()
        self._folder, self.dicom_port, self._http_port = folder, free_port(), free_port()
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
        self._configuration = configuration
        self.configure()
        self.start()

    def configure(self, **settings: Any) -> None:
        """Change settings; they hold from the next start on."""
        self._configuration |= settings
        (self._folder / "orthanc.json").write_text(json.dumps(self._configuration))

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        with (self._folder / "log").open("a") as log:
            command = ["Orthanc", self._folder / "orthanc.json"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: self._answers("/system"), 30, "Orthanc did not start; its log says why")

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def get(self, path: str, content: bytes | None = None) -> Any:
        """What Orthanc's REST interface answers; ``content`` is posted."""
        with urlopen(self._request(path, content), timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def _request(self, path: str, content: bytes | None = None) -> Request:
        return Request(f"http://127.0.0.1:{self._http_port}{path}", data=content)

    def _answers(self, path: str, content: bytes | None = None) -> bool:
        with suppress(OSError):
            self.get(path, content)
            return True
        return False

    def wait_for_node(self) -> None:
        """Wait until the node answers a C-ECHO."""
        echo = "/modalities/node/echo"
        wait_for(lambda: self._answers(echo, b"{}"), 60, "the node did not start; the lines above say why")

    def add(self, files: Iterable[Path]) -> None:
        """Put DICOM files into the PACS."""
        for file in files:
            self.get("/instances", file.read_bytes())

    def send(self, study: str) -> None:
        """Let the PACS send a study, by Orthanc's name for it, to the node."""
        self.get("/modalities/node/store", json.dumps(study).encode())

    def objects(self) -> list[Dataset]:
        """Every object that the PACS holds."""
        found = []
        for name in self.get("/instances"):
            with urlopen(self._request(f"/instances/{name}/file"), timeout=60) as answer:
                found.append(dcmread(BytesIO(answer.read())))
        return found

    def kinds(self, study: str) -> Counter[str]:
        """How many objects of each modality a study holds, by Orthanc's name for it."""
        instances = self.get(f"/studies/{study}/instances?short")
        return Counter(self.get(f"/instances/{one['ID']}/simplified-tags")["Modality"] for one in instances)


class NodeProcess:
    """A node with its data in a folder; its log lines go to ``node.log`` in there, or to the terminal.

    Parameters
    ----------
    configuration
        As TOML.
    """

    def __init__(self, folder: Path, configuration: str, *, to_terminal: bool = False) -> None:
        self.data, self._to_terminal = folder / "node", to_terminal
        self.log_file = folder / "node.log"
        self._config = folder / "node.toml"
        self._config.write_text(configuration)
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        command = [sys.executable, "-m", "mammodensity", "serve", "--data", self.data, "--config", self._config]
        with self.log_file.open("a") as log:
            stream = None if self._to_terminal else log
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)

    def stop(self) -> int:
        """Stop it as an init system does; returns its exit code."""
        self.process.terminate()
        return self.process.wait()

    def kill(self) -> None:
        """Kill the node, but not its workers: they see that it is gone."""
        self.process.kill()
        self.process.wait()

    def workers(self) -> list[int]:
        """The process numbers of its workers."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(words[1]) == self.process.pid:
                    found.append(int(folder.name))
        return found

    def kill_worker(self) -> None:
        """Kill one of its workers, where there is one."""
        for number in self.workers()[:1]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def log(self) -> list[dict[str, str]]:
        """Its log lines."""
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def configuration(node_port: int, pacs_port: int, **settings: object) -> str:
    """A node, as TOML, that takes images from the PACS and SCANNER and sends results to the PACS."""
    values = {"dicom_port": node_port, "settle_s": 2.0, "settle_incomplete_s": 10.0, "least_free_gb": 0.01} | settings
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(
        [
            *lines,
            "[web]\nport = 0",
            '[[senders]]\nae_title = "PACS"',
            '[[senders]]\nae_title = "SCANNER"',
            '[[senders]]\nae_title = "ELSEWHERE"\naddress = "10.9.8.7"',
            f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs_port}\n',
        ]
    )


@contextmanager
def postgresql() -> Iterator[str | None]:
    """The URL of a PostgreSQL server, for as long as the block runs; None where this user cannot start one."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or shutil.which("runuser") is None or os.geteuid() != 0:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mammodensity-postgresql-", dir="/tmp") as folder:
        shutil.chown(folder, "postgres")

        def run(program: str, *arguments: str) -> None:
            command = ["runuser", "-u", "postgres", "--", str(programs[-1] / program), *arguments]
            subprocess.run(command, check=True, capture_output=True, cwd="/")

        run("initdb", "-D", f"{folder}/data", "--auth", "trust")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run("pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")


def free_port() -> int:
    """A port on loopback that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Wait until a condition holds.

    Raises
    ------
    AssertionError
        It did not hold in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.2)
