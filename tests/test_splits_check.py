"""Splits by patient, and the pre-flight check."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from mammodensity.commands import show
from mammodensity.commands.data import show_check
from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.data.dicom.file_checks import FileCheck, Reason
from mammodensity.data.find import find_images
from mammodensity.data.problems import Problem
from mammodensity.data.splits import patients_in_two_splits, with_splits
from mammodensity.errors import LayoutError, OptionError
from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.terms import CATEGORIES, DENSITY, PROJECTIONS, Projection
from mammodensity.workflows.check import CheckResult, check_data
from samples import broken_pictures, write_blobs


def records(exams_of_patient: list[int]) -> DataSet:
    """A data set without files: so many exams for each patient, four views each."""
    made = []
    for patient, exams in enumerate(exams_of_patient):
        for exam in range(exams):
            for projection in PROJECTIONS:
                path = Path(f"{patient}_{exam}_{projection}.png")
                category = CATEGORIES[patient % 4]
                made.append(ImageRecord(f"{patient}_{exam}", str(patient), projection, path, category))
    return DataSet(Path(), "made", tuple(made))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=60), st.integers(0, 5))
def test_no_patient_is_in_two_splits(exams_of_patient, seed):
    data = with_splits(records(exams_of_patient), seed=seed)
    assert not patients_in_two_splits(data)
    assert all(record.split for record in data.records)


def test_shares_and_strata():
    data = with_splits(records([1] * 400))
    count = Counter((record.category, record.split) for record in data.records)
    for category in CATEGORIES:
        assert [count[category, split] / 4 for split in ("train", "validation", "test")] == [80, 10, 10]


def test_order_of_files_does_not_matter_and_the_seed_does():
    data = records([1] * 100)
    split_of = {record.path: record.split for record in with_splits(data).records}
    turned = with_splits(replace(data, records=data.records[::-1]))
    assert {record.path: record.split for record in turned.records} == split_of
    assert {record.path: record.split for record in with_splits(data, seed=2).records} != split_of


def test_given_splits_are_kept_and_half_given_ones_refused():
    data = records([1, 1])
    given_splits = replace(data, records=tuple(replace(record, split="test") for record in data.records))
    assert with_splits(given_splits) == given_splits
    mixed = replace(data, records=(given_splits.records[0], *data.records[1:]))
    with pytest.raises(LayoutError, match="1 of 8 images have a split"):
        with_splits(mixed)
    with pytest.raises(OptionError, match="sum to 1"):
        with_splits(data, shares=(0.8, 0.1, 0.2))


def codes(data: DataSet) -> Counter[str]:
    return Counter(problem.code for problem in check_data(data).problems)


def test_a_clean_data_set_is_usable(blobs):
    result = check_data(find_images(blobs))
    assert result.usable
    assert result.problems == ()
    assert (result.images, result.exams, result.patients) == (96, 24, 24)
    assert result.counts["MLO_L"] == {"unsplit": {"A": 6, "B": 6, "C": 6, "D": 6}}
    entries = result.to_list()
    assert len(entries) == 96
    assert all(list(entry) == ["path", "accepted", "reasons", "exam_id", "projection", "warnings"] for entry in entries)
    assert all(entry["accepted"] for entry in entries)


def test_every_problem_is_found(tmp_path):
    root = write_blobs(tmp_path / "data", 8)
    place = root / "CC_R" / "A"
    first, second = sorted(place.iterdir())
    broken = broken_pictures(tmp_path)
    for number, name in enumerate(broken.keys() - {"absent.png"}):
        suffix = Path(name).suffix
        (place / f"{500 + number}_1_A_CC_R{suffix}").write_bytes((tmp_path / name).read_bytes())
    second.write_bytes(first.read_bytes())
    for file in (root / "MLO_L" / "D").iterdir():
        file.unlink()
    (root / "notes.txt").write_text("not an image")
    data = find_images(root)
    found = codes(data)
    assert found == {
        "unreadable-image": 3,
        "constant-image": 1,
        "size-image": 1,
        "colour-image": 1,
        "depth-image": 1,
        "several-image": 1,
        "duplicate-content": 1,
        "incomplete-exam": 8 + 2,
        "empty-class": 1,
    }
    assert not check_data(data).usable
    assert check_data(data).ignored == 1


def test_problems_of_structure():
    data = records([1, 1, 1, 1])
    two_splits = replace(
        data, records=tuple(replace(r, split="test" if r.projection == "CC_R" else "train") for r in data.records)
    )
    doubled = replace(data, records=(*data.records, replace(data.records[0], path=Path("other.png"))))
    relabelled = replace(data, records=(replace(data.records[0], category=CATEGORIES[3]), *data.records[1:]))
    for changed, code in (
        (two_splits, "patient-in-two-splits"),
        (doubled, "doubled-projection"),
        (relabelled, "contradicting-density"),
    ):
        result = check_data(changed, read_pixels=False)
        assert code in {problem.code for problem in result.problems if problem.severe}


# --- what the terminal shows ----------------------------------------------------------------------------------------


def test_check_says_each_thing_once_and_abridges(tmp_path, run):
    view = make_exam(PhantomSpec(rows=128, seed=5), 0).views[Projection.CC_R].image
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(25):
        changed = view.copy()
        changed[0, 0] = number
        Image.fromarray(changed[:, ::-1]).save(folder / f"{number}_R-CC.png")
    (folder / "LICENSE").write_text("text")
    code, out, _ = run("check", folder)
    assert code == 0
    assert re.search("note +incomplete-exam +25 +Projections are missing", out)
    assert re.search("note +stored-flipped +25 +The chest wall is on the wrong side", out)
    assert "CC_R with the chest wall on the left" not in out
    assert "--verbose names every file" in out
    assert "1 file is not an image, and so left alone" in out
    assert "0 errors, 50 notes; 25 files usable, 0 refused\n" in out
    assert "not-dicom" not in out
    code, out, _ = run("check", folder, "--verbose")
    assert code == 0
    assert out.count("note [incomplete-exam] exam") == 25
    assert out.count("CC_R with the chest wall on the left") == 25
    code, out, _ = run("check", folder / "LICENSE", folder / "1_R-CC.png")
    assert code == 1
    assert re.search("refused +not-dicom +1 ", out)
    assert "1 file usable, 1 refused: not usable yet\n" in out
    assert "left alone" not in out


def test_check_shows_every_reason_of_a_file(monkeypatch):
    reasons = (
        Reason("lossy", "a: first"),
        Reason("damaged", "a: second"),
        Reason("damaged", "a: second"),
        Reason("partly-split", "whole set"),
    )
    files = (FileCheck(Path("a"), reasons), FileCheck(Path("b"), (Reason("damaged", "b: third"),)))
    problem = Problem("partly-split", "whole set")
    result = CheckResult(Path(), "DICOM archive", 0, 0, 0, {}, DENSITY, (problem,), 0, files)
    text = StringIO()
    monkeypatch.setattr(show, "_console", lambda: Console(file=text, width=200))
    show_check(result, verbose=True)
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert ["error", "partly-split", "1", "whole", "set"] in lines
    assert ["refused", "lossy", "1", "a:", "first"] in lines
    assert ["refused", "damaged", "2", "Cut", "short,", "empty,"] in [line[:6] for line in lines]
    assert ["refused", "[damaged]", "b:", "third"] in lines
    assert text.getvalue().count("a: second") == 1
    assert "projection" not in text.getvalue(), "no empty table"
    assert text.getvalue().endswith("\n1 error, 0 notes; 0 files usable, 2 refused: not usable yet\n")
