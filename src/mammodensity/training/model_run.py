"""Training a model: one network for each projection, from one data set, into one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mammodensity.check import Progress, check_data
from mammodensity.data import load_images
from mammodensity.errors import CheckpointError, Interrupted, LayoutError
from mammodensity.ingest import MANIFEST_NAME, SPLITS, DataSet, holds_phantoms, read_manifest, write_manifest
from mammodensity.networks import OriginNetwork, load_checkpoint, network_files
from mammodensity.outputs import file_sha256, receipt, require_new_folder, write_json
from mammodensity.splits import with_splits
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.training.network_run import NetworkTask, Step, train_network
from mammodensity.training.recipes import Recipe
from mammodensity.training.resume import RESUME_FILE, first_difference, require_same_recipe

RECIPE_FILE = "recipe.json"
RECEIPT_FILE = "receipt.json"


def train_model(
    data: DataSet,
    model: Path,
    recipe: Recipe,
    *,
    projections: Sequence[Projection] = PROJECTIONS,
    device: torch.device | None = None,
    start: Path | None = None,
    resume: bool = False,
    loading: Progress | None = None,
    report: Callable[[Projection, Step], None] | None = None,
) -> None:
    """Train a network for each of ``projections`` and write the model folder.

    With ``start``, a model folder, the networks begin with the weights of its networks instead of random ones: one
    trained on phantoms knows much before it has seen a patient.

    The folder gets the manifest with the splits, the recipe, a receipt, and for each projection its best network,
    history and TensorBoard log.

    Raises
    ------
    LayoutError, ImageError
        The data set cannot be used; nothing is written.
    OutputError
        The folder holds files and ``resume`` is False, or cannot be written.
    CheckpointError
        ``resume`` is True and the folder's run had other data or another recipe; or ``start`` has no network for a
        projection, or one of another architecture.
    Interrupted
        Ctrl-C; the same call with ``resume`` goes on.
    """
    device = device or torch.device("cpu")
    data = with_splits(_labelled(data), seed=recipe.seed)
    if not resume:
        require_new_folder(model)
    first = _first_networks(start, projections, recipe) if start else dict.fromkeys(projections)
    _require_usable(data, projections, loading)
    if resume and (model / RECIPE_FILE).exists():
        _require_same_run(data, model, recipe)
    else:
        write_manifest(model / MANIFEST_NAME, data.records)
        write_json(model / RECIPE_FILE, recipe.to_dict())
    about = {"layout": data.layout, "sha256": _digest(data), "phantoms": holds_phantoms(data)}
    facts: dict[str, Any] = {"data": about, "device": str(device)}
    if start:
        facts["start"] = {path.parent.name: file_sha256(path) for path in network_files(start).values()}
    run = receipt("train", recipe=recipe.to_dict(), threads=torch.get_num_threads(), **facts)
    write_json(model / RECEIPT_FILE, run)
    try:
        _train_networks(data, model, recipe, first, device=device, facts=facts, loading=loading, report=report)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {model} keeps what is done, run the same command with --resume") from None


def _train_networks(
    data: DataSet,
    model: Path,
    recipe: Recipe,
    first: Mapping[Projection, OriginNetwork | None],
    *,
    device: torch.device,
    facts: dict[str, Any],
    loading: Progress | None,
    report: Callable[[Projection, Step], None] | None,
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


def _require_usable(data: DataSet, projections: Iterable[Projection], progress: Progress | None) -> None:
    """Refuse before an hour is spent: severe problems, and splits that cannot train or validate."""
    for projection in projections:
        for split in SPLITS[:2]:
            least = 2 if split == "train" else 1  # batch statistics need two
            found = len(_records(data, projection, split))
            if found < least:
                raise LayoutError(
                    f"{data.root} has {found or 'no'} {projection} image in the {split} split; "
                    "training needs train and validation images of every projection it is asked for"
                )
    severe = [problem for problem in check_data(data, progress=progress).problems if problem.severe]
    if severe:
        more = f" (and {len(severe) - 1} more: run `mammodensity check`)" if len(severe) > 1 else ""
        raise LayoutError(f"{severe[0].text}{more}")


def _require_same_run(data: DataSet, model: Path, recipe: Recipe) -> None:
    require_same_recipe(model / RECIPE_FILE, recipe.to_dict(), "use the same options to resume, or a new folder")
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
        digest.update(f"{record.category} {record.split}\n".encode())
        with record.path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
