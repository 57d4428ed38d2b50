"""Writing results: whole or not at all, and a receipt for every run."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from importlib import metadata
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from mammodensity.errors import OutputError
from mammodensity.inputs import open_file
from mammodensity.stopping import stops_wait

_RECEIPT_PACKAGES = ("mammodensity", "torch", "numpy", "scipy", "pillow", "safetensors")
_MOST_HASHED_BYTES = 4_000_000_000
_FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")  # also full-width, as in East Asian locales
_LINE_END = "\r\n"  # the characters for which the csv module puts a cell into quotes
_LONGEST_NAME = 100  # bytes of an exam or image name in UTF-8; file systems allow 255 for all of a file's name


class _Block:
    """Files and folders that are made beside their targets, and then take their places one right after the other."""

    def __init__(self) -> None:
        self.temporaries = ExitStack()
        self.moves: list[tuple[Path, Callable[[], object]]] = []
        """Each with the path that messages name."""


_block: ContextVar[_Block | None] = ContextVar("_block", default=None)


@contextmanager
def written_together() -> Iterator[_Block]:
    """Let all files and folders that are written in this block appear at its end, or none of them after an error.

    Writers of this module within the block only prepare their files; a write cannot be read before the block ends.
    Ctrl-C and SIGTERM wait until all are in place. What a killed process left is removed by the next one that writes to
    the same folder.
    """
    outer = _block.get()
    if outer is not None:
        yield outer
        return
    block = _Block()
    token = _block.set(block)
    try:
        with block.temporaries:
            try:
                yield block
            finally:
                _block.reset(token)
            with stops_wait():
                for path, move in block.moves:
                    try:
                        move()
                    except OSError as error:
                        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        block.temporaries.close()


@contextmanager
def _temporary(parent: Path, *, folder: bool = False) -> Iterator[tuple[Path, int]]:
    """Make a file or folder for work and yield its path and an open descriptor; it is removed in the end if it is left.

    It is locked, so that other processes can tell it from what a killed process left.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent)
    made: list[tuple[Path, int]] = []
    try:
        with stops_wait():  # what a signal leaves half-made nobody would remove
            made.append(_locked(parent, folder=folder))
        yield made[0]
    finally:
        with stops_wait():
            for path, handle in made:
                if folder:
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                os.close(handle)


def _locked(parent: Path, *, folder: bool) -> tuple[Path, int]:
    """Make a file or folder, open and lock it."""
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=parent))
            path.chmod(0o777 & ~_umask())
            handle = os.open(path, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=parent)
            path = Path(name)
            os.fchmod(handle, 0o666 & ~_umask())  # mkstemp makes files only the owner can read
        with suppress(OSError):  # a file system without locks, where leftovers stay
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():  # not removed as a leftover before it was locked
            return path, handle
        os.close(handle)


_PREFIX, _SUFFIX = ".mammodensity.", ".partial"
_cleaned: set[Path] = set()


def _remove_leftovers(folder: Path) -> None:
    """Remove working files and folders of killed processes from a folder, once; living processes have locked theirs."""
    if folder.resolve() in _cleaned:
        return
    _cleaned.add(folder.resolve())
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that it appears complete or stays as it was.

    Raises
    ------
    OutputError
        The file cannot be written (no space, no permission); nothing of it is left behind.
    """
    path = Path(path)
    try:
        target = path.resolve()  # a link stays a link
        if target.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:  # a device or pipe cannot be replaced
                yield stream
            return
        with written_together() as block:
            temporary, handle = block.temporaries.enter_context(_temporary(target.parent))
            with os.fdopen(handle, "wb", closefd=False) as stream:
                yield stream
            block.moves.append((path, partial(temporary.replace, target)))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty working folder that becomes ``path`` when the block ends without an error.

    ``path`` must not exist, or be empty.

    Raises
    ------
    OutputError
        ``path`` is in use, or cannot be written; nothing of it is left behind.
    """
    path = Path(path).resolve()
    require_new_folder(path)

    def take_place(working: Path) -> None:
        if path.exists():
            path.rmdir()  # known to be empty
        working.replace(path)

    try:
        with _working_folder(path, take_place) as working:
            yield working
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from error


@contextmanager
def _working_folder(path: Path, take_place: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a folder beside ``path`` in which files are written at once; it takes its place at the end of the block."""
    with written_together() as block:
        try:
            working, _ = block.temporaries.enter_context(_temporary(path.parent, folder=True))
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from error
        token = _block.set(None)
        try:
            yield working
        except OutputError as error:
            raise OutputError(str(error).replace(str(working), str(path))) from error
        finally:
            _block.reset(token)
        block.moves.append((path, partial(take_place, working)))


@contextmanager
def staged_folder(path: Path, earlier: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty working folder whose files move into ``path`` when the block ends without an error.

    ``path`` may exist; files of the same name are replaced and those of an ``earlier`` run go, so that old results are
    not taken for new ones. Others stay.

    Raises
    ------
    OutputError
        ``path`` is a file, or cannot be written; nothing of the new files is left behind.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, expected a folder to write to")

    def take_place(working: Path) -> None:
        if not path.exists():
            working.replace(path)
            return
        _remove_leftovers(path)
        for name in earlier:
            if name == Path(name).name and (path / name).is_file():  # names come from a file anyone may have changed
                (path / name).unlink()
        for file in sorted(working.iterdir()):
            file.replace(path / file.name)

    with _working_folder(path, take_place) as working:
        yield working


def require_new_folder(path: Path) -> None:
    """Raise ``OutputError`` unless ``path`` is absent or an empty folder."""
    if path.is_dir():
        if path.resolve() == Path.cwd():
            raise OutputError(f"{path} is the current folder; name a new folder")
        _remove_leftovers(path)
        if any(path.iterdir()):
            raise OutputError(f"{path} already holds files; name a new folder, or remove it first")
    elif path.exists():
        raise OutputError(f"{path} is a file, expected a folder to write to")


def require_apart(output: Path, data: Path) -> None:
    """Raise ``OutputError`` when a folder to write to and the data that are read lie one within the other."""
    inner, outer = output.resolve(), data.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise OutputError(
            f"{output} and the data in {data} lie one within the other, so that results would be taken for data; "
            "name a folder beside them"
        )


def require_not_input(output: Path | None, inputs: Iterable[Path]) -> None:
    """Raise ``OutputError`` when writing ``output`` would replace a file the command reads, or a folder.

    Commands ask before they work, so that hours of it are not lost to a wrong name.
    """
    if output is not None and output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder; name a file in it")
    if output is not None and output.exists():
        target = output.resolve()
        if any(target == path.resolve() for path in inputs):
            raise OutputError(f"{output} is read by this command and would be replaced; name another file")


def safe_name(name: str) -> str:
    """A name that is one part of a path, and leaves room for more: exam names come from tables and may hold anything.

    >>> safe_name("../a b")
    '_a_b'
    """
    plain = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    return plain.encode()[:_LONGEST_NAME].decode(errors="ignore") or "_"


def distinct_names(choices: Sequence[Sequence[str]]) -> list[str]:
    """Choose for each entry its first name that no other entry has, else its last one, numbered if it is taken.

    >>> distinct_names([["a", "x_a"], ["a", "y_a"], ["b"], ["b"], ["b_2"]])
    ['x_a', 'y_a', 'b', 'b_3', 'b_2']
    """
    times = Counter(choice for entry in choices for choice in set(entry))
    taken: set[str] = set()
    names = []
    for entry in choices:
        name = next((choice for choice in entry if times[choice] == 1), entry[-1])
        if name in taken:
            numbered = (f"{name}_{number}" for number in count(2))
            name = next(candidate for candidate in numbered if candidate not in taken and candidate not in times)
        taken.add(name)
        names.append(name)
    return names


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` whole or not at all."""
    with atomic_file(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN is not JSON and must have been turned into null before."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``rows`` under a header of ``columns``; absent cells are blank.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, which `unguarded` takes away.
    """
    lines: list[str] = []
    table = csv.writer(SimpleNamespace(write=lines.append), lineterminator=_LINE_END)
    table.writerow(columns)
    for row in rows:
        table.writerow([_guarded(row.get(name, "")) for name in columns])
    write_text(path, "".join(f"{line.removesuffix(_LINE_END)}\n" for line in lines))


def _guarded(cell: Any) -> Any:
    """A cell that is no formula; numbers that are not text stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The text of a cell that `write_csv` wrote.

    >>> unguarded("'=1+1"), unguarded("'a"), unguarded("''-1"), unguarded("-1")
    ('=1+1', "'a", "'-1", '-1')
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open_file(path, _MOST_HASHED_BYTES) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def receipt(command: str, **facts: Any) -> dict[str, Any]:
    """Record of a run: versions, machine, and the ``facts`` that the command adds (specs, seeds, input hashes)."""
    versions = {}
    for name in _RECEIPT_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "command": command,
        "versions": versions,
        "python": platform.python_version(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        **facts,
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
