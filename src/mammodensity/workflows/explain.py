"""The files of an explanation: for each image its map as an array, and three pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from mammodensity.data.dataset import DataSet, ImageRecord, reference_categories
from mammodensity.data.images import load_exam
from mammodensity.errors import ImageError
from mammodensity.explanation.exam_scores import ExamVerdict, RunScores
from mammodensity.explanation.map_scores import ScoreSpec
from mammodensity.explanation.maps import TISSUE, ActivationMap, ExamMaps, explain_exam
from mammodensity.explanation.methods import require_methods
from mammodensity.explanation.verdicts import Verdict, captioned
from mammodensity.models.default import TissueModel
from mammodensity.models.scoring import require_networks
from mammodensity.models.trained import DensityModel
from mammodensity.outputs import distinct_names, receipt, safe_name, staged_folder, write_bytes, write_json
from mammodensity.pages.explanation import exam_page, methods_page, result_of, title_of, told_below
from mammodensity.pages.pictures import (
    contour_level,
    contour_picture,
    heat_map,
    iso_contours,
    overlay,
    png_bytes,
    side_by_side,
)
from mammodensity.results.calibration import Calibration
from mammodensity.results.result import ExamResult
from mammodensity.terms import RESEARCH_USE_ONLY, Category, Projection
from mammodensity.workers import Progress

SUMMARY_FILE = "explanations.json"


@dataclass(frozen=True)
class Explained:
    """What became of the exams of a run."""

    pages: list[Path]
    """One of each exam: of all methods, where there are several."""
    refused: list[str]
    """Why exams were refused, one text each."""


def write_explanations(
    model: DensityModel | TissueModel,
    data: DataSet,
    folder: Path,
    *,
    methods: Sequence[str] = (),
    category: Category | str | None = None,
    against: Category | str | None = None,
    layer: str | None = None,
    scores_file: Path | None = None,
    calibration: Calibration | None = None,
    side: bool = False,
    progress: Progress | None = None,
) -> Explained:
    """Explain every exam of a data set; one with an image that cannot be read or used is refused, the others are not.

    Writes for each image ``<image>_map.npy`` (float32, image size, unscaled), ``<image>_map.png``,
    ``<image>_overlay.png``, ``<image>_contours.png`` and, if wanted, ``<image>_side.png`` (the image and its map
    next to each other), each picture with its verdict in a strip below; for each exam ``<exam>_exam.png``; and
    ``explanations.json`` with scores, scale and contour lines. ``<image>`` is the file's name without ending; where
    two files share a name, the exam's and if need be the projection's name come before it. With several ``methods``
    the method's name follows that of the image or exam, and ``<exam>_methods.png`` shows all of them. All files
    appear together at the end, or none; those that an earlier run listed in its ``explanations.json`` are removed.

    Parameters
    ----------
    methods
        Some of ``METHODS``; none is ``grad-cam``, and for the default model its tissue map.
    category, against, layer
        As of :func:`explain_exam`.
    scores_file
        Where to write every score of every map, with its baselines and verdict; last of all.
    calibration
        The model's; what pages and both files say of the exams' category or abstention and flags follows it.
    side
        Also write ``<image>_side.png``, at the full size of the image: the largest of the pictures by far.
    progress
        Called with how many steps are done and how many there are: each map is made, then drawn.

    Raises
    ------
    ImageError
        Every exam is refused; nothing is written.
    """
    require_networks(model, data)
    if isinstance(model, DensityModel):
        require_methods(list(methods), layer)
    wanted: Sequence[str | None] = methods or (None,)
    exams = data.exams()
    reference = reference_categories(data)
    names = _file_names(data)
    page_names = distinct_names([[safe_name(exam_id)] for exam_id in exams])
    each = _counted(
        progress,
        2
        * len(wanted)
        * sum(  # made, and drawn
            record.projection in model.projections for record in data.records
        ),
    )
    summaries: list[dict[str, Any]] = []
    pages = []
    refused: list[str] = []
    results: list[ExamResult] = []
    warnings = [*model.warnings, *(calibration.warnings if calibration else ())]
    spec = ScoreSpec(stability=scores_file is not None)
    scores = RunScores(model, exams, against=against, layer=layer, spec=spec)
    with staged_folder(folder, _earlier(folder / SUMMARY_FILE)) as staging:
        for page_name, (exam_id, records) in zip(page_names, exams.items(), strict=True):
            try:
                loaded = load_exam(exam_id, records)
                explained = [
                    explain_exam(model, loaded, method=one, category=category, against=against, layer=layer, each=each)
                    for one in wanted
                ]
            except ImageError as error:
                refused.append(str(error))
                continue
            found: list[ExamVerdict] = []
            for exam in explained:
                method = f"_{exam.method}" if len(wanted) > 1 else ""
                own = {projection: names[records[projection]] + method for projection in exam.maps}
                found.append(scores.score(exam, own))
                for projection, one in exam.maps.items():
                    verdict = found[-1].verdicts[projection]
                    _write_image(staging, own[projection], one, exam.scale, verdict)
                    if side:
                        _write_side(staging / f"{own[projection]}_side.png", exam, projection, found[-1])
                    about = {"image": own[projection], "exam_id": exam_id, **_summary(projection.value, one, exam)}
                    summaries.append(about | {"verdict": verdict.to_dict()})
                    each()
            if explained[0].maps:
                results.append(result_of(model, loaded, calibration))
                title = title_of(results[-1], reference.get(exam_id))
                below = partial(told_below, result=results[-1], warnings=warnings)
                pages.append(folder / _write_pages(staging, page_name, explained, found, title, below=below))
        if refused and not pages:
            raise ImageError(refused[0])
        facts: Mapping[str, Any] = {"method": ",".join(exam.method for exam in explained), "layer": layer}
        files = sorted(path.name for path in staging.iterdir())
        told = {"warnings": warnings, "results": [result.to_dict() for result in results], "refused": refused}
        summary = {
            "note": RESEARCH_USE_ONLY,
            **told,
            "images": summaries,
            "files": files,
            "receipt": receipt("explain", **facts),
        }
        write_json(staging / SUMMARY_FILE, summary)
    if scores_file is not None:
        write_json(scores_file, scores.document(receipt("explain", **facts)) | told)
    return Explained(pages, refused)


def _counted(progress: Progress | None, total: int) -> Callable[[], None]:
    """What to call after each step, so that ``progress`` hears how many are done."""
    done = count(1)
    return lambda: progress(next(done), total) if progress else None


def _write_pages(
    staging: Path,
    name: str,
    explained: Sequence[ExamMaps],
    found: Sequence[ExamVerdict],
    title: str,
    *,
    below: Callable[[bytes], bytes],
) -> str:
    """The exam's page of each method, and of all of them if there are several; the file's name of the last."""
    several = len(explained) > 1
    for exam, own in zip(explained, found, strict=True):
        page = f"{name}_{exam.method}_exam.png" if several else f"{name}_exam.png"
        write_bytes(staging / page, below(exam_page(exam, title, own.verdicts, own.labels)))
    if several:
        page = f"{name}_methods.png"
        verdicts = [own.verdicts for own in found]
        write_bytes(staging / page, below(methods_page(explained, title, verdicts, found[0].labels)))
    return page


def _about(projection: Projection, one: ActivationMap, method: str) -> str:
    """What the picture of original and map shows, and its lines."""
    rather = f" rather than {one.against}" if one.against else ""
    why = f"{projection}, why {one.category}{rather} (score {one.scores[one.category.index]:.2f}), {method}."
    if method == TISSUE:
        return f"{why} Blue line: dense tissue; white: breast; pink: chest muscle."
    return f"{why} Blue line: half of the exam's largest value; green: dense tissue; white: breast; pink: chest muscle."


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
        exam, stem = safe_name(record.exam_id), safe_name(record.path.stem)
        choices.append([stem, f"{exam}_{stem}", f"{exam}_{record.projection}_{stem}"])
    return dict(zip(data.records, distinct_names(choices), strict=True))


def _write_side(path: Path, exam: ExamMaps, projection: Projection, found: ExamVerdict) -> None:
    """An image and its map next to each other, with the verdict below."""
    one = exam.maps[projection]
    picture = side_by_side(one, exam.scale, found.labels.get(projection), dense=exam.method != TISSUE)
    about = _about(projection, one, exam.method)
    write_bytes(path, png_bytes(captioned(picture, found.verdicts[projection], about=about, letters=90)))


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


def _summary(projection: str, one: ActivationMap, exam: ExamMaps) -> dict[str, Any]:
    level = contour_level(exam.scale)
    lines = [np.round(line, 1).tolist() for line in iso_contours(one.values, level)]
    return {
        "projection": projection,
        "method": exam.method,
        "category": one.category.value,
        "against": None if one.against is None else one.against.value,
        "scores": {category.value: float(one.scores[category.index]) for category in one.category.scale},
        "percent_density": one.percent_density,
        "map_maximum": float(one.values.max()),
        "exam_scale": exam.scale,
        "contour_level": level,
        "contours": lines,
    }
