"""Measure this package beside Keras, and write docs/measurements.md, its picture and benchmarks/results.json.

python benchmarks/run.py [--only PART ...] [--quick] [--again]

Each peer is installed into an environment of its own below .benchmark, once. Programs are measured in turns, each in a
process of its own, and their memory from outside. What is finished is kept in .benchmark: stopped (Ctrl-C), the same
command goes on. `make benchmark` is the whole of it.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import (
    PROGRAMS,
    ROOT,
    BenchmarkError,
    completed,
    is_complete,
    progress,
    read_entries,
    write_entries,
    write_whole,
)
from bench.machine import commit, interpreter_of, machine
from bench.plan import PARTS, Pair, Scale, pairs
from bench.report import blocks, draw_curves, figures, renewed

PAGE, RESULTS = ROOT / "docs" / "measurements.md", ROOT / "benchmarks" / "results.json"
PICTURE = ROOT / "docs" / "images" / "scaling.png"
WORK = ROOT / ".benchmark"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 0, 1 after a failure, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(options)
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmark: interrupted; finished rounds are kept, the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure these parts")
    parser.add_argument("--quick", action="store_true", help="small images, few steps; prints tables, writes no page")
    parser.add_argument("--again", action="store_true", help="measure anew what is finished")
    parser.add_argument("--cores", type=int, default=2, help="processor cores a program may use")
    return parser


def _measure(options: argparse.Namespace) -> None:
    name = "quick" if options.quick else "full"
    inputs, kept = WORK / f"{name}-inputs", WORK / f"{name}.json"
    scale = Scale(options.quick, options.cores, str(inputs.relative_to(ROOT)))
    chosen = [pair for pair in pairs(scale) if pair.part in options.only]
    facts = {"machine": machine(), "commit": commit(ROOT)}
    if options.cores > facts["machine"]["cores"]:
        raise BenchmarkError(f"--cores {options.cores}: this machine has {facts['machine']['cores']}")
    entries = read_entries(kept)
    for pair in chosen if options.again else ():
        entries.pop(pair.name, None)
    environments = {program.environment for pair in chosen for program in pair.programs} - {"own"}
    interpreters = {"own": sys.executable, **{peer: interpreter_of(peer, WORK) for peer in sorted(environments)}}
    _make_inputs(inputs, 256 if options.quick else 2294)
    for number, pair in enumerate(chosen, start=1):
        place = f"[{number}/{len(chosen)}] {pair.name}: "
        for _ in completed(pair, entries, facts, interpreters, lambda text, place=place: progress(place + text)):
            write_entries(kept, entries)
    measured = {
        pair.name: {**entries[pair.name], "figures": figures(pair, entries[pair.name]["runs"])}
        for pair in chosen
        if is_complete(pair, entries[pair.name])
    }
    if options.quick:
        for name, text in blocks(chosen, measured).items():
            print(f"\n{name}\n\n{text}")
    else:
        _write(chosen, measured)


def _make_inputs(folder: Path, rows: int) -> None:
    if not folder.exists():
        progress(f"making phantoms and networks in {folder}")
        command = [sys.executable, str(PROGRAMS / "inputs.py"), str(folder), str(rows)]
        if subprocess.run(command, check=False).returncode:
            raise BenchmarkError("the images to measure on could not be made; see above")


def _write(chosen: Sequence[Pair], measured: Mapping[str, Any]) -> None:
    """Write the tables and the picture of these pairs; those of other parts stay."""
    page = renewed(PAGE.read_text(encoding="utf-8"), blocks(chosen, measured))
    curves = [pair for pair in chosen if pair.part == "scaling"]
    if curves:
        draw_curves(curves, measured, PICTURE)
    write_entries(RESULTS, {**read_entries(RESULTS), **measured})
    write_whole(PAGE, page)
    progress(f"written: {PAGE.relative_to(ROOT)}, {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
