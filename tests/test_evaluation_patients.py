"""Intervals over patients: whole patients are drawn, and neither order nor names of patients matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammodensity.errors import TableError
from mammodensity.evaluation.bootstrap import BootstrapSpec, canonical_order, resamples
from mammodensity.evaluation.figures import evaluate_table, figures_of_merit
from mammodensity.evaluation.labels import read_exam_columns
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.terms import LEVELS, DensityCategory


@pytest.fixture(scope="module")
def cohort():
    random = np.random.default_rng(11)
    scores = random.dirichlet([0.6, 1.5, 1.5, 0.6], 120)
    return np.array([random.choice(4, p=row) for row in scores]), scores


def test_an_exam_a_patient_is_the_bootstrap_over_exams(cohort):
    alone = figures_of_merit(*cohort, bootstrap=200)
    found = figures_of_merit(*cohort, bootstrap=200, patients=[f"p{number}" for number in range(120)])
    assert found.intervals == alone.intervals
    assert (alone.patients, found.patients) == (None, 120)


def test_every_exam_repeated_by_its_patient_gives_the_interval_of_the_exams(cohort):
    reference, scores = cohort
    alone = figures_of_merit(*cohort, bootstrap=2000)
    names = [f"p{number}" for number in range(120)]
    thrice = figures_of_merit(np.tile(reference, 3), np.tile(scores, (3, 1)), patients=names * 3)
    blind = figures_of_merit(np.tile(reference, 3), np.tile(scores, (3, 1)))
    assert thrice.patients == 120
    for name in ("accuracy", "linear_kappa", "dense_auc"):
        width, expected, narrow = (np.ptp(one.intervals[name]) for one in (thrice, alone, blind))
        assert width == pytest.approx(expected, rel=0.12), name
        assert narrow == pytest.approx(expected / 3**0.5, rel=0.15), name


def test_the_spread_is_that_of_a_plain_cluster_bootstrap(cohort):
    reference, scores = cohort
    right = scores.argmax(axis=1) == reference
    patients = np.arange(120) // 4
    random = np.random.default_rng(5)
    plain = [np.concatenate([right[patients == p] for p in random.integers(30, size=30)]).mean() for _ in range(2000)]
    found = figures_of_merit(reference, scores, patients=[str(p) for p in patients]).intervals["accuracy"]
    assert found == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.02)


@given(st.lists(st.integers(0, 4), min_size=3, max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_neither_order_nor_names_of_patients_matter(owners, random):
    scores = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1]])[[random.randrange(2) for _ in owners]]
    reference = np.array([random.randrange(4) for _ in owners])
    names = [f"p{owner}" for owner in owners]
    first = figures_of_merit(reference, scores, patients=names, bootstrap=60).to_dict()
    order = list(range(len(owners)))
    random.shuffle(order)
    renamed = [f"q{(owner * 7) % 5}" for owner in owners]
    again = figures_of_merit(
        reference[order], scores[order], patients=[renamed[place] for place in order], bootstrap=60
    ).to_dict()
    assert again == first


def test_resamples_hold_whole_patients():
    order, cluster = canonical_order(np.arange(6.0)[:, np.newaxis], ["x", "y", "x", "z", "y", "x"])
    assert sorted(order) == list(range(6))
    assert cluster.tolist() == [0, 0, 0, 1, 1, 2]
    counts = np.concatenate(list(resamples(cluster, BootstrapSpec(500, seed=3))))
    assert counts.shape == (500, 6)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 3] == counts[:, 4]).all()
    assert (counts[:, [0, 3, 5]].sum(axis=1) == 3).all(), "as many patients as there are"


def test_patients_are_matched_by_exam(cohort):
    reference, scores = cohort
    ids = tuple(f"e{number}" for number in range(120))
    levels = {level: scores.copy() for level in LEVELS}
    levels["right"][:5] = np.nan
    labels = {exam: DensityCategory("ABCD"[k]) for exam, k in zip(ids, reference, strict=True)}
    patients = {exam: f"p{number // 2}" for number, exam in enumerate(ids)}
    found = evaluate_table(ScoreTable(ids, levels), labels, patients=patients, bootstrap=100)
    assert found["subject"].patients == 60
    assert found["right"].patients == 58
    expected = figures_of_merit(reference, scores, patients=list(patients.values()), bootstrap=100)
    assert found["subject"].intervals == expected.intervals
    del patients["e7"]
    with pytest.raises(TableError, match=r"1 of 120 exams have no patient \(e7\); add them"):
        evaluate_table(ScoreTable(ids, levels), labels, patients=patients)
    with pytest.raises(TableError, match=r"patients must name one for each of 120 exams\. Got 1 instead"):
        figures_of_merit(reference, scores, patients=["p"])


# --- columns of a table by exam ---------------------------------------------------------------------------------------


def save(path, text):
    path.write_text(text)
    return path


def test_columns_by_exam(tmp_path):
    text = "exam_id,patient_id,projection,vendor,thickness_mm\ne1,p1,CC_R,GE,40\ne1,p1,CC_L,GE,50\ne2,,CC_R,,\n"
    columns = read_exam_columns(save(tmp_path / "manifest.csv", text))
    assert columns.patients() == {"e1": "p1", "e2": "e2"}
    assert columns.texts("vendor") == {"e1": "GE", "e2": ""}
    assert columns.texts("thickness_mm") == {"e1": "45.0", "e2": ""}
    with pytest.raises(TableError, match=r"exam e1 has 2 different values of projection, expected one an exam"):
        columns.texts("projection")
    with pytest.raises(TableError, match=r"has no column 'site'; found exam_id, patient_id, projection"):
        columns.texts("site")
    assert read_exam_columns(save(tmp_path / "l.csv", "row,density\n0,A\n")).patients() is None


def test_tables_without_exams_are_refused(tmp_path):
    message = r"found the columns density, expected one of exam_id, exam, row that names the exam"
    with pytest.raises(TableError, match=message):
        read_exam_columns(save(tmp_path / "t.csv", "density\nA\n"))


def test_rows_of_no_exam_say_nothing(tmp_path):
    columns = read_exam_columns(save(tmp_path / "t.csv", "exam,vendor\n,GE\ne1,Fuji\n"))
    assert columns.texts("vendor") == {"e1": "Fuji"}


def test_an_exam_of_two_patients_is_refused(tmp_path):
    columns = read_exam_columns(save(tmp_path / "t.csv", "exam_id,patient\ne1,ann\ne1,eve\n"))
    with pytest.raises(TableError, match=r"1 exams have more than one patient \(e1\), expected one an exam") as found:
        columns.patients()
    assert "ann" not in str(found.value)
