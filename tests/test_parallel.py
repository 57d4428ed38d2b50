"""Exams scored by several processes: the order, the scores and the refusals of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mammodensity.data.find import find_images
from mammodensity.errors import CheckpointError
from mammodensity.models import engines
from mammodensity.models.engines import ENGINES
from mammodensity.models.scoring import predict, predict_in_workers
from mammodensity.models.trained import load_model
from mammodensity.phantom.exams import PhantomSpec, write_phantoms
from mammodensity.terms import LEVELS
from mammodensity.training.joint_network import JointPlan
from mammodensity.workers import in_workers, threads_told
from mammodensity.workflows.train import train_model
from samples import scores_of, small_checkpoint, write_blobs


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    """Exported networks are kept in a folder of the tests' own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def exams(tmp_path_factory) -> Path:
    """Seven exams: one lacks a view, one has a damaged image."""
    folder = write_blobs(tmp_path_factory.mktemp("exams"), 7)
    next((folder / "CC_L").rglob("102_*.png")).unlink()
    damaged = next((folder / "MLO_R").rglob("104_*.png"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    return folder


def require_same(load: Callable, folder: Path, **how) -> None:
    data = find_images(folder)
    expected = list(predict(load(), data, **how))
    found = list(predict_in_workers(load(), load, data, 2, keep=scores_of, **how))
    assert [exam.exam_id for exam in found] == [exam.exam_id for exam in expected]
    for one, two in zip(expected, found, strict=True):
        assert (two.refused, two.view_flags) == (one.refused, one.view_flags)
        assert (two.fusion, two.policy) == (one.fusion, one.policy)
        assert two.projections.keys() == one.projections.keys()
        for projection, scores in one.projections.items():
            np.testing.assert_allclose(two.projections[projection], scores, atol=1e-6)
        for level in LEVELS[4:]:
            assert two.fused[level].missing == one.fused[level].missing
            if one.fused[level].scores is None:
                assert two.fused[level].scores is None
            else:
                np.testing.assert_allclose(two.fused[level].scores, one.fused[level].scores, atol=1e-6)
        assert two.percent_density == pytest.approx(one.percent_density, abs=1e-3)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "openvino-int8"])
def test_workers_score_what_one_process_does(engine, tiny_model, exams):
    require_same(partial(load_model, tiny_model, "cpu", engine), exams, policy="denser", allow_missing=engine == "onnx")


def test_joint_networks_and_the_default_model_too(blobs, tiny_recipe, exams, tmp_path):
    train_model(find_images(blobs), tmp_path / "joint", tiny_recipe, joint=JointPlan())
    require_same(partial(load_model, tmp_path / "joint", "cpu", "onnx"), exams)
    write_phantoms(PhantomSpec(rows=96), 2, tmp_path / "phantoms", workers=1)
    require_same(load_model, tmp_path / "phantoms")


def test_the_command_writes_the_same_table(run, tiny_model, exams, tmp_path):
    tables = []
    for workers in (1, 2):
        csv = tmp_path / f"{workers}.csv"
        code, output, _ = run("predict", exams, "--model", tiny_model, "--csv", csv, "--workers", workers)
        assert code == 0
        assert "refused: " in output
        tables.append([line.split(",") for line in csv.read_text().splitlines()])
    assert [row[:2] for row in tables[1]] == [row[:2] for row in tables[0]]
    assert len(tables[0]) == 1 + 7 * len(LEVELS)
    assert run("predict", exams, "--model", tiny_model, "--workers", 0)[0] == 2


def test_a_model_without_a_network_for_the_data_starts_nothing(tiny_model, exams, monkeypatch):
    one = tiny_model / "MLO_L"
    data = find_images(exams)
    only = [record for record in data.records if record.projection == "CC_R"]
    monkeypatch.setattr("mammodensity.models.scoring.in_workers", None)
    model = load_model(one, "cpu")
    with pytest.raises(CheckpointError, match="only holds CC_R"):
        list(
            predict_in_workers(
                model, partial(load_model, one, "cpu"), type(data)(data.root, data.layout, only), 2, keep=scores_of
            )
        )


def test_cores_are_divided_among_workers():
    asked = ["__import__('os').environ['OMP_NUM_THREADS']", "__import__('torch').get_num_threads()"]
    assert dict(in_workers(eval, asked, 1, threads=2)) == {asked[0]: "2", asked[1]: 2}


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("3,2", 3), ("", 0), ("many", 0)])
def test_engines_take_the_threads_they_are_told(told, threads, monkeypatch):
    import onnxruntime

    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads_told() == threads
    taken: dict[str, object] = {}

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path, options, **more):
            taken["onnx"] = options.intra_op_num_threads
            super().__init__(path, options, **more)

    core = engines._openvino_core()

    class Core:
        read_model = core.read_model

        def compile_model(self, model, device, settings):
            taken["openvino"] = settings.get("INFERENCE_NUM_THREADS", 0)
            return core.compile_model(model, device, settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(engines, "_openvino_core", Core)
    for name in ("onnx", "openvino"):
        engines.make_engine(name, small_checkpoint(), engines.torch.device("cpu"))
    assert taken == {"onnx": threads, "openvino": threads}
