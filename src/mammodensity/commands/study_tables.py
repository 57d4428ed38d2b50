"""What the commands of `mammodensity.statistics` show on the terminal."""

from __future__ import annotations

from mammodensity.commands.show import limits, number, say, show_table
from mammodensity.studies.compare import Comparison, p_text
from mammodensity.studies.drift import Drift
from mammodensity.studies.further import FurtherFigures
from mammodensity.studies.groups import Group, ViewSubsets
from mammodensity.studies.readers import Figure, ReadersAgreement


def show_comparison(found: Comparison) -> None:
    """Figures of two readings side by side, and how heavy their errors are."""
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
    show_table(["", found.a, found.b, "difference", f"{found.confidence:.0%}", "p (bootstrap)"], rows)
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


def show_readers(found: ReadersAgreement) -> None:
    """Pairs of readers, each reader against the consensus and the reference, and figures of all."""
    columns = ["exams", "agree", "linear kappa", "95 %", "quadratic kappa", "dense or not", "2 off", "flips"]
    tables = (
        ("two readers", found.pairs),
        ("with the others' consensus", found.with_consensus if len(found.readers) > 2 else ()),
        ("with the reference", found.with_reference),
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


def show_drift(found: Drift) -> None:
    """A row a period, and the comparison in words."""
    flags = list(found.periods[0].flags)
    rows = []
    for one in found.periods:
        confidence = "-" if one.mean_confidence is None else f"{one.mean_confidence:.3f}"
        shares = [f"{share.value:.1%}" for share in (*one.shares.values(), one.dense)]
        flagged = [f"{share.value:.1%}" for share in one.flags.values()]
        dense = " to ".join(f"{end:.1%}" for end in one.dense.interval)
        rows.append([one.period, str(one.n), *shares, dense, confidence, *flagged])
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


def show_further(found: FurtherFigures) -> None:
    """What `evaluate` shows below its figures of merit: groups, subsets of views, one line of the reject curve."""
    if found.groups is not None:
        _show_groups(str(found.spec.by), found.groups)
    if found.subsets is not None:
        _show_subsets(found.subsets)
    elif found.spec.subsets:
        say("no exam has all four projections, so that subsets of views cannot be compared")
    if found.reject is not None and len(found.reject.points) > 1:
        first, left = found.reject.points[0], found.reject.at(0.2)
        say(
            f"leaving the least sure fifth, the {first.kept - left.kept} of {first.kept} exams whose highest score is "
            f"lowest, to a reader: accuracy {first.accuracy:.3f} -> {left.accuracy:.3f}, errors of two categories "
            f"{first.two_or_more} -> {left.two_or_more}, "
            f"dense or not mistaken {first.dense_flips} -> {left.dense_flips}"
        )


def _show_groups(column: str, groups: list[Group]) -> None:
    rows = []
    for group in groups:
        figures = group.figures
        cells = ["-"] * 6
        if figures is not None:
            cells = [
                cell
                for name in ("accuracy", "linear_kappa", "dense_accuracy")
                for cell in (number(getattr(figures, name)), limits(figures.intervals.get(name)))
            ]
        rows.append([group.value, str(group.n), *cells])
    show_table([column, "exams", "accuracy", "95 %", "linear kappa", "95 %", "dense or not", "95 %"], rows)
    for group in groups:
        for warning in group.warnings:
            say(f"note: {column} {group.value}: {warning}")


def _show_subsets(found: ViewSubsets) -> None:
    named = [(" ".join(one.views), one) for one in found.combinations]
    named += [(f"mean of {size} view{'s' if size > 1 else ''}", one) for size, one in found.by_number.items()]
    rows = []
    for name, one in named:
        figures = (one.accuracy, one.linear_kappa, one.quadratic_kappa, one.mean_confidence, one.mean_set_size)
        accuracy, *others = map(number, figures)
        rows.append([name, accuracy, limits(one.intervals.get("accuracy")), *others])
    show_table(["views", "accuracy", "95 %", "linear kappa", "quadratic kappa", "mean confidence", "90 % set"], rows)
    if found.left_out:
        say(f"(on the {found.n} exams with all four projections; {found.left_out} lack one)")


def _value(figure: Figure) -> str:
    return number(figure.value)


def _interval(figure: Figure) -> str:
    return limits(figure.interval)
