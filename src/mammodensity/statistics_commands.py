"""Commands of `mammodensity.statistics`; `mammodensity.cli` puts them among the others."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mammodensity.statistics import Comparison, Drift, Group, ReadersAgreement, ViewSubsets
    from mammodensity.statistics.further import FurtherFigures
    from mammodensity.statistics.readers import Figure

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the result as JSON.", metavar="FILE")]
Manifest = Annotated[
    Path | None,
    typer.Option("--manifest", help="Table with patient and other columns by exam, if not the labels.", metavar="FILE"),
]
Bootstrap = Annotated[int, typer.Option(help="Resamples for the intervals.", min=1, max=100_000)]


def compare(
    a: Annotated[Path, typer.Argument(help="Score table, origin's folder, or a reader's table.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another of the same exams.", metavar="B")],
    labels: Annotated[Path, typer.Option(help="Table of exam and density: the reference.", metavar="FILE")],
    manifest: Manifest = None,
    json_file: JsonFile = None,
    bootstrap: Bootstrap = 2000,
) -> None:
    """Compare two models or readers on the same exams: McNemar's test, and differences with intervals over patients.

    A reader's table has the columns exam_id and density.

    Example: mammodensity compare predictions.csv reader.csv --labels labels.csv --json comparison.json
    """
    from mammodensity.console import say, say_resampled, say_research_use_only
    from mammodensity.evaluation import read_labels
    from mammodensity.evaluation.resampling import BootstrapSpec
    from mammodensity.outputs import require_not_input, write_json
    from mammodensity.statistics import compare as compare_readings
    from mammodensity.statistics.readings import read_readings

    require_not_input(json_file, _files(a, b, labels, manifest))
    first, second = read_readings([a, b])
    found = compare_readings(
        first,
        second,
        read_labels(labels),
        patients=_patients(manifest, labels),
        spec=BootstrapSpec(bootstrap),
    )
    _show_comparison(found)
    say_resampled(found.patients)
    say(found.summary)
    if json_file:
        write_json(json_file, found.to_dict())
        say(f"all figures and intervals in {json_file}")
    say_research_use_only()


def readers(
    files: Annotated[
        list[Path], typer.Argument(help="One table a reader; score tables of models will do.", metavar="FILE...")
    ],
    reference: Annotated[Path | None, typer.Option(help="Table of exam and density.", metavar="FILE")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Table with patients by exam, if not the reference.", metavar="FILE")
    ] = None,
    json_file: JsonFile = None,
    bootstrap: Bootstrap = 2000,
) -> None:
    """Measure how far several readers agree: with each other, with their consensus, and with a reference if given.

    A reader's table has the columns exam_id and density.

    Example: mammodensity readers anna.csv bruno.csv carla.csv --reference labels.csv --json readers.json
    """
    from mammodensity.console import say, say_resampled, say_research_use_only
    from mammodensity.evaluation import read_labels
    from mammodensity.evaluation.resampling import BootstrapSpec
    from mammodensity.outputs import require_not_input, write_json
    from mammodensity.statistics import readers_agreement
    from mammodensity.statistics.readings import read_readings

    require_not_input(json_file, _files(*files, reference, manifest))
    found = readers_agreement(
        read_readings(files),
        read_labels(reference) if reference else None,
        patients=_patients(manifest, reference),
        spec=BootstrapSpec(bootstrap),
    )
    _show_readers(found)
    say_resampled(found.patients)
    say(found.summary)
    if json_file:
        write_json(json_file, found.to_dict())
        say(f"all figures and intervals in {json_file}")
    say_research_use_only()


def sample_size(
    figure: Annotated[str, typer.Option(help="linear_kappa, quadratic_kappa, accuracy, dense_accuracy or coverage.")],
    expected: Annotated[float, typer.Option(help="What you expect the figure to be.")],
    above: Annotated[float, typer.Option(help="What it is to be shown to exceed.")],
    power: Annotated[float, typer.Option(help="Share of such studies that are to show it.")] = 0.8,
    confidence: Annotated[float, typer.Option(help="Of the two-sided interval.")] = 0.95,
    mix: Annotated[
        str, typer.Option(help="Per cent of A to D among the exams, for kappas.", metavar="A/B/C/D")
    ] = "10/40/40/10",
    json_file: JsonFile = None,
) -> None:
    """Say how many exams a study needs to show that a figure lies above a value.

    Example: mammodensity sample-size --figure linear_kappa --expected 0.80 --above 0.75
    """
    from mammodensity.console import say, say_research_use_only
    from mammodensity.outputs import write_json
    from mammodensity.statistics.sample_size import SampleSizeSpec, parse_mix
    from mammodensity.statistics.sample_size import sample_size as needed_exams

    found = needed_exams(SampleSizeSpec(figure, expected, above, power, confidence, parse_mix(mix)))
    say(found.summary)
    say(f"(by {found.method}; exams of different patients, and more if patients have several)")
    if json_file:
        write_json(json_file, found.to_dict())
    say_research_use_only()


def drift(
    table: Annotated[Path, typer.Argument(help="Score table, or a reader's table.", metavar="TABLE")],
    manifest: Annotated[
        Path, typer.Option(help="Table with the date of each exam, and patients if it has them.", metavar="FILE")
    ],
    date: Annotated[
        str | None, typer.Option(help="Column of the dates; else study_date, exam_date or date.", metavar="COLUMN")
    ] = None,
    period: Annotated[str, typer.Option(help="month, quarter or year.")] = "month",
    compare_periods: Annotated[
        tuple[str, str] | None, typer.Option("--compare", help="Two periods to compare.", metavar="PERIOD PERIOD")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw it, as .svg or .png.", metavar="FILE")] = None,
    json_file: JsonFile = None,
    bootstrap: Bootstrap = 2000,
) -> None:
    """Show how predictions change over time: shares of A to D and of dense, confidence and flags by period.

    Example: mammodensity drift predictions.csv --manifest dates.csv --period quarter --compare 2024-Q1 2024-Q3
    """
    from mammodensity.console import say, say_research_use_only
    from mammodensity.evaluation import read_exam_columns
    from mammodensity.evaluation.resampling import BootstrapSpec
    from mammodensity.outputs import require_not_input, write_bytes, write_json
    from mammodensity.statistics import drift as drift_of
    from mammodensity.statistics.drift import date_column, read_flags
    from mammodensity.statistics.plots import drift_plot, plot_format
    from mammodensity.statistics.readings import read_reading

    file_format = plot_format(plot) if plot else "svg"
    for output in (json_file, plot):
        require_not_input(output, _files(table, manifest))
    columns = read_exam_columns(manifest)
    found = drift_of(
        read_reading(table),
        columns.texts(date or date_column(columns)),
        period=period,
        compare=compare_periods,
        patients=columns.patients(),
        flags={} if table.is_dir() else read_flags(table),
        spec=BootstrapSpec(bootstrap),
    )
    _show_drift(found)
    if plot:
        write_bytes(plot, drift_plot(found, file_format))
        say(f"plot in {plot}")
    if json_file:
        write_json(json_file, found.to_dict())
        say(f"all figures and intervals in {json_file}")
    say_research_use_only()


def _show_drift(found: Drift) -> None:
    from mammodensity.console import say, show_table

    flags = list(found.periods[0].flags)
    rows = []
    for one in found.periods:
        confidence = "-" if one.mean_confidence is None else f"{one.mean_confidence:.3f}"
        shares = [f"{share.value:.1%}" for share in (*one.shares.values(), one.dense)]
        flagged = [f"{share.value:.1%}" for share in one.flags.values()]
        rows.append([one.period, str(one.n), *shares, _limits(one.dense.interval), confidence, *flagged])
    show_table([found.period, "exams", *"ABCD", "dense", "95 %", "confidence", *flags], rows)
    if found.not_dated:
        say(f"exams without a date, and so left aside: {found.not_dated}")
    if not found.patients_known:
        say("(each exam counts as a patient of its own, as no patient_id is known)")
    for one in found.periods:
        for warning in one.warnings:
            say(f"note: {one.period}: {warning}")
    if found.comparison is not None:
        say(found.comparison.summary)


def _show_readers(found: ReadersAgreement) -> None:
    from mammodensity.console import say, show_table

    columns = ["exams", "agree", "linear kappa", "95 %", "quadratic kappa", "dense or not", "2 off", "flips"]
    tables = (
        ("two readers", found.pairs),
        ("against the consensus of the others", found.with_consensus),
        ("against the reference", found.with_reference),
    )
    for heading, pairs in tables:
        if not pairs:
            continue
        rows = []
        for pair in pairs:
            figures = pair.figures
            rows.append(
                [
                    f"{pair.a}, {pair.b}" if pairs is found.pairs else pair.a,
                    str(pair.n),
                    _value(figures["accuracy"]),
                    _value(figures["linear_kappa"]),
                    _interval(figures["linear_kappa"]),
                    _value(figures["quadratic_kappa"]),
                    _value(figures["dense_accuracy"]),
                    str(pair.differ.two_or_more),
                    str(pair.differ.dense_flips),
                ]
            )
        show_table([heading, *columns], rows)
    names = ("fleiss_kappa", "mean_linear_kappa", "mean_quadratic_kappa", "ordinal_alpha")
    whole = [(name, getattr(found, name)) for name in names]
    show_table(
        ["all readers", "", "95 %"], [[name.replace("_", " "), _value(one), _interval(one)] for name, one in whole]
    )
    for name, one in whole:
        if one.undefined:
            say(f"{name.replace('_', ' ')} is undefined: {one.undefined}")


def _value(figure: Figure) -> str:
    return _number(figure.value)


def _interval(figure: Figure) -> str:
    return _limits(figure.interval)


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3f}"


def _limits(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}"


def _show_comparison(found: Comparison) -> None:
    from mammodensity.console import say, show_table
    from mammodensity.statistics.comparison import p_text

    rows = []
    for name, one in found.figures.items():
        interval = "-" if one.interval is None else f"{one.interval[0]:+.3f} to {one.interval[1]:+.3f}"
        if one.undefined:
            say(f"{name.replace('_', ' ')} is not compared: {one.undefined}")
            continue
        p_value = p_text(one.p_value).removeprefix("= ")
        rows.append(
            [name.replace("_", " "), f"{one.a:.3f}", f"{one.b:.3f}", f"{one.difference:+.3f}", interval, p_value]
        )
    show_table(["", found.a, found.b, "difference", f"{found.confidence:.0%}", "p"], rows)
    counts = (found.errors_a, found.errors_b, found.between)
    show_table(
        ["exams", found.a, found.b, "the two differ"],
        [
            [words, *(str(getattr(one, name)) for one in counts)]
            for words, name in (
                ("wrong", "wrong"),
                ("by two categories or more", "two_or_more"),
                ("dense taken for not dense, or the reverse", "dense_flips"),
            )
        ],
    )
    for name, others in ((found.a, found.only_in_a), (found.b, found.only_in_b)):
        if others:
            say(f"{name}: exams that the other gives no category, and so left aside: {others}")


def show_further(found: FurtherFigures) -> None:
    """What `evaluate` shows below its figures of merit: groups, subsets of views, one line of the reject curve."""
    from mammodensity.console import say

    if found.groups is not None:
        _show_groups(str(found.spec.by), found.groups)
    if found.subsets is not None:
        _show_subsets(found.subsets)
    elif found.spec.subsets:
        say("no exam has all four projections, so that subsets of views cannot be compared")
    if found.reject is not None and len(found.reject.points) > 1:
        first, left = found.reject.points[0], found.reject.at(0.2)
        say(
            f"leaving the least sure {left.abstained:.0%} of exams to a reader: accuracy {first.accuracy:.3f} -> "
            f"{left.accuracy:.3f}, errors of two categories {first.two_or_more} -> {left.two_or_more}, dense or not "
            f"mistaken {first.dense_flips} -> {left.dense_flips}"
        )


def _show_groups(column: str, groups: list[Group]) -> None:
    from mammodensity.console import say, show_table

    rows = []
    for group in groups:
        figures = group.figures
        cells = ["-"] * 6
        if figures is not None:
            cells = [
                cell
                for name in ("accuracy", "linear_kappa", "dense_accuracy")
                for cell in (_number(getattr(figures, name)), _limits(figures.intervals.get(name)))
            ]
        rows.append([group.value, str(group.n), *cells])
    show_table([column, "exams", "accuracy", "95 %", "linear kappa", "95 %", "dense or not", "95 %"], rows)
    for group in groups:
        for warning in group.warnings:
            say(f"note: {column} {group.value}: {warning}")


def _show_subsets(found: ViewSubsets) -> None:
    from mammodensity.console import say, show_table

    named = [(" ".join(one.views), one) for one in found.combinations]
    named += [(f"mean of {size} view{'s' if size > 1 else ''}", one) for size, one in found.by_number.items()]
    rows = []
    for name, one in named:
        figures = (one.accuracy, one.linear_kappa, one.quadratic_kappa, one.mean_confidence)
        accuracy, *others = map(_number, figures)
        rows.append([name, accuracy, _limits(one.intervals.get("accuracy")), *others])
    show_table(["views", "accuracy", "95 %", "linear kappa", "quadratic kappa", "mean confidence"], rows)
    if found.left_out:
        say(f"(on the {found.n} exams with all four projections; {found.left_out} lack one)")


def _patients(*paths: Path | None) -> dict[str, str] | None:
    from mammodensity.evaluation import read_exam_columns
    from mammodensity.evaluation.exam_columns import patients_of

    return patients_of([read_exam_columns(path) for path in paths if path is not None])


def _files(*paths: Path | None) -> Iterable[Path]:
    """What a command reads: files, and those in folders."""
    for path in paths:
        if path is not None:
            yield from path.glob("*") if path.is_dir() else [path]
