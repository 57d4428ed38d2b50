"""What predict says of an exam stands wherever its maps do."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mammodensity.exam import Flag
from mammodensity.pages.explanation import title_of, told_below
from mammodensity.results.calibration import Calibration, ViewsCalibration
from mammodensity.results.result import exam_result
from mammodensity.results.score_calibration import CalibrationMap
from mammodensity.scores import ExamScores, fuse_exam
from mammodensity.terms import PROJECTIONS, DensityCategory, Projection


def scored(**others) -> ExamScores:
    views = {view: others.get(view.value, [0.02, 0.9, 0.07, 0.01]) for view in PROJECTIONS}
    present = {view: np.asarray(one, float) for view, one in views.items() if one is not None}
    return ExamScores("e1", present, fuse_exam(present))


def calibration() -> Calibration:
    one = ViewsCalibration(CalibrationMap("none"), np.tile([0.1, 0.6, 0.2, 0.1], (40, 1)), np.ones(40, dtype=np.intp))
    return Calibration({tuple(PROJECTIONS): one})


def page(columns: int = 800) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (columns, 50), (9, 9, 9)).save(stream, "PNG")
    return stream.getvalue()


def pixels(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_title_is_the_result():
    assert title_of(exam_result(scored()), None) == "Exam e1: B from 4 views"
    assert title_of(exam_result(scored(), calibration()), DensityCategory.C) == (
        "Exam e1: B from 4 views, possible B (90 %), reference C"
    )
    disagreeing = exam_result(scored(CC_L=[0, 0.1, 0.2, 0.7]))
    assert title_of(disagreeing, None) == "Exam e1: no category from 4 views"
    alone = scored(CC_L=None, MLO_R=None, MLO_L=None)
    assert title_of(exam_result(alone), None) == "Exam e1: no category from 1 view"


def test_nothing_to_tell_leaves_the_page_as_it_was():
    assert told_below(page(), exam_result(scored(), calibration()), []) == page()


def test_flags_and_warnings_stand_below_and_cover_nothing():
    result = exam_result(scored(CC_L=[0, 0.1, 0.2, 0.7]), calibration())
    flagged = pixels(told_below(page(), result, []))
    assert np.array_equal(flagged[:50], pixels(page()))
    assert flagged.shape[1] == 800
    amber = (flagged[50:, :, 0] > 200) & (flagged[50:, :, 2] < 140)
    assert amber.any()
    warned = pixels(told_below(page(), exam_result(scored(), calibration()), ["trained on phantoms"]))
    assert warned[50:].max() > 150
    assert not ((warned[50:, :, 0] > 200) & (warned[50:, :, 2] < 140)).any(), "a warning is no flag"
    uncalibrated = pixels(told_below(page(), exam_result(scored()), []))
    assert uncalibrated.shape[0] > 50, "says that it was not calibrated"


@pytest.mark.parametrize("columns", [120, 500, 1300])
def test_long_lines_are_broken(columns):
    texts = [f"word{number} " * 30 for number in range(3)]
    content = pixels(told_below(page(columns), exam_result(scored(), calibration()), texts))
    assert content.shape[1] == columns
    assert content[50:, -3:].max() == 0, "nothing runs out of the page"


def test_explain_tells_what_predict_tells(run, tmp_path):
    data = tmp_path / "ph"
    run("phantom", data, "--exams", 2, "--size", 128)
    next((data / "CC_L").glob("*/0002*.png")).unlink()
    manifest = (data / "manifest.csv").read_text().splitlines(keepends=True)
    (data / "manifest.csv").write_text("".join(row for row in manifest if not row.startswith("0002_1,0002,CC_L")))
    code, _, error = run("predict", data, "--json", tmp_path / "predicted.json")
    assert code == 0, error
    out = tmp_path / "maps"
    code, _, error = run("explain", data, "--output", out, "--json", tmp_path / "scores.json")
    assert code == 0, error
    predicted = json.loads((tmp_path / "predicted.json").read_text())
    (warning,) = {one["provenance"].pop("warnings")[0] for one in predicted}
    for path in (out / "explanations.json", tmp_path / "scores.json"):
        told = json.loads(path.read_text())
        assert told["warnings"][0] == warning
        assert [one | {"provenance": {}} for one in predicted] == told["results"]
    assert told["results"][1]["abstained"]
    assert told["results"][1]["flags"][0] == vars(Flag("missing-view", f"{Projection.CC_L} is missing"))
