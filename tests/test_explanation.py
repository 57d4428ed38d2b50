"""Grad-CAM against hand arithmetic and captum, and the pictures of maps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mammodensity
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam
from mammodensity.errors import ImageError, OptionError
from mammodensity.exam import Exam
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.models.trained import load_model
from mammodensity.terms import DensityCategory, Projection
from mammodensity.workflows.explain import SUMMARY_FILE, explain

TINY = NetworkSpec(stem=4, widths=(4, 6), outputs=(6, 8), depths=(2, 1))


class TwoFilters(nn.Module):
    """Two 1x1 filters, mean over the image, two logits: small enough for arithmetic by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.filters.weight.copy_(torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[3.0, 1.0], [-1.0, 4.0]]))

    def forward(self, images):
        return self.head(nn.functional.relu_(self.filters(images)).mean((2, 3)))


def test_grad_cam_by_hand():
    image = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
    # Filters give x and -2x before the rectifier; where it is open its gradient is head / 4.
    # Category 0: open for x > 0 on filter 0 (2 pixels), for x < 0 on filter 1 (1 pixel).
    weights = torch.tensor([3.0 * 2 / 4 / 4, 1.0 * 1 / 4 / 4])
    expected = weights[0] * image[0, 0] + weights[1] * (-2 * image[0, 0])
    network = TwoFilters()
    signed = mammodensity.grad_cam(network, image, 0, positive=False)
    assert torch.allclose(signed[0], expected)
    assert torch.allclose(mammodensity.grad_cam(network, image, 0)[0], expected.relu())


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = ResidualNetwork(TINY)
    network.train()(torch.rand(8, 1, 40, 40))  # batch statistics that are not the initial ones
    return network.eval()


@pytest.mark.parametrize("layer", ["stages.0", "stages.1", "stages.0.1.conv2", "norm"])
@pytest.mark.parametrize("category", [0, 3])
def test_captum_agrees(network, layer, category):
    captum = pytest.importorskip("captum.attr")
    images = torch.rand(3, 1, 40, 33)
    module = network.get_submodule(layer)
    if layer == "norm":  # followed by an activation in place, which captum's hooks do not survive
        module = network.conv
        layer = "conv"
    oracle = captum.LayerGradCam(network, module).attribute(images, target=category)[:, 0]
    ours = mammodensity.grad_cam(network, images, category, layer=layer, positive=False, upsample=False)
    assert torch.allclose(ours, oracle.detach(), atol=1e-6)


def test_batch_equals_singles_with_a_category_each(network):
    images = torch.rand(4, 1, 40, 40)
    wanted = ["A", DensityCategory.D, 2, None]
    together = mammodensity.grad_cam(network, images, wanted)
    assert together.shape == (4, 40, 40)
    for index, category in enumerate(wanted):
        alone = mammodensity.grad_cam(network, images[index : index + 1], category)
        assert torch.allclose(alone[0], together[index], atol=1e-7)


def test_predicted_category_is_the_default(network):
    images = torch.rand(3, 1, 40, 40)
    predicted = network(images).argmax(1).tolist()
    assert torch.equal(mammodensity.grad_cam(network, images), mammodensity.grad_cam(network, images, predicted))
    other = [(index + 1) % 4 for index in predicted]
    assert not torch.equal(mammodensity.grad_cam(network, images), mammodensity.grad_cam(network, images, other))


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_found(network, failing, training):
    network.train(training)
    network.norm.eval()  # a mixed state must survive, too
    for parameter in network.conv.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    images = torch.rand(2, 1, 40, 40)
    if failing:
        with pytest.raises(RuntimeError):
            mammodensity.grad_cam(network, images.expand(-1, 2, -1, -1), 0)
    else:
        with torch.no_grad():  # also where the caller has switched gradients off
            assert mammodensity.grad_cam(network, images, 0).any()
    assert [module.training for module in network.modules()] == modes
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_what_cannot_be_explained(network):
    images = torch.rand(2, 1, 40, 40)
    for arguments, message in (
        ({"layer": "stages.7"}, "no layer 'stages.7'"),
        ({"layer": "head"}, r"must give features \(B, F, h, w\)"),
        ({"layer": nn.Conv2d(1, 1, 1)}, "must be a module of the network"),
        ({"category": "E"}, "category must be A, B, C, D"),
        ({"category": 4}, "index below 4"),
        ({"category": True}, "Got True instead"),
        ({"category": [0]}, "Got 1 for 2 images"),
    ):
        with pytest.raises(OptionError, match=message):
            mammodensity.grad_cam(network, images, **arguments)
    with pytest.raises(OptionError, match="no convolution"):
        mammodensity.grad_cam(nn.Flatten(), torch.rand(1, 1, 2, 2))
    for wrong in (images[0], images.to(torch.uint8), images[:0], images.numpy()):
        with pytest.raises(OptionError, match="images must be a float tensor"):
            mammodensity.grad_cam(network, wrong)
    assert torch.equal(mammodensity.grad_cam(network, images, np.int64(1)), mammodensity.grad_cam(network, images, "B"))


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model, "cpu")


@pytest.fixture(scope="module")
def exam(blobs) -> Exam:
    exam_id, records = next(iter(find_images(blobs).exams().items()))
    return load_exam(exam_id, records)


def test_maps_of_an_exam_share_one_scale(model, exam):
    maps = explain_exam(model, exam, category=DensityCategory.A)
    assert maps.scale == max(one.values.max() for one in maps.maps.values())
    for projection, one in maps.maps.items():
        assert one.values.shape == exam.mammograms[projection].pixels.shape
        assert one.values.dtype == np.float32
        assert one.category == "A"
    own = explain_exam(model, exam)
    assert {one.category for one in own.maps.values()} <= set(DensityCategory)
    for one in own.maps.values():
        assert one.category.index == one.scores.argmax()
    with pytest.raises(OptionError, match="method must be one of"):
        explain_exam(model, exam, method="magic")


def test_a_page_for_each_exam_and_arrays_on_request(model, blobs, tmp_path):
    data = find_images(blobs)
    wanted = sorted(data.exams())[:2]
    part = data.of_exams(wanted)
    pages = explain(part, model=model, output=tmp_path / "out", category=DensityCategory.B).pages
    assert [page.name for page in pages] == [f"{exam}.html" for exam in wanted]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*(page.name for page in pages), SUMMARY_FILE}
    summary = json.loads((tmp_path / "out" / SUMMARY_FILE).read_text())
    assert len(summary["images"]) == 8
    assert {image["category"] for image in summary["images"]} == {"B"}
    assert "Not a medical device" in summary["note"]
    for page, exam in zip(pages, wanted, strict=True):
        text = page.read_text()
        assert exam in text
        assert text.count("Not a medical device") == 1
        assert "STATEMENT" not in text
    explain(part, model=model, output=tmp_path / "out", arrays=True)
    for record in part.records:
        values = np.load(tmp_path / "out" / f"{record.exam_id}_{record.projection}_map.npy")
        assert (values.dtype, values.shape) == (np.float32, (40, 40))


def test_explained_exams_are_returned_where_no_output_is_asked_for(model, blobs):
    explanations = explain(blobs, model=model, first=1)
    [exam] = explanations.exams
    assert exam.result == explanations.results[0]
    for projection, one in exam.maps[0].maps.items():
        assert one.category == exam.result.projections[projection].category
        assert one.score == exam.result.projections[projection].scores[one.category]
    assert set(exam.verdicts[0].verdicts) == set(Projection)


def test_a_folder_used_again_holds_the_last_run_only(model, blobs, tmp_path):
    data = find_images(blobs)
    names = sorted(data.exams())
    explain(data.of_exams(names[:2]), model=model, output=tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    explain(data.of_exams(names[1:2]), model=model, output=tmp_path / "out")
    explain(data.of_exams(names[1:2]), model=model, output=tmp_path / "alone")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {path.name for path in (tmp_path / "alone").iterdir()} | {"mine.txt"}
    for harmless in ("no json", json.dumps({"files": ["../kept.txt", 3, "mine.txt/"]}), "[]"):
        (tmp_path / "kept.txt").write_text("kept")
        (tmp_path / "out" / "explanations.json").write_text(harmless)
        explain(data.of_exams(names[1:2]), model=model, output=tmp_path / "out")
        assert (tmp_path / "kept.txt").exists()
        assert (tmp_path / "out" / "mine.txt").exists()


def test_images_of_one_name_do_not_overwrite_each_other(model, blobs, tmp_path):
    source = next(iter(find_images(blobs).records)).path
    for exam in ("one", "two"):
        (tmp_path / "exams" / exam).mkdir(parents=True)
        (tmp_path / "exams" / exam / "R-CC.png").write_bytes(source.read_bytes())
    explain(find_images(tmp_path / "exams"), model=model, output=tmp_path / "out", arrays=True)
    assert {path.name for path in (tmp_path / "out").glob("*.npy")} == {"one_CC_R_map.npy", "two_CC_R_map.npy"}


def test_no_file_written_names_an_image_file(run, model, blobs, tmp_path):
    source = next(iter(find_images(blobs).records)).path
    rows = ["exam_id,projection,path"]
    for place, projection in enumerate(Projection):
        (tmp_path / "DOE^JANE").mkdir(exist_ok=True)
        content = source.read_bytes()
        file = tmp_path / "DOE^JANE" / f"Jane Doe {projection}.png"
        file.write_bytes(content[:100] if place == 3 else content)
        rows.append(f"e1,{projection},{file}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    out, page = tmp_path / "out", tmp_path / "page.html"
    options = ("--output", out, "--arrays", "--side-by-side", "--json", tmp_path / "scores.json", "--allow-missing")
    assert run("explain", tmp_path / "list.csv", "--model", model.folder, *options)[0] == 0
    options = ("--json", tmp_path / "results.json", "--html", page, "--allow-missing")
    assert run("predict", tmp_path / "list.csv", "--model", model.folder, *options)[0] == 0
    written = [*out.iterdir(), tmp_path / "scores.json", tmp_path / "results.json", page]
    assert len(written) == 11
    for path in written:
        assert not any(name in path.read_bytes() for name in (b"DOE^JANE", b"Jane Doe"))
        assert "Doe" not in path.name
    (exam,) = json.loads((tmp_path / "results.json").read_text())
    assert exam["refused"]["MLO_L"].startswith("the MLO_L image is damaged")


@pytest.mark.filterwarnings("ignore:Glyph")  # the command line silences it
def test_files_of_one_stem_and_exams_of_any_name(model, blobs, tmp_path):
    source = next(iter(find_images(blobs).records)).path
    for projection in Projection:
        (tmp_path / "data" / projection / "A").mkdir(parents=True)
        (tmp_path / "data" / projection / "A" / "001.png").write_bytes(source.read_bytes())
    explain(find_images(tmp_path / "data"), model=model, output=tmp_path / "one", arrays=True)
    assert len(list((tmp_path / "one").glob("*_map.npy"))) == 4
    data = find_images(tmp_path / "data")
    for name in ("../../evil", "/abs/evil", "a/b", "$\\frac$", "x" * 240, "\u4e73" * 240):
        named = replace(data, records=tuple(replace(record, exam_id=name) for record in data.records))
        (page,) = explain(named, model=model, output=tmp_path / "out").pages
        assert list((tmp_path / "out").glob("*.html")) == [page]
    assert {path.name for path in tmp_path.iterdir()} == {"data", "one", "out"}
    assert all(path.is_file() for path in (tmp_path / "out").iterdir())


def test_a_bad_image_is_refused_with_its_exam_and_bad_ones_alone_leave_no_file(model, blobs, tmp_path):
    source = next(iter(find_images(blobs).records)).path
    for exam, content in (("bad", source.read_bytes()[:100]), ("good", source.read_bytes())):
        (tmp_path / "exams" / exam).mkdir(parents=True)
        (tmp_path / "exams" / exam / "R-CC.png").write_bytes(content)
    data = find_images(tmp_path / "exams")
    done = explain(data, model=model, output=tmp_path / "out")
    assert [page.name for page in done.pages] == ["good.html"]
    (refused,) = done.refused
    assert "R-CC.png" in refused
    (written,) = json.loads((tmp_path / "out" / "explanations.json").read_text())["refused"]
    assert written.startswith("exam bad: the CC_R image is damaged")
    with pytest.raises(ImageError, match=r"R-CC\.png"):
        explain(data.of_exams(["bad"]), model=model, output=tmp_path / "none")
    assert {path.name for path in tmp_path.iterdir()} == {"exams", "out"}


def test_side_by_side_is_written_on_request_with_verdict_and_note(run, model_exam, tmp_path):
    model, data = model_exam
    code, _, _ = run("explain", data, "--model", model, "--output", tmp_path / "out", "--side-by-side")
    assert code == 0
    sides = sorted((tmp_path / "out").glob("*_side.png"))
    assert len(sides) == 4
    for side in sides:
        with Image.open(side) as picture:
            assert picture.width == 2 * 600 + 6, "the image twice, enlarged, and a seam"
            assert picture.height > 600, "a caption below"
    code, _, _ = run("explain", data, "--model", model, "--output", tmp_path / "out")
    assert code == 0
    assert not list((tmp_path / "out").glob("*_side.png")), "those of the earlier run are gone"


@pytest.fixture
def model_exam(tiny_model, blobs, tmp_path):
    """A model, and a folder with one exam."""
    records = next(iter(find_images(blobs).exams().values()))
    (tmp_path / "exam").mkdir()
    for projection, record in records.items():
        (tmp_path / "exam" / f"{projection}.png").write_bytes(record.path.read_bytes())
    return tiny_model, tmp_path / "exam"


def test_contrasts_of_an_exam(model, exam):
    own = explain_exam(model, exam).maps
    predicted = own[Projection.CC_R].category
    against = explain_exam(model, exam, against=predicted).maps
    assert not against[Projection.CC_R].values.any()  # nothing speaks for a category rather than itself
    assert against[Projection.CC_R].against == against[Projection.CC_R].category == predicted
    other = next(category for category in DensityCategory if category != predicted)
    why = explain_exam(model, exam, category=predicted, against=other, method="occlusion").maps[Projection.CC_R]
    alone = explain_exam(model, exam, category=predicted, method="occlusion").maps[Projection.CC_R]
    assert (why.category, why.against, alone.against) == (predicted, other, None)
    assert not np.allclose(why.values, alone.values)
    with pytest.raises(OptionError, match="against itself"):
        explain_exam(model, exam, category=predicted, against=predicted)


def test_files_of_several_methods(model, blobs, tmp_path):
    part = find_images(blobs).first_exams(1)
    [exam_id] = part.exams()
    steps = []
    methods = ("grad-cam++", "occlusion")
    [page] = explain(
        part,
        model=model,
        output=tmp_path / "out",
        methods=methods,
        arrays=True,
        progress=lambda done, total: steps.append((done, total)),
    ).pages
    assert page.name == f"{exam_id}.html"
    assert all(name in page.read_text() for name in ("Grad-CAM++", "cclusion"))
    assert steps == [(step, 8) for step in range(1, 9)]  # 4 views by 2 methods
    summary = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert {(one["projection"], one["method"]) for one in summary["images"]} == {
        (p, m) for p in Projection for m in methods
    }
    assert summary["receipt"]["method"] == "grad-cam++,occlusion"
    explain(part, model=model, output=tmp_path / "one", methods=["occlusion"], arrays=True)
    for record in part.records:
        several = np.load(tmp_path / "out" / f"{record.exam_id}_{record.projection}_occlusion_map.npy")
        assert np.array_equal(several, np.load(tmp_path / "one" / f"{record.exam_id}_{record.projection}_map.npy"))
        assert not np.array_equal(
            several, np.load(tmp_path / "out" / f"{record.exam_id}_{record.projection}_grad-cam++_map.npy")
        )
    explain(part, model=model, output=tmp_path / "out")  # the files of all methods go
    assert not list((tmp_path / "out").glob("*occlusion*"))
    for wrong, message in (
        ({"methods": ["occlusion", "occlusion"]}, "occlusion is there 2 times"),
        ({"methods": ["grad-cam", ""]}, "method must be one of"),
        ({"methods": ["grad-cam", "occlusion"], "layer": "stages.0"}, "occlusion looks at pixels and takes no layer"),
    ):
        with pytest.raises(OptionError, match=message):
            explain(part, model=model, output=tmp_path / "none", **wrong)
    assert not (tmp_path / "none").exists()


def test_real_images(model, shared_data, tmp_path):
    data = find_images(shared_data / "origin" / "test_images")
    explanations = explain(data, model=model, output=tmp_path / "out")
    assert len(explanations.pages) == len(data.exams())
    assert "of 16 images" in (explanations.statement or "")
