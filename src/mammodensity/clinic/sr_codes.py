"""Codes of the objects that are sent to a PACS: of SNOMED CT, DICOM and UCUM, and a few of our own."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from mammodensity.terms import DensityCategory

SCHEME = "99MAMMODENSITY"
"""Coding scheme designator of our own codes; private ones begin with 99."""
SCHEME_UID = "2.25.184461749993709863444379127599073145553"

FINDING = Code("129793001", "SCT", "Mammography breast density")
COMPOSITION = Code("129715009", "SCT", "Breast composition")
CATEGORY_CODES = {
    DensityCategory.A: Code("129716005", "SCT", "Almost entirely fat"),
    DensityCategory.B: Code("129717001", "SCT", "Scattered fibroglandular densities"),
    DensityCategory.C: Code("129718006", "SCT", "Heterogeneously dense"),
    DensityCategory.D: Code("129719003", "SCT", "Extremely dense"),
}
INDETERMINATE = Code("82334004", "SCT", "Indeterminate")
PERCENT_DENSITY = Code("111046", "DCM", "Percent Fibroglandular Tissue")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")
COMMENT = Code("121106", "DCM", "Comment")
BREAST = Code("76752008", "SCT", "Breast")
SIDES = {
    "R": Code("24028007", "SCT", "Right"),
    "L": Code("7771000", "SCT", "Left"),
    "": Code("51440002", "SCT", "Bilateral"),
}
PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
"""The procedure reported: TID 1500 takes it from CID 100, which screening mammography is not in."""
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
TISSUE_CATEGORY = Code("85756007", "SCT", "Tissue")
SEGMENT_TYPES = {
    "dense": Code("1342375003", "SCT", "Breast fibroglandular tissue"),
    "fat": Code("89749009", "SCT", "Fatty tissue of breast"),
    "muscle": Code("60005003", "SCT", "Pectoralis major muscle"),
}

MOST_LIKELY = Code("most-likely", SCHEME, "Category with the highest score")
SET_MEMBER = Code("set-member", SCHEME, "Category in the prediction set")
COVERAGE = Code("coverage", SCHEME, "Coverage of the prediction set")
DENSE_PROBABILITY = Code("dense", SCHEME, "Sum of the scores of C and D")


def score_code(category: DensityCategory, *, calibrated: bool) -> Code:
    """The name of a score: calibrated and raw scores have different codes, so that nobody takes one for the other."""
    if calibrated:
        return Code(f"probability-{category}", SCHEME, f"Calibrated probability of category {category}")
    return Code(f"raw-{category}", SCHEME, f"Raw score of category {category}")


def scheme_identification() -> Dataset:
    """An item of the Coding Scheme Identification Sequence (0008,0110) that declares our own codes."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeUID = SCHEME_UID
    item.CodingSchemeName = "Codes of mammodensity"
    item.CodingSchemeResponsibleOrganization = "mammodensity"
    return item
