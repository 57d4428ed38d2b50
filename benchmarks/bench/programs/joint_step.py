"""A few training steps of the joint network, or of the origin's network of one view, in a process of its own.

Started by joint_memory.py, which measures the process from outside.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn

from mammodensity.networks import JointNetwork, JointSpec, NetworkSpec, OriginNetwork
from mammodensity.training.lean_step import in_precision, joint_backward, return_memory_at_once


def main() -> None:
    """Arguments: size, batch, steps, threads, fusion, precision, checkpointing (or ``single``)."""
    size, batch, steps, threads = (int(value) for value in sys.argv[1:5])
    fusion, precision, checkpointing = sys.argv[5:8]
    torch.set_num_threads(threads)
    if checkpointing in {"views", "layers"}:
        return_memory_at_once()  # as `train --checkpointing` does
    torch.manual_seed(1)
    spec = NetworkSpec(channels=3)
    single = checkpointing == "single"
    network: nn.Module = OriginNetwork(spec) if single else JointNetwork(JointSpec(spec, fusion))
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    views = torch.rand(batch, 4, 1, size, size).expand(-1, -1, 3, -1, -1)
    present = torch.ones(batch, 4, dtype=torch.bool)
    labels = torch.arange(batch) % 4
    found = []
    for _ in range(steps):
        wall, processor = time.perf_counter(), time.process_time()
        optimiser.zero_grad(set_to_none=True)
        if isinstance(network, JointNetwork):
            joint = network

            def loss_of(features: torch.Tensor, joint: JointNetwork = joint) -> torch.Tensor:
                return nn.functional.cross_entropy(joint.fuse(features, present), labels)

            joint_backward(joint, views, present, loss_of, checkpointing=checkpointing, precision=precision)
        else:
            images = views[:, 0].contiguous(memory_format=torch.channels_last)
            with in_precision(images, precision):
                logits = network(images)
            nn.functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        found.append((time.perf_counter() - wall, time.process_time() - processor))
    print(json.dumps({"steps": found, "versions": {"torch": torch.__version__}}))


if __name__ == "__main__":
    main()
