"""Kill commands at random moments while they write, and look at what they leave.

python benchmarks/kills.py [--only COMMAND ...] [--times 20] [--seed N]

Each command runs to its end first: when it begins to write, and what. Then it is stopped at random moments of its
writing, by SIGKILL, SIGTERM and Ctrl-C. Right after that no file may be half written, and the outputs of one command
must all be there or none. Run again, or resumed, it must give the same bytes as the uninterrupted run, times in
receipts aside, and leave no working files. `make kills` is the whole of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from mutation.kills import JOBS, commands, kill_often, make_jobs  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill and compare; 0, or 1 where something was left wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=JOBS, help="kill these commands")
    parser.add_argument("--times", type=int, default=20, help="kills of each command by each signal")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, commands() as server:
        jobs = make_jobs(Path(folder), server, given.only)
        for kill in kill_often(jobs, server, given.times, given.seed, print):
            counts[kill.job, "kills"] += 1
            counts[kill.job, "hit"] += kill.hit
            counts[kill.job, "faults"] += bool(kill.faults)
            for fault in kill.faults:
                print(f"{kill.job}, {kill.signal} after {kill.after_s:.3f} s: {fault}")
    print("| command | kills | before its end | with a fault |\n| --- | --- | --- | --- |")
    for name in given.only:
        print(f"| {name} | {counts[name, 'kills']} | {counts[name, 'hit']} | {counts[name, 'faults']} |")
    return 1 if any(counts[name, "faults"] for name in given.only) else 0


if __name__ == "__main__":
    sys.exit(main())
