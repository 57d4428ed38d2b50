"""The files under a folder, listed once, and found by name."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from mammodensity.data.picture_files import PICTURE_SUFFIXES
from mammodensity.errors import LayoutError

IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, ".dcm", ".dicom")
_PASSED_OVER = "__MACOSX"  # a folder of shadow files that one system's archives carry along


class FileList:
    """Every file under ``root`` at any depth, in sorted order; hidden files and folders are passed over.

    ``root`` may be a single file. Lookups do not tell small letters from capitals.

    Raises
    ------
    LayoutError
        ``root`` is not there.
    """

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise LayoutError(f"{root} not found; expected the folder of a data set")
        self.given = root
        self.root = root if root.is_dir() else root.parent
        self.paths: tuple[Path, ...] = tuple(_walk(root)) if root.is_dir() else (root,)

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """Pictures and DICOM files, by their suffix."""
        return tuple(path for path in self.paths if path.suffix.lower() in IMAGE_SUFFIXES)

    def named(self, pattern: str) -> list[Path]:
        """Ordinary files whose whole name matches a regular expression; opening a pipe would wait for its writer."""
        form = re.compile(pattern, re.IGNORECASE)
        return [path for path in self.paths if form.fullmatch(path.name) and path.is_file()]

    def images_with_stem(self, stem: str) -> list[Path]:
        """Images whose name without its last suffix is ``stem``."""
        return self._by_stem.get(stem.lower(), [])

    def images_with_prefix(self, prefix: str) -> list[Path]:
        """Images whose name begins with ``prefix`` and goes on with neither letter nor digit."""
        wanted = prefix.lower()
        place = bisect_left(self._by_name, wanted, key=lambda entry: entry[0])
        found = []
        while place < len(self._by_name) and self._by_name[place][0].startswith(wanted):
            name, path = self._by_name[place]
            if not name[len(wanted) : len(wanted) + 1].isalnum():
                found.append(path)
            place += 1
        return found

    def images_in_folder(self, name: str) -> list[Path]:
        """Images at any depth under a folder called ``name``."""
        return self._by_folder.get(name.lower(), [])

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _grouped(self.images, lambda path: [path.stem])

    @cached_property
    def _by_name(self) -> list[tuple[str, Path]]:
        return sorted((path.name.lower(), path) for path in self.images)

    @cached_property
    def _by_folder(self) -> dict[str, list[Path]]:
        return _grouped(self.images, lambda path: set(path.relative_to(self.root).parts[:-1]))


def _walk(root: Path) -> Iterable[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name != _PASSED_OVER)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _grouped(paths: Iterable[Path], keys: Callable[[Path], Iterable[str]]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        for key in keys(path):
            groups[key.lower()].append(path)
    return groups
