"""Numbers, sentences and tables that the pages and the model card share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammodensity.data.dataset import SPLITS, DataSet
from mammodensity.evaluation.figures import FiguresOfMerit
from mammodensity.studies.readings import FEW
from mammodensity.terms import DENSITY, PROJECTIONS, Projection, Scale
from mammodensity.training.records import RunRecord

OTHER_CATEGORIES = "F, G and D are categories of background tissue of the MIAS data sets, not BI-RADS density."
"""Shown wherever results of such a network are shown."""
DASH = "\N{EM DASH}"
_SPACE = "\N{NO-BREAK SPACE}"
_NUMBER_WORDS = ("No", "One", "Two", "Three", "Four")


def number(value: float) -> str:
    r"""Two decimals with a proper minus; a dash where undefined.

    >>> number(0.128), number(-0.001), number(-0.128) == "\N{MINUS SIGN}0.13", number(float("nan")) == DASH
    ('0.13', '0.00', True, True)
    """
    if math.isnan(value):
        return DASH
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    r"""A share as whole percent; a dash where undefined.

    >>> percent(0.846).replace("\N{NO-BREAK SPACE}", " ")
    '85 %'
    """
    return DASH if math.isnan(value) else f"{100 * value:.0f}{_SPACE}%"


def counted(count: int, noun: str) -> str:
    r"""A number with its noun.

    >>> [counted(count, "image").replace("\N{NO-BREAK SPACE}", " ") for count in (1, 1200)]
    ['1 image', '1,200 images']
    """
    return f"{count:,}{_SPACE}{noun}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """A text with a capital at its beginning and a full stop at its end."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def plain(text: str) -> str:
    """A text without backticks and without advice on options, for readers who did not run the command.

    >>> plain("no calibration; `mammodensity calibrate` makes one"), plain("no scores; predict --allow-missing helps")
    ('no calibration; mammodensity calibrate makes one', 'no scores')
    """
    return re.sub(r"; [^;]* --[^;]*", "", re.sub(r"`([^`]*)`", r"\1", text))


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """Words in a row, with a conjunction before the last.

    >>> listed(["CC_R", "CC_L", "MLO_R"])
    'CC_R, CC_L and MLO_R'
    """
    return f" {conjunction} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def exam_count(data: DataSet, split: str | None = None) -> int:
    """Exams of a split, or of all."""
    return len({record.exam_id for record in data.in_split(split).records})


def networks_in_words(projections: Sequence[Projection]) -> str:
    """The number of networks and their projections, in words."""
    if tuple(projections) == PROJECTIONS:
        return "Four networks, one for each projection,"
    verb = "networks, one each" if len(projections) > 1 else "network,"
    return f"{_NUMBER_WORDS[len(projections)]} {verb} for {listed([p.value for p in projections])},"


def training_in_words(run: RunRecord) -> str:
    """The networks and the data they were trained on, in a sentence or two."""
    projections = [projection for projection in run.model.checkpoints if projection not in run.imported]
    sentences = [_networks_trained(run, projections)] if projections else []
    if run.imported:
        was, its, pronoun = (
            ("was", "its file", "it was") if len(run.imported) == 1 else ("were", "their files", "they were")
        )
        sentences.append(
            f"{networks_in_words(run.imported)} {was} imported from Keras. "
            f"Nothing in {its} says which images {pronoun} trained on, or with what result."
        )
    return " ".join(sentences)


def _networks_trained(run: RunRecord, projections: Sequence[Projection]) -> str:
    networks = "One joint network of the four projections" if run.joint else networks_in_words(projections)
    were = "was" if run.joint or len(projections) == 1 else "were"
    if run.data is None:
        return f"{networks} {were} trained on a data set whose manifest is not kept in this folder."
    kept, test = exam_count(run.data, "validation"), exam_count(run.data, "test")
    source = "synthetic breasts (phantoms), not of patients" if run.phantoms else "the data set described below"
    images = [record for record in run.data.in_split("train").records if record.projection in projections]
    exams = len({record.exam_id for record in images})
    return (
        f"{networks} {were} trained on {counted(len(images), 'image')} from {counted(exams, 'exam')} of {source}. "
        f"{counted(kept, 'more exam')} decided which epoch to keep, and "
        f"{counted(test, 'exam') if test else 'none'} {'was' if test == 1 else 'were'} set aside to test."
    )


def result_in_words(subject: FiguresOfMerit) -> str:
    """The test result of whole exams in a sentence."""
    if not subject.n:
        return (
            "No exam of the test split has scores from all four projections, so there is no result for the whole exam; "
            "the results of single projections and breasts are below."
        )
    right = sum(row[place] for place, row in enumerate(subject.confusion))
    interval = interval_in_words(subject, "accuracy", as_percent=True)
    return (
        f"The predicted category is the reference category in {right} of {counted(subject.n, 'test exam')}, which were "
        f"not used in training: {percent(subject.accuracy)}{interval}."
    )


def interval_in_words(figures: FiguresOfMerit, name: str, *, as_percent: bool = False) -> str:
    """``" (95 % interval 0.61 to 0.83)"``, or nothing where there is no interval."""
    figure = figures[name]
    if not figure.interval:
        return ""
    show = percent if as_percent else number
    return f" ({percent(figures.confidence)} interval {show(figure.low)} to {show(figure.high)})"


def cautions(run: RunRecord, subject: FiguresOfMerit | None) -> list[str]:
    """Sentences that a reader must keep in mind before quoting a figure."""
    texts = []
    if run.model.unfinished:
        names = "the joint network" if run.joint else listed([view.value for view in run.model.unfinished])
        texts.append(f"The training of {names} was interrupted and is not finished.")
    if run.phantoms:
        texts.append(
            "Phantoms are not patients: these figures show that the program works, "
            "not how well it would read mammograms."
        )
    if subject is None or not subject.n:
        return texts
    if subject.n < FEW:
        texts.append(f"{counted(subject.n, 'test exam')}: too few to tell a good model from a fair one.")
    if subject.accuracy in (0, 1):
        # Clopper-Pearson for n of n: p ** n = (1 - confidence) / 2. A bootstrap of hits alone has no spread to show.
        bound = ((1 - subject.confidence) / 2) ** (1 / (subject.patients or subject.n))
        all_right = subject.accuracy == 1
        texts.append(
            f"Every test exam is {'right' if all_right else 'wrong'}, so the bootstrap interval has no width. By the "
            f"exact binomial interval, an accuracy {'down' if all_right else 'up'} to "
            f"{percent(bound if all_right else 1 - bound)} is still possible."
        )
    absent = [category.value for category in subject.scale if not sum(subject.confusion[category.index])]
    if absent:
        texts.append(f"No test exam is of category {listed(absent, 'or')}: nothing is known about such exams.")
    if subject.n_not_given:
        texts.append(
            f"{counted(subject.n_not_given, 'test exam')} without scores for the whole exam, because a projection is "
            "missing; left out of its figures."
        )
    return texts


# Tables that the report and the model card share

_FIGURE_WORDS: Mapping[str, tuple[str, str]] = {
    "accuracy": ("Accuracy", "share of exams in the right category"),
    "dense_accuracy": ("Dense or not, accuracy", "share on the right side of {others} against {dense}"),
    "linear_kappa": ("Kappa, linear", "agreement beyond chance; disagreement weighted by distance"),
    "quadratic_kappa": ("Kappa, quadratic", "the same, weighted by squared distance"),
    "macro_recall": ("Macro recall", "mean recall of the categories; balanced accuracy"),
    "macro_precision": ("Macro precision", "mean precision of the categories"),
    "auc": ("AUC, mean of {categories}", "area under the ROC curve, each category against the others"),
    "dense_auc": ("AUC, dense or not", "of the score {dense_sum}"),
    "nll": (
        "Negative log likelihood",
        "of the reference category; lower is better, {count} equal scores give {chance}",
    ),
}
"""Scalar figures in the order shown: name and explanation, in which `figure_words` names the categories."""


def figure_words(scale: Scale = DENSITY) -> dict[str, tuple[str, str]]:
    """Name and explanation of each scalar figure, for scores of these categories."""
    dense = [category.value for category in scale if category.dense]
    values = {
        "others": ", ".join(category for category in scale if not category.dense),
        "dense": ", ".join(dense),
        "dense_sum": " + ".join(dense),
        "categories": "A to D" if scale == DENSITY else listed(scale.letters),
        "count": "four" if len(scale) == 4 else "three",
        "chance": f"{math.log(len(scale)):.2f}",
    }
    return {figure: (name.format(**values), text.format(**values)) for figure, (name, text) in _FIGURE_WORDS.items()}


@dataclass(frozen=True)
class SplitCounts:
    """The exams, patients and images of one split."""

    split: str
    exams: int
    patients: int
    images: Mapping[str, tuple[int, ...]]
    """By projection: images of each category."""


def count_tables(data: DataSet) -> list[SplitCounts]:
    """Count images by split, projection and category, with zeros where there are none."""
    tables = []
    for split in SPLITS:
        records = data.in_split(split).records
        images = {}
        for projection in PROJECTIONS:
            categories = [record.category for record in records if record.projection == projection]
            images[projection.value] = tuple(categories.count(category) for category in data.scale)
        exams, patients = ({getattr(record, key) for record in records} for key in ("exam_id", "patient_id"))
        tables.append(SplitCounts(split, len(exams), len(patients), images))
    return tables


def flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested JSON values as (dotted name, text) pairs.

    >>> flattened({"network": {"depths": [3, 3]}, "seed": 1})
    [('network.depths', '3, 3'), ('seed', '1')]
    """
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            pairs.append((f"{prefix}{name}", ", ".join(map(str, value))))
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs
