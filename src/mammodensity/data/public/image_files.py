"""The files under a folder, listed once and looked up by name."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePath

from mammodensity.data.picture_files import PICTURE_SUFFIXES
from mammodensity.errors import LayoutError

IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, ".dcm", ".dicom")
_SHADOW_FILES = "__MACOSX"  # a folder that macOS adds to archives


class FileList:
    """Every file under ``source`` at any depth, in sorted order, without hidden files and folders.

    ``source`` may be a single file. Lookups ignore the case of letters.

    Raises
    ------
    LayoutError
        ``source`` does not exist.
    """

    def __init__(self, source: Path) -> None:
        if not source.exists():
            raise LayoutError(f"{source} not found; expected the folder of a data set")
        self.source = source
        self.root = source if source.is_dir() else source.parent
        self.paths: tuple[Path, ...] = tuple(_walk(source)) if source.is_dir() else (source,)

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """Pictures and DICOM files, by their suffix."""
        return tuple(path for path in self.paths if path.suffix.lower() in IMAGE_SUFFIXES)

    def named(self, pattern: str) -> list[Path]:
        """Ordinary files (no pipes) whose whole name matches a regular expression."""
        form = re.compile(pattern, re.IGNORECASE)
        return [path for path in self.paths if form.fullmatch(path.name) and path.is_file()]

    def images_with_stem(self, stem: str) -> list[Path]:
        """Images whose name without its last suffix is ``stem``."""
        return self._by_stem.get(stem.lower(), [])

    def images_with_prefix(self, prefix: str) -> list[Path]:
        """Images whose name begins with ``prefix``, followed by no letter or digit."""
        wanted = prefix.lower()
        start = bisect_left(self._by_name, wanted, key=lambda entry: entry[0])
        following = map(self._by_name.__getitem__, range(start, len(self._by_name)))
        matches = takewhile(lambda entry: entry[0].startswith(wanted), following)
        return [path for name, path in matches if not name[len(wanted) : len(wanted) + 1].isalnum()]

    def images_in_folder(self, name: str) -> list[Path]:
        """Images at any depth under a folder called ``name``."""
        return self._by_folder.get(name.lower(), [])

    @staticmethod
    def closest(paths: Iterable[Path], wanted: PurePath) -> Path | None:
        """The path whose folders agree longest with the end of those of ``wanted``; the first of several."""

        def agreement(path: Path) -> int:
            pairs = zip(reversed(path.parent.parts), reversed(wanted.parent.parts), strict=False)
            return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

        return max(paths, key=agreement, default=None)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _grouped(self.images, lambda path: (path.stem,))

    @cached_property
    def _by_name(self) -> list[tuple[str, Path]]:
        return sorted((path.name.lower(), path) for path in self.images)

    @cached_property
    def _by_folder(self) -> dict[str, list[Path]]:
        return _grouped(self.images, lambda path: set(path.relative_to(self.root).parts[:-1]))


def _walk(root: Path) -> Iterable[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name != _SHADOW_FILES)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _grouped(paths: Iterable[Path], keys: Callable[[Path], Iterable[str]]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        for key in keys(path):
            groups[key.lower()].append(path)
    return groups
