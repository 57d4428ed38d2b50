"""Show what a data set holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammodensity.commands.show import how_many, say, show_table
from mammodensity.terms import PROJECTIONS

if TYPE_CHECKING:
    from mammodensity.workflows.check import CheckResult
    from mammodensity.workflows.prepare import FoundExams

_MOST = 12  # exams of a list


def show_check(result: CheckResult, *, verbose: bool = False) -> None:
    """Print what a data set holds, and a line for each kind of problem; with ``verbose`` also for each file."""
    images, exams = how_many(result.images, "image"), how_many(result.exams, "exam")
    say(f"{result.root}: {images} of {exams} of {how_many(result.patients, 'patient')}, {result.layout}")
    columns = list(result.scale.letters)
    categories = {name for splits in result.counts.values() for found in splits.values() for name in found}
    columns += sorted(categories - set(columns))
    rows = [
        [projection, split, *(str(found.get(name, 0)) for name in columns)]
        for projection, splits in result.counts.items()
        for split, found in splits.items()
    ]
    if rows:
        show_table(["projection", "split", *columns], rows)
    findings = result.findings()
    if findings:
        # the only one is told as it is
        texts = [one.meaning if len(one.texts) > 1 else one.texts[0] for one in findings]
        rows = [[one.kind, one.code, str(len(one.texts)), text] for one, text in zip(findings, texts, strict=True)]
        show_table(["", "code", "count", "meaning"], rows)
    several = [one for one in findings if len(one.texts) > 1]
    for one in several if verbose else ():
        for text in one.texts:
            say(f"{one.kind} [{one.code}] {text}")
    if several and not verbose:
        say("--verbose names every file, as --json FILE does")
    refused = sum(not file.accepted for file in result.judged)
    say(f"{how_many(len(result.judged) - refused, 'file')} accepted, {refused} refused")
    if result.ignored and not result.named:
        say(f"{how_many(result.ignored, 'file is not an image', 'files are not images')}, and so left alone")
    severe = sum(problem.severe for problem in result.problems)
    counts = f"{how_many(severe, 'error')}, {how_many(len(result.problems) - severe, 'note')}"
    say(f"{counts}: {'usable' if result.usable else 'not usable yet'}")


def show_found(found: FoundExams, most: int = _MOST) -> None:
    """The first exams of a public data set, its counts, and what was left out for which reason."""
    summary = found.summary()
    rows = []
    for exam in found.data.exams[:most]:
        right, left = (exam.breast_categories.get(side) or "-" for side in "RL")
        views = ["x" if projection in exam.images else "-" for projection in PROJECTIONS]
        rows.append([exam.exam_id, *views, right, left, exam.category or "-", exam.split or "-"])
    show_table(["exam", *PROJECTIONS, "right", "left", "exam's", "split"], rows)
    if summary["exams"] > most:
        say(f"... and {summary['exams'] - most} more exams; --json lists all")
    say(
        f"{found.data.dataset}: {summary['exams']} exams of {summary['patients']} patients, "
        f"{summary['images']} images; {summary['complete_exams']} exams have all four projections"
    )
    for name in ("by_category", "images_by_category", "images_by_tissue", "by_projection", "by_split"):
        if name in summary:
            say(f"{name.replace('_', ' ')}: {', '.join(f'{key} {count}' for key, count in summary[name].items())}")
    say(f"image files: {summary['files_found']} found, {summary['files_absent']} not there")
    for word, reasons in (("left out", found.data.left_out), ("note", found.data.notes)):
        for reason in reasons:
            say(f"{word} [{reason.code}] {reason.count} {reason.unit}: {reason.text}")


def show_listed(listed: Mapping[str, Any], most: int = _MOST) -> None:
    """The first exams of a data set without tables, as ``found_images`` lists them."""
    rows = []
    for exam in listed["exams"][:most]:
        views = ["x" if projection.value in exam["projections"] else "-" for projection in PROJECTIONS]
        rows.append([exam["exam_id"], *views, exam["density"] or "-", exam["split"] or "-"])
    show_table(["exam", *PROJECTIONS, "exam's", "split"], rows)
    if len(listed["exams"]) > most:
        say(f"... and {len(listed['exams']) - most} more exams; --json lists all")
    summary = listed["summary"]
    say(f"{listed['dataset']}: {summary['exams']} exams, {summary['images']} images")
    if summary["refused"]:
        say(f"{summary['refused']} files would not be used; `mammodensity check` says why")
