"""The command that reads exams."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mammodensity.commands import options
from mammodensity.commands.options import (
    Data,
    Device,
    Fusion,
    ModelOrDefault,
    Policy,
    Split,
    Synthetic,
    files_read,
    images_of,
    read_calibration,
)
from mammodensity.errors import ImageError, Interrupted, OptionError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mammodensity.data.dataset import DataSet
    from mammodensity.results.calibration import Calibration
    from mammodensity.results.rules import Rules
    from mammodensity.scores import ExamScores

_MOST_PICTURED = 40  # exams on a page of results


def predict(
    data: Data,
    model: ModelOrDefault = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Table to write.", metavar="FILE")] = None,
    origin_txt: Annotated[
        Path | None, typer.Option("--origin-txt", help="Also write the origin's four text files.", metavar="DIR")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results, as `schema` says.", metavar="FILE")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Also write the results as a table, one row an exam.", metavar="FILE"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the results as a page.", metavar="FILE")] = None,
    split: Split = None,
    fusion: Fusion = None,
    policy: Policy = None,
    coverage: Annotated[
        float | None, typer.Option(help="Of prediction sets; by default the calibration's own.", metavar="SHARE")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="JSON file of rules for flags and abstention.", metavar="FILE")
    ] = None,
    notification: Annotated[
        bool, typer.Option("--notification", help="Add the sentence of 21 CFR 900.12(c) to results.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Fuse the views present where views are missing, and mark it.")
    ] = False,
    synthetic: Synthetic = False,
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option(help="What runs trained networks: torch, onnx, openvino or openvino-int8.")
    ] = "torch",
    workers: Annotated[
        int, typer.Option(help="Processes that score exams side by side and share the cores.", min=1)
    ] = 1,
) -> None:
    """Read exams: category or abstention, with flags; scores by exam, breast and projection.

    Without --model the default model reads them, which also gives percent density. A model that was calibrated gives
    calibrated scores and prediction sets (--json, --results, --html); --csv always holds the scores as they are.

    Example: mammodensity predict phantoms --csv predictions.csv --html results.html
    """
    from mammodensity.commands.show import how_many, say, say_research_use_only
    from mammodensity.data.dataset import require_complete
    from mammodensity.models.scoring import predict as predict_exams
    from mammodensity.models.scoring import predict_in_workers, require_networks, scores_of
    from mammodensity.models.trained import load_model
    from mammodensity.outputs import require_not_input
    from mammodensity.results.rules import STANDARD_RULES, read_rules
    from mammodensity.results.score_calibration import require_coverage

    images = images_of(data, split, synthetic=synthetic)
    outputs = [path for path in (csv, json_file, results, html) if path]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OptionError("--csv, --json, --results and --html must name different files")
    for output in outputs:
        require_not_input(output, files_read(images, data, model))
    settings = read_rules(rules) if rules else STANDARD_RULES
    calibration = read_calibration(model)
    fusion, policy = _fusion_and_policy(calibration, fusion, policy)
    require_coverage(0.9 if coverage is None else coverage)
    if coverage is not None and calibration is None:
        raise OptionError("--coverage needs a calibrated model: give its folder with --model; `calibrate` makes one")
    if notification and not (json_file or html):
        raise OptionError("--notification adds to --json and --html; give one of them")
    if origin_txt:
        require_complete(images)  # before any image is scored
    scorer = options.load_model(model, device, engine)
    require_networks(scorer, images, all_projections=origin_txt is not None)
    how: dict[str, Any] = {"fusion": fusion, "policy": policy, "allow_missing": allow_missing}
    if workers > 1:
        load = partial(load_model, model, device, engine)
        exams = predict_in_workers(scorer, load, images, workers, keep=scores_of, **how)
    else:
        exams = predict_exams(scorer, images, **how)
    scored = _score(exams, images, csv)
    _write_scores(scored, images, csv, origin_txt)
    for exam in scored:
        for text in exam.refused.values():
            say(f"refused: {text}")
    _give_results(
        scored,
        (calibration, settings, coverage, model),
        {"json": json_file, "table": results, "page": html},
        notification=notification,
        warnings=(*scorer.warnings, *(calibration.warnings if calibration else ())),
        pictures=_tissue_pictures(scorer, images, scored) if html else {},
    )
    for path in (csv, results, json_file, html):
        if path:
            say(f"{how_many(len(scored), 'exam')} in {path}")
    say_research_use_only()


def _score(exams: Generator[ExamScores, None, None], images: DataSet, csv: Path | None) -> list[ExamScores]:
    """Score every exam; what is done is kept at Ctrl-C."""
    from mammodensity.commands.show import progress_bar

    scored: list[ExamScores] = []
    total = len({record.exam_id for record in images.records})
    try:
        with closing(exams), progress_bar("predict") as progress:
            for exam in exams:
                scored.append(exam)
                progress(len(scored), total)
    except KeyboardInterrupt:
        raise _keep_incomplete(csv, scored) from None
    refused = [text for exam in scored for text in exam.refused.values()]
    if refused and not any(exam.projections for exam in scored):
        raise ImageError(refused[0])
    return scored


def _write_scores(scored: list[ExamScores], images: DataSet, csv: Path | None, origin_txt: Path | None) -> None:
    from mammodensity.data.dataset import reference_densities
    from mammodensity.evaluation.infn_tables import write_origin_tables
    from mammodensity.evaluation.score_tables import write_score_table
    from mammodensity.models.scoring import stacked_projections
    from mammodensity.outputs import staged_folder

    if origin_txt:
        labels = reference_densities(images)
        # as the origin's files are sorted: by class folder, then by name
        rows = sorted(scored, key=lambda exam: (labels.get(exam.exam_id, ""), exam.exam_id))
        with staged_folder(origin_txt) as staging:  # all five files and the table, or none
            write_origin_tables(staging, [exam.exam_id for exam in rows], stacked_projections(rows), labels)
            if csv:
                write_score_table(csv, scored)
    elif csv:
        write_score_table(csv, scored)


def _give_results(
    scored: list[ExamScores],
    made_by: tuple[Calibration | None, Rules, float | None, Path | None],
    files: Mapping[str, Path | None],
    *,
    notification: bool,
    warnings: tuple[str, ...],
    pictures: Mapping[str, Any],
) -> None:
    """Turn scores into results by a calibration, rules and coverage; write those asked for, and show them."""
    from mammodensity.commands.show import show_results
    from mammodensity.models.trained import model_hashes, model_name
    from mammodensity.outputs import receipt, write_json
    from mammodensity.pages.results import MadeBy, write_results_page
    from mammodensity.results.result import exam_result, write_result_table

    calibration, rules, coverage, model = made_by
    name = model_name(model)
    facts = {"model_name": name, "model": model_hashes(model), "warnings": list(warnings), "rules": rules.to_dict()}
    provenance = receipt("predict", **facts)
    found = [exam_result(exam, calibration, rules=rules, coverage=coverage, provenance=provenance) for exam in scored]
    if path := files["json"]:
        write_json(path, [result.to_dict(notification=notification) for result in found])
    if path := files["table"]:
        write_result_table(path, found)
    if path := files["page"]:
        write_results_page(path, found, MadeBy(name, warnings), notification=notification, pictures=pictures)
    show_results(found)


def _tissue_pictures(scorer: Any, images: DataSet, scored: list[ExamScores]) -> dict[str, Any]:
    """What the default model found in the first exams, for their page; the maps of trained networks need a verdict."""
    from mammodensity.commands.show import progress_bar
    from mammodensity.data.images import load_exam
    from mammodensity.models.default import TissueModel
    from mammodensity.pages.examples import tissue_views

    if not isinstance(scorer, TissueModel):
        return {}
    pictures = {}
    records = images.exams()
    with progress_bar("pictures") as progress:
        for done, exam in enumerate(scored[:_MOST_PICTURED], start=1):
            used = {view: record for view, record in records[exam.exam_id].items() if view in exam.projections}
            pictures[exam.exam_id] = tissue_views(scorer, load_exam(exam.exam_id, used))
            progress(done, min(len(scored), _MOST_PICTURED))
    return pictures


def _fusion_and_policy(
    calibration: Calibration | None, fusion: str | None, policy: str | None
) -> tuple[str | None, str]:
    """As asked for; else as calibrated; else the model's own fusion, and the mean."""
    from mammodensity.results.result import require_same_fusion
    from mammodensity.scores import POLICIES

    if policy is not None and policy not in POLICIES:
        raise OptionError(f"--policy must be one of {', '.join(POLICIES)}. Got {policy!r} instead.")
    if calibration is None:
        return fusion, policy or "mean"
    chosen = fusion or calibration.fusion, policy or calibration.policy
    require_same_fusion(calibration, *chosen)
    return chosen


def _keep_incomplete(csv: Path | None, scored: list[Any]) -> Interrupted:
    """Write what is done beside the table that was asked for, under a name that says so."""
    from mammodensity.evaluation.score_tables import write_score_table

    if not scored or csv is None:
        return Interrupted("interrupted; nothing was written")
    incomplete = csv.with_name(f"{csv.stem}.incomplete{csv.suffix}")
    write_score_table(incomplete, scored)
    return Interrupted(f"interrupted; the {len(scored)} exams scored so far are in {incomplete}")
