"""Try the node with real processes: a PACS, senders, kills; print what came of it, as a table.

    python benchmarks/acceptance.py [--only WORDS] [--kills 200] [--soak 1000] [--down-s 1800] [--seed 1] [--keep]

Needs Orthanc, and PostgreSQL for the soak on it (Debian: orthanc, orthanc-dicomweb, postgresql). Everything listens on
loopback and is stopped at the end. `--keep` writes the table to docs/acceptance.md. `make acceptance` is the
whole of it: some two hours.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from clinic_trials.site import Scale, Site, SkippedError  # noqa: E402
from clinic_trials.trials import TRIALS  # noqa: E402

PAGE = ROOT / "docs" / "acceptance.md"
_HEAD = """\
# The node, tried with real processes

Written by `make acceptance`: each trial starts an Orthanc, a node and senders of its own. Seconds are of this run.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; 0, or 1 where one failed."""
    given = _parser().parse_args(arguments)
    scale = Scale(given.kills, given.soak, given.down_s, given.seed)
    rows, failed = [], 0
    for trial in TRIALS:
        title = (trial.__doc__ or "").strip().rstrip(".")
        if given.only and given.only.lower() not in title.lower():
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mammodensity-trial-") as folder, Site(Path(folder), scale) as site:
            try:
                outcome = trial(site)
            except SkippedError as reason:
                outcome = f"not run: {reason}"
            except Exception as error:
                failed += 1
                outcome = f"**failed**: {error}"
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
                print("\n".join(str(line) for line in site.last_log()), file=sys.stderr)
        rows.append(f"| {title} | {outcome} | {time.monotonic() - started:.0f} |")
        print(rows[-1], flush=True)
    if given.keep:
        PAGE.write_text("\n".join([_HEAD, "| trial | outcome | s |", "|---|---|---|", *rows, ""]))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="run the trials whose title has these words")
    parser.add_argument("--kills", type=int, default=200, help="kills of node, worker and sender in the trial of kills")
    parser.add_argument("--soak", type=int, default=1000, help="exams of the soak on each database")
    parser.add_argument("--down-s", type=float, default=1800, help="seconds for which the PACS is down")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write the table to docs/acceptance.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
