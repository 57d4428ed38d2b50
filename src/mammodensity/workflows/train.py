"""Train a model, one network for each projection or a joint one, from one data set into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from mammodensity.data.dataset import (
    SPLITS,
    DataSet,
    ImageRecord,
)
from mammodensity.data.find import find_images
from mammodensity.data.splits import DEFAULT_SHARES, with_splits
from mammodensity.errors import Interrupted, OptionError, OutputError
from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.evaluation.test_split import evaluate_model
from mammodensity.models.batch import LabelledExams, LabelledImages, load_exams, load_images
from mammodensity.models.checkpoint import JOINT
from mammodensity.pages.model_card import write_model_card
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.training.joint_network import JointPlan, JointTask, train_joint
from mammodensity.training.loop import TrainingStep, ask_for_large_pages
from mammodensity.training.processes import ALONE, Processes, device_of_process, joined
from mammodensity.training.recipes import DEFAULT_RECIPE, Precision, Recipe, adapted, find_recipe, require_precision
from mammodensity.training.single_network import NetworkTask, train_network
from mammodensity.workers import Progress
from mammodensity.workflows.training_run import BegunTraining, TrainingRun, begin, require_new

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
            require_new(model)
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
    run = TrainingRun(
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
    begun = processes.from_first(partial(begin, run))
    try:
        for name in begun.left:
            _train(run, begun, name)
    except KeyboardInterrupt:
        kept = f"{model} keeps what is done, run the same command with --resume"
        raise processes.common(Interrupted(f"interrupted; {kept}")) from None


def _train(run: TrainingRun, begun: BegunTraining, name: str) -> None:
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


def _loaded(run: TrainingRun, load: Callable[..., Labelled], items: Sequence[Any]) -> Labelled:
    """Load images or exams, of which each process reads its share."""
    share = load(run.processes.share(items), run.recipe.preprocess, run.loading)
    return type(share)(*(run.processes.whole(getattr(share, part.name), len(items)) for part in fields(share)))


def _records(data: DataSet, projection: Projection) -> list[ImageRecord]:
    """The images of a projection, sorted, so that the order of files changes nothing."""
    return sorted((record for record in data.records if record.projection == projection), key=lambda r: r.exam_id)
