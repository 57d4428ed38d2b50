"""What has been measured so far, in one JSON file: kept after every round, so that a stopped command goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import figures
from bench.harness import BenchmarkError, rounds_of
from bench.plan import Pair

Entry = dict[str, Any]
"""A pair: its settings, the machine, the runs by label, and in the end the figures."""


def read_entries(path: Path) -> dict[str, Entry]:
    """The pairs in a file by their names; none where there is no file.

    Raises
    ------
    BenchmarkError
        It is no such file.
    """
    try:
        found: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} holds no results ({error!r}); remove it to measure anew") from error
    return found


def write_entries(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write them whole or not at all."""
    write_whole(path, json.dumps({"pairs": entries}, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text so that Ctrl-C leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def completed(
    pair: Pair,
    entries: dict[str, Entry],
    facts: Mapping[str, Any],
    interpreters: Mapping[str, str],
    say: Callable[[str], None],
) -> Iterator[Entry]:
    """Measure what is missing of a pair, in ``entries``; yields it after every round, for it to be kept.

    An entry of other settings or another machine counts as none. One that is complete is left as it is.
    """
    entry = entries.get(pair.name)
    if entry is None or any(entry[name] != value for name, value in _fixed(pair, facts).items()):
        entry = entries[pair.name] = {**_fixed(pair, facts), "runs": {}}
    if is_complete(pair, entry):
        say(f"kept from {entry['measured']}; --again measures it anew")
        return
    for _ in rounds_of(pair, interpreters, entry["runs"], say):
        entry["measured"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry["commit"] = facts["commit"]
        if is_complete(pair, entry):
            entry["figures"] = figures(pair, entry["runs"])
        yield entry


def is_complete(pair: Pair, entry: Entry) -> bool:
    """Whether every round of every program is there."""
    return all(len(entry["runs"].get(program.label, ())) >= pair.rounds for program in pair.programs)


def _fixed(pair: Pair, facts: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({"settings": pair.settings(), "machine": facts["machine"]}))
    return plain
