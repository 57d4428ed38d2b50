"""Public data sets: each adapter on a synthetic table with the true column names and quirks; `prepare --dry-run`."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import openpyxl
import pytest

from mammodensity.data.public.adapters import ADAPTERS, column_spec
from mammodensity.data.public.image_files import FileList
from mammodensity.errors import InputError, LayoutError, OptionError, TableError
from mammodensity.terms import PROJECTIONS, Projection
from mammodensity.workflows.prepare import DATA_SETS, FoundExams, find_exams
from samples import REPOSITORY, write_blobs

PACKAGE = REPOSITORY / "src" / "mammodensity" / "data" / "public"
PAGE = REPOSITORY / "docs" / "public-data.md"

VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]


def table(header: list[str], rows: list[list[object]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")


def left_out(found: FoundExams) -> dict[tuple[str, str], int]:
    return {(reason.code, reason.unit): reason.count for reason in found.data.left_out}


def notes(found: FoundExams) -> dict[str, int]:
    return dict(sum((Counter({reason.code: reason.count}) for reason in found.data.notes), Counter()))


def by_id(found: FoundExams) -> dict[str, dict]:
    return {exam["exam_id"]: exam for exam in found.to_dict()["exams"]}


def file_of(found: FoundExams, exam_id: str, projection: str) -> str | None:
    path = found.files.get((exam_id, Projection(projection)))
    return str(path.relative_to(found.root)) if path else None


# --- VinDr-Mammo ----------------------------------------------------------------------------------------------------

VINDR = [
    *("study_id", "series_id", "image_id", "laterality", "view_position", "height", "width"),
    *("breast_birads", "breast_density", "split"),
]


def vindr_rows() -> list[list[object]]:
    rows: list[list[object]] = []
    for study, left, right, split in (
        ("s1", "B", "B", "training"),
        ("s2", "C", "B", "training"),
        ("s3", "D", "D", "test"),
    ):
        for side, view in VIEWS:
            density = f"DENSITY {left if side == 'L' else right}"
            rows.append([study, "x", f"{study}{side}{view}", side, view, 3518, 2800, "BI-RADS 2", density, split])
    assert rows[9][4] == "MLO"
    rows[9][4] = "CC"  # the study with two LCC and no LMLO
    return rows


def test_vindr(tmp_path):
    write(tmp_path / "tables" / "breast-level_annotations.csv", table(VINDR, vindr_rows()))
    write(tmp_path / "tables" / "finding_annotations.csv", table([*VINDR, "finding_categories"], []))
    write(tmp_path / "tables" / "metadata.csv", "SOP Instance UID,Patient's Age,Manufacturer\ns1LCC,053Y,SIEMENS\n")
    touch(tmp_path / "images" / "s1" / "s1LCC.dicom", tmp_path / "images" / "s1" / "s1RCC.png")
    found = find_exams(tmp_path)
    assert found.data.dataset == "vindr"
    exams = by_id(found)
    assert [exams[name]["density"] for name in ("s1", "s2", "s3")] == ["B", "C", "D"]
    assert (exams["s2"]["density_right"], exams["s2"]["density_left"]) == ("B", "C")
    assert [exams[name]["split"] for name in ("s1", "s2", "s3")] == ["train", "train", "test"]
    assert exams["s3"]["projections"] == ["CC_R", "CC_L", "MLO_R"]
    assert exams["s3"]["images"]["CC_L"] == "s3LCC"
    assert exams["s1"]["facts"] == {"age": "53", "vendor": "SIEMENS"}
    assert left_out(found) == {("second-image", "images"): 1}
    assert notes(found) == {"breasts-differ": 1}
    assert file_of(found, "s1", "CC_L") == "images/s1/s1LCC.dicom"
    assert file_of(found, "s1", "CC_R") == "images/s1/s1RCC.png"
    summary = found.summary()
    assert (summary["files_found"], summary["files_absent"], summary["images"]) == (2, 9, 11)
    assert summary["by_category"] == {"B": 1, "C": 1, "D": 1}
    assert summary["images_by_category"] == {"B": 6, "C": 2, "D": 3}
    assert summary["complete_exams"] == 2


def test_of_two_images_the_larger_is_taken_whatever_the_order_of_rows(tmp_path):
    rows = vindr_rows()
    rows[9][5] = 4000
    for order in (rows, rows[::-1]):
        write(tmp_path / "breast-level_annotations.csv", table(VINDR, order))
        assert by_id(find_exams(tmp_path, "vindr"))["s3"]["images"]["CC_L"] == "s3LMLO"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace("\n", ",,\n"),
        lambda text: text.replace("_", " ").replace("study id", " Study_ID "),
        lambda text: text.replace("DENSITY ", "density "),
        lambda text: text.replace(",L,", ",Left ,").replace(",R,", ",right,"),
        lambda text: "Breast-level annotations\n\n" + text + "\n\n",
        lambda text: "\n".join(",".join(reversed(line.split(","))) for line in text.splitlines()),
    ],
    ids=["bom", "windows", "semicolon", "trailing", "names", "case", "words", "title", "order"],
)
def test_harmless_differences_of_tables_change_nothing(tmp_path, change):
    plain = write(tmp_path / "a" / "breast-level_annotations.csv", table(VINDR, vindr_rows()))
    write(tmp_path / "b" / "renamed.csv", change(plain.read_text()))
    assert by_id(find_exams(tmp_path / "b", "vindr")) == by_id(find_exams(tmp_path / "a", "vindr"))


# --- RSNA -----------------------------------------------------------------------------------------------------------

RSNA = [
    *("site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy", "invasive", "BIRADS"),
    *("implant", "density", "machine_id", "difficult_negative_case"),
]


def rsna_rows() -> list[list[object]]:
    rows: list[list[object]] = []
    for site, patient, density in ((1, 10006, "B"), (1, 10011, "A"), (2, 10025, ""), (2, 10038, "")):
        for number, (side, view) in enumerate(VIEWS):
            image = patient * 10 + number
            rows.append([site, patient, image, side, view, "61.0", 0, 0, 0, "", 0, density, 29, "False"])
    for number, view in enumerate(("AT", "LM", "ML", "LMO", "CC")):
        rows.append([1, 10006, 900000 + number, "L", view, "61.0", 0, 0, 0, "", 0, "B", 29, "False"])
    rows[4][10] = 1  # an implant
    return rows


def test_rsna(tmp_path):
    write(tmp_path / "train.csv", table(RSNA, rsna_rows()))
    touch(tmp_path / "train_images" / "10006" / "100060.dcm", tmp_path / "png" / "10006_100062.png")
    found = find_exams(tmp_path)
    exams = by_id(found)
    assert list(exams) == ["10006", "10011"]
    assert exams["10006"]["density"] == exams["10006"]["density_left"] == "B"
    assert exams["10006"]["images"]["CC_L"] == "100060"
    assert exams["10006"]["facts"] == {"age": "61", "site": "1", "machine": "29"}
    assert exams["10011"]["facts"]["implant"] == "yes"
    assert exams["10006"]["split"] is None
    assert left_out(found) == {
        ("other-view", "images"): 1,  # the last of four, each of another text
        ("second-image", "images"): 1,
        ("no-density", "exams"): 2,
        ("no-density", "images"): 8,
    }
    texts = [reason.text for reason in found.data.left_out]
    assert all(any(f"view {view} " in text for text in texts) for view in ("AT", "LM", "ML", "LMO"))
    assert any("site 2: leaving blanks out leaves out the whole site" in text for text in texts)
    assert notes(found)["blank-density"] == 8
    assert file_of(found, "10006", "CC_L") == "train_images/10006/100060.dcm"
    assert file_of(found, "10006", "CC_R") == "png/10006_100062.png"
    kept = find_exams(tmp_path, keep_unlabelled=True)
    assert kept.summary()["by_category"] == {"A": 1, "B": 1, "none": 2}


def test_the_order_of_rows_decides_nothing(tmp_path):
    rows = [[*row[:5], f"{50 + number}.0", *row[6:]] for number, row in enumerate(rsna_rows())]
    write(tmp_path / "a" / "train.csv", table(RSNA, rows))
    write(tmp_path / "b" / "train.csv", table(RSNA, rows[::-1]))
    assert find_exams(tmp_path / "a").to_dict()["exams"] == find_exams(tmp_path / "b").to_dict()["exams"]


# --- CBIS-DDSM ------------------------------------------------------------------------------------------------------

MASS = [
    *("patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type"),
    *("mass shape", "mass margins", "assessment", "pathology", "subtlety", "image file path"),
    *("cropped image file path", "ROI mask file path"),
]
CALC = [{"breast_density": "breast density"}.get(name, name) for name in MASS]


def cbis_row(kind: str, patient: str, side: str, view: str, density: object, *, finding: int = 1) -> list[object]:
    path = f"{kind}_{patient}_{side}_{view}/1.3.6.1.{len(side)}/1.3.6.2.{patient}{side}{view}/000000.dcm"
    crop = f"{kind}_{patient}_{side}_{view}_{finding}/1.3.6.3/1.3.6.4/000001.dcm\n"
    return [patient, density, side, view, finding, "x", "OVAL", "ILL", 4, "BENIGN", 3, path, crop, crop]


def write_cbis(folder: Path) -> None:
    mass, calc = "Mass-Training", "Calc-Training"
    tables = {
        "mass_case_description_train_set.csv": [
            cbis_row(mass, "P_00001", "LEFT", "CC", 3),
            cbis_row(mass, "P_00001", "LEFT", "CC", 3, finding=2),
            cbis_row(mass, "P_00001", "LEFT", "MLO", 3),
            cbis_row(mass, "P_00002", "RIGHT", "MLO", 4),
            cbis_row(mass, "P_00005", "RIGHT", "CC", 1),
            cbis_row(mass, "P_00005", "RIGHT", "MLO", 2),
        ],
        "mass_case_description_test_set.csv": [cbis_row("Mass-Test", "P_00003", "LEFT", "CC", 1)],
        "calc_case_description_train_set.csv": [
            cbis_row(calc, "P_00003", "LEFT", "CC", 1),
            cbis_row(calc, "P_00004", "LEFT", "CC", 0),
        ],
        "calc_case_description_test_set.csv": [cbis_row("Calc-Test", "P_00006", "LEFT", "CC", 2)],
    }
    tables["mass_case_description_train_set.csv"][0][11] += "\n"
    for name, rows in tables.items():
        write(folder / name, table(MASS if name.startswith("mass") else CALC, rows))


def test_cbis_ddsm(tmp_path):
    write_cbis(tmp_path / "csv")
    archive = tmp_path / "CBIS-DDSM"
    full = "1.000000-full mammogram images-24515"
    touch(archive / "Mass-Training_P_00001_LEFT_CC" / "07-20-2016-DDSM-NA-74994" / full / "1-1.dcm")
    touch(archive / "Mass-Training_P_00001_LEFT_CC_1" / "07-20-2016-DDSM-NA-1" / "1.0-cropped images-1" / "1-1.dcm")
    touch(tmp_path / "jpeg" / "1.3.6.2.P_00002RIGHTMLO" / "1-249.jpg")
    found = find_exams(tmp_path)
    exams = by_id(found)
    assert list(exams) == ["P_00001", "P_00002", "P_00003", "P_00006"]
    assert [exam["density"] for exam in exams.values()] == ["C", "D", "A", "B"]
    assert [exam["split"] for exam in exams.values()] == ["train", "train", "test", "test"]
    assert exams["P_00001"]["projections"] == ["CC_L", "MLO_L"]
    assert exams["P_00001"]["density_right"] is None
    assert exams["P_00003"]["images"]["CC_L"].startswith("Mass-Test_P_00003")
    assert left_out(found) == {
        ("second-image", "images"): 1,
        ("no-density", "exams"): 1,
        ("no-density", "images"): 1,
        ("contradicting-density", "exams"): 1,
        ("contradicting-density", "images"): 2,
    }
    assert notes(found) == {"rows-merged": 1, "split-differs": 1, "blank-density": 1}
    assert "full mammogram" in (file_of(found, "P_00001", "CC_L") or "")
    assert file_of(found, "P_00002", "MLO_R") == "jpeg/1.3.6.2.P_00002RIGHTMLO/1-249.jpg"
    assert file_of(found, "P_00001", "MLO_L") is None


def test_cbis_ddsm_with_tables_missing_or_contradicting(tmp_path):
    write_cbis(tmp_path)
    (tmp_path / "calc_case_description_test_set.csv").unlink()
    path = tmp_path / "mass_case_description_train_set.csv"
    rows = [cbis_row("Mass-Training", patient, "LEFT", "CC", 3) for patient in ("P_00001", "P_00002")]
    rows[1][2] = "RIGHT"
    write(path, table(MASS, rows))
    found = find_exams(tmp_path)
    assert notes(found)["table-absent"] == 1
    assert left_out(found)["contradicting-rows", "rows"] == 1
    assert "P_00002" not in by_id(found)
    write(tmp_path / "copy" / path.name, table(MASS, rows[:1]))
    with pytest.raises(LayoutError, match="both the mass train table and differ"):
        find_exams(tmp_path)


# --- DDSM -----------------------------------------------------------------------------------------------------------

ICS = """ics_version 1.0
filename {case}
DATE_OF_STUDY 2 7 1995
PATIENT_AGE 42
FILM
FILM_TYPE REGULAR
DENSITY {density}
DATE_DIGITIZED 7 22 1997
DIGITIZER LUMISYS LASER
SELECTED
LEFT_CC LINES 4696 PIXELS_PER_LINE 3024 BITS_PER_PIXEL 12 RESOLUTION 50 OVERLAY
LEFT_MLO LINES 4688 PIXELS_PER_LINE 3048 BITS_PER_PIXEL 12 RESOLUTION 50 OVERLAY
RIGHT_CC LINES 4624 PIXELS_PER_LINE 3056 BITS_PER_PIXEL 12 RESOLUTION 50 NON_OVERLAY
RIGHT_MLO LINES 4664 PIXELS_PER_LINE 3120 BITS_PER_PIXEL 12 RESOLUTION 50 NON_OVERLAY
"""


def test_ddsm(tmp_path):
    for case, density in (("A-0018-1", 3), ("B-3024-1", 4), ("D-4164-1", 0)):
        write(tmp_path / case / f"{case}.ics", ICS.format(case=case, density=density).replace("\n", "\r\n"))
    write(tmp_path / "D-4165-1.ics", ICS.format(case="D-4165-1", density=0).replace("DENSITY 0\n", ""))
    write(tmp_path / "copy" / "A-0018-1.ics", ICS.format(case="A-0018-1", density=3).replace("FILM\n", "FILM \n\n"))
    write(tmp_path / "calendar.ics", "BEGIN:VCALENDAR")
    touch(tmp_path / "A-0018-1" / "A_0018_1.LEFT_CC.LJPEG", tmp_path / "png" / "A_0018_1.RIGHT_MLO.png")
    touch(tmp_path / "png" / "B-3024-1.LEFT_CC.LJPEG.1.jpg", tmp_path / "png" / "A_0018_11.LEFT_MLO.png")
    found = find_exams(tmp_path)
    exams = by_id(found)
    assert {name: exam["density"] for name, exam in exams.items()} == {"A_0018_1": "C", "B_3024_1": "D"}
    assert exams["A_0018_1"]["patient_id"] == "A_0018"
    assert exams["A_0018_1"]["density_right"] is None, "a case has one density"
    assert exams["A_0018_1"]["facts"] == {"site": "A", "age": "42", "vendor": "LUMISYS LASER", "spacing_um": "50"}
    assert exams["B_3024_1"]["projections"] == [projection.value for projection in PROJECTIONS]
    assert left_out(found) == {
        ("no-density", "exams"): 2,
        ("no-density", "images"): 8,
        ("not-a-case", "files"): 1,
        ("repeated-case", "files"): 1,
    }
    assert notes(found) == {"blank-density": 2}
    assert file_of(found, "A_0018_1", "MLO_R") == "png/A_0018_1.RIGHT_MLO.png"
    assert file_of(found, "B_3024_1", "CC_L") == "png/B-3024-1.LEFT_CC.LJPEG.1.jpg"
    assert file_of(found, "A_0018_1", "CC_L") is None, "an LJPEG has to be converted"
    assert len(found.files) == 2


@pytest.mark.parametrize("first", ["benigns", "x_benigns"])
def test_ddsm_never_mixes_two_women_of_one_case_name(tmp_path, first):
    benign, cancer = tmp_path / first / "benign_10" / "case1500", tmp_path / "cancers" / "cancer_13" / "case1500"
    case = ICS.format(case="A-1500-1", density=4)
    write(benign / "A-1500-1.ics", case)
    write(cancer / "A-1500-1.ics", ICS.format(case="A-1500-1", density=2).replace("AGE 42", "AGE 72"))
    touch(cancer / "A_1500_1.LEFT_CC.png")
    touch(tmp_path / "A_1500_1.RIGHT_CC.png")
    write(cancer / "A-1500-2.ics", ICS.format(case="A-1500-2", density=1))
    found = find_exams(tmp_path, "ddsm")
    exams = by_id(found)
    assert {name: (exam["density"], exam["patient_id"], exam["facts"]["age"]) for name, exam in exams.items()} == {
        "A_1500_1-benign_10": ("D", "A_1500-benign_10", "42"),
        "A_1500_1-cancer_13": ("B", "A_1500-cancer_13", "72"),
        "A_1500_2": ("A", "A_1500-cancer_13", "42"),
    }
    assert (notes(found)["repeated-name"], left_out(found)) == (2, {})
    [(exam, path)] = [(key[0], path.parent) for key, path in found.files.items()]
    assert (exam, path) == ("A_1500_1-cancer_13", cancer), "a picture outside of the volumes may be of either woman"
    (tmp_path / "A_1500_1.RIGHT_CC.png").unlink()
    (cancer / "A-1500-2.ics").unlink()
    another = cancer / "again" / "A-1500-1.ics"
    write(another, ICS.format(case="A-1500-1", density=1))
    with pytest.raises(LayoutError, match=r"the \.ics files of each case differ \(A_1500_1\)"):
        find_exams(tmp_path, "ddsm")
    write(tmp_path / "benigns" / "benign_11" / "A-0018-1.ics", ICS.format(case="A-0018-1", density=3))
    found = find_exams(tmp_path, "ddsm")
    assert set(by_id(found)) == {"A_0018_1"}
    assert left_out(found) == {("contradicting-case", "files"): 3}
    (cancer / "A-1500-1.ics").unlink()
    another.unlink()
    found = find_exams(tmp_path, "ddsm")
    assert by_id(found)["A_1500_1"]["facts"]["age"] == "42"
    assert found.files == {}, "the picture is of another volume, so of another woman"
    touch(benign / "A_1500_1.LEFT_CC.png", tmp_path / "png" / "A_1500_1.LEFT_CC.png")
    touch(tmp_path / "png" / "A_1500_1.RIGHT_CC.png")
    found = find_exams(tmp_path, "ddsm")
    assert file_of(found, "A_1500_1", "CC_L") == f"{first}/benign_10/case1500/A_1500_1.LEFT_CC.png"
    assert file_of(found, "A_1500_1", "CC_R") == "png/A_1500_1.RIGHT_CC.png"
    write(tmp_path / "tables" / "A-1500-1.ics", case)
    images = tmp_path / "images"
    for volume in ("benign_10", "cancer_13"):
        touch(images / volume / "A_1500_1.LEFT_CC.png")
    assert find_exams(images, "ddsm", tables=tmp_path / "tables").files == {}, "nothing tells whose it is"


# --- INbreast -------------------------------------------------------------------------------------------------------

INBREAST = ["Patient ID", "Patient age", "Laterality", "View", "Acquisition date", "File Name", "ACR", "Bi-Rads"]


def inbreast_rows() -> list[list[object]]:
    rows: list[list[object]] = []
    for first, density, date in ((20586908, "4", "201001"), (22678622, "1 ", "201002")):
        for number, (side, view) in enumerate(VIEWS):
            rows.append(["removed", "removed", side, view, date, first + 24 * number, density, "2"])
    rows.append(["removed", "removed", "R", "FB", "201002", 22700000, "1", "2"])
    rows.append(["removed", "removed", "L", "CC", "201003", 24000000, "     ", "4a"])
    return rows


def inbreast_dicoms(folder: Path) -> None:
    for first, patient in ((20586908, "6c613a14"), (22678622, "036aff49")):
        for number, (side, view) in enumerate(VIEWS):
            name = f"{first + 24 * number}_{patient}_MG_{side}_{view.removesuffix('O')}_ANON.dcm"
            touch(folder / "AllDICOMs" / name)


def test_inbreast_with_its_files(tmp_path):
    write(tmp_path / "INbreast.csv", table(INBREAST, inbreast_rows(), ";"))
    inbreast_dicoms(tmp_path)
    found = find_exams(tmp_path)
    exams = by_id(found)
    assert {name: exam["density"] for name, exam in exams.items()} == {"036aff49_1": "A", "6c613a14_1": "D"}
    assert all(len(exam["projections"]) == 4 for exam in exams.values())
    assert exams["6c613a14_1"]["patient_id"] == "6c613a14"
    assert exams["6c613a14_1"]["density_left"] == "D"
    assert not any("2010" in str(exam["exam_id"]) for exam in exams.values()), "no dates"
    assert file_of(found, "6c613a14_1", "CC_L") == "AllDICOMs/20586908_6c613a14_MG_L_CC_ANON.dcm"
    assert file_of(found, "6c613a14_1", "MLO_R") == "AllDICOMs/20586980_6c613a14_MG_R_ML_ANON.dcm"
    assert found.summary()["files_absent"] == 0
    assert left_out(found) == {
        ("other-view", "images"): 1,
        ("no-image", "exams"): 1,
        ("no-density", "exams"): 1,
        ("no-density", "images"): 1,
    }


def test_inbreast_writes_ml_for_mlo(tmp_path):
    rows = [[*row[:3], str(row[3]).removesuffix("O"), *row[4:]] for row in inbreast_rows()]
    write(tmp_path / "INbreast.csv", table(INBREAST, rows, ";"))
    inbreast_dicoms(tmp_path)
    exams = by_id(find_exams(tmp_path))
    assert all(exam["projections"] == [projection.value for projection in PROJECTIONS] for exam in exams.values())


def test_inbreast_table_alone_guesses_no_exams(tmp_path):
    write(tmp_path / "INbreast.csv", table(INBREAST, inbreast_rows(), ";"))
    found = find_exams(tmp_path, "inbreast")
    assert found.summary()["exams"] == found.summary()["images"] == 8
    assert notes(found) == {"patient-unknown": 10, "blank-density": 1}
    assert found.summary()["by_category"] == {"A": 4, "D": 4}


@pytest.mark.parametrize("form", ["INbreast.xlsx", "export.csv"])
def test_inbreast_spreadsheet(tmp_path, form):
    header = [*INBREAST[:6], "Pectoral Muscle Annotation", "ACR", "Bi-Rads", "Mass ", "Micros", ""]
    rows = [[*row[:5], float(row[5]), "", row[6], row[7], "X", "", ""] for row in inbreast_rows()]
    totals = [["", "", "", "", "", 410, 410, 5, "", 116, 308, ""], ["", "", "", "", "", "", "", "", "", 0.28, 0.75, ""]]
    if form.endswith(".csv"):
        write(tmp_path / form, table(header, [*rows, *totals]))
    else:
        book = openpyxl.Workbook()
        for row in [header, *rows, *totals]:
            assert book.active is not None
            book.active.append([cell if cell != "" else None for cell in row])
        book.save(tmp_path / form)
    inbreast_dicoms(tmp_path)
    found = find_exams(tmp_path, "inbreast")
    assert left_out(found)["no-file", "rows"] == 2
    assert found.summary()["by_category"] == {"A": 1, "D": 1}


def test_inbreast_old_spreadsheet(tmp_path):
    """Header, two images and two closing rows, as saved by a program that writes ``.xls``."""
    shutil.copy(REPOSITORY / "tests" / "files" / "INbreast.xls", tmp_path)
    found = find_exams(tmp_path)
    assert {name: exam["density"] for name, exam in by_id(found).items()} == {"20586908": "D"}
    assert left_out(found)["no-file", "rows"] == 2
    assert notes(found) == {"blank-density": 1, "patient-unknown": 2}


@pytest.mark.parametrize("content", [b"\xd0\xcf\x11\xe0" + bytes(100), b"PK\x03\x04 no archive"])
def test_spreadsheets_that_cannot_be_read(tmp_path, content):
    (tmp_path / "INbreast.xls").write_bytes(content)
    with pytest.raises(TableError, match="not a readable spreadsheet"):
        find_exams(tmp_path, "inbreast")


# --- EMBED ----------------------------------------------------------------------------------------------------------

CLINICAL = ["empi_anon", "acc_anon", "study_date_anon", "age_at_study", "side", "tissueden", "asses"]
METADATA = [
    *("empi_anon", "acc_anon", "anon_dicom_path", "FinalImageType", "ImageLateralityFinal", "ViewPosition"),
    *("spot_mag", "Manufacturer", "ManufacturerModelName"),
]


def write_embed(folder: Path) -> None:
    clinical = [
        [11, 101, "2015-01-01", 55.0, "L", 2.0, "N"],
        [11, 101, "2015-01-01", 55.0, "R", 2.0, "B"],
        [12, 102, "2016-01-01", 61.0, "B", 5.0, "N"],
        [13, 103, "2016-01-01", 48.0, "B", "", "N"],
        [14, 104, "2017-01-01", 48.0, "B", 3.0, "N"],
    ]
    images: list[list[object]] = []
    for patient, exam in ((11, 101), (12, 102), (13, 103)):
        for number, (side, view) in enumerate(VIEWS):
            path = f"/mnt/NAS2/mammo/anon_dicom/cohort_1/{patient}/1.2.{exam}/1.3.{exam}/{number}.dcm"
            images.append([patient, exam, path, "2D", side, view, "", "HOLOGIC, Inc.", "Selenia Dimensions"])
    base = "/mnt/NAS2/mammo/anon_dicom/cohort_1/11/1.2.101/1.3.9/"
    for path, kind, view, spot in (
        *((f"{base}0.dcm", "2D", "CC", ""), (f"{base}7.dcm", "cview", "CC", ""), (f"{base}8.dcm", "2D", "CC", "1")),
        *((f"{base}9.dcm", "2D", "", "0.0"), ("", "2D", "CC", "")),
    ):
        images.append([11, 101, path, kind, "L", view, spot, "HOLOGIC, Inc.", "Selenia Dimensions"])
    write(folder / "EMBED_OpenData_clinical.csv", table(CLINICAL, clinical))
    write(folder / "EMBED_OpenData_metadata.csv", table(METADATA, images))
    write(folder / "AWS_Open_Data_Clinical_Legend.csv", "Header in export,Description\nacc_anon,accession\n")


def test_embed(tmp_path):
    write_embed(tmp_path / "tables")
    touch(tmp_path / "images" / "cohort_1" / "11" / "1.2.101" / "1.3.101" / "0.dcm")
    touch(tmp_path / "images" / "cohort_1" / "11" / "1.2.101" / "1.3.9" / "0.dcm")
    found = find_exams(tmp_path)
    exams = by_id(found)
    assert list(exams) == ["101"]
    assert (exams["101"]["density"], exams["101"]["density_left"], exams["101"]["patient_id"]) == ("B", None, "11")
    assert exams["101"]["facts"] == {"age": "55.0", "vendor": "HOLOGIC, Inc.", "model": "Selenia Dimensions"}
    assert file_of(found, "101", "CC_L") == "images/cohort_1/11/1.2.101/1.3.9/0.dcm"
    assert left_out(found) == {
        ("image-type", "images"): 1,
        ("spot-magnification", "images"): 1,
        ("no-file", "images"): 1,
        ("other-view", "images"): 1,
        ("male", "images"): 4,
        ("second-image", "images"): 1,
        ("no-density", "exams"): 1,
        ("no-density", "images"): 4,
    }
    assert notes(found) == {"no-metadata": 1}, "a man is counted as such"
    contents = (tmp_path / "tables" / "EMBED_OpenData_metadata.csv").read_text()
    write(tmp_path / "tables" / "EMBED_OpenData_metadata.csv", contents.replace("13,103,", "12,103,", 1))
    found = find_exams(tmp_path)
    assert left_out(found)["two-patients", "images"] == 1, "the clinical table has another patient"
    assert left_out(found)["no-density", "images"] == 3
    (tmp_path / "tables" / "EMBED_OpenData_metadata.csv").unlink()
    with pytest.raises(LayoutError, match="EMBED metadata table"):
        find_exams(tmp_path)


# --- mini-MIAS ------------------------------------------------------------------------------------------------------

MIAS = """REFNUM BG CLASS SEVERITY X Y RADIUS
mdb001 G CIRC B 535 425 197
mdb002 G CIRC B 522 280 69
mdb003 D NORM
mdb004 D NORM
mdb005 F CIRC B 477 133 30
mdb005 F CIRC B 500 168 26
mdb006 G NORM
mdb059 F CIRC B *NOTE 3*
"""


@pytest.mark.parametrize("name", ["Info.txt", "README"])
def test_mini_mias(tmp_path, name):
    write(tmp_path / name, "mdb stands for database.\r\n" + MIAS.replace("\n", " \r\n"))
    touch(tmp_path / "all-mias" / "mdb001.pgm", tmp_path / "all-mias" / "mdb005.png")
    found = find_exams(tmp_path, "mini-mias")
    exams = by_id(found)
    assert list(exams) == ["mdb001-002", "mdb003-004", "mdb005-006", "mdb059-060"]
    assert all(exam["density"] is None for exam in exams.values()), "F, G and D are no density categories"
    assert (exams["mdb005-006"]["tissue_left"], exams["mdb005-006"]["tissue_right"]) == ("F", "G")
    assert exams["mdb001-002"]["images"] == {"MLO_R": "mdb002", "MLO_L": "mdb001"}
    assert exams["mdb001-002"]["mirrored"] is True
    assert found.summary()["images_by_tissue"] == {"D": 2, "F": 2, "G": 3}
    assert found.summary()["by_projection"] == {"CC_R": 0, "CC_L": 0, "MLO_R": 3, "MLO_L": 4}
    assert left_out(found) == {}
    assert notes(found) == {"rows-merged": 1, "breasts-differ": 1}
    assert exams["mdb005-006"]["tissue"] == "G", "that of the denser breast"
    assert file_of(found, "mdb001-002", "MLO_L") == "all-mias/mdb001.pgm"
    assert len(found.files) == 2


def test_mini_mias_rows_that_differ_in_tissue(tmp_path):
    write(tmp_path / "Info.txt", "mdb001 G NORM\nmdb001 F CIRC B 5 4 9\nmdb002 G NORM\n")
    found = find_exams(tmp_path, "mini-mias")
    assert notes(found) == {"contradicting-tissue": 1, "rows-merged": 1}
    exam = by_id(found)["mdb001-002"]
    assert (exam["tissue_left"], exam["tissue_right"]) == (None, "G")
    assert found.summary()["images_by_tissue"] == {"G": 1}


# --- INFN folders, and any table ------------------------------------------------------------------------------------


def test_infn_folders(tmp_path):
    write_blobs(tmp_path, 4, split_level=True)
    write(tmp_path / "CC_R" / "notes.txt", "no image")
    found = find_exams(tmp_path)
    assert found.data.dataset == "origin"
    assert found.summary()["by_category"] == {"A": 1, "B": 1, "C": 1, "D": 1}
    assert found.summary()["by_split"] == {"train": 4}
    assert (found.summary()["files_found"], found.summary()["complete_exams"]) == (16, 4)
    assert left_out(found) == {("no-image-file", "files"): 1}


CSV_SPEC = "exam_id=StudyID,patient_id=Pat,density=acr,path=File,laterality=Side,view=View"


def test_csv_with_columns_named(tmp_path):
    rows = [["7", "P", "L", "CC", "2", "a.png", "x"], ["7", "P", "r", "mlo", "3.0", "b.png", "x"]]
    rows += [["8", "P", "L", "CC", "9", "c.png", "x"], ["8", "P", "L", "ML", "2", "d.png", "x"]]
    write(tmp_path / "own.csv", table(["StudyID", "Pat", "Side", "View", "acr", "File", "more"], rows, "\t"))
    touch(tmp_path / "a.png")
    found = find_exams(tmp_path, "csv", columns=column_spec(CSV_SPEC, "1=A,2=B,3=c,9="))
    assert by_id(found)["7"]["density"] == "C"
    assert by_id(found)["7"]["density_left"] == "B"
    assert by_id(found)["7"]["patient_id"] == "P"
    assert file_of(found, "7", "CC_L") == "a.png"
    assert left_out(found) == {("other-view", "images"): 1, ("no-density", "exams"): 1, ("no-density", "images"): 1}
    assert find_exams(tmp_path, "csv", tables=tmp_path / "own.csv", columns=column_spec(CSV_SPEC, "2=B,3=C,9="))
    with pytest.raises(TableError, match=r"line 2: acr is '2'; say what it means with --values"):
        find_exams(tmp_path, "csv", columns=column_spec(CSV_SPEC, None))
    with pytest.raises(TableError, match=r"line 4: acr is '9'; expected 1, 2, 3 or nothing"):
        find_exams(tmp_path, "csv", columns=column_spec(CSV_SPEC, "1=A,2=B,3=C"))


def test_csv_with_values_in_words(tmp_path):
    rows = [["7", "CC_R", "a.png", "DENSITY B"], ["8", "CC_R", "b.png", "Extremely dense"]]
    write(tmp_path / "own.csv", table(["exam_id", "projection", "path", "density"], rows))
    found = find_exams(tmp_path, "csv", columns=column_spec(None, "density b=B,extremely dense=D"))
    assert [exam["density"] for exam in by_id(found).values()] == ["B", "D"]


def test_csv_with_the_columns_of_a_manifest(tmp_path):
    write(tmp_path / "own.csv", "exam_id,projection,path,density,split\n7,CC_R,a.png,A,val\n7,L-MLO,b.png,A,val\n")
    exam = by_id(find_exams(tmp_path, "csv"))["7"]
    assert (exam["projections"], exam["split"], exam["density"]) == (["CC_R", "MLO_L"], "validation", "A")
    rows = "7,p,CC_R,a.png,A\n7,q,CC_L,b.png,A\n8,p,CC_R,c.png,A\n"
    write(tmp_path / "own.csv", f"exam_id,patient_id,projection,path,density\n{rows}")
    found = find_exams(tmp_path, "csv")
    assert list(by_id(found)) == ["8"]
    assert left_out(found) == {("two-patients", "exams"): 1, ("two-patients", "images"): 2}
    write(tmp_path / "own.csv", "exam_id,projection,path\n7,CC_R,a.png\n7,CC_L,a.png\n7,CC_L,b.png\n")
    found = find_exams(tmp_path, "csv", keep_unlabelled=True)
    assert left_out(found) == {("contradicting-rows", "images"): 1}
    for text, message in (
        ("exam_id,projection,path\n7,XX,a.png\n", "line 2: projection is 'XX'"),
        ("exam_id,path\n7,a.png\n", "line 2: no projection"),
    ):
        write(tmp_path / "own.csv", text)
        with pytest.raises(TableError, match=message):
            find_exams(tmp_path, "csv")
    write(tmp_path / "other.csv", "a\n")
    with pytest.raises(LayoutError, match="holds 2 tables"):
        find_exams(tmp_path, "csv")


@pytest.mark.parametrize(
    ("columns", "meaning", "message"),
    [
        ("exam=StudyID", None, "unknown field 'exam'"),
        ("exam_id", None, "--columns is made of pairs"),
        ("exam_id=a,exam_id=b", None, "each name once"),
        (None, "1=E", "--values: 1 means 'E'; expected A, B, C, D or nothing"),
        (None, "1", "--values is made of pairs"),
    ],
)
def test_bad_mappings(columns, meaning, message):
    with pytest.raises(OptionError, match=message):
        column_spec(columns, meaning)


# --- tables that are not as expected --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("breast_density", "density"), "lacks the column breast_density; expected study_id, image_id"),
        (("DENSITY B", "DENSITY E"), "line 2: breast_density is 'DENSITY E'; expected A, B, C, D or nothing"),
        ((",L,", ",X,"), "line 2: laterality is 'X'; expected L or R"),
        (("training", "holdout"), "line 2: split is 'holdout'; expected training, validation or test"),
        (("\ns1,", "\n,"), "line 2: study_id is empty"),
        (("s1LCC", ""), "line 2: image_id is empty"),
        (("s1LCC", "s1,LCC"), "line 2: 11 cells under 10 columns"),
        (("series_id", "study_id"), "has the column study_id 2 times"),
    ],
)
def test_wrong_tables_are_refused_with_file_line_and_column(tmp_path, change, message):
    path = write(tmp_path / "breast-level_annotations.csv", table(VINDR, vindr_rows()).replace(*change, 1))
    with pytest.raises(TableError, match=message) as caught:
        find_exams(tmp_path, "vindr")
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("note", ["x" * 200_000, "x" * (1 << 21)])
def test_long_cells_leave_the_limit_of_the_process_as_it_was(tmp_path, note):
    before = csv.field_size_limit()
    rows = [[*row, note] for row in vindr_rows()]
    write(tmp_path / "breast-level_annotations.csv", table([*VINDR, "note"], rows))
    try:
        assert find_exams(tmp_path, "vindr").data.exams
    except TableError:
        assert len(note) > 1 << 20, "a cell of a megabyte is read"
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("dataset", [name for name in ADAPTERS if name != "origin"])
def test_a_folder_without_tables_says_what_is_missing(tmp_path, dataset):
    write(tmp_path / "other.csv", "a,b\n1,2\n")
    with pytest.raises(LayoutError, match="name its folder with --tables"):
        find_exams(tmp_path, dataset)
    with pytest.raises(LayoutError, match="not found"):
        find_exams(tmp_path / "absent", dataset)


VINDR_TABLE, INBREAST_HEADER = "breast-level_annotations.csv", b"Laterality;View;File Name;ACR\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (VINDR_TABLE, b"", "is empty"),
        (VINDR_TABLE, ",".join(VINDR).encode(), "has no rows under its header"),
        (VINDR_TABLE, bytes(100), "not a readable table"),
        (VINDR_TABLE, b"\xff\xfe\x00", "not a readable table|lacks the column"),
        (VINDR_TABLE, b'"' + b"x" * (1 << 21), "not a readable table"),
        (
            VINDR_TABLE,
            table(VINDR, [["s", "x", "i", "L", "XCC", 1, 1, "", "DENSITY A", "test"]]).encode(),
            "no image of CC or MLO",
        ),
        ("x.ics", b"DENSITY 3\nLEFT_CC LINES 1", "holds no DDSM case file"),
        ("A-1-1.ics", b"DENSITY 3", "holds no DDSM case file"),
        ("A-1-1.ics", b"x\nDENSITY 7\nLEFT_CC LINES 1", "line 2: DENSITY is '7'; expected 1, 2, 3, 4, 0"),
        ("Info.txt", b"mdb001 X NORM", "line 1: tissue is 'X'; expected F, G or D"),
        ("Info.txt", b"mdb001 G", "line 1: 'mdb001 G' is no line such as"),
        ("Info.txt", b"nothing of the kind", "Info.txt has no line such as mdb001 G CIRC"),
        ("Info.txt", b"mdb000 F NORM", "line 1: there is no image mdb000"),
        ("INbreast.csv", INBREAST_HEADER + b"L;CC;abc;1", "line 2: File Name is 'abc'"),
        ("INbreast.csv", INBREAST_HEADER + b"L;CC;1;5", "line 2: ACR is '5'; expected 1, 2, 3, 4"),
        ("INbreast.csv", INBREAST_HEADER + b";;;5", "names no file"),
    ],
)
def test_other_tables_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_exams(tmp_path)


def test_a_ddsm_case_is_named_by_its_file_if_not_inside(tmp_path):
    write(tmp_path / "A-1-1.ics", "DENSITY 3\nLEFT_CC LINES 1")
    assert by_id(find_exams(tmp_path))["A_1_1"]["density"] == "C"


@pytest.mark.parametrize("dataset", ["vindr", "inbreast", "mini-mias", "ddsm"])
def test_damaged_tables_are_read_or_refused_in_one_line(tmp_path, dataset):
    name, text = {
        "vindr": ("breast-level_annotations.csv", table(VINDR, vindr_rows())),
        "inbreast": ("INbreast.csv", table(INBREAST, inbreast_rows(), ";")),
        "mini-mias": ("Info.txt", MIAS),
        "ddsm": ("a.ics", ICS.format(case="A-0018-1", density=3)),
    }[dataset]
    rng = random.Random(1)
    for _ in range(50):
        content = bytearray(text.encode())
        place = rng.randrange(len(content))
        content[place : place + rng.choice([0, 1, 30])] = rng.choice(
            [b"", b'"', b",", b"\n", b"\0", b"\xff", "²".encode()]
        )
        (tmp_path / name).write_bytes(content[: rng.choice([None, place])])
        try:
            json.dumps(find_exams(tmp_path, dataset).to_dict())
        except InputError as error:
            assert "\n" not in str(error)


def test_two_tables_that_differ_and_two_that_do_not(tmp_path):
    text = table(RSNA, rsna_rows())
    write(tmp_path / "a" / "train.csv", text)
    write(tmp_path / "b" / "train.csv", text)
    write(tmp_path / ".hidden" / "train.csv", "x\n")
    write(tmp_path / "other" / "train.csv", "id,target\n1,2\n")
    assert find_exams(tmp_path, "rsna").summary()["exams"] == 2
    write(tmp_path / "b" / "train.csv", text.replace(",A,", ",D,"))
    with pytest.raises(LayoutError, match="both a RSNA table"):
        find_exams(tmp_path, "rsna")


def test_every_image_is_in_an_exam_or_left_out(tmp_path):
    write(tmp_path / "train.csv", table(RSNA, rsna_rows()))
    found = find_exams(tmp_path)
    counted = sum(reason.count for reason in found.data.left_out if reason.unit == "images")
    assert found.summary()["images"] + counted == len(rsna_rows())


def test_listing_files_passes_over_hidden_ones(tmp_path):
    touch(tmp_path / "a" / "1.png", tmp_path / ".b" / "1.png", tmp_path / "__MACOSX" / "1.png", tmp_path / "._1.png")
    assert [path.name for path in FileList(tmp_path).images_with_stem("1")] == ["1.png"]


def test_every_reason_is_explained():
    codes = set(re.findall(r'_DENSITY = "([a-z-]+)"', (PACKAGE / "assemble.py").read_text()))
    for path in PACKAGE.glob("*.py"):
        codes |= set(re.findall(r'tally\.(?:leave_out|note)\(\s*"([a-z-]+)"', path.read_text()))
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \| (?:left out|note) \|", PAGE.read_text(), re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)} == codes
    for name in DATA_SETS:
        assert f"(`{name}`)" in PAGE.read_text()


# --- the command ----------------------------------------------------------------------------------------------------


def test_dry_run_lists_exams_and_writes_json(run, tmp_path):
    write(tmp_path / "tables" / "train.csv", table(RSNA, rsna_rows()))
    (tmp_path / "data").mkdir()
    where = ["--tables", tmp_path / "tables", "--dry-run", "--json", tmp_path / "exams.json"]
    code, output, _ = run("prepare", tmp_path / "data", "--dataset", "rsna", *where)
    assert code == 0
    assert "rsna: 2 exams of 2 patients, 8 images; 2 exams have all four projections" in output
    assert "by category: A 1, B 1" in output
    assert "image files: 0 found, 8 not there" in output
    assert "left out [no-density] 2 exams: no density category is given for any exam of site 2" in output
    listing = json.loads((tmp_path / "exams.json").read_text())
    assert listing["dataset"] == "rsna"
    assert [exam["exam_id"] for exam in listing["exams"]] == ["10006", "10011"]
    keys = {"exam_id", "patient_id", "projections", "density", "density_right", "density_left", "split"}
    assert all(keys <= set(exam) for exam in listing["exams"])
    reason = next(reason for reason in listing["summary"]["left_out"] if reason["code"] == "second-image")
    assert (reason["count"], reason["unit"]) == (1, "images")


def test_every_option_changes_what_it_names(run, tmp_path):
    write(tmp_path / "own.csv", "StudyID,projection,path,acr\n7,CC_R,a.png,2\n8,CC_R,b.png,9\n")
    command = ["prepare", tmp_path, "--dataset", "csv", "--dry-run", "--columns", "exam_id=StudyID,density=acr"]
    assert "by category: B 1" in run(*command, "--values", "2=B,9=")[1]
    assert "by category: C 1, D 1" in run(*command, "--values", "2=C,9=D")[1]
    assert "by category: B 1, none 1" in run(*command, "--values", "2=B,9=", "--keep-unlabelled")[1]
    assert "lacks the column exam_id" in run(*command[:5])[2]


def test_dry_run_of_every_data_set_is_the_same_with_and_without_its_name(run, tmp_path):
    write(tmp_path / "vindr" / "breast-level_annotations.csv", table(VINDR, vindr_rows()))
    write_cbis(tmp_path / "cbis-ddsm")
    write(tmp_path / "ddsm" / "a.ics", ICS.format(case="A-0018-1", density=3))
    write(tmp_path / "inbreast" / "INbreast.csv", table(INBREAST, inbreast_rows(), ";"))
    write_embed(tmp_path / "embed")
    write(tmp_path / "mini-mias" / "Info.txt", MIAS)
    write_blobs(tmp_path / "origin", 4)
    for folder in sorted(tmp_path.iterdir()):
        code, output, _ = run("prepare", folder, "--dry-run")
        assert code == 0
        assert f"{folder.name}: " in output
        assert run("prepare", folder, "--dataset", folder.name, "--dry-run")[1] == output


def test_dry_run_without_tables(run, tmp_path):
    for exam in ("one", "two"):
        touch(*(tmp_path / "exams" / exam / f"{projection}.png" for projection in ("CC_R", "MLO_L")))
    (tmp_path / "exams" / "LICENSE").write_text("text")
    code, output, _ = run("prepare", tmp_path / "exams", "--dry-run", "--json", tmp_path / "exams.json")
    assert code == 0
    assert "2 exams, 4 images" in output
    assert "1 file would not be used" in output
    listing = json.loads((tmp_path / "exams.json").read_text())
    assert [exam["projections"] for exam in listing["exams"]] == [["CC_R", "MLO_L"]] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exams", "exams.json"]


def test_refusals_of_the_command(run, tmp_path):
    write(tmp_path / "train.csv", table(RSNA, rsna_rows()))
    dry_run = ("prepare", tmp_path, "--dry-run")
    cases = {
        dry_run[:2]: "OUT is needed",
        (*dry_run, "--dataset", "mias"): "'mias' is not one of 'vindr'",
        (*dry_run, "--columns", "exam_id=a"): "are for --dataset csv",
    }
    for arguments, message in cases.items():
        code, _, error = run(*arguments)
        assert code == 2
        assert message in error
        assert error.count("mammodensity: ") == 1
    (tmp_path / "train.csv").unlink()
    assert "no table with a known name; name the data set with --dataset vindr|rsna" in run(*dry_run)[2]
    write(tmp_path / "train.csv", "a\n")
    write(tmp_path / "Info.txt", MIAS)
    assert "tables of rsna and mini-mias" in run(*dry_run)[2]
