"""Options that several commands take, and what each command does before its work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mammodensity.commands.show import how_many, say, say_each

if TYPE_CHECKING:
    from mammodensity.data.dataset import DataSet
    from mammodensity.models.default import TissueModel
    from mammodensity.models.trained import DensityModel

_DATA = typer.Argument(help="Give exam folders, DICOM files, pictures, folders of INFN, or a manifest.", metavar="DATA")
Exams = Annotated[list[Path], _DATA]
Data = Annotated[Path, _DATA]
Model = Annotated[Path, typer.Option("--model", help="Name the model folder.", metavar="DIR")]
ModelOrDefault = Annotated[
    Path | None,
    typer.Option("--model", help="Name a model folder; without it, the default model is used.", metavar="DIR"),
]
Device = Annotated[str, typer.Option(help="Compute on auto, cpu, cuda or cuda:N.", metavar="NAME")]
Engine = Annotated[
    Literal["torch", "onnx", "openvino", "openvino-int8"], typer.Option(help="Choose what runs trained networks.")
]
Fusion = Annotated[
    Literal["mean", "geometric-mean", "vote"] | None,
    typer.Option("--fusion", help="Choose how the scores of views are fused; default: mean."),
]
Policy = Annotated[
    Literal["mean", "denser"] | None,
    typer.Option(
        help="Choose what decides the category of the exam: the mean of all views, or the denser breast; default: mean."
    ),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Fuse the views present where an exam lacks some, and flag it.")
]
Synthetic = Annotated[
    bool, typer.Option("--synthetic", help="Accept 2-D images computed from tomosynthesis, and mark them.")
]
Split = Annotated[Literal["train", "validation", "test"] | None, typer.Option(help="Use only the exams of this split.")]
First = Annotated[int | None, typer.Option(help="Use only the first N exams.", metavar="N", min=1)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the result as JSON.", metavar="FILE")]
Manifest = Annotated[
    Path | None,
    typer.Option("--manifest", help="Read patients and other columns from this table, too.", metavar="FILE"),
]
Bootstrap = Annotated[
    int, typer.Option(help="Draw so many resamples for the intervals.", metavar="N", min=1, max=100_000)
]


def find_exams(paths: Path | list[Path], split: str | None, *, synthetic: bool = False) -> DataSet:
    """Find the images of a data set or of one of its splits, and say how many files were refused."""
    from mammodensity.workflows.predict import find_data

    exams = find_data(paths, split=split, synthetic=synthetic)
    if exams.refused:
        refused = how_many(len(exams.refused), "file was", "files were")
        say(f"{refused} refused in {exams.root}; `mammodensity check` says why")
    return exams


def files_read(exams: DataSet, data: Path | list[Path], model: Path | None) -> list[Path]:
    """List the files that a command reads, so that it does not write over one of them."""
    roots = [data] if isinstance(data, Path) else data
    manifests = [root / "manifest.csv" for root in roots]
    return [*(record.path for record in exams.records), *roots, *manifests, *model_files(model)]


def model_files(model: Path | None) -> list[Path]:
    """List the files of a model folder; none for the default model."""
    if model is None:
        return []
    kept = [path for pattern in ("*.safetensors", "*.json", "history.csv") for path in model.rglob(pattern)]
    return [*kept, model / "manifest.csv"]


def load_model(path: Path | None, device: str, engine: str = "torch") -> DensityModel | TissueModel:
    """Load a model and say what its user must know."""
    from mammodensity.models.trained import load_model as load

    model = load(path, device, engine)
    say_each(f"note: {path}" if path else "note", model.warnings)
    return model
