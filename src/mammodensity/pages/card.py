"""The card of an exam: one picture that every viewer can show, with result, images and evidence."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mammodensity import __version__
from mammodensity.explanation.maps import TISSUE, ExamMaps
from mammodensity.pages.exam_page import category_in_words, evidence_of, is_mirrored, line_words, reasons_in_words
from mammodensity.pages.pictures import HANGING_ORDER, LINE_COLOURS, RgbImage, evidence_picture, wrapped
from mammodensity.pages.wording import percent, sentence
from mammodensity.results.result import ExamResult
from mammodensity.terms import RESEARCH_USE_ONLY, Projection

CARD_PX = (1600, 2000)
"""Columns and rows."""
_MARGIN, _TITLE_PX, _TEXT_PX = 40, 52, 28
_BLACK, _WHITE, _GREY = (0, 0, 0), (240, 240, 240), (176, 176, 176)


def exam_card(result: ExamResult, maps: ExamMaps) -> RgbImage:
    """Draw the card (H, W, 3) of an exam: its result in words above, four views with their evidence below.

    Parameters
    ----------
    maps
        The evidence of each view that was read; a view without one is named as missing.
    """
    columns, rows = CARD_PX
    card = Image.new("RGB", CARD_PX, _BLACK)
    pen = ImageDraw.Draw(card)
    top = _MARGIN
    for text, size, colour in _head(result):
        for line in wrapped(text, ImageFont.load_default(size), columns - 2 * _MARGIN):
            pen.text((_MARGIN, top), line, colour, ImageFont.load_default(size))
            top += round(1.35 * size)
    foot = rows - _MARGIN - round(1.35 * _TEXT_PX)
    _draw_legend(pen, maps, foot - round(1.5 * _TEXT_PX))
    pen.text(
        (_MARGIN, foot), f"mammodensity {__version__}. {RESEARCH_USE_ONLY}", _GREY, ImageFont.load_default(_TEXT_PX)
    )
    bottom = foot - 2 * round(1.5 * _TEXT_PX)
    tile = ((columns - 3 * _MARGIN) // 2, (bottom - top - 2 * _MARGIN) // 2)
    for place, projection in enumerate(HANGING_ORDER):
        left = _MARGIN + (place % 2) * (tile[0] + _MARGIN)
        upper = top + _MARGIN + (place // 2) * (tile[1] + _MARGIN)
        _draw_view(card, (left, upper, *tile), _view_text(result, projection), projection, maps)
    return np.asarray(card)


def _head(result: ExamResult) -> list[tuple[str, int, tuple[int, int, int]]]:
    """The lines above the images, with size and colour."""
    category = result.category
    title = f"Density {category}: {category_in_words(category)}" if category else "No density category"
    facts = []
    if result.exam and result.exam.percent_density is not None:
        facts.append(f"Percent density {percent(result.exam.percent_density / 100)}.")
    if result.prediction_set:
        facts.append(f"Prediction set: {result.prediction_set.text}.")
    if result.abstained:
        facts.append(sentence(f"Reason: {reasons_in_words(result)}"))
    texts = [sentence(flag.text) for flag in result.flags if flag not in result.abstained_for]
    lines = [(title, _TITLE_PX, _WHITE)]
    lines += [(text, _TEXT_PX, _WHITE) for text in [" ".join(facts)] if text]
    return lines + [(text, _TEXT_PX, _GREY) for text in [" ".join(texts)] if text]


def _view_text(result: ExamResult, projection: Projection) -> str:
    """Name, category and percent density of a view, or why it has none."""
    level = result.projections.get(projection)
    if level is None:
        return f"{projection}  {'refused' if projection in result.refused else 'missing'}"
    density = "" if level.percent_density is None else f"  {percent(level.percent_density / 100)}"
    return f"{projection}  {level.category}{density}".replace("\N{NO-BREAK SPACE}", " ")


def _draw_view(
    card: Image.Image, box: tuple[int, int, int, int], text: str, projection: Projection, maps: ExamMaps
) -> None:
    """Draw one view into a box (left, top, width, height), as it hangs: the chest wall at the middle of the card."""
    left, top, width, height = box
    is_right = projection.laterality == "R"
    edge = left + width if is_right else left
    pen = ImageDraw.Draw(card)
    pen.text((edge, top), text, _WHITE, ImageFont.load_default(_TEXT_PX), anchor="ra" if is_right else "la")
    if projection not in maps.maps:
        return
    line, view = round(1.5 * _TEXT_PX), maps.maps[projection].view
    mirrored = view is not None and is_mirrored(view)
    evidence = evidence_of(maps, projection)
    picture = Image.fromarray(evidence_picture(evidence, flip=mirrored, longest_px=max(width, height)))
    picture.thumbnail((width, height - line))
    card.paste(picture, (edge - (picture.width if is_right else 0), top + line))


def _draw_legend(pen: ImageDraw.ImageDraw, maps: ExamMaps, top: int) -> None:
    font, left = ImageFont.load_default(_TEXT_PX), _MARGIN
    for name, text in line_words(maps.method).items():
        if name == "dense" and maps.method == TISSUE:
            continue  # the evidence is the dense tissue itself
        pen.line([(left, top + _TEXT_PX // 2), (left + 40, top + _TEXT_PX // 2)], LINE_COLOURS[name], 4)
        pen.text((left + 52, top), text, _GREY, font)
        left += 52 + round(font.getlength(text)) + 40
