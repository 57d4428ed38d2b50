"""The commands, as a user types them: what they write, what they say, how they fail."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import jsonschema
import numpy as np
import pytest
from PIL import Image

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.commands import command_line as cli
from mammodensity.data.dataset import SPLITS
from mammodensity.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mammodensity.models.engines import ENGINES
from mammodensity.models.export import FORMATS
from mammodensity.models.joint import Branches, JointFusion
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.results.score_calibration import SET_KINDS
from mammodensity.scores import FUSION_METHODS, POLICIES
from mammodensity.studies.drift import PERIODS
from mammodensity.terms import CATEGORIES, LEVELS, PROJECTIONS, RESEARCH_USE_ONLY
from mammodensity.training.recipes import Precision
from mammodensity.workflows.prepare import DATA_SETS
from samples import write_blobs


@pytest.fixture
def fails(run):
    """Run a command that must fail; returns its one line of error."""

    def call(*arguments: object, code: int = 1) -> str:
        found, _, error = run(*arguments)
        lines = [line for line in error.splitlines() if line.startswith("mammodensity: ")]
        assert found == code, error
        assert len(lines) == 1, error
        assert "Traceback" not in error
        return lines[0]

    return call


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


GROUPS = {
    "Read exams": ["predict"],
    "Data": ["check", "prepare", "segment", "phantom"],
    "Train": ["train", "recipe", "train-default"],
    "Audit": ["evaluate", "calibrate", "compare", "readers", "drift", "sample-size", "report"],
    "Explain": ["explain", "counterfactual", "explain-benchmark"],
    "Clinic": ["dicom", "serve"],
    "Maintain": ["import-keras", "export", "schema"],
}


def test_help_lists_commands_in_groups_with_whole_sentences(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, output, _ = run("--version")
    assert (code, output) == (0, "mammodensity 0.1.0\n")
    code, output, _ = run("--help")
    assert code == 0
    assert "..." not in output.replace("[ARGS]...", "")
    assert max(map(len, output.splitlines())) <= 80
    listed = re.findall(r"^(?:  ([a-z-]+)  |([A-Z][a-z ]+):$)", output, re.MULTILINE)
    groups: dict[str, list[str]] = {}
    for command, group in listed:
        if group:
            groups[group] = []
        else:
            groups[list(groups)[-1]].append(command)
    assert {name: commands for name, commands in groups.items() if name != "Options"} == GROUPS
    for command in (command for commands in GROUPS.values() for command in commands):
        code, output, _ = run(command, "--help")
        assert code == 0
        assert f"Example: mammodensity {command}" in " ".join(output.split())


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        ("predict", FUSION_METHODS),
        ("predict", POLICIES),
        ("predict", SPLITS),
        ("predict", ENGINES),
        ("evaluate", FUSION_METHODS),
        ("calibrate", SET_KINDS),
        ("prepare", DATA_SETS),
        ("export", FORMATS),
        ("train", get_args(JointFusion)),
        ("train", get_args(Branches)),
        ("train", get_args(Precision)),
        ("drift", PERIODS),
    ],
)
def test_help_lists_the_choices_of_the_library(run, command, choices):
    assert f"<{'|'.join(choices)}>" in run(command, "--help")[1]


def test_phantom_and_check(run, fails, tmp_path):
    code, output, _ = run("phantom", "--exams", 4, "--size", 40, "--seed", 2, tmp_path / "data")
    assert code == 0
    assert "4 exams" in output
    code, output, _ = run("check", tmp_path / "data", "--json", tmp_path / "check.json")
    assert code == 0
    entries = json.loads((tmp_path / "check.json").read_text())
    assert len(entries) == 16
    assert all(entry["accepted"] and entry["reasons"] == [] for entry in entries)
    assert "already holds files" in fails("phantom", "--exams", 4, "--size", 40, tmp_path / "data")
    (tmp_path / "data" / "CC_R" / "A").rename(tmp_path / "data" / "CC_R" / "X")
    assert "not found" in fails("check", tmp_path / "data")
    (tmp_path / "data" / "manifest.csv").unlink()
    (tmp_path / "data" / "masks").rename(tmp_path / "masks")
    assert "unknown class folder" in fails("check", tmp_path / "data")


def test_check_fails_on_a_severe_problem(run, tmp_path):
    data = write_blobs(tmp_path / "data", 4)
    next((data / "CC_R" / "A").iterdir()).write_bytes(b"nothing")
    code, output, _ = run("check", data)
    assert code == 1
    assert re.search("error +unreadable-image +1 ", output)
    assert "not usable yet" in output


def test_train_predict_evaluate_explain_report(run, blobs, tiny_recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(tiny_recipe.to_dict()))
    model = tmp_path / "model"
    train = ("train", blobs, "--model", model, "--recipe", tmp_path / "recipe.json")
    code, output, _ = run(*train, "--epochs", 1, "--size", 24)
    assert code == 0
    assert RESEARCH_USE_ONLY in output
    assert load_checkpoint(model, "MLO_L").preprocess.rows == 24
    assert (model / "README.md").exists()

    table = tmp_path / "predictions.csv"
    code, output, _ = run("predict", blobs, "--model", model, "--csv", table, "--origin-txt", tmp_path / "txt")
    assert code == 0
    assert RESEARCH_USE_ONLY in output
    rows = rows_of(table)
    assert len(rows) == 24 * len(LEVELS)
    assert {row["projection"] for row in rows} == set(LEVELS)
    assert len((tmp_path / "txt" / "predictions_ccr.txt").read_text().splitlines()) == 24

    for source in (
        ("--csv", table, "--labels", model / "manifest.csv"),
        ("--origin", tmp_path / "txt", "--labels", tmp_path / "txt" / "rows.csv"),
    ):
        code, output, _ = run("evaluate", *source, "--json", tmp_path / "figures.json", "--bootstrap", 100)
        assert code == 0
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert list(figures)[: len(LEVELS)] == list(LEVELS)
        assert figures["subject"]["n"] == 24
        assert np.array(figures["subject"]["confusion"]).sum() == 24

    code, output, _ = run("explain", blobs, "--model", model, "--output", tmp_path / "maps", "--category", "C")
    assert code == 0
    assert len(list((tmp_path / "maps").glob("*.html"))) == 24
    code, output, _ = run(
        *("explain", blobs, "--model", model, "--output", tmp_path / "why", "--first", 2),
        *("--method", "grad-cam, occlusion", "--category", "C", "--against", "B"),
    )
    assert code == 0
    assert "2 exams" in output
    assert len(list((tmp_path / "why").glob("*.html"))) == 2
    summary = json.loads((tmp_path / "why" / "explanations.json").read_text())
    assert {(one["method"], one["category"], one["against"]) for one in summary["images"]} == {
        ("grad-cam", "C", "B"),
        ("occlusion", "C", "B"),
    }
    code, output, _ = run("report", model, "--output", tmp_path / "report.html")
    assert code == 0
    assert str(tmp_path / "report.html") in output
    assert RESEARCH_USE_ONLY in (tmp_path / "report.html").read_text()


def test_calibrated_results_and_their_schema(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 24)
    table = tmp_path / "t.csv"
    labels = tmp_path / "labels.csv"
    run("predict", data, "--model", tiny_model, "--csv", table)
    exams = sorted({row["exam_id"] for row in rows_of(table)})
    labels.write_text("exam_id,density\n" + "".join(f"{exam},{'ABCD'[n % 4]}\n" for n, exam in enumerate(exams)))
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    code, output, _ = run("calibrate", table, "--labels", labels, "--model", model, "--coverage", 0.8)
    assert code == 0
    assert "15 of 15 combinations of views calibrated, on 24 exams each" in output
    assert "covered" in output
    assert "chose its epochs, by their names: the model is overconfident" in output
    assert RESEARCH_USE_ONLY in output
    forms = ("--json", tmp_path / "r.json", "--results", tmp_path / "r.csv", "--html", tmp_path / "r.html")
    code, output, _ = run("predict", data, "--model", model, *forms, "--notification")
    assert code == 0
    results = json.loads((tmp_path / "r.json").read_text())
    code, schema, _ = run("schema")
    jsonschema.Draft202012Validator(json.loads(schema)).validate(results)
    assert [result["exam_id"] for result in results] == exams
    assert {result["prediction_set"]["coverage"] for result in results} == {0.8}
    assert all("calibration.json" in result["provenance"]["model"] for result in results)
    assert len(rows_of(tmp_path / "r.csv")) == 24
    assert "promise too much" in output
    assert "promise too much" in (tmp_path / "r.html").read_text()
    assert RESEARCH_USE_ONLY in (tmp_path / "r.html").read_text()

    code, _, error = run("predict", data, "--model", model, "--policy", "denser")
    assert code != 0
    assert "calibrated with policy mean, not denser" in error
    code, output, _ = run(
        "evaluate", "--csv", table, "--labels", labels, "--calibrate", "cv", "--json", tmp_path / "f.json"
    )
    assert code == 0
    figures = json.loads((tmp_path / "f.json").read_text())["calibration"]
    wanted = ("ece_before", "ece_after", "ece_null_low", "ece_null_high", "nll_before", "nll_after", "mean_set_size")
    assert all(isinstance(figures[name], float) for name in wanted)
    assert list(figures["coverage"]) == ["0.8", "0.9", "0.95"]


def test_a_folder_without_a_model_calibrates_the_default_model(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 24)
    run("predict", data, "--model", tiny_model, "--csv", tmp_path / "t.csv")
    (tmp_path / "labels.csv").write_text(
        "exam_id,density\n" + "".join(f"{100 + n}_1,{'ABCD'[n % 4]}\n" for n in range(24))
    )
    code, _, _ = run("calibrate", tmp_path / "t.csv", "--labels", tmp_path / "labels.csv", "--model", tmp_path / "site")
    assert code == 0
    assert {path.name for path in (tmp_path / "site").iterdir()} == {"calibration.json", "category_map.json"}


def test_one_network_is_calibrated_where_it_lies(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 24)
    shutil.copytree(tiny_model / "CC_R", tmp_path / "one")
    run("predict", data, "--model", tmp_path / "one", "--csv", tmp_path / "t.csv")
    labels = tmp_path / "labels.csv"
    labels.write_text("exam_id,density\n" + "".join(f"{100 + n}_1,{'ABCD'[n % 4]}\n" for n in range(24)))
    code, output, _ = run("calibrate", tmp_path / "t.csv", "--labels", labels, "--model", tmp_path / "one")
    assert code == 0
    assert "1 of 15 combinations" in output
    assert not (tmp_path / "one" / "category_map.json").exists()  # which would make it the default model
    code, _, _ = run("predict", data, "--model", tmp_path / "one", "--allow-missing", "--json", tmp_path / "r.json")
    assert code == 0
    result = json.loads((tmp_path / "r.json").read_text())[0]
    assert result["exam"]["views"] == ["CC_R"]
    assert result["exam"]["calibrated"]


def test_the_sets_that_were_chosen_are_shown(run, tmp_path):
    random = np.random.default_rng(4)
    lines = [
        ",".join([f"e{n}", view, *map(str, random.dirichlet([1.0] * 4))]) for n in range(24) for view in PROJECTIONS
    ]
    (tmp_path / "t.csv").write_text("exam_id,projection,A,B,C,D\n" + "\n".join(lines))
    (tmp_path / "labels.csv").write_text("exam_id,density\n" + "".join(f"e{n},{'ABC'[n % 3]}\n" for n in range(24)))
    asked = ("calibrate", tmp_path / "t.csv", "--labels", tmp_path / "labels.csv", "--model", tmp_path / "site")
    code, output, _ = run(*asked, "--sets", "class-conditional")
    assert code == 0
    assert "note: no labelled exam is of category D, which" in output
    assert "class-conditional sets for" in output
    figures = json.loads((tmp_path / "site" / "calibration.json").read_text())["figures"]
    assert f"{figures['by_kind_of_set']['class-conditional']['mean_set_size']['0.8']:.2f}" in output


def test_options_that_would_do_nothing_are_refused(run, tmp_path):
    write_blobs(tmp_path / "data", 1)
    table = tmp_path / "t.csv"
    table.write_text("exam_id,projection,A,B,C,D\ne1,subject,0.1,0.2,0.3,0.4\n")
    labels = tmp_path / "labels.csv"
    labels.write_text("exam_id,density\ne1,A\n")
    calibrate = ("calibrate", table, "--model", tmp_path / "site")
    for arguments, message in (
        (("predict", tmp_path / "data", "--coverage", 0.8), "coverage needs a calibrated model"),
        (("predict", tmp_path / "data", "--json", table, "--html", table), "must name different files"),
        (("predict", tmp_path / "data", "--notification"), "--notification adds to --json and --html"),
        (("predict", tmp_path / "data", "--identify"), "--identify adds to --json and --results and --html"),
        ((*calibrate, "--coverage", 0.8), "coverage is for scores: give their labels"),
        ((*calibrate, "--policy", "mean"), "policy is for scores: give their labels"),
        ((*calibrate, "--labels", labels, "--split", "test"), "split is for images, not for scores with labels"),
    ):
        code, _, error = run(*arguments)
        assert code == 2
        assert message in error
    code, _, error = run(*calibrate, "--labels", labels)
    assert code == 1
    assert "every score of a single view is blank or absent" in error
    code, output, error = run("evaluate", "--csv", table, "--labels", labels, "--calibrate", "cv")
    assert (code, output) == (1, "")  # before any other figure
    assert "calibration needs at least 20 labelled exams. Got 1 instead" in error
    code, _, error = run("calibrate", table, "--labels", labels, "--model", table)
    assert code == 1
    assert "is a file, expected the folder of a model" in error
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "worst"), "'worst' is not one of 'mean', 'denser'"),
        (("--coverage", 1.5), "coverage must be between 0 and 1"),
        (("--fusion", "sum"), "'sum' is not one of 'mean', 'geometric-mean', 'vote'"),
        (("--rules", "absent.json"), "cannot be used as rules"),
    ],
)
def test_wrong_settings_of_results_are_named(run, blobs, tiny_model, arguments, message):
    code, _, error = run("predict", blobs, "--model", tiny_model, *arguments)
    assert code != 0
    assert message in error


def test_named_projections_only(run, blobs, tiny_recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(replace(tiny_recipe, epochs=1).to_dict()))
    run(
        "train", blobs, "--model", tmp_path / "m", "--projection", "CC_R", "MLO_L", "--recipe", tmp_path / "recipe.json"
    )
    assert {path.name for path in (tmp_path / "m").iterdir() if path.name in PROJECTIONS} == {"CC_R", "MLO_L"}


def test_exams_whose_images_are_all_refused_are_told_apart_from_missing_views(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 2)
    for image in data.glob("*/*/100_*"):
        Image.new("L", (40, 40)).save(image)
    code, output, error = run("predict", data, "--model", tiny_model, "--allow-missing")
    assert code == 0, error
    assert "1 of 2 exams: no category (no image could be used)" in output
    assert "--allow-missing" not in output


def test_names_in_any_script_give_no_warning(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 1)
    rows = [f"\u4e73\u623f,{view},{next((data / view).rglob('*.png')).relative_to(data)}" for view in PROJECTIONS]
    (data / "manifest.csv").write_text("\n".join(["exam_id,projection,path", *rows]) + "\n")
    code, _, error = run("explain", data, "--model", tiny_model, "--output", tmp_path / "maps")
    assert code == 0, error
    assert "Glyph" not in error
    explain = ("explain", data, "--model", tiny_model, "--output", tmp_path / "x", "--json")
    assert "it is a folder; name a file in it" in run(*explain, tmp_path)[2]
    assert "is the summary that explain writes itself" in run(*explain, tmp_path / "x" / "explanations.json")[2]
    assert not (tmp_path / "x").exists()


def test_missing_views_are_said_and_evaluation_counts_them(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 4)
    next((data / "CC_R" / "A").iterdir()).unlink()
    table = tmp_path / "t.csv"
    code, output, _ = run("predict", data, "--model", tiny_model, "--csv", table)
    assert code == 0
    assert "1 of 4 exams: no category (views are missing; --allow-missing uses the views present)" in output
    blank = {row["projection"]: row for row in rows_of(table) if row["exam_id"] == "100_1"}
    assert [blank[level]["A"] == "" for level in ("CC_R", "right", "left", "subject")] == [True, True, False, True]
    assert blank["subject"]["missing"] == "CC_R"
    (tmp_path / "labels.csv").write_text("exam_id,density\n100_1,A\n101_1,B\n102_1,C\n103_1,D\n")
    code, output, _ = run("evaluate", "--csv", table, "--labels", tmp_path / "labels.csv", "--bootstrap", 50)
    assert code == 0
    assert "whole exam: 1 exam not counted (views are missing, and so scores)" in output
    run("predict", data, "--model", tiny_model, "--csv", table, "--allow-missing")
    subject = [row for row in rows_of(table) if row["projection"] == "subject" and row["exam_id"] == "100_1"]
    assert subject[0]["A"] != ""
    assert subject[0]["missing"] == "CC_R"


def test_origin_txt_of_incomplete_exams_is_refused_before_scoring(fails, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 4)
    next((data / "CC_R" / "A").iterdir()).unlink()
    arguments = ("predict", data, "--model", tiny_model, "--csv", tmp_path / "t.csv", "--origin-txt", tmp_path / "txt")
    assert "exam 100_1 lacks CC_R" in fails(*arguments)
    assert not (tmp_path / "t.csv").exists()
    assert not (tmp_path / "txt").exists()


def test_the_origins_table_in_one_command(run, shared_data, tmp_path):
    folder = shared_data / "origin" / "predictions"
    code, _, _ = run(
        "evaluate", "--origin", folder, "--labels", folder / "labels.csv", "--json", tmp_path / "figures.json"
    )
    assert code == 0
    subject = json.loads((tmp_path / "figures.json").read_text())["subject"]
    figures = ("accuracy", "macro_recall", "macro_precision", "linear_kappa", "quadratic_kappa", "dense_accuracy")
    found = [round(subject[name], 6) for name in figures]
    assert found == [0.8125, 0.812672, 0.802564, 0.778944, 0.8448, 0.890625]
    assert subject["confusion"] == [[12, 2, 0, 0], [3, 40, 7, 1], [0, 6, 42, 2], [0, 0, 3, 10]]


def test_real_images_are_predicted(run, tiny_model, shared_data, tmp_path):
    code, _, _ = run("predict", shared_data / "origin/test_images", "--model", tiny_model, "--csv", tmp_path / "t.csv")
    assert code == 0
    scored = [row for row in rows_of(tmp_path / "t.csv") if row["projection"] in PROJECTIONS and row["A"]]
    assert len(scored) == 16
    code, _, _ = run("predict", shared_data / "exams/nyu", "--model", tiny_model, "--csv", tmp_path / "nyu.csv")
    assert code == 0
    assert rows_of(tmp_path / "nyu.csv")[-1]["projection"] == "subject"


def test_mistakes_of_the_user_are_one_line(fails, blobs, tiny_model, tmp_path):
    out = tmp_path / "out.csv"
    (tmp_path / "empty").mkdir()
    assert "not found" in fails("predict", tmp_path / "absent", "--model", tiny_model, "--csv", out)
    assert "holds no PNG" in fails("predict", tmp_path / "empty", "--model", tiny_model, "--csv", out)
    assert "holds no network" in fails("predict", blobs, "--model", tmp_path / "empty", "--csv", out)
    assert "'a' is not one of 'train', 'validation', 'test'" in fails(
        "predict", blobs, "--model", tiny_model, "--csv", out, "--split", "a", code=2
    )
    assert "has no image in the validation split" in fails(
        "predict", blobs, "--model", tiny_model, "--csv", out, "--split", "validation"
    )
    assert "was asked for" in fails("predict", blobs, "--model", tiny_model, "--csv", out, "--device", "cuda:77")
    assert "--output" in fails("explain", blobs, code=2)
    assert "see mammodensity explain --help" in fails("explain", blobs, code=2)
    assert "No such command" in fails("classify", code=2)
    assert "see mammodensity --help" in fails("classify", code=2)
    assert "give either" in fails("evaluate", "--labels", out, code=2)
    assert "--labels PATH is needed" in fails("evaluate", "--csv", out, code=2)
    assert "unknown recipe" in fails("train", blobs, "--model", tmp_path / "m", "--recipe", "big", code=2)
    assert "greater than or equal to 16" in fails("train", blobs, "--model", tmp_path / "m", "--size", 4, code=2)
    assert "was asked for" in fails("train", blobs, "--model", tmp_path / "m", "--device", "cuda:77")
    assert "already holds files" in fails("train", blobs, "--model", tiny_model)
    assert "method must be one of" in fails(
        "explain", blobs, "--model", tiny_model, "--output", tmp_path / "maps", "--method", "magic", code=2
    )
    explain = ("explain", blobs, "--model", tiny_model, "--output", tmp_path / "maps")
    assert "is there 2 times" in fails(*explain, "--method", "occlusion,occlusion", code=2)
    assert "takes no layer" in fails(*explain, "--method", "occlusion", "--layer", "stages.0", code=2)
    assert "against itself" in fails(*explain, "--category", "C", "--against", "C", code=2)
    assert "not found" in fails("report", tmp_path / "absent")
    assert "not found" in fails("import-keras", tmp_path / "a.h5", "--projection", "CC_R", "--model", tmp_path / "m")
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_damaged_and_a_misplaced_checkpoint(fails, blobs, tiny_model, tmp_path):
    file = save_checkpoint(tmp_path / "model" / "CC_R", load_checkpoint(tiny_model / "CC_L"))
    arguments = ("predict", blobs, "--model", tmp_path / "model", "--csv", tmp_path / "t.csv")
    assert "is a network for CC_L, asked for CC_R" in fails(*arguments)
    file.write_bytes(file.read_bytes()[:300])
    assert "damaged" in fails(*arguments)


@pytest.fixture
def slow_model(tmp_path) -> Path:
    """Networks slow enough that Ctrl-C arrives in the middle of a prediction."""
    network = ResidualNetwork(NetworkSpec())
    for projection in PROJECTIONS:
        checkpoint = Checkpoint(network, projection, PreprocessSpec(rows=256, columns=256))
        save_checkpoint(tmp_path / "slow" / projection, checkpoint)
    return tmp_path / "slow"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_keeps_what_is_predicted_and_marks_it_incomplete(slow_model, tmp_path, workers):
    data = write_blobs(tmp_path / "data", 120)
    command = [sys.executable, "-m", "mammodensity", "predict", str(data), "--model", str(slow_model)]
    environment = {**os.environ, "COLUMNS": "120", "FORCE_COLOR": "1"}  # a bar as on a terminal
    command += ["--csv", str(tmp_path / "t.csv"), "--workers", workers]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        # a background job would ignore it; nothing runs in a thread here
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        assert process.stderr is not None
        seen = b""
        while not re.search(rb" [1-9]\d?%", seen):  # the bar has moved
            seen += process.stderr.read1()
        process.send_signal(signal.SIGINT)
        error = process.stderr.read().decode()
    assert process.returncode == 130
    assert "exams scored so far are in" in error
    assert "Traceback" not in error
    rows = rows_of(tmp_path / "t.incomplete.csv")
    assert 0 < len(rows) < 120 * len(LEVELS)
    assert len(rows) % len(LEVELS) == 0
    assert not (tmp_path / "t.csv").exists()


def test_names_cannot_drive_the_terminal(run, tmp_path):
    (tmp_path / "a").mkdir()
    write_blobs(tmp_path / "a", 1)
    (tmp_path / "a" / "CC_R" / "A" / "x\n\x1b[31m_CC_R.png").write_bytes(b"")
    _, output, _ = run("check", tmp_path / "a")
    assert r"x\n\x1b[31m_CC_R.png" in "".join(output.split()), "a table may break the name"
    assert "\x1b" not in output
    _, _, error = run("predict", tmp_path / "no\x1b[31m", "--model", tmp_path, "--csv", tmp_path / "t.csv")
    assert r"no\x1b[31m not found" in error


def test_a_pipe_is_no_data_set(run, fails, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a file nor a folder" in fails("predict", tmp_path / "pipe", "--model", "m", "--csv", "t.csv")


def test_projection_lists_are_spread_for_the_parser():
    assert cli._repeat_projection_option(["train", "CC_R", "--projection", "CC_R", "CC_L", "--epochs", "2"]) == [
        *("train", "CC_R", "--projection", "CC_R", "--projection", "CC_L", "--epochs", "2")
    ]
    assert cli._repeat_projection_option(["--projection", "CC_R", "data", "CC_L"]) == [
        *("--projection", "CC_R", "data", "CC_L")
    ]


def test_every_category_can_be_asked_for(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 1)
    for category in CATEGORIES:
        output = tmp_path / category
        assert (
            run("explain", data, "--model", tiny_model, "--output", output, "--category", category, "--arrays")[0] == 0
        )
    maps = [np.load(next((tmp_path / category).glob("*CC_L_map.npy"))) for category in CATEGORIES]
    assert not np.array_equal(maps[0], maps[3])


def test_no_input_is_written_over(fails, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 2)
    image = next((data / "CC_R" / "A").iterdir())
    network = tiny_model / "CC_R" / "network.safetensors"
    before = image.read_bytes(), network.read_bytes()
    assert "is read by this command" in fails("predict", data, "--model", tiny_model, "--csv", image)
    assert "is read by this command" in fails("predict", data, "--model", tiny_model, "--csv", network)
    assert "is read by this command" in fails("check", data, "--json", image)
    assert "is read by this command" in fails("report", tiny_model, "--output", tiny_model / "manifest.csv")
    assert "holds images" in fails("explain", data, "--model", tiny_model, "--output", image.parent)
    for inside in (data, data / "maps"):
        assert "lie one within the other" in fails("explain", data, "--model", tiny_model, "--output", inside)
    assert "is the data set itself" in fails("train", data, "--model", data, "--resume")
    (tmp_path / "labels.csv").write_text("exam_id,density\n100_1,A\n101_1,B\n")
    evaluate = ("evaluate", "--csv", tmp_path / "t.csv", "--labels", tmp_path / "labels.csv")
    assert "is read by this command" in fails(*evaluate, "--json", tmp_path / "labels.csv")
    assert (image.read_bytes(), network.read_bytes()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_command_says_so_and_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-m", "mammodensity", "phantom", "--exams", "400", "--size", "200"]
    with subprocess.Popen(
        [*command, str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        while not list(tmp_path.glob(".mammodensity.*/CC_R/*/*.png")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.stderr is not None
        error = process.stderr.read().decode()
    assert process.returncode == 130
    assert "interrupted; no output was left half-written" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_modules_load_waits_for_them(tmp_path, number):
    (tmp_path / "half_made.py").write_text(
        f"import os\nos.kill(os.getpid(), {int(number)})\nfor _ in range(1000):\n    pass\nloaded = True\n"
    )
    code = (
        "import signal, sys, time\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from mammodensity.stopping import stop_on_signals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "stop_on_signals()\n"
        "try:\n"
        "    import half_made\n"
        "    time.sleep(30)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(sys.modules['half_made'].loaded + 41)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 42


def test_no_command_prints_the_help(run):
    code, output, _ = run()
    assert code == 0
    assert "Read exams:" in output


def test_explain_without_a_network_for_the_data(fails, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 2)
    for projection in ("CC_L", "MLO_R", "MLO_L"):
        shutil.rmtree(data / projection)
    arguments = ("explain", data, "--model", tiny_model / "MLO_L", "--output", tmp_path / "maps")
    assert "has networks for MLO_L, but" in fails(*arguments)
    assert not (tmp_path / "maps").exists()


def test_first_exams_only(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 5)
    assert run("explain", data, "--model", tiny_model, "--output", tmp_path / "maps", "--first", 2)[0] == 0
    assert {path.name for path in (tmp_path / "maps").glob("*.html")} == {"100_1.html", "101_1.html"}


def test_origin_txt_rows_are_in_the_order_of_class_folders(run, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 8)
    run("predict", data, "--model", tiny_model, "--csv", tmp_path / "t.csv", "--origin-txt", tmp_path / "txt")
    rows = rows_of(tmp_path / "txt" / "rows.csv")
    assert [row["density"] for row in rows] == list("AABBCCDD")
    scores = {row["exam_id"]: row["A"] for row in rows_of(tmp_path / "t.csv") if row["projection"] == "CC_R"}
    lines = (tmp_path / "txt" / "predictions_ccr.txt").read_text().splitlines()
    assert [float(line.split()[0]) for line in lines] == [float(scores[row["exam_id"]]) for row in rows]


def test_an_incomplete_model_cannot_write_the_origins_files(fails, tiny_model, tmp_path):
    data = write_blobs(tmp_path / "data", 2)
    arguments = ("predict", data, "--model", tiny_model / "CC_R", "--csv", tmp_path / "t.csv")
    assert "need all four projections" in fails(*arguments, "--origin-txt", tmp_path / "txt")


def test_evaluate_fuses_anew_when_told_how(run, tiny_model, blobs, tmp_path):
    run("predict", blobs, "--model", tiny_model, "--csv", tmp_path / "t.csv")
    labels = tmp_path / "labels.csv"
    labels.write_text("exam_id,density\n" + "".join(f"{100 + i}_1,{CATEGORIES[i % 4]}\n" for i in range(24)))
    found = []
    for fusion in ((), ("--fusion", "mean"), ("--fusion", "vote")):
        run("evaluate", "--csv", tmp_path / "t.csv", "--labels", labels, "--json", tmp_path / "f.json", *fusion)
        found.append(json.loads((tmp_path / "f.json").read_text())["subject"]["nll"])
    assert found[0] == pytest.approx(found[1])
    assert found[0] != pytest.approx(found[2])


def test_ctrl_c_while_modules_are_loading():
    program = """
import sys

class Stop:
    def find_spec(self, name, *rest):
        if name == "mammodensity.commands.command_line":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from mammodensity.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "mammodensity: interrupted; nothing was begun\n"
