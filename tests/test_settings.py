"""Settings that pydantic checks."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace
from typing import Annotated, Literal

import pytest

from mammodensity.errors import OptionError
from mammodensity.settings import Field, settings


@settings
class Example:
    rows: Annotated[int, Field(ge=16, le=8192)] = 64
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    crop: Literal["none", "breast"] = "none"

    def __post_init__(self) -> None:
        if self.rows == 17:
            raise OptionError("17 rows make no image")


def test_settings_are_frozen_dataclasses():
    assert asdict(replace(Example(), rows=32)) == {"rows": 32, "share": 0.5, "crop": "none"}
    assert Example(share=1).share == 1
    with pytest.raises(OptionError, match="rows must be a valid integer"):
        Example("64")
    with pytest.raises(FrozenInstanceError):
        Example().rows = 3


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rows": 3}, "rows must be greater than or equal to 16. Got 3 instead."),
        ({"rows": "64"}, "rows must be a valid integer. Got '64' instead."),
        ({"rows": True}, "rows must be a valid integer. Got True instead."),
        ({"share": float("nan")}, "share must be"),
        ({"crop": "all"}, "crop must be one of none, breast. Got 'all' instead."),
        ({"colour": 1}, "there is no setting colour"),
        ({"rows": 17}, "17 rows make no image"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(values, text):
    with pytest.raises(OptionError) as told:
        Example(**values)
    assert str(told.value).startswith(text)
    with pytest.raises(OptionError):
        replace(Example(), **values) if "colour" not in values else Example(**values)
