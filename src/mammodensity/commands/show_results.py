"""Show the results of exams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mammodensity.commands.show import how_many, say, show_table
from mammodensity.results.result import scale_of
from mammodensity.results.rules import shared_flags
from mammodensity.terms import PROJECTIONS

if TYPE_CHECKING:
    from mammodensity.results.result import ExamResult, LevelResult

MOST = 12
"""Exams that are printed where not all are asked for."""


def show_results(results: Sequence[ExamResult], most: int | None = MOST) -> None:
    """Print the first exams, or all for None, and a summary: what each view says, the category, and the flags.

    Flags that all exams have are printed once, below.
    """
    shared = shared_flags([result.flags for result in results])
    measured = any(level.percent_density is not None for result in results for level in _levels(result))
    sets = any(result.prediction_set for result in results)
    columns = ["exam", *PROJECTIONS, "result", "    ".join(scale_of(results))]
    columns += [*(["possible"] if sets else []), *(["% dense"] if measured else []), "flags"]
    rows = []
    for result in results[:most]:
        row = [result.exam_id, *(_cell(result.projections.get(view)) for view in PROJECTIONS), result.category or "-"]
        row.append(" ".join(f"{score:.2f}" for score in result.exam.scores.values()) if result.exam else "-")
        if sets:
            row.append(" ".join(result.prediction_set.categories) if result.prediction_set else "-")
        if measured:
            percent = result.exam.percent_density if result.exam else None
            row.append("-" if percent is None else f"{percent:.0f}")
        row.append(" ".join(dict.fromkeys(flag.code for flag in result.flags if flag.code not in shared)))
        rows.append(row)
    show_table(columns, rows)
    if most is not None and len(results) > most:
        say(f"... and {len(results) - most} more; --all prints every exam")
    for code, text in shared.items():
        say(f"all {len(results)} exams are flagged {code}: {text}")
    _show_summary(results)


def _levels(result: ExamResult) -> list[LevelResult]:
    return [*([result.exam] if result.exam else []), *result.breasts.values(), *result.projections.values()]


def _cell(view: LevelResult | None) -> str:
    """Write the category of a view, with its percent density where the model measures it."""
    if view is None:
        return "-"
    return view.category if view.percent_density is None else f"{view.category} {view.percent_density:.0f}%"


def _show_summary(results: Sequence[ExamResult]) -> None:
    """Count the exams of each category, those without one and why, and the images that were refused."""
    count = Counter(result.category for result in results if result.category)
    parts = [f"{count[category]} {category}" for category in scale_of(results)]
    exams = how_many(len(results), "exam")
    if without := sum(result.abstained for result in results):
        parts.append(f"{without} without a category")
    if refused := sum(len(result.refused) for result in results):
        parts.append(f"{how_many(refused, 'image')} refused")
    say(f"{exams}: {', '.join(parts)}")
    unread = sum(result.exam is None and not result.projections for result in results)
    unscored = sum(result.exam is None for result in results)
    if unscored > unread:
        say(f"{unscored - unread} of {exams}: no category (views are missing; --allow-missing uses the views present)")
    if unread:
        say(f"{unread} of {exams}: no category (no image could be used)")
    if flagged := without - unscored:
        say(f"{flagged} of {exams}: no category (flagged; --json or --html says why)")
