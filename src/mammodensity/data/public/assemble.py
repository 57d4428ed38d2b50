"""What the tables of a public data set say: a row of an image, an exam, a reason why something is left out.

From the rows of a table to exams: one image a projection, a category an exam, and a count of all that is left out.

The rules are the same for every data set, and each says how often it was used:

- an image is kept if its breast is known and its view is CC or MLO;
- of several images of one projection the first by the data set's own preference is taken, then by name;
- an exam whose rows name different patients is left out;
- the category of a breast is what all rows of its images say; where they contradict each other it has none;
- the category of an exam is that of the denser breast, as a BI-RADS report states one composition for both; so it is of
  the tissue categories F, G and D.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import SPLITS
from mammodensity.errors import TableError
from mammodensity.terms import PROJECTIONS, DensityCategory, Projection, TissueCategory

NO_DENSITY = "no-density"
CONTRADICTING_DENSITY = "contradicting-density"


@dataclass(frozen=True)
class ImageRow:
    """What one row of a table says of one image."""

    exam_id: str
    patient_id: str
    image: str
    """The data set's own name of the image: an identifier, or a path in its archive."""
    laterality: str | None
    """``"R"``, ``"L"``; None where nothing says."""
    view: str
    """As the table has it."""
    densities: frozenset[DensityCategory] = frozenset()
    """The category; empty where nobody rated it, more than one where the table contradicts itself."""
    tissue: TissueCategory | None = None
    split: str | None = None
    preference: tuple[Any, ...] = ()
    """Of several images of a projection the one with the smallest is taken."""
    mirrored: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    """What a manifest keeps: age, vendor, model, site."""


@dataclass(frozen=True)
class ImageEntry:
    """The image chosen for one projection of an exam."""

    projection: Projection
    image: str
    density: DensityCategory | None = None
    """What the rows of this image say; None where they say nothing, or where categories are given by exam."""
    tissue: TissueCategory | None = None
    mirrored: bool = False
    """True where the data set stores the image as in a mirror: left and right of the picture are exchanged."""


@dataclass(frozen=True)
class PublicExam:
    """One exam of a public data set, as its tables describe it; no image has been looked for."""

    exam_id: str
    patient_id: str
    images: Mapping[Projection, ImageEntry]
    density: DensityCategory | None = None
    density_of_breast: Mapping[str, DensityCategory] = field(default_factory=dict)
    """By ``"R"`` and ``"L"``; empty where the data set rates whole exams."""
    tissue: TissueCategory | None = None
    """The same of a data set whose categories are F, G and D."""
    tissue_of_breast: Mapping[str, TissueCategory] = field(default_factory=dict)
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
            "density": self.density,
            "density_right": self.density_of_breast.get("R"),
            "density_left": self.density_of_breast.get("L"),
            "split": self.split,
            "images": {projection.value: entry.image for projection, entry in self.images.items()},
            "facts": dict(self.facts),
        }
        if self.tissue_of_breast:
            values["tissue"] = self.tissue
            values["tissue_right"] = self.tissue_of_breast.get("R")
            values["tissue_left"] = self.tissue_of_breast.get("L")
            values["mirrored"] = any(entry.mirrored for entry in self.images.values())
        return values


@dataclass(frozen=True)
class Exclusion:
    """Why so many images, rows or exams are left out, or what a rule was used for."""

    code: str
    """Stable name; ``docs/public-data.md`` explains each."""
    text: str
    count: int
    unit: str
    """``images``, ``rows`` or ``exams``."""


class Tally:
    """Counts reasons while a table is read."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, code: str, text: str, count: int = 1, unit: str = "images") -> None:
        """Count so many more for this reason; 0 counts nothing."""
        if count:
            self._counts[code, text, unit] = self._counts.get((code, text, unit), 0) + count

    def reasons(self) -> tuple[Exclusion, ...]:
        """What was counted, in order of code and text."""
        return tuple(Exclusion(code, text, n, unit) for (code, text, unit), n in sorted(self._counts.items()))


@dataclass(frozen=True)
class PublicData:
    """The exams of a public data set, and what its tables have that is no part of them."""

    dataset: str
    tables: tuple[Path, ...]
    exams: tuple[PublicExam, ...]
    left_out: tuple[Exclusion, ...]
    notes: tuple[Exclusion, ...]
    """How often a rule decided something; nothing is left out by these."""


VIEWS = ("CC", "MLO")
_Views = Mapping[Projection, Mapping[str, list[ImageRow]]]
"""The images of an exam by projection and name, each with its rows."""


def assemble(
    dataset: str,
    tables: Iterable[Path],
    rows: Iterable[ImageRow],
    left_out: Tally,
    notes: Tally | None = None,
    *,
    per_breast: bool = True,
    choice: str = "the first by name",
) -> PublicData:
    """Make exams of rows; ``left_out`` holds what the adapter itself did not turn into rows.

    Parameters
    ----------
    per_breast
        The categories are those of a breast; otherwise those of the whole exam.
    choice
        How one of several images of a projection is taken, in words.

    Raises
    ------
    TableError
        No row describes an image of CC or MLO.
    """
    rules = _Rules(left_out, notes or Tally(), per_breast, choice)
    images = _by_image(rows, rules.notes)
    exams: dict[str, dict[Projection, dict[str, list[ImageRow]]]] = defaultdict(lambda: defaultdict(dict))
    described = {row.exam_id for about in images.values() for row in about}
    for image, about in images.items():
        projection = _projection(about, left_out)
        if projection is not None:
            exams[about[0].exam_id][projection][image] = about
    left_out.add("no-image", "no image of CC or MLO", len(described - set(exams)), "exams")
    sources = tuple(tables)
    if not exams:
        raise TableError(f"{sources[0]} describes no image of CC or MLO; is it the table of {dataset}?")
    of_one_patient = [exam_id for exam_id in sorted(exams) if _one_patient(exams[exam_id], left_out)]
    made = tuple(_exam(exam_id, exams[exam_id], rules) for exam_id in of_one_patient)
    return PublicData(dataset, sources, made, left_out.reasons(), rules.notes.reasons())


@dataclass(frozen=True)
class _Rules:
    """What all exams of a data set are made by, and where the use of a rule is counted."""

    left_out: Tally
    notes: Tally
    per_breast: bool
    choice: str


def _by_image(rows: Iterable[ImageRow], notes: Tally) -> dict[str, list[ImageRow]]:
    images: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        images[row.image].append(row)
    repeated = sum(len(about) - 1 for about in images.values())
    notes.add("rows-merged", "an earlier row is of the same image; they count as one", repeated, "rows")
    return images


def _projection(about: list[ImageRow], left_out: Tally) -> Projection | None:
    """Where an image belongs, or None with the reason counted."""
    first = about[0]
    view = first.view.strip().upper()
    if len({(row.exam_id, row.laterality, row.view.strip().upper()) for row in about}) > 1:
        left_out.add("contradicting-rows", "the rows of the image differ in exam, breast or view")
    elif view not in VIEWS:
        text = f"view {view} is not CC or MLO" if view else "the view is not given"
        left_out.add("other-view", text)
    elif first.laterality is None:
        left_out.add("no-laterality", "which breast it is, is not given")
    else:
        return Projection(f"{view}_{first.laterality}")
    return None


def _rows_of(views: _Views) -> list[ImageRow]:
    return [row for images in views.values() for about in images.values() for row in about]


def _one_patient(views: _Views, left_out: Tally) -> bool:
    """Whether all rows of an exam name the same patient; otherwise the reason is counted."""
    if len({row.patient_id for row in _rows_of(views)}) == 1:
        return True
    text = "the rows of the exam name different patients"
    left_out.add("two-patients", text, 1, "exams")
    left_out.add("two-patients", text, sum(map(len, views.values())))
    return False


def _exam(exam_id: str, views: _Views, rules: _Rules) -> PublicExam:
    rows = _rows_of(views)
    split = _split(rows, rules.notes)
    entries = {}
    for projection in PROJECTIONS:
        if projection in views:
            entries[projection] = _choose(projection, views[projection], split, rules.per_breast)
            text = f"the exam has another image of this projection; taken is {rules.choice}"
            rules.left_out.add("second-image", text, len(views[projection]) - 1)
    said: dict[str, set[DensityCategory]] = defaultdict(set)
    for row in rows:
        said[row.laterality or "" if rules.per_breast else "exam"] |= row.densities
    contradiction = any(len(found) > 1 for found in said.values())
    single = {breast: next(iter(found)) for breast, found in said.items() if len(found) == 1}
    density = None if contradiction or not single else max(single.values())
    tissue = {row.laterality or "": row.tissue for row in rows if row.tissue is not None}
    if (len(set(single.values())) > 1 and not contradiction) or len(set(tissue.values())) > 1:
        rules.notes.add("breasts-differ", "the breasts differ in density; the denser is the exam's", 1, "exams")
    return PublicExam(
        exam_id=exam_id,
        patient_id=rows[0].patient_id,
        images=entries,
        density=density,
        density_of_breast=single if rules.per_breast else {},
        tissue=max(tissue.values(), key=lambda one: one.index) if tissue else None,
        tissue_of_breast=tissue,
        split=split,
        facts=_facts(rows),
        unlabelled=CONTRADICTING_DENSITY if contradiction else None if density else NO_DENSITY,
    )


def _choose(
    projection: Projection, images: Mapping[str, list[ImageRow]], split: str | None, per_breast: bool
) -> ImageEntry:
    """One of the images of a projection: of the exam's own split, then by preference, then by name."""

    def rank(image: str) -> tuple[Any, ...]:
        row = images[image][0]
        return row.split != split, row.preference, _natural(image)

    image = min(images, key=rank)
    rows = images[image]
    densities = frozenset().union(*(row.densities for row in rows)) if per_breast else frozenset()
    density = next(iter(densities)) if len(densities) == 1 else None
    return ImageEntry(projection, image, density, rows[0].tissue, rows[0].mirrored)


def _split(rows: list[ImageRow], notes: Tally) -> str | None:
    """The split of an exam. Where rows differ, the later of train, validation, test: nothing tested was trained on."""
    found = {row.split for row in rows if row.split is not None}
    if len(found) > 1:
        notes.add(
            "split-differs",
            f"rows are in {' and '.join(sorted(found))}; the later is taken for the whole exam",
            1,
            "exams",
        )
    return max(found, key=SPLITS.index) if found else None


def _facts(rows: list[ImageRow]) -> dict[str, str]:
    """What the first image by name says; what it leaves blank, the next one does."""
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
    """Leave out exams that have neither a density nor a tissue category, and say of which site they are."""
    rated_sites = {exam.facts.get("site", "") for exam in data.exams if exam.density is not None}
    tally = Tally()
    kept = []
    for exam in data.exams:
        if exam.unlabelled is None or exam.tissue_of_breast:
            kept.append(exam)
            continue
        site = exam.facts.get("site", "")
        text = "no density category is given"
        if exam.unlabelled == CONTRADICTING_DENSITY:
            text = "rows of one breast contradict each other in density"
        elif site and site not in rated_sites:
            text += f" for any exam of site {site}: leaving blanks out leaves out the whole site"
        elif site:
            text += f" (site {site})"
        tally.add(exam.unlabelled, text, 1, "exams")
        tally.add(exam.unlabelled, text, len(exam.images))
    return PublicData(data.dataset, data.tables, tuple(kept), (*data.left_out, *tally.reasons()), data.notes)
