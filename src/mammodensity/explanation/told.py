"""What ``predict`` says of an exam, for where its maps are shown: category or abstention, flags, warnings."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from mammodensity.calibration import Calibration
from mammodensity.exam import Exam
from mammodensity.prediction import DensityModel, TissueModel
from mammodensity.result import ExamResult, exam_result
from mammodensity.terms import Category

_LETTER_PX, _LINE_PX, _MARGIN_PX = 14, 19, 12
_LETTER_WIDTH = 0.52  # of its height, on average
_AMBER, _GREY = (255, 205, 110), (187, 187, 187)


def result_of(model: DensityModel | TissueModel, exam: Exam, calibration: Calibration | None) -> ExamResult:
    """The result that ``predict`` gives for the same exam by standard rules."""
    fusion, policy = (calibration.fusion, calibration.policy) if calibration else (model.fusion, "mean")
    return exam_result(model.score(exam, fusion=fusion, policy=policy), calibration)


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
        (row, _AMBER if place < len(result.flags) else _GREY)
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
