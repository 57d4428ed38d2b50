"""The scores of a whole run of ``explain``: what its networks depend on first, then exam after exam, then the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from mammodensity.errors import ImageError
from mammodensity.exam import Exam
from mammodensity.explanation.exam_maps import TISSUE, ExamMaps
from mammodensity.explanation.methods import DEFAULT_METHOD, explain
from mammodensity.explanation.scoring.exam_scores import ExamVerdict, find_dependence, score_exam_maps
from mammodensity.explanation.scoring.score import ScoreSpec
from mammodensity.ingest import ImageRecord, load_exam
from mammodensity.prediction import DensityModel, TissueModel
from mammodensity.terms import RESEARCH_USE_ONLY, Category, Projection

_SAMPLED = 12  # exams on which a network's dependence on the background is measured first


class RunScores:
    """Scores the maps of one model, and keeps what is told of them.

    Parameters
    ----------
    exams
        All of the run; some of them, evenly spaced, show what the networks depend on.
    against, layer
        What the maps were made with, as of :func:`mammodensity.explain`.
    """

    def __init__(
        self,
        model: DensityModel | TissueModel,
        exams: Mapping[str, Mapping[Projection, ImageRecord]],
        *,
        against: Category | str | None = None,
        layer: str | None = None,
        spec: ScoreSpec = ScoreSpec(stability=False),  # noqa: B008  (frozen)
    ) -> None:
        self._model, self._spec = model, spec
        self._explain = partial(explain, against=against, layer=layer)
        self._dependence = find_dependence(model, _sampled(exams), spec.rules)
        self._images: list[dict[str, Any]] = []
        self._exams: list[dict[str, Any]] = []

    def score(self, maps: ExamMaps, names: Mapping[Projection, str]) -> ExamVerdict:
        """Score the maps of an exam by one method; ``names`` are those of its images."""
        method = DEFAULT_METHOD if maps.method == TISSUE else maps.method
        found = score_exam_maps(
            self._model,
            maps,
            method=partial(self._explain, method=method),
            dependence=self._dependence,
            spec=self._spec,
        )
        for projection, one in maps.maps.items():
            entry = {
                "image": names[projection],
                "exam_id": maps.exam_id,
                "projection": projection.value,
                "method": maps.method,
                "category": one.category.value,
                "against": None if one.against is None else one.against.value,
                "score_of_category": float(one.scores[one.category.index]),
            }
            self._images.append(entry | found.views[projection].to_dict())
        self._exams.append(found.to_dict())
        return found

    def document(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """What ``explain --json`` writes: scores, baselines and verdict by image; agreement and verdict by exam."""
        return {
            "note": RESEARCH_USE_ONLY,
            "rules": self._spec.rules.to_dict(),
            "replacement": self._spec.replacement,
            "images": self._images,
            "exams": self._exams,
            "receipt": dict(receipt),
        }


def _sampled(exams: Mapping[str, Mapping[Projection, ImageRecord]]) -> Iterator[Exam]:
    """Exams evenly spaced over a data set, one after the other: enough to see what a network depends on.

    Exams that cannot be read are passed over.
    """
    ids = list(exams)
    for place in sorted({round(index) for index in np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLED))}):
        with suppress(ImageError):
            yield load_exam(ids[place], exams[ids[place]])
