"""Predictions over time: dates, intervals of shares, the comparison of two periods, the command and its plots."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency, fisher_exact

from mammodensity.errors import OptionError, TableError
from mammodensity.evaluation.bootstrap import BootstrapSpec, Figure
from mammodensity.pages.plots import drift_plot, reject_plot
from mammodensity.studies.drift import drift, period_of, read_flags
from mammodensity.studies.further import reject_curve
from mammodensity.studies.proportions import difference_interval, permutation_p_values, share, wilson
from mammodensity.studies.readings import Reading, read_reading
from mammodensity.terms import PROJECTIONS, RESEARCH_USE_ONLY

FEW = BootstrapSpec(100)


@pytest.mark.parametrize(
    ("text", "period", "expected"),
    [
        ("2024-03-15", "month", "2024-03"),
        ("20240315", "month", "2024-03"),
        ("2024-03", "month", "2024-03"),
        ("2024-03-31", "quarter", "2024-Q1"),
        ("2024-04-01", "quarter", "2024-Q2"),
        ("2024-12-31", "quarter", "2024-Q4"),
        ("2024-07-15T10:20:30", "year", "2024"),
        ("2024", "year", "2024"),
        ("2024", "quarter", None),
        ("2024-02-30", "month", None),
        ("2024-13-01", "month", None),
        ("15.03.2024", "month", None),
        ("0000-01-01", "year", None),
    ],
)
def test_periods_of_dates(text, period, expected):
    assert period_of(text, period) == expected


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "exams"), [(0, 12), (12, 12), (1, 30), (37, 128), (500, 1000)])
def test_wilson_is_that_of_scipy(hits, exams):
    expected = binomtest(hits, exams).proportion_ci(0.95, method="wilson")
    assert wilson(hits / exams, exams, 0.95) == pytest.approx((expected.low, expected.high))
    holds = np.arange(exams) < hits
    found = share(holds, [f"e{number}" for number in range(exams)], 0.95)
    assert (found.n, found.value) == (exams, hits / exams)
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_exams_repeated_by_their_patient_count_once():
    holds = np.random.default_rng(1).random(60) < 0.4
    once = share(holds, [str(number) for number in range(60)], 0.95)
    thrice = share(np.tile(holds, 3), [str(number) for number in range(60)] * 3, 0.95)
    assert thrice.value == once.value
    assert thrice.interval == pytest.approx(once.interval, abs=0.003)
    none = share(np.zeros(60, dtype=bool), [str(number // 3) for number in range(60)], 0.95)
    assert none.interval == pytest.approx(tuple(binomtest(0, 20).proportion_ci(0.95, method="wilson")))


def test_intervals_of_clustered_shares_cover_as_promised():
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        sizes = random.integers(1, 6, size=80)
        owner = np.repeat(np.arange(80), sizes)
        alike = random.beta(0.8, 1.2, size=80)  # the patient's own share; 0.4 on average
        found = share(random.random(len(owner)) < alike[owner], [str(one) for one in owner], 0.95)
        covered += found.interval[0] <= 0.4 <= found.interval[1]
    assert 0.92 <= covered / 400 <= 0.985, "95 %, three standard deviations"


def test_newcombes_own_example():
    # Newcombe 1998, table II: 56/70 less 48/80, method 10: 0.0524 to 0.3339
    first, second = (Figure(hits / exams, *wilson(hits / exams, exams, 0.95)) for hits, exams in ((48, 80), (56, 70)))
    assert difference_interval(first, second) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def counts_by_patient(categories, periods):
    """Sums by patient, each exam a patient: exams, A to D, dense; for the two periods."""
    rows = np.column_stack([np.ones(len(categories)), np.eye(4)[categories], categories > 1])
    return [rows * (periods == place)[:, np.newaxis] for place in (0, 1)]


def test_permutation_agrees_with_chi_square_and_fisher():
    random = np.random.default_rng(3)
    for shift in (0.0, 0.08, 0.15):
        periods = random.integers(2, size=400)
        mix = np.array([[0.1, 0.4, 0.4, 0.1], [0.1 + shift, 0.4, 0.4 - shift, 0.1]])
        categories = np.array([random.choice(4, p=mix[period]) for period in periods])
        found = permutation_p_values(*counts_by_patient(categories, periods), 4, 4000, seed=1)
        table = np.array([[((categories == k) & (periods == p)).sum() for k in range(4)] for p in (0, 1)])
        assert found[0] == pytest.approx(chi2_contingency(table, correction=False).pvalue, abs=0.03)
        dense = np.column_stack([table[:, :2].sum(axis=1), table[:, 2:].sum(axis=1)])
        assert found[1] == pytest.approx(fisher_exact(dense).pvalue, abs=0.04)


def test_exams_of_one_patient_move_together():
    """Ten patients of 40 exams each: with exams as units the p-value would be far too small."""
    random = np.random.default_rng(5)
    alarms, naive = 0, 0
    for study in range(100):
        own = random.integers(4, size=10)
        first, second = (np.zeros((10, 6)) for _ in range(2))
        for patient, category in enumerate(own):
            part = first if patient < 5 else second
            part[patient] = 40 * np.concatenate([[1], np.eye(4)[category], [category > 1]])
        alarms += permutation_p_values(first, second, 4, 300, seed=study)[1] <= 0.1
        dense = [[part[:, 5].sum(), (part[:, 0] - part[:, 5]).sum()] for part in (first, second)]
        naive += fisher_exact(np.array(dense, dtype=int)).pvalue <= 0.1
    assert alarms <= 22
    assert naive > 50


def test_a_patient_of_both_periods_exchanges_her_exams():
    # every patient has one exam in each, first not dense, then dense: only the exchange can tell it from chance
    first = np.tile([1, 1, 0, 0, 0, 0], (12, 1)).astype(float)
    second = np.tile([1, 0, 0, 1, 0, 1], (12, 1)).astype(float)
    found = permutation_p_values(first, second, 4, 4000, seed=1)
    assert found[1] < 0.005, "2 of 2 ** 12 exchanges are as extreme"
    assert permutation_p_values(first, first, 4, 500, seed=1).tolist() == [1, 1]


# --- drift ------------------------------------------------------------------------------------------------------------


def cohort(count=200, seed=1):
    """Exams of two years; in the second more are dense and confidence is lower."""
    random = np.random.default_rng(seed)
    late = np.arange(count) >= count // 2
    mixes = ([0.2, 0.5, 0.25, 0.05], [0.05, 0.2, 0.5, 0.25])
    reference = np.where(late, *(random.choice(4, count, p=mix) for mix in mixes[::-1]))
    scores = np.full((count, 4), 0.1) + 0.6 * np.eye(4)[reference]
    scores[late] = 0.8 * scores[late] + 0.05
    ids = tuple(f"e{number}" for number in range(count))
    dates = {exam: f"{2023 + late[place]}-{1 + place % 12:02d}-10" for place, exam in enumerate(ids)}
    return Reading("model", ids, reference, scores), dates


def test_shares_and_confidence_by_period():
    reading, dates = cohort()
    found = drift(reading, dates, period="year", spec=FEW)
    assert [one.period for one in found.periods] == ["2023", "2024"]
    for one, inside in zip(found.periods, (slice(0, 100), slice(100, 200)), strict=True):
        categories = reading.predicted[inside]
        assert (one.n, one.patients) == (100, 100)
        assert [part.value for part in one.shares.values()] == [np.mean(categories == k) for k in range(4)]
        assert one.dense.value == np.mean(categories > 1)
        expected = binomtest(int((categories > 1).sum()), 100).proportion_ci(0.95, method="wilson")
        assert one.dense.interval == pytest.approx(tuple(expected))
        confidence = reading.scores[inside].max(axis=1).mean()
        assert one.mean_confidence.value == pytest.approx(confidence)
        low, high = one.mean_confidence.interval
        assert low - 1e-9 <= confidence <= high + 1e-9
    months = drift(reading, dates, spec=FEW)
    assert len(months.periods) == 24
    assert sum(one.n for one in months.periods) == 200
    assert months.periods[0].warnings == ("only 9 patients: too few to rely on",)
    assert found.periods[0].warnings == ()


def test_two_periods_compared():
    reading, dates = cohort()
    flags = {f"e{number}": ("missing-views",) for number in range(0, 200, 2)}
    found = drift(reading, dates, period="year", compare=("2023", "2024"), flags=flags, spec=FEW).comparison
    before, after = reading.predicted[:100] > 1, reading.predicted[100:] > 1
    assert found.differences["dense"] == pytest.approx(after.mean() - before.mean())
    assert found.intervals["dense"][0] > 0.2
    assert found.p_value == found.p_values["dense"] == 1 / 5000
    assert found.p_values["mean_confidence"] == 1 / 5000
    assert found.differences["missing-views"] == 0
    assert found.p_values["missing-views"] == 1
    assert f"from {before.mean():.1%} to {after.mean():.1%}" in found.summary
    assert "differ more than chance explains (permutation test, p < 0.001)" in found.summary
    back = drift(reading, dates, period="year", compare=("2024", "2023"), spec=FEW).comparison
    low, high = found.intervals["dense"]
    assert back.intervals["dense"] == pytest.approx((-high, -low))
    steady = Reading("steady", reading.exam_ids, np.arange(200) % 4)
    alike = drift(steady, dates, period="year", compare=("2023", "2024"), spec=FEW).comparison
    assert alike.p_value == 1
    assert "differ no more than chance explains" in alike.summary


def test_order_of_exams_changes_nothing():
    reading, dates = cohort(60)
    patients = {exam: f"p{number // 3}" for number, exam in enumerate(reading.exam_ids)}
    options = {"period": "year", "compare": ("2023", "2024"), "spec": FEW}
    first = drift(reading, dates, patients=patients, **options).to_dict()
    order = np.random.default_rng(1).permutation(60)
    moved = reading.of([reading.exam_ids[place] for place in order])
    renamed = {exam: f"q{name[1:]}" for exam, name in patients.items()}
    assert drift(moved, dates, patients=renamed, **options).to_dict() == first
    assert first["periods"][0]["patients"] == 10


def test_blank_dates_are_left_out_and_counted():
    reading, dates = cohort(60)
    dates["e3"] = ""
    found = drift(Reading("eyes", reading.exam_ids, reading.predicted), dates, period="year", spec=FEW)
    assert (found.not_dated, found.periods[0].n) == (1, 29)
    assert found.periods[0].mean_confidence is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_mistakes_are_named():
    reading, dates = cohort(20)
    with pytest.raises(OptionError, match=r"--period must be one of month, quarter, year\. Got 'week' instead"):
        drift(reading, dates, period="week")
    with pytest.raises(OptionError, match=r"--compare: no exam is of '2020'; there are 2023, 2024"):
        drift(reading, dates, period="year", compare=("2020", "2024"))
    with pytest.raises(OptionError, match=r"two different periods\. Got '2024' twice"):
        drift(reading, dates, period="year", compare=("2024", "2024"))
    with pytest.raises(TableError, match=r"exam e0: its date cannot be put into a month, expected YYYY-MM-DD"):
        drift(reading, dates | {"e0": "1.3.24"})
    with pytest.raises(TableError, match=r"1 of 20 exams are not in the table with the dates \(e4\)"):
        drift(reading, {exam: day for exam, day in dates.items() if exam != "e4"})
    with pytest.raises(TableError, match=r"20 of 20 exams have no patient \(e0, e1, e2, e3, e4, \.\.\.\)"):
        drift(reading, dates, patients={})
    with pytest.raises(TableError, match="every date is blank"):
        drift(reading, dict.fromkeys(dates, ""))


# --- the command and the plots ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    reading, dates = cohort(80)
    table, manifest = tmp_path / "predictions.csv", tmp_path / "dates.csv"
    lines = []
    for place, (exam, row) in enumerate(zip(reading.exam_ids, reading.scores, strict=True)):
        scores = ",".join(map(repr, map(float, row)))
        lines += [f"{exam},{view},{scores},{'views-disagree; border' if place < 8 else ''}" for view in PROJECTIONS]
    table.write_text("exam_id,projection,A,B,C,D,flags\n" + "\n".join(lines) + "\n")
    rows = [f"{exam},p{place // 2},{dates[exam]}" for place, exam in enumerate(reading.exam_ids)]
    manifest.write_text("exam_id,patient_id,acquired\n" + "\n".join(rows) + "\n")
    return table, manifest


def test_the_command(run, files, tmp_path):
    table, manifest = files
    out, plot = tmp_path / "drift.json", tmp_path / "drift.svg"
    arguments = ("drift", table, "--manifest", manifest, "--date", "acquired", "--period", "year", "--bootstrap", 50)
    code, output, error = run(*arguments, "--compare", "2023", "2024", "--json", out, "--plot", plot)
    assert code == 0, error
    found = json.loads(out.read_text())
    assert [one["n"] for one in found["periods"]] == [40, 40]
    assert found["periods"][0]["flags"]["border"]["count"] == 8
    assert found["periods"][1]["flags"]["views-disagree"]["value"] == 0
    assert set(found["comparison"]["p_values"]) == {"dense", "mean_confidence", "border", "views-disagree"}
    assert found["patients_known"]
    assert found["summary"] in output
    assert RESEARCH_USE_ONLY in output
    assert "only 20 patients" in output
    low, high = found["periods"][0]["dense"]["interval"]
    assert f"{low:.1%} to {high:.1%}" in output, "in the unit of the shares"
    assert plot.read_text().lstrip().startswith("<?xml")
    assert RESEARCH_USE_ONLY in plot.read_text()
    code, _, _ = run(*arguments, "--plot", tmp_path / "drift.PNG")
    assert (tmp_path / "drift.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 1, "has no column study_date, exam_date, date; found exam_id, patient_id, acquired; name the column"),
        (("--date", "when"), 1, "has no column 'when'"),
        (("--date", "acquired", "--plot", "drift.pdf"), 2, "--plot must name a file that ends in .svg or .png"),
        (("--date", "acquired", "--period", "day"), 2, "'day' is not one of 'month', 'quarter', 'year'"),
    ],
)
def test_mistakes_end_in_one_line(run, files, options, code, message):
    found, _, error = run("drift", files[0], "--manifest", files[1], *options)
    assert found == code
    assert message in error
    assert error.count("\n") == 1


def test_nothing_read_is_written_over(run, files):
    code, _, error = run("drift", files[0], "--manifest", files[1], "--date", "acquired", "--json", files[1])
    assert code == 1
    assert "is read by this command" in error


def test_flags_need_their_column(files, tmp_path):
    assert read_flags(files[1]) == {}
    assert read_flags(files[0])["e0"] == ("views-disagree", "border")
    assert read_flags(files[0])["e9"] == ()


def test_the_same_figures_give_the_same_plot():
    reading, dates = cohort(60)
    found = drift(reading, dates, period="quarter", spec=FEW)
    assert drift_plot(found) == drift_plot(found)
    text = drift_plot(found).decode()
    assert all(one.period in text for one in found.periods)
    curve = reject_curve(np.roll(reading.predicted, 1), reading.scores, spec=BootstrapSpec(0))
    text = base64.b64decode(reject_plot(curve).split(",")[1]).decode()
    assert "dense or not mistaken" in text
    assert RESEARCH_USE_ONLY in text


def test_a_table_of_results_is_a_reading_with_flags(tmp_path):
    header = "exam_id,category,most_likely,A,B,C,D,flags\n"
    (tmp_path / "r.csv").write_text(
        header + "e1,B,B,0.1,0.7,0.2,0.0,\ne2,,C,0.0,0.4,0.6,0.0,near-border views-disagree\ne3,,,,,,,not-scored\n"
    )
    found = read_reading(tmp_path / "r.csv")
    assert found.exam_ids == ("e1", "e2")
    assert found.predicted.tolist() == [1, 2]  # abstained, but read
    assert found.not_given == 1
    assert read_flags(tmp_path / "r.csv")["e2"] == ("near-border", "views-disagree")
    (tmp_path / "r.csv").write_text(header + "e1,B,B,0.1,0.7,0.2,0.5,\n")
    with pytest.raises(TableError, match=r"line 2: found scores that sum to 1\.5"):
        read_reading(tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text(header + "e1,B,B,0.1,0.7,0.2,0,\ne1,B,B,0.1,0.7,0.2,0,\n")
    with pytest.raises(TableError, match="an exam has two rows"):
        read_reading(tmp_path / "r.csv")
