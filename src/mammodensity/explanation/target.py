"""What is explained: the logit of a category, or how far it lies above another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from mammodensity.errors import OptionError
from mammodensity.terms import SCALES, Category

Choice = Category | str | int | None
"""A category, its letter or its index; None for the one with the highest logit."""
Categories = Choice | Sequence[Choice]
"""One for all images of a batch, or one each."""


@dataclass(frozen=True, eq=False)
class Target:
    """The number explained for each image of a batch, by its weights on the logits."""

    weights: Tensor
    """(B, K) float32: 1 at the category, -1 at the one it is set against; all 0 where both are one."""

    def values(self, logits: Tensor, images: Tensor | None = None) -> Tensor:
        """(N,) float32 of logits (N, K); ``images`` (N,) says whose logits they are, else all B in their order."""
        weights = self.weights if images is None else self.weights[images]
        return (logits.float() * weights).sum(dim=1)


def choose_target(logits: Tensor, category: Categories, against: Categories) -> Target:
    """What to explain, given the logits (B, K) of the images.

    Parameters
    ----------
    category
        None is each image's own predicted category.
    against
        The category to set it against, or one an image; None is none. Where an image's predicted category is the very
        one it is set against, the difference is 0 and so is its map.

    Raises
    ------
    OptionError
        There is no such category, their number is not that of the images, or one is set against itself.
    """
    chosen, others = _indices(category, logits), _indices(against, logits)
    if any(one is not None and one == other for one, other in zip(chosen, others, strict=True)):
        raise OptionError("a category cannot be set against itself; name another one to set it against, or none")
    predicted = logits.argmax(dim=1).tolist()
    weights = torch.zeros(logits.shape, dtype=torch.float32)
    for image, (one, other) in enumerate(zip(chosen, others, strict=True)):
        weights[image, predicted[image] if one is None else one] += 1
        if other is not None:
            weights[image, other] -= 1
    return Target(weights.to(logits.device))


def _indices(category: Categories, logits: Tensor) -> list[int | None]:
    """The index for each image; None where none is named."""
    single = category is None or isinstance(category, str | Integral)
    wanted: list[Choice] = [category] * len(logits) if single else list(category)  # type: ignore[list-item, arg-type]
    if len(wanted) != len(logits):
        raise OptionError(f"categories must be one, or one an image. Got {len(wanted)} for {len(logits)} images.")
    return [_index(one, logits.shape[1]) for one in wanted]


def _index(category: Choice, count: int) -> int | None:
    if category is None:
        return None
    places = {one.value: one.index for one in SCALES.get(count, ())}
    if isinstance(category, str) and category in places:
        return places[category]
    if isinstance(category, Integral) and not isinstance(category, bool) and 0 <= int(category) < count:
        return int(category)
    letters = f"{', '.join(places)} or " if places else ""
    raise OptionError(f"category must be {letters}an index below {count}. Got {category!r} instead.")
