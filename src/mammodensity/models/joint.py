"""The joint network: one network for all four projections of an exam, trained end to end; any view may be absent.

A branch, the INFN reference network without its head, turns each view into a vector of features. A fusion turns the
features of all views into a category:

=========  ========================================================================================================
mean       a head for each view; the mean of their scores, as the INFN reference averages after training
concat     one linear head on the features of all four views (zeros for absent ones) and on which views are present
attention  one linear head on a weighted mean of the features; a learned query sets the weights
=========  ========================================================================================================

References
----------
Attention pooling with a learned query: Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn

from mammodensity.models.network import NetworkSpec, ResidualNetwork, linear_head
from mammodensity.settings import settings
from mammodensity.terms import CATEGORIES, PROJECTIONS

JointFusion = Literal["mean", "concat", "attention"]
Branches = Literal["separate", "shared"]
"""``separate``: one branch for each projection; ``shared``: one for CC and one for MLO, with right breasts mirrored.
Four views never share one branch, because CC and MLO differ in shape and muscle, left and right only by mirroring."""
_VIEWS = len(PROJECTIONS)
_LEAST_SCORE = 1e-12  # keeps the logarithm of a mean of scores finite


@settings
class JointSpec:
    """Shape of the joint network."""

    network: NetworkSpec = field(default_factory=NetworkSpec)
    """Shape of each branch."""
    fusion: JointFusion = "mean"
    branches: Branches = "separate"

    @property
    def channels(self) -> int:
        """Input channels of each branch."""
        return self.network.channels

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The views of each branch, as positions in ``PROJECTIONS``."""
        if self.branches == "separate":
            return tuple((view,) for view in range(_VIEWS))
        positions = [projection.view_position for projection in PROJECTIONS]
        return tuple(tuple(v for v in range(_VIEWS) if positions[v] == name) for name in dict.fromkeys(positions))

    @property
    def mirrored(self) -> tuple[bool, ...]:
        """Mask (V,) of the views mirrored for their branch: right ones, if the branch also takes left ones."""
        return tuple(self.branches == "shared" and projection.laterality == "R" for projection in PROJECTIONS)


class JointNetwork(nn.Module):
    """A network from the four views of exams to four density logits; the scores are their softmax.

    With the fusion ``mean`` the logits are logarithms of scores, whose softmax are the scores again.
    """

    def __init__(self, spec: JointSpec) -> None:
        super().__init__()
        self.spec = spec
        self.branches = nn.ModuleList(_branch(spec.network) for _ in spec.groups)
        features = spec.network.outputs[-1]
        if spec.fusion == "mean":
            self.fusion: nn.Module = MeanFusion(features, spec.groups)
        else:
            self.fusion = ConcatFusion(features) if spec.fusion == "concat" else AttentionFusion(features)

    def forward(self, views: Tensor, present: Tensor | None = None) -> Tensor:
        """Views (B, V, C, H, W) and the views present (B, V) bool, at least one an exam, to logits (B, K).

        Absent views are ignored, in batch statistics too. None means that all are present.
        """
        if present is None:
            present = views.new_ones(views.shape[:2], dtype=torch.bool)
        parts = [(cells, self.run_branch(branch, images)) for branch, cells, images in self.inputs(views, present)]
        return self.fuse(gathered(parts, len(views)), present)

    def inputs(
        self, views: Tensor, present: Tensor, branches: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Split views (B, V, C, H, W) into (branch, cells (n, 2) of exam and view, images (n, C, H, W)).

        A branch without a view present is left out, unless ``branches`` names it.
        """
        for branch in self.branches_of(present) if branches is None else branches:
            group = self.spec.groups[branch]
            cells = [(exam, view) for view in group for exam in present[:, view].nonzero()[:, 0].tolist()]
            images = [self.oriented(views[exam, view], view) for exam, view in cells]
            stacked = torch.stack(images) if images else views[:0].flatten(0, 1)
            where = torch.tensor(cells, dtype=torch.int64).view(-1, 2)
            yield branch, where, stacked.contiguous(memory_format=torch.channels_last)

    def branches_of(self, present: Tensor) -> list[int]:
        """The branches that have a view present (B, V)."""
        return [branch for branch, group in enumerate(self.spec.groups) if present[:, list(group)].any()]

    def oriented(self, images: Tensor, view: int) -> Tensor:
        """Images (..., H, W) of a view as its branch sees them."""
        return images.flip(-1) if self.spec.mirrored[view] else images

    def run_branch(self, branch: int, images: Tensor) -> Tensor:
        """Images (n, C, H, W) to features (n, F) float32."""
        return self.branches[branch](images).float()

    def branch_of(self, view: int) -> ResidualNetwork:
        """The branch that takes a view."""
        branch = self.branches[next(place for place, group in enumerate(self.spec.groups) if view in group)]
        assert isinstance(branch, ResidualNetwork)
        return branch

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        """Features (B, V, F) and the views present (B, V) to logits (B, K), in float32 also within autocast."""
        with torch.autocast(features.device.type, enabled=False):
            return self.fusion(features.float(), present)


def gathered(parts: list[tuple[Tensor, Tensor]], exams: int) -> Tensor:
    """Features (N, V, F) of all exams from parts: cells (n, 2) of exam and view with their features (n, F)."""
    features = torch.cat([part for _, part in parts])
    cells = torch.cat([cells for cells, _ in parts]).to(features.device)
    whole = features.new_zeros(exams, _VIEWS, features.shape[1])
    return whole.index_put((cells[:, 0], cells[:, 1]), features)


def _branch(spec: NetworkSpec) -> ResidualNetwork:
    branch = ResidualNetwork(spec)
    branch.head = nn.Identity()  # heads belong to the fusion
    return branch


class MeanFusion(nn.Module):
    """A head for each group of views; the mean of the scores of the views present."""

    def __init__(self, features: int, groups: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(linear_head(features) for _ in groups)
        self.groups = groups

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Features (B, V, F) and the views present (B, V) to logarithms of scores (B, K)."""
        logits = features.new_zeros(*features.shape[:2], len(CATEGORIES))
        for head, views in zip(self.heads, self.groups, strict=True):
            logits[:, list(views)] = head(features[:, list(views)])
        weights = present / present.sum(dim=1, keepdim=True)
        scores = (logits.softmax(dim=2) * weights[..., None]).sum(dim=1)
        return scores.clamp_min(_LEAST_SCORE).log()


class ConcatFusion(nn.Module):
    """One linear head on the features of all views (zeros for absent ones) and on which views are present."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.head = linear_head(_VIEWS * (features + 1))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Features (B, V, F) and the views present (B, V) to logits (B, K)."""
        filled = torch.where(present[..., None], features, 0)
        return self.head(torch.cat([filled.flatten(1), present.to(filled.dtype)], dim=1))  # (B, V * F + V)


class AttentionFusion(nn.Module):
    """One linear head on the mean of the views' features, weighted by their similarity to a learned query."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.norm.bias.requires_grad_(False)  # the same for all views, so that weights do not depend on it
        self.place = nn.Parameter(torch.zeros(_VIEWS, features))
        """Added to the features of each projection before they are compared with the query."""
        self.query = nn.Parameter(torch.zeros(features))
        self.head = linear_head(features)
        nn.init.normal_(self.query, std=features**-0.5)

    def weights(self, features: Tensor, present: Tensor) -> Tensor:
        """Weights (B, V) of the views: sum 1, absent ones 0."""
        similarity = (self.norm(features) + self.place) @ self.query
        return similarity.masked_fill(~present, float("-inf")).softmax(dim=1)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Features (B, V, F) and the views present (B, V) to logits (B, K)."""
        weights = self.weights(features, present)
        return self.head((weights[..., None] * features).sum(dim=1))


class ViewBranch(nn.Module):
    """The branch of one view: images (B, C, H, W), not mirrored yet, to features (B, F) float32."""

    def __init__(self, network: JointNetwork, view: int) -> None:
        super().__init__()
        self.spec = network.spec.network
        self.branch = network.branch_of(view)
        self.mirrors = network.spec.mirrored[view]
        """The branch sees the image mirrored, so its features are mirrored too."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, F)."""
        return self.branch(images.flip(-1) if self.mirrors else images).float()


class WholeExam(nn.Module):
    """The joint network with the same steps whichever views are present, as files for other programs need it."""

    def __init__(self, network: JointNetwork) -> None:
        super().__init__()
        self.spec = network.spec.network
        self.views = nn.ModuleList(ViewBranch(network, view) for view in range(_VIEWS))
        self.fusion = network.fusion

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Views (B, V, C, H, W), anything finite where absent, and the views present (B, V) bool to logits (B, K)."""
        features = torch.stack([branch(images[:, view]) for view, branch in enumerate(self.views)], dim=1)
        return self.fusion(features, present)


class ExamView(ViewBranch):
    """The joint network as a function of one view, with the other views fixed: (B, C, H, W) to logits (B, K).

    Parameters
    ----------
    others
        (V, F) features of the exam's views; those of this view are ignored. By default the view is alone.
    present
        (V,) bool: the views present, this one included.
    """

    def __init__(
        self, network: JointNetwork, view: int, others: Tensor | None = None, present: Tensor | None = None
    ) -> None:
        super().__init__(network, view)
        self.fusion, self.view = network.fusion, view
        # Plain attributes, not buffers: they are no weights, which a check of maps may randomise.
        self._others = others if others is not None else torch.zeros(_VIEWS, self.spec.outputs[-1])
        self._present = present if present is not None else torch.arange(_VIEWS) == view

    @property
    def last_block(self) -> nn.Module:
        """The last residual block of the branch; Grad-CAM weights its output."""
        return self.branch.last_block

    def get_submodule(self, target: str) -> nn.Module:
        """A layer of the branch, by its name in a network of one projection."""
        return self.branch.get_submodule(target)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, K) of the exam."""
        features = super().forward(images)
        with torch.autocast(images.device.type, enabled=False):
            whole = self._others.to(features.device).repeat(len(images), 1, 1)  # (B, V, F)
            whole[:, self.view] = features
            present = self._present.to(features.device).repeat(len(images), 1)
            return self.fusion(whole, present)
