"""Exams of a public data set from the rows of its tables, with a count of everything that is left out.

The rules are the same for every data set, and each use of a rule is counted:

- an image is kept if its breast is stated and its view is CC or MLO;
- of several images of one projection, the data set's own preference decides, then the name;
- an exam whose rows name different patients is left out;
- a breast has the category that all rows of its images give; if they contradict each other, the exam has none;
- an exam has the category of the denser breast, as a BI-RADS report gives one composition for both. This also holds for
  the tissue categories F, G and D.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import SPLITS
from mammodensity.errors import TableError
from mammodensity.terms import DENSITY, PROJECTIONS, TISSUE, Category, Projection, Scale

NO_DENSITY = "no-density"
CONTRADICTING_DENSITY = "contradicting-density"
VIEWS = ("CC", "MLO")


@dataclass(frozen=True)
class ImageRow:
    """One row of a table, about one image."""

    exam_id: str
    patient_id: str
    image: str
    """The data set's own name of the image: an identifier, or a path in its archive."""
    laterality: str | None
    """``"R"``, ``"L"``; None where it is not stated."""
    view: str
    """As the table has it."""
    categories: frozenset[Category] = frozenset()
    """The category; empty where nobody rated it, more than one where the table contradicts itself."""
    split: str | None = None
    preference: tuple[Any, ...] = ()
    """The image with the smallest preference is taken, of several images of a projection."""
    mirrored: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further facts that a manifest keeps: age, vendor, model, site."""


@dataclass(frozen=True)
class ImageEntry:
    """The image chosen for one projection of an exam."""

    projection: Projection
    image: str
    category: Category | None = None
    """The category in the rows of this image; None where they have none, or where categories are those of exams."""
    mirrored: bool = False
    """True where the data set stores the image mirrored: left and right are exchanged."""


@dataclass(frozen=True)
class PublicExam:
    """One exam of a public data set, as its tables describe it; no image has been looked for."""

    exam_id: str
    patient_id: str
    images: Mapping[Projection, ImageEntry]
    category: Category | None = None
    breast_categories: Mapping[str, Category] = field(default_factory=dict)
    """By ``"R"`` and ``"L"``; empty where the data set rates whole exams."""
    split: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    unlabelled: str | None = None
    """``no-density`` or ``contradicting-density`` where there is no category."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        values: dict[str, Any] = {
            "exam_id": self.exam_id,
            "patient_id": self.patient_id,
            "projections": [projection.value for projection in self.images],
            **self._categories(DENSITY),
            "split": self.split,
            "images": {projection.value: entry.image for projection, entry in self.images.items()},
            "facts": dict(self.facts),
        }
        tissue = self._categories(TISSUE)
        if any(tissue.values()):
            values |= {**tissue, "mirrored": any(entry.mirrored for entry in self.images.values())}
        return values

    def _categories(self, scale: Scale) -> dict[str, Category | None]:
        """The categories of a scale: of the exam, the right and the left breast."""
        breasts = self.breast_categories
        places = {"": self.category, "_right": breasts.get("R"), "_left": breasts.get("L")}
        return {f"{scale.name}{place}": each if of_scale(each, scale) else None for place, each in places.items()}


def of_scale(category: Category | None, scale: Scale) -> bool:
    """True when a category is one of the scale's; D of one scale equals D of the other as text."""
    return category is not None and category.scale == scale


@dataclass(frozen=True)
class Exclusion:
    """A reason why images, rows or exams are left out, or a rule that decided, with its count."""

    code: str
    """Stable name; ``docs/public-data.md`` explains each."""
    text: str
    count: int
    unit: str
    """``images``, ``rows``, ``exams``, ``files`` or ``tables``."""


class Tally:
    """Counts, made while a table is read, of what is left out and of how often a rule decides."""

    def __init__(self) -> None:
        self._left_out: Counter[tuple[str, str, str]] = Counter()
        self._notes: Counter[tuple[str, str, str]] = Counter()

    def leave_out(self, code: str, text: str, count: int = 1, unit: str = "images") -> None:
        """Count something that is left out for this reason."""
        self._left_out[code, text, unit] += count

    def note(self, code: str, text: str, count: int = 1, unit: str = "rows") -> None:
        """Count a use of a rule that leaves nothing out."""
        self._notes[code, text, unit] += count

    @property
    def left_out(self) -> tuple[Exclusion, ...]:
        """Everything left out, in order of code and text."""
        return _exclusions(self._left_out)

    @property
    def notes(self) -> tuple[Exclusion, ...]:
        """Every rule that decided, in order of code and text."""
        return _exclusions(self._notes)


def _exclusions(counts: Counter[tuple[str, str, str]]) -> tuple[Exclusion, ...]:
    return tuple(Exclusion(code, text, count, unit) for (code, text, unit), count in sorted(counts.items()) if count)


@dataclass(frozen=True)
class PublicData:
    """The exams of a public data set, and what was left out of its tables."""

    dataset: str
    tables: tuple[Path, ...]
    exams: tuple[PublicExam, ...]
    left_out: tuple[Exclusion, ...]
    notes: tuple[Exclusion, ...]
    """How often a rule decided; these leave nothing out."""


_Views = Mapping[Projection, Mapping[str, list[ImageRow]]]
"""The images of an exam by projection and name, each with its rows."""


def assemble(
    dataset: str,
    tables: Iterable[Path],
    rows: Iterable[ImageRow],
    tally: Tally,
    *,
    per_breast: bool = True,
    choice: str = "the first by name",
) -> PublicData:
    """Make exams of rows.

    Parameters
    ----------
    tally
        Holds what the adapter has left out already.
    per_breast
        The categories are those of breasts; otherwise those of whole exams.
    choice
        In words, how one of several images of a projection is chosen.

    Raises
    ------
    TableError
        No row describes a CC or MLO image.
    """
    images: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        images[row.image].append(row)
    repeated = sum(len(image_rows) - 1 for image_rows in images.values())
    tally.note("rows-merged", "an earlier row is of the same image; they count as one", repeated)
    exams: dict[str, dict[Projection, dict[str, list[ImageRow]]]] = defaultdict(lambda: defaultdict(dict))
    for image, image_rows in images.items():
        if (projection := _projection(image_rows, tally)) is not None:
            exams[image_rows[0].exam_id][projection][image] = image_rows
    described = {row.exam_id for image_rows in images.values() for row in image_rows}
    tally.leave_out("no-image", "no image of CC or MLO", len(described - set(exams)), "exams")
    sources = tuple(tables)
    if not exams:
        raise TableError(f"{sources[0]} describes no image of CC or MLO; is it the table of {dataset}?")
    made = [
        _exam(exam_id, exams[exam_id], tally, per_breast, choice)
        for exam_id in sorted(exams)
        if _one_patient(exams[exam_id], tally)
    ]
    return PublicData(dataset, sources, tuple(made), tally.left_out, tally.notes)


def _projection(rows: list[ImageRow], tally: Tally) -> Projection | None:
    """The projection of an image, or None with the reason counted."""
    first = rows[0]
    view = first.view.strip().upper()
    if len({(row.exam_id, row.laterality, row.view.strip().upper()) for row in rows}) > 1:
        tally.leave_out("contradicting-rows", "the rows of the image differ in exam, breast or view")
    elif view not in VIEWS:
        tally.leave_out("other-view", f"view {view} is not CC or MLO" if view else "the view is not given")
    elif first.laterality is None:
        tally.leave_out("no-laterality", "which breast it is, is not given")
    else:
        return Projection(f"{view}_{first.laterality}")
    return None


def _rows_of(views: _Views) -> list[ImageRow]:
    return [row for images in views.values() for rows in images.values() for row in rows]


def _one_patient(views: _Views, tally: Tally) -> bool:
    """True when all rows of an exam name the same patient; otherwise the reason is counted."""
    if len({row.patient_id for row in _rows_of(views)}) == 1:
        return True
    text = "the rows of the exam name different patients"
    tally.leave_out("two-patients", text, 1, "exams")
    tally.leave_out("two-patients", text, sum(map(len, views.values())))
    return False


def _exam(exam_id: str, views: _Views, tally: Tally, per_breast: bool, choice: str) -> PublicExam:
    rows = _rows_of(views)
    split = _split(rows, tally)
    entries = {}
    for projection in PROJECTIONS:
        if projection in views:
            entries[projection] = _choose(projection, views[projection], split, per_breast)
            text = f"the exam has another image of this projection; taken is {choice}"
            tally.leave_out("second-image", text, len(views[projection]) - 1)
    rated: dict[str, set[Category]] = defaultdict(set)
    for row in rows:
        rated[row.laterality or "" if per_breast else ""] |= row.categories
    contradiction = any(len(categories) > 1 for categories in rated.values())
    breasts = {breast: next(iter(categories)) for breast, categories in rated.items() if len(categories) == 1}
    if not contradiction and len(set(breasts.values())) > 1:
        tally.note("breasts-differ", "the breasts differ in density; the denser is the exam's", 1, "exams")
    category = None if contradiction else max(breasts.values(), key=lambda each: each.index, default=None)
    return PublicExam(
        exam_id=exam_id,
        patient_id=rows[0].patient_id,
        images=entries,
        category=category,
        breast_categories=breasts if per_breast else {},
        split=split,
        facts=_facts(rows),
        unlabelled=CONTRADICTING_DENSITY if contradiction else None if category else NO_DENSITY,
    )


def _choose(
    projection: Projection, images: Mapping[str, list[ImageRow]], split: str | None, per_breast: bool
) -> ImageEntry:
    """Choose one image of a projection: of the exam's own split, then by preference, then by name."""

    def rank(image: str) -> tuple[Any, ...]:
        row = images[image][0]
        return row.split != split, row.preference, _natural(image)

    image = min(images, key=rank)
    categories = {category for row in images[image] for category in row.categories} if per_breast else set()
    category = categories.pop() if len(categories) == 1 else None
    return ImageEntry(projection, image, category, images[image][0].mirrored)


def _split(rows: list[ImageRow], tally: Tally) -> str | None:
    """The split of an exam; if rows differ, the later of train, validation, test: no test exam is trained on."""
    splits = {row.split for row in rows if row.split is not None}
    if len(splits) > 1:
        text = f"rows are in {' and '.join(sorted(splits))}; the later is taken for the whole exam"
        tally.note("split-differs", text, 1, "exams")
    return max(splits, key=SPLITS.index, default=None)


def _facts(rows: list[ImageRow]) -> dict[str, str]:
    """Facts of the first image by name; the next images fill what it leaves blank."""
    facts: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row.image):
        for name, value in row.facts.items():
            if value:
                facts.setdefault(name, value)
    return facts


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key in which 9 comes before 10.

    >>> sorted(["10", "9", "a"], key=_natural)
    ['9', '10', 'a']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def without_unlabelled(data: PublicData) -> PublicData:
    """Leave out exams without a category, and count them by site."""
    rated_sites = {exam.facts.get("site", "") for exam in data.exams if exam.category is not None}
    tally = Tally()
    for exam in data.exams:
        if exam.unlabelled is None:
            continue
        site = exam.facts.get("site", "")
        text = "no density category is given"
        if exam.unlabelled == CONTRADICTING_DENSITY:
            text = "rows of one breast contradict each other in density"
        elif site and site not in rated_sites:
            text += f" for any exam of site {site}: leaving blanks out leaves out the whole site"
        elif site:
            text += f" (site {site})"
        tally.leave_out(exam.unlabelled, text, 1, "exams")
        tally.leave_out(exam.unlabelled, text, len(exam.images))
    kept = tuple(exam for exam in data.exams if exam.unlabelled is None)
    return replace(data, exams=kept, left_out=(*data.left_out, *tally.left_out))
