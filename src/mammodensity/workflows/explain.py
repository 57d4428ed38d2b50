"""Explain exams: a map of each view for the category that the result gives, its verdict, and a page of each exam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.dataset import DataSet, ImageRecord, reference_categories
from mammodensity.errors import ImageError
from mammodensity.explanation.exam_scores import ExamVerdict, RunScores
from mammodensity.explanation.map_scores import ScoreSpec
from mammodensity.explanation.maps import TISSUE, ActivationMap, ExamMaps, explain_exam
from mammodensity.explanation.methods import DEFAULT_METHOD, require_methods
from mammodensity.inputs import read_json
from mammodensity.models.default import TissueModel
from mammodensity.models.scoring import ScoredExam, require_networks
from mammodensity.models.trained import DensityModel
from mammodensity.outputs import (
    distinct_names,
    receipt,
    safe_name,
    staged_folder,
    write_bytes,
    write_json,
    write_text,
    written_together,
)
from mammodensity.pages.exam_page import map_block, render_exam_page, side_picture
from mammodensity.pages.pictures import contour_level, iso_contours, png_bytes
from mammodensity.results.result import ExamResult, exam_result
from mammodensity.terms import RESEARCH_USE_ONLY, Category, Projection
from mammodensity.workers import Progress
from mammodensity.workflows.predict import Predictor, find_data, without_paths

SUMMARY_FILE = "explanations.json"
_CONTOUR_PX = 1024  # rows or columns from which on a contour is taken from every second pixel
_STATEMENT = "@@STATEMENT@@"  # in pages, until the run has seen all its images


@dataclass(frozen=True, eq=False)
class ExplainedExam:
    """An exam with its result and its maps."""

    result: ExamResult
    maps: tuple[ExamMaps, ...]
    """By each method asked for."""
    verdicts: tuple[ExamVerdict, ...]
    """The verdicts on the maps of each method."""
    scored: ScoredExam
    """The exam as read, with what was found in its images."""


@dataclass(frozen=True)
class Explanations:
    """Results, maps and pages that `explain` made of a data set."""

    results: list[ExamResult]
    refused: list[str]
    """Why images were refused, a line each."""
    warnings: list[str]
    """Facts that a user of the model must know, a line each."""
    statement: str | None
    """A statement about the model by all its maps; None for a few images, and for the default model."""
    exams: list[ExplainedExam] = field(default_factory=list)
    """The exams with their maps; only where no output was asked for, as they take much memory."""
    pages: list[Path] = field(default_factory=list)
    """The page of each exam, in the output folder."""


def explain(
    data: Path | str | Sequence[Path | str] | DataSet,
    *,
    model: DensityModel | TissueModel | Path | str | None = None,
    output: Path | str | None = None,
    methods: Sequence[str] = (),
    category: Category | str | None = None,
    against: Category | str | None = None,
    layer: str | None = None,
    split: str | None = None,
    first: int | None = None,
    allow_missing: bool = False,
    synthetic: bool = False,
    device: str = "auto",
    arrays: bool = False,
    side: bool = False,
    scores_file: Path | None = None,
    progress: Progress | None = None,
) -> Explanations:
    """Explain the results that `mammodensity.predict` gives, view by view.

    Each image is read and scored once. A map explains the category that the result gives its view (with a joint
    network: the exam), and its verdict depends on that map alone. A refused image is a missing view; an exam without
    any usable image is left out.

    Parameters
    ----------
    data
        A path, several paths, or a data set: exam folders, DICOM files, INFN's folders, a manifest.
    model
        None is the default model; else a model folder or a loaded model. A folder's calibration is used.
    output
        A folder to write to: ``<exam>.html`` for each exam, and ``explanations.json``. Files that an earlier run listed
        there are removed; all files appear together at the end, or none. None keeps the maps in memory.
    methods
        Some of ``METHODS``; none is ``grad-cam``, and for the default model its tissue map.
    category, against, layer
        As of :func:`mammodensity.explanation.maps.explain_exam`.
    split, first
        Only this split; only the first exams.
    allow_missing
        Give exams with missing views a result from those present.
    arrays
        Also write ``<exam>_<projection>_map.npy``, float32 at the size of the image.
    side
        Also write ``<exam>_<projection>_side.png``, the image and its map next to each other at full size.
    scores_file
        Also write every score of every map, with its baselines and verdict.
    progress
        Called with how many maps are done and how many there are.

    Raises
    ------
    ImageError
        No image can be used; nothing is written.
    OptionError
        Unknown method, category or layer.
    """
    exams = find_data(data, split=split, synthetic=synthetic).first_exams(first)
    run = _Run(
        Predictor(model, allow_missing=allow_missing, device=device),
        exams,
        methods=methods,
        question={"category": category, "against": against, "layer": layer},
        stability=scores_file is not None,
        progress=progress,
    )
    if output is None:
        explained = list(run.explained())
        run.require_some()
        return run.outcome([exam.result for exam in explained], exams=explained)
    with written_together():
        return _write(run, Path(output), arrays=arrays, side=side, scores_file=scores_file)


class _Run:
    """One run over a data set, exam by exam."""

    def __init__(
        self,
        predictor: Predictor,
        data: DataSet,
        *,
        methods: Sequence[str],
        question: Mapping[str, Any],
        stability: bool,
        progress: Progress | None,
    ) -> None:
        model = cast("DensityModel | TissueModel", predictor.model)
        require_networks(model, data)
        self.layer: str | None = question["layer"]
        if isinstance(model, DensityModel):
            require_methods(list(methods), self.layer)
        self.predictor, self.model, self.data, self.methods = predictor, model, data, tuple(methods)
        self.names = _file_names(data)
        self.refused: list[str] = []
        self.anonymous: list[str] = []
        """The same without the names of files, for what is written."""
        spec = ScoreSpec(stability=stability)
        self.scores = RunScores(model, against=question["against"], layer=self.layer, spec=spec)
        self._question = question
        usable = sum(record.projection in model.projections for record in data.records)
        self._step = _counted(progress, max(len(methods), 1) * usable)

    def explained(self) -> Iterator[ExplainedExam]:
        """Each exam that has a usable image."""
        for exam_id, records in self.data.exams().items():
            scored = self.predictor.score(exam_id, records)
            self.refused += scored.scores.refused.values()
            anonymous = without_paths(scored.scores.refused, records)
            self.anonymous += (f"exam {exam_id}: {text}" for text in anonymous.values())
            if not scored.views:
                continue
            result = exam_result(replace(scored.scores, refused=anonymous), self.predictor.calibration)
            maps, verdicts = [], []
            for method in self.methods or (None,):
                maps.append(
                    explain_exam(self.model, scored, result=result, method=method, each=self._step, **self._question)
                )
                names = {view: self.image_name(records[view], maps[-1].method) for view in maps[-1].maps}
                verdicts.append(self.scores.score(maps[-1], names))
            yield ExplainedExam(result, tuple(maps), tuple(verdicts), scored)

    def image_name(self, record: ImageRecord, method: str) -> str:
        """The name of an image's files; with several methods, the method's name follows."""
        return f"{self.names[record]}_{method}" if len(self.methods) > 1 else self.names[record]

    def require_some(self) -> None:
        """Raise the first refusal if no image could be used."""
        if self.refused and not self.scores.exams:
            raise ImageError(self.refused[0])

    @property
    def statement(self) -> str | None:
        """The statement about the model by all its maps."""
        return self.scores.statement

    def outcome(
        self, results: list[ExamResult], *, exams: Sequence[ExplainedExam] = (), pages: Sequence[Path] = ()
    ) -> Explanations:
        """The return value of `explain`."""
        return Explanations(results, self.refused, self.predictor.warnings, self.statement, list(exams), list(pages))


def _write(run: _Run, folder: Path, *, arrays: bool, side: bool, scores_file: Path | None) -> Explanations:
    reference = reference_categories(run.data)
    exams = run.data.exams()
    page_names = dict(zip(exams, distinct_names([[safe_name(exam_id)] for exam_id in exams]), strict=True))
    summaries: list[Mapping[str, Any]] = []
    results: list[ExamResult] = []
    pages: list[str] = []
    with staged_folder(folder, _earlier(folder / SUMMARY_FILE)) as staging:
        for exam in run.explained():
            exam_id = exam.result.exam_id
            summaries += _write_maps(run, staging, exam, exams[exam_id], arrays=arrays, side=side)
            blocks = [
                map_block(maps, verdicts=verdict.verdicts)
                for maps, verdict in zip(exam.maps, exam.verdicts, strict=True)
            ]
            page = render_exam_page(
                exam.result,
                blocks,
                model=run.predictor.name,
                reference=reference.get(exam_id),
                warnings=run.predictor.warnings,
                statement=_STATEMENT,
            )
            pages.append(f"{page_names[exam_id]}.html")
            write_text(staging / pages[-1], page)
            results.append(exam.result)
        run.require_some()
        for page_name in pages:
            text = (staging / page_name).read_text(encoding="utf-8")
            write_text(staging / page_name, text.replace(f"{_STATEMENT}.", escape(run.statement or "")))
        method = TISSUE if isinstance(run.model, TissueModel) else DEFAULT_METHOD
        made_with = receipt("explain", method=",".join(run.methods) or method, layer=run.layer)
        facts = {
            "warnings": run.predictor.warnings,
            "model_statement": run.statement,
            "results": [result.to_dict() for result in results],
            "refused": run.anonymous,
        }
        files = sorted(path.name for path in staging.iterdir())
        summary = {"note": RESEARCH_USE_ONLY, **facts, "images": summaries, "files": files, "receipt": made_with}
        write_json(staging / SUMMARY_FILE, summary)
    if scores_file is not None:
        write_json(scores_file, run.scores.document(made_with) | facts)
    return run.outcome(results, pages=[folder / page for page in pages])


def _write_maps(
    run: _Run,
    staging: Path,
    exam: ExplainedExam,
    records: Mapping[Projection, ImageRecord],
    *,
    arrays: bool,
    side: bool,
) -> Iterator[Mapping[str, Any]]:
    """Write the arrays and pictures of an exam's maps, where they are asked for; yield a summary of each map."""
    for maps, verdict in zip(exam.maps, exam.verdicts, strict=True):
        for projection, activation in maps.maps.items():
            image, view_verdict = run.image_name(records[projection], maps.method), verdict.verdicts[projection]
            if arrays:
                _write_array(staging / f"{image}_map.npy", activation.values)
            if side:
                picture = side_picture(exam.result, maps, projection, view_verdict)
                write_bytes(staging / f"{image}_side.png", png_bytes(picture))
            summary = _summary(projection, activation, maps)
            yield {"image": image, "exam_id": exam.result.exam_id, **summary, "verdict": view_verdict.to_dict()}


def _counted(progress: Progress | None, total: int) -> Callable[[], None]:
    """A function to call after each step, so that ``progress`` hears how many are done."""
    done = count(1)
    return lambda: progress(next(done), total) if progress else None


def _earlier(summary: Path) -> list[str]:
    """The files of an earlier run, by its summary; none if it is no summary of ours."""
    try:
        facts = read_json(summary)
    except (OSError, ValueError):
        return []
    files = facts.get("files") if isinstance(facts, dict) else None
    return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []


def _file_names(data: DataSet) -> dict[ImageRecord, str]:
    """A name for the files of each image: exam and projection; the image's own name may be that of a patient."""
    names = distinct_names([[f"{safe_name(record.exam_id)}_{record.projection}"] for record in data.records])
    return dict(zip(data.records, names, strict=True))


def _write_array(path: Path, values: NDArray[np.float32]) -> None:
    array = BytesIO()
    np.save(array, values, allow_pickle=False)
    write_bytes(path, array.getvalue())


def _summary(projection: Projection, activation: ActivationMap, maps: ExamMaps) -> Mapping[str, Any]:
    level = contour_level(maps.scale)
    step = max(1, max(activation.values.shape) // _CONTOUR_PX)
    lines = [np.round(line * step, 1).tolist() for line in iso_contours(activation.values[::step, ::step], level)]
    return {
        "projection": projection.value,
        "method": maps.method,
        "category": activation.category.value,
        "against": None if activation.against is None else activation.against.value,
        "scores": activation.scores_by_letter,
        "percent_density": activation.percent_density,
        "map_maximum": float(activation.values.max()),
        "exam_scale": maps.scale,
        "contour_level": level,
        "contours": lines,
    }
