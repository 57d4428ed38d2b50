"""Two readings compared: McNemar's test and paired differences against other computations; the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn import metrics

from mammodensity.errors import TableError
from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.studies.compare import BOOTSTRAP, MCNEMAR, bootstrap_p_value, compare, errors, mcnemar, p_text
from mammodensity.studies.readings import Reading, few_warnings, read_reading, read_readings
from mammodensity.terms import PROJECTIONS, RESEARCH_USE_ONLY, DensityCategory

FEW = BootstrapSpec(200)


def names(count: int) -> tuple[str, ...]:
    return tuple(f"e{number}" for number in range(count))


def labels_of(reference) -> dict[str, DensityCategory]:
    return {f"e{number}": DensityCategory("ABCD"[k]) for number, k in enumerate(reference)}


def model(name: str, reference: np.ndarray, strength: float, seed: int) -> Reading:
    random = np.random.default_rng(seed)
    scores = random.dirichlet([1.0] * 4, len(reference)) + strength * np.eye(4)[reference]
    scores /= scores.sum(axis=1, keepdims=True)
    return Reading(name, names(len(reference)), scores.argmax(axis=1), scores)


@pytest.fixture(scope="module")
def cohort():
    reference = np.random.default_rng(2).integers(4, size=150)
    return reference, model("strong", reference, 0.7, 1), model("weak", reference, 0.3, 2)


def test_differences_are_those_of_scikit_learn(cohort):
    reference, a, b = cohort
    found = compare(a, b, labels_of(reference), spec=FEW).figures
    for name, one in found.items():
        for reading, value in ((a, one.a), (b, one.b)):
            expected = {
                "accuracy": lambda r: metrics.accuracy_score(reference, r.predicted),
                "linear_kappa": lambda r: metrics.cohen_kappa_score(reference, r.predicted, weights="linear"),
                "quadratic_kappa": lambda r: metrics.cohen_kappa_score(reference, r.predicted, weights="quadratic"),
                "dense_accuracy": lambda r: metrics.accuracy_score(reference > 1, r.predicted > 1),
                "auc": lambda r: metrics.roc_auc_score(reference, r.scores, multi_class="ovr"),
                "dense_auc": lambda r: metrics.roc_auc_score(reference > 1, r.scores[:, 2:].sum(axis=1)),
            }[name](reading)
            assert value == pytest.approx(expected), name
        assert one.difference.value == pytest.approx(one.a - one.b)
        assert one.difference.reason is None


def test_intervals_are_those_of_a_plain_paired_bootstrap(cohort):
    reference, a, b = cohort
    random = np.random.default_rng(8)
    plain: dict[str, list[float]] = {"accuracy": [], "linear_kappa": [], "dense_auc": []}
    for _ in range(250):
        drawn = random.integers(150, size=150)
        true, first, second = reference[drawn], a.predicted[drawn], b.predicted[drawn]
        plain["accuracy"].append((first == true).mean() - (second == true).mean())
        kappas = [metrics.cohen_kappa_score(true, one, weights="linear") for one in (first, second)]
        plain["linear_kappa"].append(kappas[0] - kappas[1])
        areas = [metrics.roc_auc_score(true > 1, one.scores[drawn, 2:].sum(axis=1)) for one in (a, b)]
        plain["dense_auc"].append(areas[0] - areas[1])
    found = compare(a, b, labels_of(reference))
    for name, values in plain.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert found.figures[name].difference.interval == pytest.approx((low, high), abs=0.15 * (high - low)), name
        if found.figures[name].test == BOOTSTRAP:
            expected = 2 * min(np.mean(np.array(values) <= 0), 0.5)
            assert found.figures[name].p_value == pytest.approx(expected, abs=0.03)
    assert found.confidence == 0.95


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (9, 3), (3, 9), (40, 41), (6, 6)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 5)
    b = np.array([False] * only_a + [True] * only_b + [True] * 5)
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(min(1, 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def test_errors_by_hand():
    found = errors(np.array([0, 0, 0, 1, 1, 2, 3, 3]), np.array([0, 1, 2, 2, 1, 1, 3, 0]))
    assert (found.wrong, found.two_or_more, found.dense_flips) == (5, 2, 4)


def test_who_is_called_first_changes_signs_only(cohort):
    reference, a, b = cohort
    one, other = (compare(*pair, labels_of(reference)) for pair in ((a, b), (b, a)))
    assert (one.mcnemar.only_a, one.mcnemar.only_b) == (other.mcnemar.only_b, other.mcnemar.only_a)
    assert one.mcnemar.p_value == other.mcnemar.p_value
    assert one.errors_a == other.errors_b
    assert one.between == other.between
    for name, found in one.figures.items():
        assert found.difference.value == -other.figures[name].difference.value
        low, high = other.figures[name].difference.interval
        assert found.difference.interval == pytest.approx((-high, -low), abs=0.03), name


@given(st.integers(5, 40), st.integers(0, 2**32), st.booleans())
@settings(max_examples=25, deadline=None)
def test_order_and_names_of_exams_change_nothing(count, seed, scored):
    random = np.random.default_rng(seed)
    reference = random.integers(4, size=count)
    a, b = model("a", reference, 0.5, seed % 1000), model("b", reference, 0.5, seed % 999 + 1)
    if not scored:
        b = Reading("b", b.exam_ids, b.predicted)
    first = compare(a, b, labels_of(reference), spec=BootstrapSpec(50)).to_dict()
    order = random.permutation(count)
    renamed = {exam: f"x{place}" for place, exam in enumerate(random.permutation(names(count)))}
    moved = a.of([f"e{place}" for place in order])
    moved, still = (
        Reading(one.name, tuple(renamed[exam] for exam in one.exam_ids), one.predicted, one.scores)
        for one in (moved, b)
    )
    labels = {renamed[exam]: category for exam, category in labels_of(reference).items()}
    assert compare(moved, still, labels, spec=BootstrapSpec(50)).to_dict() == first


def test_a_reading_is_no_better_than_itself(cohort):
    reference, a, _ = cohort
    found = compare(a, Reading("twin", a.exam_ids, a.predicted, a.scores), labels_of(reference), spec=FEW)
    assert {one.difference.value for one in found.figures.values()} == {0}
    assert {one.p_value for one in found.figures.values()} == {1}
    assert found.between == errors(reference, reference)
    assert "are right in the same number of 150 exams" in found.summary


def test_false_alarms_are_as_rare_as_promised():
    """Two readers of the same skill: each p-value is below 0.1 in about one of ten studies."""
    random = np.random.default_rng(12)
    alarms = np.zeros(2)
    for study in range(200):
        reference = random.integers(4, size=80)
        readers = [
            Reading(str(place), names(80), np.where(random.random(80) < 0.75, reference, random.integers(4, size=80)))
            for place in range(2)
        ]
        found = compare(*readers, labels_of(reference), spec=BootstrapSpec(300, seed=study))
        alarms += np.array([found.figures["linear_kappa"].p_value, found.mcnemar.p_value]) < 0.1
    assert 9 <= alarms[0] <= 34, "binomial, 200 x 0.1, four standard deviations"
    assert alarms[1] <= 32, "the exact test is conservative"


def test_patients_are_drawn_whole(cohort):
    reference, a, b = cohort
    pairs = {f"e{number}": f"p{number // 5}" for number in range(150)}
    found = compare(a, b, labels_of(reference), patients=pairs, spec=FEW)
    assert found.patients == 30
    assert (
        found.figures["accuracy"].difference.interval
        != compare(a, b, labels_of(reference), spec=FEW).figures["accuracy"].difference.interval
    )
    assert "(paired bootstrap over patients, p " in found.summary
    assert "(McNemar's exact test, p " in compare(a, b, labels_of(reference), spec=FEW).summary


@pytest.mark.parametrize("exams_a_patient", [1, 2])
def test_every_difference_has_one_p_value(cohort, exams_a_patient):
    reference, a, b = cohort
    owners = {f"e{number}": f"p{number // exams_a_patient}" for number in range(150)}
    found = compare(a, b, labels_of(reference), patients=owners, spec=FEW)
    exact = {name for name, one in found.figures.items() if one.test == MCNEMAR}
    assert exact == ({"accuracy", "dense_accuracy"} if exams_a_patient == 1 else set())
    tests = {"accuracy": found.mcnemar, "dense_accuracy": found.mcnemar_dense}
    for name, test in tests.items():
        assert found.figures[name].p_value == test.p_value if exams_a_patient == 1 else np.isnan(test.p_value)


def test_an_interval_that_disagrees_with_p_is_explained():
    reference = np.arange(40) % 4
    a = Reading("a", names(40), reference)
    b = Reading("b", names(40), np.where(np.arange(40) < 5, (reference + 1) % 4, reference))
    found = compare(a, b, labels_of(reference), spec=FEW)
    assert found.figures["accuracy"].difference.low > 0
    assert found.figures["accuracy"].p_value == 2 * 0.5**5
    assert found.warnings[0].startswith("accuracy: p = 0.062, yet the interval excludes 0. They are two methods")


@pytest.mark.parametrize("exams_a_patient", [1, 2])
def test_wherever_interval_and_p_disagree_a_warning_says_why(exams_a_patient):
    rng, disagreed = np.random.default_rng(5), 0
    for seed in range(60):
        reference = rng.integers(0, 4, 30)
        a, b = (model(name, reference, rng.uniform(0, 1.5), 2 * seed + place) for place, name in enumerate("ab"))
        owners = {f"e{number}": f"p{number // exams_a_patient}" for number in range(30)}
        found = compare(a, b, labels_of(reference), patients=owners, spec=BootstrapSpec(resamples=199))
        for name, one in found.figures.items():
            if one.difference.interval is not None:
                excluded = not one.difference.low <= 0 <= one.difference.high
                said = any(text.startswith(f"{name.replace('_', ' ')}: p ") for text in found.warnings)
                assert said == (excluded != (one.p_value < 1 - found.confidence)), name
                disagreed += said
    assert disagreed or exams_a_patient == 2


def test_a_reader_without_scores_has_no_auc(cohort):
    reference, a, b = cohort
    found = compare(a, Reading("eyes", b.exam_ids, b.predicted), labels_of(reference), spec=FEW)
    assert found.figures["dense_auc"].difference.reason == "eyes gives categories, no scores"
    plain = found.to_dict()
    assert plain["figures"]["auc"]["b"] is None
    assert plain["figures"]["auc"]["a"] == pytest.approx(metrics.roc_auc_score(reference, a.scores, multi_class="ovr"))
    assert plain["figures"]["auc"]["p_value"] is None
    assert plain["figures"]["auc"]["interval"] is None
    assert plain["note"] == RESEARCH_USE_ONLY
    json.dumps(plain, allow_nan=False)


def test_one_category_everywhere_leaves_kappa_undefined():
    same = Reading("same", names(6), np.full(6, 2))
    found = compare(same, Reading("mixed", names(6), np.array([2, 2, 1, 2, 2, 2])), labels_of([2] * 6), spec=FEW)
    assert found.figures["linear_kappa"].difference.reason == (
        "same: reference and prediction hold one and the same category only (0/0)"
    )
    assert found.to_dict()["figures"]["linear_kappa"]["difference"] is None
    assert found.figures["accuracy"].difference.reason is None


def test_exams_of_one_alone_are_left_aside_and_counted():
    a, b = (
        Reading("a", ("x", "y", "z"), np.array([0, 1, 2])),
        Reading("b", ("z", "y", "u", "v"), np.array([2, 1, 0, 0])),
    )
    labels = {exam: DensityCategory("C") for exam in "xyz"}
    found = compare(a, b, labels, spec=FEW)
    assert (found.n, found.only_in_a, found.only_in_b) == (2, 1, 2)
    with pytest.raises(TableError, match=r"a and c have no exam in common \(for instance x and q\); expected readings"):
        compare(a, Reading("c", ("q",), np.array([0])), labels)
    with pytest.raises(TableError, match=r"1 of 2 exams in the score table have no density label \(y\)"):
        compare(a, b, {"z": DensityCategory("C")})


def test_summary_says_who_and_how_sure():
    reference = np.arange(80) % 4
    good = Reading("good", names(80), reference)
    bad = Reading("bad", names(80), np.where(np.arange(80) < 40, (reference + 1) % 4, reference))
    for pair in ((good, bad), (bad, good)):
        text = compare(*pair, labels_of(reference), spec=FEW).summary
        assert text.startswith("good is right in 100.0% of 80 exams, bad in 50.0%: 50.0 points more (95% interval 3")
        assert "Chance does not explain that (McNemar's exact test, p < 0.001;" in text
        assert "good alone " in text
        assert "40)" in text or "in 40, bad" in text
    assert (p_text(0.0321), p_text(1.0)) == ("= 0.032", "= 1")
    assert bootstrap_p_value(np.array([1.0, 2.0, np.nan])) == pytest.approx(2 / 3)
    assert np.isnan(bootstrap_p_value(np.array([np.nan])))


# --- files and the command --------------------------------------------------------------------------------------------

SCORES = "exam_id,projection,A,B,C,D\n"


def save(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def table(exams: dict[str, str]) -> str:
    rows = {letter: ",".join("0.7" if one == letter else "0.1" for one in "ABCD") for letter in "ABCD"}
    return SCORES + "".join(f"{exam},{view},{rows[k]}\n" for exam, k in exams.items() for view in PROJECTIONS)


def test_readings_of_files(tmp_path):
    model_table = save(tmp_path / "model.csv", table({"x": "A", "y": "C"}) + "z,CC_R,0.7,0.1,0.1,0.1\n")
    found = read_reading(model_table)
    assert (found.name, found.exam_ids, found.predicted.tolist(), found.not_given) == ("model", ("x", "y"), [0, 2], 1)
    assert found.scores.shape == (2, 4)
    reader = read_reading(save(tmp_path / "eyes.csv", "exam_id,density\nx,b\ny,D\nq,\n"))
    assert (reader.exam_ids, reader.predicted.tolist(), reader.scores) == (("x", "y"), [1, 3], None)
    two = read_readings([model_table, save(tmp_path / "other" / "model.csv", table({"x": "A"}))])
    assert [one.name for one in two] == [str(model_table), str(tmp_path / "other" / "model.csv")]
    with pytest.raises(TableError, match="is given more than once"):
        read_readings([model_table, model_table])
    with pytest.raises(
        TableError,
        match=r"found the columns exam_id, birads, expected, separated by commas, a score table .* or a reader's",
    ):
        read_reading(save(tmp_path / "bad.csv", "exam_id,birads\nx,2\n"))
    with pytest.raises(TableError, match="gives no whole exam scores; expected all four projections"):
        read_reading(save(tmp_path / "half.csv", SCORES + "z,CC_R,0.7,0.1,0.1,0.1\n"))


def test_few_exams_or_patients_are_warned_of():
    assert few_warnings(30, None) == few_warnings(30, 30) == ()
    assert few_warnings(1, None) == ("only 1 exam: too few to rely on",)
    assert few_warnings(60, 29) == ("only 29 patients: too few to rely on",)


def test_the_command(run, tmp_path):
    exams = {f"e{number}": "ABCD"[number % 4] for number in range(24)}
    wrong = {exam: ("D" if number < 6 else k) for number, (exam, k) in enumerate(exams.items())}
    labels = save(
        tmp_path / "labels.csv",
        "exam_id,patient_id,density\n" + "".join(f"e{n},p{n // 2},{'ABCD'[n % 4]}\n" for n in range(24)),
    )
    a = save(tmp_path / "a.csv", table(exams))
    b = save(tmp_path / "[b].csv", "exam_id,density\n" + "".join(f"{exam},{k}\n" for exam, k in wrong.items()))
    out = tmp_path / "c.json"
    code, output, error = run("compare", a, b, "--labels", labels, "--json", out, "--bootstrap", 100)
    assert code == 0, error
    found = json.loads(out.read_text())
    assert found["mcnemar"] == {"only_a": 5, "only_b": 0, "p_value": None}
    assert found["mcnemar_dense"]["only_a"] == 4
    assert found["errors_b"] == {"wrong": 5, "two_or_more": 4, "dense_flips": 4}
    assert (found["n"], found["patients"], found["bootstrap"]) == (24, 12, 100)
    assert found["summary"] in output
    assert RESEARCH_USE_ONLY in output
    assert found["warnings"] == ["only 24 exams: too few to rely on"]
    assert "note: only 24 exams: too few to rely on" in output
    assert "[b]" in output, "a name in brackets is no markup"
    for arguments, message in (
        (("compare", a, tmp_path / "no.csv", "--labels", labels), "no.csv: No such file"),
        (("compare", a, a, "--labels", labels), "is given more than once"),
        (("compare", a, b, "--labels", labels, "--json", b), "is read by this command"),
    ):
        code, _, error = run(*arguments)
        assert code == 1
        assert message in error
        assert error.count("\n") == 1
