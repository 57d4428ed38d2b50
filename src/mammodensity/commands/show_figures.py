"""Show figures of merit, what a calibration is worth, and comparisons of readings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammodensity.commands.show import how_many, say, show_table
from mammodensity.studies.compare import p_text
from mammodensity.terms import LEVELS

if TYPE_CHECKING:
    from mammodensity.evaluation.bootstrap import Figure
    from mammodensity.evaluation.figures import FiguresOfMerit
    from mammodensity.results.calibration import Calibration
    from mammodensity.results.category_fit import CategoryFit
    from mammodensity.studies.compare import Comparison
    from mammodensity.studies.drift import Drift
    from mammodensity.studies.further import FurtherFigures
    from mammodensity.studies.groups import Group, ViewSubsets
    from mammodensity.studies.readers import ReadersAgreement


def show_figures(figures: Mapping[str, FiguresOfMerit]) -> None:
    """Print figures of merit by level, with the interval of the accuracy, and the exams' confusion matrix."""
    names = {
        "accuracy": "acc.",
        "macro_recall": "recall",
        "macro_precision": "prec.",
        "linear_kappa": "linear\nkappa",
        "quadratic_kappa": "quadr.\nkappa",
        "dense_accuracy": "dense",
        "auc": "AUC",
    }
    rows = []
    for level in LEVELS:
        if level in figures:
            one = figures[level]
            values = [number(one[name].value) for name in names]
            rows.append([level, str(one.n), *values, limits(one["accuracy"].interval)])
    show_table(["", "exams", *names.values(), "accuracy\n95 %"], rows, bold="subject")
    subject = figures.get("subject")
    if subject is not None and subject.n:
        scale = subject.scale
        counts = zip(scale, subject.confusion, strict=True)
        rows = [[category.value, *map(str, row)] for category, row in counts]
        show_table(["reference", *(f"predicted {category}" for category in scale)], rows)
    for level, one in figures.items():
        for name, reason in one.undefined.items() if one.n else ():
            if name in names:
                say(f"{level}: {name.replace('_', ' ')} is undefined, {reason}")
        if one.n_not_given:
            say(f"{level}: {how_many(one.n_not_given, 'exam')} not counted (views are missing, and so scores)")
        if one.n_partial:
            say(f"{level}: {how_many(one.n_partial, 'exam')} scored without all of the views")


def show_calibration(calibration: Calibration) -> None:
    """Print how many combinations of views were calibrated, and what it is worth for all four views."""
    exams = {len(one.reference) for one in calibration.views.values()}
    counts = f"{min(exams)} to {max(exams)}" if len(exams) > 1 else f"{max(exams)}"
    say(f"{len(calibration.views)} of 15 combinations of views calibrated, on {counts} exams each")
    if calibration.figures:
        show_calibration_figures(calibration.figures, calibration.set_kind)


def show_category_fit(fit: CategoryFit) -> None:
    """Print where the categories change, and how many exams agree."""
    cuts = " / ".join(f"{cut:.1f}" for cut in fit.category_map.cuts)
    say(f"categories change at {cuts} % dense, fitted to {how_many(fit.exams, 'exam')}")
    default, fitted = (f"{100 * share:.0f} %" for share in (fit.agreement_default, fit.agreement_refitted))
    say(f"exams in their labelled category: {default} with the default map, {fitted} with the fitted one (ten-fold)")


def show_calibration_figures(figures: Mapping[str, Any], kind: str = "ordinal") -> None:
    """Print figures before and after calibration, and of prediction sets, by cross-validation."""
    names = (("log likelihood, negative", "nll"), ("accuracy", "accuracy"), ("calibration error", "ece"))
    rows = [[name, number(figures[f"{key}_before"]), number(figures[f"{key}_after"])] for name, key in names]
    show_table(["calibration", "before", "after"], rows)
    band = f"{figures['ece_null_low']:.3f} to {figures['ece_null_high']:.3f}"
    exams = how_many(figures["exams"], "exam")
    say(f"(with {exams}, perfect calibration gives a calibration error of {band} in 90 % of samples)")
    rows = []
    sets = figures["by_kind_of_set"][kind]
    for coverage, covered in sets["coverage"].items():
        by_category = ["-" if one is None else f"{one:.2f}" for one in sets["coverage_by_category"][coverage]]
        size = sets["mean_set_size"][coverage]
        rows.append([f"{100 * float(coverage):g} %", f"{100 * covered:.1f} %", f"{size:.2f}", *by_category])
    show_table([f"{kind} sets for", "covered", "mean size", "covered A", "B", "C", "D"], rows)
    say(f"(by cross-validation: {figures['folds']} folds, {figures['repeats']} times)")


def limits(interval: tuple[float, float] | None) -> str:
    """Write an interval; a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def number(value: float) -> str:
    """Write a figure of merit; a dash where it is undefined."""
    return "-" if value != value else f"{value:.3f}"  # noqa: PLR0124  (NaN is not equal to itself)


def show_comparison(comparison: Comparison) -> None:
    """Print figures of two readings next to each other, and how large their errors are."""
    rows = []
    for name, one in comparison.figures.items():
        difference = one.difference
        if difference.reason:
            say(f"{name.replace('_', ' ')} is not compared: {difference.reason}")
            continue
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}" if difference.interval else "-"
        p_value = p_text(one.p_value).removeprefix("= ")
        rows.append(
            [name.replace("_", " "), f"{one.a:.3f}", f"{one.b:.3f}", f"{difference.value:+.3f}", interval, p_value]
        )
    show_table(["", comparison.a, comparison.b, "difference", f"{comparison.confidence:.0%}", "p"], rows)
    tests: dict[str, list[str]] = {}
    for name, one in comparison.figures.items():
        if not one.difference.reason:
            tests.setdefault(one.test, []).append(name.replace("_", " "))
    methods = [f"{test} for {', '.join(names)}" for test, names in tests.items()]
    say(f"(p: {'; '.join(methods)})")
    counts = (comparison.errors_a, comparison.errors_b, comparison.between)
    show_table(
        ["exams", comparison.a, comparison.b, "the two differ"],
        [
            [words, *(str(getattr(one, name)) for one in counts)]
            for words, name in (
                ("wrong", "wrong"),
                ("by two categories or more", "two_or_more"),
                ("dense taken for not dense, or the reverse", "dense_flips"),
            )
        ],
    )
    for name, others in ((comparison.a, comparison.only_in_a), (comparison.b, comparison.only_in_b)):
        if others:
            say(f"{name}: {how_many(others, 'exam')} not compared (no category by the other)")


def show_readers(agreement: ReadersAgreement) -> None:
    """Print how well each two readers agree, each with the consensus and the reference, and all of them."""
    columns = ["exams", "agree", "linear kappa", "95 %", "quadratic kappa", "dense or not", "2 off", "flips"]
    tables = (
        ("two readers", agreement.pairs),
        ("with the others' consensus", agreement.with_consensus if len(agreement.readers) > 2 else ()),
        ("with the reference", agreement.with_reference),
    )
    for heading, pairs in tables:
        if not pairs:
            continue
        rows = []
        for pair in pairs:
            figures = pair.figures
            rows.append(
                [
                    f"{pair.a}, {pair.b}" if pairs is agreement.pairs else pair.a,
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
    whole = [(name, getattr(agreement, name)) for name in names]
    show_table(
        ["all readers", "", "95 %"], [[name.replace("_", " "), _value(one), _interval(one)] for name, one in whole]
    )
    for name, one in whole:
        if one.reason:
            say(f"{name.replace('_', ' ')} is undefined: {one.reason}")


def show_drift(drift: Drift) -> None:
    """Print a row for each period, and the comparison in words."""
    flags = list(drift.periods[0].flags)
    rows = []
    for one in drift.periods:
        confidence = "-" if one.mean_confidence is None else f"{one.mean_confidence.value:.3f}"
        shares = [f"{share.value:.1%}" for share in (*one.shares.values(), one.dense)]
        flagged = [f"{share.value:.1%}" for share in one.flags.values()]
        dense = f"{one.dense.low:.1%} to {one.dense.high:.1%}"
        rows.append([one.period, str(one.n), *shares, dense, confidence, *flagged])
    show_table([drift.period, "exams", *"ABCD", "dense", "95 %", "confidence", *flags], rows)
    if drift.not_dated:
        say(f"{how_many(drift.not_dated, 'exam')} left out (no date)")
    if not drift.patients_known:
        say("(each exam counts as one patient, as there is no patient_id)")
    for one in drift.periods:
        for warning in one.warnings:
            say(f"note: {one.period}: {warning}")
    if drift.comparison is not None:
        say(drift.comparison.summary)


def show_further(further: FurtherFigures) -> None:
    """Print what `evaluate` was asked for: groups, subsets of views; and a line of the reject curve."""
    if further.groups is not None:
        _show_groups(str(further.spec.by), further.groups)
    if further.subsets is not None:
        _show_subsets(further.subsets)
    elif further.spec.subsets:
        say("no exam has all four projections, so that subsets of views cannot be compared")
    if further.reject is not None and len(further.reject.points) > 1:
        first, left = further.reject.points[0], further.reject.at(0.2)
        say(
            f"if the 20 % least certain exams ({first.kept - left.kept} of {first.kept}) go to a radiologist: accuracy "
            f"{first.accuracy:.3f} -> {left.accuracy:.3f}, errors of two categories or more {first.two_or_more} -> "
            f"{left.two_or_more}, dense taken for not dense or the reverse {first.dense_flips} -> {left.dense_flips}"
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
                for cell in (_value(figures[name]), _interval(figures[name]))
            ]
        rows.append([group.value, str(group.n), *cells])
    show_table([column, "exams", "accuracy", "95 %", "linear kappa", "95 %", "dense or not", "95 %"], rows)
    for group in groups:
        for warning in group.warnings:
            say(f"note: {column} {group.value}: {warning}")


def _show_subsets(subsets: ViewSubsets) -> None:
    named = [(" ".join(one.views), one) for one in subsets.combinations]
    named += [(f"mean of {how_many(size, 'view')}", one) for size, one in subsets.by_number.items()]
    shown = ("accuracy", "linear_kappa", "quadratic_kappa", "mean_confidence")
    rows = []
    for views, one in named:
        accuracy, *others = (one.figures[name] for name in shown)
        rows.append([views, _value(accuracy), _interval(accuracy), *map(_value, others), number(one.mean_set_size)])
    show_table(["views", "accuracy", "95 %", "linear kappa", "quadratic kappa", "mean confidence", "90 % set"], rows)
    if subsets.left_out:
        say(f"(of {how_many(subsets.n, 'exam')} with all four projections; {subsets.left_out} left out)")


def _value(figure: Figure) -> str:
    return number(figure.value)


def _interval(figure: Figure) -> str:
    return limits(figure.interval)
