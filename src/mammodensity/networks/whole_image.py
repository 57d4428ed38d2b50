"""A network together with its preprocessing: from the grey values of a whole image to the scores of A-D.

For programs that hand over images as they are and know nothing of preprocessing. What is done to an image is that of
``preprocess``: resizing is linear in rows and in columns, so it becomes two matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mammodensity.errors import OptionError
from mammodensity.networks.checkpoint import Checkpoint
from mammodensity.preprocess.network_input import resizing_matrices


class WholeImageNetwork(nn.Module):
    """Grey images (B, 1, H, W) from 0 to 1, black to white, to scores (B, 4) in the order A-D.

    Parameters
    ----------
    checkpoint
        The network; it is used, not copied.
    shape
        H and W.

    Raises
    ------
    OptionError
        The network wants breast or muscle found first, which no such network can do.
    """

    to_rows: Tensor
    to_columns: Tensor

    def __init__(self, checkpoint: Checkpoint, shape: tuple[int, int]) -> None:
        super().__init__()
        spec = checkpoint.preprocess
        if spec.needs_regions:
            raise OptionError(
                f"{checkpoint.projection}: its preprocessing finds breast and muscle (crop {spec.crop}, pectoral "
                f"{spec.pectoral}, background {spec.background}), which a file of this format cannot hold; use "
                "--format onnx, or train with a recipe that leaves them"
            )
        self.network = checkpoint.network.cpu().eval()
        self.channels = checkpoint.network.spec.channels
        self.spec = spec
        rows, columns = resizing_matrices(shape, spec)
        self.register_buffer("to_rows", torch.from_numpy(rows))
        self.register_buffer("to_columns", torch.from_numpy(columns.T.copy()))

    def forward(self, images: Tensor) -> Tensor:
        values = images
        if self.spec.intensity == "image-range":
            low, high = torch.amin(values, (2, 3), keepdim=True), torch.amax(values, (2, 3), keepdim=True)
            values = (values - low) / (high - low)
        if self.spec.depth == "8-bit":
            values = torch.round(values * 255) / 255
        values = self.to_rows @ values @ self.to_columns
        if self.spec.centring != "none":
            values = values - values.mean((2, 3), keepdim=True)
        if self.spec.centring == "standardise":
            values = values / values.square().mean((2, 3), keepdim=True).sqrt().clamp(min=1e-6)
        return torch.softmax(self.network(values.expand(-1, self.channels, -1, -1)), dim=1)
