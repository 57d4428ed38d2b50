"""The benchmark command's harness, with programs that take no time; nothing here depends on how fast anything is."""

from __future__ import annotations

import ast
import doctest
import sys

import pytest

import run as command
from bench import harness, machine, report
from bench.harness import (
    BenchmarkError,
    Worker,
    completed,
    environment_of,
    is_complete,
    read_entries,
    rounds_of,
    write_entries,
)
from bench.plan import PARTS, Pair, Program, Scale, pairs
from bench.report import COLUMNS, blocks, figures, provenance, ratios, renewed, spread, table
from samples import REPOSITORY

FACTS = {"commit": "abc", "machine": {"cores": 2, "processor": "p", "model": "1", "instructions": [], "memory_gb": 1}}
FACTS["machine"] |= {"system": "s", "python": "3"}
SELF = {"own": sys.executable}
PROGRAM = """
import sys
sys.path.insert(0, {worker!r})
import worker
held = bytearray(worker.settings.get("mb", 0) * 1024 * 1024)
for place in range(0, len(held), 4096):
    held[place] = 1
print("a library says hello")
worker.ready(versions={{"thing": "1.0"}}, gflop=3.0)

def step():
    if worker.settings.get("fails"):
        raise SystemExit("nothing to measure")
    with open({log!r}, "a") as log:
        log.write(worker.settings["name"])
    return {{"cores": worker.cores}}

worker.serve(step)
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Programs that write their names into a file, step by step."""
    path = tmp_path / "log"
    (tmp_path / "program.py").write_text(PROGRAM.format(worker=str(harness.PROGRAMS), log=str(path)))
    monkeypatch.setattr(harness, "PROGRAMS", tmp_path)
    return path


def pair(*settings, **how):
    programs = tuple(Program(each["name"], each, "program.py", cores=1) for each in settings)
    how = {"rounds": 2, "steps": 2, "baseline": "A", **how}
    return Pair("ab", "memory", ("step_s", "peak_mb", "memory_ratio", "times_as_fast"), programs, **how)


def measured(pair):
    done = {}
    for _ in rounds_of(pair, SELF, done, lambda _: None):
        pass
    return done


@pytest.mark.parametrize(
    ("together", "order"), [(False, "AAABBB" * 2), (True, "ABABAB" * 2)], ids=["process by process", "step by step"]
)
def test_programs_take_turns(log, together, order):
    done = measured(pair({"name": "A"}, {"name": "B"}, together=together))
    assert log.read_text() == order
    for runs in done.values():
        assert [(len(run["first"]), len(run["steps"])) for run in runs] == [(1, 2), (1, 2)]
        assert all(step["wall_s"] > 0 and step["cores"] == 1 for run in runs for step in run["steps"])
        assert all(run["others"] >= 0 and run["facts"]["versions"] == {"thing": "1.0"} for run in runs)


def test_memory_is_that_of_the_program_from_outside(log):
    done = measured(pair({"name": "A"}, {"name": "B", "mb": 300}, rounds=1))
    little, much = (done[name][0]["peak_mb"] for name in "AB")
    assert 280 < much - little < 340


def test_a_program_that_fails_is_told_in_a_line(log):
    with pytest.raises(BenchmarkError, match=r"^B: its program ended with 1: nothing to measure$"):
        measured(pair({"name": "A"}, {"name": "B", "fails": True}))


def test_no_program_is_left_when_measuring_stops(log):
    with pytest.raises(KeyboardInterrupt), Worker(Program("A", {"name": "A"}, "program.py", cores=1), SELF) as worker:
        worker.step()
        raise KeyboardInterrupt
    assert worker._process.returncode is not None


def test_a_stopped_command_goes_on_and_a_finished_pair_is_kept(log, tmp_path):
    both, path = pair({"name": "A"}, {"name": "B"}), tmp_path / "kept.json"
    for entry in completed(both, (entries := {}), FACTS, SELF, lambda _: None):
        write_entries(path, entries)
        assert not is_complete(both, entry)
        break  # as Ctrl-C would
    entries = read_entries(path)
    assert [len(runs) for runs in entries["ab"]["runs"].values()] == [1, 1]
    for _ in completed(both, entries, FACTS, SELF, lambda _: None):
        write_entries(path, entries)
    assert log.read_text() == "AAABBB" * 2
    assert is_complete(both, read_entries(path)["ab"])
    said = []
    assert not list(completed(both, read_entries(path), FACTS, SELF, said.append))
    assert said[0].startswith("kept from 20")
    others = [pair({"name": "A"}, {"name": "B"}, steps=1), FACTS], [both, {**FACTS, "machine": {"cores": 3}}]
    for changed, facts in others:
        next(completed(changed, (found := read_entries(path)), facts, SELF, said.append))
        assert [len(runs) for runs in found["ab"]["runs"].values()] == [1, 1], "begun anew"


def test_a_damaged_file_of_results_is_told(tmp_path):
    (tmp_path / "kept.json").write_text("{")
    with pytest.raises(BenchmarkError, match=r"holds no results .*remove it"):
        read_entries(tmp_path / "kept.json")


def test_examples():
    assert doctest.testmod(report) == (0, 4)


# --- figures and pages ----------------------------------------------------------------------------------------------


def test_spread_and_ratios():
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]) == {"median": 3.0, "low": 2.0, "high": 4.0, "count": 5}
    # both slow down in the second turn: the ratio of each turn does not
    assert ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == {"median": 2.0, "low": 2.0, "high": 2.0, "count": 3}


def made_runs(seconds, peak, **facts):
    steps = [{"wall_s": wall, "processor_s": 2 * wall} for wall in seconds]
    return [{"facts": facts, "first": [], "steps": steps, "peak_mb": peak, "others": 0.25}]


def test_a_table_of_a_pair():
    both = pair({"name": "A"}, {"name": "B"}, rounds=1)
    runs = {"A": made_runs([3.0, 3.0], 3000.0, versions={"x": "2"}), "B": made_runs([1.0, 1.5], 1500.0)}
    rows = figures(both, runs)
    assert table(both.columns, rows).splitlines() == [
        "| what | seconds per step | peak memory, MB | memory, Keras = 1 | speed, Keras = 1 |",
        "| --- | --- | --- | --- | --- |",
        "| A | 3.00 (3.00-3.00) | 3000 | 1.00 | 1.00 (1.00-1.00) |",
        "| B | 1.25 (1.00-1.50) | 1500 | 0.500 | 2.50 (2.00-3.00) |",
    ]
    entry = {**FACTS, "measured": "2026-01-02T00:00:00Z", "runs": runs, "settings": both.settings()}
    assert provenance(entry) == "<sub>2026-01-02, commit abc; p, 2 cores; x 2</sub>"


def test_only_what_is_between_markers_is_renewed():
    page = "by hand\n<!-- measured: a -->\nold\n<!-- end -->\nmore\n<!-- measured: b -->\nkept\n<!-- end -->\nend\n"
    assert renewed(page, {"a": "| new |"}) == page.replace("old", "| new |")
    assert renewed(page, {}) == page
    with pytest.raises(BenchmarkError, match="no markers for c"):
        renewed(page, {"c": ""})


# --- what is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
def test_every_pair_is_well_formed(quick):
    every = pairs(Scale(quick, 2, "inputs"))
    assert {one.part for one in every} == set(PARTS)
    page = (REPOSITORY / "docs" / "measurements.md").read_text()
    assert renewed(page, {one.name: "" for one in every if one.columns})  # has markers for all
    for one in every:
        labels = [program.label for program in one.programs]
        assert len(set(labels)) == len(labels)
        assert set(one.columns) <= set(COLUMNS)
        assert {one.baseline, one.time_baseline} <= {*labels, None}
        for program in one.programs:
            assert (harness.PROGRAMS / program.script).is_file()
            assert program.environment in {"own", *machine.PEERS}


def test_the_published_results_are_those_of_the_page():
    entries, every = read_entries(command.RESULTS), pairs(Scale(False, 2, "inputs"))
    assert set(entries) == {one.name for one in every}
    page = command.PAGE.read_text()
    assert renewed(page, blocks(every, entries)) == page
    for one in every:
        assert figures(one, entries[one.name]["runs"]) == entries[one.name]["figures"]


def test_peers_are_installed_from_pinned_versions():
    for pins in machine.PEERS.values():
        lines = [line for line in pins.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert all(line.count("==") == 1 and "@" not in line for line in lines)


def test_an_interpreter_that_is_none_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("MAMMODENSITY_BENCHMARK_KERAS", str(tmp_path / "absent"))
    with pytest.raises(BenchmarkError, match=r"MAMMODENSITY_BENCHMARK_KERAS is .*absent, which is no interpreter"):
        machine.interpreter_of("keras", tmp_path)
    monkeypatch.setenv("MAMMODENSITY_BENCHMARK_KERAS", sys.executable)
    assert machine.interpreter_of("keras", tmp_path) == sys.executable


def test_programs_get_as_many_threads_as_cores(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    own, peer = (environment_of(Program("x", environment=name, cores=3)) for name in ("own", "keras"))
    assert own["OMP_NUM_THREADS"] == own["BENCHMARK_CORES"] == "3"
    assert own["PYTHONPATH"] == "somewhere"
    assert "PYTHONPATH" not in peer


def test_more_cores_than_there_are(capsys):
    assert command.main(["--quick", "--cores", "4096"]) == 1
    assert "benchmark: --cores 4096: this machine has" in capsys.readouterr().err


SCRIPTS = sorted((REPOSITORY / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_take_from_the_package_what_it_has(script):
    """They run for an hour and in no test: a name that is gone would show only then."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mammodensity"):
            names = [one.name for one in node.names]
            module = __import__(node.module or "", fromlist=names)
            assert not [name for name in names if not hasattr(module, name)], f"{script.name}, of {node.module}"
