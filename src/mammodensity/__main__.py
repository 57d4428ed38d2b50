"""``python -m mammodensity`` is the command ``mammodensity``."""

from mammodensity.cli import main

main()
