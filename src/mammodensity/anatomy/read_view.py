"""One image as read, and what is found in it: each thing once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TypeVar, cast

from mammodensity.anatomy.field import flip_flags
from mammodensity.anatomy.network_input import NetworkInput, PreprocessSpec, network_input
from mammodensity.anatomy.outline import Outline, Regions, find_outline
from mammodensity.anatomy.quality import quality_flags
from mammodensity.anatomy.tissue import TissueMap, find_tissue
from mammodensity.anatomy.wedge import view_flags
from mammodensity.errors import ImageError
from mammodensity.exam import Flag, Mammogram
from mammodensity.terms import Projection

Value = TypeVar("Value")


class ReadView:
    """One view of an exam as read: the value that scoring, explanation and pages pass on.

    Outline, tissue, network input and flags are found when they are first asked for, and kept. An image that is refused
    is refused again without a second look.

    Parameters
    ----------
    mammogram
        The image.
    projection
        The projection it is used as, whatever the mammogram says.
    """

    def __init__(self, mammogram: Mammogram, projection: Projection) -> None:
        self.mammogram = mammogram if mammogram.projection == projection else replace(mammogram, projection=projection)
        self.projection = projection
        self._kept: dict[Hashable, object] = {}

    @property
    def outline(self) -> Outline:
        """Breast and pectoral muscle on a reduced image.

        Raises
        ------
        ImageError
            No breast, no mammogram, upside down, or inverted.
        """
        return self._once("outline", lambda: find_outline(self.mammogram))

    @property
    def regions(self) -> Regions:
        """Breast and muscle at the size of the image; raises as `outline` does."""
        return self._once("regions", lambda: self.outline.regions(self.mammogram.pixels.shape))

    @property
    def tissue(self) -> TissueMap:
        """Dense tissue and percent density; raises as `outline` does, or where there is muscle only."""
        return self._once("tissue", lambda: find_tissue(self.mammogram, self.outline))

    def network_input(self, spec: PreprocessSpec) -> NetworkInput:
        """The input of a network with this spec; raises as `outline` does if the spec needs breast or muscle."""
        return self._once(
            spec, lambda: network_input(self.mammogram, spec, self.regions if spec.needs_regions else None)
        )

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Reasons to look twice at the image: bad quality, stored mirrored, perhaps another view.

        Raises
        ------
        ImageError
            It surely is another view than it is said to be.
        """
        return self._once("flags", self._find_flags)

    def _find_flags(self) -> tuple[Flag, ...]:
        flags = quality_flags(self.mammogram) + flip_flags(self.projection, self.mammogram)
        try:
            return flags + view_flags(self.projection, self.outline.wedge, self.outline.dome)
        except ImageError as error:
            if error.code == "contradictory-view":
                raise
            return flags  # a network that needs no outline can score it all the same

    def _once(self, name: Hashable, find: Callable[[], Value]) -> Value:
        if name not in self._kept:
            try:
                self._kept[name] = find()
            except ImageError as error:
                self._kept[name] = error
        kept = self._kept[name]
        if isinstance(kept, ImageError):
            raise kept
        return cast("Value", kept)
