"""prepare: from an archive to a training set, without a patient's identity."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from dicom_samples import MG_RAW, mammogram, phantom, save, save_exam
from mammodensity.anatomy.outline import find_regions
from mammodensity.data.dataset import ExamSource, ImageRecord, exam_sources, refused_files
from mammodensity.data.find import find_images
from mammodensity.data.images import load_exam
from mammodensity.errors import CheckpointError, Interrupted, OptionError, OutputError
from mammodensity.phantom.exams import PhantomSpec, write_phantoms
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.workflows.check import check_path
from mammodensity.workflows.prepare import find_exams, sources_of
from mammodensity.workflows.training_set import ExportSpec, export_exams, read_preprocess

SALTED = ExportSpec(salt="a secret")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(PhantomSpec(rows=96, seed=5), 4, folder, workers=1)
    return folder


def exported(*arguments, **options) -> Path:
    return export_exams(*arguments, **options).manifest


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_training_set_in_the_origins_folders(phantoms, tmp_path):
    sources = exam_sources(find_images(phantoms))
    manifest = exported(sources, tmp_path / "out", SALTED, workers=1)
    rows = rows_of(manifest)
    assert len(rows) == 16
    assert not (tmp_path / "out" / ".prepare").exists()
    again = find_images(tmp_path / "out")
    assert len(again.exams()) == 4
    for row in rows:
        assert re.fullmatch(rf"{row['projection']}/{row['density']}/\d{{12}}_\d{{12}}_.*\.png", row["path"])
        with Image.open(tmp_path / "out" / row["path"]) as picture:
            assert picture.mode == "L"
            assert picture.height < 96 or picture.width < 77  # cropped to the breast
    originals = {(r.projection, r.category) for r in find_images(phantoms).records}
    assert {(r.projection, r.category) for r in again.records} == originals
    (tmp_path / "out" / "manifest.csv").unlink()
    assert len(find_images(tmp_path / "out").records) == 16  # also as plain folders of the origin's kind


def test_names_become_keys_by_the_salt(phantoms, tmp_path):
    sources = exam_sources(find_images(phantoms))
    spec = ExportSpec(salt="another secret")
    one, same, other = (
        rows_of(exported(sources, tmp_path / name, spec, workers=1))
        for name, spec in (("one", SALTED), ("same", SALTED), ("other", spec))
    )
    assert one == same
    assert {row["exam_id"] for row in one}.isdisjoint(row["exam_id"] for row in other)
    content = b"".join(files_of(tmp_path / "one").values())
    assert b"a secret" not in content
    assert b"0001_1" not in content
    kept = rows_of(exported(sources, tmp_path / "kept", ExportSpec(keep_names=True), workers=1))
    assert {row["exam_id"] for row in kept} == {"0001-1", "0002-1", "0003-1", "0004-1"}


def test_dicom_comes_out_without_identity_and_with_facts(tmp_path):
    save_exam(tmp_path / "archive", study="1.2.840.99", patient="DOE^JANE", Manufacturer="ACME", PatientAge="051Y")
    manifest = exported(exam_sources(find_images(tmp_path / "archive")), tmp_path / "out", workers=1)
    rows = rows_of(manifest)
    assert {row["projection"] for row in rows} == set(PROJECTIONS)
    assert {(row["vendor"], row["age"], row["density"]) for row in rows} == {("ACME", "51", "")}
    assert all(float(row["spacing_mm"]) > 0 for row in rows)
    text = b"".join([*files_of(tmp_path / "out").values(), *(name.encode() for name in files_of(tmp_path / "out"))])
    for secret in (b"DOE", b"JANE", b"1.2.840.99"):
        assert secret not in text


def test_ages_over_89_are_one_class_unless_names_are_kept(tmp_path):
    save_exam(tmp_path / "archive", PatientAge="097Y")
    sources = exam_sources(find_images(tmp_path / "archive"))
    for spec, age in ((SALTED, "90"), (ExportSpec(keep_names=True), "97")):
        rows = rows_of(exported(sources, tmp_path / age, spec, workers=1))
        assert {row["age"] for row in rows} == {age}


def test_what_is_no_age_is_not_copied(phantoms, tmp_path):
    image = next((phantoms / "CC_R" / "B").iterdir())
    for number, (told, age) in enumerate({"097Y": "90", "1931-05-02": "", "61.0": "61.0"}.items()):
        record = ImageRecord("e", "p", Projection.CC_R, image)
        source = ExamSource("e", "p", {Projection.CC_R: record}, facts={"age": told})
        [row] = rows_of(exported([source], tmp_path / str(number), SALTED, workers=1))
        assert row["age"] == age


def test_what_a_table_says_of_a_breast_is_kept(phantoms, tmp_path):
    """The joint network learns from categories of breasts; levels of mini-MIAS are no categories, but not lost."""
    place, names = tmp_path / "vindr", {}
    for projection in PROJECTIONS:
        names[projection] = next((phantoms / projection / "B").iterdir())
        (place / "images" / "s1").mkdir(parents=True, exist_ok=True)
        shutil.copy(names[projection], place / "images" / "s1" / f"{projection}.png")
    rows = [
        f"s1,{one},{one.laterality},{one.view_position},DENSITY {'BC'[one.laterality == 'R']},test"
        for one in Projection
    ]
    header = "study_id,image_id,laterality,view_position,breast_density,split"
    (place / "breast-level_annotations.csv").write_text("\n".join([header, *rows]))
    manifest = exported(sources_of(find_exams(place)), tmp_path / "out", SALTED, workers=1)
    assert {(row["projection"][-1], row["density"], row["breast_density"]) for row in rows_of(manifest)} == {
        ("R", "C", "C"),
        ("L", "C", "B"),
    }
    data = find_images(manifest)
    assert {record.breast_category for record in data.records} == {"B", "C"}
    again = exam_sources(data)
    assert again[0].records[Projection.CC_L].breast_category == "B"
    assert "breast_density" in rows_of(exported(again, tmp_path / "again", SALTED, workers=1))[0]
    mias = tmp_path / "mias"
    mias.mkdir()
    for number, side in ((1, "L"), (2, "R")):
        shutil.copy(names[Projection(f"MLO_{side}")], mias / f"mdb00{number}.png")
    (mias / "Info.txt").write_text("mdb001 G NORM\nmdb002 F NORM\n")
    found = rows_of(exported(sources_of(find_exams(mias)), tmp_path / "levels", SALTED, workers=1))
    assert {(row["projection"], row["density"], row["tissue"], row["breast_tissue"]) for row in found} == {
        ("MLO_L", "", "G", "G"),
        ("MLO_R", "", "G", "F"),
    }
    assert "breast_density" not in found[0]


def test_dates_are_shifted_by_patient_unless_names_are_kept(tmp_path):
    days = {
        "1.2.1": ("P1", "20240115"),
        "1.2.2": ("P1", "2024.02.14"),
        "1.2.3": ("P2", "20240115"),
        "1.2.4": ("P3", "00010101"),
    }
    for study, (patient, day) in days.items():
        ds = mammogram(StudyInstanceUID=study, PatientID=patient, InstanceNumber=int(study[-1]))
        ds.add_new("StudyDate", "LO", day)  # a text, as dates had dots before DICOM 3
        save(ds, tmp_path / "archive" / study)
    sources = exam_sources(find_images(tmp_path / "archive"))
    rows = rows_of(exported(sources, tmp_path / "kept", ExportSpec(keep_names=True), workers=1))
    assert sorted(row["study_date"] for row in rows) == ["", "2024-01-15", "2024-01-15", "2024-02-14"]
    shifted: dict[str, list[date]] = defaultdict(list)
    rows = rows_of(exported(sources, tmp_path / "out", SALTED, workers=1))
    for row in rows:
        if row["shifted_date"]:
            shifted[row["patient_id"]].append(date.fromisoformat(row["shifted_date"]))
    (one,), two = sorted(shifted.values(), key=len)
    assert max(two) - min(two) == timedelta(days=30)
    assert one not in two
    assert all(timedelta(days=31) <= date(2024, 2, 14) - day <= timedelta(days=3680) for day in (one, *two))
    assert rows == rows_of(exported(sources, tmp_path / "again", SALTED, workers=1))
    other = rows_of(exported(sources, tmp_path / "other", ExportSpec(salt="other"), workers=1))
    assert {row["shifted_date"] for row in rows} & {row["shifted_date"] for row in other} == {""}


def test_an_image_stored_mirrored_is_turned(phantoms, tmp_path):
    folder = tmp_path / "exam"
    folder.mkdir()
    source = next((phantoms / "CC_R" / "B").iterdir())
    Image.fromarray(np.asarray(Image.open(source))[:, ::-1]).save(folder / "R-CC.png")
    [row] = rows_of(exported(exam_sources(find_images(folder)), tmp_path / "out", SALTED, workers=1))
    assert row["mirrored"] == "yes"
    [record] = find_images(tmp_path / "out").records
    from mammodensity.data.picture_files import read_picture

    assert find_regions(read_picture(record.path, record.projection)).chest_side == "right"


def pictures_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.name[-8:]: np.asarray(Image.open(path)) for path in folder.rglob("*.png")}


def test_a_dark_dicom_exam_is_prepared_as_the_right_one(tmp_path):
    save_exam(tmp_path / "right", WindowCenter=None, WindowWidth=None)
    save_exam(tmp_path / "dark", WindowCenter=None, WindowWidth=None, BitsStored=16, HighBit=15)
    for name in ("right", "dark"):
        export_exams(exam_sources(find_images(tmp_path / name)), tmp_path / f"{name} out", ExportSpec(salt="s"))
    right, dark = (pictures_of(tmp_path / f"{name} out") for name in ("right", "dark"))
    assert len(right) == 4
    assert all(np.array_equal(right[name], dark[name]) for name in right)


def test_no_picture_of_a_handful_of_grey_levels_is_written(tmp_path):
    for projection in Projection:
        dark = phantom(projection)
        dark[0, 0] = 65535  # a mark, so that the other values are not taken for those of 12 bits
        Image.fromarray(dark).save(tmp_path / f"7_1_{projection}.png")
    sources = exam_sources(find_images(tmp_path))
    export_exams(sources, tmp_path / "out")
    refused = rows_of(tmp_path / "out" / "refused.csv")
    assert [row["code"] for row in refused] == ["grey-scale"] * 4
    assert "grey levels as 8 bit" in refused[0]["text"]
    assert not pictures_of(tmp_path / "out")
    spec = read_preprocess(None)
    export_exams(sources, tmp_path / "full", ExportSpec(replace(spec, depth="full")))
    assert all(len(np.unique(picture)) > 500 for picture in pictures_of(tmp_path / "full").values())


def test_an_unusable_image_is_listed_and_the_others_go_on(phantoms, tmp_path):
    data = find_images(phantoms)
    broken = tmp_path / "JANE_DOE"
    for record in data.records[:8]:
        place = broken / record.projection / record.category / record.path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(record.path.read_bytes())
    place.write_bytes(place.read_bytes()[:300])
    manifest = exported(exam_sources(find_images(broken)), tmp_path / "out", SALTED, workers=1)
    assert len(rows_of(manifest)) == 7
    [refused] = rows_of(tmp_path / "out" / "refused.csv")
    assert refused["code"] == "unreadable"
    assert "JANE_DOE" not in refused["text"]


def test_a_set_of_which_nothing_can_be_used_is_told(phantoms, tmp_path):
    for record in find_images(phantoms).records[:2]:
        place = tmp_path / "broken" / record.projection / record.category / record.path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(record.path.read_bytes()[:300])
    command = [sys.executable, "-m", "mammodensity", "prepare", tmp_path / "broken", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "2 files left out" in done.stderr, done.stderr
    assert {row["code"] for row in rows_of(tmp_path / "out" / "refused.csv")} == {"unreadable"}


def late(folder: Path, name: str, stored: np.ndarray | None = None, **changes: object) -> Path:
    """Another right CC of the study of ``save_exam``, acquired an hour later."""
    ds = mammogram(
        Projection.CC_R, stored, StudyInstanceUID="1.2.3", PatientID="P1", ContentDate="20200101", ContentTime="110000"
    )
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return save(ds, folder / name)


def test_the_next_image_is_taken_where_the_best_cannot_be_used(tmp_path):
    root = tmp_path / "archive"
    good = save_exam(root, ContentDate="20200101", ContentTime="100000")
    late(root, "late", np.full_like(phantom(), 700))
    [(exam_id, records)] = find_images(root).exams().items()
    assert records[Projection.CC_R].path.name == "late"
    assert load_exam(exam_id, records).mammograms[Projection.CC_R].path == good[0]
    by_check = {Path(file.path).name for file in check_path(root).files if file.used}
    assert by_check == {path.name for path in good}
    data = find_images(root)
    rows = rows_of(exported(exam_sources(data), tmp_path / "out", SALTED, refused=refused_files(data), workers=1))
    assert sorted(row["projection"] for row in rows) == sorted(PROJECTIONS)
    [refused] = rows_of(tmp_path / "out" / "refused.csv")
    assert (refused["code"], refused["projection"], refused["path"]) == ("constant", "CC_R", "")


def test_every_file_that_is_not_used_is_listed(tmp_path, run):
    root = tmp_path / "JANE"
    save_exam(root, ContentDate="20200101", ContentTime="100000")
    best = late(root, "late")
    (root / "copy").write_bytes(best.read_bytes())
    save(mammogram(SOPClassUID=MG_RAW), root / "raw")
    (root / "empty").write_bytes(b"")
    (root / "notes.txt").write_text("nothing")
    assert run("prepare", root, tmp_path / "out", "--json", tmp_path / "found.json", "--keep-names")[0] == 0
    rows = rows_of(tmp_path / "out" / "refused.csv")
    assert {Path(row["path"]).name: row["code"] for row in rows} == {
        "raw": "for-processing",
        "empty": "damaged",
        "notes.txt": "not-dicom",
        "IM0000": "other-image-chosen",
        "late": "duplicate",  # of "copy", which comes first
    }
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["summary"] == {"exams": 1, "images": 4, "refused": 3}
    assert set(found["exams"][0]["files"]) == set(PROJECTIONS)
    assert run("prepare", root, tmp_path / "keys")[0] == 0
    text = (tmp_path / "keys" / "refused.csv").read_text()
    assert text.count("\n") == 6
    assert "JANE" not in text


def test_an_interrupted_run_goes_on_to_the_same_files(phantoms, tmp_path):
    sources = exam_sources(find_images(phantoms))

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"2 of 4 exams .* --resume"):
        export_exams(sources, tmp_path / "parts", SALTED, workers=1, progress=stop)
    assert not (tmp_path / "parts" / "manifest.csv").exists()
    with pytest.raises(OutputError, match="already holds files"):
        export_exams(sources, tmp_path / "parts", SALTED, workers=1)
    with pytest.raises(CheckpointError, match="other exams or options"):
        export_exams(sources[:3], tmp_path / "parts", SALTED, resume=True, workers=1)
    export_exams(sources, tmp_path / "parts", ExportSpec(), resume=True, workers=1)  # the salt is remembered
    export_exams(sources, tmp_path / "whole", SALTED, workers=2)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    with pytest.raises(OutputError, match="is finished"):
        export_exams(sources, tmp_path / "parts", SALTED, resume=True)


def test_specs(tmp_path):
    (tmp_path / "spec.json").write_text('{"crop": "none", "pectoral": "leave"}')
    spec = read_preprocess(tmp_path / "spec.json")
    assert (spec.crop, spec.pectoral, spec.depth) == ("none", "leave", "8-bit")
    assert read_preprocess(None).crop == "breast"
    bad = tmp_path / "bad.json"
    for text, told in (
        ("[", "is no JSON text"),
        ("[1]", "holds no JSON object"),
        ('{"crops": "none"}', "unknown entry 'crops'; expected rows, columns"),
        ('{"crop": "half"}', "crop must be one of none, breast. Got 'half' instead"),
        ('{"rows": "650"}', "rows must be a valid integer. Got '650' instead"),
        ('{"rows": 650.5}', "rows must be a valid integer. Got 650.5 instead"),
        ('{"columns": true}', "columns must be a valid integer. Got True instead"),
    ):
        bad.write_text(text)
        with pytest.raises(OptionError, match=re.escape(told)) as error:
            read_preprocess(bad)
        assert str(error.value).startswith(f"--spec {bad}")
    with pytest.raises(OptionError, match="Is a directory"):
        read_preprocess(tmp_path)


def test_the_command(phantoms, tmp_path, run):
    (tmp_path / "spec.json").write_text(json.dumps({"crop": "none", "pectoral": "leave"}))
    code, output, _ = run("prepare", phantoms, tmp_path / "out", "--spec", tmp_path / "spec.json", "--keep-names")
    assert code == 0
    assert "4 exams, 16 images in" in output
    original = next((phantoms / "CC_L" / "D").iterdir())
    prepared = next((tmp_path / "out" / "CC_L" / "D").iterdir())
    assert np.array_equal(np.asarray(Image.open(original)), np.asarray(Image.open(prepared)))
    code, _, error = run("prepare", phantoms, tmp_path / "out")
    assert code == 1
    assert "already holds files" in error
    for out in (phantoms / "out", phantoms, phantoms.parent):
        code, _, error = run("prepare", phantoms, out)
        assert code == 1
        assert "lie one within the other" in error
    assert not (phantoms / "out").exists()


def test_input_that_changed_is_not_resumed(phantoms, tmp_path):
    shutil.copytree(phantoms, tmp_path / "data")
    sources = exam_sources(find_images(tmp_path / "data"))

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        export_exams(sources, tmp_path / "out", SALTED, workers=1, progress=stop)
    image = sources[0].records[PROJECTIONS[0]].path
    os.utime(image, (1, 1))
    with pytest.raises(CheckpointError, match="image files have changed"):
        export_exams(sources, tmp_path / "out", SALTED, resume=True, workers=1)


SLEEPERS = """
import time
from mammodensity.workers import in_workers
if __name__ == "__main__":
    print("begun", flush=True)
    list(in_workers(time.sleep, [120, 120], 2))
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    with subprocess.Popen([sys.executable, str(tmp_path / "sleepers.py")], stdout=subprocess.PIPE) as parent:
        children: list[psutil.Process] = []
        while len(children) < 3:  # two workers, and Python's own tracker
            time.sleep(0.05)
            children = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(1)  # until they are at work
        parent.kill()
        parent.wait()
        gone, alive = psutil.wait_procs(children, timeout=30)
    assert len(gone) == 3
    assert alive == []
