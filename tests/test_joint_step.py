"""The lean step of the joint network: the gradients, statistics and dropout masks of the plain one."""

from __future__ import annotations

from copy import deepcopy
from typing import get_args

import pytest
import torch
from torch import nn

from mammodensity.models.joint import JointNetwork, JointSpec
from mammodensity.models.network import NetworkSpec
from mammodensity.training.joint_network import Checkpointing, joint_features, still_statistics

SMALL = NetworkSpec(stem=4, widths=(4, 4), outputs=(8, 8), depths=(2, 1), dropout=0.5, norm_momentum=0.1)
ABSENT = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1], [1, 0, 1, 1]], dtype=torch.bool)
NO_CC = torch.tensor([[0, 0, 1, 1]] * 4, dtype=torch.bool)
MASKS = {"all": torch.ones(4, 4, dtype=torch.bool), "some absent": ABSENT, "a branch without views": NO_CC}


def step(network, views, present, **how):
    """The loss, gradients, buffers and what the generator draws next, after one step."""
    network = deepcopy(network).train()
    torch.manual_seed(3)
    features = joint_features(network, views, present, **how)
    loss = nn.functional.cross_entropy(network.fuse(features, present), torch.tensor([0, 1, 2, 3]))
    with still_statistics(network):
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return loss.detach(), gradients, dict(network.named_buffers()), torch.rand(3)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("branches", ["separate", "shared"])
@pytest.mark.parametrize("fusion", ["mean", "concat", "attention"])
@pytest.mark.parametrize("checkpointing", ["views", "layers"])
def test_it_equals_the_plain_step_dropout_included(fusion, branches, checkpointing, mask):
    torch.manual_seed(1)
    network = JointNetwork(JointSpec(SMALL, fusion, branches))
    views, present = torch.randn(4, 4, 1, 40, 36), MASKS[mask]
    plain = step(network, views, present)
    lean = step(network, views, present, checkpointing=checkpointing)
    assert lean[0] == plain[0]
    for name, gradient in plain[1].items():
        if gradient is None:
            assert lean[1][name] is None, name
        else:
            torch.testing.assert_close(lean[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for name, buffer in plain[2].items():
        assert torch.equal(lean[2][name], buffer), name
    assert torch.equal(lean[3], plain[3])  # the generator is where it would be


def test_running_statistics_move_once_and_only_by_images_present():
    torch.manual_seed(1)
    network = JointNetwork(JointSpec(SMALL, "concat"))
    views = torch.randn(4, 4, 1, 40, 36)
    for checkpointing in get_args(Checkpointing):
        _, _, buffers, _ = step(network, views, ABSENT, checkpointing=checkpointing)
        assert buffers["branches.0.norm.num_batches_tracked"] == 1
        alone = deepcopy(network.branches[0]).train()
        alone(views[[0, 1, 3], 0])
        torch.testing.assert_close(buffers["branches.0.norm.running_mean"], alone.norm.running_mean)
    _, _, buffers, _ = step(network, views, NO_CC, checkpointing="views")
    assert buffers["branches.0.norm.num_batches_tracked"] == 0


def test_layers_keep_less_than_views_and_views_less_than_plain():
    """By the bytes that autograd saves at one time."""

    def kept(checkpointing: str) -> int:
        torch.manual_seed(1)
        network = JointNetwork(JointSpec(SMALL, "concat")).train()
        views, alive, most = torch.randn(4, 4, 1, 64, 64), 0, 0

        class Saved:
            def __init__(self, tensor):
                nonlocal alive, most
                self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
                alive += self.bytes
                most = max(most, alive)

            def __del__(self):
                nonlocal alive
                alive -= self.bytes

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            joint_features(network, views, MASKS["all"], checkpointing=checkpointing).square().sum().backward()
        return most

    plain, by_view, by_layer = (kept(checkpointing) for checkpointing in get_args(Checkpointing))
    assert by_view < 0.3 * plain
    assert by_layer < 0.9 * by_view


def test_bfloat16_is_near():
    torch.manual_seed(1)
    network = JointNetwork(JointSpec(SMALL, "attention"))
    views = torch.randn(4, 4, 1, 40, 36)
    whole = step(network, views, ABSENT)
    half = step(network, views, ABSENT, checkpointing="layers", precision="bf16")
    assert half[0] != whole[0]
    assert abs(half[0] - whole[0]) < 0.05
    assert half[1]["branches.0.conv.weight"].dtype == torch.float32
