"""The command ``mammodensity``, also as ``python -m mammodensity``."""

from __future__ import annotations

import sys

from mammodensity.errors import INTERRUPTED, shortage
from mammodensity.stopping import ignore_signals, stop_on_signals


def main() -> None:
    """Run a command; what ends it while its modules are still loading is told in one line, too."""
    try:
        stop_on_signals()
        from mammodensity.commands.command_line import main as run
    except KeyboardInterrupt:
        ignore_signals()
        print("mammodensity: interrupted; nothing was begun", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        reason = shortage(error)
        if reason is None:
            raise
        print(f"mammodensity: {reason}", file=sys.stderr)
        sys.exit(1)
    try:
        run()
    finally:
        ignore_signals()


if __name__ == "__main__":
    main()
