"""`mammodensity evaluate` on tables written by hand: patients, groups, curves, subsets of views."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mammodensity.evaluation import evaluate_table, read_labels, read_score_table
from mammodensity.terms import LEVELS, PROJECTIONS

EXAMS = 60


def lines(scores: np.ndarray) -> Iterator[str]:
    for number, exam in enumerate(scores):
        for view, row in zip(PROJECTIONS, exam, strict=True):
            yield f"e{number},{view},{','.join(map(repr, map(float, row)))}\n"


@pytest.fixture
def tables(tmp_path) -> tuple[Path, Path]:
    """A score table and a manifest: two exams a patient, two vendors, ages."""
    random = np.random.default_rng(3)
    reference = random.integers(4, size=EXAMS)
    scores = random.dirichlet([1.0] * 4, (EXAMS, 4)) + 1.5 * np.eye(4)[reference][:, np.newaxis]
    scores /= scores.sum(axis=2, keepdims=True)
    table, manifest = tmp_path / "predictions.csv", tmp_path / "manifest.csv"
    table.write_text("exam_id,projection,A,B,C,D\n" + "".join(lines(scores)))
    rows = (f"e{n},p{n // 2},{'ABCD'[k]},{'GE' if n < 40 else 'Fuji'},{40 + n}\n" for n, k in enumerate(reference))
    manifest.write_text("exam_id,patient_id,density,vendor,age\n" + "".join(rows))
    return table, manifest


def evaluated(run, tables: tuple[Path, Path], *options: object) -> tuple[dict[str, object], str]:
    table, manifest = tables
    out = table.parent / "figures.json"
    arguments = ("evaluate", "--csv", table, "--labels", manifest, "--json", out, "--bootstrap", 100, *options)
    code, output, error = run(*arguments)
    assert code == 0, error
    return json.loads(out.read_text()), output


def test_intervals_are_over_patients_where_they_are_known(run, tables):
    figures, output = evaluated(run, tables)
    assert list(figures)[: len(LEVELS)] == list(LEVELS)
    assert "(intervals over 30 patients)" in output
    expected = evaluate_table(
        read_score_table(tables[0]),
        read_labels(tables[1]),
        patients={f"e{n}": f"p{n // 2}" for n in range(EXAMS)},
        bootstrap=100,
    )
    assert figures["subject"] == expected["subject"].to_dict()
    assert figures["subject"]["patients"] == 30


def test_patients_of_another_table(run, tables, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(",".join(line.split(",")[0:3:2]) + "\n" for line in tables[1].read_text().splitlines()))
    without, output = evaluated(run, (tables[0], labels))
    assert "intervals over exams, as no patient_id is known" in output
    assert without["subject"]["patients"] is None
    found, _ = evaluated(run, (tables[0], labels), "--manifest", tables[1])
    assert found["subject"]["patients"] == 30
    assert found["subject"]["accuracy"] == without["subject"]["accuracy"]
    assert found["subject"]["intervals"] != without["subject"]["intervals"]
