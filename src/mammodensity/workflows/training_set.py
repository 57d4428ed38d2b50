"""Write a training set: prepared pictures in INFN's folders, and a manifest without names."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from datetime import date, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammodensity.anatomy.field import part, stored_flipped
from mammodensity.anatomy.network_input import RAW_PREPROCESS, PreprocessSpec, visible_part
from mammodensity.anatomy.outline import BREAST, find_regions
from mammodensity.data.dataset import (
    MANIFEST_COLUMNS,
    MANIFEST_NAME,
    ExamSource,
    ImageRecord,
    category_cells,
    used_columns,
)
from mammodensity.data.dicom.file_checks import REASONS, WARNINGS, FileCheck
from mammodensity.data.images import read_image
from mammodensity.errors import CheckpointError, ImageError, Interrupted, OptionError, OutputError
from mammodensity.exam import Mammogram
from mammodensity.inputs import read_json
from mammodensity.outputs import receipt, require_new_folder, write_bytes, write_csv, write_json, written_together
from mammodensity.terms import Projection
from mammodensity.workers import Progress, in_workers, usable_cores

FACTS = ("vendor", "model", "spacing_mm", "thickness_mm", "age")
"""Columns of the manifest beyond the usual ones; blank where nothing says."""
DATE, SHIFTED_DATE = "study_date", "shifted_date"
"""The column of the date, kept with the names, or else shifted; two names, so that none is taken for the other."""
REFUSED_FILE = "refused.csv"
_WORK = ".prepare"
_NOTE = "run/spec.json"
_LEAST_LEVELS = 32  # as for an image that is read
_OLDEST = 90
_SHIFT_DAYS = 31, 3650  # earlier: least and most
_REFUSED_COLUMNS = ("exam_id", "projection", "code", "text", "path")


@dataclass(frozen=True)
class ExportSpec:
    """Settings of the writing of exams."""

    preprocess: PreprocessSpec = RAW_PREPROCESS
    """Crop, muscle, background and depth; resizing and centring are left to training."""
    salt: str = ""
    """Goes into the keys that stand for exam and patient."""
    keep_names: bool = False
    """Keep the names of exams and patients instead of keys."""


def read_preprocess(path: Path | None) -> PreprocessSpec:
    """The preprocessing of a JSON file, with the entries it leaves out as in ``RAW_PREPROCESS``; that for None.

    Raises
    ------
    OptionError
        The file cannot be read, or an entry is unknown or makes no sense.
    """
    if path is None:
        return RAW_PREPROCESS
    expected = 'expected JSON such as {"crop": "none"}'
    try:
        values = read_json(path)
    except OSError as error:
        raise OptionError(f"--spec {path}: {error.strerror or error}; {expected}") from error
    except ValueError as error:
        raise OptionError(f"--spec {path} is no JSON text; {expected}") from error
    if not isinstance(values, dict):
        raise OptionError(f"--spec {path} holds no JSON object; {expected}")
    names = [field.name for field in fields(PreprocessSpec)]
    if unknown := sorted(values.keys() - set(names)):
        raise OptionError(f"--spec {path}: unknown entry {unknown[0]!r}; expected {', '.join(names)}")
    try:
        return replace(RAW_PREPROCESS, **values)
    except OptionError as error:
        raise OptionError(f"--spec {path}: {error}") from error


@dataclass(frozen=True)
class Prepared:
    """A training set."""

    folder: Path
    manifest: Path
    """Appears when all is done."""
    exams: int
    """Exams with an image in it."""
    images: int
    refused: int
    """Files that were left out; ``refused.csv`` says why."""


def export_exams(
    exams: Iterable[ExamSource],
    out: Path,
    spec: ExportSpec | None = None,
    *,
    refused: Iterable[FileCheck] = (),
    resume: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write a training set: INFN's folders, ``manifest.csv``, ``refused.csv`` and ``receipt.json``.

    Where the best file of a projection cannot be used, the next is taken. Every other file goes into ``refused.csv``
    with its reason, those ``refused`` before among them. No name or other identity is copied: names of exams and
    patients become keys, hashed with a salt that is forgotten at the end, and dates are shifted by it, all of a
    patient's by as many days. An image stored mirrored is turned, so that right breasts have the chest wall on the
    right.

    Raises
    ------
    OutputError
        ``out`` is in use and ``resume`` is False, or cannot be written.
    CheckpointError
        ``resume`` is True and what was begun in ``out`` had other exams or another spec.
    Interrupted
        Ctrl-C; the same call with ``resume`` goes on.
    """
    sources = sorted(exams, key=lambda exam: exam.exam_id)
    spec = _begin(out, spec or ExportSpec(), sources, resume=resume)
    work = out / _WORK
    left = [exam for exam in sources if not _record_path(work, exam, spec).exists()]
    done = len(sources) - len(left)
    count = min(workers or usable_cores(), max(len(left), 1))
    try:
        with closing(in_workers(partial(export_exam, out=out, spec=spec), left, count)) as finished:
            for _ in finished:
                done += 1
                if progress:
                    progress(done, len(sources))
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {done} of {len(sources)} exams are in {out}, go on with --resume") from None
    records = [read_json(_record_path(work, exam, spec)) for exam in sources]
    left_out = [_row_of(verdict, spec) for verdict in refused] + [row for entry in records for row in entry["refused"]]
    facts = {"preprocess": asdict(spec.preprocess), "exams": len(sources), "keys": not spec.keep_names}
    rows = [row for record in records for row in record["images"]]
    day = DATE if spec.keep_names else SHIFTED_DATE
    columns = (*MANIFEST_COLUMNS, *used_columns(rows), *FACTS, day, "mirrored")
    with written_together():
        write_csv(out / REFUSED_FILE, _REFUSED_COLUMNS, left_out)
        write_json(out / "receipt.json", receipt("prepare", **facts))
        write_csv(out / MANIFEST_NAME, columns, ({name: row[name] for name in columns} for row in rows))
    (work / _NOTE).unlink()  # first: without it, the records left by a kill are not taken for those of a run
    shutil.rmtree(work)
    names = {row["exam_id"] for row in rows}
    return Prepared(out, out / MANIFEST_NAME, exams=len(names), images=len(rows), refused=len(left_out))


def export_exam(exam: ExamSource, out: Path, spec: ExportSpec) -> None:
    """Prepare one exam: its pictures, and a record of them that says it is done."""
    images, refused = [], []
    for projection, record in exam.records.items():
        names = {"exam_id": _key(exam.exam_id, spec), "projection": projection.value}
        taken, left = _first_usable(record, spec)
        refused += [names | row for row in left]
        if taken is None:
            continue
        mammogram, picture, mirrored = taken
        place = _place(exam, projection, spec)
        write_bytes(out / place, picture)
        images.append(
            {
                **names,
                "patient_id": _key(exam.patient_id, spec),
                "path": place.as_posix(),
                "split": exam.split or "",
                **category_cells(exam.category, record.breast_category),
                **_facts(exam, mammogram, spec),
                "mirrored": "yes" if mirrored else "",
            }
        )
    write_json(_record_path(out / _WORK, exam, spec), {"images": images, "refused": refused})


def _first_usable(
    record: ImageRecord, spec: ExportSpec
) -> tuple[tuple[Mammogram, bytes, bool] | None, list[dict[str, str]]]:
    """The best usable file of a projection with its picture and whether that was turned; a row for each other file."""
    taken, left = None, []
    for path, check in record.candidates:
        code = check.unused_code if check else ""
        text = WARNINGS.get(code, "")
        if taken is None:
            try:
                mammogram = read_image(path, record.projection, check=check)
                taken = mammogram, *_picture(mammogram, spec.preprocess)
                continue
            except ImageError as error:
                code, text = error.code, str(error)
        left.append(_refused_row(path, code, text, spec))
    return taken, left


def _refused_row(path: Path, code: str, text: str, spec: ExportSpec) -> dict[str, str]:
    """A path may hold a patient's name: it stays out of what is written, unless names are kept."""
    return {
        "code": code,
        "text": text.replace(str(path), "the image"),
        "path": str(path) if spec.keep_names else "",
    }


def _row_of(verdict: FileCheck, spec: ExportSpec) -> dict[str, str]:
    """The row of a file that its header refuses; the code's words, as the verdict's own may quote the header."""
    code = verdict.reasons[0].code
    return {
        "exam_id": _key(verdict.exam_id, spec) if verdict.exam_id else "",
        "projection": verdict.projection.value if verdict.projection else "",
        **_refused_row(verdict.path, code, REASONS.get(code, ""), spec),
    }


def _picture(mammogram: Mammogram, spec: PreprocessSpec) -> tuple[bytes, bool]:
    """The prepared picture as a PNG file of 8 or 16 bit, and whether it was turned."""
    regions = find_regions(mammogram)
    values, box = visible_part(mammogram, spec, regions)
    kind = np.uint8 if spec.depth == "8-bit" or mammogram.pixels.dtype == np.uint8 else np.uint16
    pixels = np.rint(part(values, box) * np.iinfo(kind).max).astype(kind)
    _require_levels(mammogram, pixels, part(regions.labels, box) == BREAST)
    mirrored = bool(stored_flipped(mammogram.projection, regions.chest_side))
    if mirrored:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=2)
    return stream.getvalue(), mirrored


def _require_levels(mammogram: Mammogram, pixels: NDArray[np.integer[Any]], breast: NDArray[np.bool_]) -> None:
    """Refuse a picture in which hardly a grey value of the breast is left."""
    levels = np.count_nonzero(np.bincount(pixels[breast]))
    if levels < _LEAST_LEVELS:
        text = (
            f"its breast would have {levels} grey levels as {np.iinfo(pixels.dtype).bits} bit, too few to read density"
        )
        raise ImageError(
            f"{mammogram.path or 'the image'}: {text}; export it brighter, or prepare it with full depth", "grey-scale"
        )


def _facts(exam: ExamSource, mammogram: Mammogram, spec: ExportSpec) -> dict[str, str]:
    """The cells of FACTS and of the date; the accession number is none of them, as it identifies a patient."""
    header = mammogram.facts
    spacing = f"{mammogram.spacing_mm:.4g}" if mammogram.spacing_mm else ""
    facts = {name: header.get(name) or exam.facts.get(name) or "" for name in FACTS} | {"spacing_mm": spacing}
    day = header.get(DATE, "")
    if spec.keep_names:
        return facts | {DATE: day}
    return facts | {"age": _common_age(facts["age"]), SHIFTED_DATE: _shifted(day, exam.patient_id, spec.salt)}


def _common_age(years: str) -> str:
    """Ages over 89 are rare enough to tell who it is: one class, 90 (45 CFR 164.514(b)(2)(i)(C)).

    What is no age, such as a date of birth in a column of that name, is not copied.

    >>> [_common_age(years) for years in ("89", "97", "102.0", "097Y", "1931-05-02", "")]
    ['89', '90', '90', '90', '', '']
    """
    age = re.fullmatch(r"0*(\d{1,3}(?:\.\d*)?) ?(?:Y|YEARS?)?", years.strip().upper(), re.ASCII)
    if age is None:
        return ""
    return str(_OLDEST) if float(age[1]) >= _OLDEST else age[1]


def _shifted(day: str, patient_id: str, salt: str) -> str:
    """A date so many days earlier as salt and patient say, so that the time between exams of a patient is kept."""
    if not day:
        return ""
    least, most = _SHIFT_DAYS
    digest = hashlib.sha256(f"{salt}\ndate\n{patient_id}".encode()).digest()
    days = least + int.from_bytes(digest[:8]) % (most - least + 1)
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _place(exam: ExamSource, projection: Projection, spec: ExportSpec) -> Path:
    """Path of a picture, named as INFN's: ``CC_R/A/<patient>_<exam>_A_CC_R.png``."""
    category = exam.category.value if exam.category else ""
    exam_key = _key(exam.exam_id, spec)
    name = exam_key if spec.keep_names else f"{_key(exam.patient_id, spec)}_{exam_key}"
    return Path(projection.value, category, "_".join(filter(None, [name, category, projection.value])) + ".png")


def _key(name: str, spec: ExportSpec) -> str:
    """Twelve digits that stand for a name; the same for the same salt, and no way back without it."""
    if spec.keep_names:
        return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name).lstrip(".")
    digest = hashlib.sha256(f"{spec.salt}\n{name}".encode()).digest()
    return f"{int.from_bytes(digest[:8]) % 10**12:012d}"


def _record_path(work: Path, exam: ExamSource, spec: ExportSpec) -> Path:
    return work / f"{_key(exam.exam_id, spec)}.json"


def _begin(out: Path, spec: ExportSpec, exams: list[ExamSource], *, resume: bool) -> ExportSpec:
    """Claim the folder, or find it claimed by the same run; the spec with the salt in use."""
    keys = {_key(exam.exam_id, spec) for exam in exams}
    if len(keys) < len(exams):
        raise OutputError("two exams would get the same name; prepare them without --keep-names")
    note = out / _WORK / _NOTE
    if not note.exists():
        shutil.rmtree(out / _WORK, ignore_errors=True)  # of a run that was killed as it began, or as it ended
    names = "\n".join(f"{exam.exam_id} {_state(exam)} {exam.category} {exam.split} {_labels(exam)}" for exam in exams)
    wanted = {
        "exams": hashlib.sha256(names.encode()).hexdigest(),
        "preprocess": asdict(spec.preprocess),
        "keep_names": spec.keep_names,
    }
    if resume and (out / MANIFEST_NAME).exists() and not note.exists():
        raise OutputError(f"{out} is finished; there is nothing to resume")
    if resume and note.exists():
        try:
            begun = read_json(note)
            salt = str(begun.pop("salt"))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{note} is damaged; prepare into a new folder") from error
        if begun != wanted or (spec.salt and spec.salt != salt):
            raise CheckpointError(
                f"{out} was begun with other exams or options, or image files have changed since; "
                "use the same to resume, or prepare into a new folder"
            )
    else:
        require_new_folder(out)
        salt = spec.salt or secrets.token_hex(16)
        write_json(note, {**wanted, "salt": salt})
    return ExportSpec(spec.preprocess, salt, spec.keep_names)


def _labels(exam: ExamSource) -> list[tuple[str, str]]:
    """The category of the breast in each image."""
    return [(name.value, str(record.breast_category or "")) for name, record in sorted(exam.records.items())]


def _state(exam: ExamSource) -> list[tuple[str, str, int, int]]:
    """Projection and file of each image, with size and time of the last change (ns); -1 where it is gone."""
    states = []
    for projection, record in sorted(exam.records.items()):
        for path, _ in record.candidates:
            try:
                state = path.stat()
                size, changed = state.st_size, state.st_mtime_ns
            except OSError:
                size = changed = -1
            states.append((projection.value, str(path.resolve()), size, changed))
    return states
