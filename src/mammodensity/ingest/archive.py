"""Archives: DICOM files under a folder, however deep and however named, to exams by study; pictures among them by name.

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

from mammodensity.ingest.dicom import Reason, Verdict, judge_file, looks_like_dicom
from mammodensity.ingest.dicom.verdicts import REASONS, WARNINGS
from mammodensity.ingest.names import exam_in_name, projection_in_name
from mammodensity.ingest.pictures import PICTURE_SUFFIXES
from mammodensity.ingest.records import DataSet, ImageRecord, Refusal

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""

LAYOUT = "DICOM archive"
_CHUNK = 512
_THREADS = min(8, (os.cpu_count() or 1) + 2)  # headers wait for the disk more than for the processor


def is_archive(path: Path) -> bool:
    """True for a DICOM file, or a folder with one somewhere under it, whatever the names."""
    return any(map(looks_like_dicom, files_under(path)))


def files_under(path: Path) -> Iterator[Path]:
    """Every file, sorted folder by folder; hidden ones are passed over, links to folders are not followed."""
    if path.is_file():
        yield path
        return
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def survey(path: Path, *, synthetic: bool = False, progress: Progress | None = None) -> list[Verdict]:
    """The verdict on every file under ``path`` by header and name, in the order of ``files_under``; no choice made."""
    files = list(files_under(path))
    verdicts: list[Verdict] = []

    def look(file: Path) -> Verdict:
        if looks_like_dicom(file):
            return judge_file(file, synthetic=synthetic)
        if file.suffix.lower() in PICTURE_SUFFIXES:
            return _judge_picture(file)
        return _judge_other(file)

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(files), _CHUNK):
            verdicts += pool.map(look, files[start : start + _CHUNK])
            if progress:
                progress(len(verdicts), len(files))
    return verdicts


def _judge_picture(file: Path) -> Verdict:
    """By name only; the exam is the folder and what the name says beside the projection."""
    projection = projection_in_name(file.stem)
    if projection is None:
        text = f"{file}: its name does not tell the projection; put CC_R, L-MLO or the like into it"
        return Verdict(file, (Reason("missing-view", text),))
    folder = file.absolute().parent.name
    exam = exam_in_name(file.stem)
    return Verdict(file, projection=projection, exam_id=f"{folder}_{exam}" if exam else folder)


def _judge_other(file: Path) -> Verdict:
    try:
        if not file.is_file():
            return Verdict(file, (Reason("not-dicom", f"{file} is no ordinary file, or a link to nothing"),))
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        return Verdict(file, (Reason("damaged", f"{file} cannot be read ({error.strerror or error})"),))
    if empty:
        return Verdict(file, (Reason("damaged", f"{file} is empty; copy it again"),))
    return Verdict(file, (Reason("not-dicom", f"{file}: {REASONS['not-dicom']}"),))


def choose(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Mark all but one accepted image for each projection of an exam, by rule, and say which was chosen.

    The same SOP Instance twice: the first file. Else acquired before computed from tomosynthesis, then implant
    displaced, then acquired last (a repeat replaces what it repeats), then most pixels, then the higher Instance
    Number, then the first in order.
    """
    result = list(verdicts)
    seen: dict[str, Path] = {}
    candidates: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, verdict in enumerate(verdicts):
        if not verdict.accepted or verdict.projection is None or verdict.exam_id is None:
            continue
        first = seen.setdefault(verdict.instance, verdict.path) if verdict.instance else verdict.path
        if first is not verdict.path:
            result[place] = _marked(verdict, "duplicate", f"the same image as {first}; one is enough")
            continue
        candidates[verdict.exam_id, verdict.projection].append(place)
    for (exam_id, projection), places in candidates.items():
        if len(places) < 2:
            continue
        best = max(places, key=lambda place: (verdicts[place].rank, -place))
        told = f"{WARNINGS['chosen-of-several']} ({len(places)} {projection} images)"
        result[best] = _marked(result[best], "chosen-of-several", told)
        text = f"exam {exam_id} has {len(places)} {projection} images; by the rule {verdicts[best].path} was chosen"
        for place in places:
            if place != best:
                result[place] = _marked(verdicts[place], "other-image-chosen", text)
    return result


def _marked(verdict: Verdict, code: str, text: str) -> Verdict:
    return replace(verdict, warnings=(*verdict.warnings, Reason(code, text)))


def data_of(root: Path, verdicts: Iterable[Verdict]) -> DataSet:
    """The images that are used, as a data set. A patient is named after the first of his or her exams."""
    verdicts = list(verdicts)
    used = [verdict for verdict in verdicts if verdict.used]
    patient_of: dict[str, str] = {}
    for verdict in used:
        if verdict.patient_key and verdict.exam_id:
            named = patient_of.setdefault(verdict.patient_key, verdict.exam_id)
            patient_of[verdict.patient_key] = min(named, verdict.exam_id)
    records = tuple(
        ImageRecord(
            verdict.exam_id,
            patient_of.get(verdict.patient_key, verdict.exam_id),
            verdict.projection,
            verdict.path,
            synthetic="synthetic-2d" in verdict.marks,
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
        tuple(
            Refusal(verdict.path, verdict.reasons[0].code, verdict.reasons[0].text)
            for verdict in refused
            if verdict.reasons[0].code not in ("not-dicom", "dicomdir")
        ),
    )
