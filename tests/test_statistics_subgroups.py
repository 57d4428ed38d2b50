"""Figures by group: the same as of the group alone, with bands, warnings and one line for each mistake."""

import numpy as np
import pytest

from mammodensity.errors import OptionError, TableError
from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.evaluation.figures import figures_of_merit
from mammodensity.evaluation.labels import read_exam_columns
from mammodensity.evaluation.score_tables import ScoreTable
from mammodensity.studies.further import FurtherSpec, further_figures
from mammodensity.studies.groups import NOT_GIVEN, figures_by_group, group_values, parse_bands
from mammodensity.terms import LEVELS, DensityCategory

IDS = tuple("abcdef")


def texts(*values):
    return dict(zip(IDS, values, strict=False))


def test_groups_of_words_and_numbers():
    of_exam, names = group_values(IDS, texts("GE", "Fuji", "", "GE", "10", "9"), "vendor")
    assert of_exam == ["GE", "Fuji", NOT_GIVEN, "GE", "10", "9"]
    assert names == ["9", "10", "Fuji", "GE", NOT_GIVEN]


def test_bands_hold_their_lower_limit():
    of_exam, names = group_values(IDS, texts("39.9", "40", "49", "50", "", "81"), "age", parse_bands("40,50"))
    assert of_exam == ["below 40", "40 to below 50", "40 to below 50", "50 and above", NOT_GIVEN, "50 and above"]
    assert names == ["below 40", "40 to below 50", "50 and above", NOT_GIVEN]


@pytest.mark.parametrize("text", ["50,40", "40,40", "a", "40,", ""])
def test_bands_must_rise(text):
    with pytest.raises(OptionError, match="--bands must be rising numbers separated by commas"):
        parse_bands(text)


def test_wrong_columns_are_named():
    with pytest.raises(TableError, match=r"column age holds 'old', expected numbers, as --bands is given"):
        group_values(IDS, texts("1", "old", "3", "4", "5", "6"), "age", (2.0,))
    with pytest.raises(TableError, match=r"2 of 6 exams are not in the table with column age \(e, f\); add them"):
        group_values(IDS, texts("1", "2", "3", "4"), "age")
    many = tuple(map(str, range(70)))
    with pytest.raises(TableError, match=r"70 different numbers, expected at most 12 groups; .* --bands 40,50,60"):
        group_values(many, dict(zip(many, many, strict=True)), "age")
    with pytest.raises(TableError, match=r"70 different values, expected at most 60 groups"):
        group_values(many, {exam: f"x{exam}" for exam in many}, "name")
    with pytest.raises(OptionError, match="--bands needs --by COLUMN"):
        FurtherSpec(bands="40,50")


def test_a_group_is_measured_as_if_alone():
    random = np.random.default_rng(4)
    reference = random.integers(4, size=90)
    scores = random.dirichlet([1.0] * 4, 90)
    scores[5] = np.nan
    patients = [f"p{number // 2}" for number in range(90)]
    of_exam = ["big"] * 70 + ["small"] * 18 + ["none"] * 2
    scores[88:] = np.nan
    found = figures_by_group(
        reference,
        scores,
        (of_exam, ["big", "small", "none", "empty"]),
        patients=patients,
        spec=BootstrapSpec(100, seed=3),
    )
    assert [group.value for group in found] == ["big", "small", "none"]
    inside = [exam for exam in range(70) if exam != 5]
    expected = figures_of_merit(
        reference[inside], scores[inside], patients=[patients[exam] for exam in inside], bootstrap=100, seed=3
    )
    assert found[0].figures.intervals == expected.intervals
    assert (found[0].n, found[0].figures.n, found[0].figures.n_not_given) == (70, 69, 1)
    assert found[0].warnings == ()
    assert found[1].warnings[0] == "only 18 exams: too few to rely on"
    assert (found[2].figures, found[2].warnings) == (None, ("no exam has scores",))


def test_warnings_of_few_patients_and_absent_categories():
    reference = np.arange(40) % 3
    scores = np.eye(4)[reference]
    patients = [f"p{number // 10}" for number in range(40)]
    group = figures_by_group(reference, scores, (["x"] * 40, ["x"]), patients=patients, spec=BootstrapSpec(10))[0]
    assert group.warnings == ("only 4 patients: too few to rely on", "no exam of category D")
    alone = figures_by_group(reference, scores, (["x"] * 40, ["x"]), spec=BootstrapSpec(10))[0]
    assert alone.warnings == ("no exam of category D",)


def test_a_group_called_overall_does_not_replace_the_whole(tmp_path):
    (tmp_path / "t.csv").write_text(
        "exam_id,site\n" + "".join(f"e{n},{'overall' if n < 3 else 'x'}\n" for n in range(8))
    )
    scores = np.random.default_rng(2).dirichlet([1.0] * 4, 8)
    table = ScoreTable(tuple(f"e{n}" for n in range(8)), dict.fromkeys(LEVELS, scores))
    labels = {f"e{n}": DensityCategory("ABCD"[n % 4]) for n in range(8)}
    columns = [read_exam_columns(tmp_path / "t.csv")]
    found = further_figures(table, labels, columns, asked=FurtherSpec(by="site"), spec=BootstrapSpec(10))
    assert {name: one.n for name, one in found.challenge.items()} == {"overall": 8, "site: overall": 3, "x": 5}
