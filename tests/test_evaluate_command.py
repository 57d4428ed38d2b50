"""`mammodensity evaluate` on tables written by hand: patients, groups, curves, subsets of views."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mammodensity.evaluation.figures import evaluate_table
from mammodensity.evaluation.labels import read_labels
from mammodensity.evaluation.score_tables import read_score_table
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
    assert "too few" not in output
    assert "whole exam" in output
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
    assert "intervals over exams, as there is no patient_id" in output
    assert without["subject"]["patients"] is None
    found, _ = evaluated(run, (tables[0], labels), "--manifest", tables[1])
    assert found["subject"]["patients"] == 30
    assert found["subject"]["accuracy"] == without["subject"]["accuracy"]
    assert found["subject"]["intervals"] != without["subject"]["intervals"]


def test_few_exams_are_named(run, tables):
    for table, rows in zip(tables, (2 * len(PROJECTIONS), 2), strict=True):
        table.write_text("".join(table.read_text().splitlines(keepends=True)[: 1 + rows]))
    _, output = evaluated(run, tables)
    assert "warning: only 2 exams: too few to rely on" in output


def test_groups(run, tables):
    figures, output = evaluated(run, tables, "--by", "vendor")
    by = figures["by"]
    assert (by["column"], by["bands"]) == ("vendor", None)
    assert [(group["value"], group["n"]) for group in by["groups"]] == [("Fuji", 20), ("GE", 40)]
    assert by["groups"][0]["warnings"][0] == "only 20 exams: too few to rely on"
    assert "note: vendor Fuji: only 20 exams" in output
    counts = [np.array(group["figures"]["confusion"]) for group in by["groups"]]
    assert (sum(counts) == figures["subject"]["confusion"]).all()
    assert list(figures["breast_density_fl"]) == ["overall", "Fuji", "GE"]


def test_bands_of_numbers(run, tables):
    figures, output = evaluated(run, tables, "--by", "age", "--bands", "50,80")
    assert [group["value"] for group in figures["by"]["groups"]] == ["below 50", "50 to below 80", "80 and above"]
    assert [group["n"] for group in figures["by"]["groups"]] == [10, 30, 20]
    assert "50 to below 80" in output


def test_curve_and_subsets_stand_beside_the_levels(run, tables):
    plain, _ = evaluated(run, tables)
    assert "view_subsets" not in plain
    assert "by" not in plain
    figures, output = evaluated(run, tables, "--subsets")
    curve = figures["reject_curve"]
    assert curve["points"][0]["accuracy"] == figures["subject"]["accuracy"] == curve["area_random"]
    assert curve["points"][0]["kept"] == curve["n"] == EXAMS
    subsets = figures["view_subsets"]
    assert [one["views"] for one in subsets["combinations"]][4] == ["CC_R", "CC_L"]
    assert subsets["combinations"][14]["accuracy"] == figures["subject"]["accuracy"]
    assert subsets["combinations"][0]["linear_kappa"] == pytest.approx(figures["CC_R"]["linear_kappa"])
    assert "mean of 2 views" in output
    assert "if the 20 % least certain exams (12 of 60) go to a radiologist: accuracy" in output


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--by", "site"), 1, "no column 'site' to put exams into groups: "),
        (("--by", "age"), 1, "column age has 60 different numbers, expected at most 12 groups"),
        (("--bands", "40"), 2, "--bands needs --by COLUMN"),
        (("--by", "age", "--bands", "50,40"), 2, "--bands must be rising numbers"),
    ],
)
def test_mistakes_end_in_one_line(run, tables, options, code, message):
    table, manifest = tables
    found, _, error = run("evaluate", "--csv", table, "--labels", manifest, "--bootstrap", 10, *options)
    assert found == code
    assert message in error
    assert error.count("\n") == 1
