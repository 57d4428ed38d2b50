"""Synthetic breasts with known dense tissue: see ``docs/phantoms.md``."""

from __future__ import annotations

from mammodensity.phantom.anatomy import CATEGORY_FRACTION
from mammodensity.phantom.dataset import write_phantoms
from mammodensity.phantom.exam import PhantomExam, PhantomSpec, PhantomView, make_exam

__all__ = ["CATEGORY_FRACTION", "PhantomExam", "PhantomSpec", "PhantomView", "make_exam", "write_phantoms"]
