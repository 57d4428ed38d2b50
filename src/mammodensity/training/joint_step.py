"""The forward pass of a joint training step, which keeps all activations, or few of them and computes the rest twice.

In little memory, the branches run under ``torch.utils.checkpoint``, so that the backward pass computes the activations
of one branch at a time again. Those of the last branch are kept, as the backward pass needs them first: of four
branches, three run forward twice.

References
----------
Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mammodensity.models.joint import JointNetwork, gathered
from mammodensity.training.loop import return_kept_memory
from mammodensity.training.recipes import Precision, in_precision

Checkpointing = Literal["none", "views", "layers"]
"""``none`` keeps everything; ``views`` keeps one branch at a time; ``layers`` also computes batch normalisation and
activation within a branch again, but not the convolutions."""


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
    """Whether the branches compute again what comes before a convolution, instead of keeping it."""
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
