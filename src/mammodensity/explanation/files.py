"""The files of an explanation: for each image its map as an array, and three pictures."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mammodensity.check import Progress
from mammodensity.exam import Exam
from mammodensity.explanation.exam_maps import DEFAULT_METHOD, METHODS, ActivationMap, ExamMaps, explain_exam
from mammodensity.explanation.pictures import (
    contour_level,
    contour_picture,
    exam_page,
    heat_map,
    iso_contours,
    overlay,
    png_bytes,
)
from mammodensity.explanation.scoring import (
    STANDARD_RULES,
    ExamVerdict,
    ScoreSpec,
    Verdict,
    ViewScores,
    captioned,
    find_dependence,
    score_exam_maps,
)
from mammodensity.fusion import fuse_exam
from mammodensity.ingest import DataSet, ImageRecord, load_exam, reference_categories
from mammodensity.outputs import receipt, staged_folder, write_bytes, write_json
from mammodensity.prediction import DensityModel, TissueModel, require_networks
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY, DensityCategory, Projection

SUMMARY_FILE = "explanations.json"
_SAMPLED = 12  # exams on which a network's dependence on the background is measured first
_LONGEST_NAME = 100  # characters of an exam or image name; file systems allow 255 bytes in all


def write_explanations(
    model: DensityModel | TissueModel,
    data: DataSet,
    folder: Path,
    *,
    method: str | None = None,
    category: DensityCategory | None = None,
    layer: str | None = None,
    scores_file: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Explain every exam of a data set.

    Writes for each image ``<image>_map.npy`` (float32, image size, unscaled), ``<image>_map.png``,
    ``<image>_overlay.png`` and ``<image>_contours.png``, each picture with its verdict in a strip below; for each exam
    ``<exam>_exam.png``; and ``explanations.json`` with scores, scale and contour lines. ``<image>`` is the file's name
    without ending; where two files share a name, the exam's and if need be the projection's name come before it. All
    files appear together at the end, or none; those that an earlier run listed in its ``explanations.json`` are
    removed. ``scores_file`` is written last: every score of every map, with its baselines and verdict.

    Returns
    -------
    The exam pages.
    """
    require_networks(model, data)
    exams = data.exams()
    reference = reference_categories(data)
    names = _file_names(data)
    page_names = _distinct([[_safe(exam_id)] for exam_id in exams])
    summaries: list[dict[str, Any]] = []
    scored: list[tuple[list[dict[str, Any]], ExamVerdict]] = []
    pages = []
    depends = find_dependence(model, _sampled(exams), STANDARD_RULES)
    explain = partial(METHODS[method if method in METHODS and method else DEFAULT_METHOD], layer=layer)
    spec = ScoreSpec(stability=scores_file is not None)
    with staged_folder(folder, _earlier(folder / SUMMARY_FILE)) as staging:
        for done, (exam_id, records) in enumerate(exams.items(), start=1):
            exam = explain_exam(model, load_exam(exam_id, records), method=method, category=category, layer=layer)
            judged = score_exam_maps(model, exam, method=explain, dependence=depends, spec=spec)
            entries = []
            for projection, one in exam.maps.items():
                name, view = names[records[projection]], judged.views[projection]
                _write_image(staging, name, one, exam.scale, view.verdict)
                about = {"image": name, "exam_id": exam_id, "projection": projection.value}
                summaries.append(about | _summary(one, exam) | {"verdict": view.verdict.to_dict()})
                entries.append(about | _scores_entry(one, exam, view))
            scored.append((entries, judged))
            if exam.maps:
                page = f"{page_names[done - 1]}_exam.png"
                verdicts = {projection: view.verdict for projection, view in judged.views.items()}
                write_bytes(staging / page, exam_page(exam, _title(exam, reference.get(exam_id)), verdicts))
                pages.append(folder / page)
            if progress:
                progress(done, len(exams))
        facts: Mapping[str, Any] = {"method": exam.method, "layer": layer}
        files = sorted(path.name for path in staging.iterdir())
        summary = {
            "note": RESEARCH_USE_ONLY,
            "images": summaries,
            "files": files,
            "receipt": receipt("explain", **facts),
        }
        write_json(staging / SUMMARY_FILE, summary)
    if scores_file is not None:
        write_json(scores_file, scores_document(scored, spec, facts))
    return pages


def _sampled(exams: Mapping[str, Mapping[Projection, ImageRecord]]) -> Iterator[Exam]:
    """Exams evenly spaced over a data set, one after the other: enough to see what a network depends on."""
    ids = list(exams)
    for place in sorted({round(index) for index in np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLED))}):
        yield load_exam(ids[place], exams[ids[place]])


def scores_document(
    scored: Sequence[tuple[Sequence[Mapping[str, Any]], ExamVerdict]], spec: ScoreSpec, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``explain --json`` writes: images with scores, baselines and verdict, exams with agreement and verdict."""
    return {
        "note": RESEARCH_USE_ONLY,
        "rules": spec.rules.to_dict(),
        "replacement": spec.replacement,
        "images": [entry for entries, _ in scored for entry in entries],
        "exams": [judged.to_dict() for _, judged in scored],
        "receipt": receipt("explain", **facts),
    }


def _scores_entry(one: ActivationMap, exam: ExamMaps, view: ViewScores) -> dict[str, Any]:
    category = one.category
    return {
        "method": exam.method,
        "category": category.value,
        "score_of_category": float(one.scores[category.index]),
        **view.to_dict(),
    }


def _earlier(summary: Path) -> list[str]:
    """The files of an earlier run, by its summary; none where it is no summary of ours."""
    try:
        facts = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    files = facts.get("files") if isinstance(facts, dict) else None
    return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []


def _file_names(data: DataSet) -> dict[ImageRecord, str]:
    """A name for the files of each image: as short as tells it from every other."""
    choices = []
    for record in data.records:
        exam, stem = _safe(record.exam_id), _safe(record.path.stem)
        choices.append([stem, f"{exam}_{stem}", f"{exam}_{record.projection}_{stem}"])
    return dict(zip(data.records, _distinct(choices), strict=True))


def _distinct(choices: list[list[str]]) -> list[str]:
    """For each entry its first choice that no other entry has among its own; the last one numbered if need be."""
    count = Counter(choice for entry in choices for choice in set(entry))
    taken: Counter[str] = Counter()
    names = []
    for entry in choices:
        name = next((choice for choice in entry if count[choice] == 1), entry[-1])
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return names


def _safe(name: str) -> str:
    """A name that is one part of a path: exam names come from tables and may hold anything."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".")[:_LONGEST_NAME] or "_"


def _title(exam: ExamMaps, reference: DensityCategory | None) -> str:
    """The exam, its fused category, and its reference where there is one."""
    views = {projection: one.scores for projection, one in exam.maps.items()}
    scores = fuse_exam(views, allow_missing=True)["subject"].scores
    assert scores is not None  # an exam with maps has scores
    said = f"{CATEGORIES[int(np.argmax(scores))]} from {len(views)} view{'s' if len(views) > 1 else ''}"
    return f"Exam {exam.exam_id}: {said}" + (f", reference {reference}" if reference else "")


def _write_image(folder: Path, name: str, one: ActivationMap, scale: float, verdict: Verdict) -> None:
    array = BytesIO()
    np.save(array, one.values, allow_pickle=False)
    write_bytes(folder / f"{name}_map.npy", array.getvalue())
    pictures = {
        "map": heat_map(one.values, scale),
        "overlay": overlay(one.mammogram, one.values, scale),
        "contours": contour_picture(one, scale),
    }
    for kind, picture in pictures.items():
        write_bytes(folder / f"{name}_{kind}.png", png_bytes(captioned(picture, verdict)))


def _summary(one: ActivationMap, exam: ExamMaps) -> dict[str, Any]:
    level = contour_level(exam.scale)
    lines = [np.round(line, 1).tolist() for line in iso_contours(one.values, level)]
    return {
        "category": one.category.value,
        "scores": {category.value: float(one.scores[category.index]) for category in CATEGORIES},
        "percent_density": one.percent_density,
        "map_maximum": float(one.values.max()),
        "exam_scale": exam.scale,
        "contour_level": level,
        "contours": lines,
    }
