"""The benchmark of explanations: a table of networks, methods and scores, on images whose dense tissue is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mammodensity.anatomy.density import DEFAULT_MAP
from mammodensity.anatomy.network_input import fitted_box
from mammodensity.anatomy.tissue import find_tissue
from mammodensity.data.images import read_image
from mammodensity.data.picture_files import projection_in_name
from mammodensity.errors import ImageError, LayoutError, OptionError
from mammodensity.exam import Mammogram
from mammodensity.explanation.exam_scores import tissue_verdict
from mammodensity.explanation.map_scores import STANDARD_SCORING, ExplanationScores, ScoreSpec, score_explanation
from mammodensity.explanation.maps import TISSUE
from mammodensity.explanation.measures import areas_of
from mammodensity.explanation.methods import METHODS, explain_images, require_methods
from mammodensity.explanation.probe import Probe, against_other, cascade
from mammodensity.explanation.verdicts import VERDICTS, Verdict, better_than_chance
from mammodensity.models.checkpoint import Checkpoint
from mammodensity.models.trained import DensityModel
from mammodensity.outputs import receipt
from mammodensity.research.benchmark_networks import (
    CENTRING,
    NETWORKS,
    BenchmarkSpec,
    Case,
    marked,
    phantom_cases,
    resized,
    train_benchmark_network,
)
from mammodensity.terms import CATEGORIES, RESEARCH_USE_ONLY, DensityCategory, Projection

_MASK_VALUES = {64: 0, 128: 1, 192: 2, 255: 3}  # masks as published for scans of film, to labels


def probe_of(checkpoint: Checkpoint) -> Probe:
    """The network of a checkpoint, to be asked about images as `prepared` gives them."""
    network = checkpoint.network
    return Probe(network, 0, centring=checkpoint.preprocess.centring, channels=network.spec.channels)


def prepared(cases: Sequence[Case], checkpoint: Checkpoint) -> list[Case]:
    """Cases at the size that a network takes; where it wants the muscle or the background changed, they are left."""
    spec = checkpoint.preprocess
    ready = []
    for case in cases:
        top, left, rows, columns = fitted_box(case.image.shape, spec)
        small = resized(case, (rows, columns))
        image = np.zeros((spec.rows, spec.columns), np.float32)
        labels = np.zeros((spec.rows, spec.columns), np.uint8)
        image[top : top + rows, left : left + columns] = small.image
        labels[top : top + rows, left : left + columns] = small.labels
        ready.append(Case(case.name, image, labels, case.category))
    return ready


def read_masked(folder: Path) -> list[Case]:
    """Images of ``folder/images`` with the masks of the same names in ``folder/masks``; their categories are unknown.

    Masks hold 0 or 64 background, 1 or 128 adipose, 2 or 192 fibroglandular, 3 or 255 muscle.

    Raises
    ------
    LayoutError
        There are none, a mask is missing, damaged or of another size, or holds other values or no breast.
    """
    files = sorted((folder / "images").glob("*.png"))
    if not files:
        raise LayoutError(f"{folder} holds no images/*.png; expected images and masks of the same names")
    cases = []
    for file in files:
        mask = folder / "masks" / file.name
        if not mask.is_file():
            raise LayoutError(f"{mask} is missing; expected a mask for each image")
        mammogram = read_image(file, projection_in_name(file.stem))
        values = _read_mask(mask)
        if values.shape != mammogram.pixels.shape:
            raise LayoutError(f"{mask} is of shape {values.shape}, its image of {mammogram.pixels.shape}")
        labels = np.zeros(values.shape, np.uint8)
        for value, label in _MASK_VALUES.items():
            labels[(values == value) | (values == label)] = label
        if not np.isin(values, (*_MASK_VALUES, 0, 1, 2, 3)).all() or not np.isin(labels, (1, 2)).any():
            raise LayoutError(f"{mask}: expected 64, 128, 192, 255 or 0 to 3, and some breast")
        image = mammogram.pixels.astype(np.float32) / np.float32(mammogram.full_scale)
        cases.append(Case(file.stem, image, labels, -1))
    return cases


def _read_mask(file: Path) -> NDArray[Any]:
    try:
        with Image.open(file) as picture:
            return np.asarray(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise LayoutError(f"{file} is no readable picture: {error}; expected a mask as a PNG file") from error


SHOWN = {
    "inside_breast": "inside",
    "outside": "outside",
    "dense_lift": "lift",
    "spearman": "spearman",
    "pointing_game": "point",
    "faithfulness": "faithful",
    "cascade": "cascade",
    "other": "other",
    "randomised": "random",
    "stability_shift": "shifted",
    "stability_mirror": "mirrored",
}
"""Scores of the table and their names there; the file holds all."""
DEFAULT = "default model"
_DENSE_FROM = DensityCategory.C.index
_CASCADE_IMAGES, _CASCADE_STEPS = 4, 6  # enough for a mean; each step is as many maps as images
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One method on one network: means over the images, and how often each verdict was given."""

    data: str
    network: str
    method: str
    images: int
    accuracy: float | None
    """Share of the images that the network puts in their category; None where that is not known."""
    cascade: list[dict[str, Any]]
    """How alike the maps are once a layer and all after it have random weights: ``layer``, ``similarity``."""
    scores: dict[str, float | None]
    baselines: dict[str, dict[str, float | None]]
    verdicts: dict[str, int]


def run_benchmark(
    spec: BenchmarkSpec = BenchmarkSpec(),  # noqa: B008  (frozen)
    *,
    model: DensityModel | None = None,
    other: DensityModel | None = None,
    data: Path | None = None,
    methods: Sequence[str] = tuple(METHODS),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score methods on networks, on phantoms held back and on real masks.

    Parameters
    ----------
    model
        A model with a network for MLO_R; without one, small networks are trained on the fly.
    other
        Another model with the same input, trained on shuffled labels, for example. Its maps are compared with those of
        ``model``.
    data
        Folder with ``images`` and ``masks`` of the same names, right MLO views.

    Returns
    -------
    JSON values: ``rows`` as of `Row`, and how they were made.

    Raises
    ------
    OptionError
        Unknown method, or ``other`` has nothing to be compared with.
    LayoutError
        The folder holds no images with masks, or a model no network for MLO_R.
    """
    require_methods(list(methods), None)
    tell = progress or (lambda _what, _done, _total: None)
    real = read_masked(data) if data is not None else []
    checkpoint, other_checkpoint = _checkpoints(model, other)
    cases = phantom_cases(spec, partial(tell, "phantoms"), training=model is None)
    training, held = cases[: -2 * spec.held_back], cases[-2 * spec.held_back :]
    networks: dict[str, _Network] = {}
    if checkpoint is not None:
        reference = None if other_checkpoint is None else other_checkpoint.network
        images = prepared(held, checkpoint), prepared(real, checkpoint)
        networks["model"] = _Network(probe_of(checkpoint), reference, *images)
    else:
        trained = {
            kind: train_benchmark_network(marked(training, kind, 1), kind, spec, partial(tell, f"train {kind}"))
            for kind in NETWORKS
        }
        small = [resized(case, training[0].image.shape) for case in real]
        for kind, residual in trained.items():
            reference = trained["proper" if kind == "shuffled" else "shuffled"]
            probe = Probe(residual, 0, centring=CENTRING)
            networks[kind] = _Network(probe, reference, marked(held, kind, 2), small)
    rows: list[Row] = []
    for name, network in networks.items():
        for where, part in (("phantoms", network.phantoms), ("masks", network.masked)):
            if part:
                shown = partial(tell, f"score {name} on {where}")
                rows += _score(where, name, network, part, methods=methods, tell=shown)
    for where, part in (("phantoms", held), ("masks", real)):
        rows += score_default_model(where, part, partial(tell, f"score {DEFAULT} on {where}"))
    return {
        "note": RESEARCH_USE_ONLY,
        "spec": asdict(spec),
        "networks": {**(NETWORKS if model is None else {"model": "as given"}), DEFAULT: "measures dense tissue"},
        "rules": STANDARD_SCORING.rules.to_dict(),
        "rows": [asdict(row) for row in rows],
        "receipt": receipt("explain-benchmark", methods=list(methods)),
    }


@dataclass(frozen=True, eq=False)
class _Network:
    """A network, another one to compare its maps with, and its images."""

    probe: Probe
    other: nn.Module | None
    phantoms: Sequence[Case]
    masked: Sequence[Case]


def _checkpoints(model: DensityModel | None, other: DensityModel | None) -> tuple[Checkpoint | None, Checkpoint | None]:
    """The networks for MLO_R of a model and of the one to compare with."""
    if model is None and other is not None:
        raise OptionError("another model is compared with a model; name that, too")
    for candidate in (model, other):
        if candidate is not None and Projection.MLO_R not in candidate.checkpoints:
            has = ", ".join(candidate.projections)
            raise LayoutError(f"the benchmark shows MLO_R views; the model has networks for {has}")
    checkpoint, compared = (
        None if candidate is None else candidate.checkpoints[Projection.MLO_R] for candidate in (model, other)
    )
    if checkpoint and compared:
        inputs = [(candidate.preprocess, candidate.network.spec.channels) for candidate in (checkpoint, compared)]
        if inputs[0] != inputs[1]:
            raise OptionError("the two models take other images: size, preprocessing or channels differ")
    return checkpoint, compared


def _score(
    where: str,
    name: str,
    network: _Network,
    cases: Sequence[Case],
    *,
    methods: Sequence[str],
    tell: Callable[[int, int], None],
) -> list[Row]:
    """A row for each method."""
    probe = replace(network.probe, better_than_chance=_better_than_chance(network))
    images, areas = [case.image for case in cases], [areas_of(case.labels) for case in cases]
    predicted = [int(category) for category in probe.logits(np.stack(images)).argmax(axis=1)]
    rows = []
    for place, method in enumerate(methods):
        explain, scored = partial(explain_images, method=method), []
        for done, (case, category) in enumerate(zip(cases, predicted, strict=True), start=1):
            asked = probe.for_category(category, explain)
            values = asked.maps(case.image[None])[0]
            scored.append(score_explanation(values, case.image, case.labels, probe=asked, spec=ScoreSpec()))
            tell(place * len(cases) + done, len(methods) * len(cases))
        usual = probe.for_category(int(np.bincount(predicted).argmax()), explain)
        depths = cascade(usual, images[:_CASCADE_IMAGES], areas[:_CASCADE_IMAGES], steps=_CASCADE_STEPS)[1:]
        similarities = [depth.similarity for depth in depths if depth.similarity is not None]
        sanity = {
            "cascade": float(np.mean(similarities)) if similarities else None,
            "other": None if network.other is None else against_other(usual, network.other, images, areas),
        }
        verdicts = [scores.verdict for scores in scored]
        row = _row((where, name, method), cases, predicted, scored, verdicts=verdicts, sanity=sanity)
        rows.append(replace(row, cascade=[asdict(depth) for depth in depths]))
    return rows


def _better_than_chance(network: _Network) -> bool | None:
    """Test whether the network predicts its phantoms' categories better than chance; each view counts as an image."""
    predicted = network.probe.logits(np.stack([case.image for case in network.phantoms])).argmax(axis=1)
    confusion = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    for case, category in zip(network.phantoms, predicted, strict=True):
        confusion[case.category, category] += 1
    return better_than_chance(confusion)


def score_default_model(where: str, cases: Sequence[Case], tell: Callable[[int, int], None]) -> list[Row]:
    """Score the default model's map against the true dense tissue: one row, or none where it can read no image.

    It is not asked about changed images: only the place of its map can be scored.
    """
    read, predicted, scored = [], [], []
    for done, case in enumerate(cases, start=1):
        pixels = np.rint(case.image * 65535).astype(np.uint16)
        try:
            tissue = find_tissue(Mammogram(pixels, Projection.MLO_R))
        except ImageError:
            continue
        read.append(case)
        predicted.append(int(np.argmax(DEFAULT_MAP.scores(tissue.percent_density))))
        scored.append(score_explanation(tissue.dense, case.image, case.labels))
        tell(done, len(cases))
    if not read:
        return []
    verdicts, sanity = [tissue_verdict(scores) for scores in scored], dict.fromkeys(("cascade", "other"))
    return [_row((where, DEFAULT, TISSUE), read, predicted, scored, verdicts=verdicts, sanity=sanity)]


def _row(
    names: tuple[str, str, str],
    cases: Sequence[Case],
    predicted: Sequence[int],
    scored: Sequence[ExplanationScores],
    *,
    verdicts: Sequence[Verdict],
    sanity: Mapping[str, float | None],
) -> Row:
    """The row of a data set, network and method, from the categories and map scores of its images."""
    right = [case.category == category for case, category in zip(cases, predicted, strict=True) if case.category >= 0]
    codes = Counter(verdict.code for verdict in verdicts)
    return Row(
        *names,
        images=len(cases),
        accuracy=float(np.mean(right)) if right else None,
        cascade=[],
        scores={**_means(predicted, [scores.scores for scores in scored]), **sanity},
        baselines={
            name: _means(predicted, [scores.baselines[name] for scores in scored]) for name in scored[0].baselines
        },
        verdicts={code: codes[code] for code in VERDICTS if codes[code]},
    )


def _means(predicted: Sequence[int], scores: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means over images where the score is defined; those of dense tissue over images read as C or D alone."""
    means: dict[str, float | None] = {}
    for name in scores[0]:
        dense_only = name in ("inside_dense", "dense_lift", "pointing_game")
        values = [
            value
            for category, of_image in zip(predicted, scores, strict=True)
            if (value := of_image[name]) is not None and (category >= _DENSE_FROM or not dense_only)
        ]
        means[name] = float(np.mean(values)) if values else None
    return means


def tables(result: Mapping[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """A table of `COLUMNS` for each network and data, with its title: the baselines, then the methods."""
    rows = result["rows"]
    for data, network in dict.fromkeys((row["data"], row["network"]) for row in rows):
        methods = [row for row in rows if (row["data"], row["network"]) == (data, network)]
        first = methods[0]
        right = "" if first["accuracy"] is None else f", {first['accuracy']:.0%} of them put right"
        title = f"{network} network ({result['networks'][network]}) on {first['images']} {data}{right}"
        cells = [
            [f"({name})", *(_cell(figures.get(score)) for score in SHOWN), ""]
            for name, figures in first["baselines"].items()
        ]
        for row in methods:
            verdicts = ", ".join(f"{count} {code}" for code, count in row["verdicts"].items())
            cells.append([row["method"], *(_cell(row["scores"][score]) for score in SHOWN), verdicts])
        yield title, cells


COLUMNS = ("map", *SHOWN.values(), "verdicts")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
