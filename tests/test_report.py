from __future__ import annotations

import base64
import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mammodensity
from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.anatomy.read_view import ReadView
from mammodensity.data.dataset import ImageRecord, write_manifest
from mammodensity.data.find import find_images
from mammodensity.errors import CheckpointError, ImageError, LayoutError, MammodensityError, OptionError, TableError
from mammodensity.evaluation.bootstrap import Figure
from mammodensity.evaluation.figures import SCALAR_FIGURES, evaluate_table, figures_of_merit, to_json
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.evaluation.test_split import evaluate_model, read_figures, stored_evaluation
from mammodensity.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.models.scoring import ViewScores
from mammodensity.models.trained import DensityModel
from mammodensity.pages.model_card import write_model_card
from mammodensity.pages.report_page import Notes
from mammodensity.pages.wording import cautions, figure_words, number
from mammodensity.results.calibration import COMBINATIONS, Calibration, ViewsCalibration, write_calibration
from mammodensity.results.score_calibration import CalibrationMap
from mammodensity.terms import (
    CATEGORIES,
    LEVEL_WORDS,
    LEVELS,
    PROJECTIONS,
    RESEARCH_USE_ONLY,
    DensityCategory,
    Projection,
)
from mammodensity.training.recipes import find_recipe
from mammodensity.training.records import read_run
from mammodensity.workflows.report import absent_kinds, choose_examples
from mammodensity.workflows.report import report as write_report
from mammodensity.workflows.train import train_model

HOSTILE = '<script>alert("1")</script> & co'
TEST_EXAMS = {HOSTILE: "A", "plain": "A", "second": "B", "third": "C", "fourth": "C"}  # no D: its AUC is undefined
RECIPE = replace(
    find_recipe("small"),
    epochs=2,
    batch=4,
    preprocess=PreprocessSpec(rows=32, columns=32),
    network=NetworkSpec(stem=4, widths=(4,), outputs=(8,), depths=(1,)),
)
VOID = {"meta", "link", "img", "br", "input"}


def make_data(root: Path) -> Path:
    """Noise that is the brighter the denser: three splits, named in a manifest."""
    rng = np.random.default_rng(0)
    exams = [(f"{split}-{c}", c.value, split) for split in ("train", "validation") for c in CATEGORIES]
    exams += [(name, letter, "test") for name, letter in TEST_EXAMS.items()]
    records = []
    for index, (exam_id, letter, split) in enumerate(exams):
        for projection in PROJECTIONS:
            category = DensityCategory(letter)
            pixels = rng.integers(0, 60 + 60 * category.index, (40, 32), dtype=np.uint8)
            path = root / projection.value / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            records.append(ImageRecord(exam_id, exam_id, projection, path, category, split))
    write_manifest(root / "manifest.csv", records)
    return root


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def untested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model that has not been evaluated; not to be written to."""
    root = tmp_path_factory.mktemp("report")
    train_model(find_images(make_data(root / "data")), root / "model", RECIPE)
    return root / "model"


@pytest.fixture(scope="module")
def tested(untested: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its test figures and a page beside it; not to be written to."""
    folder = tmp_path_factory.mktemp("tested")
    shutil.copytree(untested, folder / "model")
    write_report(folder / "model", folder / "page.html")
    return folder / "model"


@pytest.fixture(scope="module")
def page(tested: Path) -> Page:
    return Page(tested.parent / "page.html")


@pytest.fixture
def copy(untested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untested, tmp_path / "model"))


@pytest.fixture
def tested_copy(tested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tested, tmp_path / "model"))


class Page(HTMLParser):
    """A parsed page: its elements, its visible text, and the rows of its tables by class."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.feed(self.source)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.elements.append((tag, values))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append((values.get("class", ""), []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][1][-1][-1] += f"{data.strip()} "

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def table(self, name: str) -> list[list[str]]:
        [rows] = [rows for classes, rows in self.tables if classes == name]
        return [[" ".join(cell.split()) for cell in row] for row in rows]

    def of(self, tag: str) -> Iterator[dict[str, str]]:
        return (values for name, values in self.elements if name == tag)


# --- evaluate_model


def test_evaluate_model_writes_scores_and_figures_that_agree(tested: Path) -> None:
    evaluation = stored_evaluation(tested)
    assert evaluation is not None
    labels = {name: DensityCategory(letter) for name, letter in TEST_EXAMS.items()}
    assert set(evaluation.table.exam_ids) == set(labels)
    again = to_json(evaluate_table(evaluation.table, labels, patients=dict(zip(labels, labels, strict=True))))
    assert again == json.loads((tested / "test" / "figures.json").read_text())
    assert to_json(evaluation.figures) == again
    assert list(again) == list(LEVELS)


def test_evaluate_model_other_split_and_progress(copy: Path) -> None:
    calls: list[tuple[int, int]] = []
    evaluation = evaluate_model(copy, split="validation", progress=lambda done, total: calls.append((done, total)))
    assert evaluation is not None
    assert evaluation.figures["subject"].n == 4
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (copy / "validation" / "predictions.csv").is_file()
    assert not (copy / "test").exists()


def test_evaluate_model_says_nothing_without_exams(copy: Path) -> None:
    rewrite_manifest(copy, lambda row: {**row, "split": "train"} if row["split"] == "test" else row)
    assert evaluate_model(copy) is None
    (copy / "manifest.csv").unlink()
    assert evaluate_model(copy) is None
    assert not (copy / "test").exists()


def test_evaluate_model_counts_incomplete_exams(copy: Path) -> None:
    rewrite_manifest(copy, lambda row: None if (row["exam_id"], row["projection"]) == ("second", "CC_L") else row)
    evaluation = evaluate_model(copy)
    assert evaluation is not None
    figures = evaluation.figures
    assert (figures["subject"].n, figures["subject"].n_not_given) == (4, 1)
    assert (figures["right"].n, figures["CC_L"].n) == (5, 4)


def test_evaluate_model_refuses_unknown_split(untested: Path) -> None:
    with pytest.raises(OptionError, match="train, validation, test"):
        evaluate_model(untested, split="holdout")


def test_figures_survive_the_way_through_json(tmp_path: Path) -> None:
    figures = dict.fromkeys(LEVELS, figures_of_merit("A", [[0, 0, 1, 0]], bootstrap=10))
    (tmp_path / "figures.json").write_text(json.dumps(to_json(figures)))
    assert to_json(read_figures(tmp_path / "figures.json")) == to_json(figures)


def test_evaluation_is_stale_once_networks_or_manifest_change(tested_copy: Path) -> None:
    assert stored_evaluation(tested_copy) is not None
    manifest = (tested_copy / "manifest.csv").read_text()
    rewrite_manifest(tested_copy, lambda row: None if row["exam_id"] == "fourth" else row)
    assert stored_evaluation(tested_copy) is None
    (tested_copy / "manifest.csv").write_text(manifest)
    assert stored_evaluation(tested_copy) is not None
    checkpoint = load_checkpoint(tested_copy, Projection.CC_R)
    save_checkpoint(tested_copy / "CC_R", replace(checkpoint, network=ResidualNetwork(checkpoint.network.spec)))
    assert stored_evaluation(tested_copy) is None
    write_report(tested_copy, tested_copy / "report.html", examples=0)
    assert stored_evaluation(tested_copy) is not None


# --- the page


def test_page_is_complete_in_itself(page: Page) -> None:
    for _, values in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert values.get(name, "data:").startswith(("data:", "#")), values
    assert {"iframe", "object", "embed"}.isdisjoint(tag for tag, _ in page.elements)
    assert page.source.count("<script") == 1
    assert "url(" not in page.source
    assert "@import" not in page.source
    for values in (*page.of("img"), *page.of("image")):
        kind, content = (values.get("src") or values["href"]).removeprefix("data:").split(";base64,")
        decoded = base64.b64decode(content, validate=True)
        start = {"image/jpeg": b"\xff\xd8", "image/png": b"\x89PNG", "image/svg+xml": b"<?xml"}[kind]
        assert decoded.startswith(start)
        assert not re.search(rb"href=[\"']http|url\(http", decoded)


def test_page_is_sound_html(page: Page) -> None:
    names = Counter(values["id"] for _, values in page.elements if "id" in values)
    assert set(names.values()) == {1}
    for values in page.of("a"):
        assert values["href"].removeprefix("#") in names
    assert all(values["aria-label"] for values in page.of("svg") if values["class"] == "view")
    for _, values in page.elements:
        assert values.get("aria-labelledby", "data") in names
    assert [values["lang"] for values in page.of("html")] == ["en"]
    assert all(values.get("scope") for values in page.of("th"))
    assert all(values.get("alt") for values in page.of("img"))


def test_page_fits_its_size(tested: Path) -> None:
    assert (tested.parent / "page.html").stat().st_size < 3_000_000  # noise compresses worse than any mammogram


def test_page_escapes_exam_names(page: Page) -> None:
    assert "<script>alert" not in page.source
    assert HOSTILE in page.text


def test_page_says_what_was_done_and_research_use_only(page: Page) -> None:
    assert page.text.count(RESEARCH_USE_ONLY) == 1
    assert "trained on 16 images from 4 exams" in page.text.replace("\xa0", " ")
    assert "5 test exams: too few" in page.text.replace("\xa0", " ")
    assert "No test exam is of category D" in page.text
    for section in ("Data", "Training", "Confusion", "Figures of merit", "Example exams", "Receipt"):
        assert section in page.text


def test_figures_on_the_page_are_those_of_the_file(page: Page, tested: Path) -> None:
    figures = json.loads((tested / "test" / "figures.json").read_text())
    header, exams, *rows = page.table("figures")
    assert header[1:] == [LEVEL_WORDS[level] for level in LEVELS]
    assert [cell.split()[0] for cell in exams[1:]] == [str(figures[level]["n"]) for level in LEVELS]
    assert set(figure_words()) == set(SCALAR_FIGURES)
    for row, (name, (words, _)) in zip(rows, figure_words().items(), strict=True):
        assert row[0].startswith(words)
        for cell, level in zip(row[1:], LEVELS, strict=True):
            value, interval = figures[level][name], figures[level]["intervals"][name]
            assert cell.split()[0] == number(float("nan") if value is None else value)
            if interval:
                assert cell.endswith(f"{number(interval[0])} to {number(interval[1])}")
    tiles = [words.strip() for words in page.words if re.fullmatch(r"\d+\s%", words.strip())]
    assert f"{100 * figures['subject']['accuracy']:.0f}\xa0%" in tiles


def test_undefined_figures_have_a_reason(page: Page) -> None:
    [row] = [row for row in page.table("figures") if row[0].startswith("AUC, mean")]
    marks = {tuple(cell.split()) for cell in row[1:]}
    assert len(marks) == 1
    [(dash, mark)] = marks
    assert dash == "\N{EM DASH}"
    notes = [values["id"] for values in page.of("li") if values.get("id", "").startswith("note-")]
    assert f"note-{mark}" in notes
    assert "Undefined: no exam of category D in the reference." in page.text


def test_confusion_on_the_page(page: Page, tested: Path) -> None:
    confusion = json.loads((tested / "test" / "figures.json").read_text())["subject"]["confusion"]
    _, _, *rows = page.table("confusion large")
    for row, counts, category in zip(rows, confusion, CATEGORIES, strict=True):
        assert row[0] == category
        assert [int(cell.split()[0]) for cell in row[1:5]] == counts
        if sum(counts):
            assert [cell.split()[1] for cell in row[1:5]] == [f"{100 * n / sum(counts):.0f}" for n in counts]


def test_counts_on_the_page(page: Page) -> None:
    rows = [row[-6:] for row in page.table("counts")[1:]]
    assert rows[:4] == [[projection.value, "1", "1", "1", "1", "4"] for projection in PROJECTIONS]
    assert rows[8:] == [[projection.value, "2", "1", "2", "0", "5"] for projection in PROJECTIONS]


def test_curves_and_receipt_on_the_page(page: Page, tested: Path) -> None:
    curves = [values for values in page.of("img") if "svg" in values["src"][:40]]
    assert len(curves) == 4
    for values, projection in zip(curves, PROJECTIONS, strict=True):
        epoch = load_checkpoint(tested, projection).training["epoch"]
        assert f"{projection} network by epoch" in values["alt"]
        assert f"epoch {epoch['epoch']} was kept" in values["alt"]
    receipt = json.loads((tested / "receipt.json").read_text())
    assert receipt["data"]["sha256"] in page.text
    assert "network.norm_momentum" in page.text
    assert receipt["versions"]["torch"] in page.text


def test_examples_on_the_page(page: Page) -> None:
    pictures = [values for values in page.of("image") if "jpeg" in values["href"][:40]]
    assert len(pictures) == 4 * 5  # all five exams, four views
    assert {values["height"] for values in pictures} == {"640"}
    assert page.text.count("why ") == 4 * 5


def test_same_run_same_page(tested_copy: Path, tested: Path, tmp_path: Path) -> None:
    write_report(tested_copy, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tested.parent / "page.html").read_bytes()


def test_each_view_is_scored_once(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: Counter[str] = Counter()
    score_view = DensityModel.score_view

    def counted(model: DensityModel, view: ReadView) -> ViewScores:
        scored[str(view.mammogram.path)] += 1
        return score_view(model, view)

    monkeypatch.setattr(DensityModel, "score_view", counted)
    write_report(copy, tmp_path / "first.html")  # scores the test exams for the figures
    assert sorted(scored.values()) == [1] * 4 * len(TEST_EXAMS)
    scored.clear()
    write_report(copy, tmp_path / "again.html", examples=2)  # has the figures, and scores the examples
    assert sorted(scored.values()) == [1] * 4 * 2


def test_fewer_examples_and_none(tested_copy: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_report(tested_copy, tmp_path / "two.html", examples=2, progress=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]
    assert "None were asked for." in Page(write_report(tested_copy, tmp_path / "0.html", examples=0)).text
    with pytest.raises(OptionError, match="0 or more"):
        write_report(tested_copy, tmp_path / "x.html", examples=-1)


def test_page_of_a_model_that_lacks_a_projection(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "MLO_L")
    text = Page(write_report(copy, tmp_path / "page.html")).text.replace("\xa0", " ")
    assert "Three networks, one each for CC_R, CC_L and MLO_R," in text
    assert "No exam of the test split has scores from all four projections" in text
    assert "examples are chosen by the scores of the whole exam, and no test exam has them" in text
    assert "Undefined: no exam has scores." in text


def test_page_of_an_imported_model(tmp_path: Path) -> None:
    text = Page(write_report(imported_model(tmp_path / "model"), tmp_path / "page.html")).text
    assert "were imported from Keras" in text
    assert "There are no test exams" in text
    assert "CC_R: no training curves, because this network was imported from Keras" in text
    assert "2.2.4" in text
    assert "f00d" in text


def test_page_of_trained_and_imported_networks_together(copy: Path, tmp_path: Path) -> None:
    for projection in PROJECTIONS[:2]:
        shutil.rmtree(copy / projection.value)
    imported_model(copy, [Projection.CC_R])
    text = Page(write_report(copy, tmp_path / "page.html", examples=0)).text.replace("\xa0", " ")
    assert "Two networks, one each for MLO_R and MLO_L, were trained on 8 images from 4 exams" in text
    assert "One network, for CC_R, was imported from Keras. Nothing in its file says" in text
    assert "CC_R: no training curves" in text


def test_page_of_phantoms_says_so(untested: Path, tmp_path: Path) -> None:
    shutil.copytree(untested.parent, tmp_path / "run")
    here = tmp_path / "run"
    rewrite_manifest(here / "model", lambda row: {**row, "path": row["path"].replace(str(untested.parent), str(here))})
    assert not read_run(here / "model").phantoms
    trained = load_checkpoint(here / "model" / "CC_R")
    save_checkpoint(
        here / "model" / "CC_R", replace(trained, training={**trained.training, "data": {"phantoms": True}})
    )
    assert read_run(here / "model").phantoms
    text = Page(write_report(here / "model", tmp_path / "page.html", examples=0)).text
    assert "Phantoms are not patients" in text
    assert "synthetic breasts (phantoms)" in text
    assert "Synthetic breasts (phantoms)" in write_model_card(here / "model").read_text()


def calibrated(model: Path) -> Path:
    """The model with a calibration that makes category D of everything."""
    to_d = CalibrationMap("vector", (1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 9.0))
    held_out = np.tile([0.0, 0.1, 0.2, 0.7], (99, 1))
    fitted = ViewsCalibration(to_d, held_out, np.full(99, 3, dtype=np.intp))
    write_calibration(model, Calibration(dict.fromkeys(COMBINATIONS, fitted)))
    return model


def test_report_and_card_give_the_calibrated_result_that_predict_gives(tested_copy: Path, tmp_path: Path) -> None:
    assert "Not calibrated" in write_model_card(tested_copy).read_text()
    predicted = mammodensity.predict(tested_copy / "manifest.csv", model=calibrated(tested_copy), split="test")
    assert {result.category for result in predicted.results} == {"D"}
    assert len(set(stored_evaluation(tested_copy).table.scores["subject"].argmax(axis=1)) - {3}) > 0  # type: ignore[union-attr]
    text = Page(write_report(tested_copy, tmp_path / "page.html")).text.replace("\xa0", " ")
    for result in predicted.results:
        assert f"Exam {result.exam_id} D extremely dense" in text
        assert result.exam is not None
        assert f"D {100 * result.exam.scores[DensityCategory.D]:.0f}" in text
    assert "Scores are calibrated, as predict gives them." in text
    assert "raw scores of the views averaged" in text
    assert "Map: why D (score" in text
    assert "raw score" not in text.split("Example exams Chosen")[1]
    card = write_model_card(tested_copy).read_text().replace("\xa0", " ")
    assert "Calibrated on 99 exams (method: vector), for 15 combinations of views." in card
    assert "not calibrated" not in card
    checkpoint = load_checkpoint(tested_copy, Projection.CC_R)
    save_checkpoint(tested_copy / "CC_R", replace(checkpoint, network=ResidualNetwork(checkpoint.network.spec)))
    write_model_card(tested_copy)
    assert "was made for other networks" in (tested_copy / "README.md").read_text()


# --- the rule for examples


def table_of(scores: dict[str, list[float]]) -> ScoreTable:
    subject = np.array(list(scores.values()), dtype=np.float64)
    return ScoreTable(tuple(scores), dict.fromkeys(LEVELS, subject))


def test_examples_are_chosen_by_rule() -> None:
    scores = {
        "sure": [0.97, 0.01, 0.01, 0.01],
        "surer": [0.98, 0.01, 0.01, 0.0],
        "other": [0.1, 0.8, 0.1, 0.0],
        "torn": [0.49, 0.51, 0.0, 0.0],
        "torn too": [0.0, 0.0, 0.48, 0.52],
        "mistaken": [0.0, 0.0, 0.1, 0.9],
        "bit mistaken": [0.0, 0.3, 0.7, 0.0],
        "lost": [np.nan] * 4,
    }
    reference = dict(zip(scores, "AABBDABA", strict=True))
    labels = {name: DensityCategory(letter) for name, letter in reference.items()}
    chosen = [(choice.kind, choice.exam_id) for choice in choose_examples(table_of(scores), labels, 6)]
    assert chosen == [
        ("correct", "surer"),
        ("correct", "other"),  # a second category comes before a second exam of the first
        ("wrong", "mistaken"),
        ("wrong", "bit mistaken"),
        ("uncertain", "torn"),
        ("uncertain", "torn too"),
    ]
    everything = choose_examples(table_of(scores), labels, 100)
    assert sorted(choice.exam_id for choice in everything) == sorted(set(scores) - {"lost"})
    assert [choice.exam_id for choice in choose_examples(table_of(scores), labels, 1)] == ["mistaken"]
    assert choose_examples(table_of(scores), labels, 0) == []


def test_examples_without_a_wrong_exam() -> None:
    scores = {f"exam {index}": [0.9 - index / 10, 0.1 + index / 10, 0.0, 0.0] for index in range(4)}
    labels = dict.fromkeys(scores, DensityCategory.A)
    choices = choose_examples(table_of(scores), labels, 4)
    kinds = Counter(choice.kind for choice in choices)
    assert kinds == {"correct": 2, "uncertain": 2}
    assert {choice.exam_id for choice in choices if choice.kind == "uncertain"} == {"exam 3", "exam 2"}
    assert absent_kinds(choices, 4) == ["wrong"]
    assert absent_kinds(choices[:0], 1) == ["wrong"]
    assert absent_kinds(choices[:0], 0) == []


def test_examples_need_a_label_for_each_exam() -> None:
    with pytest.raises(TableError, match="no density label"):
        choose_examples(table_of({"one": [1, 0, 0, 0]}), {}, 3)


# --- wording


def test_cautions_where_every_exam_is_right(untested: Path) -> None:
    figures = figures_of_merit("ABCD" * 10, np.tile(np.eye(4), (10, 1)), bootstrap=50)
    [text] = cautions(read_run(untested), figures)
    assert "accuracy down to 91\xa0% is still possible" in text  # 0.025 ** (1 / 40), the Clopper-Pearson bound


def test_notes_share_letters() -> None:
    notes = Notes()
    undefined = [Figure(np.nan, reason=reason) for reason in ("x", "y", "x")]
    assert [notes.marks(figure) for figure in undefined] == [["a"], ["b"], ["a"]]


# --- the model card


def test_model_card_of_a_trained_model(tested_copy: Path) -> None:
    path = write_model_card(tested_copy)
    assert path == tested_copy / "README.md"
    card = path.read_text(encoding="utf-8").replace("\xa0", " ")
    figures = json.loads((tested_copy / "test" / "figures.json").read_text())
    accuracy, (low, high) = figures["subject"]["accuracy"], figures["subject"]["intervals"]["accuracy"]
    assert RESEARCH_USE_ONLY in card
    assert f"| whole exam | 5 | {accuracy:.2f} ({low:.2f} to {high:.2f}) |" in card
    assert "| test | 5 | 5 | 20 | 8 | 4 | 8 | 0 |" in card
    assert "| Network | CC_R, CC_L, MLO_R, MLO_L |" in card
    assert "| outputs | 8 |" in card
    assert "| rows | 32 |" in card
    assert "epochs 2; batch 4; optimiser adamw" in card
    assert json.loads((tested_copy / "receipt.json").read_text())["data"]["sha256"] in card
    for projection in PROJECTIONS:
        epoch = load_checkpoint(tested_copy, projection).training["epoch"]
        row = f"| {projection} | {epoch['epoch']} | {epoch['validation_accuracy']:.2f} | "
        assert row in card
    for command in ("predict", "explain", "report"):
        assert f"mammodensity {command} " in card
    assert "Not validated clinically" in card
    assert "no exam of category D in the reference" in card
    assert "\n\n\n" not in card
    assert_tables_are_even(card)


def test_model_card_before_the_test(copy: Path) -> None:
    card = write_model_card(copy).read_text(encoding="utf-8")
    assert "None: the model has not been tested here." in card
    assert "Phantoms" not in card


def test_model_card_of_imported_networks(tmp_path: Path) -> None:
    card = write_model_card(imported_model(tmp_path / "model")).read_text(encoding="utf-8")
    assert "CC_R from `net.h5`" in card
    assert "| Network | CC_R | MLO_L |" in card  # their specs differ
    assert "no manifest in the model folder" in card
    assert "None: the model has not been tested here." in card
    assert "The training images are unknown" in card
    assert_tables_are_even(card)


def test_model_card_of_a_single_network(copy: Path) -> None:
    card = write_model_card(copy / "CC_L")
    assert card == copy / "CC_L" / "README.md"
    assert "One network, for CC_L, was trained on" in card.read_text()


def assert_tables_are_even(markdown: str) -> None:
    lines = markdown.splitlines()
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.count("|") == line.count("|"), line


# --- what can go wrong


@pytest.mark.parametrize(
    "function", [write_model_card, evaluate_model, lambda path: write_report(path, path / "r.html")]
)
def test_folder_that_is_no_model(function: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no network"):
        function(tmp_path)
    with pytest.raises(CheckpointError, match="not found"):
        function(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_file_instead_of_a_model_folder(untested: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; expected a model folder"):
        write_model_card(untested / "CC_R" / "network.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("recipe.json", "{", CheckpointError),
        ("recipe.json", "[]", CheckpointError),
        ("receipt.json", "\xff", CheckpointError),
        ("test/figures.json", "{", TableError),
        ("test/figures.json", "[]", TableError),
        ("test/figures.json", '{"CC_R": {}}', TableError),
        ("test/receipt.json", "null", TableError),
        ("test/predictions.csv", "exam_id\n", TableError),
        ("manifest.csv", "exam_id\n", LayoutError),
        ("CC_R/history.csv", "epoch,what\n1,2\n", TableError),
        ("CC_R/network.safetensors", "", CheckpointError),
    ],
)
def test_damaged_files(name: str, content: str, error: type[Exception], tested_copy: Path, tmp_path: Path) -> None:
    (tested_copy / name).write_bytes(content.encode("latin-1"))
    page = tmp_path / "page.html"
    page.write_text("as it was")
    with pytest.raises(error) as caught:
        write_report(tested_copy, page)
    assert isinstance(caught.value, MammodensityError)
    assert Path(name).name in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(error):
        write_model_card(tested_copy)
    assert page.read_text() == "as it was"
    assert not (tested_copy / "README.md").exists()
    assert left_behind(tmp_path) == []


def test_nothing_half_written_when_an_image_is_gone_or_damaged(copy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    rewrite_manifest(copy, lambda row: {**row, "path": str(broken)} if row["exam_id"] == "third" else row)
    with pytest.raises(ImageError, match=r"broken\.png"):
        write_report(copy, tmp_path / "page.html")
    broken.unlink()
    with pytest.raises(LayoutError, match=r"broken\.png not found"):
        write_report(copy, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    assert not (copy / "test").exists()
    assert left_behind(tmp_path) == []


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial" in path.name]


def rewrite_manifest(model: Path, change: Callable[[dict[str, str]], dict[str, str] | None]) -> None:
    path = model / "manifest.csv"
    with path.open(newline="") as stream:
        rows = [row for row in map(change, csv.DictReader(stream)) if row is not None]
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def imported_model(folder: Path, projections: Sequence[Projection] = (Projection.CC_R, Projection.MLO_L)) -> Path:
    """Networks of differing width as ``import-keras`` leaves them."""
    for width, projection in enumerate(projections, start=4):
        network = ResidualNetwork(NetworkSpec(stem=4, widths=(width,), outputs=(8,), depths=(1,)))
        training = {"source": "keras", "keras_version": "2.2.4", "file": "net.h5", "sha256": "f00d"}
        preprocess = PreprocessSpec(rows=32, columns=32)
        save_checkpoint(folder / projection.value, Checkpoint(network, projection, preprocess, training))
    return folder
