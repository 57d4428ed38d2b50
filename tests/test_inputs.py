"""Files that a user names: pipes, devices and traps in JSON do not stop or fool the program."""

from __future__ import annotations

import os

import pytest

from mammodensity import inputs
from mammodensity.data.find import find_images
from mammodensity.errors import MammodensityError
from mammodensity.inputs import as_number, open_file, parse_json, read_file
from mammodensity.models.default import MAP_FILE
from mammodensity.models.trained import load_model
from mammodensity.results.calibration import read_calibration


@pytest.fixture(params=["pipe", "device", "link to a device", "folder"])
def no_file(request, tmp_path):
    """A path that never ends, or waits for ever, when it is read as a file."""
    path = tmp_path / "x"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path if request.param != "device" else path.readlink()


def test_only_regular_files_are_opened(no_file):
    with pytest.raises(OSError, match=r"no regular file|Is a directory"):
        open_file(no_file, 100)


def test_what_lies_in_the_place_of_an_optional_file_is_refused(no_file, tmp_path):
    for name, read in (("manifest.csv", find_images), ("calibration.json", read_calibration), (MAP_FILE, load_model)):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).symlink_to(no_file)
        with pytest.raises(MammodensityError, match=name):
            read(folder)
        (folder / name).unlink()
        (folder / name).symlink_to(name)  # a link to itself
        with pytest.raises(MammodensityError, match=name):
            read(folder)


def test_files_are_read_up_to_their_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 100)
    assert read_file(path, 100) == b"x" * 100
    with pytest.raises(OSError, match="too large: 0 MB, expected at most 0 MB"):
        read_file(path, 99)
    with path.open("wb") as stream:
        stream.truncate(10 * inputs.MOST_JSON_BYTES)  # a file of holes
    with pytest.raises(OSError, match="too large: 2,560 MB"):
        inputs.read_json(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        "[-Infinity]",
        "[1e999]",
        "[-1e400]",
        '{"a": 1, "a": 1}',
        '[{"a": {"b": 1, "c": 2, "b": 3}}]',
        "[" * 100_000,
        "[1" + "0" * 30 + "]",
        r'["\ud800"]',
        "{'a': 1}",
        "[1_0]",
        "[\u0661]",
        "[01]",
        "",
        b"\xff\xfe[\x00]\x00",
    ],
)
def test_traps_in_json_are_errors(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_sound_json_is_read():
    text = '{"a": [1, -2.5e3, null, true, "\\ud83d\\ude00 \\u00e9"], "b": {"a": 0}}'
    assert parse_json(text.encode()) == {"a": [1, -2500.0, None, True, "\U0001f600 \u00e9"], "b": {"a": 0}}


@pytest.mark.parametrize(("text", "number"), [("1", 1), (".5", 0.5), ("5.", 5), ("+1E+2", 100), ("-0", 0)])
def test_plain_numbers(text, number):
    assert as_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("nan", "inf", "-Infinity", "0.2_5", "1e999", "0x1", "1,5", "1e", ".", "-", "+-1", "1e1.5", "1\u20092", "1\n"),
        *("\u0660.\u0665", "\uff11", "\u00bd", "\u00b2", "", " 1"),
    ],
)
def test_other_spellings_are_no_numbers(text):
    assert as_number(text) is None
