"""Begin a training: check that it can be done, and write its manifest, recipe and receipt."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mammodensity.data.dataset import (
    MANIFEST_NAME,
    SPLITS,
    DataSet,
    holds_phantoms,
    read_manifest,
    reference_categories,
    write_manifest,
)
from mammodensity.data.splits import with_splits
from mammodensity.errors import CheckpointError, LayoutError, OptionError, OutputError
from mammodensity.models.checkpoint import JOINT, RESUME_FILE, joint_file, network_files
from mammodensity.outputs import file_sha256, receipt, require_new_folder, write_json
from mammodensity.pages.model_card import CARD_FILE
from mammodensity.terms import DENSITY, PROJECTIONS, Projection, Scale
from mammodensity.training.joint_network import JointPlan, joint_weights, require_enough_pixels
from mammodensity.training.loop import TrainingStep
from mammodensity.training.processes import Processes
from mammodensity.training.recipes import Precision, Recipe
from mammodensity.training.records import (
    JOINT_FILE,
    RECEIPT_FILE,
    RECIPE_FILE,
    require_same_recipe,
)
from mammodensity.training.single_network import first_weights
from mammodensity.workers import Progress
from mammodensity.workflows.check import check_data


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """The arguments of ``train_model``."""

    data: DataSet
    model: Path
    recipe: Recipe
    names: Sequence[str]
    """The networks to train: projections, or ``joint``."""
    joint: JointPlan | None
    precision: Precision
    device: torch.device
    start: Path | None
    resume: bool
    loading: Progress | None
    report: Callable[[str, TrainingStep], None] | None
    processes: Processes


@dataclass(frozen=True, eq=False)
class BegunTraining:
    """A training that can begin."""

    data: DataSet
    """With splits."""
    facts: dict[str, Any]
    """For the receipt and the checkpoints."""
    left: Sequence[str]
    """The networks that are not trained yet."""
    weights: Mapping[str, Mapping[str, Tensor]]
    """Weights to begin with, by network."""


def begin(run: TrainingRun) -> BegunTraining:
    """Check that the run can be done, and write manifest, recipe and receipt."""
    if not run.resume:
        require_new(run.model)
    _require_fitting_batch(run)
    data = with_splits(_labelled(run.data), seed=run.recipe.seed)
    weights = {name: _first_weights(run, run.start, name, data.scale) for name in run.names} if run.start else {}
    _require_enough(run, data)
    _require_no_problem(data, run.loading)
    if run.resume and (run.model / RECIPE_FILE).exists():
        _require_same_run(run, data)
    else:
        write_manifest(run.model / MANIFEST_NAME, data.records)
        if run.joint:
            write_json(run.model / JOINT_FILE, asdict(run.joint))
        write_json(run.model / RECIPE_FILE, run.recipe.to_dict())
    facts: dict[str, Any] = {
        "data": {"layout": data.layout, "sha256": _digest(data), "phantoms": holds_phantoms(data)},
        "device": str(run.device),
        "precision": run.precision,
        **({"start": _start_hashes(run.start)} if run.start else {}),
    }
    chosen = {"recipe": run.recipe.to_dict(), **({"joint": asdict(run.joint)} if run.joint else {})}
    written = receipt("train", **chosen, threads=torch.get_num_threads(), processes=run.processes.size, **facts)
    write_json(run.model / RECEIPT_FILE, written)
    present = {JOINT} if joint_file(run.model) else set(network_files(run.model))
    left = [name for name in run.names if name not in present or (run.model / name / RESUME_FILE).exists()]
    return BegunTraining(data, facts, left, weights)


def _first_weights(run: TrainingRun, start: Path, name: str, scale: Scale) -> Mapping[str, Tensor]:
    if run.joint:
        return joint_weights(start, run.joint.spec(run.recipe.network))
    return first_weights(start, Projection(name), run.recipe.network, scale)


def require_new(model: Path) -> None:
    """Refuse a folder with files; if they are of a training that did not end, name the option that goes on."""
    begun = (model / RECIPE_FILE).exists()
    if begun and (not (model / CARD_FILE).exists() or any(model.glob(f"*/{RESUME_FILE}"))):
        raise OutputError(
            f"{model} already holds files of a training that did not end; "
            "add --resume to the same command to go on with it, or name a new folder"
        )
    require_new_folder(model)


def _require_fitting_batch(run: TrainingRun) -> None:
    """Refuse a batch that leaves a process without an image, and images too small for the statistics of one."""
    batch, size = run.recipe.batch, run.processes.size
    if batch < size:
        raise OptionError(
            f"a batch of {batch} cannot be shared among {size} processes; use fewer, or a recipe with a larger batch"
        )
    if run.joint or batch // size == 1:
        require_enough_pixels(run.recipe)


def _labelled(data: DataSet) -> DataSet:
    unlabelled = [record for record in data.records if record.category is None]
    if unlabelled:
        raise LayoutError(
            f"{data.root}: {len(unlabelled)} of {len(data.records)} images have no category, "
            f"the first is {unlabelled[0].path}; training needs one for each"
        )
    return data


def _start_hashes(start: Path) -> dict[str, str]:
    """SHA-256 of the networks a training began with, by their folders."""
    file = joint_file(start)
    return {path.parent.name: file_sha256(path) for path in ([file] if file else network_files(start).values())}


def _require_enough(run: TrainingRun, data: DataSet) -> None:
    """Refuse splits that cannot train or validate, before an hour is spent; a joint network needs each view once."""
    if run.joint:
        reference_categories(data)
        if data.scale != DENSITY:
            raise LayoutError(f"{data.root} has categories {data.scale}; the joint network is of A to D only")
    for split in SPLITS[:2]:
        part = data.in_split(split)
        least = 2 * run.processes.size if split == "train" else 1  # batch statistics need two in each process
        views = Counter(str(record.projection) for record in part.records)
        counts = {"exam": len(part.exams())} if run.joint else {f"{name} image": views[name] for name in run.names}
        for noun, count in counts.items():
            if count < least:
                raise LayoutError(
                    f"{data.root} has {count or 'no'} {noun}{'s' * (count > 1)} in the {split} split; "
                    f"training needs at least {least}"
                )
        absent = [view for view in PROJECTIONS if view not in views]
        if run.joint and absent and split == "train":
            raise LayoutError(
                f"{data.root} has no {absent[0]} image in the train split; the joint network needs some of every view"
            )


def _require_no_problem(data: DataSet, progress: Progress | None) -> None:
    severe = [problem for problem in check_data(data, progress=progress).problems if problem.severe]
    if severe:
        more = f" (and {len(severe) - 1} more: run `mammodensity check`)" if len(severe) > 1 else ""
        raise LayoutError(f"{severe[0].text}{more}")


def _require_same_run(run: TrainingRun, data: DataSet) -> None:
    advice = "use the same options to resume, or a new folder"
    if (run.model / JOINT_FILE).exists() != (run.joint is not None):
        raise CheckpointError(f"{run.model} was begun {'without' if run.joint else 'with'} --joint; {advice}")
    require_same_recipe(run.model / RECIPE_FILE, run.recipe.to_dict(), advice)
    if run.joint:
        require_same_recipe(run.model / JOINT_FILE, asdict(run.joint), advice)
    if _digest(read_manifest(run.model / MANIFEST_NAME)) != _digest(data):
        raise CheckpointError(f"{run.model} was begun with other images or splits; resume with the same data set")


def _digest(data: DataSet) -> str:
    """SHA-256 over exams, projections, categories, splits and file contents, in sorted order."""
    digest = hashlib.sha256()
    for record in sorted(data.records, key=lambda record: (record.exam_id, record.projection)):
        digest.update(f"{record.exam_id} {record.patient_id} {record.projection} ".encode())
        of_breast = f" {record.breast_category}" if record.breast_category else ""
        digest.update(f"{record.category}{of_breast} {record.split}\n".encode())
        digest.update(bytes.fromhex(file_sha256(record.path)))
    return digest.hexdigest()
