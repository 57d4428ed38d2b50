"""A data set of three categories and MLO alone, as mini-MIAS is: prepared, trained and evaluated as what it is."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from mammodensity.data.dataset import read_manifest
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam
from mammodensity.errors import CheckpointError, LayoutError, OptionError, TableError
from mammodensity.evaluation.figures import evaluate_table, figures_of_merit
from mammodensity.evaluation.labels import read_labels
from mammodensity.evaluation.score_tables import read_score_table
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.checkpoint import load_checkpoint
from mammodensity.models.trained import load_model
from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.results.result import result_schema
from mammodensity.scores import fuse_exam
from mammodensity.studies.readings import read_reading
from mammodensity.terms import CATEGORIES, TISSUE, TISSUE_CATEGORIES, DensityCategory, Projection, TissueCategory

PAIRS = 18
LEVEL_OF = {"A": "F", "B": "G", "C": "G", "D": "D"}  # of these phantoms alone; no such table holds for patients


@pytest.fixture(scope="module")
def mias(tmp_path_factory) -> Path:
    """Phantoms under the names, in the arrangement and mirrored as mini-MIAS has its images."""
    folder = tmp_path_factory.mktemp("mias")
    lines = []
    for pair in range(PAIRS):
        exam = make_exam(PhantomSpec(rows=96), pair)
        for number, projection in ((2 * pair + 1, Projection.MLO_L), (2 * pair + 2, Projection.MLO_R)):
            Image.fromarray(exam.views[projection].image[:, ::-1]).save(folder / f"mdb{number:03d}.pgm")
            lines.append(f"mdb{number:03d} {LEVEL_OF[exam.category]} NORM")
    (folder / "Info.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def prepared(mias, tmp_path_factory) -> Path:
    from mammodensity.workflows.prepare import find_exams, sources_of
    from mammodensity.workflows.training_set import export_exams

    out = tmp_path_factory.mktemp("prepared") / "set"
    export_exams(sources_of(find_exams(mias)), out, workers=1)
    return out


@pytest.fixture(scope="module")
def model(prepared, tiny_recipe, tmp_path_factory) -> Path:
    """Trained by the command itself."""
    from mammodensity.commands import command_line as cli

    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.json").write_text(json.dumps(tiny_recipe.to_dict()))
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", str(prepared), "--model", str(folder / "model"), "--recipe", str(folder / "tiny.json")])
    assert not stop.value.code
    return folder / "model"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_prepared_as_what_it_is(prepared):
    rows = rows_of(prepared / "manifest.csv")
    assert {row["tissue"] for row in rows} == {row["breast_tissue"] for row in rows} == set("FGD")
    assert {row["density"] for row in rows} == {""}
    data = find_images(prepared)
    assert data.scale == TISSUE
    assert all(isinstance(record.category, TissueCategory) for record in data.records)
    assert {record.path.parent.name for record in data.records} == set("FGD")
    (prepared / "manifest.csv").rename(prepared / "kept.csv")
    try:
        assert find_images(prepared).scale == TISSUE, "class folders F and G tell"
    finally:
        (prepared / "kept.csv").rename(prepared / "manifest.csv")


def test_check_counts_the_three(prepared, run):
    code, out, _ = run("check", prepared)
    assert code == 0
    assert " F " in out
    assert " A " not in out
    assert "incomplete-exam" in out


def test_networks_of_the_projections_there_are(model, prepared):
    data = read_manifest(model / "manifest.csv")
    assert data.scale == TISSUE
    assert {path.name for path in model.iterdir() if (path / "network.safetensors").is_file()} == {"MLO_R", "MLO_L"}
    checkpoint = load_checkpoint(model, "MLO_R")
    assert checkpoint.scale == TISSUE
    assert checkpoint.network.head.out_features == 3


def test_the_test_split_is_evaluated(model):
    figures = json.loads((model / "test" / "figures.json").read_text())
    test = read_manifest(model / "manifest.csv").in_split("test")
    assert figures["subject"]["n"] == len(test.exams()) > 0
    assert np.shape(figures["subject"]["confusion"]) == (3, 3)
    assert set(figures["subject"]["auc_per_category"]) == set("FGD")
    card = (model / "README.md").read_text()
    assert "F fatty, G fatty-glandular, D dense-glandular" in card
    assert "not BI-RADS" in card


def test_predicted_and_evaluated(model, prepared, run, tmp_path):
    code, out, _ = run(
        "predict", prepared, "--model", model, "--allow-missing", "--csv", tmp_path / "p.csv", "--json",
        tmp_path / "p.json", "--results", tmp_path / "r.csv", "--html", tmp_path / "p.html",
    )  # fmt: skip
    assert code == 0
    assert "F    G    D" in out
    results = json.loads((tmp_path / "p.json").read_text())
    jsonschema.validate(results, result_schema())
    assert {tuple(result["exam"]["scores"]) for result in results} == {("F", "G", "D")}
    assert {result["most_likely"] for result in results} <= set("FGD")
    for result in results:
        assert result["exam"]["dense_probability"] == pytest.approx(result["exam"]["scores"]["D"])
    page = (tmp_path / "p.html").read_text()
    assert "dense-glandular" in page
    assert "not BI-RADS density" in page
    assert "mammodensity calibrate" not in page
    assert {result["calibration"] for result in results} == {
        "not calibrated: calibration exists for the categories A to D only"
    }
    assert set(rows_of(tmp_path / "r.csv")[0]) > set("FGD")
    code, out, _ = run("evaluate", "--csv", tmp_path / "p.csv", "--labels", prepared, "--json", tmp_path / "f.json",
                       "--subsets", "--by", "tissue", "--manifest", prepared / "manifest.csv")  # fmt: skip
    assert code == 0
    found = json.loads((tmp_path / "f.json").read_text())
    expected = evaluate_table(read_score_table(tmp_path / "p.csv"), read_labels(prepared))
    assert found["subject"]["accuracy"] == expected["subject"].accuracy
    assert found["breast_density_fl"] == {}, "the challenge is of A to D"
    assert (tmp_path / "p.csv").read_text().startswith("exam_id,projection,F,G,D,")


def test_explained_and_reported(model, prepared, run, tmp_path):
    code, _, _ = run("report", model, "--output", tmp_path / "report.html")
    assert code == 0
    page = (tmp_path / "report.html").read_text()
    assert "share on the right side of F, G against D" in page
    assert "three equal scores give 1.10" in page
    assert "Dense means D. F, G and D are categories of background tissue" in page
    data = find_images(prepared)
    exam_id, records = next(iter(data.exams().items()))
    exam = load_exam(exam_id, records)
    network = load_model(model)
    maps = explain_exam(network, exam, category=TissueCategory.G)
    assert {one.category for one in maps.maps.values()} == {TissueCategory.G}
    asked = explain_exam(network, exam, category=DensityCategory.D).maps.values()
    assert all(one.category is TissueCategory.D for one in asked), "D means this network's own"
    with pytest.raises(OptionError, match="categories are F, G, D"):
        explain_exam(network, exam, category=DensityCategory.A)
    given = ("explain", prepared, "--model", model, "--first", 1, "--category", "F", "--against")
    assert run(*given, "D", "--output", tmp_path / "maps")[0] == 0
    code, _, err = run(*given, "B", "--output", tmp_path / "others")
    assert code != 0
    assert "categories are F, G, D. Got B instead." in err


def test_what_is_made_for_a_to_d_says_so(model, prepared, run, tmp_path):
    run("predict", prepared, "--model", model, "--allow-missing", "--csv", tmp_path / "p.csv")
    manifest = prepared / "manifest.csv"
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    for reader in (one, two):
        reader.write_text("exam_id,density\n1,A\n")
    for arguments, told in (
        (("calibrate", tmp_path / "p.csv", "--labels", manifest, "--model", model), "only scores of A to D"),
        (("calibrate", prepared, "--model", tmp_path / "site"), "expected the density categories A to D"),
        (("evaluate", "--csv", tmp_path / "p.csv", "--labels", manifest, "--calibrate", "cv"), "only scores of A to D"),
        (("train", prepared, "--model", tmp_path / "joint", "--joint"), "the joint network is of A to D only"),
        (("export", "--model", model, "--format", "onnx", tmp_path / "onnx"), "only networks of A to D"),
        (("readers", tmp_path / "p.csv", manifest), "found the columns exam_id, projection, F, G, D"),
        (("compare", one, two, "--labels", manifest), "categories F, G and D"),
        (("counterfactual", prepared, "--model", model, "--output", tmp_path / "c"), "only of networks of A to D"),
    ):
        code, _, error = run(*arguments)
        assert code != 0, arguments
        assert told in error.strip().splitlines()[-1]
    assert not (tmp_path / "joint").exists()


def test_scores_and_labels_of_two_kinds_are_not_compared(model, prepared, tmp_path, run):
    run("predict", prepared, "--model", model, "--allow-missing", "--csv", tmp_path / "p.csv")
    exam = rows_of(tmp_path / "p.csv")[0]["exam_id"]
    (tmp_path / "labels.csv").write_text(f"exam_id,density\n{exam},D\n")
    with pytest.raises(TableError, match="scores are of the categories F, G, D and the labels of A, B, C, D"):
        evaluate_table(read_score_table(tmp_path / "p.csv"), read_labels(tmp_path / "labels.csv"))
    with pytest.raises(TableError, match="categories F, G and D"):
        read_reading(prepared / "manifest.csv")


def test_a_manifest_of_both_kinds_is_refused(prepared, tmp_path):
    rows = rows_of(prepared / "manifest.csv")
    mixed = tmp_path / "set"
    shutil.copytree(prepared, mixed)
    with (mixed / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows([{**rows[0], "density": "D"}, *rows[1:]])
    with pytest.raises(LayoutError, match="density categories A to D and tissue categories F, G, D"):
        read_manifest(mixed / "manifest.csv")
    with (mixed / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "breast_density"])
        writer.writeheader()
        writer.writerows([{**row, "breast_density": "C"} for row in rows])
    with pytest.raises(LayoutError, match=r"line 2: found . of the exam and C of the breast"):
        read_manifest(mixed / "manifest.csv")


def test_begun_with_networks_of_four_categories(tiny_model, tiny_recipe, prepared, tmp_path):
    from mammodensity.workflows.train import train_model

    train_model(
        find_images(prepared), tmp_path / "model", tiny_recipe, projections=[Projection.MLO_R], start=tiny_model
    )
    assert load_checkpoint(tmp_path / "model", "MLO_R").scale == TISSUE


def test_a_checkpoint_of_unknown_categories_is_refused(model, tmp_path):
    from dataclasses import replace

    from mammodensity.models.checkpoint import save_checkpoint
    from mammodensity.models.network import ResidualNetwork

    checkpoint = load_checkpoint(model, "MLO_R")
    two = ResidualNetwork(checkpoint.network.spec, 3)
    save_checkpoint(tmp_path, replace(checkpoint, network=two))
    content = (tmp_path / "network.safetensors").read_bytes()
    (tmp_path / "network.safetensors").write_bytes(content.replace(b'\\"F\\", \\"G\\"', b'\\"X\\", \\"Y\\"'))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)


def test_figures_of_three_categories():
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    found = figures_of_merit(["F", "G", "D", "D"], scores, bootstrap=0)
    assert found.accuracy == 0.75
    assert found.confusion == ((1, 0, 0), (0, 1, 0), (0, 1, 1))
    assert found.dense_accuracy == 0.75
    assert found.recall_per_category == {"F": 1, "G": 1, "D": 0.5}
    assert found.linear_kappa == pytest.approx(1 - (1 / 4) / (14 / 16)), "one of four is one off; chance by hand"
    with pytest.raises(TableError, match="reference must hold F, G, D or 0 to 2"):
        figures_of_merit(["A", "G", "D", "D"], scores)


def test_fused_scores_are_of_one_kind():
    three, four = np.full(3, 1 / 3), np.full(4, 0.25)
    assert (
        fuse_exam({Projection.MLO_R: three, Projection.MLO_L: three}, allow_missing=True)["subject"].scores is not None
    )
    with pytest.raises(TableError, match=r"must have shape \(4,\), or \(3,\)"):
        fuse_exam({Projection.MLO_R: three, Projection.MLO_L: four}, allow_missing=True)


def test_the_three_are_in_order():
    assert [one.index for one in TISSUE_CATEGORIES] == [0, 1, 2]
    assert [one.dense for one in TISSUE_CATEGORIES] == [False, False, True]
    assert len(CATEGORIES) != len(TISSUE_CATEGORIES), "the length of scores tells which they are"
