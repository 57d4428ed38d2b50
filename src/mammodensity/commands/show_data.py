"""Show what a data set holds, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mammodensity.commands.show import how_many, say, show_table
from mammodensity.terms import PROJECTIONS

if TYPE_CHECKING:
    from mammodensity.workflows.check import CheckResult
    from mammodensity.workflows.prepare import ExamList

_MOST = 12  # exams of a list


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


def show_exams(exams: ExamList, most: int = _MOST) -> None:
    """Print the first exams of a list, its counts, and what is left out for which reason."""
    tables, summary = exams.tables, exams.values["summary"]
    names = [exam["exam_id"] for exam in exams.values["exams"]]
    if tables is None:
        columns, cells = ["exam's", "split"], [[exam["density"], exam["split"]] for exam in exams.values["exams"]]
    else:
        columns = ["right", "left", "exam's", "split"]
        cells = [[*map(one.breast_categories.get, "RL"), one.category, one.split] for one in tables.data.exams]
    rows = []
    for exam, words in zip(exams.values["exams"][:most], cells, strict=False):
        views = ["x" if projection.value in exam["projections"] else "-" for projection in PROJECTIONS]
        rows.append([exam["exam_id"], *views, *(word or "-" for word in words)])
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
