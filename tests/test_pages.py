"""Pages of exams: the pictures, the page of one exam, and the page of many."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from mammodensity import __version__
from mammodensity.anatomy.read_view import ReadView
from mammodensity.exam import Flag, Mammogram
from mammodensity.explanation.maps import TISSUE, ActivationMap, ExamMaps
from mammodensity.explanation.verdicts import Verdict
from mammodensity.pages.exam_page import MethodBlock, ViewPictures, map_block, render_exam_page
from mammodensity.pages.pictures import (
    FILL_COLOUR,
    FILL_OPACITY,
    LINE_COLOURS,
    Evidence,
    evidence_picture,
    iso_contours,
    side_by_side,
    view_picture,
)
from mammodensity.pages.results import write_results_page
from mammodensity.results.calibration import Calibration, ViewsCalibration
from mammodensity.results.result import NOTIFICATION, ExamResult, exam_result
from mammodensity.results.score_calibration import CalibrationMap
from mammodensity.scores import ExamScores, fuse_exam
from mammodensity.terms import PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory, Projection

SURE_B = (0.02, 0.9, 0.07, 0.01)
HOSTILE = '<script>alert("1")</script> & `co`'


def result_of(scores=SURE_B, *, calibrated=False, name="e1", flags=None, percent=None, **views) -> ExamResult:
    """The result of four views with the same scores, except views that are named; None leaves a view out."""
    chosen = {view: views.get(view.value, scores) for view in PROJECTIONS}
    present = {view: np.asarray(one, float) for view, one in chosen.items() if one is not None}
    fitted = ViewsCalibration(
        CalibrationMap("temperature", (2.0,)), np.tile([0.1, 0.6, 0.2, 0.1], (99, 1)), np.ones(99, np.intp)
    )
    calibration = Calibration({tuple(PROJECTIONS): fitted, (Projection.CC_R,): fitted}) if calibrated else None
    exam = ExamScores(name, present, fuse_exam(present), percent or {}, view_flags=flags or {})
    return exam_result(exam, calibration)


def disc(rows: int = 200, columns: int = 160) -> tuple[Mammogram, np.ndarray, np.ndarray]:
    """A breast with the chest wall on the left, its labels, and a map that is 1 in a part of it."""
    row, column = np.mgrid[:rows, :columns]
    breast = np.hypot(row - rows / 2, column) < 0.4 * rows
    dense = np.hypot(row - rows / 2, column - 0.15 * rows) < 0.1 * rows
    pixels = (breast * (90 + row % 7) + dense * 60).astype(np.uint8)
    return Mammogram(pixels), (breast + dense.astype(int)).astype(np.uint8), dense.astype(np.float32)


def opened(uri: str) -> Image.Image:
    kind, content = uri.removeprefix("data:").split(";base64,")
    assert kind in ("image/jpeg", "image/png")
    return Image.open(BytesIO(base64.b64decode(content, validate=True)))


def points(path: str) -> np.ndarray:
    """(N, 2) columns and rows of all lines of SVG path data."""
    return np.array([[float(number) for number in pair.split()] for pair in re.split("[ML]", path) if pair])


class Page(HTMLParser):
    """The elements and the visible text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._hidden = False
        self.words: list[str] = []
        self.feed(source)
        self.text = " ".join("".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    def of(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            values
            for name, values in self.elements
            if name == tag and all(values.get(key.rstrip("_"), "").split()[:1] == [v] for key, v in attributes.items())
        ]


# Pictures


@pytest.mark.parametrize(
    ("rows", "wanted", "longest"), [(64, 640, 640), (64, 100, 600), (3000, 1200, 1200), (900, 5000, 1400)]
)
def test_no_picture_is_too_small_or_too_large(rows, wanted, longest):
    picture = view_picture(Evidence(disc(rows, rows // 2)[0]), longest_px=wanted)
    assert (picture.height, picture.width) == (longest, longest // 2)
    assert opened(picture.plain).size == (picture.width, picture.height)
    assert picture.fill is None


@pytest.mark.parametrize("labelled", [True, False])
def test_the_fill_is_light_and_leaves_black_what_is_black(labelled):
    mammogram, labels, _ = disc()
    everywhere = np.ones(labels.shape, np.float32)
    picture = view_picture(Evidence(mammogram, everywhere, labels=labels if labelled else None))
    fill = np.asarray(opened(picture.fill).convert("RGBA"))
    outside = np.asarray(opened(picture.plain)) < 3
    assert {tuple(colour) for colour in fill[fill[..., 3] > 0][:, :3]} == {FILL_COLOUR}
    assert fill[..., 3].max() == pytest.approx(255 * FILL_OPACITY, abs=1)
    assert np.median(fill[~outside, 3]) == fill[..., 3].max()
    assert (fill[outside, 3] > 40).mean() < 0.01
    assert points(picture.lines["evidence"])[:, 0].max() > 0.99 * picture.width, "the contour shows what lies outside"
    nothing = view_picture(Evidence(mammogram, 0 * everywhere, scale=0.0))
    assert np.asarray(opened(nothing.fill).convert("RGBA"))[..., 3].max() == 0
    assert nothing.lines["evidence"] == ""


def test_contours_lie_where_the_map_does_and_turn_with_the_view():
    mammogram, labels, values = disc()
    picture = view_picture(Evidence(mammogram, values, labels=labels, outline_dense=True), longest_px=800)
    for name, radius in (("evidence", 80), ("dense", 80), ("breast", 320)):
        line = points(picture.lines[name])
        centre = (2, 400) if name == "breast" else (122, 402)
        assert np.hypot(*(line - centre).T) == pytest.approx(radius, abs=8), name
    assert "muscle" not in picture.lines
    turned = view_picture(Evidence(mammogram, values, labels=labels), flip=True, longest_px=800)
    mirrored = points(turned.lines["evidence"]) * (-1, 1) + (turned.width, 0)
    assert np.hypot(*(mirrored - (122, 402)).T) == pytest.approx(80, abs=8)
    assert np.asarray(opened(turned.plain))[400, 630] > 80
    assert np.asarray(opened(turned.plain))[400, 10] < 5


def test_the_grid_of_the_network_does_not_show_in_the_contour():
    mammogram, labels, values = disc(400, 300)
    row, column = np.mgrid[:400, :300]
    grid = (values * (0.75 + 0.25 * (-1.0) ** (row + column)) + 0.02 * (row % 2)).astype(np.float32)
    smooth, rough = (
        points(view_picture(Evidence(mammogram, one, labels=labels)).lines["evidence"]) for one in (0.75 * values, grid)
    )
    lengths = [np.hypot(*np.diff(line, axis=0).T).sum() for line in (smooth, rough)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.03)


def test_iso_contours_lie_at_the_level_and_close_at_the_border():
    rows, columns = np.mgrid[:60, :80]
    cone = np.maximum(0, 20 - np.hypot(rows - 30, columns - 50)).astype(np.float32)
    [line] = iso_contours(cone, 10)
    assert np.allclose(np.hypot(line[:, 0] - 30, line[:, 1] - 50), 10, atol=0.05)
    edge = np.maximum(0, 20 - np.hypot(rows, columns)).astype(np.float32)
    [line] = iso_contours(edge, 10)
    assert np.allclose(line[0], line[-1])
    assert iso_contours(cone, 30) == []
    assert iso_contours(np.zeros_like(cone), 0) == []


@pytest.mark.parametrize("rows", [200, 800])
def test_side_by_side_shows_plain_and_evidence_at_full_size_with_a_caption(rows):
    mammogram, labels, values = disc(rows, rows)
    words = {"evidence": "map", "breast": "breast", "muscle": "muscle"}
    picture = side_by_side(Evidence(mammogram, values, 1.0, labels), caption=["title"], line_words=words)
    size = max(rows, 600)
    assert picture.shape[1] == 2 * size + size // 100
    plain, mapped = picture[:size, :size], picture[:size, -size:]
    assert (plain == plain[..., :1]).all(), "grey"
    for name in ("evidence", "breast"):
        colour = [int(LINE_COLOURS[name][place : place + 2], 16) for place in (1, 3, 5)]
        assert (mapped == colour).all(axis=-1).any(), name
    assert np.array_equal(mapped, evidence_picture(Evidence(mammogram, values, 1.0, labels)))
    fewer = side_by_side(Evidence(mammogram, values, 1.0, labels), caption=["title"], line_words={})
    assert len(fewer) < len(picture), "the legend names the lines that were drawn"


# The page of one exam


def block_of(views=PROJECTIONS, method=TISSUE, verdict=None, **others) -> MethodBlock:
    mammogram, labels, values = disc()
    picture = view_picture(Evidence(mammogram, values, labels=labels))
    return MethodBlock(
        method,
        tuple(
            ViewPictures(view, picture, explained=DensityCategory.B, verdict=verdict, **others)
            for view in reversed(views)
        ),
    )


def test_a_page_holds_all_it_needs_and_runs_its_own_script_only():
    source = render_exam_page(result_of(name=HOSTILE), [block_of()], model=HOSTILE, warnings=[HOSTILE])
    page = Page(source)
    assert HOSTILE.replace("`", "") in page.text.replace("`", "")
    for _, values in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            assert values.get(name, "data:").startswith("data:"), values
    assert "url(" not in source
    assert "@import" not in source
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [v["content"] for v in page.of("meta") if "http-equiv" in v]
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_views_hang_as_a_radiologist_hangs_them_and_missing_ones_take_no_place():
    names = [values["aria-label"].split()[0] for values in Page(page_of()).of("svg", class_="view")]
    assert names == ["CC_R", "CC_L", "MLO_R", "MLO_L"]
    two = Page(page_of(views=(Projection.MLO_L, Projection.CC_R)))
    assert [values["aria-label"].split()[0] for values in two.of("svg", class_="view")] == ["CC_R", "MLO_L"]
    assert len(two.of("figure")) == 2


def test_a_view_that_is_stored_mirrored_is_turned():
    mammogram, _, values = disc()
    turned = Mammogram(np.ascontiguousarray(mammogram.pixels[:, ::-1]))
    pictures = []
    for one, map_values in ((mammogram, values), (turned, np.ascontiguousarray(values[:, ::-1]))):
        explained = ActivationMap(
            one, DensityCategory.B, np.ones(4) / 4, map_values, view=ReadView(one, Projection.CC_L)
        )
        (view,) = map_block(ExamMaps("e1", "grad-cam", {Projection.CC_L: explained})).views
        pictures.append(view.picture)
        assert view.mirrored == (one is turned)
    assert pictures[0].plain == pictures[1].plain
    assert pictures[0].fill == pictures[1].fill


def page_of(views=PROJECTIONS, **others) -> str:
    return render_exam_page(result_of(**others), [block_of(views)], model="m")


def test_title_pictures_and_legend_say_what_they_show():
    percent = {"subject": 23.4, "CC_R": 31.0}
    result = result_of(calibrated=True, percent=percent, name="nyu")
    verdict = Verdict("measured", "The outline is the dense tissue that was measured")
    source = render_exam_page(
        result,
        [block_of(verdict=verdict, mirrored=True)],
        model="the default model",
        reference=DensityCategory.C,
        warnings=["trained on phantoms"],
        statement="the model was asked",
    )
    assert "<title>nyu: B, 23\N{NO-BREAK SPACE}% dense</title>" in source
    text = Page(source).text
    for part in (
        "Exam nyu B scattered areas of fibroglandular density",
        "Percent density 23 % 90 % prediction set B Reference C",
        "Exam nyu: B, 23 % dense. Dense tissue found",
        "CC_R: B, 31 % dense (mirrored)",
        "CC_L: B (mirrored)",
        "edge of the breast",
        "Trained on phantoms.",
        "The model was asked.",
        f"Read by the default model with mammodensity {__version__} on 20",
        "The scores are calibrated on 99 exams.",
    ):
        assert part in text, part
    assert text.count(RESEARCH_USE_ONLY) == 1
    assert text.count(verdict.text) == 1, "what holds for all views is said once"
    assert "`" not in text


def test_every_method_has_its_block_with_the_category_its_maps_explain():
    doubt = Verdict("shortcut", "Unreliable: the prediction changed when a marker was added in an image corner")
    blocks = [block_of(method="grad-cam"), block_of(method="occlusion", against=DensityCategory.C, verdict=doubt)]
    source = render_exam_page(result_of(), blocks, model="m")
    text = Page(source).text
    assert "What the network looked at (Grad-CAM)" in text
    assert "What the network looked at (occlusion)" in text
    assert text.count("Map: why B (raw score 0.90)") == 8
    assert text.count("rather than C (0.07)") == 4
    assert 'class="verdict doubt">Unreliable' in source
    assert len(Page(source).of("svg", class_="view")) == 8


def test_an_exam_without_a_category_says_why():
    text = Page(render_exam_page(result_of(CC_L=[0, 0.1, 0.2, 0.7]), [], model="m")).text
    assert "Exam e1 No category Reason: the views disagree" in text
    assert text.count("the views disagree: CC_R is B, CC_L is D") == 1
    assert "The highest score is that of B." in text
    assert "The scores are not calibrated: the model has no calibration." in text
    unscored = Page(render_exam_page(result_of(CC_L=None), [], model="m")).text
    assert "No category Reason: without CC_L the exam gets no scores" in unscored
    assert "CC_L is missing." in unscored


def test_dense_against_the_category_stands_in_the_sentence():
    text = Page(render_exam_page(result_of([0.0, 0.45, 0.3, 0.25]), [], model="m")).text
    assert "Dense: raw score of C or D 55 %, although B has the highest single score." in text


# The page of many exams


def results_page(tmp_path, results, **others) -> str:
    return write_results_page(tmp_path / "r.html", results, **({"model": "m"} | others)).read_text()


def test_the_page_of_many_exams_has_a_table_to_sort_and_filter(tmp_path):
    results = [
        result_of(name="<b>1</b>", calibrated=True, percent={"subject": 12.0}),
        result_of(name="two", MLO_L=None),
        result_of(name="three", CC_L=[0, 0.1, 0.2, 0.7]),
    ]
    source = results_page(tmp_path, results, notification=True, pictures={"three": [block_of()]})
    assert "<b>1</b>" not in source
    page = Page(source)
    rows = [values for values in page.of("tr") if "data-exam" in values]
    assert [row["data-category"] for row in rows] == ["B", "none", "none"]
    assert [row["data-flags"] for row in rows] == [
        "||",
        "|missing view|not scored|",
        "|views disagree|left right difference|",
    ]
    assert [values["id"] for values in page.of("section", class_="exam")] == [row["data-exam"] for row in rows]
    assert [values["data-filter"] for _, values in page.elements if "data-filter" in values] == [
        "category",
        "flag",
        "text",
    ]
    for part in (
        "A: 0, B: 1, C: 0, D: 0; no category: 2.",
        "Pictures are shown for the first 1 exam.",
        NOTIFICATION[DensityCategory.B],
        "docs/results.md",
        "A 90 % prediction set holds the reader's category in 90 % of exams",
    ):
        assert part in page.text, part
    assert page.text.count(RESEARCH_USE_ONLY) == 1
    assert len(page.of("svg", class_="view")) == 4


def test_the_page_of_many_exams_names_model_version_date_and_warnings(tmp_path):
    model, warnings = "densities (files 0123)", ["trained on phantoms: its answers mean nothing"]
    text = Page(results_page(tmp_path, [result_of()], model=model, warnings=warnings)).text
    assert f"Read by densities (files 0123) with mammodensity {__version__} on 20" in text
    assert "Trained on phantoms: its answers mean nothing." in text
    assert text.count("The scores are raw, not calibrated") == 1
    assert "raw, not" not in Page(results_page(tmp_path, [result_of(calibrated=True)])).text


def test_a_flag_of_all_exams_is_told_once(tmp_path):
    small = {Projection.CC_R: (Flag("low-quality", "the image has only 64 x 52 pixels"),)}
    text = Page(results_page(tmp_path, [result_of(name=f"e{n}", flags=small) for n in range(3)])).text
    assert text.count("64 x 52 pixels") == 1


def test_the_page_of_the_default_model_shows_the_tissue(run, tmp_path):
    run("phantom", tmp_path / "ph", "--exams", 1, "--size", 160)
    (mirrored,) = (tmp_path / "ph" / "CC_L").glob("*/*.png")
    with Image.open(mirrored) as picture:
        ImageOps.mirror(picture).save(mirrored)
    code, _, _ = run("predict", tmp_path / "ph", "--html", tmp_path / "r.html")
    assert code == 0
    source = (tmp_path / "r.html").read_text()
    assert source.count("data:image/jpeg;base64,") == 4
    text = Page(source).text
    assert text.count("(mirrored)") == 1
    assert "Read by the default model (files " in text
    assert "learned from synthetic breasts" in text
    assert "dense tissue found" in text


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
        document = json.loads(path.read_text())
        assert document["warnings"][0] == warning
        assert [one | {"provenance": {}} for one in predicted] == document["results"]
    assert document["results"][1]["abstained"]
    assert document["results"][1]["flags"][0] == vars(Flag("missing-view", f"{Projection.CC_L} is missing"))
