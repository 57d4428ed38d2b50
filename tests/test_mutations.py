"""A share of what `make corpus` and `make kills` run: mutated files, and commands killed while they write."""

from __future__ import annotations

import signal

import corpus
from mutation.cases import KINDS, make_case
from mutation.kills import commands, killed, make_jobs, uninterrupted
from mutation.processes import Entry
from mutation.sound import DICOM_NAMES, left_out

SEED = 20


def test_a_case_follows_from_seed_and_index():
    for index in range(2 * len(KINDS)):
        first, again = make_case(SEED, index), make_case(SEED, index)
        assert (first.files, first.change, first.special) == (again.files, again.change, again.special)
    others = [make_case(seed, 1).files for seed in (1, 2, 3)]
    assert others[0] != others[1] != others[2]
    assert set(left_out()) <= set(DICOM_NAMES)


def test_the_table_counts_every_case():
    entries = [
        Entry(n, KINDS[n % 3], "", outcome, "") for n, outcome in enumerate(["refused", "different", "refused"] * 4)
    ]
    table = corpus.table_of(entries)
    assert table.splitlines()[-1] == "| all | 12 | 8 | 0 | 0 | 0 | 4 | 0 | 0 |"
    assert f"| {KINDS[1]} | 4 | 0 | 0 | 0 | 0 | 4 | 0 | 0 |" in table


def test_a_killed_command_leaves_all_outputs_or_none_and_can_be_run_again(tmp_path):
    with commands() as server:
        (job,) = make_jobs(tmp_path, server, ["predict"])
        expected = uninterrupted(job, server)
        assert len(expected.files) > 1
        for number, share in ((signal.SIGKILL, 0.6), (signal.SIGTERM, 0.4), (signal.SIGINT, 0.8)):
            assert killed(job, expected, number, share, server).faults == ()
