"""Writing results: whole or not at all, and a receipt for every run."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from mammodensity.errors import OutputError

_RECEIPT_PACKAGES = ("mammodensity", "torch", "numpy", "scipy", "pillow", "safetensors")
_LONGEST_NAME = 100  # bytes of an exam or image name in UTF-8; file systems allow 255 for all of a file's name


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that it appears complete or stays as it was.

    Raises
    ------
    OutputError
        The file cannot be written (no space, no permission); nothing of it is left behind.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        target = path.resolve()  # a link stays a link
        if target.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:  # a device or pipe cannot be replaced
                yield stream
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".mammodensity.", suffix=".partial", dir=target.parent)
        temporary = Path(name)
        os.fchmod(handle, 0o666 & ~_umask())  # mkstemp makes files only the owner can read
        with os.fdopen(handle, "wb") as stream:
            yield stream
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
    working: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=".mammodensity.", suffix=".partial", dir=path.parent))
        working.chmod(0o777 & ~_umask())
        yield working
        if path.exists():
            path.rmdir()  # known to be empty
        working.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from error
    finally:
        if working is not None:
            shutil.rmtree(working, ignore_errors=True)


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
    with _working_folder_beside(path) as working:
        yield working
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name in earlier:
                if (
                    name == Path(name).name and (path / name).is_file()
                ):  # names come from a file anyone may have changed
                    (path / name).unlink()
            for file in sorted(working.iterdir()):
                file.replace(path / file.name)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _working_folder_beside(path: Path) -> Iterator[Path]:
    """A folder that goes at the end; what cannot be written is told of ``path``, which the user named."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        working = tempfile.TemporaryDirectory(prefix=".mammodensity.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    with working as name:
        try:
            yield Path(name)
        except OutputError as error:
            raise OutputError(str(error).replace(name, str(path))) from error


def require_new_folder(path: Path) -> None:
    """Raise ``OutputError`` unless ``path`` is absent or an empty folder."""
    if path.is_dir():
        if path.resolve() == Path.cwd():
            raise OutputError(f"{path} is the current folder; name a new folder")
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
    """For each entry its first choice that no other entry has among its own; the last one numbered if need be.

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
            name = next(one for one in numbered if one not in taken and one not in times)
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
    """Write ``rows`` under a header of ``columns``."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def receipt(command: str, **facts: Any) -> dict[str, Any]:
    """What a run was made with: versions, machine, and the ``facts`` the command adds (specs, seeds, input hashes)."""
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
