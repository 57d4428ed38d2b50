"""Scores of exams, and what happens when views are missing."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import mammodensity
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam
from mammodensity.errors import CheckpointError, DeviceError, OptionError
from mammodensity.exam import Exam, Mammogram
from mammodensity.models.checkpoint import load_checkpoint, save_checkpoint
from mammodensity.models.scoring import predict, stacked_projections
from mammodensity.models.trained import DensityModel, load_model
from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.terms import PROJECTIONS, Projection
from samples import gradient


@pytest.fixture(scope="module")
def model(tiny_model) -> DensityModel:
    return load_model(tiny_model, "cpu")


@pytest.fixture(scope="module")
def exam(blobs) -> Exam:
    exam_id, records = next(iter(find_images(blobs).exams().items()))
    return load_exam(exam_id, records)


def test_scores_of_an_exam(model, exam, tiny_model):
    result = mammodensity.load_model(tiny_model).score(exam)
    assert list(result.projections) == list(PROJECTIONS)
    for projection, scores in result.projections.items():
        assert scores.shape == (4,)
        assert scores.sum() == pytest.approx(1)
        network = mammodensity.load_network(tiny_model, projection)
        from mammodensity.models.batch import input_batch

        images = input_batch([exam.mammograms[projection]], model.checkpoints[projection].preprocess, 1)
        with torch.inference_mode():
            assert np.allclose(scores, torch.softmax(network(images), 1)[0].numpy(), atol=1e-6)
    subject = result.fused["subject"].scores
    assert np.allclose(subject, np.mean(list(result.projections.values()), axis=0))
    assert result.category == "ABCD"[int(subject.argmax())]


def test_batch_equals_singles(model, blobs):
    records = [record for record in find_images(blobs).records if record.projection == "CC_L"][:5]
    images = [load_exam("x", {record.projection: record}).mammograms[record.projection] for record in records]
    together = model.score_images(Projection.CC_L, images)
    alone = np.concatenate([model.score_images(Projection.CC_L, [image]) for image in images])
    assert np.allclose(together, alone, atol=1e-6)


def test_missing_views_are_marked_and_fused_only_when_asked_for(model, exam):
    without = Exam(exam.exam_id, {p: m for p, m in exam.mammograms.items() if p != Projection.MLO_L})
    result = model.score(without)
    assert result.category is None
    assert result.fused["left"].scores is None
    assert result.fused["subject"].missing == (Projection.MLO_L,)
    assert result.fused["right"].scores is not None
    asked = model.score(without, allow_missing=True)
    assert asked.fused["subject"].missing == (Projection.MLO_L,)
    three = [scores for projection, scores in asked.projections.items() if projection != Projection.MLO_L]
    assert np.allclose(asked.fused["subject"].scores, np.mean(three, axis=0))
    assert np.allclose(asked.fused["left"].scores, asked.projections[Projection.CC_L])


def test_fusion_is_chosen_by_name(model, exam):
    assert not np.allclose(
        model.score(exam).fused["subject"].scores, model.score(exam, fusion="vote").fused["subject"].scores
    )
    with pytest.raises(OptionError, match="fusion method"):
        model.score(exam, fusion="median")


def test_predicting_a_data_set(model, blobs):
    exams = list(predict(model, find_images(blobs)))
    assert [exam.exam_id for exam in exams] == sorted(exam.exam_id for exam in exams)
    stacked = stacked_projections(exams)
    assert all(scores.shape == (24, 4) for scores in stacked.values())
    assert np.array_equal(stacked[Projection.CC_R][3], exams[3].projections[Projection.CC_R])


def test_models_that_do_not_fit(model, tiny_model, tmp_path):
    one = load_model(tiny_model / "CC_R")
    assert list(one.checkpoints) == [Projection.CC_R]
    (tmp_path / "exam").mkdir()
    Image.fromarray(gradient()).save(tmp_path / "exam" / "L-MLO.png")
    with pytest.raises(CheckpointError, match=r"has networks for CC_R, but .* only holds MLO_L"):
        next(predict(one, find_images(tmp_path / "exam")))
    save_checkpoint(tmp_path / "swapped" / "CC_L", load_checkpoint(tiny_model / "CC_R"))
    with pytest.raises(CheckpointError, match="is a network for CC_R, asked for CC_L"):
        load_model(tmp_path / "swapped")
    with pytest.raises(DeviceError):
        load_model(tiny_model, "cuda:99")


def test_warnings_name_phantoms_and_unfinished_networks(model, tiny_model, tmp_path):
    assert model.warnings == []
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "CC_L" / "resume.safetensors").write_bytes(b"")
    [warning] = load_model(tmp_path / "model").warnings
    assert "training of CC_L was interrupted" in warning
    trained = load_checkpoint(tiny_model / "CC_R")
    on_phantoms = replace(trained, training={"data": {"phantoms": True}})
    [warning] = DensityModel({trained.projection: on_phantoms}, torch.device("cpu")).warnings
    assert "images of patients mean nothing" in warning


def test_images_that_lie_mirrored_are_flagged_by_every_model(model):
    views = {view: one.image for view, one in make_exam(PhantomSpec(rows=128, seed=4), 1).views.items()}
    turned = {**views, Projection.CC_L: np.ascontiguousarray(views[Projection.CC_L][:, ::-1])}

    def flagged(reader, pixels):
        scored = reader.score(Exam("e", {view: Mammogram(one, view) for view, one in pixels.items()}))
        return {view for view, flags in scored.view_flags.items() if "stored-flipped" in {flag.code for flag in flags}}

    for reader in (load_model(), model):
        assert flagged(reader, views) == set()
        assert flagged(reader, turned) == {Projection.CC_L}


def test_what_does_not_tell_the_side_is_not_called_mirrored(model, exam):
    assert all("stored-flipped" not in {flag.code for flag in flags} for flags in model.score(exam).view_flags.values())
