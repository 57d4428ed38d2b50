"""Compare one process on all cores with two that share them, in turns: predicting exams, and training.

python benchmarks/several_processes.py [--exams 16] [--size 650] [--engines torch openvino] [--rounds 3]

Whole commands are timed, with their start. Memory is that of all processes of a command together; what they share is
counted once. Training is timed in seconds an epoch, from the second epoch on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.models.checkpoint import Checkpoint, save_checkpoint
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.phantom.exams import PhantomSpec, write_phantoms
from mammodensity.terms import PROJECTIONS
from mammodensity.workers import usable_cores


def main() -> None:
    """Print a row for each way of running: median and range of time, and the most memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=16)
    parser.add_argument("--size", type=int, default=650)
    parser.add_argument("--engines", nargs="*", default=["torch", "openvino"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(PhantomSpec(rows=arguments.size), arguments.exams, folder / "exams")
        torch.manual_seed(0)
        network = ResidualNetwork(NetworkSpec()).eval()
        for projection in PROJECTIONS:
            spec = PreprocessSpec(rows=arguments.size, columns=arguments.size)
            save_checkpoint(folder / "model" / projection, Checkpoint(network, projection, spec))
        predict = ["predict", str(folder / "exams"), "--model", str(folder / "model"), "--device", "cpu"]
        ways = {
            f"predict, {engine}, {workers}": [*predict, "--engine", engine, "--workers", str(workers)]
            for engine in arguments.engines
            for workers in (1, 2)
        }
        _report(ways, arguments.rounds)
        _report_training(folder, arguments.rounds)


def _report(ways: dict[str, list[str]], rounds: int) -> None:
    for command in ways.values():
        _run([sys.executable, "-m", "mammodensity", *command])  # exported networks are kept from then on
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, command in ways.items():
            runs[name].append(_run([sys.executable, "-m", "mammodensity", *command]))
    print(f"\n{usable_cores()} cores, {rounds} rounds in turns")
    print("| command, processes | seconds, median (range) | most memory, GB |\n|---|---|---|")
    for name, measured in runs.items():
        seconds = [duration for duration, _ in measured]
        times = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        print(f"| {name} | {times} | {max(memory for _, memory in measured) / 1e9:.2f} |", flush=True)


def _run(command: list[str], **environment: str) -> tuple[float, float]:
    """Run a command; its seconds, and the most bytes it held."""
    begin, most = time.perf_counter(), 0
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    while process.poll() is None:
        held = 0
        for part in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                held += part.memory_full_info().pss
            except psutil.Error:
                continue
        most = max(most, held)
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - begin, most


def _report_training(folder: Path, rounds: int) -> None:
    write_phantoms(PhantomSpec(rows=128), 60, folder / "training")
    train = ["train", str(folder / "training"), "--size", "128", "--epochs", "6", "--projection", "CC_R"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    cores = usable_cores()
    ways = {1: ([sys.executable, "-m"], str(cores)), 2: (torchrun, str(max(cores // 2, 1)))}
    durations: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(rounds):
        for count, (start, threads) in ways.items():
            model = folder / f"model-{count}-{turn}"
            command = [*start, "mammodensity", *train, "--model", str(model)]
            environment = {**os.environ, "OMP_NUM_THREADS": threads}
            with subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True
            ) as process:
                assert process.stderr is not None
                ends = [time.perf_counter() for line in process.stderr if line.startswith("train CC_R epoch")]
            durations[count].append((ends[5] - ends[0]) / 5)
    print("\n| train, recipe small at 128 x 128, processes | seconds an epoch, median (range) |\n|---|---|")
    for count, seconds in durations.items():
        print(f"| {count} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |")


if __name__ == "__main__":
    main()
