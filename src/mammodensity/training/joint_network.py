"""Training of the joint network: one label for an exam, all views in one step, some views left out at random.

A step keeps all activations. To save memory, the branches run under ``torch.utils.checkpoint`` instead, so that the
backward pass computes the activations of one branch at a time again. Those of the last branch are kept, as the
backward pass needs them first: of four branches, three run forward twice.

References
----------
Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mammodensity.anatomy.quality import fit_familiarity
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.models.batch import AugmentSpec, LabelledExams, augment
from mammodensity.models.checkpoint import (
    JOINT,
    NETWORK_FILE,
    JointCheckpoint,
    joint_file,
    load_checkpoint,
    load_joint,
    network_files,
    save_checkpoint,
)
from mammodensity.models.joint import Branches, JointFusion, JointNetwork, JointSpec, gathered
from mammodensity.models.network import NetworkSpec
from mammodensity.settings import Field, settings
from mammodensity.terms import CATEGORIES, PROJECTIONS
from mammodensity.training.loop import (
    TrainingStep,
    loss_and_confusion,
    return_kept_memory,
    return_large_blocks,
    rng_for,
    run_training,
    seed_for,
)
from mammodensity.training.processes import ALONE, Processes
from mammodensity.training.recipes import Precision, Recipe, in_precision
from mammodensity.training.records import EpochFigures, require_same_shape

Checkpointing = Literal["none", "views", "layers"]
"""``none`` keeps everything; ``views`` keeps one branch at a time; ``layers`` also computes batch normalisation and
activation within a branch again, but not the convolutions."""
_BREASTS = tuple([view for view, p in enumerate(PROJECTIONS) if p.laterality == side] for side in "RL")


@settings
class JointPlan:
    """Settings of the training of a joint network, besides its recipe."""

    fusion: JointFusion = "mean"
    branches: Branches = "separate"
    view_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Probability with which each view of an exam is left out of a step, at least one being kept."""
    view_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of the loss of each view alone, added to the loss of all views together."""
    precision: Precision = "fp32"
    """Precision of the branches."""
    checkpointing: Checkpointing = "none"
    """How much is computed twice to save memory; the gradients are the same."""

    def spec(self, network: NetworkSpec) -> JointSpec:
        """The shape of the joint network with these branches."""
        return JointSpec(network, self.fusion, self.branches)


@dataclass(frozen=True, eq=False)
class JointTask:
    """The joint network to train, its exams, and the folder to keep it in."""

    training: LabelledExams
    validation: LabelledExams
    recipe: Recipe
    plan: JointPlan
    folder: Path
    device: torch.device
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of the checkpoint's record; JSON values only."""
    start: Mapping[str, Tensor] | None = None
    """Weights to begin with, of those it has; see :func:`joint_weights`."""
    processes: Processes = ALONE


def train_joint(task: JointTask, report: Callable[[TrainingStep], None] | None = None) -> JointCheckpoint:
    """Train the joint network and keep its best epoch, or go on with an interrupted run in the task's folder.

    Raises
    ------
    OptionError
        The images are too small for batch statistics.
    Interrupted, CheckpointError, TrainingError
        As of :func:`mammodensity.training.loop.run_training`.
    """
    require_enough_pixels(task.recipe)
    if task.plan.checkpointing != "none" and task.device.type == "cpu":
        return_large_blocks()
    run_training(_JointLearner(task), task.recipe, task.folder, report)
    return task.processes.from_first(lambda: load_joint(task.folder / NETWORK_FILE))


def require_enough_pixels(recipe: Recipe) -> None:
    """Raise ``OptionError`` where a single image leaves one value a channel, which has no statistics."""
    least = 2 ** (1 + len(recipe.network.widths)) + 1
    if max(recipe.preprocess.rows, recipe.preprocess.columns) < least:
        raise OptionError(
            f"steps with a single image of a view need at least {least} pixels a side; use a larger --size"
        )


def kept_views(present: NDArray[np.bool_], dropout: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the views (V,) of an exam that a step uses, of those present; at least one is kept."""
    kept = present & (rng.random(len(present)) >= dropout)
    last = rng.choice(np.flatnonzero(present))
    if not kept.any():
        kept[last] = True
    return kept


def joint_loss(
    network: JointNetwork,
    features: Tensor,
    present: Tensor,
    categories: Tensor,
    breasts: Tensor,
    *,
    view_loss: float = 0.0,
    count: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the loss of a batch, and the exams' logits (B, K).

    The loss is the cross-entropy of the exams' categories; plus, weighted by ``view_loss``, the mean cross-entropy of
    an exam's views alone; plus that of each breast with a category of its own, by its views. Each is summed, and
    divided by the number of exams, or by ``count`` where these exams are a part of so many.

    Parameters
    ----------
    features, present
        (B, V, F), (B, V).
    categories, breasts
        (B,), and (B, 2) right and left, -1 where unknown.
    """
    logits = network.fuse(features, present)
    total = nn.functional.cross_entropy(logits, categories, reduction="sum")
    if view_loss:
        exams, views_alone = present.nonzero(as_tuple=True)
        alone = nn.functional.one_hot(views_alone, present.shape[1]).bool()
        each = nn.functional.cross_entropy(network.fuse(features[exams], alone), categories[exams], reduction="none")
        total = total + view_loss * (each / present.sum(dim=1)[exams]).sum()
    for side, views in enumerate(_BREASTS):
        visible = torch.zeros_like(present)
        visible[:, views] = present[:, views]
        labelled = (breasts[:, side] >= 0) & visible.any(dim=1)
        if labelled.any():
            breast_logits = network.fuse(features[labelled], visible[labelled])
            total = total + nn.functional.cross_entropy(breast_logits, breasts[labelled, side], reduction="sum")
    return total / (len(features) if count is None else count), logits


# The forward pass


def joint_features(
    network: JointNetwork,
    views: Tensor,
    present: Tensor,
    *,
    checkpointing: Checkpointing = "none",
    precision: Precision = "fp32",
    branches: Sequence[int] | None = None,
) -> Tensor:
    """Features (B, V, F) of views, zeros where a view is absent. Go back through them within ``still_statistics``.

    Parameters
    ----------
    views, present
        (B, V, C, H, W), and which are present (B, V), at least one an exam.
    branches
        Those to run, also without a view here, where other processes have some; by default those with a view present.
    """
    chosen = network.branches_of(present) if branches is None else list(branches)
    set_recomputing(network, checkpointing == "layers")
    passes = count()

    def run(branch: int) -> tuple[Tensor, Tensor]:
        # Tensors of one pass fit badly into the gaps that another has left. Each time would cost more page faults than
        # it saves memory.
        if checkpointing != "none" and views.device.type == "cpu" and next(passes) % 2:
            return_kept_memory()
        ((_, cells, images),) = network.inputs(views, present, [branch])
        with in_precision(images, precision):
            return cells, network.run_branch(branch, images)

    kept = chosen if checkpointing == "none" else chosen[-1:]
    parts = [run(branch) if branch in kept else checkpoint(run, branch, use_reentrant=False) for branch in chosen]
    return gathered(parts, len(views))


def set_recomputing(network: JointNetwork, recomputing: bool) -> None:
    """Let the branches compute again what comes before a convolution, or keep it."""
    for module in network.branches.modules():
        if hasattr(module, "recomputes"):
            setattr(module, "recomputes", recomputing)  # noqa: B010  (of a module, mypy takes it for a tensor)


@contextmanager
def still_statistics(network: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are while layers are computed a second time."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0  # rather than no statistics at all: a checkpointed layer must save the same tensors
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches


# Weights to begin with, and the learner


def joint_weights(start: Path, spec: JointSpec) -> dict[str, Tensor]:
    """Read weights to begin with: of a joint network of the same shape, or of four networks for separate branches.

    Four networks fused by the mean give, before any training, what averaging their scores gives.

    Raises
    ------
    CheckpointError
        The folder has no such networks, or networks of another shape.
    """
    file = joint_file(start)
    if file is not None:
        other = load_joint(file).network
        require_same_shape(start, spec, other.spec)
        return dict(other.state_dict())
    files = network_files(start)
    if spec.branches != "separate" or set(files) != set(PROJECTIONS):
        needs = "another joint network" if spec.branches != "separate" else "a joint network or all four networks"
        raise CheckpointError(f"{start} has no weights to begin with for this joint network; it needs {needs}")
    weights: dict[str, Tensor] = {}
    for view, projection in enumerate(PROJECTIONS):
        network = load_checkpoint(files[projection], projection).network
        require_same_shape(start, spec.network, network.spec)
        for name, tensor in network.state_dict().items():
            if not name.startswith("head."):
                weights[f"branches.{view}.{name}"] = tensor
            elif spec.fusion == "mean":
                weights[f"fusion.heads.{view}.{name.removeprefix('head.')}"] = tensor
    return weights


class _JointStep(nn.Module):
    """The joint network with its loss, as DistributedDataParallel needs all that a step computes in one module."""

    def __init__(self, network: JointNetwork, plan: JointPlan) -> None:
        super().__init__()
        self.network, self.plan = network, plan

    def forward(
        self,
        views: Tensor,
        present: Tensor,
        categories: Tensor,
        breasts: Tensor,
        *,
        count: int,
        branches: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """See ``joint_loss``."""
        plan = self.plan
        features = joint_features(
            self.network,
            views,
            present,
            checkpointing=plan.checkpointing,
            precision=plan.precision,
            branches=branches,
        )
        loss, logits = joint_loss(
            self.network, features, present, categories, breasts, view_loss=plan.view_loss, count=count
        )
        if dist.is_initialized():  # DistributedDataParallel waits for a gradient of every weight
            loss = loss + sum((0 * weight).sum() for weight in self.parameters() if weight.requires_grad)
        return loss, logits


class _JointLearner:
    """The joint network, and its exams."""

    name = JOINT

    def __init__(self, task: JointTask) -> None:
        self.task, self.recipe, self.plan, self.processes = task, task.recipe, task.plan, task.processes
        torch.manual_seed(seed_for(self.recipe.seed, "initial", JOINT))
        network = JointNetwork(self.plan.spec(self.recipe.network))
        if task.start is not None:
            network.load_state_dict({**network.state_dict(), **task.start})
        self.network = network.to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step = task.processes.parallel(_JointStep(self.network, self.plan))
        self.settings: Mapping[str, Any] = {"joint": asdict(self.plan)}
        self.familiarity = [self._familiarity(view) for view in range(len(PROJECTIONS))]

    def __len__(self) -> int:
        return len(self.task.training)

    def learn(self, chosen: NDArray[np.intp], epoch: int, step: int) -> tuple[float, int]:
        """Go forward and backward, plain or in little memory."""
        exams, seed, device = self.task.training, self.recipe.seed, self.task.device
        kept = [
            kept_views(row, self.plan.view_dropout, rng_for(seed, "views", epoch, int(index)))
            for row, index in zip(exams.present[chosen].numpy(), chosen, strict=True)
        ]
        all_present = torch.from_numpy(np.stack(kept))
        share, present = self.processes.share(chosen), self.processes.share(all_present)
        views = _augmented(exams.views[share], present, self.recipe.augment, share, (seed, epoch))
        categories = exams.categories[share].to(device)
        torch.manual_seed(seed_for(seed, "dropout", epoch, step, *self.processes.numbered))
        loss, logits = self.step(
            self._to_device(views),
            present.to(device),
            categories,
            exams.breasts[share].to(device),
            count=len(chosen),
            # On GPUs a process waits for the batch statistics of all, so each runs the branches that any of them needs.
            branches=self.network.branches_of(all_present if device.type == "cuda" else present),
        )
        with still_statistics(self.network):
            self.processes.backward(loss)
        # The loss of all views together is reported, as it compares with that of the validation.
        likelihood = nn.functional.cross_entropy(logits.detach(), categories, reduction="sum") / len(chosen)
        return likelihood.item(), int((logits.argmax(1) == categories).sum())

    def validate(self) -> tuple[float, float]:
        """Compute the mean loss and the accuracy over the validation exams, with all the views they have."""
        exams, device = self.task.validation, self.task.device

        def logits_of(part: slice) -> Tensor:
            views = self._to_device(exams.views[part])
            with in_precision(views, self.plan.precision):
                logits: Tensor = self.network(views, exams.present[part].to(device))
            return logits

        loss, self.confusion = loss_and_confusion(self.processes, exams.categories, len(CATEGORIES), logits_of, device)
        return loss, int(self.confusion.trace()) / len(exams)

    def keep(self, figures: EpochFigures) -> None:
        """Write the checkpoint."""
        training = {
            "recipe": self.recipe.to_dict(),
            **self.settings,
            "epoch": asdict(figures),
            "exams": {"train": len(self.task.training), "validation": len(self.task.validation)},
            "validation_confusion": self.confusion.tolist(),
            "familiarity": dict(zip(map(str, PROJECTIONS), self.familiarity, strict=True)),
            **self.task.facts,
        }
        save_checkpoint(self.task.folder, JointCheckpoint(self.network, self.recipe.preprocess, training))

    def _familiarity(self, view: int) -> dict[str, Any] | None:
        """Describe what images of a view look like; None where there are too few."""
        splits = self.task.training, self.task.validation
        familiarity = fit_familiarity(*(split.views[split.present[:, view], view, 0].numpy() for split in splits))
        return familiarity.to_dict() if familiarity else None

    def _to_device(self, views: Tensor) -> Tensor:
        """(B, V, 1, H, W) to (B, V, C, H, W), the channels without a copy."""
        return views.to(self.task.device).expand(-1, -1, self.recipe.network.channels, -1, -1)


def _augmented(
    views: Tensor, present: Tensor, spec: AugmentSpec, chosen: NDArray[np.intp], draw: tuple[int, int]
) -> Tensor:
    """Change the views (B, V, 1, H, W) that are present at random, each by its own generator."""
    seed, epoch = draw
    cells = present.nonzero()
    rngs = [rng_for(seed, "augment", epoch, int(chosen[exam]), view) for exam, view in cells.tolist()]
    changed = views.clone()
    changed[cells[:, 0], cells[:, 1]] = augment(views[cells[:, 0], cells[:, 1]], spec, rngs)
    return changed
