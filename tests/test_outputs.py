"""Results appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mammodensity.errors import OutputError
from mammodensity.outputs import (
    atomic_file,
    atomic_folder,
    distinct_names,
    receipt,
    require_not_input,
    safe_name,
    staged_folder,
    write_json,
    write_text,
    written_together,
)


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    write_text(target, "first")
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    previous = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "text")
        with atomic_folder(tmp_path / "folder") as folder:
            write_text(folder / "inner", "text")
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as folder:
        write_text(folder / "half", "")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "out") as folder:
        write_text(folder / "whole", "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
    with pytest.raises(OutputError, match="already holds files"), atomic_folder(tmp_path / "out"):
        pass


def test_staged_files_join_what_is_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "out") as folder:
        write_text(folder / "new", "")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
    with staged_folder(tmp_path / "out") as folder:
        write_text(folder / "new", "new")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["new", "old"]
    with pytest.raises(OutputError, match="is a file"), staged_folder(tmp_path / "out" / "old"):
        pass


def test_what_cannot_be_staged_is_told_of_the_folder_named(tmp_path, monkeypatch):
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / ".mammodensity.x.partial"))

    with pytest.raises(OutputError) as told, staged_folder(tmp_path / "out") as folder:
        (folder / "file").mkdir()
        write_text(folder / "file", "")
    assert str(told.value).startswith(f"cannot write {tmp_path / 'out' / 'file'}: ")
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(OutputError) as told, staged_folder(tmp_path / "out"):
        pass
    assert str(told.value) == f"cannot write {tmp_path / 'out'}: Permission denied; nothing was left behind"


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_three(folder: Path) -> None:
    write_text(folder / "a", "a")
    with staged_folder(folder / "b") as staging:
        write_text(staging / "inner", "b")
        assert (staging / "inner").read_text() == "b"
    write_json(folder / "other" / "c.json", {})


def test_outputs_of_a_block_appear_together(tmp_path):
    with written_together():
        write_three(tmp_path)
        assert not [name for name in names_in(tmp_path) if not name.startswith(".") and "/." not in name]
    assert names_in(tmp_path) == ["a", "b/inner", "other/c.json"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_none_of_a_block_appears(tmp_path, error):
    write_text(tmp_path / "a", "before")
    with pytest.raises(error), written_together():
        write_three(tmp_path)
        raise error
    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "before"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_all_outputs_are_in_place(tmp_path, monkeypatch, number):
    replace = Path.replace

    def disturbed(self, target):
        if not target.parent.name.endswith(".partial"):  # not within the folder that is prepared
            signal.raise_signal(number)
        return replace(self, target)

    previous = signal.signal(number, signal.default_int_handler)
    monkeypatch.setattr(Path, "replace", disturbed)
    try:
        with pytest.raises(KeyboardInterrupt), written_together():
            write_three(tmp_path)
    finally:
        signal.signal(number, previous)
    assert names_in(tmp_path) == ["a", "b/inner", "other/c.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from mammodensity.outputs import atomic_file, staged_folder, write_text
with staged_folder(Path(sys.argv[1], "folder")) as staging, atomic_file(Path(sys.argv[1], "file")) as stream:
    write_text(staging / "inner", "half")
    stream.write(b"half")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    input()
"""


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path):
    program = [sys.executable, "-c", KILLED, str(tmp_path)]
    subprocess.run([*program, "killed"], check=False)
    dead = set(tmp_path.iterdir())
    assert len(dead) == 2
    with subprocess.Popen([*program, "alive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        assert living.stdout.readline() == b"writing\n"
        alive = set(tmp_path.iterdir()) - dead
        assert len(alive) == 2
        assert not dead & set(tmp_path.iterdir())
        write_text(tmp_path / "a", "")
        assert alive < set(tmp_path.iterdir())
        living.communicate(b"\n")
    assert names_in(tmp_path) == ["a", "file", "folder/inner"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from mammodensity.errors import OutputError
from mammodensity.outputs import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a write past 1,000 bytes fails, as on a full disk
try:
    write_bytes(Path(sys.argv[1]), bytes(5000))
except OutputError as error:
    sys.exit(0 if "nothing was left behind" in str(error) else 3)
sys.exit(4)
"""


def test_a_write_that_does_not_fit_leaves_nothing(tmp_path):
    (tmp_path / "out").write_text("before")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path / "out")], check=False)
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "inner", "text")


def test_links_stay_links_and_devices_stay_devices(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert not (tmp_path / "pipe").is_file()
    with pytest.raises(OutputError, match="it is a folder"):
        write_text(tmp_path, "text")


def test_what_is_read_is_not_written_over(tmp_path):
    (tmp_path / "in").write_text("")
    require_not_input(tmp_path / "out", [tmp_path / "in"])
    with pytest.raises(OutputError, match="is read by this command"):
        require_not_input(tmp_path / "." / "in", [tmp_path / "in"])
    with pytest.raises(OutputError, match="it is a folder; name a file in it"):
        require_not_input(tmp_path, [])


@pytest.mark.parametrize("name", ["x" * 300, "\u4e73" * 300, "\U0001f600a" * 100, "../" * 80, "", "..."])
def test_any_name_gives_a_part_of_a_path_with_room_for_more(name, tmp_path):
    made = safe_name(name)
    assert 0 < len(made.encode()) <= 100
    write_text(tmp_path / f"{made}_MLO_R_{made}_integrated-gradients_contours.png", "")
    assert len(list(tmp_path.iterdir())) == 1


def test_numbered_names_are_not_those_of_others():
    for names in (["a", "a", "a_2"], ["a_2", "a", "a"], ["a", "a_2", "a", "a_2", "a_2_2"]):
        found = distinct_names([[name] for name in names])
        assert len(set(found)) == len(names), found


def test_names_as_long_as_the_file_system_allows(tmp_path):
    write_text(tmp_path / ("x" * 250), "text")
    assert len(list(tmp_path.iterdir())) == 1


def test_json_and_receipt(tmp_path):
    write_json(tmp_path / "a.json", receipt("test", seed=1))
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", float("nan"))
    assert receipt("test", seed=1)["versions"]["mammodensity"] == "0.1.0"
    assert not (tmp_path / "b.json").exists()
