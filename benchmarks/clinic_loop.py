"""Show the loop with a PACS: Orthanc sends phantom exams to the node; report and card come back into the same study.

    python benchmarks/clinic_loop.py [--exams 2]

Needs Orthanc (Debian: apt-get install orthanc). Everything listens on loopback and is stopped at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.clinic import NodeProcess, Orthanc, configuration, free_port

_WAIT_S = 300


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
        node = NodeProcess(folder, configuration(node_port, pacs.dicom_port), to_terminal=True)
        try:
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
            node.stop()
            pacs.stop()


if __name__ == "__main__":
    main()
