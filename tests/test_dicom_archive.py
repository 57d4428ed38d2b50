"""Archives: DICOM in folders of any depth to exams, choices, `check` on anything, and the commands on DICOM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mammodensity
from dicom_samples import MG_RAW, mammogram, phantom, save, save_exam
from mammodensity.commands import command_line as cli
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam, read_image
from mammodensity.errors import ImageError, LayoutError
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.workflows.check import check_path
from mammodensity.workflows.prepare import find_exams


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "archive"
    save_exam(root / "a" / "b" / "c", study="1.2.3", patient="DOE")
    save_exam(root / "d", study="1.2.4", patient="DOE")
    save_exam(root, study="1.2.5", patient="ROE")
    return root


def test_exams_by_study_however_deep_and_named(archive):
    data = find_images(archive)
    exams = data.exams()
    assert len(exams) == 3
    assert all(tuple(sorted(views)) == tuple(sorted(PROJECTIONS)) for views in exams.values())
    assert len({record.patient_id for record in data.records}) == 2
    assert not any("DOE" in f"{record.exam_id}{record.patient_id}" for record in data.records)
    assert find_images(archive / "d").exams().keys() <= exams.keys()


def test_read_exam(archive):
    exam = mammodensity.read_exam(archive / "d")
    assert exam.missing == ()
    assert exam.mammograms[Projection.MLO_L].pixels.dtype == np.uint16
    one = mammodensity.read_exam(archive / "d" / "IM0003")
    assert list(one.mammograms) == [Projection.MLO_L]
    with pytest.raises(LayoutError, match="holds 3 exams"):
        mammodensity.read_exam(archive)


def test_refused_files_are_counted_and_alone_are_an_error(tmp_path):
    save(mammogram(SOPClassUID=MG_RAW), tmp_path / "x")
    with pytest.raises(LayoutError, match=r"no DICOM file that can be used.*raw detector values"):
        find_images(tmp_path)
    save(mammogram(), tmp_path / "y")
    data = find_images(tmp_path)
    assert [verdict.reasons[0].code for verdict in data.refused] == ["for-processing"]


def test_the_choice_among_candidates(tmp_path):
    def made(name, **changes):
        return save(mammogram(**changes), tmp_path / name)

    made("1", ContentDate="20200101", ContentTime="100000")
    made("2", ContentDate="20200101", ContentTime="100500")
    made("3", ContentDate="20200101", ContentTime="101000", SeriesDescription="R CC C-View")
    data = find_images(tmp_path, synthetic=True)
    assert [record.path.name for record in data.records] == ["2"]
    made("4", ContentDate="20200101", ContentTime="100000", ViewPosition="CCID", ViewCodeSequence=None)
    result = check_path(tmp_path, synthetic=True)
    told = {entry["path"][-1]: {one["code"] for one in entry["warnings"]} for entry in result.to_list()}
    assert "chosen-of-several" in told["4"]
    assert all("other-image-chosen" in told[name] for name in "123")
    for name in "123":
        [text] = [one.text for one in result.files[int(name) - 1].warnings if one.code == "other-image-chosen"]
        assert text.endswith("4 was chosen")


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"AcquisitionTime": "100000.2"}, {"AcquisitionTime": "100000.75"}),
        ({"AcquisitionTime": "100000.200000"}, {"AcquisitionTime": "100000.2001"}),
        ({"AcquisitionTime": "100000"}, {"AcquisitionTime": "100000.1"}),
        ({"AcquisitionDateTime": "20200101100000.5+0100"}, {"AcquisitionDateTime": "20200101100000.6+0100"}),
        ({"AcquisitionDateTime": "20200101100000.5"}, {"AcquisitionTime": "100001"}),
        ({"ContentTime": "0959"}, {"ContentTime": "095900.1"}),
    ],
)
def test_a_repeat_within_a_second_is_chosen(tmp_path, earlier, later):
    save(mammogram(AcquisitionDate="20200101", InstanceNumber=2, **earlier), tmp_path / "a")
    save(mammogram(AcquisitionDate="20200101", InstanceNumber=1, **later), tmp_path / "b")
    assert [record.path.name for record in find_images(tmp_path).records] == ["b"]


def test_dicom_files_named_as_pictures_make_an_archive(tmp_path):
    save(mammogram(), tmp_path / "deep" / "x.png")
    assert [record.projection for record in find_images(tmp_path).records] == [Projection.CC_R]
    assert mammodensity.read_exam(tmp_path).mammograms[Projection.CC_R].path.name == "x.png"


def test_copies_of_one_instance_count_once(tmp_path):
    path = save(mammogram(), tmp_path / "a")
    (tmp_path / "b").write_bytes(path.read_bytes())
    assert len(find_images(tmp_path).records) == 1
    assert check_path(tmp_path).files[1].marks >= {"duplicate"}


def test_one_instance_uid_with_several_contents_loses_no_image(tmp_path):
    shared = {"SOPInstanceUID": "1.2.3.4"}

    def made(name, projection=Projection.CC_R, **changes):
        return save(mammogram(projection, **shared, **changes), tmp_path / name)

    made("a")
    made("b", Projection.MLO_R)
    made("c", StudyInstanceUID="1.2.99")
    made("d", stored=phantom() // 2, InstanceNumber=2)
    made("e", PatientName="Coerced^Copy")
    found = {file.path.name: file.marks for file in check_path(tmp_path).files}
    assert [name for name, marks in found.items() if "duplicate" in marks] == ["e"]
    assert [name for name, marks in found.items() if "instance-reused" in marks] == list("abcd")
    records = find_images(tmp_path).records
    assert sorted(record.path.name for record in records) == ["b", "c", "d"]  # d by its number, before a


def test_several_patients_in_one_study_are_refused(tmp_path):
    save_exam(tmp_path / "one", study="1.2.3", patient="SECRET-1")
    save_exam(tmp_path / "two", study="1.2.3", patient="SECRET-2", InstanceNumber=9)
    save_exam(tmp_path / "good", study="1.2.4", patient="SECRET-3")
    for issuer in ("A", "B"):
        changes = {"StudyInstanceUID": "1.2.5", "IssuerOfPatientID": issuer}
        save(mammogram(**changes), tmp_path / "issuers" / issuer)
    result = check_path(tmp_path)
    refused = {file.path.parent.name for file in result.files if file.reasons}
    assert refused == {"one", "two", "issuers"}
    assert {one.code for file in result.files for one in file.reasons} == {"several-patients"}
    assert "SECRET" not in str(result.to_list())
    assert len(find_images(tmp_path).exams()) == 1


def test_a_study_with_a_patient_and_images_without_one_is_whole(tmp_path):
    save(mammogram(PatientID="", IssuerOfPatientID=None), tmp_path / "a")
    save(mammogram(Projection.CC_L, IssuerOfPatientID="A"), tmp_path / "b")
    save(mammogram(Projection.MLO_L), tmp_path / "c")
    assert len(mammodensity.read_exam(tmp_path).mammograms) == 3


def test_without_study_uid_patients_and_dates_of_one_folder_are_kept_apart(tmp_path):
    def made(name, projection, patient, date):
        changes = {"StudyInstanceUID": None, "PatientID": patient, "StudyDate": date}
        save(mammogram(projection, **changes), tmp_path / name)

    made("a", Projection.CC_R, "P1", "20200101")
    made("b", Projection.CC_L, "P1", "20200101")
    made("c", Projection.CC_L, "P2", "20200101")
    made("d", Projection.MLO_L, "P1", "20220101")
    data = find_images(tmp_path)
    exams = sorted("".join(sorted(one.path.name for one in views.values())) for views in data.exams().values())
    assert exams == ["ab", "c", "d"]
    assert len({record.patient_id for record in data.records}) == 2


def test_check_on_a_folder_of_mixed_rubbish(tmp_path, capsys):
    root = tmp_path / "rubbish"
    save_exam(root / "study")
    save(mammogram(SOPClassUID=MG_RAW), root / "raw.dcm")
    (root / "empty").write_bytes(b"")
    (root / "notes.txt").write_text("nothing")
    (root / "DICOMDIR").write_bytes(save(mammogram(SOPClassUID="1.2.840.10008.1.3.10"), root / "x").read_bytes())
    Image.fromarray((phantom() >> 4).astype(np.uint8)).save(root / "L-MLO.png")
    Image.fromarray((phantom() >> 4).astype(np.uint8)).save(root / "scan.png")
    (root / "R-MLO.png").write_bytes(b"no picture")
    good = save(mammogram(), root / "cut").read_bytes()
    (root / "cut").write_bytes(good[: len(good) // 2])
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(root), "--json", str(tmp_path / "out.json")])
    assert not stop.value.code
    entries = {
        entry["path"].removeprefix(f"{root}/"): entry for entry in json.loads((tmp_path / "out.json").read_text())
    }
    assert len(entries) == 13
    code = {name: [one["code"] for one in entry["reasons"]] for name, entry in entries.items()}
    assert code["raw.dcm"] == ["for-processing"]
    assert code["empty"] == code["cut"] == ["damaged"]
    assert code["notes.txt"] == ["not-dicom"]
    assert code["DICOMDIR"] == code["x"] == ["dicomdir"]
    assert code["scan.png"] == ["missing-view"]
    assert code["R-MLO.png"] == ["unreadable-image"]
    assert entries["L-MLO.png"]["accepted"]
    assert {entry["projection"] for name, entry in entries.items() if name.startswith("study")} == set(PROJECTIONS)
    assert len({entry["exam_id"] for name, entry in entries.items() if name.startswith("study")}) == 1
    assert "for-processing" in capsys.readouterr().out


def test_check_of_single_files_and_of_rubbish_alone(tmp_path, capsys):
    good, bad = save(mammogram(), tmp_path / "good"), save(mammogram(Modality="CT"), tmp_path / "bad")
    for paths, code in (([good], 0), ([bad], 1), ([good, bad], 1)):
        with pytest.raises(SystemExit) as stop:
            cli.main(["check", *map(str, paths), "--json", str(tmp_path / "out.json")])
        assert int(stop.value.code or 0) == code
        entries = json.loads((tmp_path / "out.json").read_text())
        assert [entry["accepted"] for entry in entries] == [path == good for path in paths]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "notes.txt").write_text("nothing")
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(tmp_path / "only"), "--json", str(tmp_path / "out.json")])
    assert stop.value.code == 1
    assert [entry["accepted"] for entry in json.loads((tmp_path / "out.json").read_text())] == [False]
    assert "holds no PNG" in capsys.readouterr().err


def test_files_of_one_study_are_judged_together(tmp_path, run):
    files = save_exam(tmp_path)
    (tmp_path / "copy").write_bytes(files[0].read_bytes())
    later = mammogram(StudyInstanceUID="1.2.3", PatientID="P1", ContentDate="20990101", stored=phantom() // 2)
    later = save(later, tmp_path / "later")
    code, output, _ = run("check", *files, tmp_path / "copy", later, files[0], "--json", tmp_path / "out.json")
    assert code == 0
    assert "6 files usable, 0 refused" in output
    entries = json.loads((tmp_path / "out.json").read_text())
    told = {Path(entry["path"]).name: {one["code"] for one in entry["warnings"]} for entry in entries}
    assert "duplicate" in told["copy"]
    assert "other-image-chosen" in told["IM0000"]
    assert "chosen-of-several" in told["later"]
    assert not any("incomplete-exam" in codes for codes in told.values())
    code, _, error = run("check", *files, tmp_path / "absent")
    assert code == 1
    assert "absent not found" in error


def test_what_has_no_breast_or_is_inverted_is_refused_by_its_pixels(tmp_path):
    root = tmp_path / "archive"
    noise = np.random.default_rng(1).integers(0, 4096, phantom().shape).astype(np.uint16)
    save(mammogram(stored=noise), root / "noise")
    save(mammogram(stored=4095 - phantom()), root / "inverted")
    save(mammogram(PhotometricInterpretation="MONOCHROME1"), root / "tag")
    picture = (phantom(Projection.MLO_L) >> 4).astype(np.uint8)
    Image.fromarray(255 - picture).save(root / "L-MLO.png")
    save(mammogram(Projection.CC_L, phantom(Projection.CC_L)), root / "good")
    reasons = {one.path.name: [reason.code for reason in one.reasons] for one in check_path(root).files}
    assert reasons.pop("good") == []
    assert reasons.pop("noise") == ["damaged"]  # rows that do not follow each other
    assert reasons.pop("L-MLO.png") == ["inverted-image"]
    # the chest wall may be found on the other side of an inverted image before that is noticed
    assert all(codes in (["inverted"], ["contradictory-laterality"]) for codes in reasons.values()), reasons
    assert all(one.accepted for one in check_path(root, read_pixels=False).files)


def test_pictures_of_a_data_set_are_looked_at_too(tmp_path):
    folder = tmp_path / "exam"
    folder.mkdir()
    picture = (phantom(Projection.MLO_L) >> 4).astype(np.uint8)
    Image.fromarray(255 - picture).save(folder / "L-MLO.png")
    assert [one.code for one in check_path(folder).problems if one.severe] == ["inverted-image"]
    assert check_path(folder, read_pixels=False).usable


def test_headers_alone_do_not_load_torch(tmp_path):
    save_exam(tmp_path)
    code = (
        "import sys; from mammodensity.workflows.check import check_path; "
        "check_path(sys.argv[1], read_pixels=False); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_pipes_dead_links_and_unreadable_files_do_not_stop_a_run(tmp_path):
    save(mammogram(), tmp_path / "good")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    accepted = {entry["path"][-4:]: entry["accepted"] for entry in check_path(tmp_path).to_list()}
    assert accepted == {"good": True, "pipe": False, "link": False}


def test_pipes_named_as_pictures_or_tables_are_never_opened(tmp_path):
    """Opening one would wait for its writer for ever."""
    save(mammogram(), tmp_path / "archive" / "good")
    for place in (tmp_path / "archive", tmp_path / "pictures"):
        place.mkdir(exist_ok=True)
        os.mkfifo(place / "L-MLO.png")
        (place / "R-MLO.png").symlink_to(tmp_path / "nowhere")
        codes = {entry["path"][-9:]: entry["reasons"] for entry in check_path(place).to_list()}
        assert codes["L-MLO.png"][0]["code"] == codes["R-MLO.png"][0]["code"] == "not-dicom"
    with pytest.raises(LayoutError, match="no ordinary file, or a link to nothing"):
        find_images(tmp_path / "pictures")
    with pytest.raises(ImageError, match="no ordinary file"):
        read_image(tmp_path / "pictures" / "L-MLO.png")
    os.mkfifo(tmp_path / "pictures" / "train.csv")
    with pytest.raises(LayoutError, match="RSNA table"):
        find_exams(tmp_path / "pictures", "rsna")


def test_folders_that_cannot_be_listed_are_refused(archive, monkeypatch):
    scandir = os.scandir

    def closed(path):  # root may read everything, so permissions cannot be taken away for a test
        if Path(path).name == "d":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", closed)
    result = check_path(archive, read_pixels=False)
    assert {file.path: [one.code for one in file.reasons] for file in result.files if file.reasons} == {
        archive / "d": ["unreadable-folder"]
    }
    assert [one.path for one in find_images(archive).refused] == [archive / "d"]
    assert result.images == 8


def test_pixels_are_read_only_where_the_header_is_accepted(tmp_path, monkeypatch):
    flipped = np.ascontiguousarray(phantom()[:, ::-1])
    save(mammogram(stored=flipped), tmp_path / "wrong-side")
    save(mammogram(Modality="CT"), tmp_path / "ct")
    assert [file.accepted for file in check_path(tmp_path, read_pixels=False).files] == [False, True]
    result = check_path(tmp_path)
    assert [file.reasons[0].code for file in result.files] == ["not-mammography", "contradictory-laterality"]
    assert not result.usable


def test_predict_and_explain_on_dicom(archive, tiny_model, tmp_path, capsys):
    for arguments in (
        ["predict", archive, "--model", tiny_model, "--csv", tmp_path / "p.csv"],
        ["explain", archive / "d", "--model", tiny_model, "--output", tmp_path / "maps"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(one) for one in arguments])
        assert not stop.value.code, capsys.readouterr().err
    assert (tmp_path / "p.csv").read_text().count("study-") == 3 * 7


def test_twins_score_the_same(tiny_model, tmp_path):
    from mammodensity.models.trained import load_model

    save_exam(tmp_path / "two")
    for number, projection in enumerate(PROJECTIONS):
        ds = mammogram(
            projection,
            4095 - phantom(projection),
            StudyInstanceUID="1.2.3",
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape="INVERSE",
        )
        save(ds, tmp_path / "one" / f"IM{number:04d}")
    model = load_model(tiny_model, "cpu")
    two, one = (model.score(mammodensity.read_exam(tmp_path / name)) for name in ("two", "one"))
    for projection in PROJECTIONS:
        assert np.array_equal(two.projections[projection], one.projections[projection])


def test_dicom_in_a_manifest(tmp_path):
    path = save(mammogram(ImageLaterality=None, ViewPosition=None, ViewCodeSequence=None), tmp_path / "image")
    (tmp_path / "manifest.csv").write_text("exam_id,projection,path,density\n7,CC_R,image,B\n")
    [(exam_id, records)] = find_images(tmp_path).exams().items()
    assert load_exam(exam_id, records).mammograms[Projection.CC_R].path == path
