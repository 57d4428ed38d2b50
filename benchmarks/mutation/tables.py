"""Mutations of tables: labels, scores and manifests with cells and lines that must not count as what they are not."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from mammodensity.terms import CATEGORIES, LEVELS, PROJECTIONS
from mutation.images import Random, choose

EXAMS = 6
Rows = list[list[str]]


@dataclass(frozen=True)
class TableMutant:
    """Mutated files of a folder by path."""

    files: dict[str, bytes]
    change: str


@cache
def labels_table() -> bytes:
    """Labels of six exams of six patients."""
    rows = [["exam_id", "patient_id", "density", "age"]]
    rows += [[f"{100 + n}_1", f"{100 + n}", CATEGORIES[n % 4], str(45 + n)] for n in range(EXAMS)]
    return _text(rows)


@cache
def score_table() -> bytes:
    """Scores of six exams at all levels."""
    rng = np.random.default_rng(4)
    rows = [["exam_id", "projection", *CATEGORIES, "views", "missing"]]
    for n in range(EXAMS):
        views = rng.dirichlet(np.ones(4), 4)
        levels = {str(view): (values, str(view)) for view, values in zip(PROJECTIONS, views, strict=True)}
        for level, chosen in (("right", ("CC_R", "MLO_R")), ("left", ("CC_L", "MLO_L")), ("subject", PROJECTIONS)):
            mean = np.mean([levels[view][0] for view in chosen], axis=0)
            levels[level] = (mean, " ".join(chosen))
        rows += [
            [f"{100 + n}_1", level, *(repr(float(value)) for value in levels[level][0]), levels[level][1], ""]
            for level in map(str, LEVELS)
        ]
    return _text(rows)


@cache
def manifest_files() -> dict[str, bytes]:
    """A manifest of six exams and its pictures, which only need to be there."""
    stream = io.BytesIO()
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(stream, "PNG")
    rows = [["exam_id", "patient_id", "projection", "path", "density", "split"]]
    files = {}
    for n in range(EXAMS):
        for view in PROJECTIONS:
            name = f"images/{100 + n}_1_{view}.png"
            files[name] = stream.getvalue()
            split = ("train", "train", "validation", "test")[n % 4]
            rows.append([f"{100 + n}_1", f"{100 + n}", str(view), name, CATEGORIES[n % 4], split])
    return {"manifest.csv": _text(rows), **files}


def _text(rows: Rows) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _rows(content: bytes) -> Rows:
    return list(csv.reader(io.StringIO(content.decode())))


_WORDS = (
    *("E", "AB", "A B", "B/C", "II", "2", "0", "dense", "?", "N/A", "nan", "\u0410", "\uff21", "\u212b"),
    *("=1+1", "'A", "A\x00", "A\nB", '"', "\u202eA", "A" * 5000),
)
_NUMBERS = (
    *("0,25", "0.2_5", "\u0661", "\u0660.\u0662\u0665", "nan", "inf", "-inf", "1e400", "-0.1", "25%", ".", "1e-5000"),
    *("0x1p-2", "1/4", "0.25.0", "\uff10.25", "1", "2", "+", "--0.2", "=0.25", "True"),
)


def _cells(rng: Random, content: bytes, columns: dict[str, tuple[str, ...]]) -> tuple[bytes, str]:
    """One to three cells of these columns hold words that do not belong there."""
    rows, words = _rows(content), []
    for _ in range(int(rng.integers(1, 4))):
        column = choose(rng, tuple(columns))
        line = int(rng.integers(1, len(rows)))
        text = choose(rng, columns[column])
        rows[line][rows[0].index(column)] = text
        words.append(f"{column} in line {line + 1} {text[:20]!r}")
    return _text(rows), "; ".join(words)


def _contradicted(rng: Random, content: bytes, column: str) -> tuple[bytes, str]:
    """A row is there twice, the second time with the cell of another row."""
    rows = _rows(content)
    line = int(rng.integers(1, len(rows)))
    place = rows[0].index(column)
    other = next(row[place] for row in rows[1:] if row[place] != rows[line][place])
    again = [*rows[line][:place], other, *rows[line][place + 1 :]]
    rows.insert(int(rng.integers(1, len(rows) + 1)), again)
    return _text(rows), f"line {line + 1} again, with another {column}"


def _form(rng: Random, content: bytes) -> tuple[bytes, str]:
    """Another form of the table, or a damaged one."""
    rows = _rows(content)
    text = content.decode()
    column = int(rng.integers(len(rows[0])))
    forms: dict[str, Callable[[], bytes]] = {
        "semicolons": lambda: text.replace(",", ";").encode(),
        "tabs": lambda: text.replace(",", "\t").encode(),
        "UTF-16": lambda: text.encode("utf-16"),
        "byte order mark": lambda: b"\xef\xbb\xbf" + content,
        "Windows line ends": lambda: text.replace("\n", "\r\n").encode(),
        "old Macintosh line ends": lambda: text.replace("\n", "\r").encode(),
        "a quote that is not closed": lambda: text.replace(",", ',"', 1 + int(rng.integers(8))).encode(),
        "header twice": lambda: _text([rows[0], *rows]),
        "no header": lambda: _text(rows[1:]),
        "a column twice": lambda: _text([[*row, row[column]] for row in rows]),
        "a needed column called otherwise": lambda: _text([["EXAM", *rows[0][1:]], *rows[1:]]),
        "a needed column removed": lambda: _text([row[1:] for row in rows]),
        "short rows": lambda: _text([row[: len(row) - (n % 3 == 1)] for n, row in enumerate(rows)]),
        "a cell more": lambda: _text([[*row, ""] if n == 2 else row for n, row in enumerate(rows)]),
        "two headers exchanged": lambda: _text([[rows[0][0], rows[0][2], rows[0][1], *rows[0][3:]], *rows[1:]]),
        "cut": lambda: content[: int(len(content) * rng.uniform(0.2, 0.98))],
        "zero bytes": lambda: content[: len(content) // 2] + bytes(8) + content[len(content) // 2 :],
        "random bytes": lambda: content[:40] + rng.bytes(60) + content[40:],
        "empty": lambda: b"",
    }
    name = choose(rng, tuple(forms))
    return forms[name](), name


def labels(rng: Random) -> TableMutant:
    """A table of labels."""
    content, kind = labels_table(), rng.random()
    if kind < 0.5:
        changed, words = _cells(rng, content, {"density": _WORDS, "exam_id": ("", " ")})
    elif kind < 0.6:
        changed, words = _contradicted(rng, content, "density")
    else:
        changed, words = _form(rng, content)
    return TableMutant({"labels.csv": changed}, words)


def scores(rng: Random) -> TableMutant:
    """A table of scores."""
    content, kind = score_table(), rng.random()
    if kind < 0.55:
        columns = dict.fromkeys(CATEGORIES, _NUMBERS)
        changed, words = _cells(rng, content, {**columns, "projection": ("", "CC", "cc_r", "RCC", "exam")})
    elif kind < 0.65:
        changed, words = _contradicted(rng, content, choose(rng, ("A", "D")))
    elif kind < 0.75:
        changed, words = _fused_otherwise(rng, content)
    else:
        changed, words = _form(rng, content)
    return TableMutant({"scores.csv": changed}, words)


def _fused_otherwise(rng: Random, content: bytes) -> tuple[bytes, str]:
    """The subject's row of an exam holds scores that no fusion of its views gives."""
    rows = _rows(content)
    lines = [line for line, row in enumerate(rows) if row[1] == "subject"]
    line = lines[int(rng.integers(len(lines)))]
    rows[line][2:6] = ["0.0", "0.0", "0.0", "1.0"] if float(rows[line][5]) < 0.5 else ["1.0", "0.0", "0.0", "0.0"]
    return _text(rows), f"subject in line {line + 1} contradicts its views"


def manifest(rng: Random) -> TableMutant:
    """A manifest with its pictures."""
    files, kind = manifest_files(), rng.random()
    content = files["manifest.csv"]
    if kind < 0.5:
        columns = {
            "density": _WORDS,
            "projection": ("", "CC", "cc_r", "RCC", "XCC_R"),
            "path": ("", "absent.png", "../manifest.csv", "images", "/dev/zero", "images/\x00"),
            "split": ("tests", "2", "none", "\u0442est"),
            "exam_id": ("", " "),
        }
        changed, words = _cells(rng, content, columns)
    elif kind < 0.65:
        changed, words = _contradicted(rng, content, choose(rng, ("density", "patient_id", "split")))
    else:
        changed, words = _form(rng, content)
    return TableMutant({**files, "manifest.csv": changed}, words)
