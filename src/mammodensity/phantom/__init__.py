"""Synthetic breasts with known dense tissue."""
