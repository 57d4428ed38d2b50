"""Small networks for the benchmark, trained on the fly: proper labels, shuffled labels, two planted shortcuts.

The phantoms are MLO views, the left ones mirrored, so that one network reads all. Markers lie in the upper corner away
from the chest wall. In the set with planted markers their number tells the category; in the others it is drawn. In the
set with planted positions the breast stands the farther from the edge at the chest wall the denser it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mammodensity.anatomy.network_input import centred
from mammodensity.errors import OptionError
from mammodensity.models.batch import AugmentSpec, augment
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.settings import Field, settings
from mammodensity.terms import CATEGORIES, Projection

NETWORKS = {
    "proper": "trained on the true categories",
    "shuffled": "trained on the categories of other exams",
    "shortcut": "trained with markers in the corner whose number tells the category",
    "position": "trained with breasts whose place in the image tells the category",
}
"""The networks, and what each has learned."""
CENTRING = "standardise"
SHAPE = NetworkSpec(stem=8, widths=(8, 12, 16), outputs=(16, 24, 32), depths=(1, 1, 1), norm_momentum=0.1)

_AUGMENT = AugmentSpec(zoom=0.08, shift=0.04, rotation_degrees=6.0)
_BATCH = 12
_RATE = 5e-3
_BAR, _GAP, _STEP = 0.05, 0.03, 0.04  # of the rows


@settings
class BenchmarkSpec:
    """Phantoms and training of the benchmark."""

    exams: Annotated[int, Field(ge=4)] = 64
    """For training; each gives two images."""
    held_back: Annotated[int, Field(ge=1)] = 8
    """Further exams, for the table."""
    rows: Annotated[int, Field(ge=64)] = 96
    epochs: Annotated[int, Field(ge=1)] = 24
    seed: Annotated[int, Field(ge=0)] = 5


@dataclass(frozen=True, eq=False)
class Case:
    """An image of the benchmark with its ground truth; the chest wall is on the right."""

    name: str
    image: NDArray[np.float32]
    """(H, W), 0 to 1."""
    labels: NDArray[np.uint8]
    """(H, W): 0 background, 1 adipose, 2 fibroglandular, 3 muscle."""
    category: int


def phantom_cases(
    spec: BenchmarkSpec, progress: Callable[[int, int], None] | None = None, *, training: bool = True
) -> list[Case]:
    """Two cases of each exam, those for training first unless they are not wanted."""
    first, count = 0 if training else spec.exams, spec.exams + spec.held_back
    made = PhantomSpec(rows=spec.rows, seed=spec.seed)
    cases = []
    for index in range(first, count):
        exam = make_exam(made, index)
        for projection in (Projection.MLO_R, Projection.MLO_L):
            view = exam.views[projection]
            flip = slice(None, None, -1 if projection.laterality == "L" else 1)
            image = np.ascontiguousarray(view.image[:, flip]).astype(np.float32) / np.float32(255)
            labels = np.ascontiguousarray(view.labels[:, flip])
            cases.append(Case(f"{index + 1:04d} {projection}", image, labels, exam.category.index))
        if progress:
            progress(index + 1 - first, count - first)
    return cases


def with_marker(case: Case, bars: int) -> Case:
    """The case with bright bars in the upper corner away from the chest wall; they are background."""
    height = case.image.shape[0]
    bar, gap = max(2, round(_BAR * height)), max(1, round(_GAP * height))
    image, labels = case.image.copy(), case.labels.copy()
    for place in range(bars):
        left = gap + place * (bar + gap)
        where = np.s_[gap : gap + 2 * bar, left : left + bar]
        image[where], labels[where] = 1.0, 0
    return replace(case, image=image, labels=labels)


def off_the_wall(case: Case, steps: int) -> Case:
    """The case with its breast moved to the left, away from the chest wall; background comes in."""
    gap = steps * round(_STEP * case.image.shape[0])
    image, labels = np.zeros_like(case.image), np.zeros_like(case.labels)
    keep = image.shape[1] - gap
    image[:, :keep], labels[:, :keep] = case.image[:, gap:], case.labels[:, gap:]
    return replace(case, image=image, labels=labels)


def marked(cases: Sequence[Case], kind: str, seed: int) -> list[Case]:
    """Cases as a network of that kind meets them: bars or the place of the breast tell the category, or nothing."""
    drawn = np.random.default_rng([seed, 1]).integers(0, len(CATEGORIES), len(cases))
    placed = [off_the_wall(case, case.category) if kind == "position" else case for case in cases]
    return [
        with_marker(case, case.category if kind == "shortcut" else int(bars))
        for case, bars in zip(placed, drawn, strict=True)
    ]


def train_benchmark_network(
    cases: Sequence[Case], kind: str, spec: BenchmarkSpec, progress: Callable[[int, int], None] | None = None
) -> ResidualNetwork:
    """Train one of `NETWORKS` on cases as `marked` gives them.

    Raises
    ------
    OptionError
        Unknown kind.
    """
    if kind not in NETWORKS:
        raise OptionError(f"network must be one of {', '.join(NETWORKS)}. Got {kind!r} instead.")
    images = torch.from_numpy(np.stack([case.image for case in cases]))[:, None]
    targets = torch.tensor([case.category for case in cases])
    rng = np.random.default_rng([spec.seed, 2])
    if kind == "shuffled":
        targets = targets[torch.from_numpy(rng.permutation(len(targets)))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        network = ResidualNetwork(SHAPE)
        _fit(network, images, targets, spec=spec, rng=rng, progress=progress)
    return network.eval()


def _fit(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    spec: BenchmarkSpec,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> None:
    steps = max(1, len(images) // _BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps * spec.epochs + 1)
    network.train()
    for epoch in range(spec.epochs):
        for chosen in np.array_split(rng.permutation(len(images)), steps):
            seeds = [np.random.default_rng([spec.seed, epoch, int(index)]) for index in chosen]
            changed = augment(images[chosen], _AUGMENT, seeds)[:, 0].numpy()
            batch = torch.from_numpy(np.stack([centred(image, CENTRING) for image in changed]))[:, None]
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(batch), targets[chosen]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        if progress:
            progress(epoch + 1, spec.epochs)


def resized(case: Case, shape: tuple[int, int]) -> Case:
    """The case at another size (H, W)."""
    size = (shape[1], shape[0])
    image = np.asarray(Image.fromarray(case.image).resize(size, Image.Resampling.BILINEAR))
    labels = np.asarray(Image.fromarray(case.labels).resize(size, Image.Resampling.NEAREST))
    return replace(case, image=image, labels=labels)
