"""The model of one joint network: a view, a breast and the exam are the same network with fewer or more views present.

A view's features are computed once; what the seven levels of an exam ask of them is the small last part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from mammodensity.devices import find_device
from mammodensity.errors import OptionError
from mammodensity.exam import Exam, Mammogram
from mammodensity.fusion import BY_THE_NETWORK, POLICIES, ExamScores, FusedScores, denser, fused_levels
from mammodensity.networks import ExamView, JointNetwork
from mammodensity.networks.joint_checkpoint import JointCheckpoint, load_joint
from mammodensity.prediction.density_model import DensityModel
from mammodensity.prediction.engines import Run, make_engine
from mammodensity.prediction.scoring import ViewReading, score_exam
from mammodensity.terms import FUSED_LEVELS, PROJECTIONS, Projection
from mammodensity.training.resume import RESUME_FILE

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

    def read(self, projection: Projection, mammogram: Mammogram) -> ViewReading:
        """Read one image as if its exam had no other view, and say where it is unlike those of the training."""
        values = self._input(projection, mammogram)
        features = self.features(projection, values[np.newaxis])[0]
        return ViewReading(
            self.scores_of({projection: features}), flags=self._flags(projection, values), features=features
        )

    def _scores(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (B, 4) of network inputs (B, rows, columns), each as if its exam had no other view."""
        return self._alone(projection, self.features(projection, inputs))

    def _alone(self, projection: Projection, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (B, 4) of features (B, F), each as if its exam had no other view."""
        return np.stack([self.scores_of({projection: one}) for one in features])

    def features_of(self, projection: Projection, mammogram: Mammogram) -> NDArray[np.float32]:
        """Features (F,) of one image."""
        found: NDArray[np.float32] = self.features(projection, self._input(projection, mammogram)[np.newaxis])[0]
        return found

    def features(self, projection: Projection, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (B, F) of network inputs (B, rows, columns) of a projection."""
        return self._outputs(projection, inputs)

    def _engine(self, view: Projection) -> Run:
        """Of a branch: from network inputs with channels to features. Fusion is a small part and stays in torch."""
        branch = self.joint.branch(view)
        return make_engine(self.engine, branch, self.device, self._samples(branch), partial(self._alone, view))

    def scores_of(self, features: Features) -> NDArray[np.float64]:
        """Scores (4,) of an exam that has these views."""
        whole, present = self._cells(features)
        with torch.inference_mode():
            logits = self.network.fuse(whole[None].to(self.device), present[None].to(self.device))
        scores: NDArray[np.float64] = softmax(logits[0].double().cpu().numpy())
        return scores

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

    def score(
        self, exam: Exam, *, fusion: str = BY_THE_NETWORK, allow_missing: bool = False, policy: str = "mean"
    ) -> ExamScores:
        """Score one exam: breasts and subject by the network with their views present.

        With the policy ``denser`` the subject's scores are those of the breast with the higher expected category.

        Raises
        ------
        OptionError
            Another fusion or policy is asked for.
        """
        if fusion != BY_THE_NETWORK:
            raise OptionError(f"a joint network fuses the views itself; leave --fusion out. Got {fusion!r} instead.")
        if policy not in POLICIES:
            raise OptionError(f"policy must be one of {', '.join(POLICIES)}. Got {policy!r} instead.")

        def fuse(readings: Mapping[Projection, ViewReading]) -> dict[str, FusedScores]:
            features = {view: one.features for view, one in readings.items() if one.features is not None}
            return fused_levels(features, allow_missing, lambda views: self._fused(features, views, policy))

        return score_exam(self, exam, fusion=fusion, allow_missing=allow_missing, policy=policy, fuse=fuse)

    def _fused(self, features: Features, views: tuple[Projection, ...], policy: str) -> NDArray[np.float64]:
        sides = [[view for view in views if view in FUSED_LEVELS[side]] for side in ("right", "left")]
        if policy == "denser" and all(sides):
            right, left = (self.scores_of({view: features[view] for view in side}) for side in sides)
            return denser(right, left)
        return self.scores_of({view: features[view] for view in views})


def load_joint_model(file: Path, device: str = "auto", engine: str = "torch") -> JointModel:
    """Load a joint network's file as a model.

    Raises
    ------
    CheckpointError
        It is damaged.
    DeviceError
        The device is absent.
    OptionError
        The engine is unknown or not installed.
    """
    where = find_device(device)
    joint = load_joint(file)
    joint.network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoints = {projection: joint.alone(projection) for projection in PROJECTIONS}
    unfinished = PROJECTIONS if (file.parent / RESUME_FILE).exists() else ()
    model = JointModel(checkpoints, where, unfinished, engine, file.parent.parent, joint=joint)
    model.prepare()
    return model
