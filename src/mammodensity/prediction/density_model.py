"""The model of one trained network a projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from mammodensity.errors import CheckpointError
from mammodensity.exam import Exam, Flag, Mammogram
from mammodensity.fusion import ExamScores
from mammodensity.networks import Checkpoint
from mammodensity.prediction.engines import Run, make_engine
from mammodensity.prediction.int8 import Samples, scores_of_logits, training_inputs
from mammodensity.prediction.scoring import ViewReading, score_exam
from mammodensity.preprocess import preprocess
from mammodensity.preprocess.familiarity import Familiarity
from mammodensity.terms import Projection, Scale


@dataclass(frozen=True, eq=False)
class DensityModel:
    """Networks by projection, ready to score exams.

    Raises
    ------
    CheckpointError
        They are of different categories.
    """

    checkpoints: Mapping[Projection, Checkpoint]
    device: torch.device
    unfinished: tuple[Projection, ...] = ()
    """Networks whose training was interrupted and not resumed."""
    engine: str = "torch"
    """What runs them: one of :data:`mammodensity.prediction.engines.ENGINES`."""
    folder: Path | None = None
    """Where they lie; the manifest of their training is there, too."""
    fusion: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        scales = {checkpoint.scale for checkpoint in self.checkpoints.values()}
        if len(scales) > 1:
            kinds = " and ".join(sorted(", ".join(scale) for scale in scales))
            raise CheckpointError(f"networks of different categories cannot be one model; found {kinds}")

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The projections it can read."""
        return tuple(self.checkpoints)

    @property
    def scale(self) -> Scale:
        """The categories that its scores are of."""
        return next(iter(self.checkpoints.values())).scale

    @property
    def trained_on_phantoms(self) -> bool:
        """True when a network learned from synthetic images."""
        data = [checkpoint.training.get("data") for checkpoint in self.checkpoints.values()]
        return any(isinstance(facts, Mapping) and facts.get("phantoms") is True for facts in data)

    @property
    def warnings(self) -> list[str]:
        """What a user of its scores must know, a line each."""
        found = []
        if self.unfinished:
            names = ", ".join(self.unfinished)
            found.append(f"the training of {names} was interrupted and is not finished; go on with train --resume")
        if self.trained_on_phantoms:
            found.append("trained on phantoms: its answers on images of patients mean nothing")
        return found

    def prepare(self) -> None:
        """Make every network ready to run, which the first image would do otherwise."""
        _ = self._engines

    def score_images(self, projection: Projection, mammograms: Sequence[Mammogram]) -> NDArray[np.float64]:
        """Scores (B, 4) of mammograms of one projection, in the order A-D."""
        return self._scores(projection, np.stack([self._input(projection, one) for one in mammograms]))

    def _input(self, projection: Projection, mammogram: Mammogram) -> NDArray[np.float32]:
        return preprocess(mammogram, self.checkpoints[projection].preprocess)

    def _scores(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (B, 4) of network inputs (B, rows, columns)."""
        return scores_of_logits(self._outputs(projection, inputs))

    def _outputs(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the engine gives for network inputs (B, rows, columns)."""
        channels = self.checkpoints[projection].network.spec.channels
        return self._engines[projection](np.repeat(inputs[:, np.newaxis], channels, axis=1))

    @cached_property
    def _engines(self) -> dict[Projection, Run]:
        return {view: self._engine(view) for view in self.checkpoints}

    def _engine(self, view: Projection) -> Run:
        """From network inputs with channels to logits."""
        one = self.checkpoints[view]
        return make_engine(self.engine, one, self.device, self._samples(one))

    def _samples(self, checkpoint: Checkpoint) -> Samples | None:
        """Images of a network's training; None where no folder tells which."""
        return partial(training_inputs, self.folder, checkpoint) if self.folder else None

    def read(self, projection: Projection, mammogram: Mammogram) -> ViewReading:
        """Read one image, and say where it is unlike those the network was trained on."""
        values = self._input(projection, mammogram)
        return ViewReading(self._scores(projection, values[np.newaxis])[0], flags=self._flags(projection, values))

    def _flags(self, projection: Projection, values: NDArray[np.float32]) -> tuple[Flag, ...]:
        facts = self.checkpoints[projection].training.get("familiarity")
        if not facts:
            return ()
        usual = Familiarity.from_dict(facts)
        distance = usual.distance(values)
        if distance <= usual.limit:
            return ()
        times = f"{distance / usual.limit:.1f}".removesuffix(".0")
        return (Flag("unlike-training", f"unlike the images the network learned from ({times} times the limit)"),)

    def score(
        self, exam: Exam, *, fusion: str = "mean", allow_missing: bool = False, policy: str = "mean"
    ) -> ExamScores:
        """Score one exam; see :func:`mammodensity.prediction.scoring.score_exam`."""
        return score_exam(self, exam, fusion=fusion, allow_missing=allow_missing, policy=policy)
