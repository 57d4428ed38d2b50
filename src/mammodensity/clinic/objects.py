"""Make the DICOM objects of exams: a structured report, a card that every viewer shows, and segmentations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from pydicom.dataset import Dataset

from mammodensity.clinic.fhir import diagnostic_report
from mammodensity.clinic.images import card_object, segmentation
from mammodensity.clinic.report import ReportClass, structured_report
from mammodensity.clinic.sources import Revision, read_sources, revision_of
from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.errors import ImageError
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.default import TissueModel
from mammodensity.models.trained import DensityModel
from mammodensity.outputs import safe_name, staged_folder, write_bytes
from mammodensity.pages.card import exam_card
from mammodensity.pages.exam import tissue_labels
from mammodensity.results.result import ExamResult
from mammodensity.terms import Projection
from mammodensity.workers import Progress
from mammodensity.workflows.predict import Predictor, find_data


@dataclass(frozen=True, eq=False)
class ExamObjects:
    """One exam's result, and the objects to send for it."""

    result: ExamResult
    revision: Revision
    files: Mapping[str, bytes]
    """Content by name: ``report.dcm``, ``card.dcm``, ``CC_R-segmentation.dcm``, ``report.json``."""


def exam_objects(
    predictor: Predictor,
    exam_id: str,
    records: Mapping[Projection, ImageRecord],
    *,
    sr: ReportClass = "comprehensive3d",
    seg: bool = False,
    fhir: bool = False,
    number: int = 1,
    previous: Dataset | None = None,
    made: datetime | None = None,
) -> ExamObjects:
    """Read one exam and make its objects.

    Parameters
    ----------
    records
        Its DICOM images.
    sr
        The class of the report: some receivers do not take Comprehensive 3D SR.
    seg
        Also make a segmentation of each view that has tissue.
    fhir
        Also make a FHIR DiagnosticReport.
    number, previous
        Which revision of the study's result this is, and the report that it takes the place of.
    made
        When; None for now.

    Raises
    ------
    DicomError
        An image is no DICOM file, or they are of several patients.
    OptionError
        The model has other categories than A to D.
    """
    headers = read_sources(records)
    made = made or datetime.now()
    revision = revision_of(records, headers, predictor.provenance, predictor.how, number=number, made=made)
    scored = predictor.score(exam_id, records)
    result = predictor.result(scored.scores)
    maps = explain_exam(cast("DensityModel | TissueModel", predictor.model), scored, result=result)
    files = {
        "report.dcm": _encoded(structured_report(result, headers, revision, kind=sr, previous=previous)),
        "card.dcm": _encoded(card_object(exam_card(result, maps), next(iter(headers.values())), revision)),
    }
    for view, evidence in maps.maps.items() if seg else ():
        labels = tissue_labels(evidence)
        if labels is not None and labels.any():
            files[f"{view}-segmentation.dcm"] = _encoded(segmentation(labels, headers[view], view.value, revision))
    if fhir:
        files["report.json"] = json.dumps(diagnostic_report(result, headers, revision), indent=2).encode()
    return ExamObjects(result, revision, files)


def dicom_objects(
    data: Path | str | Sequence[Path | str] | DataSet,
    *,
    model: DensityModel | TissueModel | Path | str | None = None,
    output: Path | str | None = None,
    sr: ReportClass = "comprehensive3d",
    seg: bool = False,
    fhir: bool = False,
    allow_missing: bool = False,
    synthetic: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[ExamObjects]:
    """Read exams from DICOM files and make the objects that a PACS stores with them.

    Parameters
    ----------
    data
        DICOM files or folders of them.
    model
        None for the default model; else a model folder or a loaded model. A folder's calibration is used.
    output
        A folder to write to, as ``<exam>-report.dcm``, ``<exam>-card.dcm`` and so on; all files appear together.
    sr, seg, fhir
        As of `exam_objects`.
    allow_missing
        Give exams with missing views a result from those present; without it their report says "Indeterminate".
    progress
        Called with how many exams are done, and how many there are.

    Raises
    ------
    DicomError, LayoutError
        The images are no DICOM files, or none is accepted.
    OptionError
        The model has other categories than A to D.
    OutputError
        The folder cannot be written; nothing is.
    """
    exams = find_data(data, synthetic=synthetic)
    predictor = Predictor(model, allow_missing=allow_missing, device=device)
    made = list(_made(predictor, exams, progress, sr=sr, seg=seg, fhir=fhir))
    if not any(objects.result.projections for objects in made):
        raise ImageError(next(text for objects in made for text in objects.result.refused.values()))
    if output is not None:
        with staged_folder(Path(output)) as staging:
            for objects in made:
                for name, content in objects.files.items():
                    write_bytes(staging / f"{safe_name(objects.result.exam_id)}-{name}", content)
    return made


def _made(predictor: Predictor, exams: DataSet, progress: Progress | None, **kinds: Any) -> Iterator[ExamObjects]:
    records = exams.exams()
    for count, (exam_id, images) in enumerate(records.items(), start=1):
        yield exam_objects(predictor, exam_id, images, **kinds)
        if progress:
            progress(count, len(records))


def _encoded(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
