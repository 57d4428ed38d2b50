"""Experiments on phantoms behind the choices of training: three tables of docs/measurements.md.

python benchmarks/training_figures.py recipes [--exams 240] [--rows 128] [--epochs 16] [--seeds 3] [--workers 2]
python benchmarks/training_figures.py start [--labelled 50 100 200] [--rows 96] [--epochs 20] [--seeds 3] [--workers 2]
python benchmarks/training_figures.py joint [--labelled 40 160] [--rows 64] [--epochs 16] [--seeds 4] [--work FOLDER]

recipes: which parts of the recipe `small` help? Each is put back to INFN's choice. Every variant trains four networks
on the same phantoms, once a seed, which draws the initial weights, the order and the augmentation.

start: what does `train --start` save a site that has few labelled exams? The site is made of phantoms of other women,
in another look for each image (processing, crops, tones, markers); the start has seen plain phantoms only. One network.

joint: is one joint network better than four networks whose scores are averaged? Each seed also draws the labelled
exams. Test exams are scored whole, with two views and with one view (mean over the subsets of that size). Differences
are paired by seed, with Student's 95 % interval. Finished trainings are kept in FOLDER, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from scipy.stats import t as student

from mammodensity.anatomy.read_view import ReadView
from mammodensity.data.dataset import DataSet, reference_categories
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam, read_image
from mammodensity.data.splits import with_splits
from mammodensity.evaluation.agreement import confusion_matrices, weighted_kappa
from mammodensity.evaluation.test_split import evaluate_model
from mammodensity.models.batch import AugmentSpec
from mammodensity.models.trained import DensityModel, JointModel, load_networks
from mammodensity.phantom.appearance import Look
from mammodensity.phantom.breast import draw_anatomy
from mammodensity.phantom.disturbances import Disturbance, disturb
from mammodensity.phantom.exams import PhantomSpec, trace_breast, write_phantoms
from mammodensity.scores import fuse_views
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection
from mammodensity.training.joint_network import JointPlan
from mammodensity.training.recipes import RECIPES, Recipe, adapted, find_recipe
from mammodensity.workflows.train import train_model


def mean_and_range(values: Sequence[float]) -> str:
    """Mean (smallest to largest)."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def with_few(images: DataSet, labelled: int, tests: int, seed: int) -> DataSet:
    """The same exams to test, four fifths of ``labelled`` others to train and a fifth to validate."""
    names = sorted(images.exams())
    order = np.random.default_rng(0).permutation(len(names))
    test, rest = [names[i] for i in order[:tests]], [names[i] for i in order[tests:]]
    chosen = [rest[i] for i in np.random.default_rng(seed).permutation(len(rest))[:labelled]]
    split = {**dict.fromkeys(test, "test"), **dict.fromkeys(chosen, "train")}
    split |= dict.fromkeys(chosen[: labelled // 5], "validation")
    records = (replace(record, split=split.get(record.exam_id, "")) for record in images.records)
    return replace(images, records=tuple(record for record in records if record.split))


def in_processes(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int, name: str) -> list[Any]:
    """Do all jobs in processes of their own, with a progress bar."""
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(track(pool.map(function, jobs), total=len(jobs), description=name))


# Recipes

SHARES = (0.5, 0.1, 0.4)  # many test exams, so that differences can be seen


def variants(rows: int, epochs: int) -> dict[str, Recipe]:
    """The recipes, by the part that is changed."""
    small, origin = (adapted(RECIPES[name], epochs=epochs, size=rows) for name in ("small", "origin"))
    sgd = {"optimiser": "sgd", "learning_rate": 0.01, "weight_decay": 0.0, "schedule": "plateau"}
    return {
        "origin": origin,
        "small": small,
        "small, plain SGD on a plateau schedule": replace(small, **sgd),
        "small, mean-centred only": replace(small, preprocess=replace(small.preprocess, centring="mean")),
        "small, nearest pixel": replace(small, preprocess=replace(small.preprocess, interpolation="nearest")),
        "small, INFN's augmentation": replace(small, augment=AugmentSpec()),
        "small, no augmentation": replace(small, augment=AugmentSpec(zoom=0, shift=0, rotation_degrees=0)),
        "small, Keras' norm momentum": replace(small, network=replace(small.network, norm_momentum=0.01)),
        "small, batch 4": replace(small, batch=4),
        "small, kept by accuracy": replace(small, select="accuracy"),
        "small, INFN's network": replace(small, network=replace(origin.network, channels=1, norm_momentum=0.1)),
    }


def try_recipe(job: tuple[str, Recipe, Path]) -> tuple[str, float, float, float, float]:
    """Train and test once: name, subject accuracy, quadratic kappa, mean view accuracy, seconds."""
    name, recipe, data = job
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        train_model(with_splits(find_images(data), seed=1, shares=SHARES), model, recipe)
        seconds = time.perf_counter() - started
        evaluation = evaluate_model(model, device="cpu")
    assert evaluation is not None
    figures = evaluation.figures
    views = float(np.mean([figures[projection].accuracy for projection in PROJECTIONS]))
    return name, figures["subject"].accuracy, figures["subject"].quadratic_kappa, views, seconds


def compare_recipes(options: argparse.Namespace) -> None:
    """Print a row for each recipe."""
    recipes = variants(options.rows, options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantoms"
        write_phantoms(PhantomSpec(rows=options.rows, seed=7), options.exams, data)
        seeds = range(1, options.seeds + 1)
        jobs = [(name, replace(recipe, seed=seed), data) for seed in seeds for name, recipe in recipes.items()]
        results = in_processes(try_recipe, jobs, options.workers, "train")
    print(f"{options.exams} phantom exams of {options.rows} rows, split {SHARES}, {options.epochs} epochs,")
    print(f"{options.seeds} seeds: mean (smallest to largest).\n")
    print("| recipe | exam accuracy | quadratic kappa | view accuracy | seconds to train, one core |")
    print("| --- | --- | --- | --- | --- |")
    for name in recipes:
        columns = np.array([result[1:] for result in results if result[0] == name]).T
        print(f"| {name} | {' | '.join(map(mean_and_range, columns[:3]))} | {columns[3].mean():.0f} |")


# A start from phantoms

SITE = Disturbance(look=Look(amount=False), film=0.0)  # the category is that of the phantom
VIEW = Projection.CC_R
TEST_EXAMS, START_EXAMS = 200, 400


@dataclass(frozen=True)
class SiteTraining:
    """One training of a site."""

    labelled: int
    seed: int
    start: Path | None
    recipe: Recipe
    site: Path


def write_site_image(spec: PhantomSpec, root: Path, index: int) -> None:
    """Write the right CC of one exam as the site would have it."""
    category = draw_anatomy(spec.seed, index, spec.mix).category
    rng = np.random.default_rng([spec.seed, index])
    grey, _ = disturb(trace_breast(spec, index, "R")["CC"], (spec.rows, spec.cols), rng, SITE)
    folder = root / VIEW / category
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.ascontiguousarray(np.rint(grey[:, ::-1] * 255).astype(np.uint8))
    Image.fromarray(pixels).save(folder / f"{index:04d}_1_{category}_{VIEW}.png")


def site_accuracy(job: SiteTraining) -> float:
    """Accuracy of the site's network on its test exams."""
    with tempfile.TemporaryDirectory() as folder:
        model, images = Path(folder) / "model", with_few(find_images(job.site), job.labelled, TEST_EXAMS, job.seed)
        train_model(images, model, replace(job.recipe, seed=job.seed), projections=[VIEW], start=job.start)
        evaluation = evaluate_model(model, device="cpu")
    assert evaluation is not None
    return evaluation.figures[VIEW].accuracy


def compare_starts(options: argparse.Namespace) -> None:
    """Print a row for each number of labelled exams."""
    recipe = adapted(find_recipe("small"), epochs=options.epochs, size=options.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start, site = folder / "start", folder / "site"
        write_phantoms(PhantomSpec(rows=options.rows, seed=21), START_EXAMS, folder / "plain")
        train_model(find_images(folder / "plain"), start, recipe, projections=[VIEW])
        write = partial(write_site_image, PhantomSpec(rows=options.rows, seed=22), site)
        in_processes(write, range(TEST_EXAMS + max(options.labelled)), options.workers, "site")
        seeds = range(1, options.seeds + 1)
        jobs = [
            SiteTraining(labelled, seed, begun, recipe, site)
            for labelled in options.labelled
            for seed in seeds
            for begun in (None, start)
        ]
        accuracies = in_processes(site_accuracy, jobs, options.workers, "train")
        network = load_networks(start)
        tests = with_few(find_images(site), 5, TEST_EXAMS, 0).in_split("test").records
        scores = [network.score_images(VIEW, [read_image(record.path, VIEW)])[0] for record in tests]
        predicted = [CATEGORIES[row.argmax()] for row in scores]
        alone = np.mean([category == record.category for category, record in zip(predicted, tests, strict=True)])
    print(f"{options.rows} rows, {options.epochs} epochs, {options.seeds} seeds; mean (smallest to largest).")
    print(f"The start itself, on the test exams of the site: {alone:.3f}.\n")
    print("| labelled exams | from random weights | from phantoms |\n| --- | --- | --- |")
    for labelled in options.labelled:
        cells = []
        for begun in (None, start):
            chosen = [(job.labelled, job.start) == (labelled, begun) for job in jobs]
            cells.append(mean_and_range(np.array(accuracies)[chosen]))
        print(f"| {labelled} | {' | '.join(cells)} |")


# Joint or separate

BEGUN = "begun with the four"
PLANS: dict[str, JointPlan | None] = {
    "four networks, averaged": None,
    "joint, mean": JointPlan("mean"),
    "joint, concat": JointPlan("concat"),
    "joint, attention": JointPlan("attention"),
    "joint, attention, shared branches": JointPlan("attention", "shared"),
    f"joint, mean, {BEGUN}": JointPlan("mean"),
    f"joint, concat, {BEGUN}": JointPlan("concat"),
}
"""Those begun with the four see as many images: the last quarter of the epochs, with a tenth of the rate, are joint."""
SUBSETS = {"4 views": 4, "2 views": 2, "1 view": 1}
FIGURES = {"accuracy": "accuracy", "kappa": "quadratic kappa", "nll": "negative log likelihood"}


def subset_scores(model: DensityModel, tests: DataSet) -> dict[str, list[Any]]:
    """Scores (N, 4) of every subset of views, by its size."""
    by_size: dict[str, dict[tuple[Any, ...], list[Any]]] = {name: {} for name in SUBSETS}
    for exam_id, records in tests.exams().items():
        images = load_exam(exam_id, records).mammograms
        views = {view: model.score_view(ReadView(image, view)) for view, image in images.items()}
        for name, size in SUBSETS.items():
            for subset in combinations(PROJECTIONS, size):
                if isinstance(model, JointModel):
                    scores = model.scores_of({view: views[view].features for view in subset})
                else:
                    scores = fuse_views({view: views[view].scores for view in subset})
                by_size[name].setdefault(subset, []).append(scores)
    return {name: [np.stack(rows) for rows in subsets.values()] for name, subsets in by_size.items()}


def score_figures(scores: Any, truth: Any) -> dict[str, float]:
    """Accuracy, quadratic kappa and negative log likelihood of scores (N, 4)."""
    matrix = confusion_matrices(truth, scores.argmax(axis=1), np.ones((1, len(truth))))
    return {
        "accuracy": float((scores.argmax(axis=1) == truth).mean()),
        "kappa": float(weighted_kappa(matrix, power=2)[0]),
        "nll": float(-np.log(np.maximum(scores[np.arange(len(truth)), truth], 1e-12)).mean()),
    }


def try_plan(data: DataSet, recipe: Recipe, plan: JointPlan | None, *, begun: bool) -> dict[str, dict[str, float]]:
    """Train by one plan, and give its figures by number of views."""
    with tempfile.TemporaryDirectory() as folder:
        four = Path(folder) / "four" if begun else None
        if four:
            last = recipe.epochs // 4
            train_model(data, four, adapted(recipe, epochs=recipe.epochs - last))
            recipe = replace(recipe, epochs=last, learning_rate=recipe.learning_rate / 10)
        train_model(data, Path(folder) / "model", recipe, joint=plan, start=four)
        tests = data.in_split("test")
        by_size = subset_scores(load_networks(Path(folder) / "model", "cpu"), tests)
    reference = reference_categories(tests)
    truth = np.array([reference[exam_id].index for exam_id in tests.exams()])
    means = {}
    for name, subsets in by_size.items():
        rows = [score_figures(scores, truth) for scores in subsets]
        means[name] = {figure: statistics.mean(row[figure] for row in rows) for figure in FIGURES}
    return means


def trainings(options: argparse.Namespace, work: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Labelled exams, plan and figures of each training, read where they are kept already."""
    phantoms = work / f"phantoms-{options.rows}"
    if not phantoms.exists():
        count = options.tests + 2 * max(options.labelled)
        write_phantoms(PhantomSpec(rows=options.rows, seed=31), count, phantoms, workers=1)
    images = find_images(phantoms)
    jobs = [(s, n, plan) for s in range(1, options.seeds + 1) for n in options.labelled for plan in PLANS]
    for seed, labelled, plan in track(jobs, description="train"):
        words = plan.replace(", ", "-").replace(" ", "-")
        path = work / f"{options.rows}-{options.epochs}-{options.tests}-{labelled}-{seed}-{words}.json"
        if not path.exists():
            recipe = adapted(find_recipe("small"), epochs=options.epochs, size=options.rows, seed=seed)
            data = with_few(images, labelled, options.tests, seed)
            path.write_text(json.dumps(try_plan(data, recipe, PLANS[plan], begun=plan.endswith(BEGUN))))
        yield labelled, plan, json.loads(path.read_text())


def interval(values: Sequence[float]) -> str:
    """Mean and Student's 95 % interval of the mean."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    reach = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} ({mean - reach:.3f} to {mean + reach:.3f})"


def compare_joint(options: argparse.Namespace) -> None:
    """Print a table for each number of labelled exams and of views."""
    torch.set_num_threads(1)
    results: dict[tuple[int, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for labelled, plan, figures in trainings(options, work):
            results.setdefault((labelled, plan), []).append(figures)
    first = next(iter(PLANS))
    for labelled in options.labelled:
        for views in SUBSETS:
            print(f"\n{labelled} labelled exams, {views}\n")
            print("| network | " + " | ".join(f"{word} | to four" for word in FIGURES.values()) + " |")
            print("| --- |" + " --- |" * (2 * len(FIGURES)))
            for plan in PLANS:
                cells: list[str] = []
                for figure in FIGURES:
                    values, base = ([row[views][figure] for row in results[labelled, p]] for p in (plan, first))
                    paired = [a - b for a, b in zip(values, base, strict=True)]
                    cells += [f"{statistics.mean(values):.3f}", "" if plan == first else interval(paired)]
                print(f"| {plan} | " + " | ".join(cells) + " |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)

    def part(name: str, run: Callable[..., None], rows: int, epochs: int, seeds: int) -> argparse.ArgumentParser:
        command = parts.add_parser(name)
        command.set_defaults(run=run)
        for option, default in (("--rows", rows), ("--epochs", epochs), ("--seeds", seeds), ("--workers", 2)):
            command.add_argument(option, type=int, default=default)
        return command

    def labelled(command: argparse.ArgumentParser, numbers: Iterable[int]) -> None:
        command.add_argument("--labelled", type=int, nargs="+", default=list(numbers), help="labelled exams")

    part("recipes", compare_recipes, 128, 16, 3).add_argument("--exams", type=int, default=240)
    labelled(part("start", compare_starts, 96, 20, 3), (50, 100, 200))
    joint = part("joint", compare_joint, 64, 16, 4)
    labelled(joint, (40, 160))
    joint.add_argument("--tests", type=int, default=160, help="test exams")
    joint.add_argument("--work", type=Path, help="folder that keeps finished trainings; none are kept by default")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
