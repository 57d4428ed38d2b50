"""Problems of a data set: their codes, and those that its records show without a look at pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mammodensity.data.dataset import DataSet
from mammodensity.data.splits import patients_in_two_splits
from mammodensity.terms import PROJECTIONS, Projection

NO_SPLIT = "unsplit"
NO_CATEGORY = "unlabelled"
PROBLEMS = {
    "unreadable-image": "The file is not an image, is damaged, or is gone.",
    "colour-image": "The image is coloured, or has coloured marks. Export it in grey.",
    "size-image": "A side is below 16 pixels, or there are more than 60 million pixels.",
    "several-image": "The file holds several images. Save one image per file.",
    "depth-image": "It is neither 8- nor 16-bit.",
    "constant-image": "All pixels have one value.",
    "no-breast-image": "No breast was found.",
    "no-mammogram-image": "It does not look like a mammogram.",
    "inverted-image": "The background is brighter than the breast. Invert it.",
    "turned-image": "An MLO view is upside down. Turn it.",
    "contradictory-view-image": "A view called CC shows the pectoral muscle of an MLO. Correct its view.",
    "grey-scale-image": "Its breast has too few grey levels to read density. Export it brighter or in more bits.",
    "duplicate-content": "Another image has the same pixels.",
    "doubled-projection": "Two images of one exam have the same projection.",
    "partly-split": "Only some images have a split. Give all a split, or none.",
    "patient-in-two-splits": "A patient is in more than one split.",
    "contradicting-density": "Images of one exam have different categories.",
    "unknown-layout": "The arrangement is not known.",
    "stored-flipped": "The chest wall is on the wrong side for this projection. `prepare` mirrors it.",
    "doubtful-view": "The pixels look like another view than the stated one. Look at the image.",
    "incomplete-exam": "Projections are missing. `--allow-missing` scores the exam anyway.",
    "empty-class": "A split has no images of a category. The category cannot be learned or tested.",
}
"""Code of a problem of a data set to what it means; stable. Those of DICOM files are `REASONS` and `WARNINGS`."""
NOTES = frozenset({"stored-flipped", "doubtful-view", "incomplete-exam", "empty-class"})
"""Codes of problems that do not keep a data set from being used."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set."""

    code: str
    """One of `PROBLEMS`, or for a DICOM file of `REASONS`."""
    text: str
    """The finding and what to do, in one line."""
    about: tuple[Path, ...] = ()
    """The files concerned."""

    @property
    def severe(self) -> bool:
        """True when the data set should not be used before this is mended."""
        return self.code not in NOTES


def counts_of(data: DataSet) -> dict[str, dict[str, dict[str, int]]]:
    """Images by projection, split and category."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for record in data.records:
        split = counts.setdefault(record.projection.value, {}).setdefault(record.split or NO_SPLIT, {})
        category = record.category.value if record.category else NO_CATEGORY
        split[category] = split.get(category, 0) + 1
    return {projection.value: counts[projection.value] for projection in PROJECTIONS if projection.value in counts}


def structure_problems(data: DataSet) -> Iterator[Problem]:
    """Find the problems that no pixel is needed for."""
    yield from _doubled_projections(data)
    unsplit = tuple(record.path for record in data.records if record.split is None)
    if 0 < len(unsplit) < len(data.records):
        text = f"{len(unsplit)} of {len(data.records)} images have no split; give all of them one, or none"
        yield Problem("partly-split", text, about=unsplit)
    for patient, splits in patients_in_two_splits(data).items():
        about = tuple(record.path for record in data.records if record.patient_id == patient)
        text = f"patient {patient} is in {' and '.join(splits)}; keep to one"
        yield Problem("patient-in-two-splits", text, about=about)
    paths_of = defaultdict(list)
    for record in data.records:
        paths_of[record.exam_id].append(record.path)
    categories = defaultdict(set)
    for record in data.records:
        if record.category is not None:
            categories[record.exam_id].add(record.category.value)
    for exam_id, letters in sorted(categories.items()):
        if len(letters) > 1:
            text = f"exam {exam_id} is labelled {' and '.join(sorted(letters))}; an exam has one category"
            yield Problem("contradicting-density", text, about=tuple(paths_of[exam_id]))
    yield from _incomplete_exams(data)
    yield from _empty_classes(data)


def _doubled_projections(data: DataSet) -> Iterator[Problem]:
    paths_of = defaultdict(list)
    for record in data.records:
        paths_of[record.exam_id, record.projection].append(record.path)
    for (exam_id, projection), paths in paths_of.items():
        if len(paths) > 1:
            text = f"exam {exam_id} has {len(paths)} {projection} images; keep one"
            yield Problem("doubled-projection", text, about=tuple(paths))


def _incomplete_exams(data: DataSet) -> Iterator[Problem]:
    present: dict[str, dict[Projection, Path]] = defaultdict(dict)
    for record in data.records:
        present[record.exam_id][record.projection] = record.path
    for exam_id, projections in sorted(present.items()):
        missing = [projection.value for projection in PROJECTIONS if projection not in projections]
        if missing:
            text = f"exam {exam_id} lacks {', '.join(missing)}"
            yield Problem("incomplete-exam", text, about=tuple(projections.values()))


def _empty_classes(data: DataSet) -> Iterator[Problem]:
    for projection, splits in counts_of(data).items():
        for split, counts in splits.items():
            empty = [letter for letter in data.scale.letters if letter not in counts]
            if set(counts) - {NO_CATEGORY} and empty:
                place = f"{projection} {split}" if split != NO_SPLIT else projection
                yield Problem("empty-class", f"{place} has no image of category {', '.join(empty)}")
