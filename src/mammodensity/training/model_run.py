"""Training a model: one network for each projection, or the joint one, from one data set, into one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mammodensity.check import Progress, check_data
from mammodensity.data import load_exams, load_images
from mammodensity.errors import CheckpointError, Interrupted, LayoutError
from mammodensity.ingest import (
    MANIFEST_NAME,
    SPLITS,
    DataSet,
    holds_phantoms,
    read_manifest,
    reference_categories,
    write_manifest,
)
from mammodensity.networks import OriginNetwork, load_checkpoint, network_files
from mammodensity.networks.joint_checkpoint import JOINT, joint_file
from mammodensity.outputs import file_sha256, receipt, require_new_folder, write_json
from mammodensity.splits import with_splits
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.training.joint_run import JointPlan, JointTask, first_weights, require_enough_pixels, train_joint
from mammodensity.training.loop import Step
from mammodensity.training.network_run import NetworkTask, train_network
from mammodensity.training.recipes import Recipe
from mammodensity.training.resume import RESUME_FILE, first_difference, require_same_recipe

RECIPE_FILE = "recipe.json"
RECEIPT_FILE = "receipt.json"
JOINT_FILE = "joint.json"


def train_model(
    data: DataSet,
    model: Path,
    recipe: Recipe,
    *,
    projections: Sequence[Projection] = PROJECTIONS,
    joint: JointPlan | None = None,
    device: torch.device | None = None,
    start: Path | None = None,
    resume: bool = False,
    loading: Progress | None = None,
    report: Callable[[str, Step], None] | None = None,
) -> None:
    """Train a network for each of ``projections``, or with ``joint`` one of all four, and write the model folder.

    With ``start``, a model folder, the networks begin with the weights of its networks instead of random ones: one
    trained on phantoms knows much before it has seen a patient.

    The folder gets the manifest with the splits, the recipe (and ``joint.json``), a receipt, and for each projection,
    or in ``joint``, the best network, history and TensorBoard log.

    Raises
    ------
    LayoutError, ImageError
        The data set cannot be used; nothing is written.
    OutputError
        The folder holds files and ``resume`` is False, or cannot be written.
    CheckpointError
        ``resume`` is True and the folder's run had other data or another recipe; or ``start`` has no network for a
        projection, or one of another architecture.
    OptionError
        The images are too small for a joint network.
    Interrupted
        Ctrl-C; the same call with ``resume`` goes on.
    """
    device = device or torch.device("cpu")
    data = with_splits(_labelled(data), seed=recipe.seed)
    if not resume:
        require_new_folder(model)
    if joint:
        require_enough_pixels(recipe)
        weights = first_weights(start, joint.spec(recipe.network)) if start else None
        _require_exams(data)
    else:
        first = _first_networks(start, projections, recipe) if start else dict.fromkeys(projections)
        _require_images(data, projections)
    _require_no_problem(data, loading)
    if resume and (model / RECIPE_FILE).exists():
        _require_same_run(data, model, recipe, joint)
    else:
        write_manifest(model / MANIFEST_NAME, data.records)
        if joint:
            write_json(model / JOINT_FILE, joint.to_dict())
        write_json(model / RECIPE_FILE, recipe.to_dict())
    about = {"layout": data.layout, "sha256": _digest(data), "phantoms": holds_phantoms(data)}
    facts: dict[str, Any] = {"data": about, "device": str(device)}
    if start:
        facts["start"] = _start_hashes(start)
    chosen = {"recipe": recipe.to_dict(), **({"joint": joint.to_dict()} if joint else {})}
    run = receipt("train", **chosen, threads=torch.get_num_threads(), **facts)
    write_json(model / RECEIPT_FILE, run)
    try:
        if joint:
            _train_joint(
                data, model, recipe, joint, weights, device=device, facts=facts, loading=loading, report=report
            )
        else:
            _train_networks(data, model, recipe, first, device=device, facts=facts, loading=loading, report=report)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {model} keeps what is done, run the same command with --resume") from None


def _train_joint(
    data: DataSet,
    model: Path,
    recipe: Recipe,
    plan: JointPlan,
    start: Mapping[str, Tensor] | None,
    *,
    device: torch.device,
    facts: dict[str, Any],
    loading: Progress | None,
    report: Callable[[str, Step], None] | None,
) -> None:
    """Train the joint network unless it is finished."""
    folder = model / JOINT
    if joint_file(model) and not (folder / RESUME_FILE).exists():
        return
    training, validation = (
        load_exams(list(data.in_split(split).exams().values()), recipe.preprocess, loading) for split in SPLITS[:2]
    )
    task = JointTask(training, validation, recipe, plan, folder, device, facts, start)
    train_joint(task, None if report is None else partial(report, JOINT))


def _train_networks(
    data: DataSet,
    model: Path,
    recipe: Recipe,
    first: Mapping[Projection, OriginNetwork | None],
    *,
    device: torch.device,
    facts: dict[str, Any],
    loading: Progress | None,
    report: Callable[[str, Step], None] | None,
) -> None:
    """Train those of the projections that are not finished yet, from random weights where there are no ``first``."""
    finished = network_files(model)
    for projection, start in first.items():
        folder = model / projection.value
        if projection in finished and not (folder / RESUME_FILE).exists():
            continue
        training, validation = (
            load_images(_records(data, projection, split), recipe.preprocess, loading) for split in SPLITS[:2]
        )
        task = NetworkTask(projection, training, validation, recipe, folder, device, facts, start)
        train_network(task, None if report is None else partial(report, projection))


def _first_networks(
    start: Path, projections: Sequence[Projection], recipe: Recipe
) -> dict[Projection, OriginNetwork | None]:
    """The networks of another model to begin with."""
    found: dict[Projection, OriginNetwork | None] = {}
    files = network_files(start)
    for projection in projections:
        if projection not in files:
            raise CheckpointError(f"{start} has no network for {projection} to begin with")
        network = load_checkpoint(files[projection], projection).network
        assert isinstance(network, OriginNetwork)
        difference = first_difference(asdict(recipe.network), asdict(network.spec))
        if difference:
            raise CheckpointError(f"{start} has another architecture than the recipe: {difference}")
        found[projection] = network
    return found


def _labelled(data: DataSet) -> DataSet:
    unlabelled = [record for record in data.records if record.category is None]
    if unlabelled:
        raise LayoutError(
            f"{data.root}: {len(unlabelled)} of {len(data.records)} images have no density category, "
            f"the first is {unlabelled[0].path}; training needs one for each"
        )
    return data


def _start_hashes(start: Path) -> dict[str, str]:
    """SHA-256 of the networks a training began with, by their folders."""
    file = joint_file(start)
    return {path.parent.name: file_sha256(path) for path in ([file] if file else network_files(start).values())}


def _require_images(data: DataSet, projections: Iterable[Projection]) -> None:
    """Refuse splits that cannot train or validate, before an hour is spent."""
    for projection in projections:
        for split in SPLITS[:2]:
            least = 2 if split == "train" else 1  # batch statistics need two
            found = len(_records(data, projection, split))
            if found < least:
                raise LayoutError(
                    f"{data.root} has {found or 'no'} {projection} image in the {split} split; "
                    "training needs train and validation images of every projection it is asked for"
                )


def _require_exams(data: DataSet) -> None:
    """The same for exams with any views, which must agree on their category; and every view must be there once."""
    reference_categories(data)
    for split in SPLITS[:2]:
        found = data.in_split(split)
        if len(found.exams()) < (2 if split == "train" else 1):
            raise LayoutError(
                f"{data.root} has {len(found.exams()) or 'no'} exam in the {split} split; "
                "training needs train and validation exams"
            )
        absent = [p for p in PROJECTIONS if all(record.projection != p for record in found.records)]
        if absent and split == "train":
            raise LayoutError(
                f"{data.root} has no {absent[0]} image in the train split; the joint network needs some of every view"
            )


def _require_no_problem(data: DataSet, progress: Progress | None) -> None:
    severe = [problem for problem in check_data(data, progress=progress).problems if problem.severe]
    if severe:
        more = f" (and {len(severe) - 1} more: run `mammodensity check`)" if len(severe) > 1 else ""
        raise LayoutError(f"{severe[0].text}{more}")


def _require_same_run(data: DataSet, model: Path, recipe: Recipe, joint: JointPlan | None) -> None:
    advice = "use the same options to resume, or a new folder"
    if (model / JOINT_FILE).exists() != (joint is not None):
        raise CheckpointError(f"{model} was begun {'without' if joint else 'with'} --joint; {advice}")
    require_same_recipe(model / RECIPE_FILE, recipe.to_dict(), advice)
    if joint:
        require_same_recipe(model / JOINT_FILE, joint.to_dict(), advice)
    if _digest(read_manifest(model / MANIFEST_NAME)) != _digest(data):
        raise CheckpointError(f"{model} was begun with other images or splits; resume with the same data set")


def _records(data: DataSet, projection: Projection, split: str) -> list[Any]:
    """Sorted, so that the order in which files were found changes nothing."""
    chosen = [record for record in data.records if record.projection == projection and record.split == split]
    return sorted(chosen, key=lambda record: record.exam_id)


def _digest(data: DataSet) -> str:
    """SHA-256 over exams, projections, categories, splits and file contents, in sorted order."""
    digest = hashlib.sha256()
    for record in sorted(data.records, key=lambda record: (record.exam_id, record.projection)):
        digest.update(f"{record.exam_id} {record.patient_id} {record.projection} ".encode())
        of_breast = f" {record.breast_category}" if record.breast_category else ""
        digest.update(f"{record.category}{of_breast} {record.split}\n".encode())
        with record.path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
