"""The templates of pages and of the model card, filled with values."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from mammodensity.pages.pictures import FILL_COLOUR, FILL_OPACITY, LINE_COLOURS
from mammodensity.pages.wording import counted, listed, number, percent
from mammodensity.terms import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template of this folder, an HTML page or Markdown.

    Exam names and file names come from users' folders: in HTML everything is escaped unless the template says
    otherwise. In Markdown they stand between backticks.
    """
    return _environment().get_template(template).render(values) + "\n"


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Fill the template of a page with its script, style and content security policy.

    The policy allows the page's own script by its hash, and nothing from outside.
    """
    script = render("viewer.js.jinja", {}).strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    shared = {
        "script": script,
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "research_use_only": RESEARCH_USE_ONLY,
        "fill": {"colour": "rgb({}, {}, {})".format(*FILL_COLOUR), "opacity": FILL_OPACITY},
        "line_colours": LINE_COLOURS,
    }
    return render(template, shared | dict(values))


def with_code(text: str) -> Markup:
    """Text for a page; commands between backticks, options like ``--json`` and pages of the documentation as code.

    >>> str(with_code("`mammodensity check` & --json"))
    '<code>mammodensity check</code> &amp; <code>--json</code>'
    """
    return Markup(
        re.sub(r"`([^`]+)`|(?<![\w-])(--[a-z-]+)|(docs/[\w-]+\.md)", r"<code>\1\2\3</code>", str(escape(text)))
    )


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
