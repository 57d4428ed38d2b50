"""Commands for a screening unit: objects for its PACS."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from mammodensity.commands.options import Device, Exams, ModelOrDefault, Synthetic
from mammodensity.errors import OptionError

_LIBRARIES = ("highdicom", "fhir")


def dicom(
    data: Exams,
    output: Annotated[Path, typer.Option("--output", help="Name the folder to write to.", metavar="DIR")],
    model: ModelOrDefault = None,
    sr: Annotated[
        Literal["comprehensive3d", "comprehensive", "enhanced"],
        typer.Option("--sr", help="Choose the class of the report; some receivers do not take Comprehensive 3D SR."),
    ] = "comprehensive3d",
    seg: Annotated[bool, typer.Option("--seg", help="Also write a segmentation of each view.")] = False,
    fhir: Annotated[bool, typer.Option("--fhir", help="Also write a FHIR DiagnosticReport.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Fuse the views present where an exam lacks some, and flag it.")
    ] = False,
    synthetic: Synthetic = False,
    device: Device = "auto",
) -> None:
    """Write the result of exams as DICOM: a structured report, and a card with the four views.

    The objects belong to the study of the images, and carry its patient. The same images, model and version give
    objects with the same UIDs.

    Example: mammodensity dicom exam --output objects
    """
    from mammodensity.commands.show import how_many, progress_bar, say, say_research_use_only
    from mammodensity.commands.show_results import show_results
    from mammodensity.outputs import require_apart

    absent = [name for name in _LIBRARIES if find_spec(name) is None]
    if absent:
        raise OptionError(
            f"{', '.join(absent)} is not installed; install the extra: pip install 'mammodensity[clinic]'"
        )
    from mammodensity.clinic.objects import dicom_objects

    for path in data:
        require_apart(output, path)
    with progress_bar("dicom") as progress:
        made = dicom_objects(
            data,
            model=model,
            output=output,
            sr=sr,
            seg=seg,
            fhir=fhir,
            allow_missing=allow_missing,
            synthetic=synthetic,
            device=device,
            progress=progress,
        )
    for text in [text for objects in made for text in objects.result.refused.values()]:
        say(f"refused: {text}")
    show_results([objects.result for objects in made])
    say(f"{how_many(sum(len(objects.files) for objects in made), 'object')} in {output}")
    say_research_use_only()
