"""A network as an ONNX file, which other programs can run.

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

import torch

from mammodensity.errors import OptionError
from mammodensity.networks.checkpoint import Checkpoint
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY

INPUT, OUTPUT = "images", "logits"
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
    require_engine_packages("onnx", "onnxscript")
    network, spec = checkpoint.network.cpu().eval(), checkpoint.preprocess
    example = torch.zeros(2, network.spec.channels, spec.rows, spec.columns)
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    with _quietly():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"images": {0: batch}},
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {
            "note": RESEARCH_USE_ONLY,
            "projection": checkpoint.projection.value,
            "categories": " ".join(CATEGORIES),
            "preprocess": json.dumps(asdict(spec)),
        }
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        program.save(path)
        return path.read_bytes()


def require_engine_packages(*names: str) -> None:
    """Raise ``OptionError`` where a package of the extra ``engines`` is absent."""
    from importlib.util import find_spec

    absent = [name for name in names if find_spec(name) is None]
    if absent:
        raise OptionError(
            f"{', '.join(absent)} is not installed; install the extra: pip install 'mammodensity[engines]'"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """What the exporter tells its own developers is not for our users."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
