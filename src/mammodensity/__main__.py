"""The command ``mammodensity``, also as ``python -m mammodensity``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command; Ctrl-C while its modules are still loading ends it in one line, too."""
    try:
        from mammodensity.commands.app import main as run
    except KeyboardInterrupt:
        print("mammodensity: interrupted; nothing was begun", file=sys.stderr)
        sys.exit(130)  # as cli.py and shells say it
    run()


if __name__ == "__main__":
    main()
