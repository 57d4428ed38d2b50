"""The verdict on a map, in words, by published rules; and what several maps tell of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mammodensity.explanation.measures import Figures
from mammodensity.settings import Field, settings
from mammodensity.terms import DensityCategory

VERDICTS: dict[str, str] = {
    "chance": "Unreliable: the network did not predict better than chance",
    "shortcut": "Unreliable: the prediction depends on what lies outside the breast, or on where the breast lies",
    "outside": "Unreliable: the map lies outside the breast",
    "insensitive": "Unreliable: a network with random weights gives almost the same map",
    "empty": "Empty map: it explains nothing",
    "not-scored": "Not checked: nothing is known about the quality of this map",
    "weak": "Weak: no better than a simple map",
    "measured": "Measured: the outline is the dense tissue that was measured",
    "supported": "Supported: better than each simple map it was compared with",
}
"""Every code, from the most serious to the best, and its meaning."""

TRUSTED = ("supported", "measured")
"""Codes that need no warning."""

OUTSIDE = {
    "background": "everything outside the breast was made black",
    "muscle": "the pectoral muscle was smoothed",
    "marker": "a marker was added in an image corner",
    "position": "the breast was moved in its field",
}
"""Changes that leave the breast as it is, after which a sound prediction is the same."""

Share = Annotated[float, Field(ge=0, le=1)]
Logit = Annotated[float, Field(ge=0, le=1000)]
Correlation = Annotated[float, Field(ge=-1, le=1)]


@settings
class VerdictRules:
    """Limits beyond which a map is unreliable or weak.

    Raises
    ------
    OptionError
        A number is out of range.
    """

    background_change: Share = 0.2
    """Share of the scores that may move to other categories when everything outside breast and muscle is made black."""
    background_logit: Logit = 2.0
    """The same for the largest change of a logit; it counts where scores are too near 0 and 1 to move."""
    muscle_change: Share = 0.3
    """Share of the scores that may move when the muscle is smoothed as well."""
    muscle_logit: Logit = 2.5
    """The same for the largest change of a logit."""
    marker_change: Share = 0.5
    """Share of the scores that may move when a marker is added in an image corner."""
    marker_logit: Logit = 3.0
    """The same for the largest change of a logit."""
    position_change: Share = 0.3
    """Share of the scores that may move when the breast is moved in its field."""
    position_logit: Logit = 2.5
    """The same for the largest change of a logit."""
    shortcut_share: Share = 0.1
    """Share of a model's images whose prediction may depend on the outside before the model gets a warning."""
    outside: Share = 0.5
    """Share of the map that may lie outside breast and muscle."""
    outside_or_muscle: Share = 0.65
    """Share of the map that may lie outside the breast, muscle included."""
    randomised: Correlation = 0.7
    """Rank correlation with the maps of networks with random weights."""
    faithfulness: Correlation = 0.2
    """Insertion minus deletion that a map must reach: below, the prediction hardly changes with the marked region."""
    margin: Correlation = 0.02
    """By how much insertion minus deletion must exceed that of each simple map."""
    dense_lift: Annotated[float, Field(ge=0, le=100)] = 1.0
    """For C and D: the map's share inside dense tissue, divided by that of an even map."""

    def to_dict(self) -> dict[str, Any]:
        """The rules as plain values."""
        return asdict(self)


STANDARD_RULES = VerdictRules()


@dataclass(frozen=True)
class Verdict:
    """A code of `VERDICTS`, and a sentence for whoever sees the map."""

    code: str
    text: str

    @property
    def trusted(self) -> bool:
        """False if the map must carry a warning."""
        return self.code in TRUSTED

    def to_dict(self) -> dict[str, str]:
        """Code and text as plain values."""
        return asdict(self)


_LEAST_IMAGES, _LEAST_VALIDATED = 8, 12  # fewer tell nothing of a model
_SIGNIFICANT = 0.05
UNKNOWN = "it is not known whether the network predicts better than chance"


def better_than_chance(confusion: NDArray[np.integer[Any]], tries: int = 1) -> bool | None:
    """Test whether predictions follow the reference more closely than chance explains.

    The test permutes predictions against references (one-sided, squared distances between categories). Its normal
    approximation is used: the correlation times the root of the number of images less one.

    Parameters
    ----------
    confusion
        (K, K) numbers of images: reference in rows, prediction in columns.
    tries
        This matrix was chosen as the best of so many, of all epochs for instance: a better result than chance must be
        less likely by that factor.

    Returns
    -------
    None if that is not known: fewer than 12 images, or the choice among ``tries`` could explain the result.

    References
    ----------
    Hoeffding, W. (1951). A combinatorial central limit theorem. Annals of Mathematical Statistics 22(4), 558-566.

    Examples
    --------
    >>> better_than_chance(np.diag([5, 5, 5, 5])), better_than_chance(np.full((4, 4), 2))
    (True, False)
    """
    count = int(confusion.sum())
    if count < _LEAST_VALIDATED:
        return None
    reference, predicted = (np.repeat(place.ravel(), confusion.ravel()) for place in np.indices(confusion.shape))
    if np.ptp(reference) == 0:
        return None
    if np.ptp(predicted) == 0:
        return False
    p_value = float(ndtr(-np.corrcoef(reference, predicted)[0, 1] * np.sqrt(count - 1)))
    if p_value >= _SIGNIFICANT:
        return False
    return True if p_value * tries < _SIGNIFICANT else None


def learned(training: Mapping[str, Any]) -> bool | None:
    """The same of a network by the record of its training; None where it holds no validation figures."""
    epoch, confusion = training.get("epoch"), training.get("validation_confusion")
    if not isinstance(epoch, Mapping) or confusion is None:
        return None
    return better_than_chance(np.array(confusion, dtype=np.int64), int(epoch["epoch"]))


@dataclass(frozen=True)
class Dependence:
    """The number of images whose prediction depends on what lies outside the breast, or on where the breast lies."""

    changed: int
    images: int
    better_than_chance: bool | None = None
    """Whether the model predicts better than chance; None if that is not known."""

    def statement(self, rules: VerdictRules = STANDARD_RULES) -> str | None:
        """State the result for the model in sentences; None for fewer than 8 images.

        Examples
        --------
        >>> Dependence(0, 8, better_than_chance=True).statement()
        'The prediction depended on what lies outside the breast, or on where the breast lies, in 0 of 8 images.'
        """
        if self.better_than_chance is False:
            return "The model did not predict better than chance on its validation images: its maps explain nothing."
        if self.images < _LEAST_IMAGES:
            return None
        text = (
            "The prediction depended on what lies outside the breast, or on where the breast lies, "
            f"in {self.changed} of {self.images} images."
        )
        if self.changed > rules.shortcut_share * self.images:
            text = f"{text} Do not trust the maps of this model until you know why."
        return text if self.better_than_chance else f"{text} {UNKNOWN.capitalize()}."


def judge(
    figures: Figures,
    baselines: Mapping[str, Figures],
    *,
    category: int | None = None,
    better_than_chance: bool | None = None,
    rules: VerdictRules = STANDARD_RULES,
) -> Verdict:
    """The verdict on a map: the most serious that applies. Figures that are None are passed over.

    Parameters
    ----------
    figures
        Scores of the map.
    baselines
        The same scores of each simple map.
    category
        Index of the category explained; C and D are dense.
    better_than_chance
        Whether the network predicts better than chance; None if that is not known.
    """
    if better_than_chance is False:
        return Verdict("chance", VERDICTS["chance"])
    verdict = next(_verdicts(figures, baselines, category, rules))
    if verdict.code == "shortcut" and better_than_chance is None:
        return Verdict("shortcut", f"{verdict.text}; {UNKNOWN}")
    return verdict


def _verdicts(
    figures: Figures, baselines: Mapping[str, Figures], category: int | None, rules: VerdictRules
) -> Iterator[Verdict]:
    """All verdicts that apply, the most serious first; always at least one."""
    change = depends_on_outside(figures, rules)
    if change:
        yield Verdict("shortcut", f"Unreliable: {change}")
    inside, background = figures.get("inside_breast"), figures.get("outside")
    if inside is None:
        yield Verdict("empty", VERDICTS["empty"])
    elif (background or 0) > rules.outside or 1 - inside > rules.outside_or_muscle:
        yield Verdict("outside", f"Unreliable: {1 - inside:.0%} of the map lies outside the breast")
    similar = figures.get("randomised")
    if similar is not None and similar > rules.randomised:
        yield Verdict("insensitive", f"{VERDICTS['insensitive']} (correlation {similar:.2f})")
    weakness = _weakness(figures, baselines, category, rules)
    if weakness:
        yield Verdict("weak", f"Weak: {weakness}")
    if figures.get("faithfulness") is not None:
        yield Verdict("supported", VERDICTS["supported"])
    if figures.get("background_change") is not None:
        yield Verdict("empty", "Empty map: it has one value everywhere")
    if figures.get("inside_dense") is None:
        yield Verdict("not-scored", "Not checked: neither dense tissue nor the network is known")
    yield Verdict("supported", "Supported: more on dense tissue than each simple map; the network was not tested")


def depends_on_outside(figures: Figures, rules: VerdictRules) -> str:
    """Say which change outside the breast changed the prediction for an image; empty if none did."""
    for part, how in OUTSIDE.items():
        most, most_logit = getattr(rules, f"{part}_change"), getattr(rules, f"{part}_logit")
        change, logit = figures.get(f"{part}_change"), figures.get(f"{part}_logit")
        if (change is not None and change > most) or (logit is not None and logit > most_logit):
            return f"the prediction changed when {how}"
    return ""


_DENSE_FROM = DensityCategory.C.index
_SIMPLE = {
    "bright": "a map of the bright pixels",
    "blob": "a blob in the middle of the breast",
    "random": "a random map",
}


def _weakness(
    figures: Figures, baselines: Mapping[str, Figures], category: int | None, rules: VerdictRules
) -> str | None:
    """Name the simple map that is as good, or the reason why the map says little; None if there is neither."""
    asked = figures.get("background_change") is not None
    compared = "faithfulness" if asked else "inside_dense"
    value = figures.get(compared)
    others = {words: baselines.get(name, {}).get(compared) for name, words in _SIMPLE.items()}
    as_good = [
        words
        for words, other in others.items()
        if value is not None and other is not None and value <= other + rules.margin
    ]
    if as_good:
        return f"no better than {' or '.join(as_good)}"
    if asked and value is not None and value < rules.faithfulness:
        return "the prediction barely changes when the marked region is removed"
    lift = figures.get("dense_lift")
    if asked and category is not None and category >= _DENSE_FROM and lift is not None and lift <= rules.dense_lift:
        return "no more on dense tissue than an even map"
    return None


def worst(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on several maps: the most serious among them, with the names of its maps.

    Examples
    --------
    >>> worst({"CC_R": Verdict("supported", "Supported"), "CC_L": Verdict("weak", "Weak: no better")}).text
    'CC_L: Weak: no better'
    """
    if not verdicts:
        return Verdict("not-scored", VERDICTS["not-scored"])
    order = list(VERDICTS)
    code = min((verdict.code for verdict in verdicts.values()), key=order.index)
    names = [name for name, verdict in verdicts.items() if verdict.code == code]
    if len(names) == len(verdicts):
        return Verdict(code, VERDICTS[code])
    text = verdicts[names[0]].text if len(names) == 1 else VERDICTS[code]
    return Verdict(code, f"{', '.join(names)}: {text}")
