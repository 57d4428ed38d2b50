"""Judge the program's result for a mutated input, by the functions that `check` and `predict` call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.dicom.file_checks import REASONS
from mammodensity.data.find import find_images
from mammodensity.data.images import read_record
from mammodensity.errors import DicomError, MammodensityError
from mammodensity.evaluation.labels import read_labels
from mammodensity.evaluation.score_tables import read_score_table
from mammodensity.exam import Exam, Mammogram
from mammodensity.terms import LEVELS, Projection
from mammodensity.workflows.check import check_path
from mammodensity.workflows.predict import find_data, predict
from mutation import models, tables
from mutation.cases import Case
from mutation.sound import Sound, phantom

Outcome = Literal["refused", "flagged", "unchanged", "nearly", "different", "crashed", "hung"]
OUTCOMES: tuple[Outcome, ...] = ("refused", "flagged", "unchanged", "nearly", "different", "crashed", "hung")
_SHARE, _STEP = 0.01, 0.02
"""Different: more than 1 % of the pixels differ by more than 2 % of the sound image's range."""
_PATIENT = ("Phantom^Made", "PHANTOM-1")
_SCORES_APART = 0.02


@dataclass(frozen=True)
class Judgement:
    """The outcome of one case, and a line on it."""

    outcome: Outcome
    text: str


def judge(case: Case, folder: Path) -> Judgement:
    """Write a case into an empty folder, and read it."""
    path = case.write(folder)
    try:
        if case.target == "image":
            assert case.sound is not None
            return _judge_image(path, case.sound)
        return _judge_values(_READERS[case.target], path, case)
    except MammodensityError as error:
        return _refused(error)


def _refused(error: MammodensityError) -> Judgement:
    """A refusal has words, without patient data; anything else counts as a crash."""
    text = str(error)
    if not text.strip():
        return Judgement("crashed", "a refusal without a word")
    if isinstance(error, DicomError) and error.code not in REASONS:
        return Judgement("crashed", f"a code that is in no list: {error.code}")
    if any(name in text for name in _PATIENT):
        return Judgement("crashed", f"message names the patient: {text[:200]}")
    return Judgement("refused", f"{getattr(error, 'code', type(error).__name__)}: {text[-120:]}")


# --- images ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    pixels: NDArray[Any]
    projection: Projection
    exam_id: str
    warnings: frozenset[str]


def _read(path: Path) -> _Read:
    """The one image under a path, as `predict` finds and reads it."""
    data = find_data(path)
    (record,) = data.records
    mammogram = read_record(record)
    warnings = record.check.marks if record.check else frozenset()
    return _Read(mammogram.pixels, record.projection, record.exam_id, warnings)


@cache
def _as_sound(sound: Sound) -> tuple[_Read, frozenset[str], frozenset[str]]:
    """The sound file as read, its warnings by `check`, and its flags by `predict`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "exam", sound.file_name)
        path.parent.mkdir()
        path.write_bytes(sound.content)
        return _read(path), *_marks(path)


@cache
def _sound_read(sound: Sound) -> _Read:
    with TemporaryDirectory() as folder:
        path = Path(folder, "exam", sound.file_name)
        path.parent.mkdir()
        path.write_bytes(sound.content)
        return _read(path)


def _marks(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Codes of warnings by `check`, and of flags by `predict`; an error of ours where either refuses the image."""
    checked = check_path(path)
    finding = next((found for found in checked.findings() if found.kind in ("error", "refused")), None)
    if finding or not checked.usable:
        raise MammodensityError(f"check: {finding.code if finding else 'not usable'}")
    warnings = frozenset(warning.code for file in checked.judged for warning in file.warnings)
    (result,) = predict(path, allow_missing=True).results
    if result.refused:
        raise MammodensityError(f"predict: {next(iter(result.refused.values()))}")
    return warnings, frozenset(flag.code for flag in result.flags)


def _judge_image(path: Path, sound: Sound) -> Judgement:
    expected = _sound_read(sound)
    read = _read(path)
    identity = (read.projection, read.exam_id) == (expected.projection, expected.exam_id)
    share = _share_that_differs(read.pixels, expected.pixels)
    if identity and share == 0:
        new = read.warnings - expected.warnings
        return Judgement("flagged", f"warning {', '.join(sorted(new))}") if new else Judgement("unchanged", "")
    warnings, flags = _marks(path)
    _, usual_warnings, usual_flags = _as_sound(sound)
    new = (warnings - usual_warnings) | (flags - usual_flags)
    words = f"{share:.1%} of pixels differ"
    if not identity:
        words += f"; {expected.projection} read as {read.projection}, exam {expected.exam_id} as {read.exam_id}"
    if new:
        return Judgement("flagged", f"{', '.join(sorted(new))}; {words}")
    return Judgement("nearly" if identity and share <= _SHARE else "different", words)


def _share_that_differs(pixels: NDArray[Any], expected: NDArray[Any]) -> float:
    """Share of pixels off by more than a step; a tiny share where pixels differ by less, 1 for another size."""
    if pixels.shape != expected.shape:
        return 1.0
    values, others = (image / np.iinfo(image.dtype).max for image in (pixels, expected))
    apart = np.abs(values - others)
    if not apart.any():
        return 0.0
    return max(float((apart > _STEP * np.ptp(others)).mean()), 1e-9)


# --- tables and models ----------------------------------------------------------------------------------------------


def _label_values(path: Path) -> Any:
    return {exam: str(category) for exam, category in read_labels(path).items()}


def _score_values(path: Path) -> Any:
    table = read_score_table(path)
    return {
        exam: {str(level): [round(float(value), 6) for value in table.scores[level][n]] for level in LEVELS}
        for n, exam in enumerate(table.exam_ids)
    }


def _manifest_values(path: Path) -> Any:
    checked = check_path(path, read_pixels=False)  # as `train` does before it begins
    if not checked.usable:
        raise MammodensityError(f"check: {checked.findings()[0].code}")
    records = find_images(path).records
    return sorted(
        (r.exam_id, r.patient_id, str(r.projection), str(r.category), str(r.split), r.path.name) for r in records
    )


@cache
def _exam() -> Exam:
    return Exam("145_1", {Projection.CC_L: Mammogram(phantom(Projection.CC_L, 320) << 4, Projection.CC_L)})


def _model_values(path: Path) -> Any:
    (result,) = predict(_exam(), model=path, allow_missing=True).results
    whole = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    return {name: whole[name] for name in ("category", "exam", "prediction_set", "flags", "abstained", "refused")}


_READERS: dict[str, Callable[[Path], Any]] = {
    "labels": _label_values,
    "scores": _score_values,
    "manifest": _manifest_values,
    "model": _model_values,
}


@cache
def _sound_values(target: str, name: str) -> str:
    files = {
        "labels": {"labels.csv": tables.labels_table()},
        "scores": {"scores.csv": tables.score_table()},
        "manifest": tables.manifest_files(),
        "trained": models.trained_model(),
        "uncalibrated": {models.NETWORK: models.trained_model()[models.NETWORK]},
        "site": models.site_model(),
    }[name]
    with TemporaryDirectory() as folder:
        path = Case("", 0, "", "image", {"labels": "labels.csv", "scores": "scores.csv"}.get(name, ""), files).write(
            Path(folder)
        )
        return json.dumps(_READERS[target](path))


def _judge_values(read: Callable[[Path], Any], path: Path, case: Case) -> Judgement:
    values = json.dumps(read(path))
    name = str(case.target)
    if name == "model":
        name = "site" if "category_map.json" in case.files else "trained"
        name = "uncalibrated" if name == "trained" and "calibration.json" not in case.files else name
    expected = _sound_values(case.target, name)
    if values == expected:
        return Judgement("unchanged", "")
    if case.target == "model" and _close(json.loads(values), json.loads(expected)):
        return Judgement("nearly", "scores within 0.02")
    return Judgement("different", f"expected {expected[:300]}; read {values[:300]}")


def _close(values: Any, expected: Any) -> bool:
    """The same category, set and flags, and scores that are hardly apart."""
    first, second = (one["exam"]["scores"] for one in (values, expected))
    apart = max(abs(first[letter] - second[letter]) for letter in second)
    same = all(values[name] == expected[name] for name in ("category", "prediction_set", "abstained", "refused"))
    return bool(same and apart <= _SCORES_APART)
