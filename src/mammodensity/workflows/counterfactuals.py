"""The files of ``mammodensity counterfactual``: a plot of each exam, and all numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from mammodensity.data.dataset import DataSet
from mammodensity.data.images import load_exam
from mammodensity.errors import CheckpointError, ImageError, OptionError
from mammodensity.explanation.counterfactual import (
    TOLERANCE,
    DensityCurve,
    PhantomBreasts,
    exam_curve,
    phantom_curve,
    phantom_name,
    require_steps,
)
from mammodensity.models.scoring import Model
from mammodensity.models.trained import DensityModel
from mammodensity.outputs import distinct_names, receipt, safe_name, staged_folder, write_bytes
from mammodensity.phantom.exams import PhantomSpec
from mammodensity.terms import CATEGORIES, DENSITY, RESEARCH_USE_ONLY
from mammodensity.workers import Progress

_COLOURS = ("#79a7cd", "#0072B2", "#E08A2C", "#8C3B00")
_STYLES = ("-", "--", "-.", ":")
_INK, _FAINT = "#1d2733", "#8a949e"
_ROWS = 256  # of phantoms


def write_counterfactuals(
    model: Model,
    data: DataSet | None,
    folder: Path,
    *,
    phantoms: int = 0,
    steps: int = 9,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Change the dense tissue of exams and write ``<exam>_density.png`` for each.

    Parameters
    ----------
    data
        Real exams, which are painted; or None.
    phantoms
        How many phantom exams are rendered anew, of the series ``seed``.

    Returns
    -------
    JSON values: the share of monotone exams, each exam's curve, and which exams could not be used.

    Raises
    ------
    OptionError
        There is nothing to change, or fewer than two steps.
    CheckpointError
        The model is of other categories than A to D.
    ImageError
        No exam can be used.
    """
    if data is None and phantoms < 1:
        raise OptionError("name a data set, or how many phantoms to make with --phantoms")
    require_steps(steps)
    if isinstance(model, DensityModel) and model.scale != DENSITY:
        raise CheckpointError(f"counterfactuals are only of networks of A to D; this model's are {model.scale}")
    total = (len(data.exams()) if data else 0) + phantoms
    curves: list[DensityCurve] = []
    refused: list[str] = []
    names = distinct_names(
        [[safe_name(exam_id)] for exam_id in (*(data.exams() if data else ()), *map(phantom_name, range(phantoms)))]
    )
    with staged_folder(folder) as staging:
        for done, outcome in enumerate(_curves(model, data, phantoms, steps, seed), start=1):
            if isinstance(outcome, DensityCurve):
                curves.append(outcome)
                write_bytes(staging / f"{names[done - 1]}_density.png", density_plot(outcome))
            else:
                refused.append(outcome)
            if progress:
                progress(done, total)
        if not curves:
            raise ImageError(refused[0])
    return {
        "note": RESEARCH_USE_ONLY,
        "exams": [curve.to_dict() for curve in curves],
        "monotone_share": sum(curve.monotone for curve in curves) / len(curves),
        "tolerance": TOLERANCE,
        "refused": refused,
        "receipt": receipt("counterfactual", phantoms=phantoms, steps=steps, seed=seed),
    }


def _curves(model: Model, data: DataSet | None, phantoms: int, steps: int, seed: int) -> Iterator[DensityCurve | str]:
    """The curve of each exam, or why there is none."""
    for exam_id, records in (data.exams() if data else {}).items():
        try:
            yield exam_curve(model, load_exam(exam_id, records), steps)
        except ImageError as error:
            text = str(error)
            for record in records.values():
                text = record.without_paths(text)
            yield f"exam {exam_id}: {text}"
    for index in range(phantoms):
        try:
            yield phantom_curve(model, PhantomBreasts.trace(PhantomSpec(rows=_ROWS, seed=seed), index), steps)
        except ImageError as error:
            yield str(error)


def density_plot(curve: DensityCurve) -> bytes:
    """P(A..D) and the expected category against percent density, the exam's own and the flips marked, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    percent = float(curve.percents[curve.own])
    for category, colour, style in zip(CATEGORIES, _COLOURS, _STYLES, strict=True):
        values = curve.scores[:, category.index]
        axes[0].plot(curve.percents, values, style, color=colour, marker="o", markersize=3, label=f"P({category})")
    axes[1].plot(curve.percents, curve.expected, color=_INK, marker="o", markersize=3)
    for axis in axes:
        axis.axvline(percent, color=_INK, linewidth=1)
        for flip in (curve.flip(1), curve.flip(-1)):
            if flip is not None:
                axis.axvline(flip, color=_FAINT, linewidth=1, linestyle="--")
    axes[0].set(ylim=(-0.02, 1.02), ylabel="score")
    axes[0].legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    axes[1].set(ylim=(-0.1, 3.1), ylabel="expected category", xlabel="percent density of the changed exam")
    axes[1].set_yticks(range(len(CATEGORIES)), [category.value for category in CATEGORIES])
    figure.suptitle(f"Exam {curve.exam_id}: {_in_words(curve)}", fontsize=9, parse_math=False)
    figure.supxlabel(f"Line: the exam as it is. Dashed: its answer flips. {RESEARCH_USE_ONLY}", fontsize=8)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _in_words(curve: DensityCurve) -> str:
    facts = curve.to_dict()
    distance = facts["points_to_flip"]
    flip = "the answer never flips" if distance is None else f"{distance:.0f} points from another answer"
    order = "" if curve.monotone else "; NOT monotone"
    return f"{facts['category']} at {facts['percent_density']:.0f} %, {flip}{order}"


def rows_of(result: dict[str, Any]) -> Sequence[Sequence[str]]:
    """Rows of the printed table: exam, category, percent density, flips, points to the nearest, monotone."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    return [
        [
            exam["exam_id"],
            exam["category"],
            cell(exam["percent_density"]),
            cell(exam["flips_down_at"]),
            cell(exam["flips_up_at"]),
            cell(exam["points_to_flip"]),
            "yes" if exam["monotone"] else f"falls by {exam['largest_fall']:.2f}",
        ]
        for exam in result["exams"]
    ]
