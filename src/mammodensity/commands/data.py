"""Commands that make, check and prepare data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mammodensity.commands.options import JsonFile, Synthetic
from mammodensity.errors import LayoutError, OptionError


def phantom(
    out: Annotated[Path, typer.Argument(help="Name a new folder to write to.", metavar="OUT")],
    exams: Annotated[int, typer.Option(help="Make so many exams, of four images each.", metavar="N")] = 40,
    size: Annotated[int, typer.Option(help="Make images of so many rows.", metavar="N")] = 256,
    seed: Annotated[
        int, typer.Option(help="Draw from this seed; the same seed gives the same images.", metavar="N")
    ] = 1,
    mix: Annotated[
        Literal["balanced", "population"],
        typer.Option(help="Make as many exams of each category, or 10/40/40/10 % (population)."),
    ] = "balanced",
    bits: Annotated[int, typer.Option(help="Write images of 8 or 16 bits.", metavar="8|16")] = 8,
    dicom: Annotated[bool, typer.Option("--dicom", help="Also write DICOM files, in the folder dicom.")] = False,
) -> None:
    """Make synthetic exams whose dense tissue is known, in the folders that INFN uses.

    Example: mammodensity phantom --exams 40 --size 256 --seed 1 phantoms
    """
    from mammodensity.commands.show import how_many, progress_bar, say
    from mammodensity.phantom.exams import PhantomSpec, write_phantoms

    spec = PhantomSpec(rows=size, seed=seed, mix=mix, bits=bits)  # type: ignore[arg-type]  # checked there
    with progress_bar("phantoms") as progress:
        manifest = write_phantoms(spec, exams, out, dicom=dicom, progress=progress)
    say(f"{how_many(exams, 'exam')} in {out}, listed in {manifest}")


def check(
    paths: Annotated[
        list[Path], typer.Argument(help="Give data sets, DICOM archives, or files of any kind.", metavar="PATH")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write a list with an entry for each file.", metavar="FILE")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name every file that is refused or has a note.")] = False,
    no_pixels: Annotated[bool, typer.Option("--no-pixels", help="Check headers and names only.")] = False,
    synthetic: Synthetic = False,
) -> None:
    """Check data before they are used: what is there, and which files are refused and why.

    The exit code is 1 if the data should not be used as they are.

    Example: mammodensity check phantoms
    """
    from mammodensity.commands.show import progress_bar
    from mammodensity.commands.show_data import show_check
    from mammodensity.outputs import require_not_input, write_json
    from mammodensity.workflows.check import check as check_data

    with progress_bar("check") as progress:
        results = check_data(paths, read_pixels=not no_pixels, synthetic=synthetic, progress=progress)
    for result in results:
        show_check(result, verbose=verbose)
    require_not_input(json_file, (Path(file.path) for result in results for file in result.files))
    if json_file:
        write_json(json_file, [entry for result in results for entry in result.to_list()])
    for problem in (one for result in results for one in result.problems if one.code == "unknown-layout"):
        raise LayoutError(problem.text)
    if not all(result.usable for result in results):
        raise typer.Exit(1)


def prepare(
    data: Annotated[Path, typer.Argument(help="Give an archive, a data set, or its table.", metavar="DATA")],
    out: Annotated[Path | None, typer.Argument(help="Name a new folder to write to.", metavar="OUT")] = None,
    dataset: Annotated[
        Literal["vindr", "rsna", "cbis-ddsm", "ddsm", "inbreast", "embed", "mini-mias", "origin", "csv"] | None,
        typer.Option(help="Name the public data set; default: the one whose tables are there."),
    ] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Read the data set's tables from this folder, if not from DATA.", metavar="DIR")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="For csv: say which column is what, e.g. exam_id=StudyID,density=acr.", metavar="PAIRS"),
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="For csv: say which value means what, e.g. 1=A,2=B,9=.", metavar="PAIRS")
    ] = None,
    keep_unlabelled: Annotated[
        bool, typer.Option("--keep-unlabelled", help="Keep exams of a public data set that have no category.")
    ] = False,
    spec_file: Annotated[
        Path | None,
        typer.Option("--spec", help="Read crop, pectoral, background and depth from a JSON file.", metavar="FILE"),
    ] = None,
    salt: Annotated[
        str, typer.Option(help="Make the keys with this secret; default: one that is drawn and forgotten.")
    ] = "",
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep the names of exams and patients, and dates.")
    ] = False,
    synthetic: Synthetic = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the exams only, and write no picture.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Make a training set from an archive or a public data set: cropped pictures and a manifest.

    Pictures go into the folders that INFN uses, one for each projection and category. Names become keys.

    Example: mammodensity prepare archive training-set
    """
    from mammodensity.commands.show import how_many, progress_bar, say
    from mammodensity.commands.show_data import show_exams
    from mammodensity.outputs import require_apart, require_not_input, write_json
    from mammodensity.workflows.prepare import list_exams
    from mammodensity.workflows.prepare import prepare as prepare_exams

    if out is None and not dry_run:
        raise OptionError("OUT is needed: the folder to write to; or give --dry-run to list the exams only")
    if out is not None:
        require_apart(out, data)
    with progress_bar("exams") as progress:
        exams = list_exams(
            data,
            dataset=dataset,
            tables=tables,
            columns=columns,
            values=values,
            keep_unlabelled=keep_unlabelled,
            synthetic=synthetic,
            by_name=dry_run,
            progress=progress,
        )
    require_not_input(json_file, exams.files)
    if dry_run or exams.tables:
        show_exams(exams)
    if json_file:
        write_json(json_file, exams.values)
    if dry_run or out is None:
        return
    with progress_bar("prepare") as progress:
        done = prepare_exams(
            exams, out, spec=spec_file, salt=salt, keep_names=keep_names, resume=resume, progress=progress
        )
    say(f"{how_many(done.exams, 'exam')} in {out}, listed in {done.manifest}; refused.csv names the files left out")


def segment(
    images: Annotated[
        list[Path], typer.Argument(help="Give pictures, DICOM files, or folders of them.", metavar="IMAGES")
    ],
    output: Annotated[Path, typer.Option(help="Name a folder to write to.", metavar="DIR")],
    synthetic: Synthetic = False,
) -> None:
    """Segment images: write label images and segment.csv, with areas and percent density.

    The labels are 1 adipose tissue, 2 fibroglandular tissue, 3 pectoral muscle.

    Example: mammodensity segment phantoms/MLO_R/A --output tissue
    """
    from mammodensity.commands.show import how_many, progress_bar, say, say_research_use_only
    from mammodensity.workflows.segment import TABLE
    from mammodensity.workflows.segment import segment as segment_images

    with progress_bar("segment") as progress:
        done = segment_images(images, output, synthetic=synthetic, progress=progress)
    for text in done.refused:
        say(f"refused: {text}")
    for text in done.doubts:
        say(f"note: {text}")
    say(f"{how_many(len(done.labels), 'label image')} and {TABLE} in {output}")
    say_research_use_only()
