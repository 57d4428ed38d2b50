"""The model card: what a model is, what it was made from, how it fared, and what it must not be used for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.evaluation.test_split import stored_evaluation
from mammodensity.models.checkpoint import JOINT, ViewNetwork
from mammodensity.models.joint import JointNetwork
from mammodensity.outputs import write_text
from mammodensity.pages.figure_tables import LEVEL_WORDS, count_tables, figure_words, flattened
from mammodensity.pages.templates import render
from mammodensity.pages.wording import DASH, cautions, number, what_was_found, what_was_trained
from mammodensity.terms import DENSITY, RESEARCH_USE_ONLY, Scale
from mammodensity.training.model_folder import RunRecord, read_run

CARD_FILE = "README.md"
_SHOWN = ("accuracy", "dense_accuracy", "linear_kappa", "quadratic_kappa", "auc")
_RECIPE_FACTS = ("epochs", "batch", "optimiser", "learning_rate", "weight_decay", "schedule", "select", "seed")


def write_model_card(model_folder: Path) -> Path:
    """Write ``README.md`` into a model folder, from what its networks and files say of themselves.

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
    path = run.folder / CARD_FILE
    write_text(path, _without_double_blanks(render("model_card.md.jinja", _card_values(run))))
    return path


def _without_double_blanks(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).rstrip() + "\n"


def _card_values(run: RunRecord) -> dict[str, Any]:
    evaluation = stored_evaluation(run.folder)
    figures = evaluation.figures if evaluation else None
    subject = figures["subject"] if figures else None
    recipe = _recipe(run)
    return {
        "title": run.folder.resolve().name,
        "command_name": shlex.quote(run.folder.resolve().name),
        "research_use_only": RESEARCH_USE_ONLY,
        "categories": run.scale,
        "trained": what_was_trained(run),
        "found": what_was_found(subject) if subject else None,
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
        "limits": _limits(run, subject),
        "of_density": run.scale == DENSITY,
    }


def _recipe(run: RunRecord) -> Mapping[str, Any]:
    recipes = [run.recipe, *(run.training(projection).get("recipe") for projection in run.model.checkpoints)]
    return next((recipe for recipe in recipes if isinstance(recipe, Mapping) and "name" in recipe), {})


def _network_specs(run: RunRecord) -> dict[str, list[tuple[str, str]]]:
    """The shape of each network, by projection, or ``joint``."""
    if run.joint:
        return {JOINT: _network_facts(run.joint)}
    return {view.value: _network_facts(one.network) for view, one in run.model.checkpoints.items()}


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
    """Why figures of the table are undefined, each reason once."""
    found = [
        f"{figure_words(scale)[name][0]}: {values[name].reason}"
        for values in figures.values()
        for name in _SHOWN
        if values[name].reason
    ]
    return list(dict.fromkeys(found))


def _limits(run: RunRecord, subject: FiguresOfMerit | None) -> list[str]:
    limits = [*cautions(run, subject), "Not validated clinically, on no unit and in no population."]
    if run.imported:
        limits.append("Nothing is known here of the training images: vendor, processing, population, readers.")
    elif not run.phantoms:
        limits.append(
            "It knows the units, processing, population and readers of its training images; expect other results "
            "on others, and test it there first."
        )
    limits += [
        "The reference is the category that each phantom was made to be, not a reader's opinion."
        if run.phantoms
        else "The reference is a reader's opinion; readers disagree with each other and with themselves.",
        "Scores are not calibrated: 0.8 does not mean right in 80 of 100 exams.",
        "Not meant for magnified or spot views, tomosynthesis, implants, or images for processing.",
        "Density is not a finding: the model says nothing about cancer.",
    ]
    return limits
