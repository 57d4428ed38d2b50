"""Models of trained networks, loaded from a model folder: one network per projection, or one joint network.

A joint network scores a view, a breast and the exam with fewer or more views present. The features of a view are
computed once; each of the seven levels of an exam then needs the small last part of the network only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammodensity.anatomy.network_input import preprocess
from mammodensity.anatomy.networks import SEGMENTER_WEIGHTS as SEGMENTER
from mammodensity.anatomy.networks import TISSUE_WEIGHTS as TISSUES
from mammodensity.anatomy.quality import Familiarity
from mammodensity.anatomy.read_view import ReadView
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.exam import Flag, Mammogram
from mammodensity.models.checkpoint import (
    NETWORK_FILE,
    RESUME_FILE,
    Checkpoint,
    JointCheckpoint,
    joint_file,
    load_checkpoint,
    load_joint,
    network_files,
)
from mammodensity.models.default import MAP_FILE, TissueModel, read_category_map
from mammodensity.models.engines import Run, Samples, make_engine, scores_of_logits, training_inputs
from mammodensity.models.joint import ExamView, JointNetwork
from mammodensity.models.scoring import Model, ViewScores
from mammodensity.outputs import file_sha256
from mammodensity.scores import BY_THE_NETWORK, POLICIES, FusedScores, denser, fused_levels
from mammodensity.terms import FUSED_LEVELS, PROJECTIONS, Projection, Scale
from mammodensity.workers import find_device


@dataclass(frozen=True, eq=False)
class DensityModel(Model):
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
    """The engine that runs them: one of :data:`mammodensity.models.engines.ENGINES`."""
    folder: Path | None = None
    """Their model folder, which also holds the manifest of their training."""

    def __post_init__(self) -> None:
        scales = {checkpoint.scale for checkpoint in self.checkpoints.values()}
        if len(scales) > 1:
            kinds = " and ".join(sorted(map(str, scales)))
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
        """Facts that a user of its scores must know, a line each."""
        warnings = []
        if self.unfinished:
            names = ", ".join(self.unfinished)
            warnings.append(f"the training of {names} was interrupted and is not finished; go on with train --resume")
        if self.trained_on_phantoms:
            warnings.append("trained on phantoms: its answers on images of patients mean nothing")
        return warnings

    def prepare(self) -> None:
        """Make every network ready to run, which the first image would do otherwise."""
        _ = self._engines

    def score_images(self, projection: Projection, mammograms: Sequence[Mammogram]) -> NDArray[np.float64]:
        """Scores (B, K) of mammograms of one projection."""
        spec = self.checkpoints[projection].preprocess
        return self._scores(projection, np.stack([preprocess(mammogram, spec) for mammogram in mammograms]))

    def _scores(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (B, 4) of network inputs (B, rows, columns)."""
        return scores_of_logits(self._outputs(projection, inputs))

    def _outputs(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits, or features of a joint network, of network inputs (B, rows, columns)."""
        channels = self.checkpoints[projection].network.spec.channels
        return self._engines[projection](np.repeat(inputs[:, np.newaxis], channels, axis=1))

    @cached_property
    def _engines(self) -> dict[Projection, Run]:
        return {view: self._engine(view) for view in self.checkpoints}

    def _engine(self, view: Projection) -> Run:
        """An engine from network inputs with channels to logits."""
        checkpoint = self.checkpoints[view]
        return make_engine(self.engine, checkpoint, self.device, self._samples(checkpoint))

    def _samples(self, checkpoint: Checkpoint) -> Samples | None:
        """Images of a network's training; None where no folder tells which."""
        return partial(training_inputs, self.folder, checkpoint) if self.folder else None

    def score_view(self, view: ReadView) -> ViewScores:
        """Score one view, and flag it if it is unlike the images that the network was trained on."""
        values = self._values(view)
        scores = self._scores(view.projection, values[np.newaxis])[0]
        return ViewScores(scores, flags=self._flags(view.projection, values))

    def _values(self, view: ReadView) -> NDArray[np.float32]:
        return view.network_input(self.checkpoints[view.projection].preprocess).values

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


Features = Mapping[Projection, NDArray[np.float32]]
"""(F,) of each view present."""


@dataclass(frozen=True, eq=False)
class JointModel(DensityModel):
    """A joint network, ready to score exams; ``checkpoints`` are the network with one view alone."""

    joint: JointCheckpoint = field(kw_only=True)
    fusion: ClassVar[str] = BY_THE_NETWORK

    @property
    def network(self) -> JointNetwork:
        """The joint network."""
        return self.joint.network

    def score_view(self, view: ReadView) -> ViewScores:
        """Score one view as if its exam had no other, and flag it if it is unlike the images of the training."""
        values = self._values(view)
        features = self._outputs(view.projection, values[np.newaxis])[0]
        scores = self.scores_of({view.projection: features})
        return ViewScores(scores, flags=self._flags(view.projection, values), features=features)

    def _scores(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (B, 4) of network inputs (B, rows, columns), each as if its exam had no other view."""
        return self._alone(projection, self._outputs(projection, inputs))

    def _alone(self, projection: Projection, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (B, 4) of features (B, F), each as if its exam had no other view."""
        return np.stack([self.scores_of({projection: image_features}) for image_features in features])

    def _engine(self, view: Projection) -> Run:
        """An engine of a branch, from network inputs with channels to features; fusion is fast and stays in torch."""
        branch = self.joint.branch(view)
        return make_engine(self.engine, branch, self.device, self._samples(branch), partial(self._alone, view))

    def scores_of(self, features: Features) -> NDArray[np.float64]:
        """Scores (4,) of an exam that has these views."""
        whole, present = self._cells(features)
        with torch.inference_mode():
            logits = self.network.fuse(whole[None].to(self.device), present[None].to(self.device))
        return scores_of_logits(logits.cpu().numpy())[0]

    def view_of(self, projection: Projection, features: Features) -> ExamView:
        """The network of one view in an exam that has these views, the others as they are."""
        whole, present = self._cells(features)
        return ExamView(self.network, PROJECTIONS.index(projection), whole, present).eval()

    def _cells(self, features: Features) -> tuple[Tensor, Tensor]:
        """Features (V, F), zeros where a view is absent, and which are present (V,)."""
        present = torch.tensor([projection in features for projection in PROJECTIONS])
        whole = torch.zeros(len(PROJECTIONS), self.network.spec.network.outputs[-1])
        for projection, values in features.items():
            whole[PROJECTIONS.index(projection)] = torch.from_numpy(values)
        return whole, present

    def fuse(
        self, views: Mapping[Projection, ViewScores], *, fusion: str, allow_missing: bool, policy: str
    ) -> dict[str, FusedScores]:
        """Score breasts and subject by the network with their views present.

        With the policy ``denser`` the subject's scores are those of the breast with the higher expected category.

        Raises
        ------
        OptionError
            Another fusion, or an unknown policy.
        """
        if fusion != BY_THE_NETWORK:
            raise OptionError(f"a joint network fuses the views itself; leave --fusion out. Got {fusion!r} instead.")
        if policy not in POLICIES:
            raise OptionError(f"policy must be one of {', '.join(POLICIES)}. Got {policy!r} instead.")
        features = {name: view.features for name, view in views.items() if view.features is not None}
        return fused_levels(features, allow_missing, lambda present: self._fused(features, present, policy))

    def _fused(self, features: Features, views: tuple[Projection, ...], policy: str) -> NDArray[np.float64]:
        sides = [[view for view in views if view in FUSED_LEVELS[side]] for side in ("right", "left")]
        if policy == "denser" and all(sides):
            right, left = (self.scores_of({view: features[view] for view in side}) for side in sides)
            return denser(right, left)
        return self.scores_of({view: features[view] for view in views})


def load_networks(path: Path | str, device: str = "auto", engine: str = "torch") -> DensityModel:
    """Load the networks of a model folder, or a single network; arguments and errors are those of ``load_model``.

    A folder with a joint network gives a :class:`JointModel`.
    """
    folder, where = Path(path), find_device(device)
    whole, files = joint_file(folder), network_files(folder)
    if whole is not None:
        joint = load_joint(whole)
        joint.network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        checkpoints = {projection: joint.alone(projection) for projection in PROJECTIONS}
        unfinished = PROJECTIONS if (whole.parent / RESUME_FILE).exists() else ()
        model: DensityModel = JointModel(checkpoints, where, unfinished, engine, folder, joint=joint)
    else:
        checkpoints = {projection: load_checkpoint(file, projection) for projection, file in files.items()}
        if not files:
            single = load_checkpoint(folder)
            checkpoints = {single.projection: single}
        for checkpoint in checkpoints.values():
            checkpoint.network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        unfinished = tuple(p for p, file in files.items() if (file.parent / RESUME_FILE).exists())
        model = DensityModel(checkpoints, where, unfinished, engine, folder)
    model.prepare()
    return model


def model_name(path: Path | None) -> str:
    """Name of a model in results: the folder's name, and the beginning of a hash of all its files."""
    lines = (f"{file} {value}\n" for file, value in sorted(model_hashes(path).items()))
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    if path is None:
        name = "the default model"
    else:
        name = f"{path.resolve().name}{', the default model of a site' if (path / MAP_FILE).is_file() else ''}"
    return f"{name} (files {digest[:12]})"


def model_hashes(path: Path | None) -> dict[str, str]:
    """SHA-256 of the files that make a model, by name in its folder; of the packaged weights for the default model."""
    packaged = {file.name: file_sha256(file) for file in (SEGMENTER, *TISSUES)}
    if path is None:
        return packaged
    if path.is_file():
        return {path.name: file_sha256(path)}
    hashes = {
        file.relative_to(path).as_posix(): file_sha256(file)
        for pattern in (f"**/{NETWORK_FILE}", "category_map.json", "calibration.json")
        for file in sorted(path.glob(pattern))
    }
    return hashes if any(name.endswith(".safetensors") for name in hashes) else packaged | hashes


def load_model(
    path: Path | str | None = None, device: str = "auto", engine: str = "torch"
) -> DensityModel | TissueModel:
    """Load the default model, or a model folder as written by ``train``, ``import-keras`` or ``calibrate``.

    Parameters
    ----------
    path
        None: the model that comes with the package. Otherwise a model folder, or the folder or file of a single
        network.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, for trained networks; the default model is small and runs on the CPU.
    engine
        What runs trained networks: ``torch``, ``onnx``, ``openvino`` or ``openvino-int8``.

    Raises
    ------
    CheckpointError
        Nothing there, or it is damaged, or a network lies in the folder of another projection or is of other
        categories.
    DeviceError
        The device is absent.
    OptionError
        The engine is unknown, not installed, or not for this model or device.
    """
    if path is not None and not os.path.lexists(Path(path) / MAP_FILE):
        return load_networks(path, device, engine)
    if engine != "torch":
        raise OptionError("the default model runs in torch; leave --engine out, or name a trained model")
    find_device(device)  # one that is absent is an error for every model
    return TissueModel() if path is None else TissueModel(read_category_map(Path(path)))
