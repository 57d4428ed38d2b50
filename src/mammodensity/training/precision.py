"""What networks compute in while they are trained."""

from __future__ import annotations

import torch
from torch import Tensor

from mammodensity.errors import OptionError

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
"""What convolutions compute in; weights, statistics, fusion and loss stay in float32."""


def require_precision(precision: str) -> None:
    """Raise ``OptionError`` for any other word."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}. Got {precision!r} instead.")


def in_precision(images: Tensor, precision: str) -> torch.autocast:
    """The context in which networks run on images."""
    return torch.autocast(images.device.type, PRECISIONS[precision], enabled=PRECISIONS[precision] is not None)
