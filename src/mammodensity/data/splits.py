"""Training, validation and test splits, drawn by patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mammodensity.data.dataset import SPLITS, DataSet
from mammodensity.errors import LayoutError, OptionError

DEFAULT_SHARES = (0.8, 0.1, 0.1)
_NO_CATEGORY = -1


def with_splits(data: DataSet, *, seed: int = 1, shares: Sequence[float] = DEFAULT_SHARES) -> DataSet:
    """Give every image a split, unless the data set already has them.

    Patients are drawn, not images or exams, so nobody is in two splits; each density category keeps the same shares.
    The same data, seed and shares give the same splits.

    Raises
    ------
    LayoutError
        Only some images have a split.
    OptionError
        The shares are not three positive numbers that sum to 1.
    """
    count = sum(record.split is not None for record in data.records)
    if count == len(data.records):
        return data
    if count:
        raise LayoutError(
            f"{data.root}: {count} of {len(data.records)} images have a split; give all of them one, or none"
        )
    if len(shares) != len(SPLITS) or not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise OptionError(f"shares must be three positive numbers that sum to 1. Got {tuple(shares)} instead.")
    split_of = _draw(_strata(data), np.random.default_rng(seed), shares)
    records = tuple(replace(record, split=split_of[record.patient_id]) for record in data.records)
    return replace(data, records=records)


def _strata(data: DataSet) -> list[list[str]]:
    """Sorted lists of patients, one for each (densest) category, with those without a category last."""
    place_of: dict[str, int] = {}
    for record in data.records:
        place = record.category.index if record.category else _NO_CATEGORY
        place_of[record.patient_id] = max(place, place_of.get(record.patient_id, _NO_CATEGORY))
    strata: dict[int, list[str]] = defaultdict(list)
    for patient in sorted(place_of):
        strata[place_of[patient]].append(patient)
    return [strata[place] for place in sorted(strata, key=lambda place: (place == _NO_CATEGORY, place))]


def _draw(strata: list[list[str]], rng: np.random.Generator, shares: Sequence[float]) -> dict[str, str]:
    """Deal shuffled patients, one stratum after the other, each to the split that is furthest behind its share."""
    split_of: dict[str, str] = {}
    dealt = np.zeros(len(SPLITS))
    for patients in strata:
        for patient in rng.permutation(patients):
            behind = np.asarray(shares) * (len(split_of) + 1) - dealt
            choice = int(np.argmax(behind))
            dealt[choice] += 1
            split_of[str(patient)] = SPLITS[choice]
    return split_of


def patients_in_two_splits(data: DataSet) -> dict[str, tuple[str, ...]]:
    """Patients whose images are in more than one split, with those splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for record in data.records:
        if record.split is not None:
            splits[record.patient_id].add(record.split)
    return {
        patient: tuple(split for split in SPLITS if split in several)
        for patient, several in sorted(splits.items())
        if len(several) > 1
    }
