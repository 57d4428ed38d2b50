"""Which parts of the recipe `small` are worth it: each is put back to INFN's choice, on phantoms.

usage: python benchmarks/recipes.py [--exams N] [--rows N] [--epochs N] [--seeds N] [--workers N]

Every variant trains four networks on the same phantoms with the same epochs, and is scored on the same test exams,
once a seed (the seed draws the initial weights, the order and the augmentation; splits and phantoms stay). Prints the
table that docs/measurements.md keeps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import track

from mammodensity.data.find import find_images
from mammodensity.data.splits import with_splits
from mammodensity.models.batch import AugmentSpec
from mammodensity.phantom.exams import PhantomSpec, write_phantoms
from mammodensity.training.recipes import RECIPES, Recipe

SHARES = (0.5, 0.1, 0.4)  # many test exams, so that differences can be seen
SPLIT_SEED = 1


def variants(rows: int, epochs: int) -> dict[str, Recipe]:
    """The recipes, by what is changed."""
    small, origin = (
        replace(recipe, epochs=epochs, preprocess=replace(recipe.preprocess, rows=rows, columns=rows))
        for recipe in (RECIPES["small"], RECIPES["origin"])
    )
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


def run(job: tuple[str, Recipe, Path]) -> tuple[str, float, float, float, float]:
    """Train and test once: name, subject accuracy, quadratic kappa, mean view accuracy, seconds."""
    import torch

    from mammodensity.evaluation.test_split import evaluate_model
    from mammodensity.terms import PROJECTIONS
    from mammodensity.workflows.train import train_model

    torch.set_num_threads(1)
    name, recipe, data = job
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        images = with_splits(find_images(data), seed=SPLIT_SEED, shares=SHARES)
        train_model(images, model, recipe)
        seconds = time.perf_counter() - started
        evaluation = evaluate_model(model, device="cpu")
    assert evaluation is not None
    figures = evaluation.figures
    views = float(np.mean([figures[projection].accuracy for projection in PROJECTIONS]))
    return name, figures["subject"].accuracy, figures["subject"].quadratic_kappa, views, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=240)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantoms"
        write_phantoms(PhantomSpec(rows=options.rows, seed=7), options.exams, data)
        recipes = variants(options.rows, options.epochs)
        jobs = [
            (name, replace(recipe, seed=seed), data)
            for seed in range(1, options.seeds + 1)
            for name, recipe in recipes.items()
        ]
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            results = list(track(pool.map(run, jobs), total=len(jobs), description="train"))
    print(f"{options.exams} phantom exams of {options.rows} rows, split {SHARES}, {options.epochs} epochs,")
    print(f"{options.seeds} seeds: mean (smallest to largest).\n")
    print("| recipe | exam accuracy | quadratic kappa | view accuracy | seconds to train, one core |")
    print("| --- | --- | --- | --- | --- |")
    for name in recipes:
        columns = np.array([result[1:] for result in results if result[0] == name])
        cells = [f"{column.mean():.3f} ({column.min():.3f} to {column.max():.3f})" for column in columns.T[:3]]
        print(f"| {name} | {' | '.join(cells)} | {columns[:, 3].mean():.0f} |")


if __name__ == "__main__":
    main()
