"""The jobs as functions of the library: the same results as the commands, and nothing printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mammodensity
from mammodensity.commands.show_results import show_results
from mammodensity.data.find import find_all_images, find_images
from mammodensity.data.images import load_exam
from mammodensity.errors import Interrupted, LayoutError, OptionError
from mammodensity.results.result import exam_result
from mammodensity.scores import ExamScores, fuse_exam
from mammodensity.terms import Projection
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


def test_importing_the_package_imports_no_torch():
    code = "import mammodensity, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
