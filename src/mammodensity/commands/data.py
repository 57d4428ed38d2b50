"""Commands that make, check and prepare data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import mammodensity
from mammodensity.commands.options import JsonFile, Synthetic
from mammodensity.commands.show import MOST, how_many, progress_bar, say, say_each, say_research_use_only, show_table
from mammodensity.errors import LayoutError, OptionError
from mammodensity.outputs import require_apart, require_not_input, write_json
from mammodensity.terms import PROJECTIONS

if TYPE_CHECKING:
    from mammodensity.workflows.check import CheckResult
    from mammodensity.workflows.prepare import ExamList


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
    with progress_bar("check") as progress:
        results = mammodensity.check(paths, read_pixels=not no_pixels, synthetic=synthetic, progress=progress)
    for result in results:
        show_check(result, verbose=verbose)
    require_not_input(json_file, (Path(file.path) for result in results for file in result.files))
    if json_file:
        write_json(json_file, [entry for result in results for entry in result.to_list()])
    for problem in (problem for result in results for problem in result.problems if problem.code == "unknown-layout"):
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
    from mammodensity.workflows.prepare import list_exams

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
        done = mammodensity.prepare(
            exams, out, spec=spec_file, salt=salt, keep_names=keep_names, resume=resume, progress=progress
        )
    left_out = f"{how_many(done.refused, 'file')} left out: refused.csv says why"
    if not done.images:
        raise LayoutError(f"{data} holds no image that can be used; {left_out}")
    images = f"{how_many(done.exams, 'exam')}, {how_many(done.images, 'image')}"
    say(f"{images} in {out}, listed in {done.manifest}; {left_out}")


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
    from mammodensity.workflows.segment import TABLE

    with progress_bar("segment") as progress:
        done = mammodensity.segment(images, output, synthetic=synthetic, progress=progress)
    say_each("refused", done.refused)
    say_each("note", done.doubts)
    say(f"{how_many(len(done.labels), 'label image')} and {TABLE} in {output}")
    say_research_use_only()


def show_check(result: CheckResult, *, verbose: bool = False) -> None:
    """Print what a data set holds, and a line for each kind of problem; with ``verbose`` also for each file."""
    images, exams = how_many(result.images, "image"), how_many(result.exams, "exam")
    say(f"{result.root}: {images} of {exams} of {how_many(result.patients, 'patient')}, {result.layout}")
    columns = list(result.scale.letters)
    categories = {name for splits in result.counts.values() for counts in splits.values() for name in counts}
    columns += sorted(categories - set(columns))
    rows = [
        [projection, split, *(str(counts.get(name, 0)) for name in columns)]
        for projection, splits in result.counts.items()
        for split, counts in splits.items()
    ]
    if rows:
        show_table(["projection", "split", *columns], rows)
    findings = result.findings()
    rows = []
    for finding in findings:
        text = finding.meaning if len(finding.texts) > 1 else finding.texts[0]
        rows.append([finding.kind, finding.code, str(len(finding.texts)), text])
    if rows:
        show_table(["", "code", "count", "meaning"], rows)
    several = [finding for finding in findings if len(finding.texts) > 1]
    for finding in several if verbose else ():
        for text in finding.texts:
            say(f"{finding.kind} [{finding.code}] {text}")
    if several and not verbose:
        say("--verbose names every file, as --json FILE does")
    if result.ignored and not result.named:
        say(f"{how_many(result.ignored, 'file is not an image', 'files are not images')}, and so left alone")
    severe = sum(problem.severe for problem in result.problems)
    counts = f"{how_many(severe, 'error')}, {how_many(len(result.problems) - severe, 'note')}"
    refused = sum(not file.accepted for file in result.judged)
    files = f"{how_many(len(result.judged) - refused, 'file')} usable, {refused} refused"
    say(f"{counts}; {files}{'' if result.usable else ': not usable yet'}")


def show_exams(exams: ExamList, most: int = MOST) -> None:
    """Print the first exams of a list, its counts, and what is left out for which reason."""
    tables, summary = exams.tables, exams.values["summary"]
    names = [exam["exam_id"] for exam in exams.values["exams"]]
    if tables is None:
        columns, cells = ["exam's", "split"], [[exam["density"], exam["split"]] for exam in exams.values["exams"]]
    else:
        columns = ["right", "left", "exam's", "split"]
        cells = [[*map(exam.breast_categories.get, "RL"), exam.category, exam.split] for exam in tables.data.exams]
    rows = []
    for values, words in zip(exams.values["exams"][:most], cells, strict=False):
        views = ["x" if projection.value in values["projections"] else "-" for projection in PROJECTIONS]
        rows.append([values["exam_id"], *views, *(word or "-" for word in words)])
    show_table(["exam", *PROJECTIONS, *columns], rows)
    if len(names) > most:
        say(f"... and {how_many(len(names) - most, 'more exam')}; --json lists all")
    counts = f"{exams.values['dataset']}: {how_many(summary['exams'], 'exam')}"
    images = how_many(summary["images"], "image")
    if tables is None:
        say(f"{counts}, {images}")
        if summary["refused"]:
            say(f"{how_many(summary['refused'], 'file')} would not be used; `mammodensity check` says why")
        return
    complete = how_many(summary["complete_exams"], "exam has", "exams have")
    say(f"{counts} of {how_many(summary['patients'], 'patient')}, {images}; {complete} all four projections")
    for name in ("by_category", "images_by_category", "images_by_tissue", "by_projection", "by_split"):
        if name in summary:
            say(f"{name.replace('_', ' ')}: {', '.join(f'{key} {count}' for key, count in summary[name].items())}")
    say(f"image files: {summary['files_found']} found, {summary['files_absent']} not there")
    for word, reasons in (("left out", tables.data.left_out), ("note", tables.data.notes)):
        for reason in reasons:
            say(f"{word} [{reason.code}] {how_many(reason.count, reason.unit.removesuffix('s'))}: {reason.text}")
