"""The result of one exam as FHIR resources: a DiagnosticReport with an Observation for the exam and for each breast.

References
----------
HL7 FHIR R5, DiagnosticReport and Observation; LOINC 36626-0, the bilateral mammogram that is reported on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from mammodensity.clinic import sr_codes as ours
from mammodensity.clinic.sources import Revision
from mammodensity.results.result import ExamResult, LevelResult
from mammodensity.terms import RESEARCH_USE_ONLY, DensityCategory, Projection

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
    ours.SCHEME: f"urn:oid:{ours.SCHEME_UID}",
}


def diagnostic_report(result: ExamResult, headers: Mapping[Projection, Dataset], revision: Revision) -> dict[str, Any]:
    """Make a DiagnosticReport that contains its Observations, as JSON values.

    The status is preliminary: a radiologist has not confirmed it.
    """
    from fhir.resources.diagnosticreport import DiagnosticReport

    header = next(iter(headers.values()))
    subject = {"identifier": {"value": str(header.PatientID)}} if header.PatientID else None
    observations = list(_observations(result, subject))
    content: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{revision.uid('fhir')}"}],
        "status": "preliminary",
        "code": {"coding": [{"system": "http://loinc.org", "code": "36626-0"}]},
        "issued": revision.made.astimezone().isoformat(timespec="seconds"),
        "study": [
            {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{revision.study_uid}"}},
        ],
        "contained": observations,
        "result": [{"reference": f"#{observation['id']}"} for observation in observations],
        "conclusion": _conclusion(result),
    }
    if subject:
        content["subject"] = subject
    if result.category:
        content["conclusionCode"] = [_concept(ours.CATEGORY_CODES[DensityCategory(result.category)])]
    return _plain(DiagnosticReport.model_validate(content))


def _plain(resource: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(resource.model_dump_json())
    return plain


def _observations(result: ExamResult, subject: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    yield _observation("exam", "", result.exam, result.category, subject)
    for side, letter in (("right", "R"), ("left", "L")):
        level = result.breasts.get(side)
        if level:
            yield _observation(side, letter, level, level.category, subject)


def _observation(
    name: str, side: str, level: LevelResult | None, category: Any, subject: dict[str, Any] | None
) -> dict[str, Any]:
    value = ours.CATEGORY_CODES[DensityCategory(category)] if category else ours.INDETERMINATE
    content: dict[str, Any] = {
        "resourceType": "Observation",
        "id": name,
        "status": "preliminary",
        "code": _concept(ours.COMPOSITION),
        "bodySite": _concept(ours.BREAST) | {"text": f"{ours.SIDES[side].meaning} breast"},
        "valueCodeableConcept": _concept(value),
        "component": [],
    }
    if subject:
        content["subject"] = subject
    if level and level.percent_density is not None:
        content["component"].append(_quantity(ours.PERCENT_DENSITY, level.percent_density, ours.PERCENT))
    for letter, score in level.scores.items() if level else ():
        name_of_score = ours.score_code(DensityCategory(letter), calibrated=level.calibrated) if level else None
        if name_of_score:
            content["component"].append(_quantity(name_of_score, score, ours.NO_UNITS))
    if not content["component"]:
        del content["component"]
    return content


def _conclusion(result: ExamResult) -> str:
    if result.category:
        words = f"Breast density {result.category}: {result.category.description}."
    else:
        words = "Breast density indeterminate: " + "; ".join(flag.text for flag in result.abstained_for) + "."
    return f"{words} {RESEARCH_USE_ONLY}"


def _concept(code: Code) -> dict[str, Any]:
    return {"coding": [{"system": _SYSTEMS[code.scheme_designator], "code": code.value, "display": code.meaning}]}


def _quantity(name: Code, value: float, unit: Code) -> dict[str, Any]:
    quantity = {"value": round(value, 6), "unit": unit.meaning, "system": _SYSTEMS["UCUM"], "code": unit.value}
    return {"code": _concept(name), "valueQuantity": quantity}
