"""The gatekeeper: every refusal and warning, and the verdicts on real files."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_samples import CAPTURE, MG_RAW, TOMO, code, mammogram, modified, phantom, save
from mammodensity.data.dicom.file_checks import REASONS, WARNINGS
from mammodensity.data.dicom.gatekeeper import judge_file
from mammodensity.data.dicom.read import read_with_warnings
from mammodensity.data.dicom.side_and_view import chest_wall_side
from mammodensity.data.images import read_image
from mammodensity.data.jpeg_stream import fills_lossless_stream
from mammodensity.errors import DicomError
from mammodensity.terms import PROJECTIONS, Projection
from samples import REPOSITORY


def verdict(tmp_path, projection=Projection.CC_R, *, synthetic=False, **changes):
    return judge_file(save(mammogram(projection, **changes), tmp_path / "a"), synthetic=synthetic)


def codes(found):
    return {reason.code for reason in found.reasons}


def test_good_mammograms_are_accepted_without_a_word(tmp_path):
    for projection in PROJECTIONS:
        found = verdict(tmp_path, projection)
        assert (found.accepted, found.projection, found.warnings) == (True, projection, ())
        assert re.fullmatch("study-[0-9a-f]{12}", found.exam_id)
        _, warnings = read_with_warnings(found.path)
        assert warnings == ()


def specimen():
    item = Dataset()
    item.SpecimenIdentifier = "1"
    return Sequence([item])


TOMO_THAT_SOUNDS_SYNTHETIC = [
    {"ImageType": ["DERIVED", "PRIMARY", "TOMO"], "SeriesDescription": "Tomo Synthesis slices"},
    {
        "SOPClassUID": TOMO,
        "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"],
        "SeriesDescription": "Synthesized slab",
    },
    {"SOPClassUID": TOMO, "SeriesDescription": "C-View"},
    {"SeriesDescription": "R CC synthesized slices"},
]
NO_VIEW: dict[str, Any] = {"ViewPosition": None, "ViewCodeSequence": None}
REFUSED = {
    "not-mammography": [
        {"Modality": "CT"},
        {"Modality": "US"},
        {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
        {"Modality": None, "SOPClassUID": CAPTURE},
        {"Modality": "DOE JANE"},
        {"SeriesDescription": "Dose Report"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN_SAVE"]},
    ],
    "dicomdir": [{"SOPClassUID": "1.2.840.10008.1.3.10", "Modality": None}],
    "for-processing": [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": MG_RAW},
        {"PresentationIntentType": "FOR_PROCESSING"},
        {"PresentationIntentType": "RAW"},
    ],
    "tomosynthesis": [
        {"SOPClassUID": TOMO},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.4"},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]},
        {"VolumeBasedCalculationTechnique": "TOMOSYNTHESIS"},
        {"SeriesDescription": "R CC Tomosynthesis Reconstruction"},
        {"SeriesDescription": "R CC Tomo Slice 12"},
        {"SeriesDescription": "DBT R CC"},
        {"SeriesDescription": "R CC Breast Tomosynthesis"},
        {"SeriesDescription": "R_CC_3D"},
        {"SeriesDescription": "Tomo"},
        {"SeriesDescription": "Screening DBT slices"},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMO_PROJ", "RIGHT"]},
        *TOMO_THAT_SOUNDS_SYNTHETIC,
    ],
    "synthetic-2d": [
        {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]},
        {"SeriesDescription": "R CC C-View"},
        {"SeriesDescription": "S-View R CC"},
        {"SOPClassUID": TOMO, "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMO"], "SeriesDescription": "R CC C-View"},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMO_2D"]},
        {"ProtocolName": "C-View"},
        *(
            {"SeriesDescription": words}
            for words in (
                "C View",
                "Intelligent 2D",
                "INSIGHT_2D",
                "R CC V-Preview",
                "SynthesizedView",
                "Tomo 2D",
                "R CC s2D",
                "G-View",
                "R CC Synth2D",
                "Screening C-View",
                "synthetic tomo",
            )
        ),
    ],
    "non-screening-view": [
        {"ViewPosition": "ML", "ViewCodeSequence": None},
        {"ViewPosition": "LM", "ViewCodeSequence": None},
        {"ViewPosition": "XCCL", "ViewCodeSequence": None},
        {"ViewPosition": "RXCC", "ViewCodeSequence": None},
        {"ViewPosition": "AT", "ViewCodeSequence": None},
        {"ViewPosition": "RML", "ViewCodeSequence": None},
        {"ViewPosition": "CC MAG", "ViewCodeSequence": None},
        {"ViewPosition": None, "ViewCodeSequence": Sequence([code("R-10224")])},
        {"ViewPosition": None, "ViewCodeSequence": Sequence([code("399260004", scheme="SCT")])},
        {"ViewPosition": None, "ViewCodeSequence": Sequence([code("399192008", scheme="SCT")])},
        {"ViewPosition": None, "ViewCodeSequence": Sequence([code("R-10232")])},
        {"ViewPosition": "MLO", "ViewCodeSequence": Sequence([code("R-10224")])},
        {"ViewCodeSequence": modified("CC", "R-102D6")},
        {"ViewCodeSequence": modified("CC", "R-102D7")},
        {"ViewCodeSequence": modified("CC", "R-102D2")},
        {"ViewCodeSequence": modified("CC", "399226006")},
        {"ViewCodeSequence": modified("CC", "99-1", "home-made modifier")},
        {"EstimatedRadiographicMagnificationFactor": "1.8"},
        {"PaddleDescription": "10CM MAG"},
        {"SeriesDescription": "R CC SPOT"},
        {"DistanceSourceToDetector": "650", "DistanceSourceToPatient": "360"},
        {"ViewModifierCodeSequence": Sequence([code("R-102D7")])},
        {"PaddleDescription": "SPOTCOMP"},
        {"PaddleDescription": "MAG1.5X"},
        {"PaddleDescription": "10X8MAG"},
        {"PaddleDescription": "SMALL_SPOT"},
        {"ProtocolName": "MAG"},
        {"SeriesDescription": "Screening R CC spot"},
        {"AnatomicRegionSequence": Sequence([code("91470000", scheme="SCT")])},
        {"AnatomicRegionSequence": Sequence([code("99-1", "Axilla")])},
        {"BodyPartExamined": "AXILLA"},
        {"ViewPosition": "DOE JANE"},
        {"ViewCodeSequence": Sequence([code("DOE JANE", "JANE DOE 1950")])},
        {"ViewCodeSequence": modified("CC", "DOE JANE", "JANE DOE 1950")},
    ],
    "specimen": [
        {"SpecimenDescriptionSequence": specimen()},
        {"SeriesDescription": "Specimen R"},
        {"PaddleDescription": "SPECIMEN"},
        {"BodyPartExamined": "BREAST SPECIMEN"},
        {"BodyPartExamined": "SPECIMEN_BREAST"},
        {"ContainerIdentifier": "1"},
    ],
    "biopsy": [
        {"ImageType": ["DERIVED", "PRIMARY", "STEREO", "LEFT"]},
        {"DetectorMode": "STEREO"},
        {"PaddleDescription": "BIOPSY 5X5"},
        {"SeriesDescription": "Biopsy"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "POSTFIRE_PLUS"]},
    ],
    "contrast-enhanced": [
        {"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "POST_CONTRAST", "", "HIGH_ENERGY"]},
        {"SeriesDescription": "CESM recombined"},
        {"SeriesDescription": "R CC CEM"},
    ],
    "partial-breast": [
        {"PartialView": "YES"},
        {"PartialViewCodeSequence": Sequence([code("R-404CC", "Anterior")])},
        {"PartialViewDescription": "anterior"},
        {"FieldOfViewDimensions": [60, 50]},
        {"Rows": 1100, "ImagerPixelSpacing": [0.07, 0.07]},
        {"SeriesDescription": "cropped images"},
        {"SeriesDescription": "ROI mask images"},
    ],
    "quality-control": [
        {"QualityControlImage": "YES"},
        {"CalibrationImage": "YES"},
        {"SeriesDescription": "QC PHANTOM ACR"},
        {"BodyPartExamined": "PHANTOM"},
    ],
    "missing-laterality": [
        {"ImageLaterality": None},
        {"ImageLaterality": ""},
        {"ImageLaterality": "B"},
        {"ImageLaterality": "U"},
        {"ImageLaterality": None, "Laterality": "B"},
        {"ImageLaterality": "B", "Laterality": "R"},
        {"Laterality": "U"},
    ],
    "contradictory-laterality": [
        {"Laterality": "L"},
        {"SeriesDescription": "L CC"},
        {"ViewPosition": "LCC"},
        {"AnatomicRegionSequence": Sequence([code("T-04030")])},
        {"BodyPartExamined": "LEFT BREAST"},
        {"PatientOrientation": ["P", "R"]},
        {"PatientOrientation": ["A", "R"]},  # or upside down
        {"PatientOrientation": ["A", "FR"]},
        {"ImageLaterality": None, "SeriesDescription": "R CC", "PatientOrientation": ["A", "R"]},
    ],
    "turned": [
        {"PatientOrientation": ["P", "H"]},
        {"PatientOrientation": ["A", "HR"]},
        {"PatientOrientation": ["L", "A"]},
        {"PatientOrientation": ["F", "A"]},
        {"PatientOrientation": ["FL", "P"]},
    ],
    "missing-view": [
        {"ViewPosition": None, "ViewCodeSequence": None},
        {"ViewPosition": "", "ViewCodeSequence": None},
        {**NO_VIEW, "AcquisitionDeviceProcessingDescription": "BREAST"},
        {**NO_VIEW, "AcquisitionDeviceProcessingDescription": "CC OR MLO"},
    ],
    "contradictory-view": [{"ViewPosition": "MLO"}, {"SeriesDescription": "R MLO"}],
    "no-pixels": [{"PixelData": None}, {"PixelData": None, "Rows": None}],
    "multi-frame": [{"NumberOfFrames": 3}],
    "colour": [
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"PhotometricInterpretation": "YBR_FULL", "SamplesPerPixel": 3},
        {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 1},
        {"SamplesPerPixel": 3},
    ],
    "depth": [
        {"BitsAllocated": 32},
        {"BitsStored": 17},
        {"BitsStored": 7, "HighBit": 6},
        {"HighBit": 3},
        {"BitsAllocated": 12},
    ],
    "missing-tag": [{"Rows": None}, {"PhotometricInterpretation": None}, {"BitsAllocated": None}],
    "absurd-size": [
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 7800, "Columns": 7800},
        {"Rows": 2},
        {"Rows": 0},
        {"Columns": 40000},
    ],
    "damaged": [{"Rows": 4000}, {"PixelData": b""}, {"NumberOfFrames": -1}],
}


@pytest.mark.parametrize(
    ("expected", "changes"), [(name, changes) for name, several in REFUSED.items() for changes in several]
)
def test_refused(tmp_path, expected, changes):
    found = verdict(tmp_path, **changes)
    assert expected in codes(found)
    assert all(reason.code in REASONS and "\n" not in reason.text for reason in found.reasons)
    assert not any(re.search("PHANTOM|DOE|JANE|1950", reason.text, re.IGNORECASE) for reason in found.reasons)
    with pytest.raises(DicomError):
        read_image(found.path)


@pytest.mark.parametrize(("size", "refused"), [([129, 120], True), ([130, 120], False)])
def test_the_limit_of_small_fields_is_the_one_told_and_documented(tmp_path, size, refused):
    found = verdict(tmp_path, FieldOfViewDimensions=size)
    assert ("partial-breast" in codes(found)) == refused
    if refused:
        assert any("130 mm or more" in reason.text for reason in found.reasons)
    assert "below 130 mm" in (REPOSITORY / "docs" / "dicom.md").read_text()


EXAM_WIDE = [
    {"StudyDescription": "Screening with tomo"},
    {"SeriesDescription": "Screening with tomo"},
    {"PerformedProcedureStepDescription": "Mammogram diagnostic bilateral incl. axilla"},
    {"PerformedProcedureStepDescription": "Screening, spot views if needed"},
    {"SeriesDescription": "Screening, spot views if needed"},
    {"SeriesDescription": "Mammo follow-up after biopsy 2019"},
    {"SeriesDescription": "Women's View Screening"},
    {"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": "Women\u2019s View"},
    {"SeriesDescription": "MAMMOSCREENING 1E LEZING", "ProtocolName": "ROUTINE"},
    {"ProtocolName": "DBT"},
    {"PaddleDescription": "18X24 SCREENING"},
    {"PaddleDescription": "IMAGE 24X30"},
    {"PartialView": "NO", "PartialViewDescription": "none"},
    {"DistanceSourceToDetector": "660", "DistanceSourceToPatient": "550"},
    {"DistanceSourceToDetector": "660", "DistanceSourceToPatient": "0"},
    {"ImageType": ["ORIGINAL", "PRIMARY", "POST_CONTRAST", "", "LOW_ENERGY"], "SeriesDescription": "CESM"},
    {"SeriesDescription": "CESM R CC low energy"},
    {"PresentationIntentType": "FOR_PRESENTATION"},
    {"ViewModifierCodeSequence": Sequence([code("99-1", "Nipple in profile")])},
]


@pytest.mark.parametrize("changes", EXAM_WIDE)
def test_words_of_whole_exams_condemn_no_image(tmp_path, changes):
    found = verdict(tmp_path, **changes)
    assert found.accepted, found.reasons
    assert found.warnings == ()


@pytest.mark.parametrize("changes", TOMO_THAT_SOUNDS_SYNTHETIC)
def test_slices_are_not_accepted_as_synthetic(tmp_path, changes):
    assert codes(verdict(tmp_path, synthetic=True, **changes)) == {"tomosynthesis"}


def test_one_fault_gives_one_reason(tmp_path):
    for name, several in REFUSED.items():
        found = verdict(tmp_path, **several[0])
        assert codes(found) == {name}, several[0]


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("implant", {"BreastImplantPresent": "YES"}),
        ("implant-displaced", {"ViewCodeSequence": modified("CC", "R-102D5")}),
        ("implant-displaced", {"ViewPosition": "CCID", "ViewCodeSequence": None}),
        ("no-presentation-intent", {"PresentationIntentType": None}),
        ("no-modality", {"Modality": None}),
        ("secondary-capture", {"SOPClassUID": CAPTURE}),
        ("burned-in-annotation", {"BurnedInAnnotation": "YES"}),
        ("view-from-code", {"ViewPosition": None}),
        ("laterality-both", {"Laterality": "B"}),
        ("projection-from-description", {**NO_VIEW, "AcquisitionDeviceProcessingDescription": "CC"}),
        ("projection-from-description", {**NO_VIEW, "AcquisitionDeviceProcessingDescription": "MAMMO, R-CC"}),
        ("view-from-orientation", {"ViewPosition": None, "ViewCodeSequence": None, "PatientOrientation": "CC"}),
        ("projection-from-description", {"ImageLaterality": None, "SeriesDescription": "R CC"}),
        ("no-study", {"StudyInstanceUID": None}),
        ("body-part", {"BodyPartExamined": "CHEST"}),
        ("polarity", {"PresentationLUTShape": "INVERSE"}),
        ("lossy", {"LossyImageCompression": "01"}),
    ],
)
def test_accepted_with_a_warning(tmp_path, expected, changes):
    found = verdict(tmp_path, **changes)
    assert found.accepted, found.reasons
    assert found.projection == Projection.CC_R
    assert expected in found.marks <= set(WARNINGS)


def test_synthetic_images_are_accepted_when_asked_for_and_marked(tmp_path):
    found = verdict(tmp_path, synthetic=True, ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"])
    assert found.accepted
    assert "synthetic-2d" in found.marks
    assert read_image(found.path, synthetic=True).projection == Projection.CC_R
    assert not verdict(tmp_path, synthetic=True, SOPClassUID=TOMO).accepted


def test_a_description_of_processing_contradicts_no_view(tmp_path):
    found = verdict(tmp_path, AcquisitionDeviceProcessingDescription="MLO")
    assert found.accepted
    assert found.projection == Projection.CC_R
    assert found.marks == frozenset()
    assert codes(verdict(tmp_path, **NO_VIEW, AcquisitionDeviceProcessingDescription="ML")) == {"non-screening-view"}


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"EstimatedRadiographicMagnificationFactor": "1.80"}, b"1.80"),
        ({"DistanceSourceToDetector": "650.0", "DistanceSourceToPatient": "361.0"}, b"361.0"),
        ({"DistanceSourceToDetector": "650.0", "DistanceSourceToPatient": "361.0"}, b"650.0"),
        ({"FieldOfViewDimensions": "60\\55"}, b"60\\55"),
        ({"ImagerPixelSpacing": ["0.05", "0.06"]}, b"0.06"),
        ({"PixelSpacing": ["0.25", "0.26"]}, b"0.26"),
        ({"NominalScannedPixelSpacing": ["0.25", "0.26"]}, b"0.26"),
    ],
)
@pytest.mark.parametrize("unreadable", ["comma", "letter", "infinite", "dash"])
def test_numbers_that_decide_must_be_readable(tmp_path, changes, number, unreadable):
    path = save(mammogram(**changes), tmp_path / "image")
    content = path.read_bytes()
    assert content.count(number) == 1
    instead = {
        "comma": number.replace(b".", b",") if b"." in number else number[:-1] + b",",
        "letter": number[:-1] + b"x",
        "infinite": b"1e999" if len(number) > 4 else b"inf",
        "dash": b"-" * len(number),
    }[unreadable]
    path.write_bytes(content.replace(number, instead.ljust(len(number))))
    assert codes(judge_file(path)) == {"damaged"}


def test_a_magnification_of_zero_leaves_the_distances_to_decide(tmp_path):
    distances = {"DistanceSourceToDetector": "650", "DistanceSourceToPatient": "361"}
    assert codes(verdict(tmp_path, EstimatedRadiographicMagnificationFactor=0, **distances)) == {"non-screening-view"}
    assert verdict(tmp_path, EstimatedRadiographicMagnificationFactor=0).accepted


def test_laterality_of_every_place(tmp_path):
    def item(**values):
        made = Dataset()
        for keyword, value in values.items():
            setattr(made, keyword, value)
        return Sequence([made])

    places = [
        {"Laterality": "R"},
        {"SharedFunctionalGroupsSequence": item(FrameAnatomySequence=item(FrameLaterality="R"))},
        {"ViewPosition": "RCC"},
        {"AnatomicRegionSequence": Sequence([code("73056007", scheme="SCT")])},
        {"BodyPartExamined": "RIGHT BREAST"},
        {"ProtocolName": "R-CC"},
    ]
    for place in places:
        found = verdict(tmp_path, ImageLaterality=None, **place)
        assert found.projection == Projection.CC_R, (place, found.reasons)


def test_a_table_may_say_what_the_header_does_not(tmp_path):
    bare = save(mammogram(ImageLaterality=None, ViewPosition=None, ViewCodeSequence=None), tmp_path / "a")
    assert codes(judge_file(bare)) == {"missing-laterality", "missing-view"}
    assert read_image(bare, Projection.CC_R).projection == Projection.CC_R
    stripped = save(mammogram(Modality=None, SOPClassUID=None, ImageLaterality=None), tmp_path / "c")
    assert codes(judge_file(stripped)) == {"not-mammography"}
    assert read_image(stripped, Projection.CC_R).projection == Projection.CC_R
    with pytest.raises(DicomError, match="the data set's table L"):
        read_image(save(mammogram(), tmp_path / "b"), Projection.CC_L)


# --- header against pixels ------------------------------------------------------------------------------------------


def test_chest_wall_side():
    for projection in PROJECTIONS:
        assert chest_wall_side(phantom(projection)) == projection.laterality
        assert chest_wall_side(phantom(projection)[:, ::-1]) != projection.laterality
    noise = np.random.default_rng(1).integers(0, 4096, (100, 80)).astype(np.uint16)
    assert chest_wall_side(noise) is None


def test_the_wrong_breast_is_told_by_the_pixels(tmp_path):
    changes = {"ImageLaterality": "L", "PatientOrientation": ["A", "R"]}
    path = save(mammogram(stored=phantom(Projection.CC_R), **changes), tmp_path / "a")
    assert judge_file(path).accepted
    with pytest.raises(DicomError, match="chest wall is on the right") as caught:
        read_image(path)
    assert caught.value.code == "contradictory-laterality"
    path = save(mammogram(stored=phantom(Projection.CC_R), ImageLaterality="L", PatientOrientation=None), path)
    with pytest.raises(DicomError, match="chest wall"):
        read_image(path)


@pytest.mark.parametrize(
    "flip", [{"PatientOrientation": ["A", "L"]}, {"PatientOrientation": None, "FieldOfViewHorizontalFlip": "YES"}]
)
def test_images_stored_flipped_are_recognised(tmp_path, flip):
    flipped = np.ascontiguousarray(phantom(Projection.CC_R)[:, ::-1])
    path = save(mammogram(stored=flipped, **flip), tmp_path / "a")
    mammo, warnings = read_with_warnings(path)
    assert [warning.code for warning in warnings] == ["stored-flipped"]
    assert mammo.projection == Projection.CC_R


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_patient_orientation_settles_a_swapped_breast(tmp_path, projection, mirrored):
    right = projection.laterality == "R"
    rows = "P" if right != mirrored else "A"
    columns = ("F" if projection.view_position == "MLO" else "") + ("L" if right else "R")
    stored = np.ascontiguousarray(phantom(projection)[:, :: -1 if mirrored else 1])
    path = tmp_path / "a"
    save(mammogram(projection, stored, PatientOrientation=[rows, columns]), path)
    assert read_image(path).projection == projection
    swapped = "L" if right else "R"
    save(mammogram(projection, stored, PatientOrientation=[rows, columns], ImageLaterality=swapped), path)
    assert codes(judge_file(path)) == {"contradictory-laterality"}
    if not mirrored:  # columns that do not tell: a swapped label looks like a mirrored image, and is not taken for one
        save(mammogram(projection, stored, PatientOrientation=[rows, "F"], ImageLaterality=swapped), path)
        with pytest.raises(DicomError, match="neither Patient Orientation nor Field of View"):
            read_image(path)


def test_a_wrong_patient_orientation_is_only_a_warning(tmp_path):
    _, warnings = read_with_warnings(save(mammogram(PatientOrientation=["A", "L"]), tmp_path / "a"))
    assert [warning.code for warning in warnings] == ["orientation-disagrees"]


# --- what is no DICOM file, or a damaged one ------------------------------------------------------------------------


def test_files_that_are_not_dicom(tmp_path):
    for name, content, expected in (
        ("empty", b"", "damaged"),
        ("text", b"no image at all, but some text " * 20, "not-dicom"),
        ("zeros", bytes(4000), "not-dicom"),
        ("prefix", bytes(128) + b"DICM", "damaged"),
        ("cut", bytes(128) + b"DICM\x02\x00\x10\x00UI", "damaged"),
    ):
        (tmp_path / name).write_bytes(content)
        found = judge_file(tmp_path / name)
        assert codes(found) == {expected}, name
    assert codes(judge_file(tmp_path / "absent")) == {"not-dicom"}


def test_without_preamble_or_transfer_syntax(tmp_path):
    path = save(mammogram(), tmp_path / "a")
    content = path.read_bytes()
    path.write_bytes(content[132:])
    assert judge_file(path).accepted
    ds = mammogram()
    from pydicom.filewriter import dcmwrite

    del ds.preamble
    bare = Dataset(ds)
    dcmwrite(path, bare, implicit_vr=True, little_endian=True)
    found = judge_file(path)
    assert found.accepted, found.reasons
    assert "header-leniency" in found.marks
    assert np.array_equal(read_image(path).pixels, read_image(save(mammogram(), tmp_path / "b")).pixels)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.110", "1.2.3"])
def test_syntaxes_nobody_reads(tmp_path, syntax):
    ds = mammogram()
    path = save(ds, tmp_path / "a")
    plain = b"1.2.840.10008.1.2.1\0"
    content = path.read_bytes()
    assert content.count(plain) == 1
    path.write_bytes(content.replace(plain, syntax.encode()[:20].ljust(20, b"\0")))
    assert codes(judge_file(path)) & {"unsupported-syntax", "damaged"}


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_files_are_damaged(tmp_path, share, packed):
    ds = mammogram()
    if packed:
        from pydicom.uid import JPEG2000Lossless

        ds.compress(JPEG2000Lossless)
    path = save(ds, tmp_path / "a")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    found = judge_file(path)
    assert codes(found) & {"damaged", "no-pixels", "missing-tag"}


def test_a_codestream_that_claims_another_size_is_refused_before_decoding(tmp_path, monkeypatch):
    from pydicom.uid import JPEG2000Lossless

    ds = mammogram()
    ds.compress(JPEG2000Lossless)
    content = bytearray(save(ds, tmp_path / "a").read_bytes())
    siz = content.index(b"\xff\x4f\xff\x51") + 8
    content[siz : siz + 8] = (50_000).to_bytes(4, "big") * 2
    (tmp_path / "a").write_bytes(content)
    found = judge_file(tmp_path / "a")
    assert codes(found) == {"damaged"}
    assert "50000 x 50000 by its pixels" in found.reasons[0].text


def test_a_damaged_jpeg_lossless_stream_is_noticed(tmp_path):
    from dicom_samples import dcmtk

    save(mammogram(), tmp_path / "plain")
    dcmtk("dcmcjpeg", "+e1", tmp_path / "plain", tmp_path / "packed")
    content = (tmp_path / "packed").read_bytes()
    begin = content.index(b"\xff\xda") + 20
    rng = np.random.default_rng(1)
    noticed = 0
    for place in rng.integers(begin, len(content) - 30, 20):
        damaged = bytearray(content)
        damaged[place] ^= 0x5A
        (tmp_path / "a").write_bytes(damaged)
        try:
            read_image(tmp_path / "a")
        except DicomError:
            noticed += 1
    assert noticed >= 12  # a stream that is whole and valid, of another image, cannot be told


def test_a_comment_in_a_jpeg_lossless_stream_is_no_header():
    """It may hold the bytes of a marker."""
    from imagecodecs import ljpeg_encode

    values = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16)
    stream = ljpeg_encode(values, bitspersample=12)
    comment = b"\xff\xfe\x00\x08\xff\xc3\x00\x0b\x00\x01"
    for one in (stream, stream[:2] + comment + stream[2:]):
        assert fills_lossless_stream(one, values) is True
        assert fills_lossless_stream(one, values // 16) is False
    assert fills_lossless_stream(stream[: stream.index(b"\xff\xda") + 6], values) is None


# --- documentation and real files -----------------------------------------------------------------------------------


def test_every_code_is_documented_and_tested():
    page = (REPOSITORY / "docs" / "dicom.md").read_text()
    refusals, warnings = page.split("## Warnings")
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", refusals.split("## Refusals")[1], re.M)) == set(REASONS)
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", warnings.split("\n## ")[0], re.M)) == set(WARNINGS)
    assert set(REASONS) - set(REFUSED) == {
        *("not-dicom", "unreadable-folder", "grey-scale", "unsupported-syntax", "constant"),
        *("no-breast", "no-mammogram", "inverted", "several-patients"),
    }


def test_real_files(shared_data, tmp_path):
    folder = shared_data / "dicom"
    if not folder.is_dir():
        pytest.skip(f"no DICOM files in {folder}")
    found = {path.name: judge_file(path) for path in sorted(folder.glob("*.dcm"))}
    assert (found["GH133.dcm"].accepted, found["GH133.dcm"].projection) == (True, Projection.MLO_R)
    assert codes(found["OutOfBoundsOverlay.dcm"]) == {"partial-breast", "biopsy"}
    assert codes(found["jpeg2k_3d.dcm"]) == {"tomosynthesis"}
    assert codes(found["MG_Explicit_Little.dcm"]) == {"non-screening-view"}  # magnified 1.5 times
    mammo, warnings = read_with_warnings(folder / "GH133.dcm")
    assert mammo.pixels.shape == (3062, 2394)
    assert warnings == ()
    swapped = pydicom.dcmread(folder / "GH133.dcm")
    swapped.ImageLaterality = "L"
    swapped.save_as(tmp_path / "swapped")
    assert codes(judge_file(tmp_path / "swapped")) == {"contradictory-laterality"}
    assert mammo.spacing_mm == pytest.approx(0.0940909)
