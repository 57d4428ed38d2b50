"""Make the DICOM objects of exams: a structured report, a card that every viewer shows, and segmentations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import cast

from pydicom import dcmread
from pydicom.dataset import Dataset

from mammodensity.clinic.fhir import diagnostic_report
from mammodensity.clinic.picture_objects import card_object, segmentation
from mammodensity.clinic.sources import MadeObject, Revision, read_sources, revision_of
from mammodensity.clinic.sr_report import ReportClass, structured_report
from mammodensity.data.dataset import DataSet, ImageRecord
from mammodensity.errors import ImageError
from mammodensity.explanation.maps import explain_exam
from mammodensity.models.default import TissueModel
from mammodensity.models.trained import DensityModel
from mammodensity.outputs import safe_name, staged_folder, write_bytes
from mammodensity.pages.card import exam_card
from mammodensity.pages.exam_page import tissue_labels
from mammodensity.results.result import ExamResult
from mammodensity.terms import Projection
from mammodensity.workers import Progress
from mammodensity.workflows.predict import Predictor, find_data


@dataclass(frozen=True, eq=False)
class ExamObjects:
    """One exam's result, and the objects to send for it."""

    result: ExamResult
    revision: Revision
    objects: tuple[MadeObject, ...]


def exam_objects(
    predictor: Predictor,
    exam_id: str,
    records: Mapping[Projection, ImageRecord],
    headers: Mapping[Projection, Dataset],
    revision: Revision,
    *,
    sr: Sequence[ReportClass] = ("comprehensive3d",),
    seg: bool = False,
    fhir: bool = False,
    previous: Mapping[str, bytes] | None = None,
) -> ExamObjects:
    """Read one exam and make its objects.

    Parameters
    ----------
    records, headers
        Its DICOM images, and the header of each: see `read_sources`.
    revision
        See `revision_of`.
    sr
        The classes of the report: some receivers do not take Comprehensive 3D SR.
    seg
        Also make a segmentation of each view that has tissue.
    fhir
        Also make a FHIR DiagnosticReport.
    previous
        The objects of the revision that this one takes the place of, by kind.

    Raises
    ------
    OptionError
        The model has other categories than A to D.
    """
    scored = predictor.score(exam_id, records)
    result = predictor.result(scored.scores)
    maps = explain_exam(cast("DensityModel | TissueModel", predictor.model), scored, result=result)
    made = []
    for kind in sr:
        earlier = (previous or {}).get(f"report {kind}")
        report = structured_report(
            result, headers, revision, kind=kind, previous=dcmread(BytesIO(earlier)) if earlier else None
        )
        made.append(_made(f"report {kind}", report))
    made.append(_made("card", card_object(exam_card(result, maps), next(iter(headers.values())), revision)))
    for view, evidence in maps.maps.items() if seg else ():
        labels = tissue_labels(evidence)
        if labels is not None and labels.any():
            made.append(_made(f"segmentation {view}", segmentation(labels, headers[view], view.value, revision)))
    if fhir:
        text = json.dumps(diagnostic_report(result, headers, revision), indent=2)
        made.append(MadeObject("fhir", "", text.encode()))
    return ExamObjects(result, revision, tuple(made))


def _made(kind: str, dataset: Dataset) -> MadeObject:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return MadeObject(kind, str(dataset.SOPInstanceUID), stream.getvalue())


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
        The class of the report; also make segmentations; also make FHIR.
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
    made, by_exam = [], exams.exams()
    for count, (exam_id, records) in enumerate(by_exam.items(), start=1):
        headers = read_sources(records)
        revision = revision_of(records, headers, predictor.provenance, predictor.how, made=datetime.now())
        made.append(exam_objects(predictor, exam_id, records, headers, revision, sr=(sr,), seg=seg, fhir=fhir))
        if progress:
            progress(count, len(by_exam))
    if not any(exam.result.projections for exam in made):
        raise ImageError(next(text for exam in made for text in exam.result.refused.values()))
    if output is not None:
        with staged_folder(Path(output)) as staging:
            for exam in made:
                for file in exam.objects:
                    name = file.file_name.replace(f"report-{sr}", "report")
                    write_bytes(staging / f"{safe_name(exam.result.exam_id)}-{name}", file.content)
    return made
