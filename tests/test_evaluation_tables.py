"""Score tables, the origin's text tables and labels: round trips and every message."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mammodensity.data.dataset import reference_categories
from mammodensity.data.find import find_images
from mammodensity.errors import OptionError, TableError
from mammodensity.evaluation.infn_tables import INFN_FILES, read_infn_tables, write_infn_tables
from mammodensity.evaluation.labels import match, read_labels, unused_labels
from mammodensity.evaluation.score_tables import ScoreTable, read_score_table, write_score_table
from mammodensity.scores import FUSION_METHODS, ExamScores, FusedScores, fuse, fuse_exam
from mammodensity.terms import FUSED_LEVELS, LEVELS, PROJECTIONS, DensityCategory
from samples import write_blobs

HEADER = "exam_id,projection,A,B,C,D\n"
A_ROW = "0.7,0.1,0.1,0.1"
B_ROW = "0.1,0.7,0.1,0.1"
CC_R, CC_L, MLO_R, MLO_L = PROJECTIONS


def save(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def whole_exam(exam_id, row=A_ROW):
    return "".join(f"{exam_id},{view},{row}\n" for view in PROJECTIONS)


# --- score tables -----------------------------------------------------------------------------------------------------


def normalised(logits):
    powers = np.exp(logits)
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


@given(
    arrays(np.float64, (3, 4, 4), elements=st.floats(-20, 20)).map(normalised),
    st.lists(st.sets(st.sampled_from(PROJECTIONS)), min_size=3, max_size=3),
    st.booleans(),
    st.sampled_from(FUSION_METHODS),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_to_the_last_bit(tmp_path_factory, scores, dropped, allow_missing, method):
    path = tmp_path_factory.mktemp("tables") / "scores.csv"
    dropped[0] = set()  # a table without any scores is an error of its own
    exams = []
    for number, (rows, without) in enumerate(zip(scores, dropped, strict=True)):
        views = {view: row for view, row in zip(PROJECTIONS, rows, strict=True) if view not in without}
        exams.append(ExamScores(f'exam "{number}", é', views, fuse_exam(views, method, allow_missing), fusion=method))
    write_score_table(path, exams)
    table = read_score_table(path)
    assert table.exam_ids == tuple(exam.exam_id for exam in exams)
    for place, exam in enumerate(exams):
        for view in PROJECTIONS:
            expected = exam.projections.get(view, np.full(4, np.nan))
            assert np.array_equal(table.scores[view][place], expected, equal_nan=True)
        for level in FUSED_LEVELS:
            expected = np.full(4, np.nan) if exam.fused[level].scores is None else exam.fused[level].scores
            assert np.array_equal(table.scores[level][place], expected, equal_nan=True)
            assert table.missing[level][place] == exam.fused[level].missing


def test_written_text(tmp_path):
    views = {CC_R: np.array([1, 0, 0, 0]), CC_L: np.array([0, 1, 0, 0]), MLO_R: np.array([0, 0, 0.5, 0.5])}
    write_score_table(tmp_path / "scores.csv", [ExamScores("7", views, fuse_exam(views, allow_missing=True))])
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "exam_id,projection,A,B,C,D,views,missing,fusion",
        "7,CC_R,1.0,0.0,0.0,0.0,CC_R,,",
        "7,CC_L,0.0,1.0,0.0,0.0,CC_L,,",
        "7,MLO_R,0.0,0.0,0.5,0.5,MLO_R,,",
        "7,MLO_L,,,,,,MLO_L,",
        "7,right,0.5,0.0,0.25,0.25,CC_R MLO_R,,mean",
        "7,left,0.0,1.0,0.0,0.0,CC_L,MLO_L,mean",
        f"7,subject,{1 / 3!r},{1 / 3!r},{1 / 6!r},{1 / 6!r},CC_R CC_L MLO_R,MLO_L,mean",
    ]


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_absent_fused_rows_are_fused_where_complete(tmp_path, method):
    incomplete = f"e2,CC_R,{A_ROW}\ne2,CC_L,{A_ROW}\ne2,MLO_L,{B_ROW}\n"
    path = save(tmp_path / "scores.csv", HEADER + whole_exam("e1") + incomplete)
    table = read_score_table(path, method)
    assert table.exam_ids == ("e1", "e2")
    assert tuple(table.scores) == LEVELS
    a, b = ([float(text) for text in row.split(",")] for row in (A_ROW, B_ROW))
    assert table.scores["subject"][0] == pytest.approx(fuse([a] * 4, method))
    assert np.isnan(table.scores["subject"][1]).all()
    assert np.isnan(table.scores["right"][1]).all()
    assert table.scores["left"][1] == pytest.approx(fuse([a, b], method))


def test_a_fused_row_that_is_there_is_taken_as_it_is(tmp_path):
    views = "".join(f"e1,{view},{B_ROW if view == MLO_R else A_ROW}\n" for view in PROJECTIONS)
    text = HEADER + views + "e1,subject,0.3,0.5,0.1,0.1\ne1,right,,,,\n"
    table = read_score_table(save(tmp_path / "scores.csv", text))
    assert table.scores["subject"][0].tolist() == [0.3, 0.5, 0.1, 0.1]
    assert np.isnan(table.scores["right"][0]).all()
    assert table.scores["left"][0].tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1])


def test_rows_of_a_joint_network_are_its_own(tmp_path):
    text = "exam_id,projection,A,B,C,D,fusion\n" + whole_exam("e1").replace("\n", ",\n") + "e1,subject,0,0,0,1,joint\n"
    assert read_score_table(save(tmp_path / "scores.csv", text)).scores["subject"].tolist() == [[0, 0, 0, 1]]


def test_lenient_reading_of_marks_spaces_columns_and_line_ends(tmp_path):
    text = "\ufeffprojection, D,C,B,A ,note, exam_id\r\nCC_R,0.1, 0.2 ,0.3,0.4,x,e 1\r\n,,,,,,\r\n\r\n"
    table = read_score_table(save(tmp_path / "scores.csv", text))
    assert table.exam_ids == ("e 1",)
    assert table.scores["CC_R"].tolist() == [[0.4, 0.3, 0.2, 0.1]]


BAD_TABLES = {
    "no column": (
        "exam_id,A,B,C\n",
        r"line 1: missing column projection, D; found exam_id, A, B, C, expected at least",
    ),
    "semicolons": (HEADER.replace(",", ";"), r"line 1: missing column .* separated by commas"),
    "twice": ("exam_id,projection,A,A,B,C,D\n", r"line 1: column A appears more than once"),
    "empty": ("", r"is empty, expected a CSV table with the columns exam_id, projection, A, B, C, D"),
    "header only": (HEADER, r"holds a header and no rows, expected at least one row"),
    "fields": (HEADER + "e1,CC_R,1,0,0\n", r"line 2: found 5 fields, expected 6 as in the header"),
    "projection": (
        HEADER + f"e1,ML_R,{A_ROW}\n",
        r"line 2: found projection 'ML_R', expected one of CC_R, .*, subject",
    ),
    "no exam": (HEADER + f",CC_R,{A_ROW}\n", r"line 2: found a blank exam_id"),
    "repeated": (
        HEADER + f"e1,CC_R,{A_ROW}\n\ne1,CC_R,{A_ROW}\n",
        r"line 4: exam e1 has a second row for CC_R, expected one \(the first: 2\)",
    ),
    "word": (HEADER + "e1,CC_R,0.5,half,0,0\n", r"line 2: found 'half' in column B, expected a number from 0 to 1"),
    "half blank": (HEADER + "e1,CC_R,0.5,0.5,,0\n", r"line 2: found '' in column C, expected a number .* all blank"),
    "nan": (HEADER + "e1,CC_R,nan,nan,nan,nan\n", r"line 2: found 'nan' in column A, expected a number from 0"),
    "inf": (HEADER + "e1,CC_R,inf,0,0,0\n", r"line 2: found 'inf' in column A"),
    "underscore": (HEADER + "e1,CC_R,0.2_5,0.75,0,0\n", r"line 2: found '0\.2_5' in column A"),
    "Arabic": (HEADER + "e1,CC_R,\u0660.\u0665,0.5,0,0\n", r"line 2: found '\u0660\.\u0665' in column A"),
    "too large": (HEADER + "e1,CC_R,1e999,0,0,0\n", r"line 2: found '1e999' in column A"),
    "negative": (HEADER + "e1,CC_R,-0.1,1.1,0,0\n", r"line 2: found a negative score of -0\.1"),
    "sum": (HEADER + "e1,CC_R,0.5,0.4,0,0\n", r"line 2: found scores that sum to 0\.9, expected 1 \(within 0\.001\)"),
    "blank": (HEADER + "e1,CC_R,,,,\n", r"every score is blank or absent, expected scores of at least one exam"),
    "latin": (b"exam_id,\xe9\n", r"cannot read .*: it is not UTF-8 text"),
    "binary": (b"PK\0\1", r"cannot read .*: it is a binary file"),
    "huge field": (HEADER + "e" * 200_000, r"line 2: not readable as CSV \(field larger than field limit"),
    "missing": (
        f"exam_id,projection,A,B,C,D,missing\ne1,subject,{A_ROW},MLO\n",
        r"line 2: found 'MLO' in column missing, expected names among CC_R",
    ),
    "subject": (HEADER + whole_exam("e1") + "e1,subject,0,0,0,1\n", r"line 6: the scores of subject contradict"),
    "right": (HEADER + whole_exam("e1") + f"e1,right,{B_ROW}\n", r"line 6: the scores of right contradict"),
    "another fusion": (
        f"exam_id,projection,A,B,C,D,fusion\ne,CC_R,{A_ROW},\ne,MLO_R,0.3,0.5,0.1,0.1,\ne,right,0.4,0.4,0.1,0.1,mean\n",
        r"line 4: the scores of right contradict those of its views \(CC_R, MLO_R\)",
    ),
    "unknown fusion": (f"exam_id,projection,A,B,C,D,fusion\ne,right,{A_ROW},max\n", r"line 2: found fusion 'max'"),
    "absent view": (
        f"exam_id,projection,A,B,C,D,views,missing\ne,CC_R,{A_ROW},,\ne,right,{A_ROW},,CC_R MLO_R\n",
        r"line 3: the views of right contradict the row of CC_R",
    ),
    "blank view": (
        f"exam_id,projection,A,B,C,D,views,missing\ne,CC_R,,,,,,\ne,right,{A_ROW},CC_R,MLO_R\n",
        r"line 3: the views of right contradict the row of CC_R",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_score_tables_are_named_with_file_and_line(tmp_path, case):
    text, message = BAD_TABLES[case]
    path = save(tmp_path / "scores.csv", text)
    with pytest.raises(TableError, match=message) as caught:
        read_score_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_and_wrong_method(tmp_path):
    with pytest.raises(TableError, match=r"cannot read .*: No such file"):
        read_score_table(tmp_path / "absent.csv")
    with pytest.raises(TableError, match="it is no ordinary file, expected a text table"):
        read_score_table(tmp_path)
    path = save(tmp_path / "scores.csv", HEADER + whole_exam("e1"))
    with pytest.raises(OptionError, match="mean, geometric-mean, vote"):
        read_score_table(path, "median")


def test_writing_is_strict(tmp_path):
    path = tmp_path / "scores.csv"
    views = dict.fromkeys(PROJECTIONS, np.full(4, 0.25))
    good = ExamScores("e1", views, fuse_exam(views))
    for name in ("", " e1", "e1"):
        with pytest.raises(TableError, match=rf"exam id '{name}' is blank, repeated or has spaces around it"):
            write_score_table(path, [good, ExamScores(name, views, fuse_exam(views))])
    with pytest.raises(TableError, match="exam e2, CC_R: found scores that sum to 4"):
        write_score_table(path, [good, ExamScores("e2", views | {CC_R: np.ones(4)}, fuse_exam(views))])
    short = fuse_exam(views) | {"left": FusedScores(np.array([1.0]), (CC_L,), ())}
    with pytest.raises(TableError, match="exam e2, left: found 1 scores, expected 4"):
        write_score_table(path, [good, ExamScores("e2", views, short)])
    assert not path.exists()


def test_score_table_is_valid_once_made():
    scores = {level: np.full((2, 4), 0.25) for level in LEVELS}
    assert ScoreTable(("a", "b"), scores).missing == {}
    for ids in ((), ("a", "a")):
        with pytest.raises(TableError, match="exam_ids must be distinct and at least one"):
            ScoreTable(ids, scores)
    with pytest.raises(TableError, match=r"must hold the levels CC_R, .*\. Got CC_R instead"):
        ScoreTable(("a", "b"), {"CC_R": scores["CC_R"]})
    with pytest.raises(TableError, match=r"scores of left must have shape \(2, 4\)\. Got \(3, 4\) instead"):
        ScoreTable(("a", "b"), scores | {"left": np.zeros((3, 4))})
    for missing in ({"left": ((),)}, {"CC_R": ((), ())}):
        with pytest.raises(TableError, match="missing must map right, left or subject to one entry per exam"):
            ScoreTable(("a", "b"), scores, missing)


# --- the origin's text tables -----------------------------------------------------------------------------------------


@pytest.fixture
def origin(tmp_path):
    folder = tmp_path / "origin"
    folder.mkdir()
    for name in INFN_FILES.values():
        save(folder / name, "0.7 0.1 0.1 0.1\n0.1 0.7 0.1 0.1\n")
    return folder


def test_origin_names():
    assert INFN_FILES == {
        CC_R: "predictions_ccr.txt",
        CC_L: "predictions_ccl.txt",
        MLO_R: "predictions_mlor.txt",
        MLO_L: "predictions_mlol.txt",
    }


def test_origin_rows_are_numbered_and_fused(origin):
    save(origin / INFN_FILES[MLO_R], "0.1 0.1 0.1 0.7\n0.1 0.7 0.1 0.1\n")
    table = read_infn_tables(origin)
    assert table.exam_ids == ("0", "1")
    assert table.scores["MLO_R"][0].tolist() == [0.1, 0.1, 0.1, 0.7]
    assert table.scores["right"][0] == pytest.approx([0.4, 0.1, 0.1, 0.4])
    assert table.scores["subject"][0] == pytest.approx([0.55, 0.1, 0.1, 0.25])
    assert read_infn_tables(origin, "vote").scores["subject"][0] == pytest.approx([0.75, 0, 0, 0.25], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "0.7 0.1 0.1 0.1\n0.5 0.5\n",
            r"predictions_ccl\.txt, line 2: found 2 columns, expected 4 separated by spaces",
        ),
        ("0.7,0.1,0.1,0.1\n", r"predictions_ccl\.txt, line 1: found 1 columns"),
        ("A B C D\n", r"line 1: found 'A B C D', expected four numbers"),
        ("nan 0 0 1\n", r"line 1: found .nan 0 0 1., expected four numbers"),
        ("0.2_5 0.75 0 0\n", r"line 1: found .0\.2_5 0\.75 0 0., expected four numbers"),
        ("0.5 0.1 0.1 0.1\n", r"line 1: found scores that sum to 0\.8, expected 1"),
        ("\n\n", r"predictions_ccl\.txt is empty, expected one row of four scores per exam"),
        (
            "0.7 0.1 0.1 0.1\n",
            r"predictions_ccl\.txt has 1 rows and .*predictions_ccr\.txt has 2; expected one row per exam",
        ),
        (b"\xff\xfe", r"predictions_ccl\.txt: it is not UTF-8"),
    ],
)
def test_bad_origin_files_are_named(origin, text, message):
    save(origin / "predictions_ccl.txt", text)
    with pytest.raises(TableError, match=message):
        read_infn_tables(origin)


def test_absent_origin_files_are_named(origin):
    (origin / "predictions_mlor.txt").unlink()
    (origin / "predictions_ccl.txt").unlink()
    with pytest.raises(TableError, match=r"origin lacks predictions_ccl\.txt, predictions_mlor\.txt; expected predict"):
        read_infn_tables(origin)


def origin_scores(n):
    return {view: np.full((n, 4), 0.25, dtype=np.float32) for view in PROJECTIONS}


def test_origin_round_trip_keeps_exam_ids(tmp_path):
    random = np.random.default_rng(3)
    scores = {view: random.dirichlet(np.ones(4), 3).astype(np.float32) for view in PROJECTIONS}
    ids = ["case, 9", "case 1", "case 5"]
    write_infn_tables(tmp_path / "new", ids, scores, {"case 1": DensityCategory.D})
    table = read_infn_tables(tmp_path / "new")
    assert table.exam_ids == tuple(ids)
    for view in PROJECTIONS:
        assert np.array_equal(table.scores[view], scores[view])
    line = (tmp_path / "new" / "predictions_ccr.txt").read_text().splitlines()[0]
    assert line == " ".join(f"{score:.18e}" for score in scores[CC_R][0])
    rows = (tmp_path / "new" / "rows.csv").read_text()
    assert rows == 'row,exam_id,density\n0,"case, 9",\n1,case 1,D\n2,case 5,\n'
    write_infn_tables(tmp_path / "new", ids, scores)
    assert (tmp_path / "new" / "rows.csv").read_text() == 'row,exam_id\n0,"case, 9"\n1,case 1\n2,case 5\n'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "row,exam_id\n0,a\n",
            r"rows\.csv names 1 rows and the prediction files beside it have 2; expected the rows 0 to 1",
        ),
        ("row,exam_id\n1,a\n0,b\n", "in order"),
        ("row,exam_id\n0,a\n1,a\n", "blank or repeated exam_id"),
        ("row,exam_id\n0,a\n1,\n", "blank or repeated exam_id"),
        ("row\n0\n1\n", "missing column exam_id"),
    ],
)
def test_bad_row_names_are_named(origin, rows, message):
    save(origin / "rows.csv", rows)
    with pytest.raises(TableError, match=message):
        read_infn_tables(origin)


def test_origin_files_need_every_projection(tmp_path):
    scores = origin_scores(2)
    scores[MLO_L][1] = np.nan
    scores[CC_L][1] = np.nan
    with pytest.raises(TableError, match="exam b lacks CC_L, MLO_L; INFN's files need all four projections"):
        write_infn_tables(tmp_path / "new", ["a", "b"], scores)
    del scores[CC_R]
    with pytest.raises(TableError, match="every exam lacks CC_R"):
        write_infn_tables(tmp_path / "new", ["a", "b"], scores)
    with pytest.raises(TableError, match=r"scores of CC_R must have shape \(3, 4\)\. Got \(2, 4\) instead"):
        write_infn_tables(tmp_path / "new", ["a", "b", "c"], origin_scores(2))
    for ids in ([], ["a", "a"]):
        with pytest.raises(TableError, match="exam_ids must be distinct and at least one"):
            write_infn_tables(tmp_path / "new", ids, origin_scores(2))
    scores = origin_scores(2)
    scores[MLO_R][0, 0] = 0.5
    with pytest.raises(TableError, match=r"exam a, MLO_R: found scores that sum to 1\.25"):
        write_infn_tables(tmp_path / "new", ["a", "b"], scores)
    assert not (tmp_path / "new").exists()


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["exam_id", "exam", "row"])
def test_labels_by_each_key(tmp_path, key):
    path = save(tmp_path / "labels.csv", f"density,{key}\nB,e1\nd,e2\n")
    assert read_labels(path) == {"e1": DensityCategory.B, "e2": DensityCategory.D}


def test_labels_from_the_origins_folders(tmp_path):
    data = write_blobs(tmp_path / "origin", 4)
    labels = read_labels(data)
    assert sorted(labels.values()) == list(DensityCategory)
    assert labels == reference_categories(find_images(data))
    (tmp_path / "exams" / "one").mkdir(parents=True)
    (tmp_path / "exams" / "one" / "CC_R.png").write_bytes(next(data.rglob("*.png")).read_bytes())
    with pytest.raises(TableError, match="no image in it has a density category"):
        read_labels(tmp_path / "exams")


def test_labels_from_a_manifest(tmp_path):
    text = "row,exam_id,projection,density\n0,e1,CC_R,C\n1,e1,CC_L,\n2,e1,MLO_R,c\n3,e2,CC_R,\n4,e3,CC_R,A\n"
    path = save(tmp_path / "manifest.csv", text)
    assert read_labels(path) == {"e1": DensityCategory.C, "e3": DensityCategory.A}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exam_id,category\ne1,A\n", r"line 1: missing column density; found exam_id, category"),
        ("id,density\ne1,A\n", r"line 1: found the columns id, density, expected one of exam_id, exam, row"),
        ("exam_id,density\ne1,E\n", r"line 2: found density 'E', expected A, B, C or D$"),
        ("exam_id,density\ne1,3\n", r"line 2: found density '3', .* \(1 to 4 is an older notation: write A for 1"),
        ("exam_id,density\n,A\n", r"line 2: found a blank exam_id"),
        ("exam_id,density\ne1,A\ne2,B\ne1,B\n", r"line 4: exam e1 has density B here and A further up, expected one"),
        ("exam_id,density\ne1,\n", r"every density is blank, expected A, B, C or D"),
        ("exam_id,density\n", r"holds a header and no rows"),
        ("", r"is empty, expected a CSV table with the columns density"),
    ],
)
def test_bad_labels_are_named(tmp_path, text, message):
    path = save(tmp_path / "labels.csv", text)
    with pytest.raises(TableError, match=message) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)


def table_of(*ids):
    return ScoreTable(ids, {level: np.full((len(ids), 4), 0.25) for level in LEVELS})


def test_match_is_by_exam_and_not_by_order():
    labels = {"e3": DensityCategory.D, "e1": DensityCategory.A, "other": DensityCategory.C, "e2": DensityCategory.B}
    assert match(table_of("e2", "e3", "e1"), labels).tolist() == [1, 3, 0]
    assert unused_labels(table_of("e2", "e3", "e1"), labels) == ("other",)


def test_exams_without_label_are_counted_and_named():
    ids = [f"e{number}" for number in range(9)]
    with pytest.raises(
        TableError,
        match=r"8 of 9 exams in the score table have no density label \(e1, e2, e3, e4, e5, \.\.\.\); add them",
    ):
        match(table_of(*ids), {"e0": DensityCategory.A})
    with pytest.raises(TableError, match=r"1 of 2 exams in the score table have no density label \(e1\); add"):
        match(table_of("e0", "e1"), {"e0": DensityCategory.A})


@pytest.mark.parametrize("count", [1, 3])
def test_rows_match_only_in_equal_number(count):
    labels = {str(number): DensityCategory.A for number in range(count)}
    with pytest.raises(TableError, match=rf"the labels number {count} rows and the score table 2"):
        match(table_of("0", "1"), labels)
    assert match(table_of("0", "1"), {"1": DensityCategory.B, "0": DensityCategory.A}).tolist() == [0, 1]
