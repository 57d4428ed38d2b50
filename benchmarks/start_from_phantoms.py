"""What a start from phantoms saves a site that has few labelled exams.

usage: python benchmarks/start_from_phantoms.py [--rows N] [--epochs N] [--labelled N ...] [--seeds N] [--workers N]

The site is made of phantoms of another randomisation: other women, in another look for each image (vendors' processing,
crops, tones, markers), where the start has seen plain phantoms only. One network (CC_R), the same test exams for all,
with random weights or with `train --start`. Prints the table that docs/measurements.md keeps.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from mammodensity.data.dataset import DataSet
from mammodensity.data.find import find_images
from mammodensity.phantom.appearance import Look
from mammodensity.phantom.breast import draw_anatomy
from mammodensity.phantom.disturbances import Disturbance, disturb
from mammodensity.phantom.exams import PhantomSpec, trace_breast, write_phantoms
from mammodensity.terms import Projection
from mammodensity.training.recipes import Recipe, adapted, find_recipe

SITE = Disturbance(look=Look(amount=False), film=0.0)  # the category is that of the phantom
ONE = Projection.CC_R
TEST_EXAMS = 200
START_EXAMS = 400


@dataclass(frozen=True)
class Job:
    """One training."""

    labelled: int
    seed: int
    start: Path | None
    recipe: Recipe
    site: Path


def site_image(spec: PhantomSpec, root: Path, index: int) -> None:
    """Write the right CC of one exam as the site would have it."""
    category = draw_anatomy(spec.seed, index, spec.mix).category
    rng = np.random.default_rng([spec.seed, index])
    grey, _ = disturb(trace_breast(spec, index, "R")["CC"], (spec.rows, spec.cols), rng, SITE)
    folder = root / ONE / category
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.ascontiguousarray(np.rint(grey[:, ::-1] * 255).astype(np.uint8))
    Image.fromarray(pixels).save(folder / f"{index:04d}_1_{category}_{ONE}.png")


def with_few(images: DataSet, labelled: int, seed: int) -> DataSet:
    """Four fifths of ``labelled`` exams to train, a fifth to validate, the same exams to test."""
    names = sorted(record.exam_id for record in images.records)
    order = np.random.default_rng(0).permutation(len(names))
    test = {names[index] for index in order[:TEST_EXAMS]}
    rest = [names[index] for index in order[TEST_EXAMS:]]
    chosen = [rest[index] for index in np.random.default_rng(seed).permutation(len(rest))[:labelled]]
    split = {**dict.fromkeys(test, "test"), **dict.fromkeys(chosen, "train")}
    split |= dict.fromkeys(chosen[: labelled // 5], "validation")
    records = tuple(replace(one, split=split[one.exam_id]) for one in images.records if one.exam_id in split)
    return replace(images, records=records)


def accuracy(job: Job) -> float:
    """Of the view's network on the test exams."""
    import torch

    from mammodensity.evaluation.test_split import evaluate_model
    from mammodensity.workflows.train import train_model

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        images = with_few(find_images(job.site), job.labelled, job.seed)
        train_model(images, model, replace(job.recipe, seed=job.seed), projections=[ONE], start=job.start)
        evaluation = evaluate_model(model, device="cpu")
    assert evaluation is not None
    figures = evaluation.figures
    return figures[ONE].accuracy


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--labelled", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    from mammodensity.workflows.train import train_model

    recipe = adapted(find_recipe("small"), epochs=options.epochs, size=options.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(PhantomSpec(rows=options.rows, seed=21), START_EXAMS, folder / "plain")
        train_model(find_images(folder / "plain"), folder / "start", recipe, projections=[ONE])
        spec = PhantomSpec(rows=options.rows, seed=22)
        exams = range(TEST_EXAMS + max(options.labelled))
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            made = pool.map(partial(site_image, spec, folder / "site"), exams)
            list(track(made, total=len(exams), description="site"))
            jobs = [
                Job(labelled, seed, start, recipe, folder / "site")
                for labelled in options.labelled
                for seed in range(1, options.seeds + 1)
                for start in (None, folder / "start")
            ]
            results = list(track(pool.map(accuracy, jobs), total=len(jobs), description="train"))
        alone = accuracy_of_start(folder / "start", find_images(folder / "site"))
    print(f"{options.rows} rows, {options.epochs} epochs, {options.seeds} seeds; mean (smallest to largest).")
    print(f"The start itself, on the test exams of the site: {alone:.3f}.\n")
    print("| labelled exams | from random weights | from phantoms |\n| --- | --- | --- |")
    for labelled in options.labelled:
        cells = []
        for start in (True, False):
            found = [
                value
                for job, value in zip(jobs, results, strict=True)
                if job.labelled == labelled and (job.start is None) == start
            ]
            cells.append(f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")
        print(f"| {labelled} | {' | '.join(cells)} |")


def accuracy_of_start(model: Path, images: DataSet) -> float:
    """Accuracy of the start on the site's test exams, before it has seen the site."""
    from mammodensity.data.images import read_image
    from mammodensity.models.trained import load_networks

    scorer = load_networks(model)
    test = [one for one in with_few(images, 5, 0).records if one.split == "test"]
    right = [
        "ABCD"[int(scorer.score_images(ONE, [read_image(one.path, ONE)])[0].argmax())] == one.category for one in test
    ]
    return float(np.mean(right))


if __name__ == "__main__":
    main()
