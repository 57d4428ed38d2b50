"""Train a model, one network for each projection or a joint one, from one data set into one folder."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
    ImageRecord,
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
from mammodensity.models.checkpoint import JOINT, RESUME_FILE, joint_file, network_files
from mammodensity.outputs import file_sha256, receipt, require_new_folder, write_json
from mammodensity.pages.model_card import CARD_FILE, write_model_card
from mammodensity.terms import DENSITY, PROJECTIONS, Projection, Scale
from mammodensity.training.joint_network import JointPlan, JointTask, joint_weights, require_enough_pixels, train_joint
from mammodensity.training.loop import TrainingStep, ask_for_large_pages
from mammodensity.training.processes import ALONE, Processes, device_of_process, joined
from mammodensity.training.recipes import DEFAULT_RECIPE, Precision, Recipe, adapted, find_recipe, require_precision
from mammodensity.training.records import (
    JOINT_FILE,
    RECEIPT_FILE,
    RECIPE_FILE,
    require_same_recipe,
)
from mammodensity.training.single_network import NetworkTask, first_weights, train_network
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
        A model folder with weights to begin with.
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
        """Check what needs no data before the data set is looked at, which may take long."""
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
        where = device_of_process(device, processes)
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
            tested = evaluate_model(model, device=str(where), progress=testing)
            return TrainedModel(model, tested.figures if tested else None, write_model_card(model))

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

    With ``start``, a model folder, the networks begin with the weights of its networks instead of random ones.
    ``precision`` is for networks of one projection; a joint network has its precision in its plan.

    The folder gets the manifest with the splits, the recipe (and ``joint.json``), a receipt, and for each projection,
    or in ``joint``, the best network, history and TensorBoard log.

    With several processes, all make the same call; the first alone looks at ``data``, ``start`` and ``model``.

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
        The precision is unknown, the batch too small for the processes, or the images too small for batch statistics.
    Interrupted
        Ctrl-C; the same call with ``resume`` goes on.
    """
    require_precision(precision)
    run = _Run(
        data=data,
        model=model,
        recipe=recipe,
        names=[JOINT] if joint else list(dict.fromkeys(projections)),
        joint=joint,
        precision=joint.precision if joint else precision,
        device=device or torch.device("cpu"),
        start=start,
        resume=resume,
        loading=loading,
        report=report,
        processes=processes,
    )
    begun = processes.from_first(partial(_begin, run))
    try:
        for name in begun.left:
            _train(run, begun, name)
    except KeyboardInterrupt:
        kept = f"{model} keeps what is done, run the same command with --resume"
        raise processes.common(Interrupted(f"interrupted; {kept}")) from None


@dataclass(frozen=True, eq=False)
class _Run:
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
class _Begun:
    """A training that can begin."""

    data: DataSet
    """With splits."""
    facts: dict[str, Any]
    """For the receipt and the checkpoints."""
    left: Sequence[str]
    """The networks that are not trained yet."""
    weights: Mapping[str, Mapping[str, Tensor]]
    """Weights to begin with, by network."""


def _begin(run: _Run) -> _Begun:
    """Check that the run can be done, and write manifest, recipe and receipt."""
    if not run.resume:
        _require_new(run.model)
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
    return _Begun(data, facts, left, weights)


def _train(run: _Run, begun: _Begun, name: str) -> None:
    """Train one network."""
    splits = [begun.data.in_split(split) for split in SPLITS[:2]]
    report = None if run.report is None else partial(run.report, name)
    common: dict[str, Any] = {
        "recipe": run.recipe,
        "folder": run.model / name,
        "device": run.device,
        "facts": begun.facts,
        "start": begun.weights.get(name),
        "processes": run.processes,
    }
    if run.joint:
        exams, held_out = (_loaded(run, load_exams, list(split.exams().values())) for split in splits)
        train_joint(JointTask(exams, held_out, plan=run.joint, **common), report)
    else:
        view = Projection(name)
        training, validation = (_loaded(run, load_images, _records(split, view)) for split in splits)
        task = NetworkTask(view, training, validation, scale=begun.data.scale, precision=run.precision, **common)
        train_network(task, report)


def _loaded(run: _Run, load: Callable[..., Labelled], items: Sequence[Any]) -> Labelled:
    """Load images or exams, of which each process reads its share."""
    share = load(run.processes.share(items), run.recipe.preprocess, run.loading)
    return type(share)(*(run.processes.whole(getattr(share, part.name), len(items)) for part in fields(share)))


def _first_weights(run: _Run, start: Path, name: str, scale: Scale) -> Mapping[str, Tensor]:
    if run.joint:
        return joint_weights(start, run.joint.spec(run.recipe.network))
    return first_weights(start, Projection(name), run.recipe.network, scale)


def _require_new(model: Path) -> None:
    """Refuse a folder with files; if they are of a training that did not end, name the option that goes on."""
    begun = (model / RECIPE_FILE).exists()
    if begun and (not (model / CARD_FILE).exists() or any(model.glob(f"*/{RESUME_FILE}"))):
        raise OutputError(
            f"{model} already holds files of a training that did not end; "
            "add --resume to the same command to go on with it, or name a new folder"
        )
    require_new_folder(model)


def _require_fitting_batch(run: _Run) -> None:
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


def _require_enough(run: _Run, data: DataSet) -> None:
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


def _require_same_run(run: _Run, data: DataSet) -> None:
    advice = "use the same options to resume, or a new folder"
    if (run.model / JOINT_FILE).exists() != (run.joint is not None):
        raise CheckpointError(f"{run.model} was begun {'without' if run.joint else 'with'} --joint; {advice}")
    require_same_recipe(run.model / RECIPE_FILE, run.recipe.to_dict(), advice)
    if run.joint:
        require_same_recipe(run.model / JOINT_FILE, asdict(run.joint), advice)
    if _digest(read_manifest(run.model / MANIFEST_NAME)) != _digest(data):
        raise CheckpointError(f"{run.model} was begun with other images or splits; resume with the same data set")


def _records(data: DataSet, projection: Projection) -> list[ImageRecord]:
    """The images of a projection, sorted, so that the order of files changes nothing."""
    return sorted((record for record in data.records if record.projection == projection), key=lambda r: r.exam_id)


def _digest(data: DataSet) -> str:
    """SHA-256 over exams, projections, categories, splits and file contents, in sorted order."""
    digest = hashlib.sha256()
    for record in sorted(data.records, key=lambda record: (record.exam_id, record.projection)):
        digest.update(f"{record.exam_id} {record.patient_id} {record.projection} ".encode())
        of_breast = f" {record.breast_category}" if record.breast_category else ""
        digest.update(f"{record.category}{of_breast} {record.split}\n".encode())
        digest.update(bytes.fromhex(file_sha256(record.path)))
    return digest.hexdigest()
