"""Look at a data set before any hour is spent on it: what is there, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammodensity.errors import ImageError
from mammodensity.ingest import DataSet, ImageRecord, read_picture
from mammodensity.splits import patients_in_two_splits
from mammodensity.terms import CATEGORIES, PROJECTIONS

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""

NO_SPLIT = "unsplit"
NO_CATEGORY = "unlabelled"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set."""

    code: str
    """Stable name; ``docs/data.md`` explains each."""
    text: str
    """What was found and what to do, in one line."""
    severe: bool
    """True when the data set should not be used before this is mended."""
    path: str | None = None


@dataclass(frozen=True)
class CheckResult:
    """What ``check_data`` found."""

    root: Path
    layout: str
    images: int
    exams: int
    patients: int
    counts: dict[str, dict[str, dict[str, int]]]
    """Images by projection, split and category."""
    problems: tuple[Problem, ...]
    ignored: int
    """Files that are no images."""

    @property
    def usable(self) -> bool:
        """True when no problem is severe."""
        return not any(problem.severe for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {**asdict(self), "root": str(self.root), "usable": self.usable}


def check_data(data: DataSet, *, read_pixels: bool = True, progress: Progress | None = None) -> CheckResult:
    """Inspect a data set; every image is decoded unless ``read_pixels`` is False."""
    problems = [*_structure_problems(data)]
    if read_pixels:
        problems += _pixel_problems(data, progress)
    return CheckResult(
        root=data.root,
        layout=data.layout,
        images=len(data.records),
        exams=len({record.exam_id for record in data.records}),
        patients=len({record.patient_id for record in data.records}),
        counts=_counts(data),
        problems=tuple(sorted(problems, key=lambda problem: not problem.severe)),
        ignored=len(data.ignored),
    )


def _counts(data: DataSet) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for record in data.records:
        split = counts.setdefault(record.projection.value, {}).setdefault(record.split or NO_SPLIT, {})
        category = record.category.value if record.category else NO_CATEGORY
        split[category] = split.get(category, 0) + 1
    return {projection.value: counts[projection.value] for projection in PROJECTIONS if projection.value in counts}


def _structure_problems(data: DataSet) -> Iterator[Problem]:
    """What can be told without reading a pixel."""
    yield from _doubled_projections(data)
    for patient, splits in patients_in_two_splits(data).items():
        yield Problem("patient-in-two-splits", f"patient {patient} is in {' and '.join(splits)}; keep to one", True)
    categories = defaultdict(set)
    for record in data.records:
        if record.category is not None:
            categories[record.exam_id].add(record.category.value)
    for exam_id, found in sorted(categories.items()):
        if len(found) > 1:
            text = f"exam {exam_id} is labelled {' and '.join(sorted(found))}; an exam has one density category"
            yield Problem("contradicting-density", text, True)
    yield from _incomplete_exams(data)
    yield from _empty_classes(data)


def _doubled_projections(data: DataSet) -> Iterator[Problem]:
    count = Counter((record.exam_id, record.projection) for record in data.records)
    for (exam_id, projection), images in count.items():
        if images > 1:
            text = f"exam {exam_id} has {images} {projection} images; keep one"
            yield Problem("doubled-projection", text, True)


def _incomplete_exams(data: DataSet) -> Iterator[Problem]:
    present = defaultdict(set)
    for record in data.records:
        present[record.exam_id].add(record.projection)
    for exam_id, projections in sorted(present.items()):
        missing = [projection.value for projection in PROJECTIONS if projection not in projections]
        if missing:
            yield Problem("incomplete-exam", f"exam {exam_id} lacks {', '.join(missing)}", False)


def _empty_classes(data: DataSet) -> Iterator[Problem]:
    for projection, splits in _counts(data).items():
        for split, found in splits.items():
            empty = [category.value for category in CATEGORIES if category not in found]
            if set(found) - {NO_CATEGORY} and empty:
                place = f"{projection} {split}" if split != NO_SPLIT else projection
                yield Problem("empty-class", f"{place} has no image of category {', '.join(empty)}", False)


def _pixel_problems(data: DataSet, progress: Progress | None) -> Iterator[Problem]:
    first_with: dict[str, ImageRecord] = {}
    for done, (record, digest, error) in enumerate(_decode_all(data), start=1):
        if progress:
            progress(done, len(data.records))
        if error is not None:
            yield Problem(f"{error.code}-image", str(error), True, str(record.path))
            continue
        other = first_with.setdefault(digest, record)
        if other is not record:
            text = f"{record.path} has the same pixels as {other.path}; keep one"
            yield Problem("duplicate-content", text, True, str(record.path))


def _decode_all(data: DataSet) -> Iterator[tuple[ImageRecord, str, ImageError | None]]:
    """Each record with a digest of its pixels, or the reason why it cannot be read."""

    def decode(record: ImageRecord) -> tuple[ImageRecord, str, ImageError | None]:
        try:
            pixels = read_picture(record.path, record.projection).pixels
        except ImageError as error:
            return record, "", error
        return record, hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest(), None

    with ThreadPoolExecutor() as pool:
        chunk = 64  # bounds how many decoded images wait in memory, whatever the size of the data set
        for start in range(0, len(data.records), chunk):
            yield from pool.map(decode, data.records[start : start + chunk])
