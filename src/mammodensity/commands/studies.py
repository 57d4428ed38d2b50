"""Commands that compare readings: two models, several readers, periods of time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mammodensity.commands.options import Bootstrap, JsonFile, Manifest
from mammodensity.commands.show import finish, say, say_each, say_resampled
from mammodensity.commands.show_figures import show_comparison, show_drift, show_readers
from mammodensity.outputs import require_not_input, write_bytes

if TYPE_CHECKING:
    from mammodensity.studies.compare import Comparison
    from mammodensity.studies.readers import ReadersAgreement


def compare(
    a: Annotated[
        Path,
        typer.Argument(help="Give a score table, a folder of INFN's text files, or a reader's table.", metavar="A"),
    ],
    b: Annotated[Path, typer.Argument(help="Give another of the same exams.", metavar="B")],
    labels: Annotated[
        Path, typer.Option(help="Read the reference from a table of exam_id and density.", metavar="FILE")
    ],
    manifest: Manifest = None,
    json_file: JsonFile = None,
    bootstrap: Bootstrap = 2000,
) -> None:
    """Compare two models or readers on the same exams: differences, with intervals and p values.

    A reader's table has the columns exam_id and density.

    Example: mammodensity compare predictions.csv reader.csv --labels labels.csv --json comparison.json
    """
    from mammodensity.evaluation.bootstrap import BootstrapSpec
    from mammodensity.evaluation.labels import read_densities
    from mammodensity.studies.compare import compare as compare_readings
    from mammodensity.studies.readings import read_readings

    require_not_input(json_file, _files(a, b, labels, manifest))
    first, second = read_readings([a, b])
    comparison = compare_readings(
        first,
        second,
        read_densities(labels),
        patients=_patients(manifest, labels),
        spec=BootstrapSpec(bootstrap),
    )
    show_comparison(comparison)
    _summarise(comparison, json_file)


def readers(
    files: Annotated[
        list[Path],
        typer.Argument(help="Give one table for each reader; score tables of models count, too.", metavar="FILE"),
    ],
    reference: Annotated[
        Path | None, typer.Option(help="Also compare with this table of exam_id and density.", metavar="FILE")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Read patients by exam from this table, if not from the reference.", metavar="FILE"),
    ] = None,
    json_file: JsonFile = None,
    bootstrap: Bootstrap = 2000,
) -> None:
    """Measure how well readers agree: with each other, with their consensus, and with a reference if given.

    A reader's table has the columns exam_id and density.

    Example: mammodensity readers anna.csv bruno.csv carla.csv --reference labels.csv --json readers.json
    """
    from mammodensity.evaluation.bootstrap import BootstrapSpec
    from mammodensity.evaluation.labels import read_densities
    from mammodensity.studies.readers import readers_agreement
    from mammodensity.studies.readings import read_readings

    require_not_input(json_file, _files(*files, reference, manifest))
    agreement = readers_agreement(
        read_readings(files),
        read_densities(reference) if reference else None,
        patients=_patients(manifest, reference),
        spec=BootstrapSpec(bootstrap),
    )
    show_readers(agreement)
    _summarise(agreement, json_file)


def drift(
    table: Annotated[Path, typer.Argument(help="Give a score table, or a reader's table.", metavar="TABLE")],
    manifest: Annotated[
        Path,
        typer.Option(help="Read the date of each exam, and patients if there are any, from a table.", metavar="FILE"),
    ],
    date: Annotated[
        str | None,
        typer.Option(help="Take dates from this column; default: study_date, exam_date or date.", metavar="COLUMN"),
    ] = None,
    period: Annotated[
        Literal["month", "quarter", "year"], typer.Option(help="Count the exams of each of these periods.")
    ] = "month",
    compare_periods: Annotated[
        tuple[str, str] | None, typer.Option("--compare", help="Compare these two periods.", metavar="PERIOD PERIOD")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Also write a plot, as .svg or .png.", metavar="FILE")] = None,
    json_file: JsonFile = None,
    bootstrap: Bootstrap = 2000,
) -> None:
    """Show how predictions change over time: shares of A to D and of dense exams, confidence, and flags.

    Example: mammodensity drift predictions.csv --manifest dates.csv --period quarter --compare 2024-Q1 2024-Q3
    """
    from mammodensity.evaluation.bootstrap import BootstrapSpec
    from mammodensity.evaluation.labels import read_exam_columns
    from mammodensity.pages.plots import drift_plot, plot_format
    from mammodensity.studies.drift import date_column, read_flags
    from mammodensity.studies.drift import drift as drift_of
    from mammodensity.studies.readings import read_reading

    file_format = plot_format(plot) if plot else "svg"
    for output in (json_file, plot):
        require_not_input(output, _files(table, manifest))
    columns = read_exam_columns(manifest)
    changes = drift_of(
        read_reading(table),
        columns.texts(date or date_column(columns)),
        period=period,
        compare=compare_periods,
        patients=columns.patients(),
        flags={} if table.is_dir() else read_flags(table),
        spec=BootstrapSpec(bootstrap),
    )
    show_drift(changes)
    if plot:
        write_bytes(plot, drift_plot(changes, file_format))
        say(f"plot in {plot}")
    finish(json_file, changes.to_dict())


def sample_size(
    figure: Annotated[
        Literal["linear_kappa", "quadratic_kappa", "accuracy", "dense_accuracy", "coverage"],
        typer.Option(help="Choose the figure that the study measures."),
    ],
    expected: Annotated[float, typer.Option(help="Say which value you expect.", metavar="VALUE")],
    above: Annotated[float, typer.Option(help="Say which value it is to exceed.", metavar="VALUE")],
    power: Annotated[float, typer.Option(help="Set the share of such studies that show it.", metavar="SHARE")] = 0.8,
    confidence: Annotated[
        float, typer.Option(help="Set the confidence of the two-sided interval.", metavar="SHARE")
    ] = 0.95,
    mix: Annotated[
        str, typer.Option(help="For kappas: say which per cent of the exams are A to D.", metavar="A/B/C/D")
    ] = "10/40/40/10",
    json_file: JsonFile = None,
) -> None:
    """Calculate how many exams a study needs to show that a figure is above a value.

    Example: mammodensity sample-size --figure linear_kappa --expected 0.80 --above 0.75
    """
    from mammodensity.studies.sample_size import SampleSizeSpec, parse_mix
    from mammodensity.studies.sample_size import sample_size as needed_exams

    needed = needed_exams(SampleSizeSpec(figure, expected, above, power, confidence, parse_mix(mix)))
    say(needed.summary)
    say(f"(by {needed.method}; exams of different patients, and more if patients have several)")
    finish(json_file, needed.to_dict())


def _patients(*paths: Path | None) -> dict[str, str] | None:
    from mammodensity.evaluation.labels import patients_of, read_exam_columns

    return patients_of([read_exam_columns(path) for path in paths if path is not None])


def _files(*paths: Path | None) -> Iterable[Path]:
    """List the files that a command reads, also those in folders."""
    for path in paths:
        if path is not None:
            yield from path.glob("*") if path.is_dir() else [path]


def _summarise(study: Comparison | ReadersAgreement, json_file: Path | None) -> None:
    """Say the result of a study in words, and what its reader must know."""
    say_resampled(study.patients)
    say(study.summary)
    say_each("note", study.warnings)
    finish(json_file, study.to_dict())
