"""Whether the exams of a calibration had a part in the training of its model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mammodensity.errors import CheckpointError
from mammodensity.results.calibration import (
    CALIBRATION_FILE,
    Calibration,
    Overlap,
    ViewsCalibration,
    find_overlap,
    read_calibration,
    write_calibration,
)
from mammodensity.results.score_calibration import CalibrationMap
from mammodensity.terms import PROJECTIONS

EXAMS = ("1", "2", "3", "4")
SPLITS = ("train", "train", "validation", "test")


@pytest.fixture
def model(tmp_path):
    """A model folder whose manifest names one image an exam."""
    folder = tmp_path / "model"
    folder.mkdir()
    rows = ["exam_id,patient_id,projection,path,density,split"]
    for exam_id, split in zip(EXAMS, SPLITS, strict=True):
        picture = tmp_path / "data" / f"{exam_id}.png"
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(f"picture {exam_id}".encode())
        rows.append(f"{exam_id},{exam_id},CC_R,{picture},A,{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def labels(folder, content: str):
    folder.mkdir(exist_ok=True)
    path = folder / "labels.csv"
    path.write_text(content)
    return path


def test_the_models_own_manifest_names_its_own_exams(model):
    found = find_overlap(model, model / "manifest.csv", EXAMS)
    assert found == Overlap(train=2, validation=1, test=1, by_name=0)
    assert found.trained == 3
    assert find_overlap(model, model / "manifest.csv", EXAMS[3:]) == Overlap(test=1)


def test_copies_of_images_are_known_again_and_others_of_the_same_name_are_not(model, tmp_path):
    path = labels(tmp_path / "other", "exam_id,density,path\n1,A,a.png\n2,B,b.png\n3,C,c.png\n")
    (path.parent / "a.png").write_bytes(b"picture 1")
    (path.parent / "b.png").write_bytes(b"another 2")  # as long as the picture of training exam 2
    (path.parent / "c.png").write_bytes(b"a longer picture")
    assert find_overlap(model, path, ("1", "2", "3")) == Overlap(train=1)


def test_without_images_names_decide_and_it_is_said(model, tmp_path):
    path = labels(tmp_path / "names", "exam_id,density\n1,A\n3,B\n9,C\n")
    assert find_overlap(model, path, ("1", "3", "9")) == Overlap(train=1, validation=1, by_name=2)
    shutil.rmtree(tmp_path / "data")
    assert find_overlap(model, model / "manifest.csv", EXAMS).by_name == 4


def test_a_model_without_a_manifest_says_nothing(tmp_path):
    path = labels(tmp_path / "names", "exam_id,density\n1,A\n")
    assert find_overlap(tmp_path, path, ("1",)) == Overlap()


def fitted(overlap: Overlap) -> Calibration:
    one = ViewsCalibration(CalibrationMap("none"), np.tile([0.1, 0.6, 0.2, 0.1], (40, 1)), np.ones(40, dtype=np.intp))
    return Calibration({tuple(PROJECTIONS): one}, overlap=overlap)


def test_only_training_and_validation_exams_are_warned_of():
    assert fitted(Overlap()).warnings == []
    assert fitted(Overlap(test=40)).warnings == []
    (text,) = fitted(Overlap(train=8, validation=32)).warnings
    assert "calibrated on 40 exams, of which 8 trained the model and 32 chose its epochs: " in text
    assert "promise too much" in text
    (text,) = fitted(Overlap(validation=32, by_name=32)).warnings
    assert "chose its epochs, by their names:" in text


def test_it_is_kept_with_the_calibration(tmp_path):
    write_calibration(tmp_path, fitted(Overlap(validation=40)))
    again = read_calibration(tmp_path)
    assert again is not None
    assert again.overlap == Overlap(validation=40)


def test_a_calibration_of_before_says_nothing_and_a_damaged_one_is_refused(tmp_path):
    path = write_calibration(tmp_path, fitted(Overlap(train=1)))
    content = json.loads(path.read_text())
    del content["exams_of_training"]
    path.write_text(json.dumps(content))
    again = read_calibration(tmp_path)
    assert again is not None
    assert again.warnings == []
    path.write_text(json.dumps(content | {"exams_of_training": {"train": "many"}}))
    with pytest.raises(CheckpointError, match=CALIBRATION_FILE):
        read_calibration(tmp_path)
