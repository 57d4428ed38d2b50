"""Train a model, one network for each projection or a joint one, from one data set into one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

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
from mammodensity.data.find import find_images
from mammodensity.data.splits import DEFAULT_SHARES, with_splits
from mammodensity.errors import CheckpointError, Interrupted, LayoutError, OptionError, OutputError
from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.evaluation.test_split import evaluate_model
from mammodensity.models.batch import LabelledExams, LabelledImages, load_exams, load_images
from mammodensity.models.checkpoint import JOINT, RESUME_FILE, joint_file, load_checkpoint, network_files
from mammodensity.models.network import ResidualNetwork
from mammodensity.outputs import file_sha256, receipt, require_new_folder, write_json
from mammodensity.pages.model_card import CARD_FILE, write_model_card
from mammodensity.terms import DENSITY, PROJECTIONS, Projection
from mammodensity.training.joint_network import JointPlan, JointTask, first_weights, require_enough_pixels, train_joint
from mammodensity.training.loop import TrainingStep, ask_for_large_pages
from mammodensity.training.processes import ALONE, Processes, joined, own_device
from mammodensity.training.recipes import DEFAULT_RECIPE, Precision, Recipe, adapted, find_recipe, require_precision
from mammodensity.training.records import (
    JOINT_FILE,
    RECEIPT_FILE,
    RECIPE_FILE,
    first_difference,
    require_same_recipe,
)
from mammodensity.training.single_network import NetworkTask, train_network
from mammodensity.workers import Progress
from mammodensity.workflows.check import check_data

Labelled = TypeVar("Labelled", LabelledImages, LabelledExams)


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model folder as ``train`` leaves it."""

    folder: Path
    figures: Mapping[str, FiguresOfMerit] | None
    """Figures of merit of the test split by level, in the order of ``LEVELS``; None where no exam is for testing."""
    card: Path
    """The model card."""


def train(
    data: DataSet | Path | str,
    *,
    model: Path | str,
    recipe: Recipe | Path | str = DEFAULT_RECIPE,
    epochs: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    projections: Sequence[Projection] | None = None,
    joint: JointPlan | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    shares: Sequence[float] = DEFAULT_SHARES,
    start: Path | str | None = None,
    resume: bool = False,
    loading: Progress | None = None,
    report: Callable[[str, TrainingStep], None] | None = None,
    testing: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> TrainedModel:
    """Train a network for each projection, or a joint one; score the test split; write the model card.

    Under ``torchrun`` all processes make this call and train together. The first alone reads ``data``, writes the
    folder and calls the callbacks; all return the same.

    Parameters
    ----------
    data
        A data set, or the path of one.
    model
        The folder to write. With ``resume``, the folder of an interrupted training.
    recipe
        The name of a recipe, a JSON file, or a recipe.
    epochs, size, seed
        Replace what the recipe says; ``size`` is rows and columns.
    projections
        Train only these; by default all that the data set has.
    joint
        Train one network of all projections instead, which has its own ``precision``.
    precision
        ``fp32`` or ``bf16``.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    shares
        Shares of train, validation and test, where the data set has no splits.
    start
        A model folder whose weights to begin with.
    loading, testing
        Progress of reading and of testing images.
    report
        Called with the name of a network after each of its steps.
    note
        Called once, when the training begins, with a line that says where and how.

    Raises
    ------
    OptionError
        A choice that makes no sense; nothing was read or written.
    LayoutError, ImageError, OutputError, CheckpointError, DeviceError, TrainingError, Interrupted
        As :func:`train_model`.
    """
    model, start = Path(model), Path(start) if start is not None else None
    precision = joint.precision if joint else precision
    if joint and joint.checkpointing != "none":
        ask_for_large_pages()

    def settle() -> tuple[Recipe, DataSet]:
        """What needs no data is checked before the data set is looked at, which may take long."""
        require_precision(precision)
        if joint and projections:
            raise OptionError("a joint network is of all projections; leave --projection out")
        named = recipe if isinstance(recipe, Recipe) else find_recipe(str(recipe))
        chosen = adapted(named, epochs=epochs, size=size, seed=seed)
        root = data.root if isinstance(data, DataSet) else Path(data)
        if model.resolve() == (root.parent if root.is_file() else root).resolve():
            raise OutputError(f"{model} is the data set itself; name another folder for the model")
        if not resume:
            _require_new(model)
        images = data if isinstance(data, DataSet) else find_images(data)
        return chosen, with_splits(images, seed=chosen.seed, shares=shares)

    with joined() as processes:
        where = own_device(device, processes)
        chosen, images = processes.from_first(settle)
        if note and processes.first:
            several = f" in {processes.size} processes" if processes.size > 1 else ""
            note(f"training on {where}{several} with recipe {chosen.name}: {chosen.epochs} epochs")
        wanted = projections or {record.projection for record in images.records}
        train_model(
            images,
            model,
            chosen,
            projections=[projection for projection in PROJECTIONS if projection in wanted],
            joint=joint,
            precision=precision,
            device=where,
            start=start,
            resume=resume,
            loading=loading,
            report=report if processes.first else None,
            processes=processes,
        )

        def finish() -> TrainedModel:
            figures = evaluate_model(model, device=str(where), progress=testing)
            return TrainedModel(model, figures, write_model_card(model))

        return processes.from_first(finish)


def train_model(
    data: DataSet,
    model: Path,
    recipe: Recipe,
    *,
    projections: Sequence[Projection] = PROJECTIONS,
    joint: JointPlan | None = None,
    precision: Precision = "fp32",
    device: torch.device | None = None,
    start: Path | None = None,
    resume: bool = False,
    loading: Progress | None = None,
    report: Callable[[str, TrainingStep], None] | None = None,
    processes: Processes = ALONE,
) -> None:
    """Train a network for each of ``projections``, or with ``joint`` one of all four, and write the model folder.

    With ``start``, a model folder, the networks begin with the weights of its networks instead of random ones: one
    trained on phantoms knows much before it has seen a patient.

    ``precision`` is what networks of one projection compute in, ``fp32`` or ``bf16``; a joint one has it in its plan.

    The folder gets the manifest with the splits, the recipe (and ``joint.json``), a receipt, and for each projection,
    or in ``joint``, the best network, history and TensorBoard log.

    Of several processes all call this alike; the first alone looks at ``data``, ``start`` and ``model``.

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
        The images are too small for a joint network, or the precision is unknown.
    Interrupted
        Ctrl-C; the same call with ``resume`` goes on.
    """
    device = device or torch.device("cpu")
    require_precision(precision)
    begun = processes.from_first(
        lambda: _begin(
            data,
            model,
            recipe,
            dict.fromkeys(projections),
            joint=joint,
            start=start,
            resume=resume,
            loading=loading,
            run={"device": str(device), "precision": joint.precision if joint else precision},
            processes=processes.size,
        )
    )
    how = _How(recipe, device, begun.facts, loading, report, processes, precision)
    try:
        if joint:
            _train_joint(begun, model, joint, how)
        else:
            _train_networks(begun, model, how)
    except KeyboardInterrupt:
        kept = f"{model} keeps what is done, run the same command with --resume"
        raise processes.common(Interrupted(f"interrupted; {kept}")) from None


@dataclass(frozen=True)
class _Begun:
    """A training that can begin."""

    data: DataSet
    facts: dict[str, Any]
    left: list[str]
    """What is not trained yet: projections, or the joint network."""
    networks: Mapping[Projection, ResidualNetwork | None]
    """To begin with."""
    weights: Mapping[str, Tensor] | None
    """The same for the joint network."""


@dataclass(frozen=True)
class _How:
    """How any network of the model is trained."""

    recipe: Recipe
    device: torch.device
    facts: dict[str, Any]
    loading: Progress | None
    report: Callable[[str, TrainingStep], None] | None
    processes: Processes
    precision: Precision

    def reported(self, name: str) -> Callable[[TrainingStep], None] | None:
        """Reports of one network."""
        return None if self.report is None else partial(self.report, name)


def _begin(
    data: DataSet,
    model: Path,
    recipe: Recipe,
    networks: Mapping[Projection, ResidualNetwork | None],
    *,
    joint: JointPlan | None,
    start: Path | None,
    resume: bool,
    loading: Progress | None,
    run: dict[str, str],
    processes: int,
) -> _Begun:
    """Look whether this can be trained, and write what is known before: manifest, recipe and receipt."""
    data = with_splits(_labelled(data), seed=recipe.seed)
    weights = None
    if not resume:
        _require_new(model)
    if joint:
        require_enough_pixels(recipe)
        weights = first_weights(start, joint.spec(recipe.network)) if start else None
        _require_exams(data)
    else:
        networks = _first_networks(start, networks, recipe) if start else networks
        _require_images(data, networks)
    _require_no_problem(data, loading)
    if resume and (model / RECIPE_FILE).exists():
        _require_same_run(data, model, recipe, joint)
    else:
        write_manifest(model / MANIFEST_NAME, data.records)
        if joint:
            write_json(model / JOINT_FILE, joint.to_dict())
        write_json(model / RECIPE_FILE, recipe.to_dict())
    images = {"layout": data.layout, "sha256": _digest(data), "phantoms": holds_phantoms(data)}
    facts: dict[str, Any] = {"data": images, **run}
    if start:
        facts["start"] = _start_hashes(start)
    chosen = {"recipe": recipe.to_dict(), **({"joint": joint.to_dict()} if joint else {})}
    written = receipt("train", **chosen, threads=torch.get_num_threads(), processes=processes, **facts)
    write_json(model / RECEIPT_FILE, written)
    there = {JOINT} if joint_file(model) else set(network_files(model))
    asked = [JOINT] if joint else list(networks)
    left = [name for name in asked if name not in there or (model / name / RESUME_FILE).exists()]
    return _Begun(data, facts, left, networks, weights)


def _require_new(model: Path) -> None:
    """Refuse a folder with files; where they are of a training that did not end, name the option that goes on."""
    begun = (model / RECIPE_FILE).exists()
    if begun and (not (model / CARD_FILE).exists() or any(model.glob(f"*/{RESUME_FILE}"))):
        raise OutputError(
            f"{model} already holds files of a training that did not end; "
            "add --resume to the same command to go on with it, or name a new folder"
        )
    require_new_folder(model)


def _train_joint(begun: _Begun, model: Path, plan: JointPlan, how: _How) -> None:
    """Train the joint network unless it is finished."""
    if JOINT not in begun.left:
        return
    training, validation = (
        _loaded(load_exams, list(begun.data.in_split(split).exams().values()), how) for split in SPLITS[:2]
    )
    task = JointTask(
        training, validation, how.recipe, plan, model / JOINT, how.device, how.facts, begun.weights, how.processes
    )
    train_joint(task, how.reported(JOINT))


def _train_networks(begun: _Begun, model: Path, how: _How) -> None:
    """Train those of the projections that are not finished yet, from random weights where there are no others."""
    for projection, start in begun.networks.items():
        if projection not in begun.left:
            continue
        training, validation = (
            _loaded(load_images, _records(begun.data, projection, split), how) for split in SPLITS[:2]
        )
        folder = model / projection.value
        task = NetworkTask(
            projection,
            training,
            validation,
            how.recipe,
            folder,
            how.device,
            how.facts,
            len(begun.data.scale),
            start,
            how.precision,
            how.processes,
        )
        train_network(task, how.reported(projection))


def _loaded(load: Callable[..., Labelled], items: Sequence[Any], how: _How) -> Labelled:
    """Images or exams, of which each process reads a part."""
    own = load(items[how.processes.part(len(items))], how.recipe.preprocess, how.loading)
    return type(own)(*(how.processes.whole(getattr(own, one.name), len(items)) for one in fields(own)))


def _first_networks(
    start: Path, projections: Iterable[Projection], recipe: Recipe
) -> dict[Projection, ResidualNetwork | None]:
    """The networks of another model to begin with."""
    found: dict[Projection, ResidualNetwork | None] = {}
    files = network_files(start)
    for projection in projections:
        if projection not in files:
            raise CheckpointError(f"{start} has no network for {projection} to begin with")
        network = load_checkpoint(files[projection], projection).network
        assert isinstance(network, ResidualNetwork)
        difference = first_difference(asdict(recipe.network), asdict(network.spec))
        if difference:
            raise CheckpointError(f"{start} has another architecture than the recipe: {difference}")
        found[projection] = network
    return found


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
    if data.scale != DENSITY:
        raise LayoutError(f"{data.root} has categories {data.scale}; the joint network is of A to D only")
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
