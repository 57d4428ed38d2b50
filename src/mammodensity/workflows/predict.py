"""Predict the density category of exams: find the images, score them, and turn scores into results."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import SPLITS, DataSet, ImageRecord, reference_densities, require_complete
from mammodensity.data.find import find_all_images
from mammodensity.errors import ImageError, Interrupted, LayoutError, OptionError
from mammodensity.evaluation.infn_tables import write_infn_tables
from mammodensity.evaluation.score_tables import write_score_table
from mammodensity.exam import Exam, Mammogram
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.default import TissueModel
from mammodensity.models.scoring import (
    Model,
    ScoredExam,
    predict_in_workers,
    require_networks,
    score_exam,
    score_records,
    scored_exams,
    stacked_projections,
)
from mammodensity.models.trained import load_model, model_hashes, model_name
from mammodensity.outputs import receipt, staged_folder, write_json
from mammodensity.pages.exam_page import LIST_PX, MethodBlock, image_block, map_block
from mammodensity.pages.results import write_results_page
from mammodensity.results.calibration import Calibration, read_calibration
from mammodensity.results.result import SOURCE_FACTS, ExamResult, exam_result, require_same_fusion, write_result_table
from mammodensity.results.rules import STANDARD_RULES, Rules, read_rules
from mammodensity.results.score_calibration import require_coverage
from mammodensity.scores import POLICIES, ExamScores
from mammodensity.terms import Projection
from mammodensity.workers import Progress

Data = Path | str | Sequence[Path | str] | DataSet | Exam
"""Exams: a path, several paths, the images found under them, or one exam."""
Sources = Mapping[Projection, Mapping[str, str]]
Kept = tuple[ExamScores, Sequence[MethodBlock], Sources]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The results of some exams, and what made them."""

    results: list[ExamResult]
    """One result an exam, in sorted order of their names."""
    scores: list[ExamScores]
    """The scores of the model, before calibration."""
    data: DataSet | None
    """The data set of the images; None for an exam in memory."""
    model_name: str
    """The name of its folder, with the beginning of a hash of its files."""
    warnings: list[str]
    """Facts that a user of these results must know, a line each."""
    pictures: Mapping[str, Sequence[MethodBlock]]
    """Pictures for a page, by the exam's name."""
    provenance: dict[str, Any]
    """Versions, hashes of the model and rules: what the JSON file says of each result."""

    @property
    def refused(self) -> list[str]:
        """Reasons why images could not be used, a line each."""
        return [text for exam in self.scores for text in exam.refused.values()]

    def to_list(self, *, notification: bool = False) -> list[dict[str, Any]]:
        """JSON values of every result, as the published schema says.

        Parameters
        ----------
        notification
            Add the sentence of 21 CFR 900.12(c).
        """
        return [result.to_dict(notification=notification) for result in self.results]

    def write_json(self, path: Path, *, notification: bool = False) -> None:
        """Write what `to_list` gives."""
        write_json(path, self.to_list(notification=notification))

    def write_scores(self, path: Path) -> None:
        """Write the table of scores, seven rows an exam: each projection, each breast and the subject."""
        write_score_table(path, self.scores)

    def write_results(self, path: Path) -> None:
        """Write the table of results, one row an exam."""
        write_result_table(path, self.results)

    def write_infn(self, folder: Path) -> None:
        """Write the four text files of INFN and ``rows.csv``.

        Rows are in the order of INFN's files: by category folder, then by name. All files are written, or none.

        Raises
        ------
        LayoutError
            The data set has other categories than A to D.
        """
        labels = reference_densities(self.data) if self.data else {}
        rows = sorted(self.scores, key=lambda exam: (labels.get(exam.exam_id, ""), exam.exam_id))
        with staged_folder(folder) as staging:
            write_infn_tables(staging, [exam.exam_id for exam in rows], stacked_projections(rows), labels)

    def write_page(self, path: Path, *, notification: bool = False) -> None:
        """Write one HTML page of the results, with the pictures that `predict` was asked for."""
        write_results_page(
            path,
            self.results,
            model=self.model_name,
            warnings=self.warnings,
            notification=notification,
            pictures=self.pictures,
        )


class Predictor:
    """A model with its calibration, rules and fusion: what turns the images of an exam into its result.

    Parameters
    ----------
    model, fusion, policy, coverage, rules, allow_missing, device, engine
        As of `predict`.

    Raises
    ------
    CheckpointError
        The model is damaged, or was calibrated with another fusion or policy.
    OptionError, DeviceError
        An option makes no sense, or the device is absent.
    """

    def __init__(
        self,
        model: Model | Path | str | None = None,
        *,
        fusion: str | None = None,
        policy: str | None = None,
        coverage: float | None = None,
        rules: Rules | Path | None = None,
        allow_missing: bool = False,
        device: str = "auto",
        engine: str = "torch",
    ) -> None:
        folder = Path(model) if isinstance(model, (str, Path)) else getattr(model, "folder", None)
        self.calibration = read_calibration(folder) if folder else None
        self.rules = rules if isinstance(rules, Rules) else read_rules(rules) if rules else STANDARD_RULES
        fusion, policy = _fusion_and_policy(self.calibration, fusion, policy)
        if coverage is not None:
            require_coverage(coverage)
            if self.calibration is None:
                raise OptionError(
                    "coverage needs a calibrated model: name its folder; `mammodensity calibrate` makes one"
                )
        self.coverage = coverage
        self.load = partial(load_model, folder, device, engine)
        """Loads the model anew, in a process of its own."""
        self.model: Model = self.load() if model is None or isinstance(model, (str, Path)) else model
        self.warnings = [*self.model.warnings, *(self.calibration.warnings if self.calibration else ())]
        self.name = model_name(folder)
        """The name of the model's folder, with the beginning of a hash of its files."""
        self.provenance = receipt(
            "predict",
            model_name=self.name,
            model=model_hashes(folder),
            warnings=self.warnings,
            rules=self.rules.to_dict(),
        )
        self.how: dict[str, Any] = {
            "fusion": fusion or self.model.fusion,
            "policy": policy,
            "allow_missing": allow_missing,
        }
        """Options of `score_records`."""

    def score(self, exam_id: str, records: Mapping[Projection, ImageRecord]) -> ScoredExam:
        """Read and score one exam."""
        return score_records(self.model, exam_id, records, **self.how)

    def result(self, exam: ExamScores, *, sources: Sources | None = None) -> ExamResult:
        """The result of an exam with these scores."""
        return exam_result(
            exam,
            self.calibration,
            rules=self.rules,
            coverage=self.coverage,
            provenance=self.provenance,
            sources=sources,
        )


def predict(
    data: Data,
    *,
    model: Model | Path | str | None = None,
    split: str | None = None,
    fusion: str | None = None,
    policy: str | None = None,
    coverage: float | None = None,
    rules: Rules | Path | None = None,
    allow_missing: bool = False,
    complete: bool = False,
    synthetic: bool = False,
    device: str = "auto",
    engine: str = "torch",
    workers: int = 1,
    pictures: int = 0,
    identify: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Predict the category of each exam, or abstain, with flags, scores and percent density.

    Parameters
    ----------
    data
        A path, several paths, a data set, or one exam in memory.
    model
        None for the default model; else a model folder, or a loaded model.
    split
        Only the exams of this split: ``train``, ``validation`` or ``test``.
    fusion
        One of `FUSION_METHODS`; None for that of the calibration, or of the model.
    policy
        One of `POLICIES`; None for that of the calibration, or the mean.
    coverage
        Of prediction sets, from 0 to 1; None for that of the calibration.
    rules
        When exams are flagged and get no category, or a JSON file that says so; None for the standard rules.
    allow_missing
        Fuse the views present where an exam lacks some.
    complete
        Refuse data and models that lack a projection, before an image is scored: INFN's text files need all four.
    synthetic
        Accept 2-D images computed from tomosynthesis.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    engine
        What runs trained networks: ``torch``, ``onnx``, ``openvino`` or ``openvino-int8``.
    workers
        Processes that score exams side by side; more than one needs a model folder or the default model.
    pictures
        How many exams get pictures for a page; those of the default model show the dense tissue.
    identify
        Let results name the file, study date, unit and accession number of each image, which may identify patients.
    progress
        Called with how many exams are scored, and how many there are.

    Raises
    ------
    LayoutError, ImageError
        The data cannot be used, or every image is refused.
    CheckpointError
        The model is damaged, or lacks a network for the data, or was calibrated with another fusion or policy.
    OptionError, DeviceError
        An option makes no sense, or the device is absent.
    Interrupted
        Ctrl-C; its ``done`` are the `Predictions` of the exams scored so far.
    """
    exams = data if isinstance(data, Exam) else find_data(data, split=split, synthetic=synthetic)
    if workers > 1 and not (model is None or isinstance(model, (str, Path))):
        raise OptionError("several workers each load the model: name its folder instead of giving a loaded one")
    if complete and isinstance(exams, DataSet):
        require_complete(exams)
    predictor = Predictor(
        model,
        fusion=fusion,
        policy=policy,
        coverage=coverage,
        rules=rules,
        allow_missing=allow_missing,
        device=device,
        engine=engine,
    )
    if isinstance(exams, DataSet):
        require_networks(predictor.model, exams, all_projections=complete)
    names = list(exams.exams()) if isinstance(exams, DataSet) else [exams.exam_id]
    keep = partial(_keep, frozenset(names[:pictures]), identify)
    kept: list[Kept] = []
    try:
        with closing(_scored(exams, predictor, workers=workers, keep=keep)) as scored:
            for exam in scored:
                kept.append(exam)
                if progress:
                    progress(len(kept), len(names))
    except KeyboardInterrupt:
        done = _predictions(exams, predictor, kept, identify=identify)
        raise Interrupted(f"interrupted; {len(kept)} of {len(names)} exams were scored", done) from None
    predictions = _predictions(exams, predictor, kept, identify=identify)
    if predictions.refused and not any(exam.projections for exam in predictions.scores):
        raise ImageError(predictions.refused[0])
    return predictions


def _scored(
    exams: DataSet | Exam, predictor: Predictor, *, workers: int, keep: Callable[[Model, ScoredExam], Kept]
) -> Generator[Kept, None, None]:
    """Score exam by exam, in this process or in several."""
    if isinstance(exams, Exam):
        yield keep(predictor.model, score_exam(predictor.model, exams, **predictor.how))
    elif workers > 1:
        yield from predict_in_workers(predictor.model, predictor.load, exams, workers, keep=keep, **predictor.how)
    else:
        for exam in scored_exams(predictor.model, exams, **predictor.how):
            yield keep(predictor.model, exam)


def _predictions(exams: DataSet | Exam, predictor: Predictor, kept: Sequence[Kept], *, identify: bool) -> Predictions:
    """Make the results of the exams scored; only with ``identify`` do they name files of refused images."""
    data_set = exams if isinstance(exams, DataSet) else None
    records = data_set.exams() if data_set and not identify else {}
    results = [
        predictor.result(
            replace(scores, refused=without_paths(scores.refused, records.get(scores.exam_id, {}))), sources=sources
        )
        for scores, _, sources in kept
    ]
    pictures = {scores.exam_id: blocks for scores, blocks, _ in kept if blocks}
    all_scores = [scores for scores, _, _ in kept]
    return Predictions(
        results, all_scores, data_set, predictor.name, predictor.warnings, pictures, predictor.provenance
    )


def _keep(pictured: frozenset[str], identify: bool, scorer: Model, exam: ScoredExam) -> Kept:
    """Keep the scores of an exam, and pictures and facts of its views if they are asked for; let its images go."""
    facts = {projection: _source(view.mammogram) for projection, view in exam.views.items()} if identify else {}
    if exam.scores.exam_id not in pictured or not exam.views:
        return exam.scores, (), facts
    if isinstance(scorer, TissueModel):
        return exam.scores, (map_block(explain_exam(scorer, exam), longest_px=LIST_PX),), facts
    return exam.scores, (image_block(exam.views, longest_px=LIST_PX),), facts


def without_paths(
    refused: Mapping[Projection, str], records: Mapping[Projection, ImageRecord]
) -> dict[Projection, str]:
    """Reasons why images were refused, without the names of their files, which may identify patients."""
    return {view: records[view].without_paths(text) if view in records else text for view, text in refused.items()}


def _source(image: Mammogram) -> dict[str, str]:
    return {name: image.facts.get(name, "") for name in SOURCE_FACTS} | {"file": str(image.path or "")}


def find_data(
    data: Path | str | Sequence[Path | str] | DataSet, *, split: str | None = None, synthetic: bool = False
) -> DataSet:
    """Find the images under one path or several, reading no pixels; a data set is taken as it is.

    Raises
    ------
    OptionError
        There is no such split.
    LayoutError
        Nothing is there, the arrangement is not known, no image is in the split, or two paths hold exams of one name.
    """
    if split is not None and split not in SPLITS:
        raise OptionError(f"split must be one of {', '.join(SPLITS)}. Got {split!r} instead.")
    if not isinstance(data, DataSet):
        data = find_all_images([data] if isinstance(data, (str, Path)) else data, synthetic=synthetic)
    images = data.in_split(split)
    if not images.records:
        raise LayoutError(
            f"{data.root} has no image in the {split} split; `mammodensity check` shows which splits there are"
        )
    return images


def _fusion_and_policy(
    calibration: Calibration | None, fusion: str | None, policy: str | None
) -> tuple[str | None, str]:
    """Return what is asked for; else what the calibration was fitted to; else the model's fusion, and the mean."""
    if policy is not None and policy not in POLICIES:
        raise OptionError(f"policy must be one of {', '.join(POLICIES)}. Got {policy!r} instead.")
    if calibration is None:
        return fusion, policy or "mean"
    chosen = fusion or calibration.fusion, policy or calibration.policy
    require_same_fusion(calibration, *chosen)
    return chosen
