"""Commands of `mammodensity.statistics`; `mammodensity.cli` puts them among the others."""

from __future__ import annotations

from mammodensity.statistics_commands.commands import (
    Bootstrap,
    JsonFile,
    Manifest,
    compare,
    drift,
    readers,
    sample_size,
)

__all__ = ["Bootstrap", "JsonFile", "Manifest", "compare", "drift", "readers", "sample_size"]
