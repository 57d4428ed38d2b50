"""Show figures of merit, what a calibration is worth, and comparisons of readings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mammodensity.commands.show import how_many, say, say_each, show_table
from mammodensity.terms import LEVEL_WORDS, LEVELS

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

_COLUMNS = {
    "accuracy": "acc.",
    "macro_recall": "recall",
    "macro_precision": "prec.",
    "linear_kappa": "linear\nkappa",
    "quadratic_kappa": "quadr.\nkappa",
    "dense_accuracy": "dense",
    "auc": "AUC",
}
_ERRORS = {
    "wrong": "wrong",
    "two_or_more": "by two categories or more",
    "dense_flips": "dense taken for not dense, or the reverse",
}


def number(value: float) -> str:
    """Write a figure of merit; a dash where it is undefined."""
    return "-" if value != value else f"{value:.3f}"  # noqa: PLR0124  (NaN is not equal to itself)


def limits(figure: Figure) -> str:
    """Write the interval of a figure; a dash where there is none."""
    return f"{figure.low:.3f} to {figure.high:.3f}" if figure.interval else "-"


def _cells(figures: Iterable[Figure]) -> list[str]:
    """Write figures, each followed by its interval."""
    return [cell for figure in figures for cell in (number(figure.value), limits(figure))]


def _words(name: str) -> str:
    return name.replace("_", " ")


def show_figures(figures: Mapping[str, FiguresOfMerit]) -> None:
    """Print figures of merit by level, with the interval of the accuracy, and the exams' confusion matrix."""
    from mammodensity.studies.readings import few_warnings

    levels = {level: figures[level] for level in LEVELS if level in figures}
    rows = [
        [LEVEL_WORDS[level], str(merit.n), *(number(merit[name].value) for name in _COLUMNS), limits(merit["accuracy"])]
        for level, merit in levels.items()
    ]
    show_table(["", "exams", *_COLUMNS.values(), "accuracy\n95 %"], rows, bold=LEVEL_WORDS["subject"])
    exam = figures.get("subject")
    if exam is not None and exam.n:
        counts = zip(exam.scale, exam.confusion, strict=True)
        rows = [[category.value, *map(str, row)] for category, row in counts]
        show_table(["reference", *(f"predicted {category}" for category in exam.scale)], rows)
        say_each("warning", few_warnings(exam.n, exam.patients))
    for name, merit in figures.items():
        level = LEVEL_WORDS[name]
        for figure, reason in merit.undefined.items() if merit.n else ():
            if figure in _COLUMNS:
                say(f"{level}: {_words(figure)} is undefined, {reason}")
        if merit.n_not_given:
            say(f"{level}: {how_many(merit.n_not_given, 'exam')} not counted (views are missing, and so scores)")
        if merit.n_partial:
            say(f"{level}: {how_many(merit.n_partial, 'exam')} scored without all of the views")


def show_calibration(calibration: Calibration) -> None:
    """Print how many combinations of views were calibrated, and what it is worth for all four views."""
    exams = {len(fitted.reference) for fitted in calibration.views.values()}
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
        by_category = ["-" if share is None else f"{share:.2f}" for share in sets["coverage_by_category"][coverage]]
        size = sets["mean_set_size"][coverage]
        rows.append([f"{100 * float(coverage):g} %", f"{100 * covered:.1f} %", f"{size:.2f}", *by_category])
    show_table([f"{kind} sets for", "covered", "mean size", "covered A", "B", "C", "D"], rows)
    say(f"(by cross-validation: {figures['folds']} folds, {figures['repeats']} times)")


def show_comparison(comparison: Comparison) -> None:
    """Print figures of two readings next to each other, and how large their errors are."""
    from mammodensity.studies.compare import p_text

    rows = []
    tests: dict[str, list[str]] = {}
    for name, compared in comparison.figures.items():
        difference = compared.difference
        if difference.reason:
            say(f"{_words(name)} is not compared: {difference.reason}")
            continue
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}" if difference.interval else "-"
        values = f"{compared.a:.3f}", f"{compared.b:.3f}", f"{difference.value:+.3f}"
        rows.append([_words(name), *values, interval, p_text(compared.p_value).removeprefix("= ")])
        tests.setdefault(compared.test, []).append(_words(name))
    show_table(["", comparison.a, comparison.b, "difference", f"{comparison.confidence:.0%}", "p"], rows)
    methods = [f"{test} for {', '.join(names)}" for test, names in tests.items()]
    say(f"(p: {'; '.join(methods)})")
    counts = (comparison.errors_a, comparison.errors_b, comparison.between)
    rows = [[words, *(str(getattr(errors, name)) for errors in counts)] for name, words in _ERRORS.items()]
    show_table(["exams", comparison.a, comparison.b, "the two differ"], rows)
    for name, others in ((comparison.a, comparison.only_in_a), (comparison.b, comparison.only_in_b)):
        if others:
            say(f"{name}: {how_many(others, 'exam')} not compared (no category by the other)")


def show_readers(agreement: ReadersAgreement) -> None:
    """Print how well each two readers agree, each with the consensus and the reference, and all of them."""
    columns = ["exams", "agree", "linear kappa", "95 %", "quadratic kappa", "dense or not", "2 off", "flips"]
    for heading, pairs in (
        ("two readers", agreement.pairs),
        ("with the others' consensus", agreement.with_consensus if len(agreement.readers) > 2 else ()),
        ("with the reference", agreement.with_reference),
    ):
        rows = []
        for pair in pairs:
            name = f"{pair.a}, {pair.b}" if pairs is agreement.pairs else pair.a
            agree = number(pair.figures["accuracy"].value)
            others = (number(pair.figures[figure].value) for figure in ("quadratic_kappa", "dense_accuracy"))
            errors = str(pair.differ.two_or_more), str(pair.differ.dense_flips)
            rows.append([name, str(pair.n), agree, *_cells([pair.figures["linear_kappa"]]), *others, *errors])
        if rows:
            show_table([heading, *columns], rows)
    names = ("fleiss_kappa", "mean_linear_kappa", "mean_quadratic_kappa", "ordinal_alpha")
    whole = {_words(name): getattr(agreement, name) for name in names}
    show_table(["all readers", "", "95 %"], [[name, *_cells([figure])] for name, figure in whole.items()])
    for name, figure in whole.items():
        if figure.reason:
            say(f"{name} is undefined: {figure.reason}")


def show_drift(drift: Drift) -> None:
    """Print a row for each period, and the comparison in words."""
    flags = list(drift.periods[0].flags)
    rows = []
    for period in drift.periods:
        confidence = "-" if period.mean_confidence is None else f"{period.mean_confidence.value:.3f}"
        shares = [f"{share.value:.1%}" for share in (*period.shares.values(), period.dense)]
        flagged = [f"{share.value:.1%}" for share in period.flags.values()]
        dense = f"{period.dense.low:.1%} to {period.dense.high:.1%}"
        rows.append([period.period, str(period.n), *shares, dense, confidence, *flagged])
    show_table([drift.period, "exams", *"ABCD", "dense", "95 %", "confidence", *flags], rows)
    if drift.not_dated:
        say(f"{how_many(drift.not_dated, 'exam')} left out (no date)")
    if not drift.patients_known:
        say("(each exam counts as one patient, as there is no patient_id)")
    for period in drift.periods:
        say_each(f"note: {period.period}", period.warnings)
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
    names = ("accuracy", "linear_kappa", "dense_accuracy")
    rows = [
        [group.value, str(group.n), *(_cells(group.figures[name] for name in names) if group.figures else ["-"] * 6)]
        for group in groups
    ]
    show_table([column, "exams", "accuracy", "95 %", "linear kappa", "95 %", "dense or not", "95 %"], rows)
    for group in groups:
        say_each(f"note: {column} {group.value}", group.warnings)


def _show_subsets(subsets: ViewSubsets) -> None:
    combinations = {" ".join(subset.views): subset for subset in subsets.combinations}
    means = {f"mean of {how_many(size, 'view')}": subset for size, subset in subsets.by_number.items()}
    others = ("linear_kappa", "quadratic_kappa", "mean_confidence")
    rows = []
    for views, subset in (combinations | means).items():
        values = [number(subset.figures[name].value) for name in others]
        rows.append([views, *_cells([subset.figures["accuracy"]]), *values, number(subset.mean_set_size)])
    show_table(["views", "accuracy", "95 %", "linear kappa", "quadratic kappa", "mean confidence", "90 % set"], rows)
    if subsets.left_out:
        say(f"(of {how_many(subsets.n, 'exam')} with all four projections; {subsets.left_out} left out)")
