"""Calibrate a model with labelled exams: its scores, or the categories of the default model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammodensity.anatomy.density import DEFAULT_MAP
from mammodensity.data.dataset import DataSet
from mammodensity.errors import OptionError, OutputError
from mammodensity.evaluation.labels import match
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.models.checkpoint import NETWORK_FILE, joint_file, network_files
from mammodensity.models.default import MAP_FILE, write_category_map
from mammodensity.outputs import require_not_input, staged_folder, written_together
from mammodensity.pages.model_card import refresh_model_card
from mammodensity.results.calibration import (
    CALIBRATION_FILE,
    Calibration,
    find_overlap,
    fit_calibration,
    scores_of_views,
    write_calibration,
)
from mammodensity.results.category_fit import ENOUGH_EXAMS, CategoryFit, fit_categories
from mammodensity.scores import BY_THE_NETWORK
from mammodensity.terms import CATEGORIES
from mammodensity.workers import Progress
from mammodensity.workflows.evaluate import Labels, Scores, read_reference, read_scores, require_densities
from mammodensity.workflows.predict import Predictions, find_data


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Result of a calibration of scores, or of a category fit."""

    file: Path | None
    """The file written into the model folder; None for a category fit that is worse than the default map."""
    calibration: Calibration | None
    """The calibration of scores; None after a category fit."""
    category_fit: CategoryFit | None
    """The fit of the default model's categories; None after a calibration of scores."""
    refused: list[str]
    """Why images could not be used, a line each."""
    warnings: list[str]
    """Facts that a user of it must know, a line each."""


def calibrate(
    data: Scores | Sequence[Path | str] | DataSet,
    *,
    model: Path | str,
    labels: Labels | None = None,
    coverage: float | None = None,
    sets: str | None = None,
    fusion: str | None = None,
    policy: str | None = None,
    split: str | None = None,
    synthetic: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Calibrated:
    """Calibrate the scores of a model, or fit the categories of the default model to a site.

    Scores are calibrated if ``labels`` are given, or ``data`` are predictions. Otherwise ``data`` are labelled images,
    and the cuts between the categories are fitted to their percent density. Use exams that training has not seen.

    Parameters
    ----------
    data
        Scores: a table or its file, or `Predictions`. Or labelled images: a path, several paths, or a data set.
    model
        The model folder to write to. A folder without a model becomes one of the default model.
    labels
        The reference category of each exam.
    coverage, sets, fusion, policy
        For scores only: coverage of prediction sets (0.9), their kind (``ordinal``), and how views are fused and
        which decide (``mean``).
    split, synthetic
        For images only: use this split; accept 2-D images computed from tomosynthesis.
    force
        For images only: write a category fit that is worse than the default map.
    progress
        Called with how much is done, and of how much.

    Raises
    ------
    OptionError
        An option is for the other kind of calibration, or makes no sense.
    TableError, LayoutError, ImageError
        Scores, labels or images cannot be used, or are too few.
    OutputError
        The folder holds something else, or cannot be written.
    """
    folder = Path(model)
    if folder.is_file():
        raise OutputError(f"{folder} is a file, expected the folder of a model")
    for_scores = {"coverage": coverage, "sets": sets, "fusion": fusion, "policy": policy}
    for_images = {"split": split, "synthetic": synthetic or None, "force": force or None}
    if labels is None and not isinstance(data, (Predictions, ScoreTable)):
        _refuse(for_scores, "is for scores: give their labels, too")
        images = find_data(data, split=split, synthetic=synthetic)
        return _fit_categories(images, folder, force=force, progress=progress)
    _refuse(for_images, "is for images, not for scores with labels")
    if not isinstance(data, (Predictions, ScoreTable, Path, str)):
        raise OptionError("labels are for scores: give a table of scores, or predictions")
    require_not_input(
        folder / CALIBRATION_FILE, [Path(path) for path in (data, labels) if isinstance(path, (str, Path))]
    )
    joint = joint_file(folder) is not None
    if joint and fusion is not None:
        raise OptionError(f"{folder} holds a joint network, which fuses the views itself; leave --fusion out")
    fusion = BY_THE_NETWORK if joint else fusion or "mean"
    policy = policy or "mean"
    table = read_scores(data, None if joint else fusion)
    require_densities(table)
    calibration = fit_calibration(
        scores_of_views(table, fusion, policy),
        match(table, read_reference(labels, data)),
        fusion=fusion,
        policy=policy,
        coverage=0.9 if coverage is None else coverage,
        set_kind=sets or "ordinal",
        progress=progress,
    )
    if isinstance(labels, (str, Path)):
        calibration = replace(calibration, overlap=find_overlap(folder, Path(labels), table.exam_ids))
    _write(folder, calibration)
    return Calibrated(folder / CALIBRATION_FILE, calibration, None, [], [*_worth(calibration), *calibration.warnings])


def _write(folder: Path, calibration: Calibration) -> None:
    """Write a calibration into a model folder; a folder without a model becomes one of the default model."""
    # a joint network, several, or one
    trained = joint_file(folder) or network_files(folder) or (folder / NETWORK_FILE).is_file()
    if trained or (folder / MAP_FILE).is_file():
        with written_together():
            write_calibration(folder, calibration)
            refresh_model_card(folder, calibration)
    else:
        with staged_folder(folder) as staging:
            write_category_map(staging, DEFAULT_MAP, {})
            write_calibration(staging, calibration)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise ``OptionError`` for the first option that was given."""
    for name, value in options.items():
        if value is not None:
            raise OptionError(f"{name} {why}; see mammodensity calibrate --help")


def _worth(calibration: Calibration) -> Iterator[str]:
    """Say where a calibration did not help: it is written even so, and left to the user."""
    present = {int(place) for view in calibration.views.values() for place in view.reference}
    absent = [category for category in CATEGORIES if category.index not in present]
    if absent:
        yield f"no labelled exam is of category {', '.join(absent)}, which will hardly ever be predicted"
    figures = calibration.figures
    if not figures:
        yield "too few exams have all four views to judge the calibration of whole exams"
        return
    if figures["nll_after"] >= figures["nll_before"]:
        yield "the scores are no better calibrated than before; take more exams, or do without"
    lost = figures["accuracy_before"] - figures["accuracy_after"]
    if lost * figures["exams"] >= 1:
        yield f"accuracy is {100 * lost:.1f} points lower than before; take more exams, or do without"


def _fit_categories(images: DataSet, folder: Path, *, force: bool, progress: Progress | None) -> Calibrated:
    fit = fit_categories(images, folder, force=force, progress=progress)
    warnings = []
    if fit.exams < ENOUGH_EXAMS:
        warnings.append(f"fewer than {ENOUGH_EXAMS} exams; the default map still weighs in")
    if fit.worse:
        warnings.append("the fitted map agrees with fewer exams than the default map; more exams may help")
    elif fit.agreement_refitted == fit.agreement_default:
        warnings.append("the fitted map agrees with as many exams as the default map; more exams may help")
    file = folder / MAP_FILE if force or not fit.worse else None
    return Calibrated(file, None, fit, list(fit.refused), warnings)
