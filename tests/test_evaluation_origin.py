"""The origin's own tables: every figure it published, to six digits."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from mammodensity.evaluation.bootstrap import BootstrapSpec
from mammodensity.evaluation.figures import evaluate_table, figures_of_merit
from mammodensity.evaluation.infn_tables import INFN_FILES, read_infn_tables, write_infn_tables
from mammodensity.evaluation.labels import match, read_labels
from mammodensity.scores import fuse
from mammodensity.studies.further import further_figures
from mammodensity.studies.groups import view_subsets
from mammodensity.terms import LEVELS, PROJECTIONS

TABLE = {  # accuracy, macro recall, macro precision, linear kappa, quadratic kappa, dense accuracy
    "CC_R": (0.773438, 0.788162, 0.764161, 0.731456, 0.805387, 0.867188),
    "CC_L": (0.750000, 0.747350, 0.759590, 0.713085, 0.811765, 0.851562),
    "MLO_R": (0.742188, 0.699167, 0.716731, 0.692786, 0.785555, 0.875000),
    "MLO_L": (0.718750, 0.751788, 0.694816, 0.672956, 0.762572, 0.843750),
    "right": (0.804688, 0.793441, 0.793947, 0.768471, 0.837150, 0.890625),
    "left": (0.765625, 0.755878, 0.772869, 0.714882, 0.790393, 0.859375),
    "subject": (0.812500, 0.812672, 0.802564, 0.778944, 0.844800, 0.890625),
}
COLUMNS = ("accuracy", "macro_recall", "macro_precision", "linear_kappa", "quadratic_kappa", "dense_accuracy")


def shared_data() -> Path:
    """Folder of local test material, which is not part of the project."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MAMMODENSITY_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no local test material at {folder} (set MAMMODENSITY_TEST_DATA to name another folder)")
    return folder


@pytest.fixture(scope="module")
def folder():
    return shared_data() / "origin" / "predictions"


@pytest.fixture(scope="module")
def labels(folder):
    return read_labels(folder / "labels.csv")


@pytest.fixture(scope="module")
def figures(folder, labels):
    return evaluate_table(read_infn_tables(folder), labels)


@pytest.mark.parametrize("level", LEVELS)
def test_published_figures(figures, level):
    found = [getattr(figures[level], name) for name in COLUMNS]
    assert found == pytest.approx(TABLE[level], abs=6e-7)


def test_subject_in_detail(figures):
    subject = figures["subject"]
    assert subject.n == 128
    assert subject.confusion == ((12, 2, 0, 0), (3, 40, 7, 1), (0, 6, 42, 2), (0, 0, 3, 10))
    assert subject.auc == pytest.approx(0.939, abs=5e-4)
    assert subject.nll == pytest.approx(0.546, abs=5e-4)
    assert subject.intervals["accuracy"] == pytest.approx((0.75, 0.875), abs=0.01)
    assert subject.undefined == {}


def test_other_fusion_methods(folder, labels):
    def accuracy(method):
        table = read_infn_tables(folder, method)
        return figures_of_merit(match(table, labels), table.scores["subject"], bootstrap=0).accuracy

    assert accuracy("geometric-mean") == pytest.approx(0.820, abs=5e-4)
    # 0.773 is the vote with ties left to the lower category; by their mean scores, as here, it is 0.8125.
    assert accuracy("vote") == 0.8125
    table = read_infn_tables(folder, "vote")
    shares = np.round(table.scores["subject"] * 4) / 4
    assert (shares == shares.max(axis=1, keepdims=True)).sum(axis=1).tolist().count(2) == 18  # 14 % tie
    lower = figures_of_merit(match(table, labels), shares, bootstrap=0)
    assert lower.accuracy == pytest.approx(0.773, abs=5e-4)
    assert (shares.max(axis=1) == 1).mean() == pytest.approx(0.61, abs=0.005)


def test_each_more_view_helps(folder, labels):
    table = read_infn_tables(folder)
    reference = match(table, labels)
    views = np.stack([table.scores[view] for view in PROJECTIONS], axis=1)
    for count, published in zip((1, 2, 3, 4), (0.746, 0.777, 0.799, 0.812), strict=True):
        accuracies = [
            figures_of_merit(reference, fuse(views[:, chosen]), bootstrap=0).accuracy
            for chosen in itertools.combinations(range(4), count)
        ]
        assert np.mean(accuracies) == pytest.approx(published, abs=6e-4)


def test_written_files_are_the_origins_to_the_byte(folder, labels, tmp_path):
    table = read_infn_tables(folder)
    write_infn_tables(tmp_path, table.exam_ids, {view: table.scores[view] for view in PROJECTIONS}, labels)
    for name in INFN_FILES.values():
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert read_labels(tmp_path / "rows.csv") == labels


def test_mean_accuracy_by_number_of_views(folder, labels):
    table = read_infn_tables(folder)
    found = view_subsets(table, match(table, labels), spec=BootstrapSpec(0))
    assert [round(one.figures["accuracy"].value, 3) for one in found.by_number.values()] == [0.746, 0.777, 0.799, 0.812]
    assert (found.n, len(found.combinations)) == (128, 15)


def test_reject_curve_and_the_challenges_names(folder, labels, figures):
    table = read_infn_tables(folder)
    found = further_figures(table, labels, spec=BootstrapSpec(0))
    first = found.reject.points[0]
    assert (first.wrong, first.two_or_more, first.dense_flips) == (24, 1, 14), "as the confusion matrix has it"
    assert found.reject.area_random == 0.8125
    assert found.reject.area.value == pytest.approx(0.8916, abs=5e-5)
    challenge = found.challenge["overall"].figures
    assert challenge["linear_kappa"].value == pytest.approx(figures["subject"].linear_kappa)
    assert challenge["auc"].value == pytest.approx(figures["subject"].dense_auc)
    assert challenge["avg_lin_dist"].value == pytest.approx(-25 / 128)
