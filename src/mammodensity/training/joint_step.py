"""One training step of the joint network, plain or in little memory; both leave the same gradients.

Plain keeps the activations of every view until the backward pass. Lean keeps those of one branch at a time: the views
go through without gradients first, which gives the loss and its gradient with respect to each view's features; then
one branch after the other goes through again, with gradients, and back. The last branch's first pass is kept, so that
of four branches three run twice: fifteen parts of work instead of twelve.

References
----------
Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from mammodensity.models.joint import JointNetwork, gathered
from mammodensity.training.loop import return_kept_memory
from mammodensity.training.recipes import Precision, in_precision

Checkpointing = Literal["none", "views", "layers"]
"""``none``: everything is kept. ``views``: one branch at a time. ``layers``: also within the branch, what comes
before a convolution is computed again from what batch normalisation was given; the convolution itself is not."""

LossOf = Callable[[Tensor], Tensor]
"""From features (B, V, F) to the loss."""


def joint_backward(
    network: JointNetwork,
    views: Tensor,
    present: Tensor,
    loss_of: LossOf,
    *,
    checkpointing: Checkpointing = "none",
    precision: Precision = "fp32",
    branches: Sequence[int] | None = None,
) -> Tensor:
    """Add the gradients of one step to the weights, update running statistics once, and return the loss.

    Parameters
    ----------
    views, present
        (B, V, C, H, W), and which are present (B, V), at least one an exam.
    loss_of
        What the loss is, given the features (B, V, F), zeros where a view is absent.
    branches
        Those to run, also without a view here, where other processes have some; by default those with a view present.
    """
    set_recomputing(network, checkpointing == "layers")
    run = _plain if checkpointing == "none" else _lean
    chosen = network.branches_of(present) if branches is None else list(branches)
    return run(network, views, present, loss_of, precision=precision, branches=chosen)


def _plain(
    network: JointNetwork,
    views: Tensor,
    present: Tensor,
    loss_of: LossOf,
    *,
    precision: Precision,
    branches: Sequence[int],
) -> Tensor:
    parts = []
    for branch, cells, images in network.inputs(views, present, branches):
        with in_precision(images, precision):
            parts.append((cells, network.run_branch(branch, images)))
    loss = loss_of(gathered(parts, len(views)))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _lean(
    network: JointNetwork,
    views: Tensor,
    present: Tensor,
    loss_of: LossOf,
    *,
    precision: Precision,
    branches: Sequence[int],
) -> Tensor:
    parts, states = [], []
    for branch, cells, images in network.inputs(views, present, branches):
        states.append(_random_state(views.device))
        last = branch == branches[-1]
        if last:
            _return_memory(views)
        with torch.set_grad_enabled(last), in_precision(images, precision):
            features = network.run_branch(branch, images)
        parts.append((cells, features if last else features.requires_grad_()))
    loss = loss_of(gathered(parts, len(views)))
    after = _random_state(views.device)
    with still_statistics(network):
        loss.backward()  # type: ignore[no-untyped-call]  # the last branch, and the features of the others
        for place, (branch, _, images) in enumerate(network.inputs(views, present, branches[:-1])):
            if place % 2:  # each time would cost more page faults than it saves memory
                _return_memory(views)
            _set_random_state(states[place], views.device)  # the same dropout masks
            with in_precision(images, precision):
                again = network.run_branch(branch, images)
            again.backward(parts[place][1].grad)  # type: ignore[no-untyped-call]
    _set_random_state(after, views.device)
    return loss.detach()


def _return_memory(views: Tensor) -> None:
    """What earlier passes have freed is not kept for the next, whose tensors fit the gaps badly."""
    if views.device.type == "cpu":
        return_kept_memory()


def set_recomputing(network: JointNetwork, recomputing: bool) -> None:
    """Whether the branches compute again what comes before a convolution, instead of keeping it."""
    for module in network.branches.modules():
        if hasattr(module, "recomputes"):
            setattr(module, "recomputes", recomputing)  # noqa: B010  (of a module, mypy takes it for a tensor)


@contextmanager
def still_statistics(network: nn.Module) -> Iterator[None]:
    """Batch normalisation takes the batch's own statistics, and leaves the running ones as they are."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0  # rather than no statistics at all: a checkpointed layer must save the same tensors
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
