"""The corpus: a case for each seed and index, and how it is written to a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from mammodensity.terms import PROJECTIONS
from mutation import images, models, tables
from mutation.images import BYTE_CHANGES, Mutant, Random, choose
from mutation.sound import ROWS, Sound, sound_image

Target = Literal["image", "labels", "scores", "manifest", "model"]
Special = Literal["pipe", "endless device", "link to nothing", "link to itself", "folder", "null device", "socket"]
SPECIALS: tuple[Special, ...] = (
    *("pipe", "endless device", "link to nothing", "link to itself", "folder", "null device", "socket"),
)
_REAL_ROWS = 1600
_REAL_EVERY = 50


@dataclass(frozen=True)
class Case:
    """One mutated input."""

    kind: str
    index: int
    change: str
    target: Target
    path: str
    """The program's input, below the folder of the case; empty for the folder itself."""
    files: dict[str, bytes]
    special: dict[str, Special] = field(default_factory=dict)
    sound: Sound | None = None
    """The image it was made of."""

    def write(self, folder: Path) -> Path:
        """Write the files, and return the path that the program is given."""
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        for name, special in self.special.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            _make_special(file, special)
        return folder / self.path


def _make_special(file: Path, special: Special) -> None:
    if special == "pipe":
        os.mkfifo(file)
    elif special == "folder":
        file.mkdir()
    elif special == "socket":
        import socket

        short = Path(f"/tmp/corpus-{os.getpid()}.sock")  # a socket's path may have about 100 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(short))
        short.replace(file)
    else:
        targets = {"endless device": "/dev/zero", "null device": "/dev/null", "link to itself": file.name}
        file.symlink_to(targets.get(special, "absent"))


def _image(make: Callable[[Random, int], Mutant], kind: str, index: int, rng: Random, rows: int) -> Case:
    mutant = make(rng, rows)
    words = f"{mutant.sound.name}: {mutant.change}"
    files = {f"exam/{mutant.file_name}": mutant.content}
    return Case(kind, index, words, "image", f"exam/{mutant.file_name}", files, sound=mutant.sound)


def _table(make: Callable[[Random], tables.TableMutant], target: Target, kind: str, index: int, rng: Random) -> Case:
    mutant = make(rng)
    path = {"labels": "labels.csv", "scores": "scores.csv"}.get(target, "")
    return Case(kind, index, mutant.change, target, path, mutant.files)


def _special(kind: str, index: int, rng: Random) -> Case:
    special = SPECIALS[int(rng.integers(len(SPECIALS)))]
    target: Target = ("image", "labels", "scores", "manifest", "model")[int(rng.integers(5))]  # type: ignore[assignment]
    if target == "image":
        sound = sound_image("explicit" if rng.random() < 0.5 else "png 8", PROJECTIONS[0])
        name = f"exam/{sound.file_name}"
        return Case(kind, index, f"{special} as {name}", target, name, {}, {name: special}, sound)
    if target == "model":
        files = models.trained_model() if rng.random() < 0.7 else models.site_model()
        name = choose(rng, tuple(files))
        return Case(kind, index, f"{special} as {name}", target, "", files, {name: special})
    if target == "manifest":
        files = tables.manifest_files()
        name = choose(rng, ("manifest.csv", "images/100_1_CC_R.png"))
        return Case(kind, index, f"{special} as {name}", target, "", files, {name: special})
    return Case(kind, index, f"{special} as {target}.csv", target, f"{target}.csv", {}, {f"{target}.csv": special})


_IMAGES: dict[str, Callable[[Random, int], Mutant]] = {
    **{name: partial(images.in_file, change) for name, change in BYTE_CHANGES.items()},
    **{f"{name}, file whole": partial(images.in_stream, change) for name, change in BYTE_CHANGES.items()},
    "cut": partial(images.in_file, images.cut),
    "cut, end marker kept": images.cut_with_end,
    "false size": images.false_size,
    "tag changed": images.tag_changed,
    "tag removed": images.tag_removed,
    "number changed": images.number_changed,
    "wrong view": images.wrong_view,
    "wrong side": images.wrong_side,
    "fewer bits than stated": images.dark_stream,
}
_TABLES: dict[str, tuple[Callable[[Random], tables.TableMutant], Target]] = {
    "labels": (tables.labels, "labels"),
    "scores": (tables.scores, "scores"),
    "manifest": (tables.manifest, "manifest"),
    "model: JSON": (models.model_json, "model"),
    "model: tensors": (models.model_tensors, "model"),
    "model: bytes": (models.model_bytes, "model"),
}
KINDS = (*_IMAGES, *_TABLES, "special file")
"""Kinds of mutation; the corpus takes them in turn."""


def make_case(seed: int, index: int, *, real_sizes: bool = False) -> Case:
    """Make case ``index`` of the corpus ``seed``. The other cases do not influence it.

    ``real_sizes`` makes one image of 50 as large as a mammogram.
    """
    kind = KINDS[index % len(KINDS)]
    rng = np.random.default_rng([seed, index])
    if kind in _IMAGES:
        large = real_sizes and (index // len(KINDS)) % _REAL_EVERY == _REAL_EVERY - 1
        return _image(_IMAGES[kind], kind, index, rng, _REAL_ROWS if large else ROWS)
    if kind in _TABLES:
        return _table(*_TABLES[kind], kind, index, rng)
    return _special(kind, index, rng)
