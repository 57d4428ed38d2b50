"""Several readers: kappas and alpha against loops over pairs of ratings and other packages; the command."""

from __future__ import annotations

import json
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

from mammodensity.errors import OptionError
from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.studies.readers import consensus, fleiss_kappa, ordinal_alpha, readers_agreement
from mammodensity.studies.readings import Reading
from mammodensity.terms import RESEARCH_USE_ONLY, DensityCategory

FEW = BootstrapSpec(100)


def votes_of(ratings: np.ndarray) -> np.ndarray:
    return (ratings[:, :, np.newaxis] == np.arange(4)).sum(axis=1)


def once(votes: np.ndarray) -> np.ndarray:
    return np.ones((1, len(votes)))


def reading(name: str, ratings, missing=()) -> Reading:
    ids = [number for number in range(len(ratings)) if number not in missing]
    return Reading(name, tuple(f"e{n}" for n in ids), np.array([ratings[n] for n in ids], dtype=np.intp))


def labels_of(reference) -> dict[str, DensityCategory]:
    return {f"e{number}": DensityCategory("ABCD"[k]) for number, k in enumerate(reference)}


@pytest.fixture(scope="module")
def panel():
    """Four readers of differing skill, and the reference."""
    random = np.random.default_rng(6)
    reference = random.integers(4, size=120)
    noise = [random.choice([-1, 0, 0, 0, 1], size=120) * (random.random(120) < share) for share in (0.3, 0.5, 0.7, 1)]
    return reference, np.stack([np.clip(reference + one, 0, 3) for one in noise], axis=1)


ratings_strategy = st.integers(2, 6).flatmap(
    lambda readers: st.lists(st.lists(st.integers(0, 3), min_size=readers, max_size=readers), min_size=2, max_size=12)
)


@given(ratings_strategy)
@settings(deadline=None)
def test_fleiss_kappa_by_counting_pairs(rows):
    ratings = np.array(rows)
    pairs = [one == other for row in rows for one, other in permutations(row, 2)]
    everything = ratings.ravel()
    chance = sum(((everything == k).mean()) ** 2 for k in range(4))
    found = fleiss_kappa(votes_of(ratings), once(ratings))[0]
    if len(set(everything.tolist())) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx((np.mean(pairs) - chance) / (1 - chance), abs=1e-12)


@given(ratings_strategy, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_ordinal_alpha_by_loops_over_pairs_of_ratings(rows, random):
    rows = [[one for one in row if random.random() < 0.8] for row in rows]
    votes = np.array([[row.count(k) for k in range(4)] for row in rows])
    units = [row for row in rows if len(row) > 1]
    values = [one for row in units for one in row]

    def distance(c, k):
        low, high = min(c, k), max(c, k)
        between = sum(values.count(g) for g in range(low, high + 1))
        return (between - (values.count(low) + values.count(high)) / 2) ** 2

    found = ordinal_alpha(votes, once(votes))[0]
    expected = sum(distance(c, k) for c, k in permutations(values, 2)) if values else 0
    if not expected:
        assert np.isnan(found)
        return
    observed = sum(sum(distance(c, k) for c, k in permutations(row, 2)) / (len(row) - 1) for row in units)
    share = (observed / len(values)) / (expected / (len(values) * (len(values) - 1)))
    assert found == pytest.approx(1 - share, abs=1e-9)


def test_fleiss_kappa_is_that_of_statsmodels(panel):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    votes = votes_of(panel[1])
    assert fleiss_kappa(votes, once(votes))[0] == pytest.approx(inter_rater.fleiss_kappa(votes))


def test_a_row_of_counts_is_that_many_copies(panel):
    votes = votes_of(panel[1])
    drawn = np.random.default_rng(3).integers(120, size=120)
    counts = np.bincount(drawn, minlength=120).astype(float)[np.newaxis]
    for figure in (fleiss_kappa, ordinal_alpha):
        assert figure(votes, counts)[0] == pytest.approx(figure(votes[drawn], once(drawn))[0])


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=10))
@settings(deadline=None)
def test_consensus_follows_its_rule(rows):
    votes = np.array([[row.count(k) for k in range(4)] for row in rows])
    for row, found in zip(rows, consensus(votes), strict=True):
        most = max((row.count(k) for k in range(4)), default=0)
        tied = [k for k in range(4) if row and row.count(k) == most]
        expected = min(tied, key=lambda k: (abs(k * len(row) - sum(row)), k)) if tied else -1
        assert found == expected


def test_ties_by_hand():
    rows = [[1, 1, 2, 2], [0, 0, 3, 3, 2], [0, 3], [], [3, 3, 0]]
    assert consensus(np.array([[row.count(k) for k in range(4)] for row in rows])).tolist() == [1, 3, 0, -1, 3]


def test_pairs_and_means_are_those_of_scikit_learn(panel):
    reference, ratings = panel
    readers = [reading(f"r{place}", ratings[:, place]) for place in range(4)]
    found = readers_agreement(readers, labels_of(reference), spec=FEW)
    for weights in ("linear", "quadratic"):
        kappas = [
            cohen_kappa_score(ratings[:, i], ratings[:, j], weights=weights) for i, j in combinations(range(4), 2)
        ]
        assert [one.figures[f"{weights}_kappa"].value for one in found.pairs] == pytest.approx(kappas)
        assert getattr(found, f"mean_{weights}_kappa").value == pytest.approx(np.mean(kappas))
    assert [(one.a, one.b) for one in found.pairs][:2] == [("r0", "r1"), ("r0", "r2")]
    assert found.unanimous.value == pytest.approx((np.ptp(ratings, axis=1) == 0).mean())
    assert found.within_one.value == pytest.approx((np.ptp(ratings, axis=1) <= 1).mean())
    assert found.same_side.value == pytest.approx((np.ptp((ratings > 1).astype(int), axis=1) == 0).mean())
    assert found.fleiss_kappa.interval[0] < found.fleiss_kappa.value < found.fleiss_kappa.interval[1]
    for place, one in enumerate(found.with_reference[:4]):
        assert one.figures["accuracy"].value == accuracy_score(reference, ratings[:, place])
        assert one.differ.two_or_more == (abs(reference - ratings[:, place]) > 1).sum()
    assert [one.a for one in found.with_reference] == ["r0", "r1", "r2", "r3", "majority"]
    assert found.with_reference[4].figures["accuracy"].value == (consensus(votes_of(ratings)) == reference).mean()


def test_a_reader_is_left_out_of_the_consensus_he_is_held_against(panel):
    _, ratings = panel
    found = readers_agreement([reading(f"r{place}", ratings[:, place]) for place in range(4)], spec=FEW)
    for place, one in enumerate(found.with_consensus):
        others = consensus(votes_of(np.delete(ratings, place, axis=1)))
        kappa = cohen_kappa_score(others, ratings[:, place], weights="linear")
        assert one.figures["linear_kappa"].value == pytest.approx(kappa)
    values = [one.figures["linear_kappa"].value for one in found.with_consensus]
    assert f"Farthest from the others: r{int(np.argmin(values))} " in found.summary
    assert found.with_reference == ()


def test_order_of_readers_and_a_reversed_scale_change_no_overall_figure(panel):
    _, ratings = panel
    first = readers_agreement([reading(f"r{place}", ratings[:, place]) for place in range(4)], spec=FEW)
    shuffled = readers_agreement([reading(f"r{place}", ratings[:, place]) for place in (2, 0, 3, 1)], spec=FEW)
    mirrored = readers_agreement([reading(f"r{place}", 3 - ratings[:, place]) for place in range(4)], spec=FEW)
    for name in ("fleiss_kappa", "mean_linear_kappa", "mean_quadratic_kappa", "ordinal_alpha", "unanimous"):
        expected = pytest.approx(getattr(first, name).value)
        assert getattr(shuffled, name).value == expected
        assert getattr(mirrored, name).value == expected


def test_permuting_and_renaming_exams_changes_nothing(panel):
    reference, ratings = panel
    order = np.random.default_rng(1).permutation(120)
    names = [f"p{number // 3}" for number in range(120)]
    found = []
    for rows in (np.arange(120), order):
        ids = tuple(f"x{row}" for row in rows)
        readers = [Reading(f"r{place}", ids, ratings[rows, place]) for place in range(4)]
        labels = {f"x{row}": DensityCategory("ABCD"[reference[row]]) for row in rows}
        patients = {f"x{row}": names[row] for row in rows}
        found.append(readers_agreement(readers, labels, patients=patients, spec=FEW).to_dict())
    assert found[0] == found[1]
    assert found[0]["patients"] == 40


def test_exams_not_read_by_all(panel):
    _, ratings = panel
    readers = [reading("a", ratings[:, 0], missing=range(10)), reading("b", ratings[:, 1]), reading("c", ratings[:, 2])]
    found = readers_agreement(readers, spec=FEW)
    assert (found.n, found.n_complete) == (120, 110)
    votes = votes_of(ratings[10:, :3])
    assert found.fleiss_kappa.value == pytest.approx(fleiss_kappa(votes, once(votes))[0])
    assert [pair.n for pair in found.pairs] == [110, 110, 120]
    votes = votes_of(np.where((np.arange(120) < 10)[:, np.newaxis] & [True, False, False], -1, ratings[:, :3]))
    assert found.ordinal_alpha.value == pytest.approx(ordinal_alpha(votes, once(votes))[0])


def test_undefined_figures_have_reasons():
    same = [reading(name, [2] * 5) for name in "ab"]
    found = readers_agreement(same, spec=FEW)
    assert found.fleiss_kappa.reason == "all ratings are of one category (0/0)"
    assert found.mean_linear_kappa.reason == "the kappa of a pair of readers is undefined"
    assert "all ratings are of one category" in found.ordinal_alpha.reason
    plain = found.to_dict()
    assert plain["fleiss_kappa"]["value"] is None
    assert plain["unanimous"]["value"] == 1
    json.dumps(plain, allow_nan=False)
    apart = readers_agreement([reading("a", [0, 1, 2, 3], missing=(2, 3)), reading("b", [0, 1, 2, 3], missing=(0, 1))])
    assert apart.n_complete == 0
    assert apart.pairs[0].figures["accuracy"].reason == "no exam in common"
    assert apart.fleiss_kappa.reason == "no exam was read by all readers"
    assert apart.summary == "2 readers, 0 exams read by all."
    with pytest.raises(OptionError, match=r"at least two readers\. Got 1 instead"):
        readers_agreement(same[:1])


def test_names_with_spaces_are_not_mixed_up(panel):
    ratings = panel[1]
    names = ("x", "x y", "y z", "z")
    found = readers_agreement(
        [reading(name, ratings[:, place % ratings.shape[1]]) for place, name in enumerate(names)],
        spec=BootstrapSpec(10),
    )
    agree = {(pair.a, pair.b): pair.figures["accuracy"].value for pair in found.pairs}
    for (a, b), value in agree.items():
        first, second = (ratings[:, names.index(name) % ratings.shape[1]] for name in (a, b))
        assert value == pytest.approx(accuracy_score(first, second))


def test_two_readers_are_as_far_from_each_other(panel):
    first, second = (reading(name, panel[1][:, place]) for place, name in enumerate(("anna", "bruno")))
    assert "Farthest" not in readers_agreement([first, second], spec=BootstrapSpec(10)).summary


def test_few_exams_are_warned_of_also_where_few_are_read_by_all(panel):
    _, ratings = panel
    ids = tuple(f"e{number}" for number in range(len(ratings)))
    first, second = (Reading(f"r{place}", ids, ratings[:, place]) for place in range(2))
    spec = BootstrapSpec(10)
    assert readers_agreement([first, second], spec=spec).warnings == ()
    half = readers_agreement([first, second.of(ids[:20])], spec=spec)
    assert half.warnings == ("read by all: only 20 exams: too few to rely on",)
    few = readers_agreement([first.of(ids[:9]), second.of(ids[:9])], spec=spec)
    assert few.warnings == ("only 9 exams: too few to rely on",)


def test_the_command(run, tmp_path, panel):
    reference, ratings = panel
    files = []
    for name, column in zip(("anna", "bruno", "labels"), (ratings[:, 0], ratings[:, 1], reference), strict=True):
        files.append(tmp_path / f"{name}.csv")
        rows = (f"e{number},{number // 2},{'ABCD'[k]}\n" for number, k in enumerate(column))
        files[-1].write_text("exam_id,patient_id,density\n" + "".join(rows))
    out = tmp_path / "readers.json"
    code, output, error = run("readers", *files[:2], "--reference", files[2], "--json", out, "--bootstrap", 50)
    assert code == 0, error
    found = json.loads(out.read_text())
    assert found["readers"] == ["anna", "bruno"]
    assert (found["patients"], found["bootstrap"]) == (60, 50)
    assert found["summary"] in output
    assert found["warnings"] == []
    assert "note: " not in output
    assert found["consensus_rule"].startswith("the category most readers gave")
    assert RESEARCH_USE_ONLY in output
    code, output, _ = run("readers", *files[:2], "--bootstrap", 50)
    assert code == 0
    assert "intervals over exams" in output
    assert "against the reference" not in output
    code, _, error = run("readers", files[0])
    assert code == 2
    assert "at least two readers" in error
