"""The node: receives exams, lets workers read them, and delivers what they made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from mammodensity.clinic.commitment import Commitment
from mammodensity.clinic.config import ClinicConfig
from mammodensity.clinic.database import Database, database_url
from mammodensity.clinic.delivery import Delivery
from mammodensity.clinic.inbox import Inbox
from mammodensity.clinic.listener import Listener
from mammodensity.clinic.log import log
from mammodensity.errors import OutputError

_PAUSE_S = 1.0
_REMOVAL_S = 600.0


class Node:
    """Everything that runs while the node serves.

    Parameters
    ----------
    folder
        Its data folder, for one node alone: images, and the SQLite database unless the configuration names another.

    Raises
    ------
    OutputError
        The folder or database cannot be used.
    """

    def __init__(self, config: ClinicConfig, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}; name another data folder") from error
        self.config, self._folder, self.clock = config, folder, time.time
        self.worker_deaths = 0
        """Workers that ended by themselves since the node was started."""
        self.database = Database(database_url(config.database, folder))
        self.inbox = Inbox(config, folder, self.database)
        self._commitment = Commitment(config, folder, self.database)
        self._listener = Listener(config, self.inbox, self._commitment)
        self._delivery = Delivery(config, self.database)
        self._stopping = threading.Event()
        self._workers: list[subprocess.Popen[str]] = []
        self._threads = [
            threading.Thread(target=self._keep_delivering, daemon=True),
            threading.Thread(target=self._keep_confirming, daemon=True),
            threading.Thread(target=self._keep_workers, daemon=True),
            threading.Thread(target=self._keep_room, daemon=True),
        ]

    def start(self) -> int:
        """Start to serve; returns the DICOM port."""
        port = self._listener.start()
        for thread in self._threads:
            thread.start()
        return port

    def stop(self) -> None:
        """Take no more exams, let workers end what they do, and stop."""
        self._listener.stop()
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            try:
                worker.wait(timeout=30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdin:
                worker.stdin.close()
        self.database.close()

    @property
    def workers_alive(self) -> int:
        """Workers that run."""
        return sum(worker.poll() is None for worker in self._workers)

    def free_bytes(self) -> int:
        """Free space of the data folder."""
        return shutil.disk_usage(self._folder).free

    def problems(self) -> list[str]:
        """Why the node cannot take, read or deliver exams now; empty when all is well."""
        problems = []
        try:
            self.database.require_answer()
        except OutputError as error:
            problems.append(str(error))
        if self.free_bytes() < self.config.least_free_gb * 1e9:
            problems.append(f"less than {self.config.least_free_gb:g} GB is free: images are refused")
        if not self.workers_alive:
            problems.append("no worker runs: exams are not read")
        if not all(thread.is_alive() for thread in self._threads):
            problems.append("a part of the node has stopped: start it again")
        return problems

    def _keep_delivering(self) -> None:
        while not self._stopping.wait(_PAUSE_S):
            try:
                self._delivery.send_once()
            except OutputError as error:
                log("database-away", reason=str(error))

    def _keep_confirming(self) -> None:
        """Answer senders that ask for storage commitment, and ask the destinations for it."""
        while not self._stopping.wait(_PAUSE_S):
            try:
                self._commitment.answer_once()
                self._commitment.ask_once()
            except OutputError as error:
                log("database-away", reason=str(error))

    def _keep_room(self) -> None:
        """Remove images whose time is over, batch after batch, and look again later."""
        removed = 0
        while not self._stopping.wait(_PAUSE_S if removed else _REMOVAL_S):
            try:
                removed = self.inbox.remove_old()
            except (OSError, OutputError) as error:
                log("not-removed", reason=str(getattr(error, "strerror", None) or error))
                removed = 0

    def _keep_workers(self) -> None:
        """Start the workers, and a new one for each that died."""
        while True:
            for dead in [worker for worker in self._workers if worker.poll() is not None]:
                log("worker-died", code=dead.returncode)
                self.worker_deaths += 1
                self._workers.remove(dead)
            while len(self._workers) < self.config.workers:
                self._workers.append(self._new_worker())
            if self._stopping.wait(_PAUSE_S):
                return

    def _new_worker(self) -> subprocess.Popen[str]:
        """A process with one thread for each library: more make an exam ten times slower on a busy machine."""
        quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1"}
        worker = subprocess.Popen(
            [sys.executable, "-m", "mammodensity.clinic.worker"],
            stdin=subprocess.PIPE,
            text=True,
            env=os.environ | quiet,
            start_new_session=True,
        )
        assert worker.stdin is not None
        worker.stdin.write(json.dumps({"config": asdict(self.config), "folder": str(self._folder)}) + "\n")
        worker.stdin.flush()
        return worker
