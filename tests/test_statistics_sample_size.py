"""Sample size: exact power by enumeration, standard error of kappa by simulation and statsmodels, the command."""

import json

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from mammodensity.errors import OptionError
from mammodensity.evaluation.agreement import weighted_kappa
from mammodensity.studies.sample_size import (
    KAPPAS,
    POPULATION_MIX,
    SampleSizeSpec,
    binomial_power,
    kappa_standard_error,
    kappa_table,
    parse_mix,
    sample_size,
    simulated_power,
)
from mammodensity.terms import RESEARCH_USE_ONLY


@pytest.mark.parametrize(
    ("exams", "expected", "above"), [(5, 0.9, 0.5), (20, 0.9, 0.75), (61, 0.82, 0.7), (120, 0.9, 0.85)]
)
def test_binomial_power_by_enumeration(exams, expected, above):
    power = sum(
        binom.pmf(hits, exams, expected)
        for hits in range(exams + 1)
        if binomtest(hits, exams, above, alternative="greater").pvalue <= 0.025
    )
    assert binomial_power(np.array([float(exams)]), expected, above, 0.025)[0] == pytest.approx(power)


def test_shares_keep_their_power_from_the_number_on():
    spec = SampleSizeSpec("accuracy", 0.82, 0.75)
    found = sample_size(spec)
    power = binomial_power(np.arange(found.exams - 1, 4 * found.exams, dtype=float), 0.82, 0.75, 0.025)
    assert power[0] < 0.8
    assert power[1:].min() >= 0.8
    assert found.power == power[1]
    # the normal approximation without continuity correction, by hand: 260 to 280; exact tests need a little more
    approximation = ((1.959964 * (0.75 * 0.25) ** 0.5 + 0.841621 * (0.82 * 0.18) ** 0.5) / 0.07) ** 2
    assert approximation < found.exams < 1.15 * approximation


@pytest.mark.parametrize(("figure", "kappa"), [("linear_kappa", 0.8), ("quadratic_kappa", 0.7), ("linear_kappa", 0.3)])
def test_the_table_has_the_kappa_and_the_mix(figure, kappa):
    table = kappa_table(kappa, POPULATION_MIX, KAPPAS[figure])
    assert weighted_kappa(table[np.newaxis], KAPPAS[figure])[0] == pytest.approx(kappa, abs=1e-6)
    assert table.sum(axis=1) == pytest.approx(POPULATION_MIX, abs=1e-4)
    assert table.sum(axis=0) == pytest.approx(POPULATION_MIX, abs=1e-4)
    assert table[0, 1] > table[0, 2] > table[0, 3]


@pytest.mark.parametrize("figure", KAPPAS)
def test_standard_error_is_the_spread_of_simulated_studies(figure):
    power = KAPPAS[figure]
    table = kappa_table(0.75, (0.2, 0.3, 0.35, 0.15), power)
    drawn = np.random.default_rng(1).multinomial(2000, table.ravel(), size=4000).reshape(-1, 4, 4).astype(float)
    spread = weighted_kappa(drawn, power).std() * 2000**0.5
    assert kappa_standard_error(table, power) == pytest.approx(spread, rel=0.05)


def test_standard_error_is_that_of_statsmodels():
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    counts = np.array([[12, 2, 0, 0], [3, 40, 7, 1], [0, 6, 42, 2], [0, 0, 3, 10]])
    for weights, power in (("linear", 1), ("quadratic", 2)):
        expected = inter_rater.cohens_kappa(counts, wt=weights).std_kappa
        assert kappa_standard_error(counts / 128, power) / 128**0.5 == pytest.approx(expected)


def test_kappas_reach_the_power_and_no_fewer_exams_do():
    spec = SampleSizeSpec("linear_kappa", 0.8, 0.7)
    found = sample_size(spec)
    assert found.power >= 0.8 - 0.01
    table = kappa_table(0.8, POPULATION_MIX, 1)
    assert simulated_power(table, round(0.75 * found.exams), spec, seed=5) < 0.78
    assert simulated_power(table, found.exams, spec, seed=6) == pytest.approx(found.power, abs=0.04)
    worst = kappa_table(0.7, POPULATION_MIX, 1)
    assert simulated_power(worst, found.exams, spec, seed=7) < 0.05, "if it is not above, few studies show it"


def test_no_kappa_is_shown_by_fewer_than_30_exams():
    assert sample_size(SampleSizeSpec("linear_kappa", 0.9, 0.1)).exams == 30


def test_every_option_counts():
    base = sample_size(SampleSizeSpec("quadratic_kappa", 0.85, 0.7)).exams
    assert sample_size(SampleSizeSpec("quadratic_kappa", 0.85, 0.75)).exams > base
    assert sample_size(SampleSizeSpec("quadratic_kappa", 0.85, 0.7, power=0.95)).exams > base
    assert sample_size(SampleSizeSpec("quadratic_kappa", 0.85, 0.7, confidence=0.99)).exams > base
    assert sample_size(SampleSizeSpec("quadratic_kappa", 0.85, 0.7, mix=(0.01, 0.49, 0.49, 0.01))).exams != base
    shares = SampleSizeSpec("coverage", 0.9, 0.8), SampleSizeSpec("coverage", 0.9, 0.8, power=0.9)
    assert sample_size(shares[0]).exams < sample_size(shares[1]).exams


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figure": "auc"}, r"figure must be one of linear_kappa, .* Got 'auc' instead"),
        ({"above": 0.9}, r"--above must be above 0 and below --expected, and that below 1\. Got 0\.9 and 0\.8"),
        ({"expected": 1.0}, r"and that below 1\. Got 0\.7 and 1 instead"),
        ({"power": 0.2}, r"power must be greater than or equal to 0\.5\. Got 0\.2"),
        ({"confidence": 95}, r"confidence must be less than 1\. Got 95"),
        ({"mix": (0.5, 0.5, 0.5, 0.5)}, r"--mix must be four shares above 0 that sum to 1 .* Got 0\.5/0\.5/0\.5/0\.5"),
        ({"mix": (0.5, 0.5)}, r"--mix must be four shares"),
    ],
)
def test_wrong_values_are_named(change, message):
    values = {"figure": "linear_kappa", "expected": 0.8, "above": 0.7}
    with pytest.raises(OptionError, match=message):
        SampleSizeSpec(**(values | change))


def test_what_cannot_be_reached_is_said():
    with pytest.raises(OptionError, match=r"more than 1,000,000 exams would be needed to tell 0\.8 from 0\.7999"):
        sample_size(SampleSizeSpec("linear_kappa", 0.8, 0.7999))
    with pytest.raises(OptionError, match="more than 1,000,000 exams"):
        sample_size(SampleSizeSpec("accuracy", 0.8, 0.7999))
    with pytest.raises(OptionError, match=r"--expected 0\.9999 is too near 1 for this mix"):
        sample_size(SampleSizeSpec("linear_kappa", 0.9999, 0.7))
    with pytest.raises(OptionError, match="--mix must be four numbers as 10/40/40/10"):
        parse_mix("a/b")
    assert parse_mix("10/40/40/10") == pytest.approx(POPULATION_MIX)
    assert parse_mix("0.25/0.25/0.25/0.25") == (0.25,) * 4


def test_the_command(run, tmp_path):
    out = tmp_path / "size.json"
    arguments = ("sample-size", "--figure", "accuracy", "--expected", 0.82, "--above", 0.75)
    code, output, _ = run(*arguments, "--json", out)
    assert code == 0
    assert "To show accuracy above 0.75 you need about 296 exams, if it is 0.82" in output
    assert "of such studies (their power) end with a 95% interval above 0.75." in output
    assert RESEARCH_USE_ONLY in output
    found = json.loads(out.read_text())
    assert (found["exams"], found["asked"]["mix"], found["asked"]["power"]) == (296, None, 0.8)
    assert found["summary"] in output
    code, _, error = run(*arguments, "--power", 1)
    assert code == 2
    assert "power must be less than 1. Got 1.0 instead" in error
