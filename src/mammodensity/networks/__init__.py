"""The networks, and how they are kept on disk."""

from __future__ import annotations

from mammodensity.networks.checkpoint import Checkpoint, load_checkpoint, load_network, network_files, save_checkpoint
from mammodensity.networks.joint import BRANCHES, JOINT_FUSIONS, ExamView, JointNetwork, JointSpec
from mammodensity.networks.origin import NetworkSpec, OriginNetwork

__all__ = [
    "BRANCHES",
    "JOINT_FUSIONS",
    "Checkpoint",
    "ExamView",
    "JointNetwork",
    "JointSpec",
    "NetworkSpec",
    "OriginNetwork",
    "load_checkpoint",
    "load_network",
    "network_files",
    "save_checkpoint",
]
