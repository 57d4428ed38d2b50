"""Pages of a whole exam, as a radiologist hangs it: right breast on the left, the chest walls back to back.

What ``predict`` says of an exam, for where its maps are shown: category or abstention, flags, warnings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mammodensity.anatomy.field import chest_side, stored_flipped
from mammodensity.explanation.maps import TISSUE, ActivationMap, ExamMaps
from mammodensity.explanation.verdicts import Verdict, caption, caption_colour
from mammodensity.pages.pictures import (
    COLOUR_MAP,
    CONTOUR_COLOUR,
    HANGING_ORDER,
    OUTLINE_COLOURS,
    contour_level,
    grey_picture,
    iso_contours,
    overlay,
    resized,
    tissue_outlines,
)
from mammodensity.results.result import ExamResult
from mammodensity.terms import RESEARCH_USE_ONLY, Category, Projection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_MARGIN, _GAP = 0.2, 0.35  # inches, as all lengths below
_HEAD, _FOOT, _LINE, _HEADINGS = 0.45, 0.75, 0.24, 0.48
_PAGE_VIEW, _GRID_VIEW = 2.6, 2.0  # width of a view
_TALLEST = 2.2  # a view's height as a multiple of its width; taller ones are drawn smaller
_LABEL, _BAR = 1.45, 0.95  # width of a row's name, of a colour bar with its text
_CAPTION, _LETTERS = 0.55, 120  # height of a verdict; of its letters, how many of one point fill an inch
_SPARED = 0.4  # of it where there is none, below the plain views
_SEAM = 0.02  # to either side of where the chest walls meet
_NARROW = 7.0  # of a page: the legend is small
_GREY = "#bbbbbb"
_CONTOUR = "#{:02x}{:02x}{:02x}".format(*CONTOUR_COLOUR)
_OUTLINES = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in OUTLINE_COLOURS.items()}

Verdicts = Mapping[Projection, Verdict]
"""Of the maps of an exam."""
Tissue = Mapping[Projection, NDArray[np.uint8]]
"""(H, W) labels of the images of an exam, at their own size."""


@dataclass(frozen=True, eq=False)
class _View:
    """A view as it hangs: at the size of the page, with the chest wall towards the other breast."""

    one: ActivationMap
    mirrored: bool
    labels: NDArray[np.uint8] | None = None
    """Of tissue, to be outlined."""


def exam_page(exam: ExamMaps, title: str, verdicts: Verdicts | None = None, tissue: Tissue | None = None) -> bytes:
    """The exam's views in hanging order, plain and beside it with their maps, on one colour scale, as a PNG file.

    CC above MLO. A view that is stored with the chest wall on the other side is mirrored, and says so. Breast, muscle
    and dense tissue of ``tissue`` are outlined on the maps. Below each map stands its verdict; without one, that it was
    not scored.
    """
    views = _hung_views(exam, _PAGE_VIEW, tissue)
    sides = [side for side in "RL" if any(projection.laterality == side for projection in views)]
    positions = [row for row in ("CC", "MLO") if any(projection.view_position == row for projection in views)]
    height = _height(views, _PAGE_VIEW)
    block = len(sides) * _PAGE_VIEW
    wide = 2 * _MARGIN + 2 * block + _GAP + _BAR
    page = _Page(wide, _HEAD + len(positions) * (_LINE + height + _CAPTION) + _FOOT, title)
    for row, position in enumerate(positions):
        top = _HEAD + row * (_LINE + height + _CAPTION) + _LINE
        for column, side in enumerate(sides):
            projection = Projection(f"{position}_{side}")
            if projection not in views:
                continue
            view, left = views[projection], _MARGIN + column * _PAGE_VIEW
            plain = page.view(left, top, _PAGE_VIEW, height, side)
            _draw_plain(plain, view)
            plain.set_title(_name(projection, view), color="white", fontsize=10, pad=3)
            mapped = page.view(left + block + _GAP, top, _PAGE_VIEW, height, side)
            _draw_map(mapped, view, exam)
            mapped.set_title(_why(view.one), color="white", fontsize=9, pad=3)
            page.caption(left + block + _GAP, top + height, _PAGE_VIEW, (verdicts or {}).get(projection))
    page.colour_bar(wide - _BAR, _HEAD + _LINE, height, exam.scale, _scale_name(exam))
    half = "outline of dense tissue" if exam.method == TISSUE else "half of the exam's largest value"
    page.legend(half, tissue, dense=exam.method != TISSUE)
    return page.finish()


def methods_page(
    exams: Sequence[ExamMaps], title: str, verdicts: Sequence[Verdicts] | None = None, tissue: Tissue | None = None
) -> bytes:
    """One exam by several methods, a row each below the plain views, as a PNG file.

    Each method has its own colour scale, from 0 to its largest value in the exam. ``verdicts`` are those of each;
    ``tissue`` is outlined on the plain views.
    """
    first = exams[0]
    shown = [projection for projection in HANGING_ORDER if projection in first.maps]
    rows = [_hung_views(exam, _GRID_VIEW, tissue) for exam in exams]
    height = _height(rows[0], _GRID_VIEW)
    pairs = len({projection.view_position for projection in shown})
    wide = 2 * _MARGIN + _LABEL + len(shown) * _GRID_VIEW + (pairs - 1) * _GAP
    page = _Page(wide, _HEAD + _HEADINGS + (1 + len(exams)) * (height + _CAPTION) - _SPARED + _FOOT, title)
    for column, projection in enumerate(shown):
        new_pair = projection.view_position != shown[0].view_position
        left = _MARGIN + _LABEL + column * _GRID_VIEW + (_GAP if new_pair else 0)
        top = _HEAD + _HEADINGS
        plain = page.view(left, top, _GRID_VIEW, height, projection.laterality)
        view = rows[0][projection]
        _draw_plain(plain, view)
        _draw_outlines(plain, view, dense=True)
        plain.set_title(f"{_name(projection, view)}\n{_why(view.one, narrow=True)}", color="white", fontsize=8, pad=4)
        for row, (exam, views) in enumerate(zip(exams, rows, strict=True), start=1):
            below = top + row * (height + _CAPTION) - _SPARED
            axes = page.view(left, below, _GRID_VIEW, height, projection.laterality)
            _draw_map(axes, views[projection], exam, outlined=False)
            verdict = verdicts[row - 1].get(projection) if verdicts else None
            page.caption(left, below + height, _GRID_VIEW, verdict)
    for row, exam in enumerate(exams, start=1):
        middle = _HEAD + _HEADINGS + row * (height + _CAPTION) - _SPARED + height / 2
        page.text(_MARGIN, middle, f"{exam.method}\n0 to {exam.scale:.2g}", size=8.5)
    page.legend("half of the row's largest value, which ends its scale", tissue)
    return page.finish()


class _Page:
    """A black page, laid out in inches from its upper left corner."""

    def __init__(self, width: float, height: float, title: str) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = max(width, 4.5), height
        self.figure: Figure = Figure(figsize=(self.width, height), facecolor="black")
        FigureCanvasAgg(self.figure)
        shown = title if len(title) <= self.width * 9 else title[: int(self.width * 9)] + "..."
        # Without mathematics, as an exam's name may hold a dollar sign.
        self.figure.text(
            0.5, 1 - 0.24 / height, shown, color="white", fontsize=11, ha="center", va="center", parse_math=False
        )

    def view(self, left: float, top: float, width: float, height: float, side: str) -> Axes:
        """Axes for an image, which lies against the side where the chest wall is."""
        axes = self._axes(left + (0 if side == "R" else _SEAM), top, width - _SEAM, height)
        axes.set_axis_off()
        axes.set_anchor("E" if side == "R" else "W")
        return axes

    def text(self, left: float, top: float, text: str, *, size: float) -> None:
        at = left / self.width, 1 - top / self.height
        self.figure.text(*at, text, color="white", fontsize=size, va="center")

    def caption(self, left: float, top: float, width: float, verdict: Verdict | None) -> None:
        """The verdict on a map, below it."""
        size = 7.5 if width >= _PAGE_VIEW else 6.3
        said = "\n".join(wrap(caption(verdict), round(width * _LETTERS / size), break_on_hyphens=False))
        colour = np.array(caption_colour(verdict)) / 255
        at = (left + width / 2) / self.width, 1 - (top + 0.04) / self.height
        self.figure.text(*at, said, color=colour, fontsize=size, ha="center", va="top")

    def colour_bar(self, left: float, top: float, height: float, scale: float, name: str) -> None:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        colours = ScalarMappable(Normalize(0, scale or 1), colormaps[COLOUR_MAP])
        axes = self._axes(left, top, 0.14, height)
        bar = self.figure.colorbar(colours, cax=axes)
        axes.tick_params(colors="white", labelsize=7)
        bar.set_label(name, color="white", fontsize=8)

    def legend(self, contour: str, tissue: Tissue | None, *, dense: bool = True) -> None:
        """What the lines are, each in its own colour."""
        from matplotlib.lines import Line2D

        names = {"breast": "breast", "muscle": "chest muscle", "dense": "dense tissue found"}
        shown = [name for name in names if tissue and (dense or name != "dense")]
        lines = [Line2D([], [], color=_CONTOUR, label=contour)]
        lines += [Line2D([], [], color=_OUTLINES[name], label=names[name]) for name in shown]
        self.figure.legend(
            handles=lines,
            loc="center",
            bbox_to_anchor=(0.5, 0.5 / self.height),
            ncols=1 if self.width < _NARROW and len(lines) > 2 else len(lines),
            frameon=False,
            labelcolor="white",
            fontsize=6 if self.width < _NARROW else 8.5,
            handlelength=1.2,
            labelspacing=0.1,
        )

    def finish(self) -> bytes:
        self.figure.text(
            0.5,
            0.16 / self.height,
            RESEARCH_USE_ONLY,
            color=_GREY,
            fontsize=7.5 if self.width < _NARROW else 9,
            ha="center",
            va="center",
        )
        stream = BytesIO()
        self.figure.savefig(stream, format="png", dpi=_DPI)
        return stream.getvalue()

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        return self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )


def _hung_views(exam: ExamMaps, width: float, tissue: Tissue | None) -> dict[Projection, _View]:
    return {
        projection: _hung(projection, one, width, (tissue or {}).get(projection))
        for projection, one in exam.maps.items()
    }


def _hung(projection: Projection, one: ActivationMap, width: float, labels: NDArray[np.uint8] | None) -> _View:
    small = resized(one, round(1.5 * _TALLEST * width * _DPI))
    if labels is not None:
        rows, columns = small.values.shape
        labels = np.asarray(Image.fromarray(labels).resize((columns, rows), Image.Resampling.NEAREST))
    if not stored_flipped(projection, chest_side(small.mammogram.pixels.astype(np.float32))):
        return _View(small, mirrored=False, labels=labels)
    mammogram = replace(small.mammogram, pixels=small.mammogram.pixels[:, ::-1])
    turned = None if labels is None else labels[:, ::-1]
    return _View(replace(small, mammogram=mammogram, values=small.values[:, ::-1]), mirrored=True, labels=turned)


def _height(views: Mapping[Projection, _View], width: float) -> float:
    """Of a row, so that the tallest view fits."""
    shapes = [view.one.values.shape for view in views.values()]
    return width * min(max(float(rows / columns) for rows, columns in shapes), _TALLEST)


def _draw_plain(axes: Axes, view: _View) -> None:
    axes.imshow(grey_picture(view.one.mammogram), cmap="gray", interpolation="bilinear")


def _draw_map(axes: Axes, view: _View, exam: ExamMaps, *, outlined: bool = True) -> None:
    values = np.ascontiguousarray(view.one.values)
    axes.imshow(overlay(view.one.mammogram, values, exam.scale), interpolation="bilinear")
    if outlined:
        _draw_outlines(axes, view, dense=exam.method != TISSUE)
    for line in iso_contours(values, contour_level(exam.scale)):
        axes.plot(line[:, 1], line[:, 0], color=_CONTOUR, linewidth=1.2)


def _draw_outlines(axes: Axes, view: _View, *, dense: bool) -> None:
    if view.labels is not None:
        for name, lines in tissue_outlines(view.labels, dense=dense).items():
            for line in lines:
                axes.plot(line[:, 1], line[:, 0], color=_OUTLINES[name], linewidth=0.6)


def _name(projection: Projection, view: _View) -> str:
    return f"{projection}{' (mirrored)' if view.mirrored else ''}"


def _why(one: ActivationMap, *, narrow: bool = False) -> str:
    """What the map of a view answers, with the scores it is about; in two lines where it is long and must be narrow."""
    score = one.scores[one.category.index]
    if one.percent_density is not None:
        return f"why {one.category}: score {score:.2f}, {one.percent_density:.0f} % dense"
    if one.against is None:
        return f"why {one.category}: score {score:.2f}"
    if one.against == one.category:
        return f"is {one.category} itself: score {score:.2f}"
    between = "\n" if narrow else " "
    return f"why {one.category} ({score:.2f}){between}rather than {one.against} ({one.scores[one.against.index]:.2f})"


def _scale_name(exam: ExamMaps) -> str:
    return "score of dense tissue" if exam.method == TISSUE else f"{exam.method}, one scale for the exam"


_LETTER_PX, _LINE_PX, _MARGIN_PX = 14, 19, 12
_LETTER_WIDTH = 0.52  # of its height, on average
_AMBER, _NOTE_GREY = (255, 205, 110), (187, 187, 187)


def title_of(result: ExamResult, reference: Category | None) -> str:
    """The exam, its category or that it has none, its set, and its reference where there is one."""
    views = len(result.projections)
    said = f"{result.category or 'no category'} from {views} view{'s' if views > 1 else ''}"
    possible = f", possible {result.prediction_set.text}" if result.prediction_set else ""
    return f"Exam {result.exam_id}: {said}{possible}" + (f", reference {reference}" if reference else "")


def told_below(page: bytes, result: ExamResult, warnings: Sequence[str]) -> bytes:
    """A page, a PNG file, with abstention, flags and warnings below it; as it was where there are none."""
    codes = {flag.code for flag in result.abstained_for}
    lines = [
        *(
            f"{flag.code}{' (no category for that)' if flag.code in codes else ''}: {flag.text}"
            for flag in result.flags
        ),
        *([] if result.exam and result.exam.calibrated else [result.calibration]),
        *warnings,
    ]
    if not lines:
        return page
    with Image.open(BytesIO(page)) as opened:
        picture = opened.convert("RGB")
    letters = int((picture.width - 2 * _MARGIN_PX) / (_LETTER_PX * _LETTER_WIDTH))
    rows = [
        (row, _AMBER if place < len(result.flags) else _NOTE_GREY)
        for place, line in enumerate(lines)
        for row in wrap(line, letters, subsequent_indent="   ", break_on_hyphens=False)
    ]
    whole = Image.new("RGB", (picture.width, picture.height + len(rows) * _LINE_PX + _MARGIN_PX))
    whole.paste(picture)
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(_LETTER_PX)
    for place, (row, colour) in enumerate(rows):
        pen.text((_MARGIN_PX, picture.height + place * _LINE_PX), row, font=font, fill=colour)
    stream = BytesIO()
    whole.save(stream, "PNG")
    return stream.getvalue()
