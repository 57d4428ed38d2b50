"""DICOM archives: files in folders of any depth and of any name, to exams by study; pictures among them by name.

The exam's name is a short hash of the Study Instance UID, so that no table or report shows what a header or a folder
says of a patient. To name exams yourself, write a manifest.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.data.dicom.file_checks import REASONS, WARNINGS, FileCheck, Reason
from mammodensity.data.dicom.gatekeeper import judge_file, read_header
from mammodensity.data.dicom.header_parsing import looks_like_dicom
from mammodensity.data.dicom.read import pixel_digest
from mammodensity.data.picture_files import PICTURE_SUFFIXES, exam_in_name, projection_in_name
from mammodensity.errors import DicomError
from mammodensity.terms import Projection
from mammodensity.workers import Progress

LAYOUT = "DICOM archive"
MOST_HEADERS = 4000
"""Headers that a survey keeps (about 50 kB each); those of more files are parsed again when their pixels are read."""
_CHUNK = 512
_THREADS = min(8, (os.cpu_count() or 1) + 2)  # reading headers waits for the disk


def is_archive(path: Path) -> bool:
    """True for a DICOM file, or a folder that holds one at any depth, whatever the names."""
    return any(map(looks_like_dicom, files_under(path)))


def files_under(path: Path, unreadable: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Walk through every file, sorted folder by folder; without hidden ones, and without following links to folders.

    ``unreadable`` is called for each folder that cannot be listed.
    """
    if not path.is_dir():
        yield path
        return
    for folder, inner, files in os.walk(path, onerror=unreadable):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def survey(paths: Iterable[Path], *, synthetic: bool = False, progress: Progress | None = None) -> list[FileCheck]:
    """Judge every file under ``paths`` by header and name, in the order of ``files_under``, without choosing any.

    Folders that cannot be listed come first, refused. The first ``MOST_HEADERS`` accepted files keep their headers.
    """
    closed: list[OSError] = []
    files = [file for path in paths for file in files_under(path, closed.append)]
    verdicts = [_closed_folder(error) for error in closed]

    def look(file: Path) -> FileCheck:
        verdict = judge_file(file, synthetic=synthetic)
        if verdict.is_dicom:
            return verdict
        if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file():  # opening a pipe would wait for its writer
            return _judge_picture(file)
        return _judge_other(file)

    headers = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(files), _CHUNK):
            for verdict in pool.map(look, files[start : start + _CHUNK]):
                headers += verdict.header is not None
                verdicts.append(verdict if headers <= MOST_HEADERS else replace(verdict, header=None))
            if progress:
                progress(len(verdicts) - len(closed), len(files))
    return verdicts


def _closed_folder(error: OSError) -> FileCheck:
    folder = Path(error.filename)
    text = f"{folder}: the folder cannot be listed ({error.strerror}), what is in it is unknown; ask for permission"
    return FileCheck(folder, (Reason("unreadable-folder", text),))


def _judge_picture(file: Path) -> FileCheck:
    """Judge by name only; the exam is the folder and the rest of the name without the projection."""
    projection = projection_in_name(file.stem)
    if projection is None:
        text = f"{file}: its name does not tell the projection; put CC_R, L-MLO or the like into it"
        return FileCheck(file, (Reason("missing-view", text),))
    folder = file.absolute().parent.name
    exam = exam_in_name(file.stem)
    return FileCheck(file, projection=projection, exam_id=f"{folder}_{exam}" if exam else folder)


def _judge_other(file: Path) -> FileCheck:
    try:
        if not file.is_file():
            return FileCheck(file, (Reason("not-dicom", f"{file} is no ordinary file, or a link to nothing"),))
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        return FileCheck(file, (Reason("damaged", f"{file} cannot be read ({error.strerror or error})"),))
    if empty:
        return FileCheck(file, (Reason("damaged", f"{file} is empty; copy it again"),))
    return FileCheck(file, (Reason("not-dicom", f"{file}: {REASONS['not-dicom']}"),))


def choose(verdicts: Sequence[FileCheck]) -> list[FileCheck]:
    """Choose one accepted image for each projection of an exam, and mark the others.

    Exams that hold several patients are refused. Copies of the same image count once: the first file. The rule prefers
    acquired images to those computed from tomosynthesis, then implant displaced, then acquired last (a repeat replaces
    what it repeats), then most pixels, then the higher Instance Number, then the first in order.
    """
    result = _with_copies_marked(_without_joined_patients(verdicts))
    candidates: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, verdict in enumerate(result):
        if verdict.used and verdict.projection is not None and verdict.exam_id is not None:
            candidates[verdict.exam_id, verdict.projection].append(place)
    for (exam_id, projection), places in candidates.items():
        if len(places) < 2:
            continue
        best = max(places, key=lambda place: (result[place].rank, -place))
        chosen = f"{WARNINGS['chosen-of-several']} ({len(places)} {projection} images)"
        text = f"exam {exam_id} has {len(places)} {projection} images; by the rule {result[best].path} was chosen"
        for place in places:
            code = "chosen-of-several" if place == best else "other-image-chosen"
            result[place] = _marked(result[place], code, chosen if place == best else text)
    return result


def _without_joined_patients(verdicts: Sequence[FileCheck]) -> list[FileCheck]:
    """Refuse the images of an exam with several Patient IDs, or one ID of several issuers.

    A study has one patient (PS3.3 A.1.2). Two patients in it would get a common score, and nothing tells their images
    apart.
    """
    keys: dict[str | None, set[tuple[str, str]]] = defaultdict(set)
    for verdict in verdicts:
        if verdict.accepted and verdict.patient_key:
            keys[verdict.exam_id].add((verdict.patient_key, verdict.issuer_key))
    joined = {
        exam_id
        for exam_id, pairs in keys.items()
        if len({patient for patient, _ in pairs}) > 1 or len({issuer for _, issuer in pairs if issuer}) > 1
    }
    return [_of_joined_patients(verdict) if verdict.exam_id in joined else verdict for verdict in verdicts]


def _of_joined_patients(verdict: FileCheck) -> FileCheck:
    text = f"{verdict.path}: exam {verdict.exam_id} has images of several Patient IDs; give each its own study"
    return replace(verdict, reasons=(*verdict.reasons, Reason("several-patients", text)))


def _with_copies_marked(verdicts: Sequence[FileCheck]) -> list[FileCheck]:
    """Mark copies: the same SOP Instance UID, exam, projection and pixels. The same UID alone is not enough."""
    result = list(verdicts)
    bearers: dict[str, list[int]] = defaultdict(list)
    for place, verdict in enumerate(verdicts):
        if verdict.accepted and verdict.instance:
            bearers[verdict.instance].append(place)
    for places in bearers.values():
        if len(places) < 2:
            continue
        first: dict[tuple[str | None, str | None, str], int] = {}
        for place in places:
            verdict = verdicts[place]
            kept = first.setdefault((verdict.exam_id, verdict.projection, _content(verdict)), place)
            if kept != place:
                text = f"the same image as {verdicts[kept].path}; one is enough"
                result[place] = _marked(verdict, "duplicate", text)
        for place in first.values() if len(first) > 1 else ():
            result[place] = _marked(verdicts[place], "instance-reused", WARNINGS["instance-reused"])
    return result


def _content(verdict: FileCheck) -> str:
    """A digest of the pixels as stored; for a file that is suddenly gone its name, which is like no other."""
    try:
        return pixel_digest(verdict.header or read_header(verdict.path))
    except DicomError:
        return str(verdict.path)


def _marked(verdict: FileCheck, code: str, text: str) -> FileCheck:
    return replace(verdict, warnings=(*verdict.warnings, Reason(code, text)))


def data_of(root: Path, verdicts: Iterable[FileCheck]) -> DataSet:
    """Make a data set of the images that are used. Patients are named after the first of their exams."""
    verdicts = list(verdicts)
    used = [verdict for verdict in verdicts if verdict.used]
    alternatives = _alternatives(verdicts)
    patient_of: dict[tuple[str, str], str] = {}
    for verdict in used:
        if verdict.patient_key and verdict.exam_id:
            patient = verdict.patient_key, verdict.issuer_key
            patient_of[patient] = min(patient_of.get(patient, verdict.exam_id), verdict.exam_id)
    records = tuple(
        ImageRecord(
            verdict.exam_id,
            patient_of.get((verdict.patient_key, verdict.issuer_key), verdict.exam_id),
            verdict.projection,
            verdict.path,
            alternatives=alternatives.get((verdict.exam_id, verdict.projection), ()),
            check=verdict,
        )
        for verdict in used
        if verdict.exam_id is not None and verdict.projection is not None
    )
    refused = [verdict for verdict in verdicts if not verdict.accepted]
    return DataSet(
        root,
        LAYOUT,
        records,
        tuple(verdict.path for verdict in refused if verdict.reasons[0].code in ("not-dicom", "dicomdir")),
        tuple(verdict for verdict in refused if verdict.reasons[0].code not in ("not-dicom", "dicomdir")),
    )


def _alternatives(verdicts: Iterable[FileCheck]) -> dict[tuple[str, Projection], tuple[FileCheck, ...]]:
    """The usable files that were not chosen, by exam and projection, in the order in which ``choose`` prefers them."""
    unused: dict[tuple[str, Projection], list[FileCheck]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.accepted and verdict.unused_code and verdict.exam_id is not None and verdict.projection is not None:
            unused[verdict.exam_id, verdict.projection].append(verdict)
    return {  # equally good ones keep their order
        key: tuple(sorted(others, key=lambda verdict: verdict.rank, reverse=True)) for key, others in unused.items()
    }
