"""Dense tissue, percent density, categories from it, and the default model built on them."""

from __future__ import annotations

import csv
import inspect
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import mammodensity
from dicom_samples import mammogram as dicom_mammogram
from mammodensity.anatomy.density import DEFAULT_MAP, CategoryMap, fit_category_map
from mammodensity.anatomy.networks import new_tissue_network
from mammodensity.anatomy.tissue import doubts, find_tissue
from mammodensity.commands.command_line import main
from mammodensity.data.find import find_images
from mammodensity.errors import (
    CheckpointError,
    ImageError,
    Interrupted,
    LayoutError,
    OptionError,
    OutputError,
    TableError,
)
from mammodensity.exam import Exam, Mammogram
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.default import TissueModel
from mammodensity.models.scoring import predict
from mammodensity.models.trained import load_model
from mammodensity.phantom.disturbances import disturb, impostor
from mammodensity.phantom.exams import PhantomSpec, make_exam, trace_breast, write_phantoms
from mammodensity.research.default_networks import DefaultRecipe, train_default
from mammodensity.results.category_fit import fit_categories
from mammodensity.results.result import exam_result
from mammodensity.results.rules import FLAGS
from mammodensity.terms import CATEGORIES, PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory, Projection
from mammodensity.workflows.segment import segment, table_row


@pytest.fixture(scope="module")
def exams():
    """Phantoms of another seed than the networks', one of each category."""
    return [make_exam(PhantomSpec(rows=160, seed=7), index) for index in range(4)]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Sixteen exams in the origin's folders."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(PhantomSpec(rows=96, seed=8), 16, folder)
    return folder


def as_exam(made) -> Exam:
    views = {p: Mammogram(view.image, p, spacing_mm=view.spacing_mm) for p, view in made.views.items()}
    return Exam("one", views)


# --- the map --------------------------------------------------------------------------------------------------------


def test_percent_density_follows_the_truth(exams):
    true, found = [], []
    for exam in exams:
        for projection, view in exam.views.items():
            tissue = find_tissue(Mammogram(view.image, projection))
            true.append(view.percent_density)
            found.append(tissue.percent_density)
            assert tissue.labels.shape == view.image.shape
            assert set(np.unique(tissue.labels)) <= {0, 1, 2, 3}
            counted = (tissue.labels == 2).sum() / np.isin(tissue.labels, (1, 2)).sum()
            assert 100 * counted == pytest.approx(tissue.percent_density, abs=2.5)
    assert np.corrcoef(true, found)[0, 1] > 0.9
    assert np.abs(np.subtract(true, found)).mean() < 10


def test_a_mirrored_image_gives_a_mirrored_map(exams):
    image = exams[2].views[Projection.MLO_L].image
    one = find_tissue(Mammogram(image, Projection.MLO_L))
    other = find_tissue(Mammogram(np.ascontiguousarray(image[:, ::-1]), Projection.MLO_L))
    assert (one.chest_side, other.chest_side) == ("left", "right")
    assert (one.labels != other.labels[:, ::-1]).mean() < 2e-3
    assert one.percent_density == pytest.approx(other.percent_density, abs=0.3)


def test_bit_depth_and_brightness_do_not_matter(exams):
    image = exams[1].views[Projection.CC_R].image
    one = find_tissue(Mammogram(image)).percent_density
    assert find_tissue(Mammogram(image.astype(np.uint16) * 257)).percent_density == pytest.approx(one, abs=0.1)
    darker = find_tissue(Mammogram(image.astype(np.uint16) * 30)).percent_density
    assert darker == pytest.approx(one, abs=1.5)


def test_a_muscle_in_plain_view_contradicts_cc(exams):
    image = exams[0].views[Projection.MLO_R].image
    assert (find_tissue(Mammogram(image)).labels == 3).any()
    with pytest.raises(ImageError, match="CC_R by its label"):
        find_tissue(Mammogram(image, Projection.CC_R))


# --- doubts ---------------------------------------------------------------------------------------------------------


def test_each_doubt_alone():
    sure = {"outline": 0.95, "tissue": 0.9, "projection": Projection.MLO_L, "muscle": True}
    told = {
        "breast, muscle and background": {"outline": 0.8},
        "dense and fatty tissue": {"tissue": 0.6},
        "no pectoral muscle": {"muscle": False},
    }
    assert not list(doubts(**sure))
    assert not list(doubts(**{**sure, "projection": Projection.CC_L, "muscle": False}))
    assert not list(doubts(**{**sure, "projection": None, "muscle": False}))
    for text, change in told.items():
        (flag,) = doubts(**{**sure, **change})
        assert text in flag.text
        assert flag.code in FLAGS


def test_doubts_make_an_exam_abstain_and_are_noted(exams, monkeypatch, tmp_path):
    exam = as_exam(exams[2])
    assert exam_result(TissueModel().score(exam)).category is not None
    monkeypatch.setattr("mammodensity.anatomy.tissue._LEAST_SURE_TISSUE", 0.999)
    result = exam_result(TissueModel().score(exam))
    assert result.category is None
    assert {flag.code for flag in result.abstained_for} == {"doubtful-tissue"}
    mammogram = exam.mammograms[Projection.CC_L]
    row = table_row(tmp_path / "a.png", mammogram, find_tissue(mammogram), "seen twice")
    assert row["note"].startswith("seen twice; dense and fatty tissue can hardly be told apart (sureness 0.")


# --- what is no mammogram -------------------------------------------------------------------------------------------


def test_impostors_are_images_of_many_kinds():
    rng = np.random.default_rng(3)
    breast, _ = disturb(trace_breast(PhantomSpec(rows=96, seed=6), 0, "L")["MLO"], (96, 64), rng)
    made = [impostor((96, 64), rng, breast) for _ in range(60)]
    for image in made:
        assert image.shape == (96, 64)
        assert image.dtype == np.float32
        assert 0 <= image.min() < image.max() <= 1
    assert np.std([image.mean() for image in made]) > 0.1
    again = np.random.default_rng(4), np.random.default_rng(4)
    assert np.array_equal(*(impostor((96, 64), one, breast) for one in again))


# --- categories -----------------------------------------------------------------------------------------------------


def test_scores_are_ordinal():
    percents = np.linspace(0, 100, 201)
    scores = np.stack([DEFAULT_MAP.scores(percent) for percent in percents])
    assert np.allclose(scores.sum(axis=1), 1)
    assert (scores >= 0).all()
    assert (np.diff(scores @ np.arange(4)) > 0).all()
    assert [DEFAULT_MAP.category(percent) for percent in (0, 20, 50, 90)] == list(CATEGORIES)
    for cut, place in zip(DEFAULT_MAP.cuts, (1, 2, 3), strict=True):
        assert DEFAULT_MAP.scores(cut)[place:].sum() == pytest.approx(0.5)


def test_a_refit_finds_the_map_that_made_the_labels():
    true = CategoryMap((10.0, 25.0, 45.0), 6.0, "made up")
    rng = np.random.default_rng(0)
    percents = rng.uniform(0, 80, 300)
    categories = [CATEGORIES[rng.choice(4, p=true.scores(percent))] for percent in percents]
    found = fit_category_map(list(percents), categories, "test")
    assert np.allclose(found.cuts, true.cuts, atol=2.5)
    assert found.slope == pytest.approx(true.slope, rel=0.3)


def test_a_refit_holds_with_few_exams_and_absent_categories():
    found = fit_category_map([5.0] * 10 + [60.0] * 10, [DensityCategory.B] * 10 + [DensityCategory.C] * 10, "test")
    assert found.cuts[0] < 5 < found.cuts[1] < 60 < found.cuts[2]
    with pytest.raises(TableError, match="at least 10 labelled exams"):
        fit_category_map([1.0] * 9, [DensityCategory.A] * 9, "test")
    with pytest.raises(TableError, match="all of one category"):
        fit_category_map([1.0] * 20, [DensityCategory.A] * 20, "test")


@pytest.mark.parametrize("cuts", [(3.0, 2.0, 50.0), (-1.0, 2.0, 3.0), (1.0, 2.0, 101.0), (1.0, float("nan"), 3.0)])
def test_maps_that_make_no_sense(cuts):
    with pytest.raises(OptionError, match="cut"):
        CategoryMap(cuts, 1.0, "test")
    with pytest.raises(OptionError, match="slope"):
        CategoryMap((1.0, 2.0, 3.0), 0.0, "test")


# --- the default model ----------------------------------------------------------------------------------------------


def test_an_exam_gets_percent_densities_and_scores(exams):
    model = mammodensity.load_model()
    result = model.score(as_exam(exams[3]))
    assert isinstance(model, TissueModel)
    assert list(result.projections) == list(PROJECTIONS)
    density = result.percent_density
    assert density["right"] == pytest.approx((density["CC_R"] + density["MLO_R"]) / 2)
    assert density["subject"] == pytest.approx((density["right"] + density["left"]) / 2)
    for projection, scores in result.projections.items():
        assert np.allclose(scores, DEFAULT_MAP.scores(density[projection]))


def test_a_refused_view_is_missing_and_named(exams):
    exam = as_exam(exams[2])
    rng = np.random.default_rng(0)
    noise = Mammogram(rng.integers(0, 255, (160, 128)).astype(np.uint8), Projection.CC_L)
    spoilt = Exam("one", {**exam.mammograms, Projection.CC_L: noise})
    result = load_model().score(spoilt)
    assert result.category is None
    assert list(result.refused) == [Projection.CC_L]
    assert "subject" not in result.percent_density
    assert "right" in result.percent_density
    asked = load_model().score(spoilt, allow_missing=True)
    assert asked.category is not None
    assert asked.percent_density["left"] == asked.percent_density["MLO_L"]


def test_predict_goes_on_after_a_damaged_image(phantoms, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(phantoms, copy)
    first = sorted((copy / "CC_R").rglob("*.png"))[0]
    first.write_bytes(b"nothing")
    results = list(predict(load_model(), find_images(copy)))
    assert len(results) == 16
    assert sum(bool(result.refused) for result in results) == 1
    assert sum(result.category is not None for result in results) == 15


def test_calibration(phantoms, tmp_path):
    calls = []
    found = fit_categories(find_images(phantoms), tmp_path / "site", progress=lambda *done: calls.append(done))
    assert found.exams == 16 == len(calls)
    assert found.agreement_refitted > 0.5
    model = load_model(tmp_path / "site")
    assert isinstance(model, TissueModel)
    assert model.category_map == found.category_map != DEFAULT_MAP
    written = json.loads((tmp_path / "site" / "category_map.json").read_text())
    assert written["note"] == RESEARCH_USE_ONLY
    assert written["exams"] == 16
    (tmp_path / "site" / "category_map.json").write_text('{"cuts": [3, 2, 1]}')
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path / "site")


def test_calibration_needs_labels_and_a_folder_of_its_own(phantoms, tiny_model, tmp_path):
    images = find_images(phantoms)
    with pytest.raises(OutputError, match="holds trained networks"):
        fit_categories(images, tiny_model)
    with pytest.raises(TableError, match="at least 10 labelled exams"):
        fit_categories(images.first_exams(5), tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_mask_is_the_explanation(exams):
    explained = explain_exam(load_model(), as_exam(exams[2]))
    assert explained.method == "tissue"
    assert explained.scale == 1
    for projection, one in explained.maps.items():
        inside = one.values > 0.5
        assert inside.mean() == pytest.approx((exams[2].views[projection].labels == 2).mean(), abs=0.12)
        assert one.percent_density is not None
    with pytest.raises(OptionError, match="tissue map"):
        explain_exam(load_model(), as_exam(exams[2]), method="grad-cam")


# --- commands -------------------------------------------------------------------------------------------------------


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_predict_without_a_model(phantoms, tmp_path, capsys):
    assert run("predict", phantoms, "--csv", tmp_path / "scores.csv") == 0
    said = capsys.readouterr().out
    assert RESEARCH_USE_ONLY in said
    assert "% dense" in said
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 16 * 7
    assert all(0 <= float(row["percent_density"]) <= 100 for row in rows)
    assert run("calibrate", phantoms, "--model", tmp_path / "site") == 0
    assert run("predict", phantoms, "--model", tmp_path / "site") == 0
    assert run("evaluate", "--csv", tmp_path / "scores.csv", "--labels", phantoms / "manifest.csv") == 0


def test_predict_says_when_every_image_is_refused(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "exam").mkdir()
    Image.fromarray(rng.integers(0, 255, (160, 128)).astype(np.uint8)).save(tmp_path / "exam" / "L-CC.png")
    assert run("predict", tmp_path / "exam", "--allow-missing", "--csv", tmp_path / "x.csv") != 0
    assert "no breast" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_explain_without_a_model(phantoms, tmp_path):
    assert run("explain", phantoms, "--first", 1, "--output", tmp_path / "maps") == 0
    summary = json.loads((tmp_path / "maps" / "explanations.json").read_text())
    assert summary["receipt"]["method"] == "tissue"
    assert len(list((tmp_path / "maps").glob("*.html"))) == 1


def test_files_of_a_segmentation(exams, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    names = {}
    for number, projection in enumerate(PROJECTIONS):
        names[f"e_{projection}"] = exams[0].views[projection].image
        names[f"scan{number}"] = exams[1].views[projection].image
    names["e2_MLO_R"] = exams[0].views[Projection.MLO_L].image
    names["empty"] = np.eye(60, dtype=np.uint8)
    for name, pixels in names.items():
        Image.fromarray(pixels).save(images / f"{name}.png")
    (images / "damaged.png").write_bytes(b"nothing")
    calls = []
    done = segment([images], tmp_path / "out", progress=lambda *done: calls.append(done))
    assert len(done.labels) == len(names) == len(calls) - 1
    assert len(done.refused) == 2
    for lines in (done.refused, done.doubts):
        assert {line.partition(".png")[0] for line in lines} <= {*names, "damaged"}
    with (tmp_path / "out" / "segment.csv").open(newline="") as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {f"{name}.png" for name in (*names, "damaged")}
    for name, pixels in names.items():
        labels = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        assert labels.shape == pixels.shape
        row = rows[f"{name}.png"]
        if name == "empty":
            assert not labels.any()
            assert row["percent_density"] == ""
            continue
        for value, column in ((1, "adipose_px"), (2, "fibroglandular_px"), (3, "pectoral_px")):
            assert int(row[column]) == (labels == value).sum()
        assert 0 <= float(row["percent_density"]) <= 100
        assert row["adipose_mm2"] == ""
    assert rows["e_CC_R.png"]["projection"] == "CC_R"
    assert rows["e_CC_R.png"]["stored_flipped"] == "no"
    assert rows["e_CC_R.png"]["chest_side"] == "right"
    assert rows["e2_MLO_R.png"]["stored_flipped"] == "yes"
    assert [rows[f"scan{n}.png"]["view_position"] for n in range(4)] == ["CC", "CC", "MLO", "MLO"]
    assert {rows[f"scan{n}.png"]["view_from"] for n in range(4)} == {"pixels"}
    assert "no breast" in rows["empty.png"]["note"]


def test_a_folder_used_again_holds_the_last_run_only(exams, tmp_path):
    for name in ("a_L-CC", "b_L-CC"):
        Image.fromarray(exams[0].views[Projection.CC_L].image).save(tmp_path / f"{name}.png")
    segment([tmp_path / "a_L-CC.png"], tmp_path / "out")
    (tmp_path / "out" / "mine.png").write_bytes(b"kept")
    segment([tmp_path / "b_L-CC.png"], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b_L-CC.png", "segment.csv", "mine.png"}
    (tmp_path / "out" / "segment.csv").write_text("file\nmine.png\n")
    segment([tmp_path / "a_L-CC.png"], tmp_path / "out")
    assert (tmp_path / "out" / "mine.png").exists(), "a table of someone else says nothing of ours"
    assert (tmp_path / "out" / "b_L-CC.png").exists()


def test_segment_reads_dicom(exams, tmp_path):
    view = exams[2].views[Projection.MLO_L]
    pixels = np.asarray(Image.fromarray(view.image).resize((640, 800))).astype(np.uint16) * 16
    dicom_mammogram(Projection.MLO_L, pixels).save_as(tmp_path / "IM0001")
    segment([tmp_path / "IM0001"], tmp_path / "out")
    with (tmp_path / "out" / "segment.csv").open(newline="") as stream:
        [row] = csv.DictReader(stream)
    assert row["projection"] == "MLO_L"
    assert row["view_from"] == "header"
    assert float(row["adipose_mm2"]) > 0


def test_areas_in_mm2_where_the_spacing_is_known(exams, tmp_path):
    view = exams[0].views[Projection.MLO_R]
    mammogram = Mammogram(view.image, Projection.MLO_R, spacing_mm=view.spacing_mm)
    row = table_row(tmp_path / "a.png", mammogram, find_tissue(mammogram))
    area = row["adipose_mm2"] + row["fibroglandular_mm2"]
    assert area == pytest.approx(view.breast.sum() * view.spacing_mm**2, rel=0.06)


def test_the_segment_command(exams, tmp_path, capsys):
    Image.fromarray(exams[0].views[Projection.MLO_L].image).save(tmp_path / "L-MLO.png")
    for arguments, code, words in (
        ([tmp_path / "L-MLO.png", "--output", tmp_path / "out"], 0, "1 label image and segment.csv"),
        ([tmp_path / "none.png", "--output", tmp_path / "out2"], 1, "none.png not found"),
        ([tmp_path / "out" / "segment.csv", "--output", tmp_path / "L-MLO.png"], 1, "is a file, expected a folder"),
        ([tmp_path / "L-MLO.png", "--output", tmp_path], 1, "holds images to be segmented"),
    ):
        assert run("segment", *arguments) == code
        captured = capsys.readouterr()
        assert words in captured.out + captured.err
        assert (RESEARCH_USE_ONLY in captured.out) == (code == 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["L-MLO.png", "out"]


def test_nothing_is_written_where_no_picture_can_be_read(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").write_bytes(b"nothing")
    with pytest.raises(ImageError):
        segment([tmp_path / "images"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def segmented(*arguments, **options) -> dict[str, dict[str, str]]:
    *images, output = arguments
    segment(images, output, **options)
    with (output / "segment.csv").open(newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def test_folders_of_any_depth_are_segmented_and_told_apart(exams, tmp_path):
    data = tmp_path / "JANE DOE" / "study"
    for place in ("one", "two/deep"):
        (data / place).mkdir(parents=True)
        Image.fromarray(exams[0].views[Projection.CC_L].image).save(data / place / "L-CC.png")
    Image.fromarray(exams[0].views[Projection.CC_R].image).save(data / "R-CC.png")
    (data / "two" / "broken.png").write_bytes(b"nothing")
    (data / "two" / "notes.txt").write_text("no image")
    rows = segmented(data, tmp_path / "out")
    assert {name: row["labels"] for name, row in rows.items()} == {
        "R-CC.png": "R-CC.png",
        "one/L-CC.png": "one_L-CC.png",
        "two/deep/L-CC.png": "two_deep_L-CC.png",
        "two/broken.png": "",
    }
    assert "two/broken.png is not a readable" in rows["two/broken.png"]["note"]
    assert "DOE" not in (tmp_path / "out" / "segment.csv").read_text()
    assert all((tmp_path / "out" / row["labels"]).is_file() for row in rows.values() if row["labels"])
    segmented(data / "one", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"L-CC.png", "segment.csv"}


def test_an_image_given_twice_is_segmented_once(exams, tmp_path):
    (tmp_path / "data").mkdir()
    picture = tmp_path / "data" / "L-CC.png"
    Image.fromarray(exams[0].views[Projection.CC_L].image).save(picture)
    link = tmp_path / "link.png"
    link.symlink_to(picture)
    assert list(segmented(picture, picture, tmp_path / "a")) == ["L-CC.png"]
    assert list(segmented(tmp_path / "data", picture, link, tmp_path / "data", tmp_path / "b")) == ["data/L-CC.png"]
    other = tmp_path / "other" / "L-CC.png"
    other.parent.mkdir()
    other.write_bytes(picture.read_bytes())
    assert list(segmented(picture, other, tmp_path / "c")) == ["L-CC.png", "other/L-CC.png"]
    rows = segmented(picture.parent, other.parent, tmp_path / "d")
    assert [row["labels"] for row in rows.values()] == ["data_L-CC.png", "other_L-CC.png"]


def test_of_a_folder_with_a_manifest_its_images_are_segmented(phantoms, tmp_path):
    rows = segmented(phantoms, tmp_path / "out")
    assert all(name.split("/")[0] in PROJECTIONS for name in rows), "no masks"
    assert len(rows) == len(list(phantoms.glob("*_*/*/*.png")))


def test_label_images_are_no_images_of_the_next_run(exams, tmp_path):
    Image.fromarray(exams[0].views[Projection.CC_L].image).save(tmp_path / "L-CC.png")
    for _ in range(2):
        assert list(segmented(tmp_path, tmp_path / "out")) == ["L-CC.png"]
    Image.fromarray(exams[0].views[Projection.CC_L].image).save(tmp_path / "out" / "mine.png")
    with pytest.raises(OutputError, match="holds images to be segmented"):
        segmented(tmp_path, tmp_path / "out")
    assert list(segmented(tmp_path / "L-CC.png", tmp_path / "out")) == ["L-CC.png"]


def test_names_that_cannot_be_told_apart_are_refused(exams, tmp_path):
    pixels = exams[0].views[Projection.CC_L].image
    for place in ("a/x", "b/x"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / place / "L-CC.png")
    with pytest.raises(OptionError, match=r"have one name, x/L-CC\.png"):
        segmented(tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "out")
    (tmp_path / "a" / "empty").mkdir()
    with pytest.raises(LayoutError, match="holds no image"):
        segmented(tmp_path / "a" / "empty", tmp_path / "out")


# --- training -------------------------------------------------------------------------------------------------------


def test_the_command_trains_by_the_recipe_of_the_package():
    from mammodensity.commands.training import train_default as command

    given = {name: one.default for name, one in inspect.signature(command).parameters.items()}
    recipe = DefaultRecipe()
    assert given["breasts"] == recipe.breasts
    assert (given["outline_steps"], given["tissue_steps"], given["readers_steps"], given["seed"]) == (
        recipe.outline_steps,
        recipe.tissue_steps,
        recipe.readers_steps,
        recipe.seed,
    )


def test_the_networks_are_made_again_bit_for_bit_also_after_a_stop(tmp_path, ask_to_stop):
    recipe = DefaultRecipe(breasts=2, rows=64, outline_steps=3, tissue_steps=3, readers_steps=3, batch=2)
    device = torch.device("cpu")
    calls = []
    whole = train_default(tmp_path / "whole", recipe, device, lambda *done: calls.append(done))
    assert {call[0] for call in calls} == {"phantoms", "segmenter", "tissue", "readers"}

    def stop(name: str, done: int, _total: int) -> None:
        if (name, done) == ("tissue", 2):
            ask_to_stop.set()

    with pytest.raises(Interrupted, match="goes on"):
        train_default(tmp_path / "halves", recipe, device, stop)
    halves = train_default(tmp_path / "halves", recipe, device)
    for one, other in zip(whole, halves, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()
    assert not list(tmp_path.rglob("*.resume"))
    first, second = (load_file(path) for path in whole[1:])
    for one in (first, second):
        new_tissue_network().load_state_dict(one)
    assert any(not torch.equal(first[name], second[name]) for name in first), "other images"
    with pytest.raises(CheckpointError, match="another recipe: seed"):
        train_default(tmp_path / "whole", replace(recipe, seed=2), device)
    (tmp_path / "whole" / "recipe.json").write_text("[1")
    with pytest.raises(CheckpointError, match=r"recipe\.json is damaged"):
        train_default(tmp_path / "whole", recipe, device)
    with pytest.raises(OptionError, match="tissue_steps must be greater than"):
        replace(recipe, tissue_steps=0)
