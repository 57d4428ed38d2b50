"""The four statements on breast density that United States law asks a mammography report to hold."""

from __future__ import annotations

from mammodensity.terms import DensityCategory

NOTIFICATION: dict[DensityCategory, str] = {
    DensityCategory.A: "The breasts are almost entirely fatty.",
    DensityCategory.B: "There are scattered areas of fibroglandular density.",
    DensityCategory.C: "The breasts are heterogeneously dense, which may obscure small masses.",
    DensityCategory.D: "The breasts are extremely dense, which lowers the sensitivity of mammography.",
}
"""21 CFR 900.12(c)(1)(vi), in force since 10 September 2024. It is the interpreting physician who states them."""
