"""What a map is worth, in words: published rules with numbers that may be changed.

The verdict where the map is: its words, and a strip below a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mammodensity.errors import OptionError
from mammodensity.explanation.measures import Figures
from mammodensity.terms import RESEARCH_USE_ONLY, DensityCategory

VERDICTS: dict[str, str] = {
    "shortcut": "not to be trusted: the answer depends on what lies outside the breast",
    "outside": "not to be trusted: the map lies outside the breast",
    "insensitive": "not to be trusted: a network with random weights gives much the same map",
    "empty": "the map is empty: it says nothing",
    "not-scored": "not scored: nothing is known of what the map is worth",
    "weak": "weak: no better than a plain map",
    "measured": "the map is what was measured; it explains nothing further",
    "supported": "supported: better than every plain map it was compared with",
}
"""Every code from the gravest to the best, and what it means."""

TRUSTED = ("supported", "measured")
"""What is no warning."""


@dataclass(frozen=True)
class VerdictRules:
    """When a map is not to be trusted, and when it is weak.

    Raises
    ------
    OptionError
        A number is out of range.
    """

    background_change: float = 0.2
    """Share of the scores that may move to other categories when all outside breast and muscle is black."""
    background_logit: float = 2.0
    """The same for the largest change of a logit, where scores are too near 0 and 1 to move."""
    muscle_change: float = 0.3
    """Share of the scores that may move when moreover the muscle is smoothed."""
    muscle_logit: float = 2.5
    """The same for the largest change of a logit."""
    marker_change: float = 0.5
    """Share of the scores that may move when a marker is put into a corner."""
    marker_logit: float = 3.0
    """The same for the largest change of a logit."""
    shortcut_share: float = 0.1
    """Share of a network's images whose answer may depend on the outside, before all its maps are called shortcuts."""
    outside: float = 0.5
    """Share of the map that may lie outside breast and muscle."""
    outside_or_muscle: float = 0.65
    """Share of the map that may lie outside the breast, on muscle or not."""
    randomised: float = 0.7
    """Rank correlation with the maps of networks with random weights."""
    faithfulness: float = 0.2
    """Insertion minus deletion that a map must reach: less, and its pixels hardly matter for the answer."""
    margin: float = 0.02
    """By how much insertion minus deletion must exceed that of each baseline."""
    dense_lift: float = 1.0
    """For C and D: share inside dense tissue over that of an even map."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("background_change", 0, 1),
            ("background_logit", 0, 1000),
            ("muscle_change", 0, 1),
            ("muscle_logit", 0, 1000),
            ("marker_change", 0, 1),
            ("marker_logit", 0, 1000),
            ("shortcut_share", 0, 1),
            ("outside", 0, 1),
            ("outside_or_muscle", 0, 1),
            ("randomised", -1, 1),
            ("faithfulness", -1, 1),
            ("margin", -1, 1),
            ("dense_lift", 0, 100),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise OptionError(f"{name} must be {low} to {high}. Got {value!r} instead.")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


STANDARD_RULES = VerdictRules()


@dataclass(frozen=True)
class Verdict:
    """A code of `VERDICTS`, and a text for whoever sees the map."""

    code: str
    text: str

    @property
    def trusted(self) -> bool:
        """False where the map must carry a warning."""
        return self.code in TRUSTED

    def to_dict(self) -> dict[str, str]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Dependence:
    """In how many images of a run a network's answer depends on what lies outside the breast."""

    changed: int
    images: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.changed / self.images if self.images else 0.0


def judge(
    figures: Figures,
    baselines: Mapping[str, Figures],
    *,
    category: int | None = None,
    dependence: Dependence | None = None,
    rules: VerdictRules = STANDARD_RULES,
) -> Verdict:
    """The verdict on a map, the gravest that applies; figures that are None are passed over.

    Parameters
    ----------
    figures
        Scores of the map.
    baselines
        The same scores of each baseline.
    category
        Index of the category explained; C and D are dense.
    dependence
        Of the network, over all images of the run.
    """
    return next(_verdicts(figures, baselines, category, dependence, rules))


def _verdicts(
    figures: Figures,
    baselines: Mapping[str, Figures],
    category: int | None,
    dependence: Dependence | None,
    rules: VerdictRules,
) -> Iterator[Verdict]:
    """All that apply, the gravest first; always at least one."""
    shortcut = _shortcut(figures, dependence, rules)
    if shortcut:
        yield Verdict("shortcut", f"not to be trusted: {shortcut}")
    inside, background = figures.get("inside_breast"), figures.get("outside")
    if inside is None:
        yield Verdict("empty", VERDICTS["empty"])
    elif (background or 0) > rules.outside or 1 - inside > rules.outside_or_muscle:
        yield Verdict("outside", f"not to be trusted: {1 - inside:.0%} of the map lies outside the breast")
    similar = figures.get("randomised")
    if similar is not None and similar > rules.randomised:
        yield Verdict("insensitive", f"{VERDICTS['insensitive']} (correlation {similar:.2f})")
    reasons = _weak(figures, baselines, category, rules)
    if reasons:
        yield Verdict("weak", f"weak: {reasons[0]}")
    if figures.get("faithfulness") is not None:
        yield Verdict("supported", VERDICTS["supported"])
    if figures.get("background_change") is not None:
        yield Verdict("empty", "the map has one value everywhere: it says nothing")
    if figures.get("inside_dense") is None:
        yield Verdict("not-scored", "not scored: neither dense tissue nor the network is known")
    yield Verdict("supported", "supported: more on dense tissue than every plain map; the network was not asked")


def depends_on_outside(figures: Figures, rules: VerdictRules) -> str:
    """How the answer for one image changes with what lies outside the breast, or nothing where it does not."""
    for part, how in (
        ("background", "when all outside the breast is black"),
        ("muscle", "when the muscle is smoothed"),
        ("marker", "when a marker is put into a corner"),
    ):
        most, most_logit = getattr(rules, f"{part}_change"), getattr(rules, f"{part}_logit")
        change, logit = figures.get(f"{part}_change"), figures.get(f"{part}_logit")
        if change is not None and change > most:
            return f"the answer changes ({change:.2f} of the scores) {how}"
        if logit is not None and logit > most_logit:
            return f"the answer changes (a logit by {logit:.1f}) {how}"
    return ""


def _shortcut(figures: Figures, dependence: Dependence | None, rules: VerdictRules) -> str:
    """Why the answer is not about the breast, or nothing."""
    own = depends_on_outside(figures, rules)
    if own:
        return own
    if dependence is not None and dependence.share > rules.shortcut_share:
        counts = f"{dependence.changed} of {dependence.images} images"
        return f"in {counts} this network's answer changes with what lies outside the breast"
    return ""


_DENSE_FROM = DensityCategory.C.index
_PLAIN = {"bright": "the bright-pixel map", "blob": "a blob in the middle of the breast", "random": "a random map"}


def _weak(figures: Figures, baselines: Mapping[str, Figures], category: int | None, rules: VerdictRules) -> list[str]:
    """What the map is no better than, or why it says little."""
    reasons = []
    asked = figures.get("background_change") is not None
    compared = "faithfulness" if asked else "inside_dense"
    own = figures.get(compared)
    others = {words: baselines.get(name, {}).get(compared) for name, words in _PLAIN.items()}
    beaten_by = [
        words
        for words, other in others.items()
        if own is not None and other is not None and own <= other + rules.margin
    ]
    if beaten_by:
        reasons.append(f"no better than {' or '.join(beaten_by)}")
    if asked and own is not None and own < rules.faithfulness:
        reasons.append(f"the answer hardly hangs on what it marks (insertion minus deletion {own:.2f})")
    lift = figures.get("dense_lift")
    if asked and category is not None and category >= _DENSE_FROM and lift is not None and lift <= rules.dense_lift:
        reasons.append("no more on dense tissue than an even map")
    return reasons


def worst(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on several maps: the gravest among them, and whose it is.

    Examples
    --------
    >>> worst({"CC_R": Verdict("supported", "supported"), "CC_L": Verdict("weak", "weak: no better")}).text
    'CC_L: weak: no better'
    """
    if not verdicts:
        return Verdict("not-scored", VERDICTS["not-scored"])
    order = list(VERDICTS)
    gravest = min((one.code for one in verdicts.values()), key=order.index)
    names = [name for name, one in verdicts.items() if one.code == gravest]
    if len(names) == len(verdicts):
        return Verdict(gravest, VERDICTS[gravest])
    text = verdicts[names[0]].text if len(names) == 1 else VERDICTS[gravest]
    return Verdict(gravest, f"{', '.join(names)}: {text}")


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
