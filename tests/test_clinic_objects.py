"""Objects for a PACS: what they say is what the result says, and validators of others find no error in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="the extra clinic is not installed")
pytest.importorskip("fhir.resources", reason="the extra clinic is not installed")

from highdicom.sr import srread
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_samples import mammogram, phantom, save, save_exam
from mammodensity import dicom_objects
from mammodensity.clinic import sr_codes as ours
from mammodensity.clinic.fhir import diagnostic_report
from mammodensity.clinic.sources import Revision, derived_uid, read_sources
from mammodensity.clinic.sr_report import structured_report
from mammodensity.data.find import find_images
from mammodensity.errors import DicomError, OptionError
from mammodensity.results.result import ExamResult, exam_result
from mammodensity.scores import ExamScores, fuse_exam
from mammodensity.terms import Projection

MADE = datetime(2026, 3, 1, 12, 30)
SCORES = {
    "A": (0.7, 0.2, 0.07, 0.03),
    "B": (0.1, 0.6, 0.25, 0.05),
    "C": (0.05, 0.2, 0.6, 0.15),
    "D": (0.01, 0.04, 0.25, 0.7),
}


def _result(scores: dict[str, tuple[float, ...]], **more: object) -> ExamResult:
    views = {Projection(view): np.array(values) for view, values in scores.items()}
    fused = fuse_exam(views, "mean", False, "mean")
    density = {"CC_R": 12.5, "right": 12.5, "subject": 31.25}
    return exam_result(ExamScores("E1", views, fused, density, **more), provenance={"model_name": "m", "model": {}})


def _headers(views=tuple(Projection), **changes: object) -> dict[Projection, Dataset]:
    facts = {"PatientBirthDate": "19600101", "PatientSex": "F", "StudyDate": "20260301", "StudyTime": "120000"}
    facts |= {"StudyID": "", "AccessionNumber": "A1", "ReferringPhysicianName": ""}
    return {view: mammogram(view, phantom(view), **(facts | changes)) for view in views}


def _revision(key: str = "k") -> Revision:
    return Revision("1.2.826.0.1.3680043.8.498.1", key, 1, MADE)


RESULTS = {
    **{letter: _result(dict.fromkeys(Projection, scores)) for letter, scores in SCORES.items()},
    "abstained": _result(dict(zip(Projection, (SCORES["A"], SCORES["D"], SCORES["A"], SCORES["D"]), strict=True))),
    "missing view": _result(dict.fromkeys(("CC_R", "CC_L", "MLO_R"), SCORES["B"])),
}


def _groups(report: Dataset) -> list[Dataset]:
    measurements = next(item for item in report.ContentSequence if _name(item) == "126010")
    return [item for item in measurements.ContentSequence if _name(item) == "125007"]


def _name(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue


def _values(group: Dataset, name: str) -> list[str | float]:
    items = [item for item in group.ContentSequence if _name(item) == name]
    return [
        item.ConceptCodeSequence[0].CodeValue
        if item.ValueType == "CODE"
        else item.MeasuredValueSequence[0].FloatingPointValue
        if item.ValueType == "NUM"
        else item.TextValue
        for item in items
    ]


def _errors(content: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run(["dciodvfy", str(content)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("kind", ["comprehensive3d", "comprehensive", "enhanced"])
@pytest.mark.parametrize("name", RESULTS)
def test_a_report_says_what_the_result_says(name, kind, tmp_path):
    result = RESULTS[name]
    headers = _headers(tuple(result.projections))
    structured_report(result, headers, _revision(), kind=kind).save_as(tmp_path / "report.dcm")
    report = srread(tmp_path / "report.dcm")
    groups = _groups(report)
    levels = [result.exam, result.breasts.get("right"), result.breasts.get("left"), *result.projections.values()]
    assert len(groups) == len(levels)
    for group, level in zip(groups, levels, strict=True):
        (composition,) = _values(group, ours.COMPOSITION.value)
        category = result.category if group is groups[0] else level and level.category
        assert composition == (ours.CATEGORY_CODES[category] if category else ours.INDETERMINATE).value
        for letter, score in level.scores.items() if level else ():
            assert _values(group, ours.score_code(letter, calibrated=False).value) == [score]
        density = [] if level is None or level.percent_density is None else [level.percent_density]
        assert _values(group, ours.PERCENT_DENSITY.value) == density
    comments = " ".join(map(str, _values(groups[0], ours.COMMENT.value)))
    for flag in (*result.flags, *result.abstained_for):
        assert f"[{flag.code}]" in comments
    assert "Not a medical device" in comments
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    referenced = {item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence}
    assert referenced == {header.SOPInstanceUID for header in headers.values()}
    assert _errors(tmp_path / "report.dcm") == []


def test_dsrdump_reads_the_category(tmp_path):
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is not installed (Debian: dcmtk)")
    structured_report(RESULTS["C"], _headers(), _revision()).save_as(tmp_path / "r.dcm")
    text = subprocess.run(["dsrdump", tmp_path / "r.dcm"], capture_output=True, text=True, check=True).stdout
    assert re.search(r'Breast composition.*=\(129718006,SCT,"Heterogeneously dense"\)', text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["C", "abstained", "missing view"])
def test_pixelmed_finds_no_error(name, tmp_path):
    jars = [*Path("/usr/share/java").glob("*.jar")]
    if shutil.which("java") is None or not any("pixelmed" in jar.name for jar in jars):
        pytest.skip("PixelMed is not installed (Debian: pixelmed-apps)")
    result = RESULTS[name]
    structured_report(result, _headers(tuple(result.projections)), _revision()).save_as(tmp_path / "r.dcm")
    limits = [f"-Djdk.xml.xpath{limit}=0" for limit in ("ExprOpLimit", "TotalOpLimit", "ExprGrpLimit")]
    command = ["java", *limits, "-Xss64m", "-cp", ":".join(map(str, jars)), "com.pixelmed.validate.DicomSRValidator"]
    done = subprocess.run([*command, tmp_path / "r.dcm"], capture_output=True, text=True, check=True)
    assert "IOD validation complete" in done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr


def test_a_later_report_names_the_one_it_takes_the_place_of():
    first = structured_report(RESULTS["B"], _headers(), _revision("1"))
    second = structured_report(RESULTS["C"], _headers(), _revision("2"), previous=first)
    (study,) = second.PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert second.SeriesInstanceUID == first.SeriesInstanceUID


def test_the_same_revision_gives_the_same_bytes(tmp_path):
    headers = _headers()
    for name in ("a", "b"):
        structured_report(RESULTS["B"], headers, _revision()).save_as(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_derived_uids_are_valid_and_differ():
    uids = {derived_uid("a"), derived_uid("b"), derived_uid("a", "b")}
    assert len(uids) == 3
    assert all(re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid) and len(uid) <= 64 for uid in uids)


@pytest.mark.parametrize("name", RESULTS)
def test_fhir_says_what_the_result_says(name):
    result = RESULTS[name]
    report = diagnostic_report(result, _headers(tuple(result.projections)), _revision())
    observations = {item["id"]: item for item in report["contained"]}
    value = observations["exam"]["valueCodeableConcept"]["coding"][0]["code"]
    assert value == (ours.CATEGORY_CODES[result.category] if result.category else ours.INDETERMINATE).value
    assert ("conclusionCode" in report) == (result.category is not None)
    assert _has_check_digit(report["code"]["coding"][0]["code"])


def _has_check_digit(loinc: str) -> bool:
    """LOINC's check digit is modulo 10, as that of bank cards."""
    number, digit = loinc.split("-")
    doubled = [int(figure) * (2 if place % 2 == 0 else 1) for place, figure in enumerate(reversed(number))]
    return (10 - sum(figure // 10 + figure % 10 for figure in doubled)) % 10 == int(digit)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    facts = {"PatientName": "Müller^Anna", "SpecificCharacterSet": "ISO_IR 100", "Manufacturer": "Phantom"}
    save_exam(folder / "exam", rows=320, **facts)
    (made,) = dicom_objects(folder / "exam", output=folder / "out", seg=True, fhir=True)
    return made, folder / "out"


def test_objects_join_the_study_of_the_images(written):
    made, folder = written
    files = sorted(folder.glob("*.dcm"))
    assert len(files) == 2 + len(made.result.projections)
    for file in files:
        dataset = dcmread(file)
        assert dataset.StudyInstanceUID == "1.2.3"
        assert str(dataset.PatientName) == "Müller^Anna"
        assert _errors(file) == []
    assert {dcmread(file).Modality for file in files} == {"SR", "OT", "SEG"}


def test_file_names_do_not_name_the_patient(written):
    _, folder = written
    assert not any("ller" in file.name or "P1" in file.name for file in folder.iterdir())


def test_the_card_shows_four_views_and_the_note(written):
    _, folder = written
    (card,) = (dcmread(file) for file in folder.glob("*-card.dcm"))
    pixels = card.pixel_array
    assert pixels.shape == (2000, 1600, 3)
    quarters = [pixels[200:1100, :800], pixels[200:1100, 800:], pixels[1100:1850, :800], pixels[1100:1850, 800:]]
    assert all((quarter > 60).mean() > 0.05 for quarter in quarters)
    assert (pixels[-90:] > 100).any()


def test_a_segmentation_has_the_size_of_its_image(written):
    _, folder = written
    (file,) = folder.glob("*segmentation-MLO_R.dcm")
    segmentation = dcmread(file)
    assert (segmentation.Rows, segmentation.Columns) == phantom(Projection.MLO_R, 320).shape
    kinds = {item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in segmentation.SegmentSequence}
    assert ours.SEGMENT_TYPES["muscle"].value in kinds


def test_pictures_are_refused(tmp_path):
    from PIL import Image

    from mammodensity.phantom.exams import PhantomSpec, make_exam

    view = make_exam(PhantomSpec(rows=320), 2).views[Projection.CC_R].image
    Image.fromarray(view).save(tmp_path / "1_CC_R.png")
    with pytest.raises(DicomError, match="expected a DICOM image"):
        dicom_objects(tmp_path, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_birth_date_and_a_sex_that_are_none_are_left_blank(tmp_path):
    image = mammogram(Projection.CC_R, phantom(Projection.CC_R, 320), PatientSex="X")
    image.add_new("PatientBirthDate", "LO", "00000000")
    image["PatientBirthDate"].VR = "DA"
    file = save(image, tmp_path / "exam" / "IM0")
    (record,) = find_images(file).records
    (header,) = read_sources({Projection.CC_R: record}).values()
    assert (header.PatientBirthDate, header.PatientSex, header.PatientID) == ("", "", "PHANTOM-1")


def test_several_patients_in_one_study_are_refused(tmp_path):
    for number, view in enumerate((Projection.CC_R, Projection.CC_L)):
        save(mammogram(view, phantom(view, 320), PatientName=f"N{number}"), tmp_path / "exam" / f"IM{number}")
    with pytest.raises(DicomError, match="several patients"):
        dicom_objects(tmp_path / "exam")


def test_categories_without_codes_are_refused():
    result = _result(dict.fromkeys(Projection, (0.2, 0.3, 0.5)))
    with pytest.raises(OptionError, match="A to D only"):
        structured_report(result, _headers(), _revision())
