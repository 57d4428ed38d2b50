"""Structured log lines of the node: JSON on standard error, without patient data."""

from __future__ import annotations

import json
import sys
from datetime import datetime


def log(event: str, **facts: object) -> None:
    """Write one line: time, event, and facts that are not None."""
    line = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "event": event}
    line |= {name: str(value) for name, value in facts.items() if value is not None}
    print(json.dumps(line), file=sys.stderr, flush=True)
