"""Peak memory and time of a training step: the joint network's, against the origin's of a single view in Keras.

python benchmarks/joint_memory.py --keras-python TFENV/bin/python [--rounds 3] [--steps 3] [--json FILE]

TFENV is any environment with tensorflow-cpu 2.21. Each step runs in a process of its own, in turns, round by round; the
peak resident memory is what the system says of the ended process (wait4). Times are of the steps after the
first, on the wall clock and of the processor; where other work keeps the machine busy only the latter compare.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BASELINE, PLAIN = "Keras, one view", "joint, plain, {precision}"


def configurations(keras: str | None, precisions: list[str], fusion: str) -> dict[str, list[str]]:
    """Each configuration's program and last arguments."""
    found: dict[str, list[str]] = {}
    if keras:
        found[BASELINE] = [keras, "keras_origin.py", "plain"]
        found[f"{BASELINE}, compiled by XLA"] = [keras, "keras_origin.py", "auto"]
    for precision in precisions:
        found[f"torch, one view, {precision}"] = [sys.executable, "joint_step.py", fusion, precision, "single"]
        for word, checkpointing in (("plain", "none"), ("lean by views", "views"), ("lean by layers", "layers")):
            found[f"joint, {word}, {precision}"] = [
                *(sys.executable, "joint_step.py", fusion, precision, checkpointing)
            ]
    return found


def measure(program: list[str], size: int, batch: int, steps: int, threads: int) -> dict[str, Any]:
    """Run one configuration; its peak memory in MB, and seconds of the steps after the first."""
    interpreter, script, *rest = program
    command = [interpreter, str(HERE / script), *map(str, (size, batch, steps + 1, threads)), *rest]
    # threads sleep while they wait, as the commands have them: spinning ones slow each other on a busy machine
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    found = json.loads(output.splitlines()[-1])
    return {"peak_mb": usage.ru_maxrss / 1024, "seconds": found["steps"][1:], "versions": found["versions"]}


def rows(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a configuration: medians, ranges, ratios to the baseline and to the plain joint step."""
    table = []
    for name, runs in results.items():
        peaks = [run["peak_mb"] for run in runs]
        wall, processor = ([step[kind] for run in runs for step in run["seconds"]] for kind in (0, 1))
        table.append(
            {
                "name": name,
                "peak_mb": statistics.median(peaks),
                "peak_range_mb": (min(peaks), max(peaks)),
                "wall_s": statistics.median(wall),
                "processor_s": statistics.median(processor),
            }
        )
    by_name = {row["name"]: row for row in table}
    baselines = [row["peak_mb"] for name, row in by_name.items() if name.startswith(BASELINE)]
    for row in table:
        plain = by_name.get(PLAIN.format(precision=row["name"].rsplit(" ", 1)[-1]))
        row["memory_ratio"] = row["peak_mb"] / min(baselines) if baselines else None
        row["time_ratio"] = row["processor_s"] / plain["processor_s"] if plain else None
    return table


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", help="interpreter of an environment with tensorflow")
    parser.add_argument("--size", type=int, default=650)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fusion", default="mean")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--only", nargs="+", help="only the steps whose names hold one of these words")
    parser.add_argument("--json", type=Path, help="also write every run to this file, and go on with those in it")
    given = parser.parse_args()
    programs = configurations(given.keras_python, given.precisions, given.fusion)
    if given.only:
        programs = {name: program for name, program in programs.items() if any(word in name for word in given.only)}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    if given.json and given.json.exists():
        stored = json.loads(given.json.read_text())["runs"]
        results = {**{name: [] for name in programs}, **stored}
    for number in range(given.rounds):
        for name, program in programs.items():
            if len(results[name]) > number:
                continue
            results[name].append(measure(program, given.size, given.batch, given.steps, given.threads))
            print(f"round {number + 1}: {name}: {results[name][-1]['peak_mb']:.0f} MB", file=sys.stderr, flush=True)
            if given.json:
                facts = {"machine": platform.processor() or platform.machine(), "load": os.getloadavg()}
                given.json.write_text(json.dumps({"runs": results, **facts, "settings": vars(given)}, default=str))
    print("| step | peak memory, MB | to Keras | wall clock, s | processor, s | to the plain joint step |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows({name: runs for name, runs in results.items() if runs}):
        low, high = row["peak_range_mb"]
        memory, time = (f"{row[key]:.2f}" if row[key] else "" for key in ("memory_ratio", "time_ratio"))
        print(
            f"| {row['name']} | {row['peak_mb']:.0f} ({low:.0f} to {high:.0f}) | {memory} | {row['wall_s']:.1f} | "
            f"{row['processor_s']:.1f} | {time} |"
        )


if __name__ == "__main__":
    main()
