"""The networks, and how they are kept on disk."""

from __future__ import annotations

from mammodensity.networks.checkpoint import Checkpoint, load_checkpoint, load_network, network_files, save_checkpoint
from mammodensity.networks.origin import NetworkSpec, OriginNetwork

__all__ = [
    "Checkpoint",
    "NetworkSpec",
    "OriginNetwork",
    "load_checkpoint",
    "load_network",
    "network_files",
    "save_checkpoint",
]
