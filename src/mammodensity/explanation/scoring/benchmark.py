"""The benchmark of explanations: a table of networks, methods and scores, where the dense tissue is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mammodensity.errors import LayoutError
from mammodensity.explanation.methods import METHODS, explain, require_methods
from mammodensity.explanation.scoring.areas import areas_of
from mammodensity.explanation.scoring.benchmark_networks import (
    CENTRING,
    NETWORKS,
    BenchmarkSpec,
    Case,
    marked,
    phantom_cases,
    resized,
    train_benchmark_network,
)
from mammodensity.explanation.scoring.changes import background_changes
from mammodensity.explanation.scoring.probe import Probe
from mammodensity.explanation.scoring.score import STANDARD_SCORING, ScoreSpec, score_explanation
from mammodensity.explanation.scoring.verdicts import VERDICTS, Dependence, depends_on_outside
from mammodensity.ingest.images import read_image
from mammodensity.ingest.names import projection_in_name
from mammodensity.networks import Checkpoint
from mammodensity.outputs import receipt
from mammodensity.prediction import DensityModel
from mammodensity.preprocess.network_input import fitted_box
from mammodensity.terms import RESEARCH_USE_ONLY, DensityCategory, Projection

SHOWN = {
    "inside_breast": "inside",
    "outside": "outside",
    "dense_lift": "lift",
    "spearman": "spearman",
    "pointing_game": "point",
    "faithfulness": "faithful",
    "randomised": "random",
    "stability_shift": "shifted",
    "stability_mirror": "mirrored",
}
"""Scores of the table and their names there; the file holds all."""
_DENSE_FROM = DensityCategory.C.index
_MASK_VALUES = {64: 0, 128: 1, 192: 2, 255: 3}  # masks as published for scans of film, to labels
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
    scores: dict[str, float | None]
    baselines: dict[str, dict[str, float | None]]
    verdicts: dict[str, int]


def run_benchmark(
    spec: BenchmarkSpec = BenchmarkSpec(),  # noqa: B008  (frozen)
    *,
    model: DensityModel | None = None,
    data: Path | None = None,
    methods: Sequence[str] = tuple(METHODS),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score methods on networks, on phantoms held back and on real masks.

    Parameters
    ----------
    model
        A model with a network for MLO_R; without one, three small networks are trained on the fly.
    data
        Folder with ``images`` and ``masks`` of the same names, right MLO views.

    Returns
    -------
    JSON values: ``rows`` as of `Row`, and how they were made.

    Raises
    ------
    OptionError
        Unknown method.
    LayoutError
        The folder holds no images with masks, or the model no network for MLO_R.
    """
    require_methods(list(methods), None)
    tell = progress or (lambda _what, _done, _total: None)
    real = read_masked(data) if data is not None else []
    if model is not None and Projection.MLO_R not in model.checkpoints:
        raise LayoutError(f"the benchmark shows MLO_R views; the model has networks for {', '.join(model.projections)}")
    cases = phantom_cases(spec, partial(tell, "phantoms"), training=model is None)
    training, held = cases[: -2 * spec.held_back], cases[-2 * spec.held_back :]
    rows: list[Row] = []
    if model is not None:
        own = model.checkpoints[Projection.MLO_R]
        sets = {"model": (_probe_of(own), _prepared(held, own), _prepared(real, own))}
    else:
        sets = {}
        for kind in NETWORKS:
            network = train_benchmark_network(marked(training, kind, 1), kind, spec, partial(tell, f"train {kind}"))
            shape = training[0].image.shape
            shown = marked(held, kind, 2)
            sets[kind] = (Probe(network, 0, centring=CENTRING), shown, [resized(case, shape) for case in real])
    for name, (probe, phantoms, masked) in sets.items():
        for where, some in (("phantoms", phantoms), ("masks", masked)):
            if some:
                rows += _score(
                    where, name, probe, some, methods=methods, tell=partial(tell, f"score {name} on {where}")
                )
    return {
        "note": RESEARCH_USE_ONLY,
        "spec": asdict(spec),
        "networks": NETWORKS if model is None else {"model": "as given"},
        "rules": STANDARD_SCORING.rules.to_dict(),
        "rows": [asdict(row) for row in rows],
        "receipt": receipt("explain-benchmark", methods=list(methods)),
    }


def _score(
    where: str,
    name: str,
    probe: Probe,
    cases: Sequence[Case],
    *,
    methods: Sequence[str],
    tell: Callable[[int, int], None],
) -> list[Row]:
    spec = ScoreSpec()
    images = np.stack([case.image for case in cases])
    predicted = probe.logits(images).argmax(axis=1)
    known = [case for case in cases if case.category >= 0]
    right = [case.category == found for case, found in zip(cases, predicted, strict=True) if case.category >= 0]
    changed = 0
    for case in cases:
        figures, _ = background_changes(case.image, areas_of(case.labels), probe)
        changed += bool(depends_on_outside(figures, spec.rules))
    dependence = Dependence(changed, len(cases))
    rows = []
    for place, method in enumerate(methods):
        found = []
        for done, (case, category) in enumerate(zip(cases, predicted, strict=True), start=1):
            asked = probe.for_category(int(category), partial(explain, method=method))
            values = asked.maps(case.image[None])[0]
            scored = score_explanation(values, case.image, case.labels, probe=asked, dependence=dependence, spec=spec)
            found.append((int(category), scored))
            tell(place * len(cases) + done, len(methods) * len(cases))
        codes = Counter(one.verdict.code for _, one in found)
        own = [(category, one.scores) for category, one in found]
        beside = {key: _means([(c, one.baselines[key]) for c, one in found]) for key in found[0][1].baselines}
        accuracy = float(np.mean(right)) if known else None
        verdicts = {code: codes[code] for code in VERDICTS if codes[code]}
        rows.append(Row(where, name, method, len(cases), accuracy, _means(own), beside, verdicts))
    return rows


def _means(found: Sequence[tuple[int, Mapping[str, float | None]]]) -> dict[str, float | None]:
    """Means over images where the score is defined; those of dense tissue over images read as C or D alone."""
    means: dict[str, float | None] = {}
    for name in found[0][1]:
        dense_only = name in ("inside_dense", "dense_lift", "pointing_game")
        values = [
            value
            for category, scores in found
            if (value := scores[name]) is not None and (category >= _DENSE_FROM or not dense_only)
        ]
        means[name] = float(np.mean(values)) if values else None
    return means


def _probe_of(checkpoint: Checkpoint) -> Probe:
    network = checkpoint.network
    return Probe(network, 0, centring=checkpoint.preprocess.centring, channels=network.spec.channels)


def _prepared(cases: Sequence[Case], checkpoint: Checkpoint) -> list[Case]:
    """Cases at the size that a network takes; where it wants the muscle or the background changed, they are left."""
    spec = checkpoint.preprocess
    prepared = []
    for case in cases:
        top, left, rows, columns = fitted_box(case.image.shape, spec)
        small = resized(case, (rows, columns))
        image = np.zeros((spec.rows, spec.columns), np.float32)
        labels = np.zeros((spec.rows, spec.columns), np.uint8)
        image[top : top + rows, left : left + columns] = small.image
        labels[top : top + rows, left : left + columns] = small.labels
        prepared.append(Case(case.name, image, labels, case.category))
    return prepared


def read_masked(folder: Path) -> list[Case]:
    """Images of ``folder/images`` with the masks of the same names in ``folder/masks``; their categories are unknown.

    Masks hold 0 or 64 background, 1 or 128 adipose, 2 or 192 fibroglandular, 3 or 255 muscle.

    Raises
    ------
    LayoutError
        There are none, a mask is missing or of another size, or holds other values or no breast.
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
        values = np.asarray(Image.open(mask))
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


def tables(result: Mapping[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """A table of `COLUMNS` for each network and data, with its title: the baselines, then the methods."""
    rows = result["rows"]
    for data, network in dict.fromkeys((row["data"], row["network"]) for row in rows):
        own = [row for row in rows if (row["data"], row["network"]) == (data, network)]
        right = "" if own[0]["accuracy"] is None else f", {own[0]['accuracy']:.0%} of them put right"
        title = f"{network} network ({result['networks'][network]}) on {own[0]['images']} {data}{right}"
        cells = [
            [f"({name})", *(_cell(figures.get(score)) for score in SHOWN), ""]
            for name, figures in own[0]["baselines"].items()
        ]
        for row in own:
            verdicts = ", ".join(f"{count} {code}" for code, count in row["verdicts"].items())
            cells.append([row["method"], *(_cell(row["scores"][score]) for score in SHOWN), verdicts])
        yield title, cells


COLUMNS = ("map", *SHOWN.values(), "verdicts")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
