"""One joint network against four networks whose scores are averaged, on phantoms, over several seeds.

python benchmarks/joint_versus_separate.py [--rows 64] [--labelled 40 160] [--seeds 4] [--work FOLDER]

For each number of labelled exams and each seed (which draws the exams, the weights and the augmentation) it trains four
separate networks and a joint one of each kind by the same recipe, and scores the same test exams: whole, with views of
one breast, and with one view (mean over the subsets of that size). Finished trainings are kept in FOLDER, so that an
interrupted run goes on. Differences are paired by seed, with Student's 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from mammodensity.anatomy.read_view import ReadView
from mammodensity.data.dataset import DataSet, reference_categories
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam
from mammodensity.evaluation.agreement import confusion_matrices, weighted_kappa
from mammodensity.models.trained import DensityModel, JointModel, load_networks
from mammodensity.phantom.exams import PhantomSpec, write_phantoms
from mammodensity.scores import fuse_views
from mammodensity.terms import PROJECTIONS
from mammodensity.training.joint_network import JointPlan
from mammodensity.training.recipes import Recipe, adapted, find_recipe
from mammodensity.workflows.train import train_model

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


def chosen(images: DataSet, labelled: int, tests: int, seed: int) -> DataSet:
    """The same exams to test, four fifths of ``labelled`` others to train and a fifth to validate."""
    names = sorted(images.exams())
    order = np.random.default_rng(0).permutation(len(names))
    test, rest = [names[i] for i in order[:tests]], [names[i] for i in order[tests:]]
    some = [rest[i] for i in np.random.default_rng(seed).permutation(len(rest))[:labelled]]
    split = {**dict.fromkeys(test, "test"), **dict.fromkeys(some, "train")}
    split |= dict.fromkeys(some[: labelled // 5], "validation")
    return replace(
        images, records=tuple(replace(r, split=split[r.exam_id]) for r in images.records if r.exam_id in split)
    )


def subset_scores(model: DensityModel, tests: DataSet) -> dict[str, list[Any]]:
    """Scores (N, 4) of every subset of views, by its size."""
    found: dict[str, dict[tuple[Any, ...], list[Any]]] = {name: {} for name in SUBSETS}
    for exam_id, records in tests.exams().items():
        images = load_exam(exam_id, records).mammograms
        readings = {view: model.score_view(ReadView(image, view)) for view, image in images.items()}
        for name, size in SUBSETS.items():
            for views in combinations(PROJECTIONS, size):
                if isinstance(model, JointModel):
                    features = {view: readings[view].features for view in views}
                    scores = model.scores_of({view: one for view, one in features.items() if one is not None})
                else:
                    scores = fuse_views({view: readings[view].scores for view in views})
                found[name].setdefault(views, []).append(scores)
    return {name: [np.stack(rows) for rows in subsets.values()] for name, subsets in found.items()}


def figures(scores: Any, truth: Any) -> dict[str, float]:
    """Accuracy, quadratic kappa and negative log likelihood of scores (N, 4)."""
    matrix = confusion_matrices(truth, scores.argmax(axis=1), np.ones((1, len(truth))))
    return {
        "accuracy": float((scores.argmax(axis=1) == truth).mean()),
        "kappa": float(weighted_kappa(matrix, power=2)[0]),
        "nll": float(-np.log(np.maximum(scores[np.arange(len(truth)), truth], 1e-12)).mean()),
    }


def measure(data: DataSet, recipe: Recipe, plan: JointPlan | None, *, begun: bool) -> dict[str, Any]:
    """Train one kind and give its figures by number of views."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        four = Path(folder) / "four" if begun else None
        if four:
            last = recipe.epochs // 4
            train_model(data, four, adapted(recipe, epochs=recipe.epochs - last))
            recipe = replace(recipe, epochs=last, learning_rate=recipe.learning_rate / 10)
        train_model(data, Path(folder) / "model", recipe, joint=plan, start=four)
        seconds = time.process_time() - start
        model = load_networks(Path(folder) / "model", "cpu")
        tests = data.in_split("test")
        reference = reference_categories(tests)
        truth = np.array([reference[exam_id].index for exam_id in tests.exams()])
        by_size = subset_scores(model, tests)
    found = {}
    for name, subsets in by_size.items():
        rows = [figures(scores, truth) for scores in subsets]
        found[name] = {figure: statistics.mean(row[figure] for row in rows) for figure in FIGURES}
    return {"seconds": seconds, **found}


def trained(given: argparse.Namespace, work: Path) -> Iterator[tuple[int, str, int, dict[str, Any]]]:
    """Labelled exams, kind, seed and result of each training, read where it is there already."""
    phantoms = given.phantoms or work / f"phantoms-{given.rows}"
    if not phantoms.exists():
        count = given.tests + 2 * max(given.labelled)
        write_phantoms(PhantomSpec(rows=given.rows, seed=31), count, phantoms, workers=1)
    images = find_images(phantoms)
    for seed in range(1, given.seeds + 1):
        for labelled in given.labelled:
            data = chosen(images, labelled, given.tests, seed)
            recipe = adapted(find_recipe("small"), epochs=given.epochs, size=given.rows, seed=seed)
            for kind in given.kinds:
                word = kind.replace(", ", "-").replace(" ", "-")
                name = f"{given.rows}-{given.epochs}-{given.tests}-{labelled}-{seed}-{word}.json"
                if not (work / name).exists():
                    result = measure(data, recipe, PLANS[kind], begun=kind.endswith(BEGUN))
                    (work / name).write_text(json.dumps(result))
                    print(f"{labelled} exams, seed {seed}, {kind}: {result['4 views']}", file=sys.stderr, flush=True)
                yield labelled, kind, seed, json.loads((work / name).read_text())


def interval(values: list[float]) -> str:
    """Mean and Student's 95 % interval of the mean."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    reach = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} ({mean - reach:.3f} to {mean + reach:.3f})"


def main() -> None:
    """Print a table for each number of labelled exams and of views."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--labelled", type=int, nargs="+", default=[40, 160])
    parser.add_argument("--tests", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", choices=list(PLANS), default=list(PLANS), help="the first always, too")
    parser.add_argument("--phantoms", type=Path, help="a folder of phantoms to use, instead of making them")
    parser.add_argument("--work", type=Path, help="folder that keeps what is done; by default none is kept")
    given = parser.parse_args()
    first = next(iter(PLANS))
    given.kinds = [kind for kind in PLANS if kind == first or kind in given.kinds]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        results: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for labelled, kind, _, result in trained(given, work):
            results.setdefault((labelled, kind), []).append(result)
    for labelled in given.labelled:
        for views in SUBSETS:
            print(f"\n{labelled} labelled exams, {views}\n")
            print("| network | " + " | ".join(f"{word} | to four" for word in FIGURES.values()) + " |")
            print("| --- |" + " --- |" * (2 * len(FIGURES)))
            base = results[labelled, first]
            for kind in given.kinds:
                own = results[labelled, kind]
                cells = []
                for figure in FIGURES:
                    cells.append(f"{statistics.mean(one[views][figure] for one in own):.3f}")
                    paired = [a[views][figure] - b[views][figure] for a, b in zip(own, base, strict=True)]
                    cells.append("" if kind == first else interval(paired))
                print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
