"""A training step of the joint network, or of the origin's network of one view.

Settings: size, batch, fusion, precision, checkpointing (of the joint network, or ``single``).
"""

from __future__ import annotations

import torch
import worker
from torch import nn

from mammodensity.models.joint import JointNetwork, JointSpec
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.training.joint_network import joint_features, still_statistics
from mammodensity.training.loop import ask_for_large_pages, return_large_blocks
from mammodensity.training.recipes import in_precision


def main() -> None:
    """A step is forward, backward and the optimiser's."""
    given = worker.given
    torch.set_num_threads(worker.cores)
    if given["checkpointing"] in {"views", "layers"}:
        ask_for_large_pages()  # as `train --checkpointing` does
        return_large_blocks()
    torch.manual_seed(1)
    spec = NetworkSpec(channels=3)
    single = given["checkpointing"] == "single"
    network: nn.Module = ResidualNetwork(spec) if single else JointNetwork(JointSpec(spec, given["fusion"]))
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    views = torch.rand(given["batch"], 4, 1, given["size"], given["size"]).expand(-1, -1, 3, -1, -1)
    present = torch.ones(given["batch"], 4, dtype=torch.bool)
    labels = torch.arange(given["batch"]) % 4

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        if isinstance(network, JointNetwork):
            how = {"checkpointing": given["checkpointing"], "precision": given["precision"]}
            logits = network.fuse(joint_features(network, views, present, **how), present)
        else:
            images = views[:, 0].contiguous(memory_format=torch.channels_last)
            with in_precision(images, given["precision"]):
                logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        with still_statistics(network):
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    worker.ready(versions={"torch": torch.__version__})
    worker.serve(step)


if __name__ == "__main__":
    main()
