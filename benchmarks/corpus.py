"""Mutate sound inputs by kind, have the program read them, and count what it makes of them.

python benchmarks/corpus.py [--seed N] [--files 10000] [--only KIND ...] [--index I --write FOLDER]

Sound inputs are built from phantoms: DICOM files in every syntax that is read, pictures, tables and model folders. Each
case follows from the seed and its number alone. Cases are judged in processes of their own, with limits of time and
memory. What is judged is kept in .benchmark: stopped (Ctrl-C), the same command goes on, unless the program has
changed.
`make corpus` is the whole of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from bench.report import renewed  # noqa: E402
from mutation.cases import KINDS, make_case  # noqa: E402
from mutation.judge import OUTCOMES  # noqa: E402
from mutation.processes import Entry, judged, judged_apart  # noqa: E402
from mutation.sound import keep_phantoms, left_out  # noqa: E402

WORK = ROOT / ".benchmark" / "corpus"
PAGE = ROOT / "docs" / "measurements.md"
_TITLES = {
    "refused": "refused",
    "flagged": "accepted with a warning or flag",
    "unchanged": "accepted, content equal",
    "nearly": "accepted, differs by less than the limit",
    "different": "accepted, materially different",
    "crashed": "crashed",
    "hung": "hung",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the corpus; 0, 1 where a case was accepted wrongly, crashed or hung, 130 after Ctrl-C."""
    given = _parser().parse_args(arguments)
    WORK.mkdir(parents=True, exist_ok=True)
    keep_phantoms(WORK)
    if given.index is not None:
        return _one(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name, reason in left_out().items():
        print(f"corpus: {name} is left out: {reason}", file=sys.stderr)
    try:
        entries = _judged(given)
    except KeyboardInterrupt:
        print("corpus: interrupted; judged cases are kept, the same command goes on", file=sys.stderr)
        return 130
    table = table_of(entries)
    print(table)
    bad = [entry for entry in entries if entry.outcome in ("different", "crashed", "hung")]
    for entry in bad:
        print(f"{entry.outcome}: {given.seed} {entry.index} [{entry.kind}] {entry.change} -> {entry.text}")
    if given.page:
        PAGE.write_text(renewed(PAGE.read_text(), {"corpus": table}))
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=10_000, help="cases of the corpus")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="judge these kinds")
    parser.add_argument("--workers", type=int, default=2, help="processes that judge")
    parser.add_argument("--again", action="store_true", help="judge anew what is judged")
    parser.add_argument("--small", action="store_true", help="no image as large as a mammogram")
    parser.add_argument("--page", action="store_true", help="write the table to docs/measurements.md")
    parser.add_argument("--index", type=int, help="judge this case alone")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="with --index: write its files to a new folder")
    return parser


def _one(given: argparse.Namespace) -> int:
    """Judge one case in this process; write its files where that is asked for."""
    entry = judged(given.seed, given.index, real_sizes=not given.small)
    print(json.dumps(asdict(entry), indent=2))
    if given.write:
        given.write.mkdir(parents=True)
        print(make_case(given.seed, given.index, real_sizes=not given.small).write(given.write))
    return 0


def _judged(given: argparse.Namespace) -> list[Entry]:
    """Every case of the corpus, those judged before included, in order."""
    kept = WORK / f"seed-{given.seed}-{'small' if given.small else 'real'}-{_digest()}.jsonl"
    if given.again:
        kept.unlink(missing_ok=True)
    entries = {entry.index: entry for entry in _read(kept)}
    wanted = [index for index in range(given.files) if KINDS[index % len(KINDS)] in given.only]
    left = [index for index in wanted if index not in entries]
    columns = (
        TextColumn("corpus"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[bad]}"),
    )
    with kept.open("a") as stream, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(wanted), completed=len(wanted) - len(left), bad="")
        for entry in judged_apart(given.seed, left, given.workers, WORK, real_sizes=not given.small):
            entries[entry.index] = entry
            stream.write(json.dumps(asdict(entry)) + "\n")
            stream.flush()
            bad = Counter(one.outcome for one in entries.values())
            words = ", ".join(f"{bad[name]} {name}" for name in ("different", "crashed", "hung") if bad[name])
            progress.update(task, advance=1, bad=words)
    return [entries[index] for index in wanted]


def _read(path: Path) -> Iterable[Entry]:
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):  # the last may be half written
                yield Entry(**json.loads(line))


def _digest() -> str:
    """Digest of the program and of the corpus: what another version judged does not count."""
    digest = hashlib.sha256()
    for folder in (ROOT / "src" / "mammodensity", ROOT / "benchmarks" / "mutation"):
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def table_of(entries: Sequence[Entry]) -> str:
    """A Markdown table: a row for each kind, a column for each outcome, and the sums."""
    counts = Counter((entry.kind, entry.outcome) for entry in entries)
    kinds = [kind for kind in KINDS if any(counts[kind, outcome] for outcome in OUTCOMES)]
    lines = [["kind", "files", *(_TITLES[outcome] for outcome in OUTCOMES)], ["---"] * (2 + len(OUTCOMES))]
    for kind in kinds:
        numbers = [counts[kind, outcome] for outcome in OUTCOMES]
        lines.append([kind, *map(str, [sum(numbers), *numbers])])
    sums = [sum(counts[kind, outcome] for kind in kinds) for outcome in OUTCOMES]
    lines.append(["all", *map(str, [sum(sums), *sums])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
