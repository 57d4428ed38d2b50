"""Dense tissue in a mammogram, percent density, and categories from it: see ``docs/default-model.md``."""

from __future__ import annotations

from mammodensity.tissue.categories import DEFAULT_MAP, LEAST_EXAMS, CategoryMap, fit_category_map
from mammodensity.tissue.maps import TissueMap, find_tissue

__all__ = ["DEFAULT_MAP", "LEAST_EXAMS", "CategoryMap", "TissueMap", "find_tissue", "fit_category_map"]
