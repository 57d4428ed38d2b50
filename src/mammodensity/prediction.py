"""From exams to scores, with a model of one network a projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mammodensity.data import input_batch
from mammodensity.devices import find_device
from mammodensity.errors import CheckpointError
from mammodensity.exam import Exam, Mammogram
from mammodensity.fusion import ExamScores, fuse_exam
from mammodensity.ingest import DataSet, load_exam
from mammodensity.networks import Checkpoint, load_checkpoint, network_files
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection
from mammodensity.training.resume import RESUME_FILE


@dataclass(frozen=True, eq=False)
class DensityModel:
    """Networks by projection, ready to score exams."""

    checkpoints: Mapping[Projection, Checkpoint]
    device: torch.device
    unfinished: tuple[Projection, ...] = ()
    """Networks whose training was interrupted and not resumed."""

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
        checkpoint = self.checkpoints[projection]
        network = checkpoint.network
        images = input_batch(mammograms, checkpoint.preprocess, network.spec.channels).to(self.device)
        with torch.inference_mode():
            logits = network(images.contiguous(memory_format=torch.channels_last))
        scores: NDArray[np.float64] = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return scores

    def score(self, exam: Exam, *, fusion: str = "mean", allow_missing: bool = False) -> ExamScores:
        """Score one exam.

        A projection without an image or without a network is missing: what is fused from it is not given, unless
        ``allow_missing`` asks to fuse the projections present; either way the result names the missing ones.

        Raises
        ------
        OptionError
            Unknown fusion method.
        """
        scores = {
            projection: self.score_images(projection, [exam.mammograms[projection]])[0]
            for projection in PROJECTIONS
            if projection in exam.mammograms and projection in self.checkpoints
        }
        return ExamScores(exam.exam_id, scores, fuse_exam(scores, fusion, allow_missing))


def load_model(path: Path | str, device: str = "auto") -> DensityModel:
    """Load a model folder as written by ``mammodensity train`` or ``import-keras``.

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


def predict(
    model: DensityModel, data: DataSet, *, fusion: str = "mean", allow_missing: bool = False
) -> Iterator[ExamScores]:
    """Score the exams of a data set one after the other, in sorted order.

    Raises
    ------
    LayoutError, ImageError
        The data set or an image cannot be used.
    CheckpointError
        The model has no network for any projection of the data set.
    """
    require_networks(model, data)
    for exam_id, records in data.exams().items():
        yield model.score(load_exam(exam_id, records), fusion=fusion, allow_missing=allow_missing)


def require_networks(model: DensityModel, data: DataSet, *, all_projections: bool = False) -> None:
    """Raise ``CheckpointError`` unless the model can read some projection of the data set, or all four."""
    present = {record.projection for record in data.records}
    has = ", ".join(model.checkpoints)
    if not present & set(model.checkpoints):
        holds = ", ".join(sorted(present))
        raise CheckpointError(
            f"the model has networks for {has}, but {data.root} only holds {holds}; name another model"
        )
    if all_projections and set(model.checkpoints) != set(PROJECTIONS):
        raise CheckpointError(
            f"the model has networks for {has} only; the origin's text files need all four projections"
        )


def stacked_projections(exams: Sequence[ExamScores]) -> dict[Projection, NDArray[np.float64]]:
    """Scores (N, 4) of each projection that any of the exams has, with a row of NaN where an exam lacks it."""
    absent = np.full(len(CATEGORIES), np.nan)
    return {
        projection: np.stack([np.asarray(exam.projections.get(projection, absent)) for exam in exams])
        for projection in PROJECTIONS
        if any(projection in exam.projections for exam in exams)
    }
