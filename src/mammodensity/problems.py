"""What is wrong with a data set as a whole: all that can be told without reading a pixel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mammodensity.ingest import DataSet
from mammodensity.splits import patients_in_two_splits
from mammodensity.terms import PROJECTIONS, Projection

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
    """The one file concerned."""
    about: tuple[Path, ...] = ()
    """The files concerned, where they are several."""


def counts_of(data: DataSet) -> dict[str, dict[str, dict[str, int]]]:
    """Images by projection, split and category."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for record in data.records:
        split = counts.setdefault(record.projection.value, {}).setdefault(record.split or NO_SPLIT, {})
        category = record.category.value if record.category else NO_CATEGORY
        split[category] = split.get(category, 0) + 1
    return {projection.value: counts[projection.value] for projection in PROJECTIONS if projection.value in counts}


def structure_problems(data: DataSet) -> Iterator[Problem]:
    """What can be told without reading a pixel."""
    yield from _doubled_projections(data)
    unsplit = tuple(record.path for record in data.records if record.split is None)
    if 0 < len(unsplit) < len(data.records):
        text = f"{len(unsplit)} of {len(data.records)} images have no split; give all of them one, or none"
        yield Problem("partly-split", text, True, about=unsplit)
    for patient, splits in patients_in_two_splits(data).items():
        about = tuple(record.path for record in data.records if record.patient_id == patient)
        text = f"patient {patient} is in {' and '.join(splits)}; keep to one"
        yield Problem("patient-in-two-splits", text, True, about=about)
    paths_of = defaultdict(list)
    for record in data.records:
        paths_of[record.exam_id].append(record.path)
    categories = defaultdict(set)
    for record in data.records:
        if record.category is not None:
            categories[record.exam_id].add(record.category.value)
    for exam_id, found in sorted(categories.items()):
        if len(found) > 1:
            text = f"exam {exam_id} is labelled {' and '.join(sorted(found))}; an exam has one category"
            yield Problem("contradicting-density", text, True, about=tuple(paths_of[exam_id]))
    yield from _incomplete_exams(data)
    yield from _empty_classes(data)


def _doubled_projections(data: DataSet) -> Iterator[Problem]:
    paths_of = defaultdict(list)
    for record in data.records:
        paths_of[record.exam_id, record.projection].append(record.path)
    for (exam_id, projection), paths in paths_of.items():
        if len(paths) > 1:
            text = f"exam {exam_id} has {len(paths)} {projection} images; keep one"
            yield Problem("doubled-projection", text, True, about=tuple(paths))


def _incomplete_exams(data: DataSet) -> Iterator[Problem]:
    present: dict[str, dict[Projection, Path]] = defaultdict(dict)
    for record in data.records:
        present[record.exam_id][record.projection] = record.path
    for exam_id, projections in sorted(present.items()):
        missing = [projection.value for projection in PROJECTIONS if projection not in projections]
        if missing:
            text = f"exam {exam_id} lacks {', '.join(missing)}"
            yield Problem("incomplete-exam", text, False, about=tuple(projections.values()))


def _empty_classes(data: DataSet) -> Iterator[Problem]:
    for projection, splits in counts_of(data).items():
        for split, found in splits.items():
            empty = [category.value for category in data.scale if category not in found]
            if set(found) - {NO_CATEGORY} and empty:
                place = f"{projection} {split}" if split != NO_SPLIT else projection
                yield Problem("empty-class", f"{place} has no image of category {', '.join(empty)}", False)
