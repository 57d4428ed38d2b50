"""The jobs as functions of the library: the same results as the commands, and nothing printed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import mammodensity
from dicom_samples import save_exam
from mammodensity.anatomy.density import DEFAULT_MAP
from mammodensity.commands.reading import show_results
from mammodensity.data.dataset import DataSet
from mammodensity.data.find import find_all_images, find_images
from mammodensity.data.images import load_exam
from mammodensity.errors import Interrupted, LayoutError, OptionError
from mammodensity.results.result import exam_result, result_columns, result_schema, write_result_table
from mammodensity.scores import ExamScores, fuse_exam
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection
from samples import write_blobs


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Two exams, each in a folder of its own."""
    root = tmp_path_factory.mktemp("two")
    for number, record in enumerate(find_images(write_blobs(root / "data", 2)).records):
        place = root / f"exam{record.exam_id}" / record.path.name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(record.path.read_bytes())
        assert number < 8
    return root


def write_table(folder: Path, exams: int, categories: str = "ABCD") -> None:
    """A table of random scores, and labels."""
    random = np.random.default_rng(4)
    rows = [
        ",".join([f"e{n}", view, *map(repr, map(float, random.dirichlet([1.0] * 4)))])
        for n in range(exams)
        for view in PROJECTIONS
    ]
    (folder / "t.csv").write_text("exam_id,projection,A,B,C,D\n" + "\n".join(rows))
    labels = (f"e{n},{categories[n % len(categories)]}\n" for n in range(exams))
    (folder / "labels.csv").write_text("exam_id,density\n" + "".join(labels))


def test_predict_gives_what_the_command_writes(run, two, tiny_model, tmp_path):
    calls = []
    done = mammodensity.predict(two / "data", model=tiny_model, progress=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]
    code, output, _ = run("predict", two / "data", "--model", tiny_model, "--json", tmp_path / "r.json", "--all")
    assert code == 0
    assert "2 exams: " in output
    assert json.loads(json.dumps(done.to_list())) == json.loads((tmp_path / "r.json").read_text())
    assert done.refused == []
    assert done.model_name.startswith("model (files ")


def test_a_loaded_model_and_an_exam_in_memory_give_the_same(two, tiny_model, capsys):
    data = find_images(two / "data")
    model = mammodensity.load_model(tiny_model)
    done = mammodensity.predict(data, model=model)
    exam_id, records = next(iter(data.exams().items()))
    alone = mammodensity.predict(load_exam(exam_id, records), model=model)
    assert alone.to_list() == done.to_list()[:1]
    assert capsys.readouterr() == ("", "")
    with pytest.raises(OptionError, match="several workers each load the model"):
        mammodensity.predict(data, model=model, workers=2)


def test_several_paths(two, tiny_model):
    first, second = two / "exam100_1", two / "exam101_1"
    done = mammodensity.predict([first, second], model=tiny_model)
    assert [result.exam_id for result in done.results] == [first.name, second.name]
    views = sorted(first.iterdir())[:2]
    part = mammodensity.predict(views, model=tiny_model, allow_missing=True)
    assert [result.exam_id for result in part.results] == [first.name]
    assert part.results[0].missing == (Projection.MLO_R, Projection.MLO_L)
    assert find_all_images([first, first]) == find_images(first)
    (two / "other" / first.name).mkdir(parents=True)
    for view in views:
        (two / "other" / first.name / view.name).write_bytes(view.read_bytes())
    with pytest.raises(LayoutError, match=f"exam {first.name} is in .* and in .*other"):
        find_all_images([first, two / "other" / first.name])


def test_results_name_their_images_on_request(run, tiny_model, tmp_path):
    facts = {"StudyDate": "20240315", "StationName": "ROOM1", "AccessionNumber": "A77", "Manufacturer": "Maker"}
    files = save_exam(tmp_path / "study", **facts)
    forms = ("--json", tmp_path / "r.json", "--results", tmp_path / "r.csv", "--html", tmp_path / "r.html")
    for identify in (False, True):
        options = ("--identify",) if identify else ()
        code, _, error = run("predict", tmp_path / "study", "--model", tiny_model, *forms, *options)
        assert code == 0, error
        results = json.loads((tmp_path / "r.json").read_text())
        jsonschema.Draft202012Validator(result_schema()).validate(results)
        texts = [(tmp_path / f"r.{kind}").read_text() for kind in ("json", "csv", "html")]
        for secret in ("A77", "ROOM1", "2024-03-15", "IM0003"):
            assert [secret in text for text in texts] == [identify] * 3, secret
    assert results[0]["sources"]["MLO_L"]["file"] == str(files[3])
    [row] = csv.DictReader((tmp_path / "r.csv").read_text().splitlines())
    assert (row["accession_number"], row["station"], row["vendor"]) == ("A77", "ROOM1", "MAKER")
    assert row["file"].split("; ") == [str(file) for file in files]


def test_the_table_has_the_density_of_each_level(tmp_path):
    views = {Projection.CC_L: np.array([0.1, 0.7, 0.2, 0.0])}
    exam = ExamScores("e", views, fuse_exam(views, allow_missing=True), {"CC_L": 33.4, "left": 33.4, "subject": 33.4})
    write_result_table(tmp_path / "r.csv", [exam_result(exam)])
    [row] = csv.DictReader((tmp_path / "r.csv").read_text().splitlines())
    assert tuple(row)[: len(result_columns())] == result_columns()
    assert tuple(row)[len(result_columns()) :] == ("percent_density_CC_L", "percent_density_left")
    assert row["percent_density_CC_L"] == row["percent_density"] == "33.40"


def test_ctrl_c_hands_over_what_is_scored(two, tiny_model):
    def stop(done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="1 of 2 exams were scored") as stopped:
        mammodensity.predict(two / "data", model=tiny_model, progress=stop)
    assert len(stopped.value.done.results) == 1


def test_percent_density_of_a_view_is_shown_without_the_others(capsys):
    views = {Projection.CC_L: np.array([0.1, 0.7, 0.2, 0.0])}
    exam = ExamScores("e", views, fuse_exam(views), {"CC_L": 33.4})
    show_results([exam_result(exam)])
    row, summary = capsys.readouterr().out.splitlines()[1:3]
    assert row.split()[:4] == ["e", "-", "B", "33%"]
    assert summary == "1 exam: 0 A, 0 B, 0 C, 0 D, 1 without a category"


def test_evaluate_gives_what_the_command_writes(run, tmp_path):
    write_table(tmp_path, 24)
    done = mammodensity.evaluate(tmp_path / "t.csv", tmp_path / "labels.csv", bootstrap=20, calibration=True)
    options = ("--bootstrap", 20, "--calibrate", "cv", "--json", tmp_path / "f.json")
    code, _, _ = run("evaluate", "--csv", tmp_path / "t.csv", "--labels", tmp_path / "labels.csv", *options)
    assert code == 0
    assert json.loads(json.dumps(done.to_dict())) == json.loads((tmp_path / "f.json").read_text())
    assert done.patients is None
    assert done.unused_labels == ()


def test_predictions_are_evaluated_with_the_labels_of_their_data(two, tiny_model, tmp_path):
    done = mammodensity.predict(two / "data", model=tiny_model)
    done.write_scores(tmp_path / "t.csv")
    by_file = mammodensity.evaluate(tmp_path / "t.csv", two / "data", bootstrap=0)
    assert mammodensity.evaluate(done, bootstrap=0).to_dict() == by_file.to_dict()
    anew = mammodensity.evaluate(done, fusion="vote", bootstrap=0).to_dict()
    assert anew == mammodensity.evaluate(tmp_path / "t.csv", two / "data", fusion="vote", bootstrap=0).to_dict()
    with pytest.raises(OptionError, match="labels are needed"):
        mammodensity.evaluate(tmp_path / "t.csv")


def test_calibrate_says_what_it_is_worth(tmp_path, capsys):
    write_table(tmp_path, 24, categories="ABC")
    done = mammodensity.calibrate(tmp_path / "t.csv", labels=tmp_path / "labels.csv", model=tmp_path / "site")
    assert done.file == tmp_path / "site" / "calibration.json"
    assert done.file.is_file()
    assert done.calibration is not None
    assert any("no labelled exam is of category D" in warning for warning in done.warnings)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(OptionError, match="split is for images"):
        mammodensity.calibrate(tmp_path / "t.csv", labels=tmp_path / "labels.csv", model=tmp_path, split="test")


def test_a_worse_category_fit_is_written_only_by_force(run, monkeypatch, tmp_path):
    """Labels in the reverse order of density: the default map is right about none, and a fit about fewer."""
    data = write_blobs(tmp_path / "data", 12)

    def scores(_model: object, exams: DataSet, **_: object) -> list[ExamScores]:
        made = []
        for number, exam_id in enumerate(exams.exams()):
            views = dict.fromkeys(PROJECTIONS, DEFAULT_MAP.scores(8.0 + 20 * (number % 4)))
            made.append(ExamScores(exam_id, views, fuse_exam(views), {"subject": 8.0 + 20 * (number % 4)}))
        return made

    monkeypatch.setattr("mammodensity.results.category_fit.predict", scores)
    monkeypatch.setattr("mammodensity.results.category_fit._held_out", lambda values, _: [CATEGORIES[0]] * len(values))
    code, output, _ = run("calibrate", data, "--model", tmp_path / "site")
    assert code == 1
    assert "agrees with fewer exams than the default map" in output
    assert "nothing was written; --force" in output
    assert not (tmp_path / "site").exists()
    code, output, _ = run("calibrate", data, "--model", tmp_path / "site", "--force")
    assert code == 0
    assert "agrees with fewer exams than the default map" in output
    assert (tmp_path / "site" / "category_map.json").is_file()


def test_importing_the_package_imports_no_torch():
    code = "import mammodensity, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
