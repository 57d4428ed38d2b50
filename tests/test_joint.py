"""The joint network: any of the four views, three ways of fusing, trained, kept, resumed, and used as a model."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mammodensity.anatomy.network_input import PreprocessSpec, preprocess
from mammodensity.data.dataset import read_manifest, write_manifest
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam
from mammodensity.errors import CheckpointError, Interrupted, LayoutError, OptionError
from mammodensity.exam import Exam
from mammodensity.models.batch import load_exams
from mammodensity.models.checkpoint import RESUME_FILE, JointCheckpoint, load_joint
from mammodensity.models.engines import TOLERANCE
from mammodensity.models.export import export_network
from mammodensity.models.joint import JointNetwork, JointSpec
from mammodensity.models.network import NetworkSpec
from mammodensity.models.scoring import predict
from mammodensity.models.trained import JointModel, load_model, load_networks
from mammodensity.scores import fuse_exam
from mammodensity.terms import FUSED_LEVELS, PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory, Projection
from mammodensity.training.joint_network import JointPlan, joint_loss, kept_views
from mammodensity.training.recipes import find_recipe
from mammodensity.training.records import read_history
from mammodensity.workflows.train import train_model
from samples import bundle_answer

SMALL = NetworkSpec(stem=4, widths=(4, 4), outputs=(8, 8), depths=(1, 1), dropout=0.0)
FUSIONS = ["mean", "concat", "attention"]
VIEWS = torch.randn(3, 4, 1, 36, 36, generator=torch.Generator().manual_seed(2))
PRESENT = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 0]], dtype=torch.bool)
UNCROPPED = PreprocessSpec(rows=36, columns=36, crop="none", pectoral="leave", background="leave")
KEPT = ("network.safetensors", "history.csv", "acc_val.txt")


def network(fusion: str = "mean", branches: str = "separate") -> JointNetwork:
    torch.manual_seed(4)
    made = JointNetwork(JointSpec(SMALL, fusion, branches))
    for parameter in made.fusion.parameters():  # biases and the like begin at 0, which would hide them
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.mark.parametrize("branches", ["separate", "shared"])
@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_absent_views_say_nothing_and_present_ones_do(fusion, branches):
    made = network(fusion, branches)
    scores = made(VIEWS, PRESENT).softmax(1)
    assert scores.shape == (3, 4)
    torch.testing.assert_close(scores.sum(1), torch.ones(3))
    other = torch.where(PRESENT[..., None, None, None], VIEWS, float("nan"))
    torch.testing.assert_close(made(other, PRESENT).softmax(1), scores)
    for exam in range(3):  # alone, an exam gets what it gets in a batch
        torch.testing.assert_close(made(VIEWS[[exam]], PRESENT[[exam]]).softmax(1)[0], scores[exam])
    for view in range(4):
        changed = VIEWS.clone()
        changed[0, view] += 1
        assert not torch.allclose(made(changed, PRESENT).softmax(1)[0], scores[0], atol=1e-7)
        fewer = PRESENT.clone()
        fewer[0, view] = False
        assert not torch.allclose(made(VIEWS, fewer).softmax(1)[0], scores[0], atol=1e-7)


@torch.no_grad()
def test_the_mean_is_the_mean_of_scores_and_attention_a_mean_of_features():
    made = network("mean")
    alone = [made(VIEWS[:1], torch.arange(4)[None] == view).softmax(1)[0] for view in range(4)]
    torch.testing.assert_close(made(VIEWS[:1]).softmax(1)[0], torch.stack(alone).mean(0))
    weights = network("attention").fusion.weights(torch.randn(3, 4, 8), PRESENT)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert (weights[~PRESENT] == 0).all()
    assert (weights[PRESENT] > 0).all()


@torch.no_grad()
def test_shared_branches_see_right_breasts_mirrored():
    made = network("concat", "shared")
    assert len(made.branches) == 2
    mirrored = VIEWS.clone()
    mirrored[:, 1] = VIEWS[:, 0].flip(-1)  # the left breast is the right one's mirror image
    mirrored[:, 3] = VIEWS[:, 2].flip(-1)
    seen = [images for _, _, images in made.inputs(mirrored, torch.ones(3, 4, dtype=torch.bool))]
    for images in seen:
        assert torch.equal(images[:3], images[3:])
    assert made.spec.groups == ((0, 1), (2, 3))


def test_specs_that_make_no_sense_are_refused():
    for wrong, message in (({"fusion": "max"}, "fusion must be one of mean"), ({"branches": "one"}, "branches must")):
        with pytest.raises(OptionError, match=message):
            JointSpec(SMALL, **wrong)
    for wrong in (
        {"fusion": "vote"},
        {"view_dropout": 1.0},
        {"view_loss": -1.0},
        {"view_loss": float("nan")},
        {"precision": "fp16"},
        {"checkpointing": "all"},
    ):
        with pytest.raises(OptionError):
            JointPlan(**wrong)


def test_views_are_dropped_at_random_and_never_all():
    present = np.array([True, False, True, True])
    kept = np.stack([kept_views(present, 0.4, np.random.default_rng(number)) for number in range(400)])
    assert kept.any(axis=1).all()
    assert not kept[:, 1].any()
    assert kept[:, [0, 2, 3]].mean() == pytest.approx(0.6 + 0.4**3 / 3, abs=0.05)
    assert kept_views(present, 0.0, np.random.default_rng(0)).tolist() == present.tolist()
    assert kept_views(present & [0, 0, 1, 0], 0.99, np.random.default_rng(0)).tolist() == [False, False, True, False]


def test_breasts_known_by_themselves_add_to_the_loss():
    made = network("attention")
    features = torch.randn(2, 4, 8)
    present = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1]], dtype=torch.bool)
    categories = torch.tensor([1, 2])
    unknown = torch.full((2, 2), -1)
    whole, logits = joint_loss(made, features, present, categories, unknown)
    torch.testing.assert_close(whole, torch.nn.functional.cross_entropy(logits, categories))
    some = torch.tensor([[3, -1], [0, -1]])  # the second exam has no right view
    found, _ = joint_loss(made, features, present, categories, some)
    right = made.fuse(features[:1], torch.tensor([[True, False, True, False]]))
    expected = whole + torch.nn.functional.cross_entropy(right, torch.tensor([3])) / 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("fusion", ["mean", "concat", "attention"])
def test_each_view_alone_adds_to_the_loss(fusion):
    made = network(fusion)
    features = torch.randn(2, 4, 8)
    present = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1]], dtype=torch.bool)
    categories, unknown = torch.tensor([1, 2]), torch.full((2, 2), -1)
    whole, logits = joint_loss(made, features, present, categories, unknown)
    found, again = joint_loss(made, features, present, categories, unknown, view_loss=0.5, count=4)
    assert torch.equal(logits, again)
    alone = torch.eye(4, dtype=torch.bool)
    terms = [
        torch.stack(
            [
                torch.nn.functional.cross_entropy(made.fuse(features[[exam]], alone[[view]]), categories[[exam]])
                for view in present[exam].nonzero()[:, 0].tolist()
            ]
        ).mean()
        for exam in range(2)
    ]
    torch.testing.assert_close(found, whole / 2 + 0.5 * sum(terms) / 4)


def test_breast_categories_come_from_the_manifest(blobs, tmp_path):
    records = [
        replace(record, breast_category=DensityCategory.D if record.projection.laterality == "L" else None)
        for record in find_images(blobs).records
    ]
    write_manifest(tmp_path / "manifest.csv", records)
    read = read_manifest(tmp_path / "manifest.csv")
    exams = load_exams(list(read.exams().values())[:2], PreprocessSpec(rows=16, columns=16))
    assert exams.breasts.tolist() == [[-1, 3], [-1, 3]]
    text = (tmp_path / "manifest.csv").read_text().replace(",D\n", ",E\n", 1)
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(LayoutError, match="unknown breast_density 'E'"):
        read_manifest(tmp_path / "manifest.csv")


# Training


@pytest.fixture(scope="module")
def recipe():
    found = find_recipe("small")
    return replace(found, epochs=2, network=SMALL, preprocess=replace(found.preprocess, rows=32, columns=32))


@pytest.fixture(scope="module")
def lacking(blobs):
    """The data set without the CC views of every third exam."""
    data = find_images(blobs)
    without = set(sorted(data.exams())[::3])
    records = tuple(
        record for record in data.records if not (record.exam_id in without and record.projection.view_position == "CC")
    )
    return replace(data, records=records)


@pytest.fixture(scope="module")
def joint_models(lacking, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    for fusion in FUSIONS:
        branches = "shared" if fusion == "concat" else "separate"
        train_model(lacking, folder / fusion, recipe, joint=JointPlan(fusion, branches))
    return folder


def test_the_folder_of_a_joint_model(joint_models, recipe):
    folder = joint_models / "attention"
    assert json.loads((folder / "joint.json").read_text())["fusion"] == "attention"
    assert all((folder / "joint" / name).is_file() for name in KEPT)
    assert list((folder / "joint" / "tensorboard").glob("events*"))
    assert not (folder / "joint" / RESUME_FILE).exists()
    assert [figures.epoch for figures in read_history(folder / "joint")] == [1, 2]
    checkpoint = load_joint(folder / "joint" / "network.safetensors")
    assert checkpoint.network.spec == JointSpec(SMALL, "attention")
    assert checkpoint.training["recipe"] == recipe.to_dict()
    assert checkpoint.training["joint"]["view_dropout"] == 0.25


def test_an_interrupted_joint_run_ends_with_the_same_bits(lacking, recipe, joint_models, tmp_path, ask_to_stop):
    plan = JointPlan("attention")
    for number in range(2):
        with pytest.raises(Interrupted, match="joint was interrupted in epoch 1 of 2"):
            train_model(
                lacking,
                tmp_path / "parts",
                recipe,
                joint=plan,
                resume=number > 0,
                report=lambda name, step: ask_to_stop.set() if name == "joint" else None,
            )
    for other, message in ((replace(plan, view_dropout=0.1), "view_dropout"), (None, "was begun with --joint")):
        with pytest.raises(CheckpointError, match=message):
            train_model(lacking, tmp_path / "parts", recipe, joint=other, resume=True)
    train_model(lacking, tmp_path / "parts", recipe, joint=plan, resume=True)
    for name in KEPT:
        assert (tmp_path / "parts/joint" / name).read_bytes() == (joint_models / "attention/joint" / name).read_bytes()


def test_the_lean_step_trains_as_the_plain_one_and_every_option_counts(lacking, recipe, joint_models, tmp_path):
    one = replace(recipe, epochs=1)
    plans = {
        "plain": JointPlan(),
        "lean": JointPlan(checkpointing="layers"),
        "dropout": JointPlan(view_dropout=0.6),
        "half": JointPlan(precision="bf16"),
        "views": JointPlan(view_loss=0.3),
    }
    losses = {}
    for name, plan in plans.items():
        train_model(lacking, tmp_path / name, one, joint=plan)
        losses[name] = read_history(tmp_path / name / "joint")[0].train_loss
    assert losses["lean"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["dropout"] != pytest.approx(losses["plain"], rel=1e-3)
    assert losses["half"] != losses["plain"]
    assert losses["views"] != pytest.approx(losses["plain"], rel=1e-4)
    assert losses["half"] == pytest.approx(losses["plain"], rel=0.05)


def test_data_that_cannot_train_a_joint_network(lacking, recipe, tmp_path):
    no_view = replace(lacking, records=tuple(r for r in lacking.records if r.projection != Projection.MLO_R))
    with pytest.raises(LayoutError, match="no MLO_R image in the train split"):
        train_model(no_view, tmp_path / "model", recipe, joint=JointPlan())
    few = lacking.first_exams(1)
    with pytest.raises(LayoutError, match="exam in the"):
        train_model(few, tmp_path / "model", recipe, joint=JointPlan())
    deep = replace(SMALL, widths=(4,) * 4, outputs=(8,) * 4, depths=(1,) * 4)
    with pytest.raises(OptionError, match="at least 33 pixels a side"):
        train_model(lacking, tmp_path / "model", replace(recipe, network=deep), joint=JointPlan())
    assert not (tmp_path / "model").exists()


def test_four_networks_begin_a_joint_one_with_their_averaged_scores(blobs, tiny_model, tiny_recipe, tmp_path):
    barely = replace(tiny_recipe, learning_rate=1e-9, weight_decay=0.0, epochs=1)
    data = find_images(blobs)
    train_model(data, tmp_path / "joint", barely, joint=JointPlan("mean"), start=tiny_model)
    four, joint = load_networks(tiny_model, "cpu"), load_networks(tmp_path / "joint", "cpu")
    for view, checkpoint in four.checkpoints.items():  # batch statistics move with training; here weights are compared
        branch = joint.network.branch_of(PROJECTIONS.index(view))
        torch.testing.assert_close(branch.conv.weight, checkpoint.network.conv.weight, atol=1e-4, rtol=0)
        head = joint.network.fusion.heads[PROJECTIONS.index(view)]
        torch.testing.assert_close(head.weight, checkpoint.network.head.weight, atol=1e-4, rtol=0)
    train_model(data, tmp_path / "again", barely, joint=JointPlan("mean"), start=tmp_path / "joint")
    for plan, message in (
        (JointPlan("mean", "shared"), "it needs another joint network"),
        (JointPlan("concat"), "another architecture"),
    ):
        start = tiny_model if plan.branches == "shared" else tmp_path / "joint"
        with pytest.raises(CheckpointError, match=message):
            train_model(data, tmp_path / "no", barely, joint=plan, start=start)


# Use


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_level_is_the_network_with_its_views(joint_models, lacking, fusion):
    model = load_model(joint_models / fusion, "cpu")
    assert isinstance(model, JointModel)
    exams = list(predict(model, lacking.first_exams(3), allow_missing=True))
    assert [exam.fusion for exam in exams] == ["joint"] * 3
    records = lacking.exams()
    for exam in exams:
        images = load_exam(exam.exam_id, records[exam.exam_id]).mammograms
        views = torch.zeros(1, 4, 1, 32, 32)
        for view, image in images.items():
            views[0, PROJECTIONS.index(view), 0] = torch.from_numpy(
                preprocess(image, model.checkpoints[view].preprocess)
            )
        for level in (*images, *FUSED_LEVELS):
            wanted = FUSED_LEVELS.get(level, (level,))
            present = torch.tensor([[view in wanted and view in images for view in PROJECTIONS]])
            with torch.no_grad():
                expected = model.network(views, present).softmax(1)[0].numpy()
            found = exam.fused[level].scores if level in FUSED_LEVELS else exam.projections[level]
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert exams[0].fused["subject"].missing == (Projection.CC_R, Projection.CC_L)
    assert next(predict(model, lacking.first_exams(1))).fused["subject"].scores is None
    averaged = fuse_exam(exams[1].projections)["subject"].scores
    assert np.allclose(exams[1].fused["subject"].scores, averaged, atol=1e-6) == (fusion == "mean")


def test_the_denser_breast_and_what_is_refused(joint_models, lacking):
    model = load_model(joint_models / "concat", "cpu")
    exam_id = sorted(lacking.exams())[1]
    exam: Exam = load_exam(exam_id, lacking.exams()[exam_id])
    scored = model.score(exam, policy="denser")
    sides = [scored.fused[side].scores for side in ("right", "left")]
    expected = max(sides, key=lambda scores: float(scores @ np.arange(4)))
    assert np.array_equal(scored.fused["subject"].scores, expected)
    with pytest.raises(OptionError, match="leave --fusion out"):
        model.score(exam, fusion="vote")
    with pytest.raises(OptionError, match="policy must be one of"):
        model.score(exam, policy="worse")
    with pytest.raises(OptionError, match="engine must be one of"):
        load_model(joint_models / "concat", "cpu", "tensorrt")


def test_a_joint_file_that_is_no_joint_network(joint_models, tiny_model, tmp_path):
    (tmp_path / "joint").mkdir()
    wrong = (tiny_model / "CC_R" / "network.safetensors").read_bytes()
    (tmp_path / "joint" / "network.safetensors").write_bytes(wrong)
    with pytest.raises(CheckpointError, match="expected format 'mammodensity joint network 1'"):
        load_model(tmp_path, "cpu")


# Commands


def test_the_commands_take_a_joint_model(run, joint_models, blobs, recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    model = tmp_path / "model"
    options = ("--recipe", tmp_path / "recipe.json", "--device", "cpu", "--joint", "--joint-fusion", "concat")
    code, out, error = run("train", blobs, "--model", model, *options, "--checkpointing", "views")
    assert code == 0, error
    assert "Research use only" in out
    told = re.findall(r"^train joint epoch (\d)/\d val\. loss (\S+) ", error, re.MULTILINE)
    assert told == [(str(one.epoch), f"{one.validation_loss:.2f}") for one in read_history(model / "joint")]
    card = (model / "README.md").read_text()
    assert "One joint network of the four projections was trained" in card
    assert "| joint |" in card
    assert json.loads((model / "test" / "receipt.json").read_text())["networks"].keys() == {"joint"}

    table, results = tmp_path / "scores.csv", tmp_path / "results.json"
    code, out, error = run("predict", blobs, "--model", model, "--csv", table, "--device", "cpu")
    assert code == 0, error
    code, out, error = run("evaluate", "--csv", table, "--labels", blobs, "--bootstrap", 50)
    assert code == 0, error
    code, out, error = run("calibrate", table, "--labels", blobs, "--model", model)
    assert code == 0, error
    calibration = json.loads((model / "calibration.json").read_text())
    assert calibration["fusion"] == "joint"
    assert sorted(len(one["views"]) for one in calibration["views"]) == [1, 1, 1, 1, 2, 2, 4]
    code, out, error = run("predict", blobs, "--model", model, "--json", results, "--device", "cpu")
    assert code == 0, error
    first = json.loads(results.read_text())[0]
    assert first["fusion"] == "joint"
    assert first["calibration"].startswith("calibrated on 24 exams")

    for arguments, message in (
        (("predict", blobs, "--model", model, "--fusion", "vote"), "calibrated with fusion joint, not vote"),
        (("predict", blobs, "--model", joint_models / "mean", "--fusion", "vote"), "leave --fusion out"),
        (("calibrate", table, "--labels", blobs, "--model", model, "--fusion", "mean"), "leave --fusion out"),
        (("calibrate", blobs, "--model", model), "holds trained networks"),
        (("import-keras", table, "--projection", "CC_R", "--model", model), "holds a joint network; name another"),
        (("train", blobs, "--model", tmp_path / "no", "--fusion", "mean"), "--joint-fusion is of the joint network"),
        (("train", blobs, "--model", tmp_path / "no", "--joint", "--projection", "CC_R"), "leave --projection out"),
        (
            ("train", blobs, "--model", tmp_path / "no", "--joint", "--joint-fusion", "vote"),
            "'vote' is not one of 'mean'",
        ),
    ):
        code, _, error = run(*arguments)
        assert code != 0
        assert message in error, arguments
        assert "Traceback" not in error
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_every_engine_gives_the_scores_of_torch(joint_models, blobs, tmp_path_factory, monkeypatch, engine):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    exam = load_exam(*next(iter(find_images(blobs).exams().items())))
    few = Exam("few", {view: exam.mammograms[view] for view in (Projection.CC_L, Projection.MLO_R)})
    models = [load_networks(joint_models / "attention", "cpu", one) for one in ("torch", engine)]
    for one, options in ((exam, {}), (few, {"allow_missing": True})):
        expected, found = (model.score(one, **options) for model in models)
        for level in FUSED_LEVELS:
            expected_scores, found_scores = (scored.fused[level].scores for scored in (expected, found))
            np.testing.assert_allclose(found_scores, expected_scores, atol=TOLERANCE)


@pytest.mark.parametrize(("fusion", "branches"), [("mean", "separate"), ("concat", "shared"), ("attention", "shared")])
def test_a_joint_network_is_one_file(tmp_path, fusion, branches):
    name, difference = export_network(JointCheckpoint(network(fusion, branches), UNCROPPED), tmp_path, "onnx")
    assert name == "joint.onnx"
    assert difference < 1e-5


@pytest.mark.parametrize("view", [Projection.CC_R, Projection.CC_L])  # one of them is mirrored
def test_a_view_alone_is_a_file_of_single_images(tmp_path, view):
    alone = JointCheckpoint(network("concat", "shared"), UNCROPPED).alone(view)
    assert export_network(alone, tmp_path, "leaderboard")[1] < 1e-5


@pytest.mark.slow
def test_monai_runs_the_bundle_of_a_joint_network_on_an_exam(run, joint_models, blobs, tmp_path):
    code, output, error = run("export", tmp_path / "out", "--model", joint_models / "concat", "--format", "monai")
    assert code == 0, error
    assert "1 network in" in output
    exam_id, records = next(iter(find_images(blobs).exams().items()))
    exam, folder = load_exam(exam_id, records), tmp_path / "exam"
    folder.mkdir()
    for projection, record in records.items():
        shutil.copy(record.path, folder / f"exam_{projection}.png")
    scores = bundle_answer(tmp_path / "out" / "mammodensity_joint", "--exam", folder)
    assert scores.pop("note") == RESEARCH_USE_ONLY
    expected = load_networks(joint_models / "concat", "cpu").score(exam).fused["subject"].scores
    np.testing.assert_allclose(list(scores.values()), expected, atol=1e-5)
