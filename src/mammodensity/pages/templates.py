"""The templates of pages and of the model card, filled with values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from mammodensity.pages.wording import counted, listed, number, percent

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template of this folder, an HTML page or Markdown.

    Exam names and file names come from users' folders: in HTML everything is escaped unless the template says
    otherwise. In Markdown they stand between backticks.
    """
    return _environment().get_template(template).render(values) + "\n"


def template_text(name: str) -> str:
    """The text of a file of this folder that holds nothing to fill in."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def with_code(text: str) -> Markup:
    """Text for a page, with what stands between backticks and options like ``--json`` as code.

    >>> str(with_code("`mammodensity check` & --json"))
    '<code>mammodensity check</code> &amp; <code>--json</code>'
    """
    return Markup(re.sub(r"`([^`]+)`|(?<![\w-])(--[a-z-]+)", r"<code>\1\2</code>", str(escape(text))))


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mammodensity", "pages"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "listed": listed, "with_code": with_code}
    environment.globals |= {"counted": counted, "percent": percent}
    return environment
