"""Options that several commands take, and what each command does before its work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mammodensity.errors import LayoutError, OptionError

if TYPE_CHECKING:
    from mammodensity.data.dataset import DataSet
    from mammodensity.models.default import TissueModel
    from mammodensity.models.trained import DensityModel
    from mammodensity.results.calibration import Calibration

Data = Annotated[
    Path, typer.Argument(help="DICOM files, exam folders, the origin's folders, or a manifest.", metavar="DATA")
]
Model = Annotated[Path, typer.Option("--model", help="Model folder.", metavar="DIR")]
ModelOrDefault = Annotated[
    Path | None, typer.Option("--model", help="Model folder; without it, the default model.", metavar="DIR")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Fusion = Annotated[
    str | None, typer.Option("--fusion", help="How views are fused: mean (as by default), geometric-mean or vote.")
]
Policy = Annotated[
    str | None, typer.Option(help="What speaks for the subject: mean of the views, or the denser breast (denser).")
]
Synthetic = Annotated[
    bool, typer.Option("--synthetic", help="Accept 2-D images computed from tomosynthesis, and mark them.")
]
Split = Annotated[str | None, typer.Option(help="Only this split: train, validation or test.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the result as JSON.", metavar="FILE")]
Manifest = Annotated[
    Path | None,
    typer.Option("--manifest", help="Table with patient and other columns by exam, if not the labels.", metavar="FILE"),
]
Bootstrap = Annotated[int, typer.Option(help="Resamples for the intervals.", min=1, max=100_000)]


def images_of(path: Path, split: str | None, *, synthetic: bool = False) -> DataSet:
    """The images of a data set, or of one of its splits."""
    from mammodensity.commands.show import say
    from mammodensity.data.dataset import SPLITS
    from mammodensity.data.find import find_images

    if split is not None and split not in SPLITS:
        raise OptionError(f"--split must be one of {', '.join(SPLITS)}. Got {split!r} instead.")
    images = find_images(path, synthetic=synthetic).in_split(split)
    if images.refused:
        say(f"{len(images.refused)} files in {path} were refused; `mammodensity check` says why")
    if not images.records:
        raise LayoutError(
            f"{path} has no image in the {split} split; `mammodensity check` shows which splits there are"
        )
    return images


def files_read(images: DataSet, data: Path, model: Path | None) -> list[Path]:
    """What a command reads, so that it does not write over it."""
    of_model = model_files(model) if model else []
    return [*(record.path for record in images.records), data, data / "manifest.csv", *of_model]


def model_files(model: Path) -> list[Path]:
    kept = [path for pattern in ("*.safetensors", "*.json", "history.csv") for path in model.rglob(pattern)]
    return [*kept, model / "manifest.csv"]


def load_model(path: Path | None, device: str, engine: str = "torch") -> DensityModel | TissueModel:
    """Load a model and say what its user must know."""
    from mammodensity.commands.show import say
    from mammodensity.models.trained import load_model as load

    model = load(path, device, engine)
    for warning in model.warnings:
        say(f"note: {path}: {warning}" if path else f"note: {warning}")
    return model


def read_calibration(model: Path | None) -> Calibration | None:
    """The calibration of a model folder, and what its user must know."""
    from mammodensity.commands.show import say
    from mammodensity.results import calibration

    found = calibration.read_calibration(model) if model else None
    for warning in found.warnings if found else ():
        say(f"note: {model}: {warning}")
    return found
