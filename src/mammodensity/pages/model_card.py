"""The model card: networks, data, test figures, calibration and limits of a model."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from mammodensity.errors import CheckpointError, LayoutError
from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.evaluation.test_split import stored_evaluation
from mammodensity.models.checkpoint import JOINT, ViewNetwork
from mammodensity.models.joint import JointNetwork
from mammodensity.outputs import write_text
from mammodensity.pages.templates import render
from mammodensity.pages.wording import (
    DASH,
    cautions,
    count_tables,
    counted,
    figure_words,
    flattened,
    number,
    percent,
    result_in_words,
    sentence,
    training_in_words,
)
from mammodensity.results.calibration import CALIBRATION_FILE, Calibration, read_calibration
from mammodensity.terms import DENSITY, LEVEL_WORDS, RESEARCH_USE_ONLY, Scale
from mammodensity.training.records import RunRecord, read_run

CARD_FILE = "README.md"
_SHOWN = ("accuracy", "dense_accuracy", "linear_kappa", "quadratic_kappa", "auc")
_RECIPE_FACTS = ("epochs", "batch", "optimiser", "learning_rate", "weight_decay", "schedule", "select", "seed")


def write_model_card(model_folder: Path) -> Path:
    """Write ``README.md`` into a model folder, from its networks and files.

    Returns
    -------
    Path of the card.

    Raises
    ------
    CheckpointError, TableError
        The folder holds no model, or a file of it is damaged.
    LayoutError
        The manifest is damaged, or an image it names is gone.
    OutputError
        The card cannot be written.
    """
    run = read_run(model_folder)
    return _write_card(run, partial(read_calibration, run.folder))


def _write_card(run: RunRecord, read: Callable[[], Calibration | None]) -> Path:
    path = run.folder / CARD_FILE
    write_text(path, _without_double_blanks(render("model_card.md.jinja", _card_values(run, read))))
    return path


def refresh_model_card(model_folder: Path, calibration: Calibration) -> None:
    """Write the card again where there is one, for a calibration that is about to be written.

    A card whose manifest names images that are gone is left as it is.

    Raises
    ------
    CheckpointError, TableError, OutputError
        As `write_model_card`.
    """
    if (Path(model_folder) / CARD_FILE).is_file():
        with suppress(LayoutError):
            _write_card(read_run(model_folder), lambda: calibration)


def _without_double_blanks(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).rstrip() + "\n"


def _card_values(run: RunRecord, read: Callable[[], Calibration | None]) -> dict[str, Any]:
    evaluation = stored_evaluation(run.folder)
    figures = evaluation.figures if evaluation else None
    subject = figures["subject"] if figures else None
    recipe = _recipe(run)
    calibration, sentences = _calibration(run, read)
    return {
        "title": run.folder.resolve().name,
        "command_name": shlex.quote(run.folder.resolve().name),
        "research_use_only": RESEARCH_USE_ONLY,
        "categories": run.scale,
        "trained": training_in_words(run),
        "summary": result_in_words(subject) if subject else None,
        "imported": run.imported,
        "keras_files": {p: str(run.training(p).get("file", "a Keras file")).replace("`", "'") for p in run.imported},
        "joint": run.joint,
        "network_specs": _network_specs(run),
        "preprocess_specs": {p.value: flattened(asdict(c.preprocess)) for p, c in run.model.checkpoints.items()},
        "spec_table": _spec_table,
        "recipe": recipe,
        "recipe_facts": [(name.replace("_", " "), recipe[name]) for name in _RECIPE_FACTS if name in recipe],
        "kept": {network: epoch for network, epoch in run.kept.items() if epoch},
        "data": run.data,
        "data_facts": run.data_facts,
        "phantoms": run.phantoms,
        "counts": count_tables(run.data) if run.data else [],
        "figures": figures,
        "figure_words": figure_words(run.scale),
        "level_words": LEVEL_WORDS,
        "shown": _SHOWN,
        "cell": _cell,
        "dash": DASH,
        "reasons": _reasons(figures or {}, run.scale),
        "calibrated": calibration is not None,
        "calibration": sentences,
        "limits": _limits(run, subject, calibration),
        "of_density": run.scale == DENSITY,
    }


def _recipe(run: RunRecord) -> Mapping[str, Any]:
    recipes = [run.recipe, *(run.training(projection).get("recipe") for projection in run.model.checkpoints)]
    return next((recipe for recipe in recipes if isinstance(recipe, Mapping) and "name" in recipe), {})


def _network_specs(run: RunRecord) -> dict[str, list[tuple[str, str]]]:
    """The shape of each network, by projection, or ``joint``."""
    if run.joint:
        return {JOINT: _network_facts(run.joint)}
    return {view.value: _network_facts(saved.network) for view, saved in run.model.checkpoints.items()}


def _network_facts(network: ViewNetwork | JointNetwork) -> list[tuple[str, str]]:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return [("parameters", f"{parameters:,}"), *flattened(asdict(network.spec))]


def _spec_table(heading: str, specs: Mapping[str, list[tuple[str, str]]]) -> str:
    """A Markdown table with a column for each group of networks that share all values."""
    groups: list[tuple[list[str], dict[str, str]]] = []
    for network, pairs in specs.items():
        same = next((names for names, values in groups if values == dict(pairs)), None)
        if same is None:
            groups.append(([network], dict(pairs)))
        else:
            same.append(network)
    lines = [
        f"| {heading} | {' | '.join(', '.join(names) for names, _ in groups)} |",
        f"|---|{'---|' * len(groups)}",
    ]
    lines += [
        f"| {name.replace('_', ' ')} | {' | '.join(values[name] for _, values in groups)} |" for name in groups[0][1]
    ]
    return "\n".join(lines)


def _cell(figures: FiguresOfMerit, name: str) -> str:
    figure = figures[name]
    return number(figure.value) + (f" ({number(figure.low)} to {number(figure.high)})" if figure.interval else "")


def _reasons(figures: Mapping[str, FiguresOfMerit], scale: Scale) -> list[str]:
    """Reasons why figures of the table are undefined, each once."""
    reasons = [
        f"{figure_words(scale)[name][0]}: {values[name].reason}"
        for values in figures.values()
        for name in _SHOWN
        if values[name].reason
    ]
    return list(dict.fromkeys(reasons))


def _calibration(run: RunRecord, read: Callable[[], Calibration | None]) -> tuple[Calibration | None, list[str]]:
    """Read the calibration of the folder, and say whether and how the model is calibrated."""
    try:
        calibration = read()
    except CheckpointError:
        return None, [f"Not calibrated: `{CALIBRATION_FILE}` is damaged or was made for other networks."]
    if run.scale != DENSITY:
        return None, ["Not calibrated: calibration is made for the categories A to D only."]
    if calibration is None:
        return None, [
            "Not calibrated: `mammodensity calibrate` makes a calibration and prediction sets from labelled exams."
        ]
    exams = max(len(fitted.reference) for fitted in calibration.views.values())
    kinds = sorted({fitted.calibration_map.kind for fitted in calibration.views.values()})
    number_of_views = counted(len(calibration.views), "combination")
    sentences = [
        f"Calibrated on {counted(exams, 'exam')} (method: {', '.join(kinds)}), for {number_of_views} of views.",
        f"Views are fused by {calibration.fusion}; the exam follows the policy {calibration.policy}.",
    ]
    if figures := calibration.figures:
        sentences.append(
            f"By cross-validation, the calibration error falls from {number(figures['ece_before'])} to "
            f"{number(figures['ece_after'])}; perfectly calibrated scores would have {number(figures['ece_null_low'])} "
            f"to {number(figures['ece_null_high'])}."
        )
    sentences.append(f"Prediction sets: {calibration.set_kind}, coverage {percent(calibration.coverage)}.")
    sentences += [sentence(text) for text in calibration.warnings]
    return calibration, sentences


def _limits(run: RunRecord, subject: FiguresOfMerit | None, calibration: Calibration | None) -> list[str]:
    limits = [*cautions(run, subject), "Not validated clinically, on no unit and in no population."]
    if run.imported:
        limits.append("The training images are unknown: vendor, processing, population and readers.")
    elif not run.phantoms:
        limits.append(
            "It was trained on images of certain units, processing, population and readers. Expect other results on "
            "others, and test it there first."
        )
    limits += [
        "The reference is the category that each phantom was made for, not a reader's opinion."
        if run.phantoms
        else "The reference is a reader's opinion; readers disagree with each other and with themselves.",
        "Calibrated scores and prediction sets hold for exams like those of the calibration."
        if calibration
        else "Scores are not calibrated: 0.8 does not mean right in 80 of 100 exams.",
        "Not for magnified or spot views, tomosynthesis, implants, or FOR PROCESSING images.",
        "Density is not a finding: the model says nothing about cancer.",
    ]
    return limits
