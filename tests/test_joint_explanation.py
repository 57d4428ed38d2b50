"""Maps of a joint network: each view with the others as they are, by every method, on mirrored views too."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mammodensity.anatomy.read_view import ReadView
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam
from mammodensity.explanation.maps import explain_exam
from mammodensity.explanation.methods import METHODS, explain_images
from mammodensity.explanation.probe import randomised
from mammodensity.models.joint import ExamView, JointNetwork, JointSpec
from mammodensity.models.network import NetworkSpec
from mammodensity.models.trained import load_model
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection
from mammodensity.training.joint_network import JointPlan
from mammodensity.training.recipes import find_recipe
from mammodensity.workflows.train import train_model

SPEC = NetworkSpec(stem=4, widths=(4, 4), outputs=(8, 8), depths=(1, 1), dropout=0.0)
FEW = torch.tensor([True, True, False, True])


def network(fusion: str, branches: str) -> JointNetwork:
    torch.manual_seed(6)
    made = JointNetwork(JointSpec(SPEC, fusion, branches))
    for parameter in made.fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def views_of(made: JointNetwork, images: torch.Tensor) -> dict[int, ExamView]:
    """The view networks of an exam (V, 1, H, W) of which some views are present."""
    with torch.no_grad():
        features = torch.stack([made.branch_of(view)(made.oriented(images[[view]], view))[0] for view in range(4)])
    features[~FEW] = 1e6  # nobody may look at absent views
    return {view: ExamView(made, view, features, FEW).eval() for view in range(4) if FEW[view]}


@pytest.mark.parametrize("branches", ["separate", "shared"])
@pytest.mark.parametrize("fusion", ["mean", "concat", "attention"])
def test_a_view_answers_for_its_exam(fusion, branches):
    made = network(fusion, branches)
    images = torch.randn(4, 1, 36, 44, generator=torch.Generator().manual_seed(1))
    changed = torch.randn(4, 1, 36, 44, generator=torch.Generator().manual_seed(2))
    for view, one in views_of(made, images).items():
        both = torch.stack([images, images])
        both[1, view] = changed[view]
        with torch.no_grad():
            expected = made(both, FEW.repeat(2, 1))
            found = one(both[:, view])
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_mirrored_views_lie_on_the_image(method):
    """The same breast, left and mirrored right, in a shared network: mirrored maps."""
    made = network("concat", "shared")
    made.fusion.head.weight.data[:, 8:16] = made.fusion.head.weight.data[:, :8]  # right and left count alike
    images = torch.rand(4, 1, 33, 33, generator=torch.Generator().manual_seed(3))
    images[0] = images[1].flip(-1)
    networks = views_of(made, images)
    assert (networks[0].mirrors, networks[1].mirrors) == (True, False)
    options = {"layer": "stages.0"} if method in ("grad-cam", "layer-cam") else {}
    right, left = (explain_images(networks[view], images[[view]], "B", method=method, **options) for view in (0, 1))
    assert left.abs().max() > 0
    assert not torch.allclose(left, left.flip(-1), atol=1e-4)
    if method == "integrated-gradients":  # its noise is not mirrored
        assert np.corrcoef(right.flip(-1).flatten(), left.flatten())[0, 1] > 0.95
    elif method == "occlusion":  # nor are its windows, which begin at the left
        alike, unlike = (np.corrcoef(one.flatten(), left.flatten())[0, 1] for one in (right.flip(-1), right))
        assert alike > 0.6 > unlike + 0.3
    else:
        torch.testing.assert_close(right.flip(-1), left, atol=1e-5, rtol=1e-3)


def test_random_weights_leave_the_other_views_features_alone():
    made = network("attention", "separate")
    images = torch.randn(4, 1, 36, 44)
    one = views_of(made, images)[0]
    copy = randomised(one, 1)
    assert torch.equal(copy._others, one._others)
    assert not torch.equal(copy.branch.conv.weight, one.branch.conv.weight)
    assert torch.equal(made.branches[0].conv.weight, one.branch.conv.weight)


@pytest.fixture(scope="module")
def model(blobs, tmp_path_factory):
    found = find_recipe("small")
    recipe = replace(found, epochs=1, network=SPEC, preprocess=replace(found.preprocess, rows=32, columns=32))
    folder = tmp_path_factory.mktemp("joint") / "model"
    train_model(find_images(blobs), folder, recipe, joint=JointPlan("attention", "shared"))
    return folder


def test_an_exams_maps_explain_the_exams_category(model, blobs):
    joint = load_model(model, "cpu")
    exam_id, records = next(iter(find_images(blobs).exams().items()))
    exam = load_exam(exam_id, records)
    scores = joint.score(exam).fused["subject"].scores
    found = explain_exam(joint, exam)
    assert tuple(found.maps) == PROJECTIONS
    for one in found.maps.values():
        np.testing.assert_allclose(one.scores, scores, atol=1e-6)
        assert one.category == CATEGORIES[int(np.argmax(scores))]
    fewer = replace(exam, mammograms={Projection.MLO_R: exam.mammograms[Projection.MLO_R]})
    alone = explain_exam(joint, fewer).maps[Projection.MLO_R]
    view = ReadView(alone.mammogram, Projection.MLO_R)
    np.testing.assert_allclose(alone.scores, joint.score_view(view).scores, atol=1e-6)
    assert not np.allclose(alone.scores, scores, atol=1e-6)
    other = explain_exam(joint, exam, category=CATEGORIES[3], method="hires-cam", layer="stages.0")
    assert {one.category for one in other.maps.values()} == {CATEGORIES[3]}


def test_the_commands_explain_a_joint_model(run, model, blobs, tmp_path):
    some = tmp_path / "few"
    for projection in ("CC_R", "MLO_L"):
        (some / projection / "D").mkdir(parents=True)
        first = sorted((blobs / projection / "D").iterdir())[0]
        (some / projection / "D" / first.name).write_bytes(first.read_bytes())
    code, _, error = run(
        *("explain", some, "--model", model, "--output", tmp_path / "maps", "--json", tmp_path / "scores.json"),
        "--allow-missing",
    )
    assert code == 0, error
    summary = json.loads((tmp_path / "maps" / "explanations.json").read_text())
    assert [image["projection"] for image in summary["images"]] == ["CC_R", "MLO_L"]
    assert summary["images"][0]["scores"] == summary["images"][1]["scores"]
    assert len(json.loads((tmp_path / "scores.json").read_text())["images"]) == 2
    code, _, error = run("report", model, "--output", tmp_path / "page.html")
    assert code == 0, error
    assert "One joint network of the four projections was trained" in (tmp_path / "page.html").read_text()
    options = ("--phantoms", 1, "--steps", 2, "--output", tmp_path / "curves")
    code, _, error = run("counterfactual", "--model", model, *options)
    assert code == 0, error
