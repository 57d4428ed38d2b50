"""A network as an ONNX file, which other programs can run: of what ``preprocess`` makes, or of whole images.

References
----------
Open Neural Network Exchange, operator set 18 (onnx.ai).
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from mammodensity.errors import OptionError
from mammodensity.networks.checkpoint import Checkpoint
from mammodensity.networks.whole_image import WholeImageNetwork
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY

INPUT, OUTPUT = "images", "logits"
WHOLE_INPUT, WHOLE_OUTPUT = "image", "scores"
WHOLE_SHAPE = (1, 1, 1024, 1024)
"""Of the input of a network of whole images, as density leaderboards want it."""
_OPSET = 18
_LARGEST_BATCH = 1024


def to_onnx(checkpoint: Checkpoint) -> bytes:
    """Export a network: input ``images`` (batch, channels, rows, columns) float32, output ``logits`` (batch, 4), A-D.

    The input is what ``preprocess`` makes; its spec, the projection and the categories are in the file's metadata. The
    batch is free, the size is the one the network was trained at.

    Raises
    ------
    OptionError
        The extra ``engines`` is not installed.
    """
    network, spec = checkpoint.network.cpu().eval(), checkpoint.preprocess
    example = torch.zeros(2, network.spec.channels, spec.rows, spec.columns)
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    facts = {"preprocess": json.dumps(asdict(spec))}
    return _exported(network, example, (INPUT, OUTPUT), checkpoint, facts=facts, dynamic_shapes={"images": {0: batch}})


def to_whole_image_onnx(checkpoint: Checkpoint) -> bytes:
    """Export a network with its preprocessing: ``image`` (1, 1, 1024, 1024) float32 to ``scores`` (1, 4), A-D.

    Grey values are from 0, black, to 1, white; the image is upright and of the checkpoint's projection.

    Raises
    ------
    OptionError
        The extra ``engines`` is not installed, or the preprocessing cannot be put into such a file.
    """
    network = WholeImageNetwork(checkpoint, WHOLE_SHAPE[2:]).eval()
    facts = {"input": "grey values from 0 (black) to 1 (white)"}
    return _exported(network, torch.zeros(WHOLE_SHAPE), (WHOLE_INPUT, WHOLE_OUTPUT), checkpoint, facts=facts)


def _exported(
    network: nn.Module,
    example: Tensor,
    names: tuple[str, str],
    checkpoint: Checkpoint,
    *,
    facts: dict[str, str],
    dynamic_shapes: Any = None,
) -> bytes:
    """The file, with ``facts`` and what every file says in its metadata."""
    require_packages("engines", "onnx", "onnxscript")
    with quietly(logging.getLogger("torch.onnx")):
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=dynamic_shapes,
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    about = {"projection": checkpoint.projection.value, "categories": " ".join(CATEGORIES)}
    program.model.metadata_props.update({"note": RESEARCH_USE_ONLY, **about, **facts})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        program.save(path)
        return path.read_bytes()


def require_packages(extra: str, *names: str) -> None:
    """Raise ``OptionError`` where a package of an extra is absent."""
    from importlib.util import find_spec

    absent = [name for name in names if find_spec(name) is None]
    if absent:
        raise OptionError(
            f"{', '.join(absent)} is not installed; install the extra: pip install 'mammodensity[{extra}]'"
        )


@contextmanager
def quietly(log: logging.Logger) -> Iterator[None]:
    """What a tool tells its own developers, here or through ``log``, is not for our users."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
