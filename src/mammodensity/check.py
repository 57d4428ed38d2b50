"""Look at a data set before any hour is spent on it: what is there, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from mammodensity.errors import DicomError, ImageError, LayoutError
from mammodensity.ingest import DataSet, ImageRecord, find_images, read_image
from mammodensity.ingest.archive import LAYOUT, choose, data_of, is_archive, survey
from mammodensity.ingest.dicom import REASONS, WARNINGS, Reason, Verdict, looks_like_dicom, read_with_warnings
from mammodensity.ingest.layouts import is_picture_layout
from mammodensity.splits import patients_in_two_splits
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

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


@dataclass(frozen=True)
class CheckResult:
    """What ``check_data`` or ``check_path`` found."""

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
    files: tuple[Verdict, ...] = ()
    """The verdict on every file, with what is wrong with the whole data set laid to the files concerned."""

    @property
    def usable(self) -> bool:
        """True when there is an image and no problem is severe."""
        return self.images > 0 and not any(problem.severe for problem in self.problems)

    def to_list(self) -> list[dict[str, Any]]:
        """One entry a file, JSON values only."""
        return [_entry(verdict) for verdict in self.files]


def _entry(verdict: Verdict) -> dict[str, Any]:
    return {
        "path": str(verdict.path),
        "accepted": verdict.accepted,
        "reasons": [{"code": one.code, "text": one.text} for one in verdict.reasons],
        "exam_id": verdict.exam_id,
        "projection": verdict.projection.value if verdict.projection else None,
        "warnings": [{"code": one.code, "text": one.text} for one in verdict.warnings],
    }


def check_path(
    path: Path | str, *, read_pixels: bool = True, synthetic: bool = False, progress: Progress | None = None
) -> CheckResult:
    """Inspect whatever is under ``path``: a data set, a DICOM archive, or a folder of anything.

    The pixels of a DICOM file are read only when its header is accepted, and not at all without ``read_pixels``.

    Raises
    ------
    LayoutError
        Nothing is there.
    """
    root = Path(path)
    if root.exists() and not is_picture_layout(root) and is_archive(root):
        return _check_archive(root, read_pixels=read_pixels, synthetic=synthetic, progress=progress)
    try:
        return check_data(find_images(root), read_pixels=read_pixels, progress=progress)
    except LayoutError as error:
        if not root.exists():
            raise
        result = _check_archive(root, read_pixels=read_pixels, synthetic=synthetic, progress=progress)
        problem = Problem("unknown-layout", str(error), True)
        return replace(result, layout="no known layout", problems=(problem, *result.problems))


def _check_archive(root: Path, *, read_pixels: bool, synthetic: bool, progress: Progress | None) -> CheckResult:
    verdicts = survey(root, synthetic=synthetic, progress=progress)
    if read_pixels:
        verdicts = list(_with_pixels(verdicts, progress))
    verdicts = choose(verdicts)
    data = data_of(root, verdicts)
    problems = tuple(_structure_problems(data))
    return CheckResult(
        root=root,
        layout=LAYOUT,
        images=len(data.records),
        exams=len({record.exam_id for record in data.records}),
        patients=len({record.patient_id for record in data.records}),
        counts=_counts(data),
        problems=problems,
        ignored=len(data.ignored),
        files=_with_problems(verdicts, problems),
    )


def _with_pixels(verdicts: list[Verdict], progress: Progress | None) -> Iterator[Verdict]:
    """Each verdict after a look at the pixels, where the header was accepted."""

    def look(verdict: Verdict) -> tuple[Verdict, str]:
        if not verdict.accepted:
            return verdict, ""
        try:
            if looks_like_dicom(verdict.path):
                synthetic = "synthetic-2d" in verdict.marks
                mammogram, warnings = read_with_warnings(verdict.path, synthetic=synthetic)
                verdict = replace(verdict, warnings=warnings)
            else:
                mammogram = read_image(verdict.path, verdict.projection)
        except ImageError as error:
            code = error.code if looks_like_dicom(verdict.path) else f"{error.code}-image"
            return replace(verdict, reasons=(Reason(code, str(error)),)), ""
        return verdict, _digest(mammogram.pixels)

    first_with: dict[str, Path] = {}
    for done, (verdict, digest) in enumerate(_in_chunks(look, verdicts), start=1):
        if progress:
            progress(done, len(verdicts))
        first = first_with.setdefault(digest, verdict.path) if digest else verdict.path
        if first is not verdict.path:
            told = Reason("duplicate-content", f"{WARNINGS['duplicate-content']}: {first}")
            yield replace(verdict, warnings=(*verdict.warnings, told))
        else:
            yield verdict


def _with_problems(verdicts: Iterable[Verdict], problems: Iterable[Problem]) -> tuple[Verdict, ...]:
    """Lay problems of the data set to the files they are about: severe ones as reasons, others as warnings."""
    reasons: dict[Path, list[Reason]] = defaultdict(list)
    warnings: dict[Path, list[Reason]] = defaultdict(list)
    for problem in problems:
        where = reasons if problem.severe else warnings
        for path in (*problem.about, *([Path(problem.path)] if problem.path else [])):
            where[path].append(Reason(problem.code, problem.text))
    return tuple(
        replace(
            verdict,
            reasons=(*verdict.reasons, *reasons.get(verdict.path, ())),
            warnings=(*verdict.warnings, *warnings.get(verdict.path, ())),
        )
        for verdict in verdicts
    )


def check_data(data: DataSet, *, read_pixels: bool = True, progress: Progress | None = None) -> CheckResult:
    """Inspect a data set; every image is decoded unless ``read_pixels`` is False."""
    problems = [*_structure_problems(data)]
    if read_pixels:
        problems += _pixel_problems(data, progress)
    files = [
        *(Verdict(one.path, projection=one.projection, exam_id=one.exam_id) for one in data.records),
        *(Verdict(path, (Reason("not-dicom", f"{path}: {REASONS['not-dicom']}"),)) for path in data.ignored),
    ]
    return CheckResult(
        root=data.root,
        layout=data.layout,
        images=len(data.records),
        exams=len({record.exam_id for record in data.records}),
        patients=len({record.patient_id for record in data.records}),
        counts=_counts(data),
        problems=tuple(sorted(problems, key=lambda problem: not problem.severe)),
        ignored=len(data.ignored),
        files=_with_problems(files, problems),
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
            text = f"exam {exam_id} is labelled {' and '.join(sorted(found))}; an exam has one density category"
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
            code = error.code if isinstance(error, DicomError) else f"{error.code}-image"
            yield Problem(code, str(error), True, str(record.path))
            continue
        other = first_with.setdefault(digest, record)
        if other is not record:
            text = f"{record.path} has the same pixels as {other.path}; keep one"
            yield Problem("duplicate-content", text, True, str(record.path))


def _decode_all(data: DataSet) -> Iterator[tuple[ImageRecord, str, ImageError | None]]:
    """Each record with a digest of its pixels, or the reason why it cannot be read."""

    def decode(record: ImageRecord) -> tuple[ImageRecord, str, ImageError | None]:
        try:
            pixels = read_image(record.path, record.projection, synthetic=record.synthetic).pixels
        except ImageError as error:
            return record, "", error
        return record, _digest(pixels), None

    yield from _in_chunks(decode, data.records)


def _digest(pixels: NDArray[Any]) -> str:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _in_chunks(work: Callable[[_Given], _Made], given: Sequence[_Given]) -> Iterator[_Made]:
    """Work in threads, in order; chunks bound how much waits, whatever the size of the data set."""
    chunk = 64
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(given), chunk):
            yield from pool.map(work, given[start : start + chunk])
