"""The published JSON schema of `ExamResult`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def result_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a list of results as ``predict --json`` writes it."""
    schema: dict[str, Any] = json.loads(files(__package__).joinpath("exam_result.schema.json").read_text("utf-8"))
    return schema
