"""Commands that make, check and prepare data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mammodensity.commands.options import JsonFile, Synthetic
from mammodensity.errors import LayoutError, OptionError


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder to write to.", metavar="OUT")],
    exams: Annotated[int, typer.Option(help="Exams to make, four images each.")] = 40,
    size: Annotated[int, typer.Option(help="Rows of each image.", metavar="ROWS")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 1,
    mix: Annotated[str, typer.Option(help="Categories A-D: balanced, or population (10/40/40/10 %).")] = "balanced",
    bits: Annotated[int, typer.Option(help="Bits a pixel: 8 or 16.")] = 8,
) -> None:
    """Make synthetic exams with known dense tissue, in the origin's folders.

    Example: mammodensity phantom --exams 40 --size 256 --seed 1 phantoms
    """
    from mammodensity.commands.show import how_many, progress_bar, say
    from mammodensity.phantom.exams import PhantomSpec, write_phantoms

    spec = PhantomSpec(rows=size, seed=seed, mix=mix, bits=bits)  # type: ignore[arg-type]  # it checks them
    with progress_bar("phantoms") as progress:
        manifest = write_phantoms(spec, exams, out, progress=progress)
    say(f"{how_many(exams, 'exam')} in {out}, listed in {manifest}")


def check(
    paths: Annotated[
        list[Path], typer.Argument(help="Data sets, DICOM archives or files of any kind.", metavar="PATH...")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write a list with one entry a file.", metavar="FILE")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name every file that is refused or has a note.")] = False,
    no_pixels: Annotated[bool, typer.Option("--no-pixels", help="Judge by headers and names alone.")] = False,
    synthetic: Synthetic = False,
) -> None:
    """Say what is there, which files are refused and why; exit code 1 if it should not be used.

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
    data: Annotated[Path, typer.Argument(help="Folder of a data set, or its table.", metavar="DATA")],
    out: Annotated[Path | None, typer.Argument(help="New folder to write to.", metavar="OUT")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="vindr, rsna, cbis-ddsm, ddsm, inbreast, embed, mini-mias, origin, csv; default: by its tables.",
            metavar="NAME",
        ),
    ] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Folder of the data set's tables, if it is not DATA.", metavar="DIR")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="For csv: field=column,... e.g. exam_id=StudyID,density=acr.", metavar="PAIRS")
    ] = None,
    meaning: Annotated[
        str | None, typer.Option("--values", help="For csv: value=category,... e.g. 1=A,2=B,9=.", metavar="PAIRS")
    ] = None,
    keep_unlabelled: Annotated[
        bool, typer.Option("--keep-unlabelled", help="With --dataset: keep exams without a category.")
    ] = False,
    spec_file: Annotated[
        Path | None, typer.Option("--spec", help="JSON with crop, pectoral, background, depth.", metavar="FILE")
    ] = None,
    salt: Annotated[str, typer.Option(help="Secret that goes into the keys; by default drawn and forgotten.")] = "",
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep names of exams and patients, and dates.")
    ] = False,
    synthetic: Synthetic = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the exams, by tables or by headers and names.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Make a training set of an archive or a public data set: cropped pictures in the origin's folders, and a manifest.

    Example: mammodensity prepare archive training-set
    """
    from mammodensity.commands.show import how_many, progress_bar, say
    from mammodensity.commands.show_data import show_found, show_listed
    from mammodensity.data.dataset import exam_sources, found_images, refused_files
    from mammodensity.data.public.csv_table import column_spec
    from mammodensity.outputs import require_apart, require_not_input, write_json
    from mammodensity.workflows.prepare import find_exams, find_untabled, holds_known_tables, sources_of
    from mammodensity.workflows.training_set import ExportSpec, export_exams, read_preprocess

    if out is None and not dry_run:
        raise OptionError("OUT is needed: the folder to write to; or give --dry-run to list the exams only")
    if out is not None:
        require_apart(out, data)
    spec = ExportSpec(read_preprocess(spec_file), salt, keep_names)
    mapping = column_spec(columns, meaning) if columns or meaning else None
    by_tables = dataset or mapping or tables or holds_known_tables(data)
    images = None if by_tables else find_untabled(data, synthetic=synthetic, dry_run=dry_run)
    if images is None:
        with progress_bar("exams") as progress:
            found = find_exams(
                data, dataset, tables=tables, columns=mapping, keep_unlabelled=keep_unlabelled, progress=progress
            )
        show_found(found)
        if json_file:
            write_json(json_file, found.to_dict())
        exams = sources_of(found)
        refused = []
    else:
        require_not_input(json_file, (record.path for record in images.records))
        if dry_run:
            show_listed(found_images(images))
        if json_file:
            write_json(json_file, found_images(images))
        exams, refused = exam_sources(images), refused_files(images)
    if dry_run or out is None:
        return
    if not exams:
        raise LayoutError(f"{data} holds no image file of the exams in its tables; expected them beside or below it")
    with progress_bar("prepare") as progress:
        manifest = export_exams(exams, out, spec, refused=refused, resume=resume, progress=progress)
    say(f"{how_many(len(exams), 'exam')} in {out}, listed in {manifest}; files that were not used are in refused.csv")


def segment(
    images: Annotated[
        list[Path], typer.Argument(help="Pictures, DICOM files, or folders of them, of any depth.", metavar="IMAGES...")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write to.", metavar="DIR")],
    synthetic: Synthetic = False,
) -> None:
    """Find adipose (1), fibroglandular (2) and pectoral (3): label images, and segment.csv with percent density.

    Example: mammodensity segment phantoms/MLO_R/A --output tissue
    """
    from mammodensity.commands.show import progress_bar, say, say_research_use_only
    from mammodensity.workflows.segment import write_segmentations

    with progress_bar("segment") as progress:
        count, notes = write_segmentations(images, output, synthetic=synthetic, progress=progress)
    for note in notes:
        say(f"refused: {note}")
    say(f"{count} label images and segment.csv in {output}")
    say_research_use_only()
