"""The model of one trained network a projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mammodensity.data import with_channels
from mammodensity.devices import find_device
from mammodensity.exam import Exam, Flag, Mammogram
from mammodensity.fusion import ExamScores
from mammodensity.networks import Checkpoint, load_checkpoint, network_files
from mammodensity.prediction.scoring import ViewReading, score_exam
from mammodensity.preprocess import preprocess
from mammodensity.preprocess.familiarity import Familiarity
from mammodensity.terms import Projection
from mammodensity.training.resume import RESUME_FILE


@dataclass(frozen=True, eq=False)
class DensityModel:
    """Networks by projection, ready to score exams."""

    checkpoints: Mapping[Projection, Checkpoint]
    device: torch.device
    unfinished: tuple[Projection, ...] = ()
    """Networks whose training was interrupted and not resumed."""

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The projections it can read."""
        return tuple(self.checkpoints)

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

    def score_images(self, projection: Projection, mammograms: Sequence[Mammogram]) -> NDArray[np.float64]:
        """Scores (B, 4) of mammograms of one projection, in the order A-D."""
        return self._scores(projection, np.stack([self._input(projection, one) for one in mammograms]))

    def _input(self, projection: Projection, mammogram: Mammogram) -> NDArray[np.float32]:
        return preprocess(mammogram, self.checkpoints[projection].preprocess)

    def _scores(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (B, 4) of network inputs (B, rows, columns)."""
        network = self.checkpoints[projection].network
        images = with_channels(torch.from_numpy(inputs)[:, None], network.spec.channels).to(self.device)
        with torch.inference_mode():
            logits = network(images.contiguous(memory_format=torch.channels_last))
        scores: NDArray[np.float64] = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return scores

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


def load_networks(path: Path | str, device: str = "auto") -> DensityModel:
    """Load the networks of a model folder as written by ``mammodensity train`` or ``import-keras``.

    Parameters
    ----------
    path
        A model folder, or the folder or file of a single network.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    CheckpointError
        Nothing there, or a network is damaged or lies in the folder of another projection.
    DeviceError
        The device is absent.
    """
    where = find_device(device)
    files = network_files(Path(path))
    if files:
        checkpoints = {projection: load_checkpoint(file, projection) for projection, file in files.items()}
    else:
        only = load_checkpoint(path)
        checkpoints = {only.projection: only}
    for checkpoint in checkpoints.values():
        checkpoint.network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    unfinished = tuple(p for p, file in files.items() if (file.parent / RESUME_FILE).exists())
    return DensityModel(checkpoints, where, unfinished)
