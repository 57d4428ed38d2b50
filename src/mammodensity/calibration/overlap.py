"""Whether labelled exams had a part in the training of the model that they are to calibrate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammodensity.evaluation.exam_columns import ExamColumns, read_exam_columns
from mammodensity.ingest import MANIFEST_NAME
from mammodensity.outputs import file_sha256


@dataclass(frozen=True)
class Overlap:
    """How many of the exams of a calibration stand in each split of the model's own manifest."""

    train: int = 0
    validation: int = 0
    test: int = 0
    by_name: int = 0
    """Of these, known by name alone, as no images could be compared."""

    @property
    def trained(self) -> int:
        """Exams that weights or epochs were chosen by."""
        return self.train + self.validation

    def to_dict(self) -> dict[str, int]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Overlap:
        """The reverse of `to_dict`."""
        return cls(**{name: int(value) for name, value in content.items()})


def find_overlap(model: Path, labels: Path, exam_ids: Iterable[str]) -> Overlap:
    """Look for labelled exams in the manifest that a trained model's folder holds.

    Exams of one name are the same where an image file is (by its place or its content); where the table of labels, or
    the manifest, names no file that is there, by their name alone.

    Parameters
    ----------
    labels
        Table with ``exam_id`` (or ``exam``, ``row``); ``path`` names image files.

    Raises
    ------
    TableError
        A table cannot be read.
    """
    if not (model / MANIFEST_NAME).is_file():
        return Overlap()
    known, given = read_exam_columns(model / MANIFEST_NAME), read_exam_columns(labels)
    count = {"train": 0, "validation": 0, "test": 0, "by_name": 0}
    for exam_id in exam_ids:
        splits = known.exams.get(exam_id, {}).get("split", ())
        if not splits or splits[0] not in count:
            continue
        same = _same_image(_files(known, exam_id), _files(given, exam_id))
        if same is not False:
            count[splits[0]] += 1
            count["by_name"] += same is None
    return Overlap(**count)


def _files(table: ExamColumns, exam_id: str) -> list[Path]:
    texts = table.exams.get(exam_id, {}).get("path", ())
    files = [table.path.parent / text for text in texts]
    return [file for file in files if file.is_file()]


def _same_image(first: list[Path], second: list[Path]) -> bool | None:
    """Whether any file of one exam is one of the other; None where there are none to compare."""
    if not first or not second:
        return None
    if {file.resolve() for file in first} & {file.resolve() for file in second}:
        return True
    sizes = {file.stat().st_size for file in first} & {file.stat().st_size for file in second}
    hashes = [{file_sha256(file) for file in files if file.stat().st_size in sizes} for files in (first, second)]
    return bool(hashes[0] & hashes[1])
