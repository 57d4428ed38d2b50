"""The verdict where the map is: its words, and a strip below a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mammodensity.explanation.scoring.verdicts import VERDICTS, Verdict
from mammodensity.terms import RESEARCH_USE_ONLY

_SMALLEST_PX, _WIDTHS = 10, 45  # of a letter; about so many fill a line of a picture
_GOOD, _BAD = (160, 220, 160), (255, 190, 90)


def caption(verdict: Verdict | None) -> str:
    """What must be read with a map; one that was never scored says so.

    Examples
    --------
    >>> caption(Verdict("weak", "weak: no better than the bright-pixel map"))
    'Verdict: weak: no better than the bright-pixel map.'
    """
    return f"Verdict: {VERDICTS['not-scored'] if verdict is None else verdict.text}."


def caption_colour(verdict: Verdict | None) -> tuple[int, int, int]:
    """Amber for what is not to be trusted, green for the rest."""
    return _GOOD if verdict is not None and verdict.trusted else _BAD


def captioned(
    picture: NDArray[np.uint8], verdict: Verdict | None, *, about: str = "", letters: int = _WIDTHS
) -> NDArray[np.uint8]:
    """A picture (H, W, 3) with its verdict in a strip below, (H + strip, W, 3); no pixel of the picture is covered.

    Parameters
    ----------
    about
        What else is said, before the verdict.
    letters
        About so many fill a line.
    """
    columns = picture.shape[1]
    size = max(_SMALLEST_PX, round(columns / letters))
    font = ImageFont.load_default(size)
    said = f"{about} {caption(verdict)} {RESEARCH_USE_ONLY}".strip()
    lines = _wrapped(said, font, columns - size)
    strip = Image.new("RGB", (columns, round(1.3 * size * len(lines) + 0.7 * size)))
    pen = ImageDraw.Draw(strip)
    for place, line in enumerate(lines):
        pen.text((size // 2, round(size * (0.3 + 1.3 * place))), line, font=font, fill=caption_colour(verdict))
    result: NDArray[np.uint8] = np.concatenate([picture, np.asarray(strip)])
    return result


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Lines of whole words no wider than asked for, unless one word alone is."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
