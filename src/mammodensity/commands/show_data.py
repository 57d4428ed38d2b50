"""Show what a data set holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mammodensity.commands.show import say, show_table
from mammodensity.terms import PROJECTIONS

if TYPE_CHECKING:
    from mammodensity.data.dicom.file_checks import FileCheck, Reason
    from mammodensity.workflows.check import CheckResult, Problem
    from mammodensity.workflows.prepare import FoundExams

_MOST = 20  # lines of one kind


def show_check(result: CheckResult) -> None:
    """What a data set holds, and each problem."""
    say(f"{result.root}: {result.images} images of {result.exams} exams of {result.patients} patients, {result.layout}")
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
    _show_files(result)
    if result.ignored and not result.named:
        say(f"{result.ignored} files that are no images were left alone")
    for problems in _by_code(result.problems):
        for problem in problems[:_MOST]:
            say(f"{'ERROR' if problem.severe else 'note'} [{problem.code}] {problem.text}")
        if len(problems) > _MOST:
            say(f"... and {len(problems) - _MOST} more [{problems[0].code}]; --json FILE lists every file")
    severe = sum(problem.severe for problem in result.problems)
    say(f"{severe} errors, {len(result.problems) - severe} notes: {'usable' if result.usable else 'not usable yet'}")


def _by_code(problems: Sequence[Problem]) -> Iterator[list[Problem]]:
    """Problems of one code together, in the order in which codes first appear."""
    for code in dict.fromkeys(problem.code for problem in problems):
        yield [problem for problem in problems if problem.code == code]


def show_found(found: FoundExams, most: int = 12) -> None:
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


def show_listed(listed: Mapping[str, Any], most: int = 12) -> None:
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


def _show_files(result: CheckResult) -> None:
    """How many files were refused or marked for which reason, and the first of them by name.

    What is said of the whole data set, or of files that are no images, is said once, by ``show_check``.
    """
    if result.layout != "DICOM archive" and all(one.accepted for one in result.files):
        return
    files = [file for file in result.files if result.named or "not-dicom" not in {one.code for one in file.reasons}]
    count = Counter((kind, one.code) for file in files for kind, ones in _told(file) for one in ones)
    if count:
        ordered = sorted(count.items(), key=lambda pair: (pair[0][0] != "refused", -pair[1]))
        show_table(["", "code", "files"], [[kind, code, str(number)] for (kind, code), number in ordered])
    said = {problem.text for problem in result.problems}
    refused = [file for file in files if not file.accepted]
    lines = []
    for file in refused:
        if others := [one for one in file.reasons if one.text not in said]:
            codes = ", ".join(dict.fromkeys(one.code for one in others))
            lines.append(f"refused [{codes}] {'; '.join(dict.fromkeys(one.text for one in others))}")
    for line in lines[:_MOST]:
        say(line)
    if len(lines) > _MOST:
        say(f"... and {len(lines) - _MOST} more; --json FILE lists every file")
    say(f"{len(files) - len(refused)} files accepted, {len(refused)} refused")


def _told(file: FileCheck) -> tuple[tuple[str, Sequence[Reason]], ...]:
    return ("refused", file.reasons), ("warning", file.warnings)
