"""Settings: frozen dataclasses that pydantic checks, so that a wrong value is told in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from mammodensity.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Field", "settings"]

Settings = TypeVar("Settings")


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[Settings]) -> type[Settings]:
    """Make a frozen dataclass whose fields are checked by their annotations, without converting them.

    Ranges are ``Annotated[int, Field(ge=1, le=4)]``, choices are ``Literal["a", "b"]``. Rules that concern several
    fields stand in ``__post_init__``, which raises ``OptionError``.

    Raises
    ------
    OptionError
        When an object is made with a value that its annotation does not allow: which, what is expected, what was given.
    """
    made: type[Any] = dataclass(
        cls, frozen=True, config=ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
    )
    check = made.__init__

    def __init__(self: Any, *arguments: Any, **values: Any) -> None:  # noqa: N807
        try:
            named = dict(zip(made.__dataclass_fields__, arguments, strict=False))  # so that messages have names
            check(self, *arguments[len(made.__dataclass_fields__) :], **named, **values)
        except ValidationError as error:
            raise OptionError(_in_words(error.errors(include_url=False)[0])) from None

    made.__init__ = __init__
    return made


_EXPECTED = {
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text of {min_length} or more characters",
    "string_too_long": "text of {max_length} or fewer characters",
}
"""In words, by the type of a mistake, where pydantic's own do not follow "must be"."""


def _in_words(mistake: Mapping[str, Any]) -> str:
    """One line about the first mistake that pydantic found."""
    name = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] in ("missing", "missing_argument"):
        return f"{name} is needed"
    if mistake["type"] == "unexpected_keyword_argument":
        return f"there is no setting {name}"
    if mistake["type"] == "literal_error":
        expected = "one of " + mistake["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
    elif mistake["type"] in _EXPECTED:
        expected = _EXPECTED[mistake["type"]].format(**mistake.get("ctx", {}))
    else:
        expected = mistake["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name} must be {expected}. Got {mistake['input']!r} instead."
