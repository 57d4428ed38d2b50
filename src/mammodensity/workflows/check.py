"""Check data before any hour is spent on them: what is there, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

from mammodensity.data.archive import choose, data_of, is_archive, survey
from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.data.dicom.file_checks import REASONS, WARNINGS, FileCheck, Reason
from mammodensity.data.dicom.header_parsing import looks_like_dicom
from mammodensity.data.dicom.read import read_with_warnings
from mammodensity.data.find import find_images, is_picture_layout
from mammodensity.data.images import read_image
from mammodensity.data.problems import PROBLEMS, Problem, counts_of, structure_problems
from mammodensity.errors import ImageError, LayoutError
from mammodensity.exam import Mammogram
from mammodensity.terms import Scale
from mammodensity.workers import Progress

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Finding:
    """Everything with one code: problems of the data set, or files that are refused or have a warning."""

    kind: Literal["error", "refused", "warning", "note"]
    code: str
    texts: tuple[str, ...]
    """One for each problem or file."""

    @property
    def meaning(self) -> str:
        """Meaning of the code, in a sentence."""
        meanings = {**PROBLEMS, **WARNINGS} if self.kind == "warning" else {**REASONS, **PROBLEMS}
        text = meanings.get(self.code, self.code)
        return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


@dataclass(frozen=True)
class CheckResult:
    """Content of a data set or an archive, and its problems."""

    root: Path
    layout: str
    """Its arrangement, in words for the user."""
    images: int
    exams: int
    patients: int
    counts: dict[str, dict[str, dict[str, int]]]
    """Images by projection, split and category."""
    scale: Scale
    """The scale of their categories."""
    problems: tuple[Problem, ...]
    """Problems of the data set, the severe ones first."""
    ignored: int
    """Number of files that are no images."""
    files: tuple[FileCheck, ...] = ()
    """The verdict on every file, with the problems of the data set that concern it."""
    named: bool = False
    """True for files that were named one by one: each of them is wanted."""

    @property
    def usable(self) -> bool:
        """True when there is an image, no problem is severe, and no file that was named is refused."""
        if self.named and not all(file.accepted for file in self.files):
            return False
        return self.images > 0 and not any(problem.severe for problem in self.problems)

    @property
    def judged(self) -> tuple[FileCheck, ...]:
        """The files without those that are no images, unless they were named."""
        return tuple(
            file for file in self.files if self.named or "not-dicom" not in {reason.code for reason in file.reasons}
        )

    def findings(self) -> list[Finding]:
        """List what was found, code by code: errors, refused files, warnings and notes."""
        texts: dict[tuple[Any, str], list[str]] = defaultdict(list)
        for problem in self.problems:
            texts["error" if problem.severe else "note", problem.code].append(problem.text)
        said = {problem.text for problem in self.problems}
        for file in self.judged:
            for kind, reasons in (("refused", file.reasons), ("warning", file.warnings)):
                for reason in dict.fromkeys(reasons):
                    if reason.text not in said:
                        texts[kind, reason.code].append(reason.text)
        findings = [Finding(kind, code, tuple(lines)) for (kind, code), lines in texts.items()]
        return sorted(findings, key=lambda finding: (_KINDS.index(finding.kind), -len(finding.texts)))

    def to_list(self) -> list[dict[str, Any]]:
        """One entry a file, JSON values only."""
        return [_entry(verdict) for verdict in self.files]


_KINDS = ("error", "refused", "warning", "note")


def _entry(verdict: FileCheck) -> dict[str, Any]:
    return {
        "path": str(verdict.path),
        "accepted": verdict.accepted,
        "reasons": [{"code": reason.code, "text": reason.text} for reason in verdict.reasons],
        "exam_id": verdict.exam_id,
        "projection": verdict.projection.value if verdict.projection else None,
        "warnings": [{"code": warning.code, "text": warning.text} for warning in verdict.warnings],
    }


def check(
    data: Path | str | Iterable[Path | str],
    *,
    read_pixels: bool = True,
    synthetic: bool = False,
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Check data sets and archives, each by itself, and the files among the paths together as one archive.

    Parameters
    ----------
    data
        A path, or several: data sets, DICOM archives, folders or files of any kind.
    read_pixels
        Decode every image whose header is accepted; False judges by headers and names alone.
    synthetic
        Accept 2-D images computed from tomosynthesis.
    progress
        Called with how many files are done and how many there are, for headers and again for pixels.

    Raises
    ------
    LayoutError
        A path is not there.
    """
    paths = list(dict.fromkeys(map(Path, [data] if isinstance(data, (str, Path)) else data)))
    for path in paths:
        if not path.exists():
            raise LayoutError(f"{path} not found; expected a data set, a DICOM archive or a file")
    files = [path for path in paths if not path.is_dir() and path.suffix.lower() != ".csv"]
    if len(files) < 2:
        files = []  # one file says by itself what it is
    results = [
        check_path(path, read_pixels=read_pixels, synthetic=synthetic, progress=progress)
        for path in paths
        if path not in files
    ]
    if files:
        root = Path(os.path.commonpath([path.absolute().parent for path in files]))
        together = _check_archive(root, files, read_pixels=read_pixels, synthetic=synthetic, progress=progress)
        results.append(replace(together, named=True))
    return results


def check_path(
    path: Path | str, *, read_pixels: bool = True, synthetic: bool = False, progress: Progress | None = None
) -> CheckResult:
    """Check whatever is under one path: a data set, a DICOM archive, or a folder of anything.

    Raises
    ------
    LayoutError
        Nothing is there.
    """
    root = Path(path)
    if root.exists() and not is_picture_layout(root) and is_archive(root):
        return _check_archive(root, [root], read_pixels=read_pixels, synthetic=synthetic, progress=progress)
    try:
        return check_data(find_images(root), read_pixels=read_pixels, find_breast=True, progress=progress)
    except LayoutError as error:
        if not root.exists():
            raise
        result = _check_archive(root, [root], read_pixels=read_pixels, synthetic=synthetic, progress=progress)
        problem = Problem("unknown-layout", str(error))
        return replace(result, layout="no known layout", problems=(problem, *result.problems))


def check_data(
    data: DataSet, *, read_pixels: bool = True, find_breast: bool = False, progress: Progress | None = None
) -> CheckResult:
    """Check a data set; every image is decoded unless ``read_pixels`` is False.

    ``find_breast`` also refuses images without a breast and inverted ones, as ``prepare`` does.
    """
    problems = [*structure_problems(data)]
    if read_pixels:
        problems += _pixel_problems(data, find_breast, progress)
    files = [
        *(FileCheck(record.path, projection=record.projection, exam_id=record.exam_id) for record in data.records),
        *(FileCheck(path, (Reason("not-dicom", f"{path}: {REASONS['not-dicom']}"),)) for path in data.ignored),
    ]
    return _result(data, sorted(problems, key=lambda problem: not problem.severe), files)


def _check_archive(
    root: Path, paths: Sequence[Path], *, read_pixels: bool, synthetic: bool, progress: Progress | None
) -> CheckResult:
    verdicts = survey(paths, synthetic=synthetic, progress=progress)
    if read_pixels:
        verdicts = list(_with_pixels(verdicts, progress))
    verdicts = choose(verdicts)
    data = data_of(root, verdicts)
    return _result(data, list(structure_problems(data)), verdicts)


def _result(data: DataSet, problems: Sequence[Problem], files: Iterable[FileCheck]) -> CheckResult:
    return CheckResult(
        root=data.root,
        layout=data.layout,
        images=len(data.records),
        exams=len({record.exam_id for record in data.records}),
        patients=len({record.patient_id for record in data.records}),
        counts=counts_of(data),
        scale=data.scale,
        problems=tuple(problems),
        ignored=len(data.ignored),
        files=_with_problems(files, problems),
    )


def _with_pixels(verdicts: list[FileCheck], progress: Progress | None) -> Iterator[FileCheck]:
    """Each verdict after a look at the pixels, where the header was accepted."""

    def look(verdict: FileCheck) -> tuple[FileCheck, str]:
        if not verdict.accepted:
            return verdict, ""
        try:
            if verdict.is_dicom:
                mammogram, warnings = read_with_warnings(verdict.path, check=verdict)
                verdict = replace(verdict, warnings=warnings)
            else:
                mammogram = read_image(verdict.path, verdict.projection)
            notes = _notes(mammogram)
        except ImageError as error:
            code = error.code if verdict.is_dicom else f"{error.code}-image"
            return replace(verdict, reasons=(Reason(code, str(error)),)), ""
        return replace(verdict, warnings=(*verdict.warnings, *notes)), _digest(mammogram.pixels)

    first_with: dict[str, Path] = {}
    for done, (verdict, digest) in enumerate(_in_chunks(look, verdicts), start=1):
        if progress:
            progress(done, len(verdicts))
        first = first_with.setdefault(digest, verdict.path) if digest else verdict.path
        if first is not verdict.path:
            reason = Reason("duplicate-content", f"{WARNINGS['duplicate-content']}: {first}")
            yield replace(verdict, warnings=(*verdict.warnings, reason))
        else:
            yield verdict


def _notes(mammogram: Mammogram) -> tuple[Reason, ...]:
    """Notes on a picture that is stored flipped (the gatekeeper says it of DICOM files), or may be of another view.

    Raises
    ------
    ImageError
        ``prepare`` refuses it: noise, no breast, no mammogram, inverted grey values.
    """
    from mammodensity.anatomy.field import stored_flipped  # torch: a look at headers must not wait for it
    from mammodensity.anatomy.outline import find_outline
    from mammodensity.anatomy.wedge import view_flags

    outline, projection = find_outline(mammogram), mammogram.projection
    notes = [
        Reason(flag.code, f"{mammogram.path}: {flag.text}")
        for flag in view_flags(projection, outline.wedge, outline.dome)
    ]
    if projection is not None and not mammogram.facts and stored_flipped(projection, outline.chest_side):
        where = f"{mammogram.path}: {projection} with the chest wall on the {outline.chest_side}"
        notes.append(Reason("stored-flipped", f"{where}: stored flipped; `prepare` turns it back"))
    return tuple(notes)


def _with_problems(verdicts: Iterable[FileCheck], problems: Iterable[Problem]) -> tuple[FileCheck, ...]:
    """Lay problems of the data set to the files they are about: severe ones as reasons, others as warnings."""
    reasons: dict[Path, list[Reason]] = defaultdict(list)
    warnings: dict[Path, list[Reason]] = defaultdict(list)
    for problem in problems:
        where = reasons if problem.severe else warnings
        for path in problem.about:
            where[path].append(Reason(problem.code, problem.text))
    return tuple(
        replace(
            verdict,
            header=None,
            reasons=(*verdict.reasons, *reasons.get(verdict.path, ())),
            warnings=(*verdict.warnings, *warnings.get(verdict.path, ())),
        )
        for verdict in verdicts
    )


def _pixel_problems(data: DataSet, find_breast: bool, progress: Progress | None) -> Iterator[Problem]:
    first_with: dict[str, ImageRecord] = {}
    for done, (record, digest, finding) in enumerate(_decode_all(data, find_breast), start=1):
        if progress:
            progress(done, len(data.records))
        if isinstance(finding, ImageError):
            is_dicom = looks_like_dicom(record.path)
            code = finding.code if is_dicom else f"{finding.code}-image"
            yield Problem(code, str(finding), (record.path,))
            continue
        for note in finding:
            yield Problem(note.code, note.text, (record.path,))
        other = first_with.setdefault(digest, record)
        if other is not record:
            text = f"{record.path} has the same pixels as {other.path}; keep one"
            yield Problem("duplicate-content", text, (record.path,))


def _decode_all(data: DataSet, find_breast: bool) -> Iterator[tuple[ImageRecord, str, ImageError | tuple[Reason, ...]]]:
    """Each record with a digest of its pixels and notes, or with the reason why it cannot be read."""

    def decode(record: ImageRecord) -> tuple[ImageRecord, str, ImageError | tuple[Reason, ...]]:
        try:
            mammogram = read_image(record.path, record.projection, check=record.check)
            notes = _notes(mammogram) if find_breast else ()
        except ImageError as error:
            return record, "", error
        return record, _digest(mammogram.pixels), notes

    yield from _in_chunks(decode, data.records)


def _digest(pixels: NDArray[Any]) -> str:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _in_chunks(work: Callable[[Item], Outcome], items: Sequence[Item]) -> Iterator[Outcome]:
    """Work in threads, in order; chunks bound how much waits, whatever the size of the data set."""
    chunk = 64
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), chunk):
            yield from pool.map(work, items[start : start + chunk])
