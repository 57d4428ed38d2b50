"""Each file is read once: its header parsed and judged once, its pixels decoded once, whatever the command."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import numpy as np
import pytest

from dicom_samples import dcmtk, mammogram, phantom, save, save_exam
from mammodensity.data import archive
from mammodensity.data.dataset import exam_sources
from mammodensity.data.dicom.decoding import read_stored_values
from mammodensity.data.dicom.gatekeeper import judge
from mammodensity.data.dicom.header_parsing import parse_header
from mammodensity.data.dicom.pixel_data import require_decodable
from mammodensity.data.find import find_images
from mammodensity.data.images import read_image, read_record
from mammodensity.terms import PROJECTIONS
from mammodensity.workflows.check import check_path
from mammodensity.workflows.training_set import ExportSpec, export_exam

ONCE = (parse_header, judge, require_decodable, read_stored_values)
MOST_OPENINGS = 3
_openings: Counter[str] = Counter()


@sys.addaudithook
def _count_openings(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str):
        _openings[arguments[0]] += 1


@pytest.fixture
def calls(monkeypatch) -> Counter[tuple[str, str]]:
    """Calls of each function of ``ONCE``, by its name and the file's."""
    counts: Counter[tuple[str, str]] = Counter()
    for function in ONCE:
        count_calls(monkeypatch, function, counts, lambda subject: getattr(subject, "path", subject).name)
    return counts


def count_calls(monkeypatch, function: Callable, counts: Counter, key: Callable[[object], str]) -> None:
    """Count the calls of a function, in each module of the package that has it; ``key`` is of its first argument."""

    @wraps(function)
    def counted(subject, *arguments, **options):
        counts[function.__name__, key(subject)] += 1
        return function(subject, *arguments, **options)

    for name, module in list(sys.modules.items()):
        if name.startswith("mammodensity.") and getattr(module, function.__name__, None) is function:
            monkeypatch.setattr(module, function.__name__, counted)


@pytest.fixture
def exam(tmp_path) -> list[Path]:
    """Four DICOM files, of JPEG Lossless where dcmtk is there to write it."""
    files = save_exam(tmp_path / "exam", rows=160)
    if shutil.which("dcmcjpeg"):
        for file in files:
            dcmtk("dcmcjpeg", "+e1", "+un", file, file)  # keeps the SOP Instance UID
    _openings.clear()
    return files


def require_once(calls: Counter, files: list[Path]) -> None:
    assert calls == {(function.__name__, file.name): 1 for function in ONCE for file in files}
    for file in files:
        assert 1 <= _openings[str(file)] <= MOST_OPENINGS, file


def test_to_find_and_read_an_exam(exam, calls):
    for record in find_images(exam[0].parent).records:
        assert read_record(record).projection == record.projection
    require_once(calls, exam)


def test_to_predict(exam, calls, run):
    code, _, error = run("predict", exam[0].parent)
    assert not code, error
    require_once(calls, exam)


def test_to_check(exam, calls):
    assert check_path(exam[0].parent).usable
    require_once(calls, exam)


def test_to_prepare(exam, calls, tmp_path):
    for source in exam_sources(find_images(exam[0].parent)):
        export_exam(source, tmp_path / "out", ExportSpec())
    assert len([*tmp_path.glob("out/**/*.png")]) == 4
    require_once(calls, exam)


def test_of_a_manifest(exam, calls, tmp_path):
    rows = [f"7,{projection},exam/{file.name}" for projection, file in zip(PROJECTIONS, exam, strict=True)]
    (tmp_path / "manifest.csv").write_text("\n".join(["exam_id,projection,path", *rows]))
    for record in find_images(tmp_path / "manifest.csv").records:
        read_record(record)
    require_once(calls, exam)


def test_a_file_that_changed_since_is_parsed_again(exam, calls):
    [record, *_] = find_images(exam[0].parent).records
    darker = phantom(record.projection, 160) // 2
    save(mammogram(record.projection, darker), record.path)
    os.utime(record.path, ns=(1, 1))
    assert np.array_equal(read_record(record).pixels, read_image(record.path).pixels)
    assert calls["parse_header", record.path.name] == 3


def test_headers_of_a_large_archive_are_not_all_kept(exam, monkeypatch):
    monkeypatch.setattr(archive, "MOST_HEADERS", 2)
    records = find_images(exam[0].parent).records
    assert [record.check is not None and record.check.header is not None for record in records] == [True] * 2 + [
        False
    ] * 2
    assert all(read_record(record).facts for record in records)


def test_records_take_their_headers_along_to_other_processes(exam, calls):
    for record in find_images(exam[0].parent).records:
        assert np.array_equal(read_record(pickle.loads(pickle.dumps(record))).pixels, read_image(record.path).pixels)
        assert calls["parse_header", record.path.name] == 2  # of the survey and of read_image


def test_an_accession_number_is_known_and_never_written(tmp_path, run):
    save_exam(tmp_path / "exam", rows=160, AccessionNumber="Acc-4711", StationName="Room 2")
    for record in find_images(tmp_path / "exam").records:
        facts = read_record(record).facts
        assert (facts["accession_number"], facts["station"]) == ("Acc-4711", "Room 2")
    folder = tmp_path / "exam"
    commands = (
        ("check", folder),
        ("prepare", folder, tmp_path / "out"),
        ("prepare", folder, tmp_path / "out-names", "--keep-names"),
        ("predict", folder, "--json", tmp_path / "out" / "a.json", "--results", tmp_path / "out" / "a.csv"),
    )
    output = [run(*command) for command in commands]
    assert [code for code, _, _ in output] == [0] * 4
    assert "4711" not in str(output)
    written = [path for path in tmp_path.glob("out*/**/*") if path.is_file()]
    assert len(written) > 8
    assert not any(b"4711" in path.read_bytes() or "4711" in path.name for path in written)
