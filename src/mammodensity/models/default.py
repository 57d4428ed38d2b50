"""The default model: percent density of each view by the tissue networks, and categories from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammodensity.anatomy.density import DEFAULT_MAP, CategoryMap
from mammodensity.anatomy.read_view import ReadView
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.inputs import read_json
from mammodensity.models.scoring import Model, ViewScores
from mammodensity.outputs import write_json
from mammodensity.terms import PROJECTIONS, RESEARCH_USE_ONLY, Projection

MAP_FILE = "category_map.json"


@dataclass(frozen=True, eq=False)
class TissueModel(Model):
    """The tissue networks that come with the package, with the default category map or a site's own."""

    category_map: CategoryMap = DEFAULT_MAP

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The projections it can read: all."""
        return PROJECTIONS

    @property
    def warnings(self) -> list[str]:
        """Facts that a user of its scores must know, a line each."""
        warnings = ["the default model learned from synthetic breasts; docs/default-model.md says how far to trust it"]
        if self.category_map == DEFAULT_MAP:
            warnings.append(
                "categories follow published percent densities; `mammodensity calibrate` fits them to a site"
            )
        return warnings

    def score_view(self, view: ReadView) -> ViewScores:
        """Score one view by its percent density.

        Raises
        ------
        ImageError
            The image is refused: no breast in it, inverted, or unlike a mammogram.
        """
        tissue = view.tissue
        return ViewScores(self.category_map.scores(tissue.percent_density), tissue.percent_density, tissue.doubts)


def write_category_map(folder: Path, category_map: CategoryMap, facts: Mapping[str, Any]) -> Path:
    """Write a model folder that holds nothing but a category map for the default tissue networks.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    path = folder / MAP_FILE
    write_json(path, {"note": RESEARCH_USE_ONLY, **asdict(category_map), **facts})
    return path


def read_category_map(folder: Path) -> CategoryMap:
    """Read the category map of a model folder.

    Raises
    ------
    CheckpointError
        It is damaged.
    """
    path = folder / MAP_FILE
    try:
        values = read_json(path)
        return CategoryMap(values["cuts"], values["slope"], values["source"])
    except (OSError, ValueError, KeyError, TypeError, OptionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; calibrate again") from error
