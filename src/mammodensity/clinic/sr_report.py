"""The structured report of one exam: TID 1500 "Measurement Report", with the codes of breast density.

References
----------
DICOM PS3.16, TID 1500 and TID 1501; IHE Radiology Technical Framework Supplement "AI Results".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from mammodensity import __version__
from mammodensity.clinic import sr_codes as ours
from mammodensity.clinic.sources import MANUFACTURER, Revision, derived_uid
from mammodensity.errors import OptionError
from mammodensity.results.result import ExamResult, LevelResult
from mammodensity.terms import DENSITY, FUSED_LEVELS, RESEARCH_USE_ONLY, DensityCategory, Projection

ReportClass = Literal["comprehensive3d", "comprehensive", "enhanced"]
_CLASSES = {"comprehensive3d": Comprehensive3DSR, "comprehensive": ComprehensiveSR, "enhanced": EnhancedSR}


@dataclass(frozen=True)
class _Level:
    """One measurement group: the exam, a breast or a view."""

    name: str
    side: str
    """``R``, ``L``, or blank for both breasts."""
    views: tuple[Projection, ...]
    result: LevelResult | None


def structured_report(
    result: ExamResult,
    headers: Mapping[Projection, Dataset],
    revision: Revision,
    *,
    kind: ReportClass = "comprehensive3d",
    previous: Dataset | None = None,
) -> Dataset:
    """Make the structured report of an exam.

    Parameters
    ----------
    headers
        The header of each image of the exam; see `read_sources`.
    previous
        The report of an earlier revision, which this one takes the place of.

    Raises
    ------
    OptionError
        The model has other categories than A to D, for which there are no codes.
    """
    if any(level.category.scale != DENSITY for level in result.projections.values()):
        raise OptionError("reports have codes for the categories A to D only; name a model that gives these")
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(result)),
        procedure_reported=ours.PROCEDURE,
        imaging_measurements=[_group(level, result, headers, revision) for level in _levels(result)],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=list(headers.values()),
    )
    dataset: Dataset = _CLASSES[kind](
        evidence=list(headers.values()),
        content=report[0],
        **revision.attributes(f"report {kind}"),
        device_serial_number=_serial_number(result),
        series_description="Breast density report",
        is_complete=True,
        previous_versions=None if previous is None else [previous],
    )
    dataset.CodingSchemeIdentificationSequence = [ours.scheme_identification()]
    revision.stamp(dataset)
    return dataset


def algorithm_parameters(result: ExamResult) -> list[str]:
    """Facts about the making of the result, a text for each."""
    texts = [
        f"model: {result.provenance.get('model_name', 'unknown')}",
        f"views combined by: {result.fusion}",
        f"exam decided by: {result.policy}",
        f"scores: {result.calibration}",
    ]
    return [text[:1024] for text in texts]


def _levels(result: ExamResult) -> Iterator[_Level]:
    yield _Level("exam", "", FUSED_LEVELS["subject"], result.exam)
    for side, letter in (("right", "R"), ("left", "L")):
        yield _Level(f"{side} breast", letter, FUSED_LEVELS[side], result.breasts.get(side))
    for view, level in result.projections.items():
        yield _Level(view.value, view.laterality, (view,), level)


def _serial_number(result: ExamResult) -> str:
    """The beginning of the hashes of the model's files: another model is another device."""
    hashes = result.provenance.get("model", {})
    return derived_uid("model", *(f"{name} {hashes[name]}" for name in sorted(hashes))).removeprefix("2.25.")[:16]


def _observer(result: ExamResult) -> ObserverContext:
    serial = _serial_number(result)
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", __version__, serial),
            name="mammodensity",
            manufacturer_name=MANUFACTURER,
            model_name=f"mammodensity {__version__}",
            serial_number=serial,
        ),
    )


def _group(
    level: _Level, result: ExamResult, headers: Mapping[Projection, Dataset], revision: Revision
) -> MeasurementsAndQualitativeEvaluations:
    """The measurements of the exam, a breast or a view."""
    whole = level.name == "exam"
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derived_uid("finding", revision.key, level.name), identifier=f"Breast density, {level.name}"
        ),
        finding_type=ours.FINDING,
        algorithm_id=AlgorithmIdentification(
            name="mammodensity",
            version=__version__,
            parameters=algorithm_parameters(result),
            family=ours.ARTIFICIAL_INTELLIGENCE,
            manufacturer=MANUFACTURER,
        ),
        finding_sites=[FindingSite(ours.BREAST, laterality=ours.SIDES[level.side])],
        measurements=list(_measurements(level, result if whole else None)),
        qualitative_evaluations=list(_evaluations(level, result if whole else None)),
        source_images=[
            SourceImageForMeasurementGroup.from_source_image(headers[view]) for view in level.views if view in headers
        ],
    )
    for text in _comments(result) if whole else _view_comments(level, result):
        group[0].ContentSequence.append(
            TextContentItem(ours.COMMENT, text[:1024], relationship_type=RelationshipTypeValues.CONTAINS)
        )
    return group


def _measurements(level: _Level, whole: ExamResult | None) -> Iterator[Measurement]:
    if level.result is None:
        return
    if level.result.percent_density is not None:
        yield Measurement(ours.PERCENT_DENSITY, level.result.percent_density, ours.PERCENT)
    for category, score in level.result.scores.items():
        if isinstance(category, DensityCategory):
            name = ours.score_code(category, calibrated=level.result.calibrated)
            yield Measurement(name, score, ours.NO_UNITS)
    yield Measurement(ours.DENSE_PROBABILITY, level.result.dense_probability, ours.NO_UNITS)
    if whole and whole.prediction_set:
        yield Measurement(ours.COVERAGE, whole.prediction_set.coverage, ours.NO_UNITS)


def _evaluations(level: _Level, whole: ExamResult | None) -> Iterator[QualitativeEvaluation]:
    category: Any = whole.category if whole else level.result and level.result.category
    yield _evaluation(ours.COMPOSITION, ours.CATEGORY_CODES[category] if category else ours.INDETERMINATE)
    if whole and whole.exam and isinstance(whole.exam.category, DensityCategory):
        yield _evaluation(ours.MOST_LIKELY, ours.CATEGORY_CODES[whole.exam.category])
    if whole and whole.prediction_set:
        for member in whole.prediction_set.categories:
            yield _evaluation(ours.SET_MEMBER, ours.CATEGORY_CODES[member])


def _evaluation(name: Code, value: Code) -> QualitativeEvaluation:
    return QualitativeEvaluation(CodedConcept.from_code(name), CodedConcept.from_code(value))


def _comments(result: ExamResult) -> Sequence[str]:
    """Sentences about the exam: why it has no category, its flags, and what the result is for."""
    reasons = [f"No category: {flag.text} [{flag.code}]" for flag in result.abstained_for]
    flags = [f"Flag: {flag.text} [{flag.code}]" for flag in result.flags if flag not in result.abstained_for]
    return [*reasons, *flags, RESEARCH_USE_ONLY]


def _view_comments(level: _Level, result: ExamResult) -> Sequence[str]:
    """Reasons why views of a breast were refused, without file names, which may name a patient."""
    return [f"{view} was refused" for view in level.views if view in result.refused]
