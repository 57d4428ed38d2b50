"""The specification of preprocessing, stored with every network."""

from __future__ import annotations

from dataclasses import dataclass

from mammodensity.errors import OptionError

_CHOICES = {
    "interpolation": ("area", "nearest"),
    "aspect": ("squash", "pad"),
    "intensity": ("full-scale", "image-range"),
    "centring": ("mean", "standardise", "none"),
    "crop": ("none", "breast"),
    "pectoral": ("leave", "fill", "mask"),
    "background": ("leave", "mask"),
    "depth": ("full", "8-bit"),
}


@dataclass(frozen=True)
class PreprocessSpec:
    """How pixels become network input; stored with every network. ``ORIGIN_PREPROCESS`` is the origin's choice."""

    rows: int = 650
    """Height of the result in pixels."""
    columns: int = 650
    """Width of the result in pixels."""
    interpolation: str = "area"
    """``"area"`` averages what falls into a pixel; ``"nearest"`` picks one, as the origin does."""
    aspect: str = "squash"
    """``"squash"`` stretches to the size, as the origin does; ``"pad"`` keeps the aspect and adds black."""
    intensity: str = "full-scale"
    """``"full-scale"`` divides by the largest value the pixel type holds; ``"image-range"`` maps the image's own
    smallest and largest value to 0 and 1."""
    centring: str = "mean"
    """``"mean"`` subtracts the image's own mean, as the origin does; ``"standardise"`` also divides by its standard
    deviation; ``"none"`` leaves the values."""
    crop: str = "none"
    """``"none"``, or ``"breast"``: the bounding box of the breast, as in the origin's exports."""
    pectoral: str = "leave"
    """The pectoral muscle in MLO: ``"leave"`` it, ``"fill"`` it with the median grey of the breast, as in the origin's
    exports, or ``"mask"`` it with black."""
    background: str = "leave"
    """``"leave"``, or ``"mask"``: black outside the breast, markers and labels included."""
    depth: str = "full"
    """``"full"``, or ``"8-bit"``: grey values rounded to 256 levels, as in the origin's exports."""

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if type(getattr(self, name)) is not int:
                raise OptionError(f"{name} must be a whole number. Got {getattr(self, name)!r} instead.")
        if not 16 <= self.rows <= 8192 or not 16 <= self.columns <= 8192:
            raise OptionError(f"image size must be 16 to 8192 pixels a side. Got {self.rows} x {self.columns} instead.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"{name} must be one of {', '.join(choices)}. Got {getattr(self, name)!r} instead.")

    @property
    def needs_regions(self) -> bool:
        """Whether breast and muscle must be found first."""
        return (self.crop, self.pectoral, self.background) != ("none", "leave", "leave")


ORIGIN_PREPROCESS = PreprocessSpec(interpolation="nearest")
"""What the origin's network does with the origin's exports, which are cropped and filled already."""

RAW_PREPROCESS = PreprocessSpec(interpolation="nearest", crop="breast", pectoral="fill", depth="8-bit")
"""The same from mammograms as they come from a detector or an archive: cropped and filled as the origin did."""
